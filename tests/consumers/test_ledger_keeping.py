"""What a ledger keeps beside its blocks: snapshots, what may be trimmed, what its consumer says; on every store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from consumers.ledger import Commit, Ledger, PartitionState, SnapshotWrite, block_position
from models.blocks import Block, empty_block
from models.errors import LedgerError, OffsetConflict
from models.server import calling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.consumers.conftest import Store

pytestmark = pytest.mark.services


def block_of(start: int, end: int, seed: int = 0) -> Block:
    """A full block of one feature and one version with two leads."""
    n = end - start
    rng = np.random.default_rng(seed + start)
    return Block(
        start,
        end,
        np.arange(start, end),
        rng.integers(0, 3, n),
        np.arange(start, end) + 1_000,
        rng.normal(size=(n, 1)),
        np.ones((n, 1), np.bool_),
        np.ones(n, np.float32),
        {1: rng.normal(size=(n, 2)).astype(np.float32)},
        {1: 17},
    )


def snapshot_of(first: int, offset: int, data: bytes = b"", forget: Sequence[int] = ()) -> SnapshotWrite:
    """A snapshot on its way; its entry in the index says where it stands."""
    carried = b"carried " + data if data else b""
    return SnapshotWrite(first, offset, b"%d@%d" % (first, offset), data, carried, forget)


def filled(store: Store, model: str, blocks: int) -> Ledger:
    """A ledger of so many blocks of one observation."""
    ledger = Ledger(store.client, model, 3, "mine")
    ledger.take(start=0, form="f00d", topic_id="topic-1", partitions=4, chunk_slots=64)
    for start in range(blocks):
        ledger.commit(Commit(start, block_of(start, start + 1)))
    return ledger


def test_older_series_state_stays_until_it_is_forgotten(store: Store, model: str) -> None:
    """Of a chunk there is one carried state, the newest, and series state by offset."""
    ledger = filled(store, model, 9)
    ledger.set_mark(9)
    ledger.write_snapshots([snapshot_of(0, 3, b"old"), snapshot_of(64, 4, b"\0\xff")], 0)
    ledger.write_snapshots([snapshot_of(0, 6, b"newer")], 0)
    assert dict(ledger.series_snapshots([(0, 3), (64, 4)])) == {0: b"old", 64: b"\0\xff"}
    assert dict(ledger.series_snapshots([(0, 6), (64, 5)])) == {0: b"newer", 64: None}
    assert dict(ledger.carried_snapshots([0, 64, 128])) == {0: b"carried newer", 64: b"carried \0\xff", 128: None}
    assert ledger.snapshot_index() == {0: b"0@6", 64: b"64@4"}
    ledger.write_snapshots([snapshot_of(0, 8, b"newest", [3, 6])], 0)
    assert [dict(ledger.series_snapshots([(0, offset)]))[0] for offset in (3, 6, 8)] == [None, None, b"newest"]
    assert dict(ledger.series_snapshots([(64, 4)])) == {64: b"\0\xff"}, "another chunk's are not touched"


def test_an_entry_without_bytes_changes_the_index_alone(store: Store, model: str) -> None:
    """A chunk that did not change, or that is new; it may let older bytes go all the same."""
    ledger = filled(store, model, 9)
    ledger.set_mark(9)
    ledger.write_snapshots([snapshot_of(0, 3, b"old"), snapshot_of(0, 5, b"newer")], 0)
    ledger.write_snapshots([snapshot_of(0, 9, forget=[3]), snapshot_of(64, 9)], 0)
    assert ledger.snapshot_index() == {0: b"0@9", 64: b"64@9"}
    assert dict(ledger.carried_snapshots([0, 64])) == {0: b"carried newer", 64: None}
    assert [dict(ledger.series_snapshots([(0, offset)]))[0] for offset in (3, 5, 9)] == [None, b"newer", None]


def test_snapshots_are_never_ahead_of_the_mark(store: Store, model: str) -> None:
    """One ahead refuses the whole call: its blocks may still have to be published again."""
    ledger = filled(store, model, 9)
    ledger.set_mark(6)
    ledger.write_snapshots([snapshot_of(0, 6, b"old")], 2)
    with pytest.raises(OffsetConflict, match="ahead of the mark"):
        ledger.write_snapshots([snapshot_of(0, 5, b"newer", [6]), snapshot_of(64, 7, b"ahead")], 5)
    assert ledger.snapshot_index() == {0: b"0@6"}
    assert dict(ledger.series_snapshots([(0, 6)])) == {0: b"old"}
    assert calling(store.client.hgetall, ledger._key("needs")) == {b"snapshot": b"2"}


def test_nothing_is_trimmed_that_is_still_needed(store: Store, model: str) -> None:
    """Neither past the mark, nor what snapshots need, nor another reader; nothing before there are snapshots."""
    blocks = 1_000
    ledger = filled(store, model, blocks)
    needs = ledger._key("needs")

    def trimmed_to(offset: int) -> bool:
        """A server lets go of whole nodes of its tree, of some ninety of these blocks."""
        return offset - 120 < next(ledger.blocks()).end <= offset + 1

    assert ledger.trim(blocks) == 0
    ledger.set_mark(100)
    store.client.hset(needs, "monitor", blocks)
    ledger.trim(blocks)
    assert trimmed_to(100)
    ledger.set_mark(800)
    ledger.write_snapshots([snapshot_of(0, 750, b"x")], 700)
    assert ledger.trim(250) > 0
    assert trimmed_to(250)
    store.client.hset(needs, "monitor", 420)
    ledger.trim(blocks)
    assert trimmed_to(420)
    store.client.hdel(needs, "monitor")
    ledger.trim(blocks)
    assert trimmed_to(700)
    ledger.write_snapshots([snapshot_of(0, 800, b"x")], 800)
    ledger.trim(blocks)
    assert trimmed_to(800)
    assert [block.end for block in ledger.blocks(after=800)] == list(range(801, blocks + 1))


def test_blocks_are_read_on_from_a_place(store: Store, model: str) -> None:
    """A few at a time, empty ones of a roster too, up to an offset; later from there on, with what came since."""
    ledger = filled(store, model, 6)
    for _ in range(3):
        ledger.commit(Commit(6, empty_block(6, 1), roster=()))
    place = block_position(-1)
    ends = []
    for _ in range(4):
        blocks, place = ledger.read_blocks(place, 2, 5)
        ends.append([block.end for block in blocks])
    assert ends == [[1, 2], [3, 4], [5], []]
    assert [block.end for block in ledger.read_blocks(place, 9, 6)[0]] == [6] * 4
    ledger.commit(Commit(6, block_of(6, 9)))
    blocks, place = ledger.read_blocks(place, 9, 9)
    assert [(block.start, block.end) for block in blocks] == [(5, 6), (6, 6), (6, 6), (6, 6), (6, 9)]
    assert ledger.read_blocks(place, 9, 9) == ([], place)


@pytest.mark.parametrize("after", [-1, 0, 1, 3, 6, 7])
def test_a_place_is_after_all_blocks_that_end_there(store: Store, model: str, after: int) -> None:
    """Those that end at the offset are before it, empty ones among them."""
    ledger = filled(store, model, 6)
    ledger.commit(Commit(6, empty_block(6, 1), roster=()))
    ends = [block.end for block in ledger.blocks()]
    assert [block.end for block in ledger.read_blocks(block_position(after), 99, 99)[0]] == [
        e for e in ends if e > after
    ]


def test_what_a_consumer_says_is_there_for_people(store: Store, model: str) -> None:
    """The last word counts; before the first there is none."""
    ledger = filled(store, model, 1)
    assert ledger.state() is None
    for state in (
        PartitionState("spinning-up", 4, 2),
        PartitionState("diverged", 5, 2, "wröng"),
        PartitionState("running", 6),
    ):
        ledger.note(state)
        assert ledger.state() == Ledger(store.client, model, 3).state() == state


def test_a_ledger_of_another_format_is_refused_with_the_cure(store: Store, model: str) -> None:
    """An older killick wrote no format, a newer one another: neither is taken, nor changed."""
    ledger = filled(store, model, 1)
    key = ledger._key("head")
    for found, words in ((None, "format 1"), ("3", "format 3")):
        store.client.hdel(key, "format")
        if found is not None:
            store.client.hset(key, "format", found)
        before = calling(store.client.hgetall, key)
        with pytest.raises(LedgerError, match=rf"made for {words}, now it is 2: .*another model name.*killick produce"):
            Ledger(store.client, model, 3, "theirs").take(
                start=0, form="f00d", topic_id="topic-1", partitions=4, chunk_slots=64
            )
        assert calling(store.client.hgetall, key) == before
