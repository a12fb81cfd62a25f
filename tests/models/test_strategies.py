"""Strategies: spans of a retraining, the grid, and who was best."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import DataError
from models.strategies import Attempt, Budget, Grid, best, control, cuts, plan, recent_lengths, repeats
from models.verdict import Attempted, Cuts

ALL = ("new-on-all", "update-on-new", "new-on-new", "update-on-all")
GRID = Grid(ALL, (1e-4, 1e-3), (168, 720, None), Budget(8, 3), Budget(60, 8, 2e-3), seed=5)
SPANS = cuts(0, 5_000, 7_000, horizon=24, validation=0.2, evaluation=0.3)


def attempted(strategy: str, mse: float | None) -> Attempted:
    """A training that came to this."""
    return Attempted(
        strategy=strategy,
        rate=1e-3,
        recent_steps=None,
        seed=1,
        outcome="exploded" if mse is None else "trained",
        validation_mse=mse,
        diagnosis="good fit",
        words="",
        best_epoch=1,
        gradient_steps=10,
        seconds=1.0,
    )


@given(
    st.integers(0, 10**9), st.integers(0, 5_000), st.integers(0, 5_000), st.integers(1, 100),
    st.floats(0.05, 0.45), st.floats(0.05, 0.45),
)  # fmt: skip
def test_spans_follow_each_other_a_horizon_apart_or_are_refused(
    begin: int, old: int, new: int, horizon: int, validation: float, evaluation: float
) -> None:
    """Every span that is given holds two horizons, and no forecast of one is due in the next."""
    spans = (begin, begin + old, begin + old + new)
    shares = (validation, evaluation, 1 - validation - evaluation - 2 * horizon / max(new, 1))
    if min(shares) * new < 2 * horizon - 1:  # as rounding may have it
        with pytest.raises(DataError, match=f"the new data has {new} steps"):
            cuts(*spans, horizon=horizon, validation=validation, evaluation=evaluation)
    if min(shares) * new < 2 * horizon + 1:
        return
    found = cuts(*spans, horizon=horizon, validation=validation, evaluation=evaluation)
    assert (found.begin, found.new_begin, found.end) == (begin, begin + old, begin + old + new)
    assert found.train_end - found.new_begin >= 2 * horizon
    assert found.validation_begin - found.train_end == horizon == found.evaluation_begin - found.validation_end
    assert found.validation_end - found.validation_begin >= 2 * horizon
    assert found.end - found.evaluation_begin >= 2 * horizon
    assert found.end - found.evaluation_begin == round(evaluation * new)
    assert found.validation_end - found.validation_begin == round(validation * new)


def test_too_little_new_data_is_said_with_how_much_would_do() -> None:
    """The steps that the message names are enough."""
    with pytest.raises(DataError, match=r"200 steps, of which 40 make the validation span .* at least 48") as refused:
        cuts(0, 800, 1_000, horizon=24, validation=0.2, evaluation=0.3)
    enough = int(str(refused.value).split("some ")[1].split()[0])
    assert cuts(0, 800, 800 + enough, horizon=24, validation=0.2, evaluation=0.3).end == 800 + enough


def test_the_grid_has_every_strategy_length_and_rate_once() -> None:
    """Updates with each rate, fresh weights with their own; updates first."""
    found = plan(GRID, SPANS, 24)
    assert len(found) == len(set(found)) == 2 * 3 * 2 + 2 * 3
    assert {(one.strategy, one.rate, one.recent_steps) for one in found} == {
        (strategy, rate, recent)
        for strategy in ALL
        for rate in ((1e-4, 1e-3) if strategy.startswith("update") else (2e-3,))
        for recent in (168, 720, None)
    }
    assert [one.updates for one in found] == [True] * 12 + [False] * 6
    assert {(one.epochs, one.patience) for one in found if one.updates} == {(8, 3)}
    assert {(one.epochs, one.patience) for one in found if not one.updates} == {(60, 8)}
    assert {one.seed for one in found} == {5}


def test_lengths_of_recent_data_that_hold_too_little_or_repeat_others_are_left_out() -> None:
    """Less than two horizons, or next to all of the new data, is no choice of its own; all is where nothing else is."""
    short = msgspec.structs.replace(SPANS, train_end=SPANS.new_begin + 180)
    assert recent_lengths((24, 100, 168, 720, None, 100), short, 24) == [100, None]
    assert recent_lengths((24,), short, 24) == [None]
    assert recent_lengths((None, 720, 168), SPANS, 24) == [168, 720, None]


def test_without_old_data_nothing_is_tried_twice() -> None:
    """On all data is then the same as on new data, and is left out where that is tried anyway."""
    bare = msgspec.structs.replace(SPANS, begin=SPANS.new_begin)
    assert {(one.strategy, one.recent_steps) for one in plan(GRID, bare, 24)} == {
        (strategy, recent)
        for strategy in ALL
        for recent in (168, 720, None)
        if not (strategy.endswith("-on-all") and recent is None)
    }
    alone = replace(GRID, strategies=("update-on-all",))
    assert [one.recent_steps for one in plan(alone, bare, 24)][-1] is None


def test_the_best_is_the_one_with_the_least_error_on_the_validation_span() -> None:
    """By strategy; exploded ones, those without a number and the control are never chosen."""
    tried = [
        attempted("update-on-new", 3.0),
        attempted("update-on-all", None),
        attempted("update-on-new", 2.0),
        attempted("update-on-new", 2.5),
        attempted("new-on-all", float("nan")),
        attempted("new-on-new", 0.0),
        attempted("new-on-new", 0.5),
        attempted("update-on-old", 0.1),
    ]
    assert best(tried) == {"update-on-new": 2, "new-on-new": 5}


def test_repeats_have_other_seeds_and_nothing_else_is_other() -> None:
    """`count` trainings of each in all, so one less to be made."""
    chosen = plan(GRID, SPANS, 24)[:2]
    found = repeats(chosen, 3)
    assert len(found) == 4
    assert len({(one.rate, one.seed) for one in (*found, *chosen)}) == 6
    assert {replace(one, seed=5) for one in found} == set(chosen)
    assert repeats(chosen, 1) == []


def test_the_control_is_the_update_on_old_data_with_as_many_steps() -> None:
    """Where there is too little old data there is none, and words say so."""
    update = Attempt("update-on-all", 5e-4, 168, 8, 3, 7)
    assert control(update, 33, SPANS, 24) == Attempt("update-on-old", 5e-4, 168, 8, 3, 7, gradient_steps=33)
    short: Cuts = msgspec.structs.replace(SPANS, begin=SPANS.new_begin - 30)
    found = control(update, 33, short, 24)
    assert found == "no control: there are 30 steps of old data, at least 48 (2 horizons) are needed"


def test_fresh_weights_are_not_trained_on_a_week() -> None:
    """New data alone has to be long enough for them; old data counts where it is trained on, too."""
    new, everything = SPANS.train_end - SPANS.new_begin, SPANS.train_end - SPANS.begin
    few = plan(replace(GRID, least_fresh=new + 1), SPANS, 24)
    assert {one.strategy for one in few} == {"update-on-new", "update-on-all", "new-on-all"}
    assert "new-on-new" in {one.strategy for one in plan(replace(GRID, least_fresh=new), SPANS, 24)}
    none = plan(replace(GRID, least_fresh=everything + 1), SPANS, 24)
    assert {one.strategy for one in none} == {"update-on-new", "update-on-all"}
    with pytest.raises(DataError, match=r"fresh weights need .* steps to be trained on, and there are"):
        plan(replace(GRID, least_fresh=everything + 1, strategies=("new-on-new",)), SPANS, 24)
