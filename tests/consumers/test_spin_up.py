"""Spin-up: a version's carried state is the fold from its start, however and by whomever it is come by."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import recovery
from consumers.recovery import Recovery, SpinUp, by_spans
from consumers.roster import Seat, Span, incumbent_of, reseated, shadows_of
from models.blocks import empty_block
from models.errors import LedgerError, ServiceUnreachable
from tests.consumers.living import VERSIONS, Live, new_live, recovered, uninterrupted, walks
from tests.streams import FORM, Stream, cuts_of, stream_of, streams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.forecaster import Carried
    from tests.consumers.conftest import Store

pytestmark = pytest.mark.services
FIRST = Seat(1, "incumbent", 0, 0)

_models = iter(f"spin-up-{i}" for i in range(10**9))


@pytest.fixture(scope="module", autouse=True)
def _clean(redis_store: Store) -> Iterator[None]:
    yield
    for key in redis_store.client.scan_iter("killick:{spin-up-*"):
        redis_store.client.delete(key)


def begun(live: Live, start: int | None = None, number: int = 2) -> SpinUp:
    """A spin-up over the plan's depth, or from where it is told."""
    if start is None:
        start = live.plan.start_offset(live.newest_step, 0)
    live.plan.pin(number, start)
    return SpinUp(live.ledger, FORM, VERSIONS[number], start, live.plan.index)


def caught_up(spun: SpinUp, until: int, size: int = 1_000) -> None:
    """Let it fold all that there is."""
    while not spun.advance(size, until):
        pass
    assert spun.position == until


def arrays(carried: Carried, series: int) -> dict[str, bytes]:
    """What is carried for so many series, bit for bit."""
    carried.reserve(series)
    return {name: np.ascontiguousarray(array[:series]).tobytes() for name, array in carried.arrays().items()}


def whole(live: Live, stream: Stream, start: int, number: int = 2) -> dict[str, bytes]:
    """What the version carries after one run over all blocks, from its start on."""
    partition = uninterrupted(live, stream, [Seat(number, "shadow", start, start)])
    return arrays(partition.carried[number], len(live.partition.names))


def joined(live: Live, spun: SpinUp, *, answers: bool = False) -> None:
    """Seat the version that was spun up, the others stay; if it answers, the former one leaves."""
    roster = live.partition.roster
    number, incumbent = spun.version.number, incumbent_of(roster)
    assert incumbent is not None
    live.seat(
        reseated(
            roster,
            offset=live.at,
            step=live.newest_step,
            incumbent=number if answers else incumbent,
            shadows=shadows_of(roster) | (set() if answers else {number}),
            starts={number: spun.start},
        ),
        spun,
    )


# — the fold from the start —


@dataclass
class Course:
    """What a partition lives through while a version is spun up beside it, by a random plan."""

    live: Live
    stream: Stream
    spun: SpinUp | None = None
    starts: list[int] = field(default_factory=list)

    def go(self, action: str, size: int) -> None:
        """One thing more happens."""
        live = self.live
        if action == "take" and live.read < len(self.stream):
            live.take(self.stream, live.read, min(live.read + size, len(self.stream)))
        elif action == "refuse":
            live.refuse(size)
        elif action == "snapshot":
            live.publish()
            live.snapshot([0, 2, 4][: size % 4])
            live.confirm()
            live.trim()
        elif action == "begin" and self.spun is None and 2 not in live.partition.spans:
            self.spun = begun(live)
        elif action == "advance" and self.spun is not None:
            self.spun.advance(size, live.at)
        elif action == "join" and self.spun is not None:
            caught_up(self.spun, live.at, size)
            self.check(arrays(self.spun.carried, len(live.partition.names)), self.spun.start)
            joined(live, self.spun)
            self.spun = None
        elif action == "leave" and 2 in live.partition.spans:
            live.seat(reseated(live.partition.roster, offset=live.at, step=0, incumbent=1, shadows=(), starts={}))
            live.plan.unpin(2)

    def check(self, found: dict[str, bytes], start: int) -> None:
        """A version's carried state is the fold from its start."""
        assert found == whole(self.live, self.stream, start)
        self.starts.append(start)

    def recover(self) -> None:
        """The ledger alone gives the same, whether the snapshots hold the version yet or not."""
        live = self.live
        partition, replayed, _ = recovered(live.ledger)
        assert partition.digest() == live.partition.digest()
        assert not any(one.mismatch for one in replayed)
        if 2 in partition.spans:
            self.check(arrays(partition.carried[2], len(partition.names)), partition.spans[2].start)


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ("take", "take", "take", "snapshot", "snapshot", "refuse", "begin", "advance", "join", "leave")
        ),
        st.integers(1, 9),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=100)
@given(stream=streams(most=120), plan=steps)
def test_a_spin_up_beside_any_history_is_the_fold_from_its_start(
    redis_store: Store, stream: Stream, plan: list[tuple[str, int]]
) -> None:
    """Any blocks, gaps, resets, new series, refusals, snapshots, trims and slices, before and while it runs."""
    course = Course(new_live(redis_store, next(_models)), stream)
    for at, (action, size) in enumerate(plan):
        course.go(action, size)
        if at % 5 == 0 or action in ("join", "leave"):
            course.recover()
    course.go("begin", 1)
    course.go("join", 3)
    course.recover()


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_slices_of_any_size_give_the_same_bits(redis_store: Store, size: int) -> None:
    """Blocks are cut where a slice ends, and many small ones folded as one."""
    live = new_live(redis_store, next(_models))
    stream = walks(300, series=7)
    for begin, end in cuts_of(300, [2, 3, 50, 51, 52, 200, 290]):
        live.take(stream, begin, end)
    spun = begun(live, 51)
    slices = 1
    while not spun.advance(size, live.at):
        slices += 1
    assert arrays(spun.carried, 7) == whole(live, stream, 51)
    assert slices >= 300 / size
    assert spun.observations == 300, "no snapshot was there: the series state is that of the whole stream"


def test_a_spin_up_reads_on_from_the_snapshots_before_its_start(redis_store: Store) -> None:
    """With snapshots it folds about its depth, and with series state of the whole past the bits are the same."""
    live = new_live(redis_store, next(_models))
    stream = stream_of([(f"s{i % 4}", 100 + i // 4, (float(i % 7), float(i % 3))) for i in range(800)])
    for end in range(8, 801, 8):
        live.take(stream, end - 8, end)
        live.publish()
        live.snapshot([0, 2])
    spun = begun(live)
    caught_up(spun, live.at)
    assert 800 - 2 * 10 * 4 <= spun.start <= 800 - 10 * 4
    assert spun.observations == 800 - spun.start
    assert arrays(spun.carried, 4) == whole(live, stream, spun.start)
    assert arrays(spun.carried, 4) != whole(live, stream, spun.start + 8), "another start is another state"
    blank = new_live(redis_store, next(_models))
    blank.take(stream.take(range(spun.start, 800)), 0, 800 - spun.start)
    assert arrays(spun.carried, 4) != whole(blank, stream.take(range(spun.start, 800)), 0), "it had no past"


def test_series_that_come_while_it_runs_are_taken_up(redis_store: Store) -> None:
    """New series in known chunks and in new ones, between two slices."""
    live = new_live(redis_store, next(_models))
    rows = [(f"s{i % (1 + i // 20)}", 100 + i, (float(i % 5), 1.0)) for i in range(200)]
    stream = stream_of(rows)
    live.take(stream, 0, 60)
    live.publish()
    live.snapshot([0, 2])
    spun = begun(live, 30)
    for end in range(70, 201, 10):
        spun.advance(9, live.at)
        live.take(stream, end - 10, end)
        if end % 40 == 0:
            live.publish()
            live.snapshot([0, 2, 4, 6])
    caught_up(spun, live.at)
    assert len(live.partition.names) == 10
    assert arrays(spun.carried, 10) == whole(live, stream, 30)


def test_no_block_is_lost_where_redis_fails_as_names_are_asked_for(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version with an input for each series: whoever calls again gets what one run over all blocks gives."""
    live = new_live(redis_store, next(_models))
    rows = [(f"s{i}", 100 + r, (float((r + i) % 5), 1.0)) for r in range(36) for i in range(1 + r // 6)]
    stream = stream_of(rows)
    live.take(stream, 0, 10)
    spun = begun(live, 0)
    live.take(stream, 10, 20)  # a series more before it has read anything
    names, failed = live.ledger.names, 0

    def failing(begin: int = 0) -> list[str]:
        nonlocal failed
        failed += 1
        if failed % 2:
            raise ServiceUnreachable("Redis did not answer")
        return names(begin)

    monkeypatch.setattr(live.ledger, "names", failing)
    for begin, end in cuts_of(len(rows), range(20, len(rows), 10)):
        if begin:
            live.take(stream, begin, end)
        done = False
        while not done:
            with suppress(ServiceUnreachable):
                done = spun.advance(7, live.at)
    monkeypatch.undo()
    caught_up(spun, live.at)
    assert failed >= 6
    assert len(live.partition.names) == 6
    assert arrays(spun.carried, 6) == whole(live, stream, 0)
    assert {"s0", "s1", "s3"} <= set(VERSIONS[2].architecture.series)


def test_a_version_starts_where_all_records_were_refused(redis_store: Store) -> None:
    """No block begins at its start: the ones before and after are not folded as one."""
    live = new_live(redis_store, next(_models))
    stream = walks(60)
    live.take(stream, 0, 20)
    live.refuse(3)
    live.take(stream, 20, 40)
    live.take(stream, 40, 60)
    for start in (20, 21, 23):
        spun = begun(live, start)
        caught_up(spun, live.at)
        assert arrays(spun.carried, len(live.partition.names)) == whole(live, stream, start)
        assert spun.carried.network.any()


def test_blocks_are_grouped_between_the_edges_of_spans() -> None:
    """A group ends where a version starts or leaves, whether a block begins just there or not."""
    blocks = [_block(begin, end) for begin, end in ((0, 4), (4, 8), (11, 15), (15, 15), (15, 20), (20, 30))]

    def groups(*spans: Span) -> list[list[int]]:
        return [[block.start for block in group] for group in by_spans(blocks, spans)]

    assert groups(Span(0, None)) == [[0, 4, 11, 15, 15, 20]]
    assert groups(Span(4, None)) == [[0], [4, 11, 15, 15, 20]]
    assert groups(Span(9, None)) == groups(Span(8, None)) == groups(Span(11, None)) == [[0, 4], [11, 15, 15, 20]]
    assert groups(Span(0, 15), Span(15, 20)) == [[0, 4, 11], [15, 15], [20]]


def _block(start: int, end: int) -> Any:
    return replace(empty_block(end, 2), start=start)


def test_a_start_that_no_snapshot_reaches_back_to_is_refused(redis_store: Store) -> None:
    """Nobody pinned it: the error says so, and nothing was folded from a wrong state."""
    live = new_live(redis_store, next(_models))
    stream = stream_of([("a", 100 + i, (float(i), 1.0)) for i in range(100)])
    for end in range(10, 101, 10):
        live.take(stream, end - 10, end)
        live.publish()
        live.snapshot([0])
    spun = SpinUp(live.ledger, FORM, VERSIONS[2], 5, live.plan.index)
    with pytest.raises(LedgerError, match="no snapshot is kept from offset 5 or before"):
        spun.advance(10, live.at)


# — recovery of versions that were spun up —


def spun_up(store: Store, stream: Stream, *, start: int, snapshots: tuple[int, ...] = ()) -> Live:
    """Version 2 is spun up at offset 60 and reads along; snapshots are taken at these offsets, of some chunks."""
    live = new_live(store, next(_models))
    for end in range(10, 61, 10):
        live.take(stream, end - 10, end)
        if end in snapshots:
            live.publish()
            live.snapshot([0, 2, 4])
    spun = begun(live, start)
    caught_up(spun, live.at)
    joined(live, spun)
    return live


@pytest.mark.parametrize("merged", [1, 10_000])
@pytest.mark.parametrize("published", [50, 60, 70, 90])
def test_a_version_that_no_snapshot_holds_is_spun_up_again(
    redis_store: Store, published: int, merged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after its roster commit: up to the mark it is spun up apart, the blocks after it are replayed whole."""
    monkeypatch.setattr(recovery, "MERGED_OBSERVATIONS", merged)
    stream = walks(90)
    live = spun_up(redis_store, stream, start=25, snapshots=(20, 50))
    for end in (60, 70, 80, 90):
        if end > 60:
            live.take(stream, end - 10, end)
        if end == published:
            live.publish()
    head = live.ledger.head()
    assert head is not None
    again = Recovery(live.ledger, head, FORM, VERSIONS)
    assert again.late == {2}
    replayed = [one for batch in again.run() for one in batch]
    assert again.partition.digest() == live.partition.digest()
    assert not any(one.mismatch for one in replayed)
    assert arrays(again.partition.carried[2], 5) == whole(live, stream, 25)
    for one in replayed:
        if len(one.block) and one.block.end > head.mark:
            found = {number: issued.tobytes() for number, issued in one.folded.forecasts.items()}
            issued = {number: live.forecasts[number].get(one.block.end) for number in (1, 2)}
            assert found | {2: found[2] if issued[2] else None} == issued, "a block from before it joined is nobody's"


def test_a_version_that_all_snapshots_hold_is_not_spun_up_again(redis_store: Store) -> None:
    """Once every chunk was taken anew it is restored like the others; until then it is late."""
    stream = walks(90, series=6)
    live = spun_up(redis_store, stream, start=25, snapshots=(20, 50))
    live.take(stream, 60, 90)
    live.publish()
    for first, late in ((4, {2}), (0, {2}), (2, set())):
        live.snapshot([first])
        head = live.ledger.head()
        assert head is not None
        again = Recovery(live.ledger, head, FORM, VERSIONS)
        assert again.late == late
        for _ in again.run():
            pass
        assert again.partition.digest() == live.partition.digest()


@pytest.mark.parametrize("held", [False, True])
def test_who_answered_and_left_gives_the_same_bytes_again(redis_store: Store, *, held: bool) -> None:
    """Its forecasts after the mark were not published: they come back bit for bit, then it is gone."""
    stream = walks(120)
    live = spun_up(redis_store, stream, start=25, snapshots=(20, 50))
    live.take(stream, 60, 70)
    if held:
        live.publish()
        live.snapshot([0, 2, 4])
    live.seat(reseated(live.partition.roster, offset=70, step=0, incumbent=2, shadows=(), starts={}))
    live.take(stream, 70, 80)
    live.publish()  # of version 2 the last is not acknowledged
    live.take(stream, 80, 90)
    live.seat(reseated(live.partition.roster, offset=90, step=0, incumbent=1, shadows=(), starts={1: 90}))
    live.take(stream, 90, 100)
    head = live.ledger.head()
    assert head is not None
    again = Recovery(live.ledger, head, FORM, VERSIONS)
    assert (2 in again.late) is not held
    replayed = [one for batch in again.run() for one in batch]
    assert again.partition.digest() == live.partition.digest()
    assert set(again.partition.carried) == {1}
    assert not any(one.mismatch for one in replayed)
    owed = {o.block.end: o.folded.forecasts for o in replayed if len(o.block) and o.block.end > head.mark}
    assert set(owed) == {90, 100}
    assert owed[90][2].tobytes() == live.forecasts[2][90]
    assert owed[100][1].tobytes() == live.forecasts[1][100]
    assert 2 not in owed[100]
