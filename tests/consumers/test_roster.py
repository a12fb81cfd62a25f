"""Rosters: one version answers at every offset, and what a version began with never changes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.roster import (
    CLOSED_SEATS,
    Seat,
    Span,
    Wanted,
    incumbent_at,
    incumbent_of,
    reseated,
    shadows_of,
    spans,
    wanted,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST: tuple[Seat, ...] = (Seat(1, "incumbent", 7, 7),)
# version 1 answers, is followed by 2, read along as a shadow, and left; 3 reads along
GROWN = (
    Seat(1, "incumbent", 7, 7, 50),
    Seat(2, "incumbent", 20, 50, None, 30),
    Seat(1, "shadow", 7, 50, 90, 30),
    Seat(3, "shadow", 60, 80, None, 45),
)


def change(roster: Sequence[Seat], offset: int, incumbent: int, *shadows: int, **starts: int) -> tuple[Seat, ...]:
    """The roster with these versions, at the step of a tenth of the offset; `v3=60`: version 3 starts at 60."""
    begins = {int(name[1:]): start for name, start in starts.items()}
    return reseated(roster, offset=offset, step=offset // 10, incumbent=incumbent, shadows=shadows, starts=begins)


# — what a roster says —


def test_those_without_a_leave_run() -> None:
    """Incumbent, shadows, roles and spans are those of the seats that are not closed."""
    assert incumbent_of(GROWN) == 2
    assert shadows_of(GROWN) == {3}
    assert (incumbent_of(GROWN), shadows_of(GROWN)) == (2, {3})
    assert spans(GROWN) == {2: Span(20, None), 3: Span(60, None)}
    assert (incumbent_of(()), shadows_of(()), spans(())) == (None, set(), {})


def test_who_answered_is_told_by_the_offset() -> None:
    """From where it joined to before it left; nobody before the first."""
    answered = {offset: incumbent_at(GROWN, offset) for offset in (6, 7, 49, 50, 80, 10**9)}
    assert answered == {6: None, 7: 1, 49: 1, 50: 2, 80: 2, 10**9: 2}


@pytest.mark.parametrize(
    ("mark", "also"),
    [(7, {1: Span(7, 50)}), (49, {1: Span(7, 50)}), (50, {}), (70, {}), (95, {})],
)
def test_who_answered_after_the_mark_is_stepped_again(mark: int, also: dict[int, Span]) -> None:
    """Its forecasts may not have been published; a shadow that left owes nobody anything."""
    assert spans(GROWN, mark) == {2: Span(20, None), 3: Span(60, None)} | also


def test_a_version_that_runs_again_is_stepped_from_its_new_start() -> None:
    """Two tenures with different starts: the one that is open counts."""
    roster = (*GROWN[:1], Seat(2, "incumbent", 20, 50, 70), Seat(1, "incumbent", 40, 70))
    assert spans(roster, 30) == {2: Span(20, 70), 1: Span(40, None)}
    assert spans(roster) == {1: Span(40, None)}


def test_a_span_covers_the_blocks_that_start_in_it() -> None:
    """The start is one of them, the leave is not."""
    assert [offset for offset in range(10) if Span(3, 6).covers(offset)] == [3, 4, 5]
    assert [offset for offset in range(10) if Span(3, None).covers(offset)] == list(range(3, 10))


# — how a roster changes —


def test_a_new_version_is_seated_with_where_its_state_begins() -> None:
    """It joins here, and started earlier; the one that answered stays on as a shadow with its own start."""
    roster = change(FIRST, 50, 2, 1, v2=20)
    assert roster == (
        Seat(1, "incumbent", 7, 7, 50),
        Seat(1, "shadow", 7, 50, None, 5),
        Seat(2, "incumbent", 20, 50, None, 5),
    )


def test_who_goes_on_in_its_role_keeps_its_seat() -> None:
    """The same roster again is no change at all, and another's leaving does not touch a seat."""
    assert change(GROWN, 95, 2, 3) == GROWN
    left = change(GROWN, 95, 2)
    assert left[:3] == GROWN[:3]
    assert left[3] == Seat(3, "shadow", 60, 80, 95, 45)


def test_a_version_may_come_back_with_another_start() -> None:
    """Who left and is spun up again gets a seat of its own; the old ones stay as they were."""
    back = change(GROWN, 200, 1, 2, v1=150)
    assert back[0] == GROWN[0]
    assert back[2] == GROWN[2]
    assert incumbent_of(back) == 1
    assert spans(back)[1] == Span(150, None)
    assert incumbent_at(back, 40) == 1, "the seat of its first tenure is not mixed up with the new one"


def test_who_is_neither_seated_nor_ready_can_not_be_seated() -> None:
    """A version without a start is a defect of the caller, not a version that starts from nothing."""
    with pytest.raises(KeyError):
        change(FIRST, 50, 2, 1)


def test_a_roster_does_not_grow_without_end() -> None:
    """After very many changes the oldest closed seats go; who runs stays, and who answered lately is known."""
    roster = FIRST
    for offset in range(10, 10 * CLOSED_SEATS, 10):
        roster = change(roster, offset, 1 + offset // 10 % 2, 2 - offset // 10 % 2, v2=offset)
    assert len(roster) == CLOSED_SEATS + 2
    assert {seat.version for seat in roster if seat.leave_offset is None} == {1, 2}
    lately = range(10 * CLOSED_SEATS - 500, 10 * CLOSED_SEATS)
    assert [incumbent_at(roster, offset) for offset in lately] == [1 + offset // 10 % 2 for offset in lately]


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 5), st.sets(st.integers(1, 5), max_size=3), st.integers(0, 40)),
        max_size=20,
    )
)
def test_any_changes_leave_one_incumbent_at_every_offset(
    changes: list[tuple[int, int, set[int], int]],
) -> None:
    """One answers every block; closed seats stay closed, starts stay, and a version sits in one seat at a time."""
    roster = FIRST
    offset = 7
    answers = {7: 1}
    for stride, incumbent, shadows, back in changes:
        offset += stride
        before = roster
        starts = dict.fromkeys(range(1, 6), max(7, offset - back))
        roster = reseated(
            before, offset=offset, step=offset, incumbent=incumbent, shadows=shadows - {incumbent}, starts=starts
        )
        answers[offset] = incumbent
        assert (incumbent_of(roster), shadows_of(roster)) == (incumbent, shadows - {incumbent})
        for old, new in zip(before, roster, strict=False):
            assert new == old or (old.leave_offset is None and new.leave_offset == offset)
            assert (new.version, new.role, new.start_offset, new.join_offset, new.join_step) == (
                old.version, old.role, old.start_offset, old.join_offset, old.join_step,
            )  # fmt: skip
        running = spans(before)
        for version, span in spans(roster).items():
            assert span.start == (running[version].start if version in running else starts[version])
    for at in range(7, offset + 3):
        covering = [s for s in roster if s.role == "incumbent" and Span(s.join_offset, s.leave_offset).covers(at)]
        assert len(covering) == 1
        assert covering[0].version == incumbent_at(roster, at) == answers[max(o for o in answers if o <= at)]
    for version in range(1, 6):
        tenures = [s for s in roster if s.version == version]
        assert sum(s.leave_offset is None for s in tenures) <= 1
        assert all(a.leave_offset is not None and a.leave_offset <= b.join_offset for a, b in pairwise(tenures))


# — what the registry's aliases mean —


def want(roster: Sequence[Seat] = FIRST, **changes: Any) -> Wanted:
    """What is wanted, of version 1 alone where nothing else is said."""
    values: dict[str, Any] = {"incumbent": 1, "candidate": None, "previous": None, "step": 100, "guard_steps": 20}
    return wanted(roster, **(values | changes))


def test_a_partition_that_follows_wants_nothing() -> None:
    """Who should answer does, nobody is missing."""
    assert want() == Wanted(1, frozenset(), ())


def test_until_a_promoted_version_is_ready_the_old_one_answers() -> None:
    """Cold: it is missing, nothing changes; ready: it answers, and the former one reads along."""
    assert want(incumbent=2, previous=1) == Wanted(1, frozenset(), (2,))
    assert want(incumbent=2, previous=1, ready=[2]) == Wanted(2, frozenset({1}), ())


def test_a_shadow_is_promoted_at_once() -> None:
    """A version that reads along is able to answer: nothing is missing."""
    assert want(GROWN, incumbent=3, previous=2) == Wanted(3, frozenset({2}), ())


def test_a_candidate_reads_along_once_it_is_ready() -> None:
    """Missing while it is not; the incumbent comes first where both are."""
    assert want(candidate=4) == Wanted(1, frozenset(), (4,))
    assert want(candidate=4, ready=[4]) == Wanted(1, frozenset({4}), ())
    assert want(incumbent=2, candidate=4, previous=1) == Wanted(1, frozenset(), (2, 4))
    assert want(incumbent=2, candidate=2, previous=1) == Wanted(1, frozenset(), (2,))
    assert want(GROWN, incumbent=2, candidate=None) == Wanted(2, frozenset(), ()), "nobody's shadow leaves"


def test_the_previous_version_reads_along_for_the_guard_period() -> None:
    """Counted in event time from when it became a shadow; after that it leaves, and is not brought back."""
    roster = change(FIRST, 50, 2, 1, v2=20)  # at step 5
    guarded = {step: want(roster, incumbent=2, previous=1, step=step).shadows for step in (5, 24, 25, 99)}
    assert guarded == {5: {1}, 24: {1}, 25: frozenset(), 99: frozenset()}
    left = change(roster, 60, 2)
    assert want(left, incumbent=2, previous=1, step=7) == Wanted(2, frozenset(), ())
    assert want(incumbent=2, previous=1, ready=[2], guard_steps=0) == Wanted(2, frozenset(), ())


def test_a_rollback_to_the_guarded_version_is_immediate_and_the_withdrawn_one_leaves() -> None:
    """No alias names who was rolled back: it does not even read along."""
    roster = change(FIRST, 50, 2, 1, v2=20)
    assert want(roster, incumbent=1, previous=None) == Wanted(1, frozenset(), ())


def test_a_rollback_to_a_version_that_left_waits_for_its_spin_up() -> None:
    """Until it is ready, the withdrawn one goes on answering: better than nothing."""
    roster = change(change(FIRST, 50, 2, 1, v2=20), 60, 2)
    assert want(roster, incumbent=1, previous=None) == Wanted(2, frozenset(), (1,))
    assert want(roster, incumbent=1, previous=None, ready=[1]) == Wanted(1, frozenset(), ())


def test_promotions_that_overtake_each_other_bring_only_the_last() -> None:
    """The one that never got ready is not missing any more, nor is it guarded."""
    assert want(incumbent=3, previous=2) == Wanted(1, frozenset(), (3,))
    assert want(incumbent=3, previous=2, ready=[3]) == Wanted(3, frozenset(), ())


@settings(max_examples=300)
@given(
    orders=st.lists(
        st.tuples(
            st.integers(1, 4),
            st.none() | st.integers(1, 4),
            st.none() | st.integers(1, 4),
            st.sets(st.integers(1, 4)),
            st.integers(0, 9),
        ),
        max_size=15,
    ),
    guard=st.integers(0, 12),
)
def test_following_any_orders_comes_to_rest(
    orders: list[tuple[int, int | None, int | None, set[int], int]], guard: int
) -> None:
    """Whatever the aliases say, and whoever is ready: once seated as wanted, the same is wanted again."""
    roster = FIRST
    step = 0
    for incumbent, candidate, previous, ready, strides in orders:
        step += strides
        aliases: dict[str, Any] = {"incumbent": incumbent, "candidate": candidate, "previous": previous}
        running = set(spans(roster))
        target = want(roster, **aliases, step=step, guard_steps=guard, ready=ready)
        assert {target.incumbent, *target.shadows} <= running | ready
        assert target.incumbent not in target.shadows
        assert set(target.missing) == {v for v in (incumbent, candidate) if v is not None} - running - ready
        assert target.incumbent == (incumbent if incumbent in running | ready else incumbent_of(roster))
        starts = dict.fromkeys(ready, step)
        roster = reseated(
            roster, offset=step, step=step, incumbent=target.incumbent, shadows=target.shadows, starts=starts
        )
        again = want(roster, **aliases, step=step, guard_steps=guard, ready=ready)
        assert again == target
