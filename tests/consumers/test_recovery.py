"""Recovery: snapshots and the blocks after them give back the partition bit for bit, or the difference is seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import recovery
from consumers.keeping import Taken
from consumers.ledger import Head, Ledger
from consumers.roster import Seat
from consumers.snapshots import encode_chunk, holds
from models.blocks import decode_block, encode_block
from tests.consumers.living import CHUNK_SLOTS, new_live, recovered, uninterrupted, walks
from tests.streams import FORM, Stream, cuts_of, stream_of, streams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.consumers.conftest import Store

pytestmark = pytest.mark.services


_models = iter(f"recovery-{i}" for i in range(10**9))


@pytest.fixture(scope="module", autouse=True)
def _clean(redis_store: Store) -> Iterator[None]:
    yield
    for key in redis_store.client.scan_iter("killick:{recovery-*"):
        redis_store.client.delete(key)


actions = st.lists(
    st.tuples(
        st.integers(1, 9),
        st.sampled_from(("", "publish", "publish", "seat", "confirm")),
        st.lists(st.sampled_from((0, 2, 4)), max_size=2, unique=True),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60)
@given(stream=streams(most=60), plan=actions)
def test_recovery_after_any_history_gives_the_same_bits(
    redis_store: Store, stream: Stream, plan: list[tuple[int, str, list[int], bool]]
) -> None:
    """Random blocks, marks, snapshots at different offsets, trims, and a shadow that joins in between."""
    live = new_live(redis_store, next(_models))
    for size, action, firsts, trims in plan:
        end = min(live.at + size, len(stream))
        if end > live.at:
            live.take(stream, live.at, end)
        if action == "publish":
            live.publish()
            live.snapshot(firsts)
        if action == "confirm":
            live.publish()
            live.confirm()
        if action == "seat" and len(live.partition.roster) == 1:
            live.seat([Seat(1, "incumbent", 0, 0), Seat(2, "shadow", live.at, live.at)])
        if trims:
            live.trim()
        partition, replayed, _ = recovered(live.ledger)
        assert partition.names == live.partition.names
        assert partition.digest() == live.partition.digest()
        assert not any(one.mismatch for one in replayed)
    head = live.ledger.head()
    assert head is not None
    for one in replayed:
        if len(one.block) and one.block.end > head.mark:
            for version, issued in one.folded.forecasts.items():
                assert issued.tobytes() == live.forecasts[version][one.block.end]


def test_a_long_stream_with_snapshots_and_trims(redis_store: Store) -> None:
    """2,000 records by the plan's turns: few blocks are held, and recovery folds only those after the snapshots."""
    live = new_live(redis_store, next(_models))
    stream = walks(2_000)
    rng = np.random.default_rng(1)
    trimmed = 0
    for begin, end in cuts_of(2_000, rng.integers(0, 2_000, 700).tolist()):
        live.take(stream, begin, end)
        live.publish()
        live.snapshot(live.plan.turn(end - begin, len(live.partition.names)))
        live.confirm()
        if rng.random() < 0.1:
            trimmed += live.trim()
    partition, replayed, after = recovered(live.ledger)
    assert partition.digest() == live.partition.digest()
    assert trimmed > 200
    assert 1_900 < after < 2_000
    assert 0 < len(replayed) < 60
    assert uninterrupted(live, stream, [Seat(1, "incumbent", 0, 0)]).digest() == partition.digest()


def test_blocks_are_folded_together_and_told_apart_again(redis_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks are merged, each comes back with its own pairs, forecasts and end."""
    live = new_live(redis_store, next(_models))
    stream = walks(120)
    for begin, end in cuts_of(120, range(0, 120, 3)):
        live.take(stream, begin, end)
    for merged in (1, 10, 10_000):
        monkeypatch.setattr(recovery, "MERGED_OBSERVATIONS", merged)
        partition, replayed, _ = recovered(live.ledger)
        assert partition.digest() == live.partition.digest()
        assert [one.block.end for one in replayed] == [0, *range(3, 121, 3)]
        for one in replayed[1:]:
            assert one.folded.forecasts[1].tobytes() == live.forecasts[1][one.block.end]
            assert one.folded.block.pairs[1].tobytes() == one.block.pairs[1].tobytes()
            assert not one.mismatch


def alter(store: Store, ledger: Ledger, end: int, change: Any) -> None:
    """Replace the block before `end` in the store, and keep all others in their order."""
    key = ledger._key("blocks")
    entries: Any = store.client.xrange(key)
    store.client.delete(key)
    for entry, fields in entries:
        data = fields[b"b"]
        offset = int(entry.partition(b"-")[0])
        if offset == end and len(decode_block(data, offset)):
            data = encode_block(change(decode_block(data, offset)))
        store.client.xadd(key, {"b": data}, id=entry)


def with_pairs(block: Any, version: int, at: tuple[int, int]) -> Any:
    """The block with the lowest bit of one stored pair turned."""
    pairs = block.pairs[version].copy()
    pairs.view(np.uint32)[at] ^= 1
    return replace(block, pairs={**block.pairs, version: pairs})


@pytest.mark.parametrize(
    "change",
    [
        lambda block: with_pairs(block, 1, (3, 1)),
        lambda block: with_pairs(block, 2, (0, 0)),
        lambda block: replace(block, checksums={**block.checksums, 1: block.checksums[1] ^ 1}),
        lambda block: replace(block, checksums={**block.checksums, 2: block.checksums[2] ^ 1}),
    ],
    ids=["a pair", "a pair of the shadow", "a checksum", "a checksum of the shadow"],
)
def test_other_bits_than_were_committed_are_seen(redis_store: Store, change: Any) -> None:
    """One bit of one stored pair, or of the checksum of the forecasts: that block is said to differ, no other."""
    live = new_live(redis_store, next(_models))
    live.seat([Seat(1, "incumbent", 0, 0), Seat(2, "shadow", 0, 0)])
    stream = walks(60)
    for begin, end in cuts_of(60, range(0, 60, 5)):
        live.take(stream, begin, end)
    assert not any(one.mismatch for one in recovered(live.ledger)[1])
    alter(redis_store, live.ledger, 40, change)
    assert [one.block.end for one in recovered(live.ledger)[1] if one.mismatch] == [40]


def test_an_altered_observation_is_seen(redis_store: Store) -> None:
    """Another value in a stored block gives other forecasts than the checksum says."""
    live = new_live(redis_store, next(_models))
    stream = walks(60)
    for begin, end in cuts_of(60, range(0, 60, 5)):
        live.take(stream, begin, end)

    def change(block: Any) -> Any:
        values = block.values.copy()
        values[2, 0] += 0.5
        return replace(block, values=values)

    alter(redis_store, live.ledger, 20, change)
    mismatched = [one.block.end for one in recovered(live.ledger)[1] if one.mismatch]
    assert mismatched[0] == 20


def test_an_altered_snapshot_is_seen(redis_store: Store) -> None:
    """One bit of a carried state in a snapshot: the first block after it that needs it differs."""
    live = new_live(redis_store, next(_models))
    stream = walks(60, series=2)
    live.take(stream, 0, 30)
    live.publish()
    live.snapshot([0])
    live.partition.carried[1].network[0, 0] += 0.5
    altered = encode_chunk(live.partition, 0, CHUNK_SLOTS)
    live.partition.carried[1].network[0, 0] -= 0.5
    live.take(stream, 30, 40)
    live.write([Taken(0, 30, live.newest_step, holds(live.partition), *altered)])
    assert [one.mismatch for one in recovered(live.ledger)[1]] == [True]


def test_a_version_is_not_stepped_before_its_start(redis_store: Store) -> None:
    """Blocks are not merged over a start: the shadow's state is that of the blocks since it was seated."""
    live = new_live(redis_store, next(_models))
    stream = walks(40)
    live.take(stream, 0, 10)
    live.take(stream, 10, 20)
    live.seat([Seat(1, "incumbent", 0, 0), Seat(2, "shadow", 20, 20)])
    live.take(stream, 20, 30)
    live.take(stream, 30, 40)
    partition, replayed, _ = recovered(live.ledger)
    assert partition.digest() == live.partition.digest()
    seen = {one.block.end: set(one.folded.forecasts) for one in replayed if len(one.block)}
    assert seen == {10: {1}, 20: {1}, 30: {1, 2}, 40: {1, 2}}


def test_a_version_that_comes_back_starts_from_zero_again(redis_store: Store) -> None:
    """A snapshot that holds its state from before it left is not mistaken for the state since its new start."""
    live = new_live(redis_store, next(_models))
    stream = walks(60, series=4)
    live.seat([Seat(1, "incumbent", 0, 0), Seat(2, "shadow", 0, 0)])
    live.take(stream, 0, 20)
    live.publish()
    live.snapshot([0])  # the other chunk is replayed from the beginning
    live.seat([Seat(1, "incumbent", 0, 0), Seat(2, "shadow", 0, 0, 20)])
    live.seat([Seat(1, "incumbent", 0, 0), Seat(2, "shadow", 0, 0, 20), Seat(2, "shadow", 20, 20)])
    for end in (20, 30, 40):
        live.take(stream, live.at, end)
        partition, replayed, _ = recovered(live.ledger)
        assert partition.digest() == live.partition.digest()
        assert not any(one.mismatch for one in replayed)


def test_each_series_is_replayed_from_its_own_snapshot(redis_store: Store) -> None:
    """Chunks stand at different offsets; a series is folded once for each observation after its own."""
    live = new_live(redis_store, next(_models))
    stream = stream_of([(f"s{i % 6}", 100 + i // 6, (float(i % 7), 1.0)) for i in range(60)])
    for end in (20, 40, 60):
        live.take(stream, end - 20, end)
        live.publish()
        live.snapshot([0] if end == 20 else [2] if end == 40 else [])
    partition, replayed, after = recovered(live.ledger)
    assert partition.digest() == live.partition.digest()
    assert after == 0
    folded = Counter(slot for one in replayed for slot in one.block.slot.tolist())
    counted = {slot: sum(1 for i in range(60) if i % 6 == slot and i >= (20, 40, 0)[slot // 2]) for slot in range(6)}
    assert folded == counted


def test_an_empty_ledger_recovers_to_nothing(redis_store: Store) -> None:
    """Taken, and nothing more."""
    ledger = Ledger(redis_store.client, next(_models), 0, "mine")
    head = ledger.take(start=7, form=FORM.digest(), topic_id="", partitions=1, chunk_slots=CHUNK_SLOTS)
    assert isinstance(head, Head)
    partition, replayed, _ = recovered(ledger)
    assert (partition.names, replayed, partition.roster) == ([], [], ())


def test_recovery_goes_on_as_if_nothing_had_been(redis_store: Store) -> None:
    """Stopped after every block, recovered, and gone on: forecasts, counters and digest as without a stop."""
    stream = walks(90, seed=3)
    cuts = cuts_of(90, range(0, 90, 7))
    steady = new_live(redis_store, next(_models))
    for begin, end in cuts:
        steady.take(stream, begin, end)
    halting = new_live(redis_store, next(_models))
    for number, (begin, end) in enumerate(cuts):
        halting.take(stream, begin, end)
        if number % 3 == 0:
            halting.publish()
            halting.snapshot([0, 2, 4] if number % 2 else [2])
        halting.partition, _, _ = recovered(halting.ledger)
    assert halting.partition.digest() == steady.partition.digest()
    assert halting.forecasts == steady.forecasts
    assert halting.ledger.counters() == steady.ledger.counters()
