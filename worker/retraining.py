"""One retraining, from what is recorded to a verdict. Trainings run elsewhere; here they are planned and judged.

what is recorded ─► lesson ─┬─ grid of attempts ─► best of each strategy ─► the same with other seeds ─┐
   train | validation | evaluation        (chosen on the validation span)        control ─────────────┤
                            └─ judge: all of them, the incumbent and the references, on the evaluation span ─► verdict
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.architecture import Architecture
from models.comparison import band, bootstrap_interval, diebold_mariano, holm, screen_p_value
from models.decision import decide
from models.sequential import calibrate
from models.strategies import CONTROL, UPDATES, best, control, plan, repeats
from models.verdict import Compared, Judged
from worker.retraining_tasks import attempt, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.blocks import Floats
    from models.decision import Decided, JudgementLimits
    from models.strategies import Grid
    from models.verdict import Attempted, Calibration, Series
    from worker.executors import Work
    from worker.losses import Losses
    from worker.retraining_tasks import Lesson, Result

INCUMBENT = "incumbent"
REFERENCES = ("persistence", "seasonal")
SEED = 20_260  # of the bootstrap
CALIBRATION_STEPS = 2_000


class Trained(NamedTuple):
    """All trainings; and by strategy, the control among them, those of its best attempt with other seeds."""

    results: list[Result]
    again: dict[str, list[Result]]  # the finalist first
    notes: list[str]


@dataclass(frozen=True)
class Findings:
    """What a retraining found out; the verdict is written from it."""

    decided: Decided
    attempts: tuple[Attempted, ...]
    chosen: Result | None
    judged: tuple[Judged, ...]
    compared: tuple[Compared, ...]
    over_time: Series | None
    calibration: Calibration | None
    losses: Losses
    notes: tuple[str, ...]


def findings(lesson: Lesson, grid: Grid, count: int, limits: JudgementLimits, work: Work) -> Findings:
    """What comes of a lesson; the best attempt of each strategy is made `count` times.

    Raises:
        DataError: there is too little to learn from, or to judge on.
        Ended, TrainingError: as `Work.run`.
        VersionError: a network can't be run.
    """
    horizon = Architecture.from_json(lesson.architecture).horizon
    trained = _trained(lesson, grid, count, horizon, work)
    contenders = {INCUMBENT: (lesson.architecture, lesson.weights)}
    for name, again in trained.again.items():
        for at, result in enumerate(again):
            if result.weights is not None:
                contenders[_named(name, at)] = (result.architecture, result.weights)
    cuts = lesson.cuts
    (losses,) = work.run("comparison", judge, [(lesson, contenders, cuts.evaluation_begin, cuts.end)])
    compared = _compared(losses, [name for name in trained.again if name != CONTROL], horizon)
    decided = decide(compared, losses.mse[INCUMBENT], int(np.isfinite(losses.loss[INCUMBENT]).sum()), limits)
    found = Findings(
        decided=decided,
        attempts=tuple(result.attempted for result in trained.results),
        chosen=None,
        judged=_judged(losses, trained.again),
        compared=compared,
        over_time=None,
        calibration=None,
        losses=losses,
        notes=tuple(trained.notes),
    )
    if decided.chosen is None:
        return found
    again = trained.again[decided.chosen]
    networks = {
        INCUMBENT: contenders[INCUMBENT],
        **{name: contenders[name] for at in range(len(again)) if (name := _named(decided.chosen, at)) in contenders},
    }
    begin = max(cuts.begin, cuts.end - CALIBRATION_STEPS)
    (longer,) = work.run("calibration", judge, [(lesson, networks, begin, cuts.end)])
    return _for_trial(found, again, decided.chosen, longer)


def _trained(lesson: Lesson, grid: Grid, count: int, horizon: int, work: Work) -> Trained:
    """The grid; the best of each strategy again with other seeds; the control of the best update."""
    grid_of = plan(grid, lesson.cuts, horizon)
    strategies = len({one.strategy for one in grid_of})
    work.expect(len(grid_of) + strategies * (count - 1) + 3)  # control, comparison and calibration, too
    tried = list(grid_of)
    results = work.run("grid of trainings", attempt, [(lesson, one) for one in tried])
    first = best([result.attempted for result in results])
    more = repeats([tried[at] for at in first.values()], count)
    results += work.run("best ones, other seeds", attempt, [(lesson, one) for one in more])
    tried += more
    again: dict[str, list[Result]] = {}
    for name, at in first.items():
        same = [i for i, one in enumerate(tried) if replace(one, seed=tried[at].seed) == tried[at]]
        order = sorted(same, key=lambda i: results[i].attempted.validation_mse or np.inf)
        again[name] = [results[i] for i in order if results[i].weights is not None]
    updates = [again[name][0] for name in again if name in UPDATES]
    if not updates:
        return Trained(results, again, ["no control: no update came to an end"] if first else [])
    champion = min(updates, key=lambda one: one.attempted.validation_mse or np.inf)
    beside = control(champion.attempt, champion.attempted.gradient_steps, lesson.cuts, horizon)
    if isinstance(beside, str):
        return Trained(results, again, [beside])
    (result,) = work.run("control", attempt, [(lesson, beside)])
    return Trained([*results, result], again | {CONTROL: [result]}, [])


def _named(strategy: str, at: int) -> str:
    """How a training of a strategy is called among the contenders: the finalist like the strategy."""
    return strategy if at == 0 else f"{strategy}#{at}"


def _difference(losses: Losses, name: str, other: str = INCUMBENT) -> Floats:
    """How much lower the loss of `name` was than that of `other` at each step, `(T,)`; NaN where there is none."""
    difference: Floats = losses.loss[other] - losses.loss[name]
    return difference


def _compared(losses: Losses, strategies: Sequence[str], horizon: int) -> tuple[Compared, ...]:
    """Everybody against the incumbent; the finalists' p-values together keep the level."""
    tests = {}
    for name in (*strategies, CONTROL, *REFERENCES):
        if np.isfinite(losses.mse.get(name, np.nan)):
            difference = _difference(losses, name)
            tests[name] = (difference, diebold_mariano(difference, horizon), bootstrap_interval(difference, seed=SEED))
    held = dict(zip(strategies, holm([screen_p_value(tests[name][0], horizon) for name in strategies]), strict=True))
    return tuple(
        Compared(
            name=name,
            difference=float(np.nanmean(difference)) if np.isfinite(difference).any() else 0.0,
            low=low,
            high=high,
            statistic=statistic,
            p_value=p_value,
            p_holm=held.get(name),
        )
        for name, (difference, (statistic, p_value), (low, high)) in tests.items()
    )


def _judged(losses: Losses, again: Mapping[str, Sequence[Result]]) -> tuple[Judged, ...]:
    base = losses.mse[REFERENCES[0]]
    return tuple(
        Judged(
            name=name,
            mse=losses.mse[name],
            mae=losses.mae[name],
            skill=1.0 - losses.mse[name] / base if base > 0 else None,
            by_lead=tuple(x if np.isfinite(x) else None for x in losses.mse_by_lead[name].tolist()),
            repeats=tuple(losses.mse[_named(name, at)] for at in range(len(again.get(name, ())))),
        )
        for name in (INCUMBENT, *again, *REFERENCES)
        if np.isfinite(losses.mse.get(name, np.nan))
    )


def _for_trial(found: Findings, again: Sequence[Result], name: str, longer: Losses) -> Findings:
    """What the live trial of the one that was chosen has to know, and a word on its control.

    Trainings that differ by their seed alone say what luck looks like (A/A). How losses depend on each other takes
    some 2,000 steps to be told (docs/judgement.md), so the same networks are looked at over a `longer` span: the mean
    difference, which what they were trained on would flatter, plays no part in it.
    """
    losses, difference = found.losses, _difference(found.losses, name)
    twins = [_named(name, at) for at in range(1, len(again))]
    luck = [_difference(longer, twin, name) for twin in twins if twin in longer.loss]
    notes = list(found.notes)
    if CONTROL in losses.loss:
        gained = _difference(losses, name, CONTROL)
        if np.nanmean(gained) <= 0:
            notes.append(
                "the control did as well: training as long on old data alone would have brought the gain, "
                "so it does not come from what is new"
            )
    return replace(
        found,
        chosen=again[0],
        over_time=band(difference, losses.steps, seed=SEED),
        calibration=calibrate([difference, _difference(longer, name), *luck]),
        notes=tuple(notes),
    )
