"""Tunings like those that `killick tune` tells of: small linear forecasters, really trained, in place of networks.

A configuration is a number of lags, a learning rate, a penalty and a start; it is trained by gradient descent with
early stopping on splits that follow each other, several times with other seeds. One rate is too high and explodes.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from models.skill import average
from tests.worker.backtest_samples import DAY, FIRST_DAY, HOUR_MS, waves
from worker.tune_figures import (
    apart,
    best_shares,
    by_split,
    checked,
    deviation_of,
    gain_over,
    mean_of,
    measured,
)
from worker.tune_space import toml
from worker.tune_told import Learned, Run, Split, Trial, Tuned

if TYPE_CHECKING:
    from collections.abc import Sequence

HORIZON, EPOCHS, PATIENCE = 4, 25, 4
SPLITS = ((20, 24, 30), (32, 36, 42))  # days: training ends, validation ends, evaluation ends
HELD = (44, 48, 54)
REPEATS, CHECKED = 3, 8
FIRST: dict[str, Any] = {"network.lags": 6, "training.rate": 0.03, "training.l2": 0.0, "training.start": "he"}
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    *({"network.lags": lags, "training.rate": rate} for lags, rate in product((12, 24), (0.01, 0.03, 0.06))),
    {"network.lags": 20, "training.rate": 0.06},
    {"network.lags": 22, "training.rate": 0.06},
    {"training.l2": 0.05},
    {"training.rate": 9.0},
    {"training.start": "orthogonal"},
    {"network.lags": 24, "training.l2": 0.2},
)

Array = np.ndarray[Any, np.dtype[np.float64]]


def rows(lags: int, begin: int, end: int) -> tuple[Array, Array]:
    """Inputs `(N, lags)` and labels `(N, H)` of all series, whose labels lie before `end`; in days."""
    step = np.arange(max(lags, begin * DAY), end * DAY - HORIZON)
    x = waves()[:, step[:, None] - np.arange(lags)].reshape(-1, lags)
    y = waves()[:, step[:, None] + np.arange(1, HORIZON + 1)].reshape(-1, HORIZON)
    return x, y


def learn(settings: dict[str, Any], days: tuple[int, int, int], split: int, seed: int) -> Run:
    """One training by gradient descent on random batches, stopped early."""
    lags, rate = settings["network.lags"], settings["training.rate"]
    rng = np.random.default_rng(seed)
    (x, y), (vx, vy), (ex, ey) = (rows(lags, *of) for of in ((0, days[0]), days[:2], days[1:]))
    unit = y.var()
    weights = 0.4 * rng.normal(size=(lags, HORIZON)) / (1 if settings["training.start"] == "he" else 3)

    def losses() -> Learned:
        found = (float(np.mean((b - a @ weights) ** 2) / unit) for a, b in ((x, y), (vx, vy)))
        train, validation = (one if np.isfinite(one) and one < 1e6 else None for one in found)
        return Learned(train_loss=train, validation_loss=validation)

    untrained, curve, kept, best = losses(), [], weights, 0
    for epoch in range(1, EPOCHS + 1):
        for batch in np.array_split(rng.permutation(len(x)), 20):
            slope = x[batch].T @ (x[batch] @ weights - y[batch]) / len(batch)
            weights = weights - rate * (slope + settings["training.l2"] * weights)
            if not np.isfinite(weights).all():
                break
        with np.errstate(all="ignore"):
            curve.append(losses())
        validation = curve[-1].validation_loss
        if validation is None:
            break
        if best == 0 or validation < (curve[best - 1].validation_loss or 0.0):
            kept, best = weights, epoch
        if epoch - best >= PATIENCE:
            break
    exploded = curve[-1].validation_loss is None
    squared = None if exploded else ((ey - ex @ kept) ** 2).mean(axis=0) / unit
    mse = None if squared is None else float(squared.mean())
    against = persistence(days)
    return Run(
        split=split, seed=seed, mse=mse, leads=() if squared is None else tuple(map(float, squared)),
        skill_persistence=None if mse is None else 1 - mse / against,
        skill_seasonal=None if mse is None else 1 - mse / 2,
        untrained=untrained, curve=tuple(curve), best_epoch=0 if exploded else best,
        diagnosis="exploded" if exploded else "underfit" if best == EPOCHS else "good fit",
        words="The loss is no number any more." if exploded else f"The least loss was that of epoch {best}.",
        steps=20 * len(curve), seconds=0.05 * len(curve) * lags / 6, pairs=ey.size, persistence=against, seasonal=2.0,
    )  # fmt: skip


def persistence(days: tuple[int, int, int]) -> float:
    """The error of persistence over the evaluation span, in units of the training span."""
    x, y = rows(1, days[1], days[2])
    return float(((y - x) ** 2).mean() / rows(1, 0, days[0])[1].var())


@cache
def trainings() -> tuple[tuple[Run, ...], ...]:
    """The runs of each configuration; one that explodes ends there."""
    found = []
    for changed in CHANGES:
        runs: list[Run] = []
        for seed, (split, days) in product(range(1, REPEATS + 1), enumerate(SPLITS)):
            runs.append(learn(FIRST | changed, days, split, seed))
            if runs[-1].mse is None:
                break
        found.append(tuple(runs))
    return tuple(found)


def trial(number: int, runs: Sequence[Run], changed: dict[str, Any]) -> Trial:
    """One configuration with its figures."""
    exploded = any(run.mse is None for run in runs)
    found, first = measured(runs), trainings()[0]
    beside = [one for one in first if (one.split, one.seed) in {(run.split, run.seed) for run in runs}]
    gain, interval = gain_over(measured(beside), found) if number and not exploded else (None, None)
    ours, theirs = by_split(runs), by_split(beside)
    return Trial(
        number=number, settings=FIRST | changed, changed=changed, state="exploded" if exploded else "complete",
        words="with seed 1 on split 1: the loss is no number any more" if exploded else "",
        parameters=HORIZON * (FIRST | changed)["network.lags"], runs=tuple(runs), mse=mean_of(runs),
        deviation=deviation_of([runs]), error=found.error if found is not None and found.freedom else None,
        interval=found.interval if found is not None else None,
        skill_persistence=average(run.skill_persistence for run in runs),
        skill_seasonal=average(run.skill_seasonal for run in runs), gain=gain, gain_interval=interval,
        splits_won=sum(np.mean(ours[split]) < np.mean(theirs[split]) for split in ours if split in theirs),
        best_share=None, seconds=sum(run.seconds for run in runs),
    )  # fmt: skip


def span(days: tuple[int, int, int], runs: Sequence[Run]) -> Split:
    """A split as times."""
    train, validation, end = ((FIRST_DAY + day) * DAY * HOUR_MS for day in days)
    return Split(
        begin_ms=FIRST_DAY * DAY * HOUR_MS, train_ms=train, validation_ms=validation, end_ms=end, pairs=runs[0].pairs,
        persistence=persistence(days), seasonal=2.0,
    )  # fmt: skip


@cache
def told() -> Tuned:
    """All trials, the check and the rest."""
    trials = [trial(at, runs, changed) for at, (runs, changed) in enumerate(zip(trainings(), CHANGES, strict=True))]
    figures = {one.number: found for one in trials if one.state == "complete" and (found := measured(one.runs))}
    shares = best_shares(figures)
    trials = [msgspec.structs.replace(one, best_share=shares.get(one.number)) for one in trials]
    ranking = tuple(sorted(figures, key=lambda number: figures[number].mean))
    tied = tuple(number for number in ranking[1:] if not apart(figures[ranking[0]], figures[number]))
    best = trials[ranking[0]]
    seeds = range(11, 11 + CHECKED)
    first, bests = ([learn(FIRST | changed, HELD, 0, seed) for seed in seeds] for changed in ({}, best.changed))
    return Tuned(
        file="data/waves.csv", model="waves", target="value", interval_ms=HOUR_MS, horizon=HORIZON,
        series=len(waves()), observations=waves().size, begin_ms=FIRST_DAY * DAY * HOUR_MS,
        end_ms=(FIRST_DAY + HELD[-1]) * DAY * HOUR_MS,
        splits=tuple(span(days, trials[0].runs) for days in SPLITS), repeats=REPEATS, wanted=len(CHANGES),
        trials=tuple(trials), ranking=ranking, tied=tied,
        cheapest=min((ranking[0], *tied), key=lambda number: trials[number].seconds),
        importance={"network.lags": 0.7, "training.rate": 0.25, "training.l2": 0.05},
        check=checked(span(HELD, first), first, bests), toml=toml(best.changed),
        seconds=sum(one.seconds for one in trials), workers=2, study="killick-tune",
    )  # fmt: skip


def one_repeat() -> Tuned:
    """One repeat, one split, no check: nothing is known of luck."""
    trials = tuple(
        msgspec.structs.replace(
            trial(one.number, one.runs[:1], one.changed), error=None, interval=None, gain_interval=None
        )
        for one in told().trials
    )
    ranking = tuple(sorted((one.number for one in trials if one.mse is not None), key=lambda at: trials[at].mse or 0.0))
    return msgspec.structs.replace(
        told(), trials=trials, ranking=ranking, tied=(), cheapest=ranking[0], importance={}, check=None, repeats=1,
        splits=told().splits[:1], toml=toml(trials[ranking[0]].changed),
    )  # fmt: skip


def as_they_are() -> Tuned:
    """The settings as they are alone, which are the best, checked."""
    check = told().check
    assert check is not None
    own = checked(check.split, check.first, check.first)
    return msgspec.structs.replace(
        told(), trials=told().trials[:1], ranking=(0,), tied=(), cheapest=0, importance={}, check=own, toml="",
        wanted=1,
    )  # fmt: skip


def nothing() -> Tuned:
    """Every trial exploded."""
    exploded = next(one for one in told().trials if one.state == "exploded")
    return msgspec.structs.replace(
        told(), trials=(msgspec.structs.replace(exploded, number=0),), ranking=(), tied=(), cheapest=None,
        importance={}, check=None, toml="",
    )  # fmt: skip
