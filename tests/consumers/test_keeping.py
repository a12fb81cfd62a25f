"""Keeping: snapshots are planned in proportion to what changes, and what a version in the past needs stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.keeping import (
    MAX_AT_ONCE,
    RECORDS_PER_SERIES,
    Chunk,
    Kept,
    SnapshotPlan,
    Taken,
    decode_index,
    unserved,
)
from consumers.roster import Span
from models.blocks import Block
from models.errors import LedgerError

if TYPE_CHECKING:
    from consumers.ledger import SnapshotWrite

DEPTH = 10


def touched(start: int, slots: list[int]) -> Block:
    """A block that changed these slots."""
    n = len(slots)
    columns = (np.arange(start, start + n), np.array(slots), np.zeros(n, np.int64))
    return Block(start, start + n, *columns, np.zeros((n, 1)), np.ones((n, 1), np.bool_))


def store(plan: SnapshotPlan, *some: Taken) -> list[SnapshotWrite]:
    """Tell the ledger of what is new and of these, one after the other."""
    writes = []
    for taken in [*plan.newborn(), *some]:
        write, chunk = plan.write(taken)
        plan.stored({taken.first: chunk})
        writes.append(write)
    return writes


def take(plan: SnapshotPlan, first: int, offset: int, step: int = 0, holds: frozenset[str] = frozenset()) -> list[int]:
    """Encode and store a chunk; the offsets of those that the ledger may forget."""
    plan.taken(first, offset)
    return list(store(plan, Taken(first, offset, step, holds, b"series", b"carried"))[-1].forget)


def turn(plan: SnapshotPlan, records: int, offset: int, series: int = 1) -> list[int]:
    """Encode and store whose turn it is."""
    chunks = plan.turn(records, series)
    for first in chunks:
        take(plan, first, offset)
    return chunks


def offsets(plan: SnapshotPlan, first: int = 0) -> list[int]:
    """Where there are snapshots of a chunk; what says that it was empty is not one."""
    return [kept.offset for kept in plan.index[first].kept if kept.stored]


# — whose turn it is —


def test_each_changed_chunk_is_written_once_while_every_passes() -> None:
    """Ten of a thousand chunks change all the time: ten are written in `every` records, the longest waiting first."""
    plan = SnapshotPlan(4, 1_000, DEPTH, {})
    written: list[int] = []
    for start in range(0, 2_000, 10):
        plan.note(touched(start, [4 * (i % 10) for i in range(10)]), 0)
        written += turn(plan, 10, start + 10)
    assert 18 <= len(written) <= 22
    assert written[:10] == [4 * i for i in range(10)]
    assert written[10:18] == written[:8]


def test_more_series_than_records_stretch_the_round() -> None:
    """With many series a round takes at least two records a series, so that snapshots cost a bounded share."""
    plan = SnapshotPlan(1, 10, DEPTH, {})
    written = 0
    for start in range(0, 4_000, 10):
        plan.note(touched(start, [slot % 1_000 for slot in range(start, start + 10)]), 0)
        written += len(turn(plan, 10, start + 10, series=1_000))
    assert 0 < written <= 4_000 / RECORDS_PER_SERIES + MAX_AT_ONCE


def test_few_are_written_at_once() -> None:
    """After a huge block no more than `MAX_AT_ONCE` chunks, the rest in later turns."""
    plan = SnapshotPlan(1, 10, DEPTH, {})
    plan.note(touched(0, list(range(100))), 0)
    assert len(plan.turn(10_000, 1)) == MAX_AT_ONCE


def test_nothing_that_did_not_change_is_written() -> None:
    """An idle chunk is encoded once, then only confirmed."""
    plan = SnapshotPlan(4, 10, DEPTH, {})
    plan.note(touched(0, [0, 5]), 0)
    assert sorted(turn(plan, 10, 10)) == [0, 4]
    for offset in range(20, 100, 10):
        plan.note(touched(offset - 10, [0]), 0)
        assert turn(plan, 10, offset) == [0]


def test_idle_chunks_are_confirmed() -> None:
    """Once in `every` records an unchanged chunk's snapshot is said to be true here too; a changed one's is not."""
    plan = SnapshotPlan(4, 100, DEPTH, {first: Chunk((Kept(50, 50, 0),)) for first in (0, 4, 8)})
    assert plan.unchanged(120) == []
    plan.note(touched(120, [5]), 0)
    assert plan.unchanged(160) == [0, 8]
    assert plan.unchanged(161) == []
    assert plan.least() == 50
    store(plan, Taken(0, 160, 0), Taken(8, 160, 0))
    assert plan.least() == 50
    store(plan, Taken(4, 170, DEPTH, series=b"s"))
    assert [chunk.kept[0].until for chunk in plan.index.values()] == [160, 50, 160]
    store(plan, Taken(4, 180, 2 * DEPTH, series=b"s"))
    assert plan.least() == 160, "the snapshot from before is a depth old: the first one is not needed"


# — new chunks —


def test_an_empty_plan_needs_everything() -> None:
    """Nothing is known yet: nothing may go, and a version starts where the ledger began."""
    plan = SnapshotPlan(4, 100, DEPTH, {})
    assert (plan.least(), plan.start_offset(1_000, 17)) == (0, 17)


def test_a_new_chunk_says_once_that_there_was_nothing_before_it() -> None:
    """Its first entry has no bytes, and stands where its first observation came, at the step from before."""
    plan = SnapshotPlan(4, 100, DEPTH, {})
    plan.note(touched(70, [1, 4]), 33)
    plan.note(touched(90, [4]), 35)
    assert plan.least() == 70
    assert plan.newborn() == [Taken(0, 70, 33), Taken(4, 70, 33)]
    assert plan.newborn() == []
    plan.note(touched(95, [0, 9]), 36)
    assert plan.newborn() == [Taken(8, 95, 36)]
    write, chunk = plan.write(Taken(8, 95, 36))
    assert (write.first, write.offset, write.series, write.carried, list(write.forget)) == (8, 95, b"", b"", [])
    assert decode_index({8: write.entry}) == {8: chunk} == {8: Chunk((Kept(95, 95, 36, stored=False),))}


def test_a_chunk_that_the_ledger_does_not_know_holds_back_what_it_needs() -> None:
    """New series: replay would have to begin where their first observation was, whatever else is stored."""
    plan = SnapshotPlan(4, 100, DEPTH, {0: Chunk((Kept(50, 50, 0),))})
    plan.note(touched(70, [4]), 1)
    plan.note(touched(90, [4]), 2)
    (born,) = plan.newborn()
    store(plan, Taken(0, 95, 50, series=b"s"))
    store(plan, Taken(0, 96, 70, series=b"s"))
    assert (plan.index[0].kept[0].until, plan.least()) == (95, 70)
    _, chunk = plan.write(born)
    assert plan.least({4: chunk}) == 70
    plan.stored({4: chunk})
    assert plan.least() == 70


# — older snapshots —


def test_older_snapshots_are_kept_half_a_depth_apart_back_to_one_that_is_a_depth_old() -> None:
    """Whatever the rate of snapshots: at most a handful of a chunk, and one of them always old enough."""
    plan = SnapshotPlan(4, 10, DEPTH, {})
    plan.note(touched(0, [0]), 0)
    forgotten: list[int] = []
    taken = []
    for step in range(1, 200):
        plan.note(touched(10 * step, [0]), step)
        forgotten += take(plan, 0, 10 * step + 1, step)
        taken.append(10 * step + 1)
        kept = plan.index[0].kept
        gaps = [b.step - a.step for a, b in pairwise(kept)]
        assert all(gap >= DEPTH / 2 for gap in gaps[1:-1])
        assert len(kept) <= 5
        assert step < DEPTH or kept[0].step <= step - DEPTH
        assert len(kept) < 2 or kept[1].step > step - DEPTH, "one that is old enough is enough"
        assert step <= 2 * DEPTH or kept[0].step >= step - 2 * DEPTH, "no older one than must be"
        assert kept[-1].offset == taken[-1]
        assert sorted([*forgotten, *offsets(plan)]) == taken, "each is either forgotten, once, or in the index"


def test_a_snapshot_taken_twice_at_one_offset_is_one() -> None:
    """The second bytes take the first ones' place, and are not forgotten with them."""
    plan = SnapshotPlan(4, 10, DEPTH, {})
    plan.note(touched(0, [0]), 0)
    assert take(plan, 0, 30, 30) == []
    assert take(plan, 0, 30, 30, frozenset({"2@0"})) == []
    assert take(plan, 0, 35, 31) == []
    assert offsets(plan) == [30, 35]
    assert take(plan, 0, 36, 32) == [35]


def test_a_chunk_that_nothing_comes_for_lets_go_of_what_is_old() -> None:
    """Its newest snapshot is old enough one day: then no block is kept for it any more."""
    plan = SnapshotPlan(4, 10, DEPTH, {})
    plan.note(touched(5, [0]), 0)
    take(plan, 0, 10, 5)
    take(plan, 0, 20, 9)
    assert list(store(plan, Taken(0, 100, 9 + DEPTH - 1))[-1].forget) == []
    assert plan.least() == 10
    assert list(store(plan, Taken(0, 200, 9 + DEPTH))[-1].forget) == [10]
    assert plan.index[0].kept == (Kept(20, 200, 9),)
    assert plan.least() == 200
    assert plan.index[0].usable(20) == plan.index[0].usable(150) == Kept(20, 200, 9)


def test_a_version_starts_at_the_newest_point_that_is_a_depth_old() -> None:
    """For all chunks at once: the latest of their snapshots of that age; those that were empty then don't matter."""
    index = {
        0: Chunk((Kept(5, 5, 0, stored=False), Kept(100, 100, 10), Kept(300, 300, 30))),
        4: Chunk((Kept(7, 7, 0, stored=False), Kept(200, 200, 20), Kept(310, 310, 31))),
        8: Chunk((Kept(290, 290, 29, stored=False), Kept(320, 320, 32))),
    }
    plan = SnapshotPlan(4, 10, DEPTH, index)
    starts = {step: plan.start_offset(step, 3) for step in (9, 10, 19, 20, 30, 39, 40, 41, 42)}
    assert starts == {9: 3, 10: 7, 19: 7, 20: 100, 30: 200, 39: 290, 40: 300, 41: 310, 42: 320}
    assert [index[first].usable(200).offset for first in index] == [100, 200, 290]
    assert plan.start_offset(-5, 3) == 3, "no history is a depth deep: where the ledger began"


def test_a_start_before_all_that_is_kept_is_refused() -> None:
    """There is nothing to begin with: the error says from where on there is."""
    chunk = Chunk((Kept(100, 120, 10), Kept(200, 200, 20)))
    assert chunk.usable(100).offset == chunk.usable(199).offset == 100
    assert chunk.usable(200).offset == 200
    with pytest.raises(LedgerError, match=r"no snapshot is kept from offset 99 or before, the oldest is from 100"):
        chunk.usable(99)


def test_a_chunk_that_was_empty_then_is_usable() -> None:
    """A chunk that came after the start needs no bytes: a spin-up meets its first observation in the blocks."""
    chunk = Chunk((Kept(100, 100, 10, stored=False), Kept(200, 200, 20)))
    assert chunk.usable(50) == chunk.usable(150) == Kept(100, 100, 10, stored=False)


# — pins, and who joined —


def test_a_pin_keeps_what_a_spin_up_needs_and_no_more() -> None:
    """While pinned the snapshot before the start stays, however old it grows; after that it goes."""
    plan = SnapshotPlan(4, 10, DEPTH, {})
    plan.note(touched(0, [0]), 0)
    for step in range(1, 30):
        take(plan, 0, 10 * step, step)
    start = plan.start_offset(29, 0)
    assert 29 - 2 * DEPTH <= start / 10 <= 29 - DEPTH
    plan.pin(2, start)
    for step in range(30, 100):
        take(plan, 0, 10 * step, step)
        assert plan.index[0].usable(start).offset <= start
        assert plan.least() <= start
    plan.unpin(2)
    gone = take(plan, 0, 1_000, 100)
    assert start in gone
    assert plan.least() > start
    with pytest.raises(LedgerError, match="no snapshot is kept"):
        plan.index[0].usable(start)


def test_the_lowest_of_several_pins_counts() -> None:
    """Two versions that start at different offsets: what the older one needs stays until it is let go."""
    plan = SnapshotPlan(4, 10, DEPTH, {})
    plan.note(touched(0, [0]), 0)
    for step in range(1, 60):
        take(plan, 0, 10 * step, step)
        if step == 20:
            plan.pin(2, plan.start_offset(step, 0))
            low = plan.start_offset(step, 0)
        if step == 40:
            plan.pin(3, plan.start_offset(step, 0))
    assert plan.index[0].usable(low).offset == low
    plan.unpin(2)
    plan.unpin(2)
    take(plan, 0, 600, 60)
    assert plan.least() > low
    high = plan.start_offset(40, 0)
    assert plan.index[0].usable(high).offset <= high


def test_who_left_keeps_its_pin_until_the_mark_has_passed_there() -> None:
    """Snapshots taken before it left are still written: until then what it answered may have to be made again."""
    plan = SnapshotPlan(4, 10, DEPTH, {})
    plan.note(touched(0, [0]), 0)
    for step in range(1, 30):
        take(plan, 0, 10 * step, step)
    start = plan.start_offset(29, 0)
    plan.pin(2, start)
    plan.joined(2, start, 300, series=1)
    plan.left(2, 900)
    for step in range(30, 90):  # encoded before it joined: none of them has its state
        take(plan, 0, 10 * step, step)
        assert plan.index[0].usable(start).offset <= start
    take(plan, 0, 900, 90)
    take(plan, 0, 910, 91)
    assert plan.least() > start


def test_who_joined_keeps_its_pin_until_every_newest_snapshot_serves_it() -> None:
    """All chunks are taken anew, idle ones too; the last of them lets go of the old ones."""
    plan = SnapshotPlan(4, 10, DEPTH, {})
    for first in (0, 4, 8):
        plan.note(touched(first, [first]), 0)
    for step in (20, 40):
        for first in (0, 4, 8):
            take(plan, first, step * 10 + first, step, frozenset({"1@0"}))
    start = plan.start_offset(35, 0)
    assert start == 208
    plan.pin(2, start)
    plan.joined(2, start, 500, series=9)
    assert plan.turn(30, 1) == [0, 4, 8], "all of them have changed now"
    both = frozenset({"1@0", "2@208"})
    take(plan, 8, 500, 60, both)
    take(plan, 0, 510, 61, both)
    take(plan, 4, 512, 61, frozenset({"1@0"}))  # encoded before the version joined
    spans = {1: Span(0, None), 2: Span(start, None)}
    assert unserved(plan.index, spans) == {2}
    assert plan.index[4].usable(start).offset == 204
    take(plan, 4, 520, 62, both)
    assert unserved(plan.index, spans) == set()
    assert [take(plan, first, 600 + first, 80, both)[-1] for first in (0, 4, 8)] == [400, 404, 408]
    assert plan.least() > start


def test_another_start_is_another_state() -> None:
    """A snapshot that holds the version from an earlier start does not serve it from a later one."""
    chunk = Chunk((Kept(0, 0, 0, stored=False), Kept(500, 500, 50)), frozenset({"2@100"}))
    assert chunk.serves(2, 100)
    assert not chunk.serves(2, 300)
    assert chunk.serves(2, 500), "it starts from nothing, after the snapshot"
    assert Chunk((Kept(400, 400, 40, stored=False),)).serves(3, 100), "there was nothing to carry before"


def test_an_index_that_is_damaged_is_refused() -> None:
    """Bytes that are no entry: LedgerError."""
    entry = SnapshotPlan(4, 10, DEPTH, {}).write(Taken(0, 5, 1))[0].entry
    assert decode_index({4: entry, 0: entry}) == {0: Chunk((Kept(5, 5, 1, False),)), 4: Chunk((Kept(5, 5, 1, False),))}
    for damaged in (b"", entry[:-1], b"{}", entry.replace(b"5", b'"x"')):
        with pytest.raises(LedgerError, match="index of snapshots is damaged"):
            decode_index({0: damaged})


# — any history —


@dataclass
class History:
    """A partition's snapshots as consumers.upkeep takes and writes them, and what really happened beside."""

    plan: SnapshotPlan = field(default_factory=lambda: SnapshotPlan(2, 5, DEPTH, {}))
    next: int = 3
    step: int = 0
    series: int = 0
    waiting: list[Taken] = field(default_factory=list)
    bytes_at: set[tuple[int, int]] = field(default_factory=set)  # first slot, offset: in the ledger
    changes: dict[int, list[int]] = field(default_factory=dict)  # first slot → the offsets of blocks that changed it
    pinned: dict[int, int] = field(default_factory=dict)
    running: dict[int, int] = field(default_factory=lambda: {1: 3})
    least: int = 0

    def fold(self, slots: list[int], size: int, strides: int) -> None:
        """A block is folded; chunks are encoded in their turn. Slots are given in order: none is left out."""
        named = []
        for slot in slots:
            named.append(min(slot, self.series))
            self.series = max(self.series, named[-1] + 1)
        block = touched(self.next, named)
        self.plan.note(block, self.step)
        for slot in set(named):
            self.changes.setdefault(slot // 2 * 2, []).append(block.start)
        self.next = block.end + size
        self.step += strides
        self.waiting += self.plan.newborn()
        holds = frozenset(f"{version}@{start}" for version, start in self.running.items())
        for first in self.plan.turn(len(named) + size, 4):
            self.waiting.append(Taken(first, self.next, self.step, holds, b"s", b"c"))
            self.plan.taken(first, self.next)
        self.waiting += [Taken(first, self.next, self.step, holds) for first in self.plan.unchanged(self.next)]

    def reach(self, count: int) -> None:
        """The mark reaches so many of the snapshots that wait."""
        for taken in self.waiting[:count]:
            write, chunk = self.plan.write(taken)
            self.least = self.plan.least({taken.first: chunk})
            self.plan.stored({taken.first: chunk})
            assert self.least == self.plan.least()
            if write.series:
                self.bytes_at.add((write.first, write.offset))
            for offset in write.forget:
                self.bytes_at.remove((write.first, offset))
        del self.waiting[:count]

    def spin_up(self, version: int) -> None:
        """A version begins its spin-up."""
        start = self.plan.start_offset(self.step, 3)
        assert start <= self.next
        self.plan.pin(version, start)
        self.pinned[version] = start

    def join(self, version: int) -> None:
        """It has caught up."""
        if version in self.pinned and version not in self.running:
            self.running[version] = self.pinned[version]
            self.plan.joined(version, self.pinned[version], self.next, self.series)

    def leave(self, version: int) -> None:
        """It is not wanted any more."""
        self.plan.unpin(version)
        self.pinned.pop(version, None)
        self.running.pop(version, None)

    def crash(self) -> None:
        """Another takes over from the ledger alone: what was not written is folded again."""
        index = decode_index({first: msgspec.json.encode(chunk) for first, chunk in self.plan.index.items()})
        self.plan = SnapshotPlan(2, 5, DEPTH, index)
        self.waiting = []
        late = unserved(index, {version: Span(start, None) for version, start in self.running.items()})
        for first, changed in self.changes.items():
            known = index[first].kept[-1].until if first in index else -1
            for start in changed:
                if start >= known:
                    self.plan.note(touched(start, [first]), self.step)
        self.pinned = {}
        for version in late:
            self.pinned[version] = self.running[version]
            self.plan.joined(version, self.running[version], self.next, self.series)

    def check(self) -> None:
        """All that the plan may be asked for is there, and true."""
        for version in [v for v in self.pinned if v in self.running and v not in self.plan._pins]:
            del self.pinned[version]
            assert version not in unserved(self.plan.index, {version: Span(self.running[version], None)})
        for first, chunk in self.plan.index.items():
            needed = [chunk.usable(start) for start in self.pinned.values()]
            assert all(self.plan.least() <= kept.until for kept in [*needed, chunk.kept[-1]])
            assert all(k.offset <= start or not k.stored for k, start in zip(needed, self.pinned.values(), strict=True))
            for kept in chunk.kept:
                assert not kept.stored or (first, kept.offset) in self.bytes_at
                assert not any(kept.offset <= change < kept.until for change in self.changes[first])
                assert kept.stored or kept.offset <= self.changes[first][0], "it was not empty then"
            assert len([at for at in self.bytes_at if at[0] == first]) == len([k for k in chunk.kept if k.stored])
        for first, changed in self.changes.items():
            assert first in self.plan.index or self.plan.least() <= changed[0]


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("fold"), st.lists(st.integers(0, 7), min_size=1, max_size=3), st.sampled_from((0, 0, 5))),
        st.tuples(st.just("reach"), st.integers(1, 9)),
        st.tuples(st.sampled_from(("spin_up", "join", "leave")), st.sampled_from((2, 3))),
        st.tuples(st.just("crash")),
    ),
    min_size=10,
    max_size=80,
)


@settings(max_examples=300)
@given(happened=happenings, strides=st.sampled_from((1, 3, 12)))
def test_every_start_that_was_given_stays_usable_while_it_is_pinned(
    happened: list[tuple[object, ...]], strides: int
) -> None:
    """Blocks, turns, marks, spin-ups, joins and crashes in any order: bytes and blocks of each start are there."""
    history = History()
    for name, *values in happened:
        if name == "fold":
            slots, size = values
            history.fold(slots, size, strides)  # type: ignore[arg-type]
        elif name == "spin_up":
            if values[0] not in history.pinned and values[0] not in history.running:
                history.spin_up(values[0])  # type: ignore[arg-type]
        else:
            getattr(history, str(name))(*values)
        history.check()


def test_the_depth_is_at_least_what_was_asked() -> None:
    """Between a start and now lie the depth's steps, and hardly more than twice as many where all goes steadily."""
    history = History()
    rng = np.random.default_rng(0)
    depths = []
    for _ in range(2_000):
        history.fold(rng.integers(0, 8, 3).tolist(), 0, int(rng.integers(0, 2)))
        history.reach(int(rng.integers(0, 9)))
        steps = {kept.offset: kept.step for chunk in history.plan.index.values() for kept in chunk.kept}
        start = history.plan.start_offset(history.step, 3)
        if start in steps and start > 3:
            depths.append(history.step - steps[start])
    assert len(depths) > 1_000
    assert min(depths) == DEPTH
    assert max(depths) <= 2 * DEPTH
