"""How candidates are made, and which: the spans of a retraining, the grid of attempts, and what was best.

Four strategies: an update goes on from the incumbent's weights, "new" begins with fresh ones; on new data alone, or on
all of it, of which a share is recent. And the control: the incumbent, trained for as many gradient steps as the best
update on old data alone, so that a gain can be told from mere extra training. It is never promoted.
Whatever is chosen is chosen on the validation span.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from models.errors import DataError
from models.verdict import Attempted, Cuts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CONTROL = "update-on-old"
UPDATES = ("update-on-new", "update-on-all")
FRESH = ("new-on-new", "new-on-all")
LEAST_HORIZONS = 2  # of a span: else far leads would have next to no label in it
LIKE_ALL = 0.9  # of the new data: as much as all of it
SEED_STRIDE = 1_000_003  # between a strategy's trainings


@dataclass(frozen=True)
class Attempt:
    """One training that is to be made.

    `recent_steps`: how much of the new data, its last part, counts as recent; None: all. `gradient_steps`: exactly so
    many, whatever validation says; None: until it stops the training.
    """

    strategy: str
    rate: float
    recent_steps: int | None
    epochs: int
    patience: int
    seed: int
    gradient_steps: int | None = None

    @property
    def updates(self) -> bool:
        """Whether it goes on from the incumbent's weights."""
        return self.strategy in {*UPDATES, CONTROL}


@dataclass(frozen=True)
class Budget:
    """How long a training may take, and its rate where the grid names none."""

    epochs: int
    patience: int
    rate: float = math.nan


@dataclass(frozen=True)
class Grid:
    """What is tried: each strategy with each length of recent data, updates with each rate too.

    Fresh weights are trained on `least_fresh` steps at least: of less they learn the week, not the world.
    """

    strategies: tuple[str, ...]
    rates: tuple[float, ...]
    recents: tuple[int | None, ...]  # steps; None: all new data
    update: Budget
    fresh: Budget
    seed: int = 1
    least_fresh: int = 0


def cuts(begin: int, new_begin: int, end: int, *, horizon: int, validation: float, evaluation: float) -> Cuts:
    """The spans that give validation and evaluation these shares of the new data, a horizon apart; in steps.

    Raises:
        DataError: one of them would be too short.
    """
    new = end - new_begin
    evaluation_begin = end - round(evaluation * new)
    validation_end = evaluation_begin - horizon
    validation_begin = validation_end - round(validation * new)
    found = Cuts(
        begin=min(begin, new_begin),
        new_begin=new_begin,
        train_end=validation_begin - horizon,
        validation_begin=validation_begin,
        validation_end=validation_end,
        evaluation_begin=evaluation_begin,
        end=end,
    )
    least = LEAST_HORIZONS * horizon
    for name, length in (
        ("training", found.train_end - new_begin),
        ("validation", validation_end - validation_begin),
        ("evaluation", end - evaluation_begin),
    ):
        if length < least:
            needed = math.ceil(least / min(validation, evaluation, 1.0 - validation - evaluation)) + 2 * horizon
            raise DataError(
                f"the new data has {max(0, new)} steps, of which {max(0, length)} make the {name} span (between the "
                f"spans lies a horizon of {horizon}); at least {least} are needed",
                f"wait until there are some {needed} steps (retraining.new_data), or choose other shares",
            )
    return found


def recent_lengths(recents: Iterable[int | None], spans: Cuts, horizon: int) -> list[int | None]:
    """Those lengths of recent data that hold enough and do not repeat each other; None: all new data."""
    new = spans.train_end - spans.new_begin
    found: list[int | None] = []
    for steps in recents:
        length = None if steps is None or steps >= LIKE_ALL * new else steps
        if length not in found and (length is None or length >= LEAST_HORIZONS * horizon):
            found.append(length)
    return sorted(found or [None], key=lambda steps: math.inf if steps is None else steps)


def plan(grid: Grid, spans: Cuts, horizon: int) -> list[Attempt]:
    """The attempts of a grid, updates first: they are soon done.

    Where there is no old data, a strategy "on all" is left out if its twin "on new" is there: it would be the same.

    Raises:
        DataError: fresh weights alone are to be trained, and there is too little data for them.
    """
    recents = recent_lengths(grid.recents, spans, horizon)
    attempts = []
    for strategy in sorted(grid.strategies, key=(*UPDATES, *FRESH).index):
        budget = grid.update if strategy in UPDATES else grid.fresh
        rates = tuple(dict.fromkeys(grid.rates)) if strategy in UPDATES else (budget.rate,)
        attempts += [
            Attempt(strategy, rate, recent, budget.epochs, budget.patience, grid.seed)
            for recent in recents
            for rate in rates
            if not _twin(strategy, recent, grid, spans, horizon) and _enough(strategy, recent, grid, spans)
        ]
    if not attempts:
        steps = spans.train_end - spans.begin
        raise DataError(
            f"fresh weights need {grid.least_fresh:,} steps to be trained on, and there are {steps:,}",
            "wait for more data, or let retraining.strategies update the incumbent, too",
        )
    return attempts


def _enough(strategy: str, recent: int | None, grid: Grid, spans: Cuts) -> bool:
    """Whether fresh weights have enough to learn from; updates begin with what the incumbent knows."""
    new = spans.train_end - spans.new_begin if recent is None else recent
    steps = spans.train_end - spans.begin if strategy.endswith("-all") else new
    return strategy in UPDATES or steps >= grid.least_fresh


def _twin(strategy: str, recent: int | None, grid: Grid, spans: Cuts, horizon: int) -> bool:
    """Whether another strategy trains on the same."""
    twin = strategy.replace("-on-all", "-on-new")
    old = spans.new_begin if recent is None else spans.train_end - recent
    return twin != strategy and twin in grid.strategies and old - spans.begin < LEAST_HORIZONS * horizon


def best(attempted: Sequence[Attempted]) -> dict[str, int]:
    """Which of the trainings is each strategy's best on the validation span; exploded ones and the control are none."""
    found: dict[str, int] = {}
    for i, one in enumerate(attempted):
        if one.validation_mse is None or one.strategy == CONTROL or not math.isfinite(one.validation_mse):
            continue
        before = found.get(one.strategy)
        if before is None or one.validation_mse < (attempted[before].validation_mse or 0.0):
            found[one.strategy] = i
    return found


def repeats(chosen: Iterable[Attempt], count: int) -> list[Attempt]:
    """The trainings that make `count` of each of those chosen: with other seeds, and so other chunk phases."""
    return [replace(one, seed=(one.seed + i * SEED_STRIDE) % 2**31) for one in chosen for i in range(1, count)]


def control(chosen: Attempt, gradient_steps: int, spans: Cuts, horizon: int) -> Attempt | str:
    """The control of the best update, which took so many gradient steps; why there is none, where there is none."""
    old = spans.new_begin - spans.begin
    if old < LEAST_HORIZONS * horizon:
        return (
            f"no control: there are {max(0, old)} steps of old data, "
            f"at least {LEAST_HORIZONS * horizon} ({LEAST_HORIZONS} horizons) are needed"
        )
    return replace(chosen, strategy=CONTROL, gradient_steps=gradient_steps)
