"""Backtests like those that `killick backtest` tells of, with figures computed from simulated series.

Three series with a cycle whose period changes at times. A policy is a linear forecaster of a day's past values,
fitted by least squares on what is known at a time: once, again and again, or when its error has grown. Seeds differ by
the rows that a fit takes. All scores are counted here, with NumPy alone.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from worker.backtest_told import Backtested, DayScore, Happening, LeadScore, PolicyRun, ScoreSet, SeriesScore

if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR_MS, DAY = 3_600_000, 24
DAY_MS = DAY * HOUR_MS
FIRST_DAY = 17_000  # since 1970: in July 2016
DAYS, TRAIN_DAYS, RECENT_DAYS, HORIZON = 200, 60, 15, 6
LEADS = (1, 3, 6)
NAMES = ("HUFL", "MULL", "OT")
POLICIES = ("never", "periodic:7d", "on-drift", "always", "control")
SEEDS = 3
STEPS_OF_ONE = 30  # gradient steps that one refit counts as

Array = np.ndarray[Any, np.dtype[np.float64]]
Steps = np.ndarray[Any, np.dtype[np.int64]]


@cache
def waves() -> Array:
    """The target `(S, T)`: a cycle whose period changes twice, and noise that lasts."""
    rng = np.random.default_rng(7)
    t = np.arange(DAYS * DAY)
    found = []
    for at in range(len(NAMES)):
        regime = np.floor(t / (DAY * (75 + 15 * at))).astype(np.int64)
        noise = np.zeros(len(t))
        for step in range(1, len(t)):
            noise[step] = 0.8 * noise[step - 1] + 0.25 * rng.normal()
        turned = np.cumsum(2 * np.pi / np.array([24.0, 17.0, 31.0])[regime])
        found.append(1.5 * np.sin(turned) + noise)
    return np.array(found)


def issued() -> Steps:
    """The steps at which the online span's forecasts are issued, `(N,)`."""
    return np.arange(TRAIN_DAYS * DAY, DAYS * DAY - HORIZON)


def inputs(step: Steps) -> Array:
    """A day of past values at steps `(N,)`, `(S, N, 25)`."""
    past = step[:, None] - np.arange(DAY)
    values = waves()[:, past]
    return np.concatenate([values, np.ones((*values.shape[:2], 1))], axis=2)


def labels(step: Steps) -> Array:
    """What came, `(S, N, H)`."""
    return waves()[:, step[:, None] + np.arange(1, HORIZON + 1)]


def fitted(begin: int, now: int, seed: int) -> Array:
    """Weights `(S, 25, H)` from the steps between, whose labels are known by now."""
    step = np.arange(max(begin, DAY), now - HORIZON)
    rows = np.random.default_rng(seed).choice(step, size=len(step) // 2)
    x, y = inputs(rows), labels(rows)
    penalty = np.eye(x.shape[2])
    weights: Array = np.linalg.solve(x.transpose(0, 2, 1) @ x + penalty, x.transpose(0, 2, 1) @ y).astype(np.float64)
    return weights


def scored(forecasts: Array) -> ScoreSet:
    """The scores of forecasts `(S, N, H)` of all steps of the online span."""
    step, truth = issued(), labels(issued())
    unit = waves()[:, : TRAIN_DAYS * DAY].std(axis=1)[:, None, None]
    errors = (truth - forecasts) / unit
    references = {name: (truth - reference(name)) / unit for name in ("persistence", "seasonal")}
    squared, sizes = errors**2, np.abs(errors)
    relative = 100 * np.abs((truth - forecasts) / truth)
    days = np.broadcast_to((step[:, None] + np.arange(1, HORIZON + 1)) // DAY, squared.shape).ravel() - TRAIN_DAYS
    counts = np.bincount(days)

    def a_day(errors: Array) -> list[float]:
        return [float(sum_) / int(count) for sum_, count in zip(np.bincount(days, errors.ravel()), counts, strict=True)]

    def skill(name: str, part: Any = ...) -> float:
        return float(1 - squared[part].mean() / (references[name][part] ** 2).mean())

    return ScoreSet(
        pairs=squared.size, mse=float(squared.mean()), mae=float(sizes.mean()), mape=float(relative.mean()),
        skill_persistence=skill("persistence"), skill_seasonal=skill("seasonal"),
        leads=tuple(
            LeadScore(
                lead=lead, pairs=squared[:, :, 0].size, mse=float(squared[:, :, lead - 1].mean()),
                mae=float(sizes[:, :, lead - 1].mean()), mape=float(relative[:, :, lead - 1].mean()),
                upto=float(squared[:, :, :lead].mean()),
                skill_persistence=skill("persistence", np.s_[:, :, lead - 1]),
                skill_seasonal=skill("seasonal", np.s_[:, :, lead - 1]),
            )
            for lead in LEADS
        ),
        daily=tuple(
            DayScore(day=FIRST_DAY + TRAIN_DAYS + day, pairs=int(count), mse=mse, persistence=against)
            for day, (count, mse, against) in enumerate(
                zip(counts, a_day(squared), a_day(references["persistence"] ** 2), strict=True)
            )
        ),
        series=tuple(
            SeriesScore(
                series=name, pairs=squared[at].size, mse=float(squared[at].mean()), mae=float(sizes[at].mean()),
                mape=float(relative[at].mean()), skill_persistence=skill("persistence", at),
                skill_seasonal=skill("seasonal", at),
                upto=tuple(float(squared[at, :, :lead].mean()) for lead in LEADS),
            )
            for at, name in enumerate(NAMES)
        ),
    )  # fmt: skip


def reference(name: str) -> Array:
    """What persistence or seasonal naive forecast at all steps of the online span, `(S, N, H)`."""
    step = issued()
    if name == "persistence":
        return np.repeat(waves()[:, step][:, :, None], HORIZON, axis=2)
    return waves()[:, step[:, None] + np.arange(1, HORIZON + 1) - DAY]


def refits(policy: str) -> list[int]:
    """The steps at which a policy fits anew."""
    every = {"periodic:7d": 7, "always": 1, "control": 7}.get(policy)
    if every is not None:
        return list(range((TRAIN_DAYS + every) * DAY, DAYS * DAY, every * DAY))
    if policy == "never":
        return []
    changes = sorted({DAY * (75 + 15 * at) * k for at in range(len(NAMES)) for k in (1, 2)})
    return [step + 6 * DAY for step in changes if TRAIN_DAYS * DAY < step + 6 * DAY < DAYS * DAY]


@cache
def run(policy: str, seed: int) -> PolicyRun:
    """One policy with one seed."""
    begins = [TRAIN_DAYS * DAY, *refits(policy)]
    forecasts, happened = [], []
    for version, (begin, end) in enumerate(pairwise([*begins, DAYS * DAY]), 1):
        known = TRAIN_DAYS * DAY if policy == "control" else begin
        since = known - RECENT_DAYS * DAY if version > 1 and policy != "control" else 0
        weights = fitted(since, known, 100 * seed + version)
        step = issued()[(issued() >= begin) & (issued() < end)]
        forecasts.append(inputs(step) @ weights)
        at = FIRST_DAY * DAY + begin
        if version > 1:
            if policy == "on-drift":
                happened.append(
                    Happening(step=at - DAY, kind="drift", words="the error grew by half", version=version - 1)
                )
            happened.append(Happening(step=at, kind="update", words="fitted anew", version=version))
    return PolicyRun(
        policy=policy, seed=seed, observations=issued().size * len(NAMES), scores=scored(np.concatenate(forecasts, 1)),
        retrainings=len(begins) - 1, promotions=len(begins) - 1, rollbacks=0, training_s=0.7 * (len(begins) - 1),
        gradient_steps=STEPS_OF_ONE * (len(begins) - 1), seconds=2.0 + 0.7 * (len(begins) - 1),
        versions=tuple((version, FIRST_DAY * DAY + begin) for version, begin in enumerate(begins, 1)),
        happened=tuple(happened),
    )  # fmt: skip


@cache
def told() -> Backtested:
    """Five policies with three seeds each, and the baselines, of which one is a linear model fitted every day."""
    baselines = {name: scored(reference(name)) for name in ("persistence", "seasonal")}
    return Backtested(
        file="data/waves.csv", model="waves", target="value", interval_ms=HOUR_MS, horizon=HORIZON, leads=LEADS,
        series=len(NAMES), observations=issued().size * len(NAMES), begin_ms=FIRST_DAY * DAY_MS,
        online_ms=(FIRST_DAY + TRAIN_DAYS) * DAY_MS, end_ms=(FIRST_DAY + DAYS) * DAY_MS, gate=False, seeds=SEEDS,
        fit_s=(3.0, 3.1, 2.9), baselines=baselines,
        runs=tuple(run(policy, seed) for policy in POLICIES for seed in range(1, SEEDS + 1)),
    )  # fmt: skip


def only(policies: Sequence[str], seeds: int = SEEDS, **changed: Any) -> Backtested:
    """The same with fewer policies and seeds."""
    kept = tuple(one for one in told().runs if one.policy in policies and one.seed <= seeds)
    return msgspec.structs.replace(told(), runs=kept, seeds=seeds, **changed)


def swapped(**factors: float) -> Backtested:
    """The same with every squared error of a way to forecast so many times as large; `periodic` is periodic:7d."""
    names = {name.split(":")[0].replace("-", "_"): name for name in (*POLICIES, *told().baselines)}
    of = {names[name]: factor for name, factor in factors.items()}
    return msgspec.structs.replace(
        told(),
        baselines={name: times(scores, of.get(name, 1.0)) for name, scores in told().baselines.items()},
        runs=tuple(
            msgspec.structs.replace(one, scores=times(one.scores, of.get(one.policy, 1.0))) for one in told().runs
        ),
    )


def times(scores: ScoreSet, factor: float) -> ScoreSet:
    """The scores with errors so many times as large; skills stay as they are."""

    def grown(one: Any) -> Any:
        return msgspec.structs.replace(one, mse=one.mse * factor)

    return msgspec.structs.replace(
        scores, mse=(scores.mse or 0.0) * factor, daily=tuple(map(grown, scores.daily)),
        leads=tuple(map(grown, scores.leads)), series=tuple(map(grown, scores.series)),
    )  # fmt: skip
