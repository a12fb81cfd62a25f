"""`killick bench accuracy`: our figures beside the published ones, by the backtest.

data sets ─► backtest (never, weekly plain updates; all seeds) ─► means and deviations over seeds, by set and series
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from models.errors import DataError
from models.times import DAY_MS
from worker.accuracy_sets import GOAL, LEADS, OURS, REACH, BenchSet
from worker.backtest import Wishes, backtest
from worker.backtest_policies import parse_policy
from worker.backtest_scene import scene_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import TextIO

    from worker.backtest_told import Backtested, ScoreSet

FROZEN = "never"
TITLES = {"persistence": "persistence", "seasonal": "seasonal naive", "rls": "online RLS"}
LEVEL = 0.05  # below which a difference between seeds is more than noise


@dataclass(frozen=True)
class Row:
    """One way to forecast on one set: MSE, mean over leads 1…H, for each H of LEADS."""

    name: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...] | None = None  # over seeds; None: a baseline, or one seed
    published: bool = False


def measure(
    one: BenchSet, folder: Path, policies: Sequence[str], seeds: int, workers: int, stream: TextIO
) -> Backtested:
    """A set, streamed under every policy with every seed.

    Raises:
        ConfigError: its file is not there.
        DataError, VersionError, TrainingError: as `backtest`.
    """
    history = one.history(folder)
    online_ms = int(history.time_ms[0]) + one.learned_days * DAY_MS
    settings = one.read_settings()
    scene = scene_of(settings, history, online_ms, gate=False, console=Console(file=stream, stderr=True))
    wishes = Wishes(
        file=one.name,
        policies=tuple(parse_policy(name) for name in policies),
        seeds=tuple(range(1, seeds + 1)),
        leads=LEADS,
        workers=workers,
    )
    return backtest(scene, wishes, stream)


def rows(told: Backtested, one: BenchSet) -> list[Row]:
    """Ours, the baselines, and what others have published."""
    found = [Row(TITLES[name], _upto(scores)) for name, scores in told.baselines.items()]
    for policy in told.policies:
        by_seed = by_seed_of(told, policy)
        deviation = tuple(by_seed.std(axis=0, ddof=1).tolist()) if len(by_seed) > 1 else None
        found.append(Row(f"LSTM, {policy}", tuple(by_seed.mean(axis=0).tolist()), deviation))
    for name, figures in one.published.items():
        found.append(Row(name if name in OURS else f"{name}, published", figures, published=True))
    return found


def by_seed_of(told: Backtested, policy: str) -> np.ndarray:
    """MSE over leads 1…H by seed, `(seeds, len(LEADS))`."""
    return np.array([_upto(run.scores) for run in told.runs if run.policy == policy])


def tables(told: Backtested, one: BenchSet) -> list[Table]:
    """The figures of a set, by horizon; and by series."""
    heads = [f"H = {lead}" for lead in LEADS]
    whole = Table(title=f"{one.name}: MSE, mean over leads 1…H, in deviations over the training span", box=None)
    whole.add_column("")
    for head in heads:
        whole.add_column(head, justify="right")
    for row in rows(told, one):
        spread = row.deviation or (None,) * len(LEADS)
        cells = [_figure(mean, deviation) for mean, deviation in zip(row.mean, spread, strict=True)]
        whole.add_row(row.name, *cells, style="dim" if row.published else "")
    each = Table(title=f"{one.name} by series, H = {LEADS[-1]}", box=None)
    each.add_column("")
    names = [series.series for series in told.runs[0].scores.series]
    for name in names:
        each.add_column(name, justify="right")
    for name, scores in told.baselines.items():
        each.add_row(TITLES[name], *(_figure(_last(scores, series), None) for series in names))
    for policy in told.policies:
        runs = [run.scores for run in told.runs if run.policy == policy]
        means = [float(np.mean([_last(scores, series) for scores in runs])) for series in names]
        each.add_row(f"LSTM, {policy}", *(_figure(mean, None) for mean in means))
    return [whole, each] if len(names) > 1 else [whole]


def sentences(told: Backtested, one: BenchSet) -> list[str]:
    """What holds of a set, and what does not, each in a sentence with its figures."""
    found = []
    frozen = by_seed_of(told, FROZEN)
    for policy in told.policies:
        ours = by_seed_of(told, policy)
        mean = ours.mean(axis=0)
        for name in (REACH, GOAL):
            if name in one.published and policy != FROZEN:
                missed = [
                    f"H = {lead}: {mine:.4g} > {wanted:g}"
                    for lead, mine, wanted in zip(LEADS, mean, one.published[name], strict=True)
                    if mine > wanted
                ]
                found.append(f"LSTM, {policy}: {name}: " + ("; ".join(missed) if missed else "at every horizon"))
        for baseline, title in TITLES.items():
            theirs = np.array(_upto(told.baselines[baseline]))
            lost = [f"H = {lead} by {m / t - 1:.1%}" for lead, m, t in zip(LEADS, mean, theirs, strict=True) if m > t]
            if lost:
                found.append(f"{title} does better than LSTM, {policy}: " + ", ".join(lost))
        if policy != FROZEN and len(frozen):
            found.append(f"LSTM, {policy} against itself frozen: " + _against(ours, frozen))
    return found


def as_object(told: Backtested, one: BenchSet) -> dict[str, Any]:
    """The same for programs."""
    return {
        "set": one.name,
        "leads": LEADS,
        "seeds": told.seeds,
        "rows": [
            {"name": row.name, "mse": row.mean, "deviation": row.deviation, "published": row.published}
            for row in rows(told, one)
        ],
        "runs": [
            {
                "policy": run.policy,
                "seed": run.seed,
                "mse": _upto(run.scores),
                "retrainings": run.retrainings,
                "training_s": run.training_s,
                "gradient_steps": run.gradient_steps,
                "seconds": run.seconds,
                "series": {series.series: series.upto for series in run.scores.series},
            }
            for run in told.runs
        ],
        "sentences": sentences(told, one),
    }


def _against(ours: np.ndarray, frozen: np.ndarray) -> str:
    """The difference at each horizon, seed by seed; worse only where that is beyond the noise of the seeds."""
    words = []
    for at, lead in enumerate(LEADS):
        difference = ours[:, at] - frozen[:, at]
        share = difference.mean() / frozen[:, at].mean()
        doubt = " (one seed)"
        if len(difference) > 1:
            p = float(stats.ttest_1samp(difference, 0.0).pvalue)
            doubt = "" if p < LEVEL else " (within the noise of the seeds)"
        words.append(f"H = {lead} {share:+.1%}{doubt}")
    return ", ".join(words)


def _upto(scores: ScoreSet) -> tuple[float, ...]:
    found = {lead.lead: lead.upto for lead in scores.leads}
    values = tuple(found.get(lead) for lead in LEADS)
    if any(value is None for value in values):
        raise DataError("a horizon has no pair", "use a longer file")
    return tuple(float(value) for value in values if value is not None)


def _last(scores: ScoreSet, series: str) -> float:
    found = next((one.upto[-1] for one in scores.series if one.series == series), None)
    return math.nan if found is None else found


def _figure(mean: float, deviation: float | None) -> str:
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"
