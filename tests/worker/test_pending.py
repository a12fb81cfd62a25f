"""Which event-time steps are over, and whose loss is theirs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.duels import Duel
from worker.pending import StepLoss, complete, fought, merged, together

AHEAD = 24


def over(losses: dict[tuple[int, int], tuple[int, float]], until: int) -> list[StepLoss]:
    """The steps that are over."""
    return list(complete(losses, until=until, ahead_steps=AHEAD))


def test_partitions_are_added_up_without_what_was_fed() -> None:
    """By step and version; a step that was fed is over for good."""
    one = {(5, 1): (2, 1.0), (6, 1): (1, 0.5)}
    other = {(4, 1): (9, 9.0), (6, 1): (3, 0.25), (6, 2): (1, 1.0)}
    assert merged([one, other], 4) == {(5, 1): (2, 1.0), (6, 1): (4, 0.75), (6, 2): (1, 1.0)}
    assert merged([one, other], None)[4, 1] == (9, 9.0)
    assert merged([], 3) == {}


def test_a_step_is_over_when_as_much_was_heard_of_later_ones() -> None:
    """And every partition that moves is past it; the first that is not over holds back those after it."""
    losses = {(10, 1): (4, 2.0), (11, 1): (4, 4.0), (12, 1): (1, 9.0)}
    assert over(losses, 13) == [StepLoss(10, 1, 0.5)]
    assert over(losses, 10) == []
    assert over({**losses, (13, 1): (3, 3.0)}, 12) == [StepLoss(10, 1, 0.5), StepLoss(11, 1, 1.0)]
    assert over({}, 5) == []


def test_one_clock_that_runs_ahead_ends_no_step() -> None:
    """A single series is too little, however far ahead; after more steps than it may be ahead, one is over anyway."""
    for ahead in (1, AHEAD, 9_000):
        losses = {(10, 1): (4, 2.0), (10 + ahead, 1): (1, 1.0)}
        assert over(losses, 10 + ahead) == []
    later = {(10 + step, 1): (1, 1.0) for step in range(1, AHEAD + 1)}
    assert over({(10, 1): (4, 2.0), **later}, 5) == []
    assert over({(10, 1): (4, 2.0), **later, (99, 1): (1, 1.0)}, 5) == [StepLoss(10, 1, 0.5)]


def test_the_loss_is_that_of_the_version_that_answered_most() -> None:
    """In the step of a promotion both answered: the one with more forecasts counts."""
    assert over({(10, 1): (3, 3.0), (10, 2): (5, 2.5), (11, 2): (9, 1.0)}, 99)[0] == StepLoss(10, 2, 0.5)


@given(
    st.dictionaries(
        st.tuples(st.integers(-5, 60), st.integers(1, 3)),
        st.tuples(st.integers(1, 9), st.floats(0, 1e6)),
        max_size=30,
    ),
    st.integers(-10, 70),
)
def test_steps_come_in_order_and_each_once(losses: dict[tuple[int, int], tuple[int, float]], until: int) -> None:
    """What was over stays so when more is heard, and no step comes before one that waits."""
    found = [one.step for one in over(losses, until)]
    steps = sorted({step for step, _ in losses})
    assert found == steps[: len(found)]
    more = {**losses, (61, 1): (1_000, 1.0)}
    assert [one.step for one in over(more, until)][: len(found)] == found
    rest = {key: loss for key, loss in losses.items() if key[0] > (found[-1] if found else -9)}
    assert over(rest, until) == []


def test_duels_of_all_partitions_are_judged_by_their_steps() -> None:
    """Added up by step and pair without what was judged; a step is over as it is for losses, all pairs together."""
    one = {(5, 1, 2): Duel(2, 1.0, 2.0), (6, 1, 2): Duel(4, 1.0), (8, 1, 2): Duel(1)}
    other = {(4, 1, 2): Duel(9), (6, 1, 2): Duel(1, 0.5), (7, 1, 3): Duel(2, first_lacks=1, second_lacks=1)}
    found = together([one, other], 4)
    assert found == {
        (5, 1, 2): Duel(2, 1.0, 2.0), (6, 1, 2): Duel(5, 1.5), (7, 1, 3): other[7, 1, 3], (8, 1, 2): Duel(1)
    }  # fmt: skip
    assert fought(found, until=9, ahead_steps=AHEAD) == [5, 6]
    assert fought(found, until=6, ahead_steps=AHEAD) == [5]
    assert fought(found, until=6, ahead_steps=1) == [5, 6]
    assert fought({}, until=9, ahead_steps=1) == []
    assert together([one, other], None)[4, 1, 2] == Duel(9)
