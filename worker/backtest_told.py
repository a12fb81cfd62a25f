"""What a backtest came to: values only, for tables, JSON and pages.

Errors are in standard deviations of each series over the training span, so that series can be averaged; MAPE is in
per cent of the target's own values. A mean over leads is the mean of the leads' means.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["drift", "update", "verdict", "nominate", "promote", "rollback", "resume"]


class LeadScore(msgspec.Struct, frozen=True, kw_only=True):
    """Forecasts at one lead, over all series."""

    lead: int
    pairs: int
    mse: float | None  # None here and below: there is no pair
    mae: float | None
    mape: float | None  # per cent
    upto: float | None  # mean of the MSE over leads 1…lead
    skill_persistence: float | None  # 1 - MSE / MSE of the reference over the pairs that both have
    skill_seasonal: float | None


class DayScore(msgspec.Struct, frozen=True, kw_only=True):
    """Forecasts whose time lies in one day, all leads pooled."""

    day: int  # since 1970, UTC
    pairs: int
    mse: float
    persistence: float | None  # MSE of persistence over the pairs that it has too


class SeriesScore(msgspec.Struct, frozen=True, kw_only=True):
    """Forecasts of one series; the mean over leads."""

    series: str
    pairs: int
    mse: float | None
    mae: float | None
    mape: float | None
    skill_persistence: float | None
    skill_seasonal: float | None
    upto: tuple[float | None, ...]  # mean of the MSE over leads 1…k, for each lead k of Backtested.leads


class ScoreSet(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was forecast in the online span, scored."""

    pairs: int
    mse: float | None
    mae: float | None
    mape: float | None
    skill_persistence: float | None
    skill_seasonal: float | None
    leads: tuple[LeadScore, ...]  # of Backtested.leads
    daily: tuple[DayScore, ...]
    series: tuple[SeriesScore, ...]


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to the versions of a run, at a step of event time."""

    step: int
    kind: Kind
    words: str
    version: int | None = None


class PolicyRun(msgspec.Struct, frozen=True, kw_only=True):
    """One policy with one seed."""

    policy: str  # never, periodic:7d, on-drift, on-skill, always; control: each week, on old data alone
    seed: int
    observations: int
    scores: ScoreSet
    retrainings: int
    promotions: int
    rollbacks: int
    training_s: float  # of the clock, without the first fit
    gradient_steps: int  # of all trainings but the first fit
    seconds: float  # of the clock, without the first fit
    versions: tuple[tuple[int, int], ...]  # (version, step from which on it answered)
    happened: tuple[Happening, ...]


class Backtested(msgspec.Struct, frozen=True, kw_only=True):
    """All runs over one file, with the baselines."""

    file: str
    model: str
    target: str
    interval_ms: int
    horizon: int
    leads: tuple[int, ...]  # that are shown
    series: int
    observations: int  # of the online span
    begin_ms: int  # of the file
    online_ms: int  # where the online span begins
    end_ms: int  # of the file
    gate: bool
    seeds: int
    fit_s: tuple[float, ...]  # by seed
    baselines: dict[str, ScoreSet]  # persistence, seasonal, rls
    runs: tuple[PolicyRun, ...]

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of those that were run, in their order."""
        return tuple(dict.fromkeys(run.policy for run in self.runs))
