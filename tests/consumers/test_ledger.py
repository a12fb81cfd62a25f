"""The ledger's contract, on Redis, on Valkey and on a cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from consumers.ledger import (
    LIBRARY,
    READ_BLOCKS,
    Commit,
    Head,
    Ledger,
    PartitionState,
    RawRecord,
    Refused,
    block_position,
)
from consumers.roster import Seat
from consumers.stream import Refusal
from models.blocks import Block, empty_block, encode_block
from models.errors import FencedError, LedgerError, OffsetConflict, ServiceUnreachable
from models.registry import Registry
from models.server import calling
from tests.consumers.test_ledger_keeping import block_of, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.server import Client
    from tests.consumers.conftest import Store

pytestmark = pytest.mark.services
TAKEN: dict[str, Any] = {"form": "f00d", "topic_id": "topic-1", "partitions": 4, "chunk_slots": 64}
SEATS = (Seat(1, "incumbent", 0, 0), Seat(2, "shadow", 5, 9, 20))


def taken(store: Store, model: str, start: int = 0, who: str = "mine") -> Ledger:
    """A ledger that is ours."""
    ledger = Ledger(store.client, model, 3, who)
    ledger.take(start=start, **TAKEN)
    return ledger


def refused_at(offset: int, record: RawRecord | None = None) -> Refused:
    """A refusal of the record at this offset."""
    return Refused(Refusal(offset, "late", "too läte"), record or RawRecord(b"k", b"v%d" % offset, (), 5))


def contents(ledger: Ledger) -> dict[str, Any]:
    """Everything that can be read of a ledger, for comparing."""
    return {
        "head": ledger.head(),
        "blocks": [(block.end, encode_block(block)) for block in ledger.blocks()],
        "history": [(block.end, encode_block(block)) for block in ledger.history()],
        "names": ledger.names(),
        "refusals": ledger.refusals(),
        "counters": ledger.counters(),
        "roster": ledger.roster(),
        "state": ledger.state(),
        "index": ledger.snapshot_index(),
        "snapshots": [calling(ledger._client.hgetall, ledger._key(name)) for name in ("series", "carried", "needs")],
    }


def everything(start: int, end: int) -> Commit:
    """A commit that changes all that a commit can change."""
    return Commit(
        start,
        block_of(start, end),
        history=block_of(start, end, seed=9),
        new_names=("a", "b"),
        refused=[refused_at(start), refused_at(end - 1)],
        counts={"observations": end - start, "pairs": 1},
        roster=SEATS,
        generation=6,
    )


# — taking —


def test_an_empty_ledger_has_no_head_and_begins_where_it_is_told(store: Store, model: str) -> None:
    """Before it is taken there is nothing; then next and mark stand at the start."""
    ledger = Ledger(store.client, model, 3, "mine")
    assert ledger.head() is None
    head = ledger.take(start=17, **TAKEN)
    assert head == Head(17, 17, 0, 64, 17, "mine", "mine", form="f00d", topic_id="topic-1", partitions="4")
    assert ledger.names() == []
    assert ledger.roster() == ()
    assert ledger.counters() == {}
    assert list(ledger.blocks()) == []


def test_taking_again_changes_the_token_and_nothing_else(store: Store, model: str) -> None:
    """Where it stands, and how many slots a chunk has, were settled by who took it first."""
    ledger = taken(store, model, start=5)
    ledger.commit(Commit(5, block_of(5, 8)))
    before = ledger.head()
    assert before is not None
    again = Ledger(store.client, model, 3, "theirs").take(start=99, **TAKEN | {"chunk_slots": 7})
    assert again == msgspec.structs.replace(before, **dict.fromkeys(("token", "last"), "theirs"))
    assert (again.next, again.mark, again.first, again.chunk_slots) == (8, 5, 5, 64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"form": "beef"}, r"made for form f00d, now it is beef: .*\[network\] looks back .*another model name"),
        ({"topic_id": "topic-2"}, "made for topic_id topic-1, now it is topic-2: .*deleted and made anew"),
        ({"partitions": 8}, "made for partitions 4, now it is 8: .*other partitions"),
    ],
)
def test_taking_for_something_else_is_refused_with_the_cure(
    store: Store, model: str, changes: dict[str, Any], words: str
) -> None:
    """Another form, topic or number of partitions: refused, and whoever holds it keeps it."""
    ledger = taken(store, model)
    with pytest.raises(LedgerError, match=words) as refused:
        Ledger(store.client, model, 3, "theirs").take(start=0, **TAKEN | changes)
    assert not isinstance(refused.value, FencedError | OffsetConflict)
    ledger.commit(Commit(0, block_of(0, 1)))


def test_what_a_broker_does_not_tell_is_not_compared(store: Store, model: str) -> None:
    """No topic id, as from the embedded broker: nothing to differ from; one that is told later is kept."""
    ledger = Ledger(store.client, model, 3, "mine")
    ledger.take(start=0, **TAKEN | {"topic_id": ""})
    ledger.take(start=0, **TAKEN | {"topic_id": "topic-2"})
    ledger.take(start=0, **TAKEN | {"topic_id": ""})
    with pytest.raises(LedgerError, match="topic_id topic-2"):
        ledger.take(start=0, **TAKEN)


# — committing —


def test_a_commit_is_all_there(store: Store, model: str) -> None:
    """Block, history, names, refusals, counters, roster and generation, as they were given; the mark stays."""
    ledger = taken(store, model, start=10)
    record = RawRecord(None, b"\xff\0", (("h\u00e9", None), ("h", b"\xfe")), -1)
    change = replace(everything(10, 14), refused=[refused_at(11, record), refused_at(13)])
    ledger.commit(change)
    found = contents(ledger)
    assert found["blocks"] == [(14, encode_block(change.block))]
    assert change.history is not None
    assert found["history"] == [(14, encode_block(change.history))]
    assert found["names"] == ["a", "b"]
    assert found["refusals"] == change.refused
    assert found["counters"] == {"observations": 4, "pairs": 1}
    assert found["roster"] == SEATS
    head = found["head"]
    assert (head.next, head.seq, head.mark, head.generation) == (14, 1, 10, 6)


def test_commits_follow_each_other(store: Store, model: str) -> None:
    """Names go on, counters add up, blocks come back in order from any offset on."""
    ledger = taken(store, model)
    for start in range(0, 3 * READ_BLOCKS * 2, 2):
        ledger.commit(Commit(start, block_of(start, start + 2), new_names=[f"s{start}"], counts={"n": 2}))
    ends = list(range(2, 6 * READ_BLOCKS + 1, 2))
    assert [block.end for block in ledger.blocks()] == ends
    assert [block.end for block in ledger.blocks(until=100)] == [end for end in ends if end <= 100]
    assert [block.end for block in ledger.blocks(50, 60)] == [52, 54, 56, 58, 60]
    assert [block.end for block in ledger.blocks(after=100)] == [end for end in ends if end > 100]
    assert [block.end for block in ledger.blocks(after=ends[-1])] == []
    assert [block.end for block in ledger.first_blocks(2)] == ends[:2]
    assert ledger.block_count() == len(ends)
    assert ledger.series_count() == len(ends)
    assert ledger.names()[:2] == ["s0", "s2"]
    assert ledger.counters() == {"n": 2 * len(ends)}


def test_many_names_come_back_in_order(store: Store, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one read, and names of any text."""
    monkeypatch.setattr("consumers.ledger.READ_NAMES", 4)
    names = ["", "é", "a b", "\0", "🌧", "7", "-", "{x}"]
    ledger = taken(store, model)
    ledger.commit(Commit(0, block_of(0, 1), new_names=names))
    assert ledger.names() == names
    assert [ledger.names(begin) for begin in range(10)] == [names[begin:] for begin in range(10)]
    assert ledger.series_count() == 8


def test_a_commit_from_another_offset_is_refused_and_changes_nothing(store: Store, model: str) -> None:
    """Ahead, behind, or the same span with other content: OffsetConflict says where the ledger stands."""
    ledger = taken(store, model)
    ledger.commit(everything(0, 4))
    before = contents(ledger)
    for change in (Commit(6, block_of(6, 8)), Commit(2, block_of(2, 6)), Commit(0, block_of(0, 4, seed=5))):
        with pytest.raises(OffsetConflict, match="stands at 4") as refused:
            ledger.commit(change)
        assert refused.value.next_offset == 4
    assert contents(ledger) == before


@pytest.mark.parametrize(
    "part", ["block", "history", "new_names", "refused", "counts", "roster"], ids=lambda part: f"other-{part}"
)
def test_a_retry_with_other_content_is_no_retry(store: Store, model: str, part: str) -> None:
    """Another commit of the same span is refused, whatever part of it differs."""
    ledger = taken(store, model)
    change = everything(0, 4)
    other: dict[str, Any] = {
        "block": block_of(0, 4, seed=5),
        "history": None,
        "new_names": ("a", "c"),
        "refused": [refused_at(0, RawRecord(b"k", b"other", (), 5)), refused_at(3)],
        "counts": {"observations": 4, "pairs": 2},
        "roster": SEATS[:1],
    }
    ledger.commit(change)
    with pytest.raises(OffsetConflict):
        ledger.commit(replace(change, **{part: other[part]}))


WRITES: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.commit(everything(4, 8)),
    lambda ledger: ledger.commit(everything(0, 4)),
    lambda ledger: ledger.set_mark(4),
    lambda ledger: ledger.write_snapshots([snapshot_of(0, 0, b"x")], 0),
    lambda ledger: ledger.note(PartitionState("running", 3)),
    lambda ledger: ledger.trim(4),
]


@pytest.mark.parametrize("write", WRITES)
def test_who_lost_the_partition_writes_nothing(store: Store, model: str, write: Callable[[Ledger], object]) -> None:
    """After another took it, every write is fenced, a retry of what was done before too."""
    old = taken(store, model)
    old.commit(everything(0, 4))
    new = taken(store, model, who="theirs")
    before = contents(new)
    with pytest.raises(FencedError, match="partition 3 was taken by another consumer"):
        write(old)
    assert contents(new) == before
    new.commit(Commit(4, block_of(4, 6)))


def test_nobody_writes_before_taking(store: Store, model: str) -> None:
    """A ledger without a head is fenced, not begun by a write; an empty token is no key to it."""
    for token in ("mine", ""):
        for write in WRITES:
            with pytest.raises(FencedError):
                write(Ledger(store.client, model, 3, token))
    assert Ledger(store.client, model, 3).head() is None


def test_a_roster_commit_may_come_at_the_same_offset(store: Store, model: str) -> None:
    """Empty blocks at one offset, told apart by their sequence; going back to an earlier roster counts too."""
    ledger = taken(store, model)
    ledger.commit(Commit(0, block_of(0, 4)))
    one, two = SEATS[:1], SEATS[1:]
    for roster in (one, two, one):
        ledger.commit(Commit(4, empty_block(4, 1), roster=roster, generation=len(roster)))
        assert ledger.roster() == roster
    ids = [_id(entry) for entry in _entries(store.client, model)]
    assert ids == ["4-1", "4-2", "4-3", "4-4"]
    assert [(block.start, block.end, len(block)) for block in ledger.blocks(after=3)] == [(0, 4, 4)] + [(4, 4, 0)] * 3
    ledger.commit(Commit(4, block_of(4, 5)))
    assert _id(_entries(store.client, model)[-1]) == "5-1"


def _entries(client: Client, model: str) -> list[Any]:
    found: Any = client.xrange(f"killick:{{{model}/3}}:blocks")
    return list(found)


def _id(entry: Any) -> str:
    return str(entry[0].decode())


def test_a_roster_can_be_the_first_thing(store: Store, model: str) -> None:
    """At offset 0, where no stream id of all zeros is allowed."""
    ledger = taken(store, model)
    ledger.commit(Commit(0, empty_block(0, 1), roster=SEATS))
    assert ledger.roster() == SEATS
    assert [block.end for block in ledger.blocks()] == [0]


def test_a_block_of_only_refusals_is_not_stored_but_moves_the_offset(store: Store, model: str) -> None:
    """Nothing to replay; refusals and counters are kept."""
    ledger = taken(store, model)
    nothing = replace(empty_block(3, 1), start=0)
    ledger.commit(Commit(0, nothing, refused=[refused_at(0), refused_at(2)], counts={"refused.late": 2}))
    head = ledger.head()
    assert head is not None
    assert head.next == 3
    assert ledger.block_count() == 0
    assert [refused.refusal.offset for refused in ledger.refusals()] == [0, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Commit(4, replace(empty_block(3, 1), start=4)), "next offset is before"),
        (replace(everything(4, 8), refused=[refused_at(6), refused_at(5)]), "refusal"),
        (replace(everything(4, 8), refused=[refused_at(5), refused_at(5)]), "refusal"),
        (replace(everything(4, 8), refused=[refused_at(3)]), "refusal"),
        (replace(everything(4, 8), refused=[refused_at(8)]), "refusal"),
    ],
)
def test_an_impossible_commit_is_refused_whole(store: Store, model: str, change: Commit, words: str) -> None:
    """Every check comes before the first write: a function does not roll back."""
    ledger = taken(store, model)
    ledger.commit(everything(0, 4))
    before = contents(ledger)
    with pytest.raises(LedgerError, match=words):
        ledger.commit(change)
    assert contents(ledger) == before
    ledger.commit(everything(4, 8))


def test_a_commit_that_is_too_large_is_refused(store: Store, model: str) -> None:
    """More than two megabytes in one call stop a server for too long; nothing is written."""
    ledger = taken(store, model)
    with pytest.raises(LedgerError, match=r"a commit of .* bytes, the limit is 2000000"):
        ledger.commit(Commit(0, block_of(0, 120_000)))
    head = ledger.head()
    assert head is not None
    assert head.next == 0


# — mark and refusals —


def test_refusals_wait_until_the_mark_has_passed_them(store: Store, model: str) -> None:
    """What lies before the mark was delivered; the one at the mark was not."""
    ledger = taken(store, model)
    ledger.commit(Commit(0, block_of(0, 9), refused=[refused_at(offset) for offset in (1, 4, 5)]))
    for mark, left in ((1, [1, 4, 5]), (2, [4, 5]), (4, [4, 5]), (5, [5]), (9, [])):
        ledger.set_mark(mark)
        assert [refused.refusal.offset for refused in ledger.refusals()] == left
        head = ledger.head()
        assert head is not None
        assert head.mark == mark
    ledger.commit(Commit(9, block_of(9, 12), refused=[refused_at(9)]))
    assert [refused.refusal.offset for refused in ledger.refusals()] == [9]


def test_the_mark_is_never_ahead_and_never_goes_back(store: Store, model: str) -> None:
    """Neither beyond what was committed, nor behind what was said to be published."""
    ledger = taken(store, model)
    ledger.commit(Commit(0, block_of(0, 5)))
    with pytest.raises(LedgerError, match="mark is ahead"):
        ledger.set_mark(6)
    ledger.set_mark(5)
    ledger.set_mark(5)
    with pytest.raises(LedgerError, match="mark"):
        ledger.set_mark(4)
    head = ledger.head()
    assert head is not None
    assert head.mark == 5


# — its neighbours, and the server —


def test_partitions_and_models_do_not_touch_each_other(store: Store, model: str) -> None:
    """Another partition, another model and the registry of the same model keep to their own keys."""
    ledger = taken(store, model)
    others = [Ledger(store.client, model, 4, "x"), Ledger(store.client, model + "x", 3, "x")]
    for other in others:
        other.take(start=50, **TAKEN)
    ledger.commit(everything(0, 4))
    Registry(store.client, model).set_partitions(4)
    for other in others:
        head = other.head()
        assert head is not None
        assert (head.next, other.names(), other.counters()) == (50, [], {})


def test_functions_are_loaded_again_after_the_server_forgot_them(store: Store, model: str) -> None:
    """A flush, or a server restored without its functions, costs one more call."""
    ledger = taken(store, model)
    store.client.function_flush()
    ledger.commit(everything(0, 4))
    store.client.function_flush()
    ledger.commit(everything(4, 8))
    store.client.function_flush()
    ledger.set_mark(8)
    head = ledger.head()
    assert head is not None
    assert (head.next, head.mark) == (8, 8)
    assert LIBRARY.encode() in str(store.client.function_list()).encode()


def test_a_dead_server_is_said_to_be_unreachable(mortal_store: Store, model: str) -> None:
    """Every call raises ServiceUnreachable with the cure; back with its data, the ledger goes on."""
    client = mortal_store.another_client(timeout_s=1)
    ledger = Ledger(client, model, 3, "mine")
    ledger.take(start=0, **TAKEN)
    ledger.commit(everything(0, 4))
    mortal_store.server.kill()
    calls: list[Callable[[], object]] = [
        ledger.head,
        ledger.names,
        ledger.roster,
        ledger.counters,
        ledger.refusals,
        ledger.block_count,
        lambda: list(ledger.blocks()),
        ledger.state,
        ledger.snapshot_index,
        lambda: list(ledger.series_snapshots([(0, 0)])),
        lambda: ledger.read_blocks(block_position(-1), 4, 9),
        lambda: ledger.commit(everything(4, 8)),
        lambda: ledger.set_mark(4),
        lambda: ledger.take(start=0, **TAKEN),
    ]
    for call in calls:
        with pytest.raises(ServiceUnreachable, match=r"redis\.url") as refused:
            call()
        assert refused.value.retriable
    mortal_store.server.restart()
    _until_it_answers(ledger)
    ledger.commit(everything(4, 8))
    head = ledger.head()
    assert head is not None
    assert head.next == 8
    client.close()


def _until_it_answers(ledger: Ledger) -> None:
    """A cluster needs a moment to believe in itself again: `ServiceUnreachable` says to try once more."""
    import time

    deadline = time.monotonic() + 10
    while True:
        try:
            ledger.head()
        except ServiceUnreachable:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_a_server_that_can_take_no_writes_is_unreachable_for_now(mortal_store: Store, model: str) -> None:
    """Out of memory, or a replica: worth waiting for, so retriable, and nothing is written."""
    ledger = taken(mortal_store, model)
    ledger.commit(everything(0, 4))
    mortal_store.client.config_set("maxmemory", "1")
    with pytest.raises(ServiceUnreachable, match="can't take commands now"):
        ledger.commit(everything(4, 8))
    head = ledger.head()
    assert head is not None
    assert head.next == 4
    mortal_store.client.config_set("maxmemory", "0")
    ledger.commit(everything(4, 8))


def test_damaged_contents_are_a_ledger_error(store: Store, model: str) -> None:
    """A key of another type, or bytes that are no block: LedgerError, not a client's own."""
    ledger = taken(store, model)
    ledger.commit(everything(0, 4))
    store.client.xadd(f"killick:{{{model}/3}}:blocks", {"b": b"\x09rubbish"}, id="9-1")
    with pytest.raises(LedgerError, match="before offset 9 has format 9"):
        list(ledger.blocks())
    store.client.set(f"killick:{{{model}/4}}:head", "no hash")
    with pytest.raises(LedgerError, match="Redis refused"):
        Ledger(store.client, model, 4, "mine").head()


def test_a_pair_costs_at_most_64_bytes(store: Store, model: str) -> None:
    """Blocks of two observations, five leads, one version, 200,000 slots: what the server says it holds."""
    ledger = taken(store, model)
    rng = np.random.default_rng(0)
    blocks = 3_000
    for start in range(0, 2 * blocks, 2):
        block = Block(
            start + 10**7,
            start + 10**7 + 2,
            np.arange(start, start + 2) + 10**7,
            rng.integers(0, 200_000, 2),
            np.full(2, 400_000 + start // 100),
            rng.normal(size=(2, 1)),
            np.ones((2, 1), np.bool_),
            rng.random(2).astype(np.float32),
            {1: rng.normal(size=(2, 5)).astype(np.float32)},
            {1: int(rng.integers(0, 2**32))},
        )
        store.client.xadd(f"killick:{{{model}/3}}:blocks", {"b": encode_block(block)}, id=f"{block.end}-1")
    used: Any = store.client.memory_usage(f"killick:{{{model}/3}}:blocks", samples=0)
    assert len(list(ledger.blocks())) == blocks
    assert used / (2 * blocks) <= 64
