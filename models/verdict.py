"""A verdict: the written outcome of comparing candidates with the incumbent, and how the chosen one is tried live.

Numbers only, as JSON: what a report, an operator and the gate need is in here, and nothing else is asked again.
Losses are squared errors in units of the series' scale, as the mean over series and leads of one event-time step.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FORMAT = 1

Outcome = Literal["promote", "reject", "inconclusive", "failed"]
Mode = Literal["superiority", "harm", "none"]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How differences of losses are grouped and scaled before they are bet on; found on recorded losses."""

    block_steps: int  # the shortest block whose means have lag-1 autocorrelation of at most .1
    scale: float  # standard deviation of block means
    lag1: float  # that autocorrelation
    steps: int  # that it was found on
    words: str = ""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """How a candidate is to be judged on the live stream."""

    mode: Mode  # superiority: it must prove better; harm: it must not prove worse; none: it is promoted at once
    alpha: float  # level of proving better (superiority), or worse (harm)
    calibration: Calibration
    harm_steps: int  # of a harm trial: without harm for so long it is promoted
    deadline_steps: int  # of a superiority trial: undecided for so long it ends


class Cuts(msgspec.Struct, frozen=True, kw_only=True):
    """The spans of a retraining, in steps since 1970: train | validation | evaluation, a horizon apart.

    What is before `new_begin` is old data. Each span ends before its `_end`.
    """

    begin: int
    new_begin: int
    train_end: int
    validation_begin: int
    validation_end: int
    evaluation_begin: int
    end: int


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch of a learning curve; losses in units of the gain, None where they were not finite any more."""

    epoch: int
    train_loss: float | None
    validation_loss: float | None


class Attempted(msgspec.Struct, frozen=True, kw_only=True):
    """One training: what was tried, and what it came to. `validation_mse` is comparable between all attempts."""

    strategy: str
    rate: float
    recent_steps: int | None  # None: all new data
    seed: int
    outcome: Literal["trained", "exploded"]
    validation_mse: float | None
    diagnosis: str  # one word
    words: str
    best_epoch: int
    gradient_steps: int
    seconds: float
    curve: tuple[Epoch, ...] = ()


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One contender over the evaluation span."""

    name: str  # incumbent, persistence, seasonal, or a strategy, the control's among them
    mse: float  # scaled
    mae: float  # unscaled, in the target's unit
    skill: float | None  # against persistence
    by_lead: tuple[float | None, ...]  # scaled squared error at Verdict.leads; None: no pair
    repeats: tuple[float, ...] = ()  # mse of all trainings of it, the finalist's first, with other seeds


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A contender against the incumbent: positive differences say that it was better."""

    name: str
    difference: float  # mean over steps of the incumbent's loss less its own
    low: float  # stationary block bootstrap, 95 %
    high: float
    statistic: float  # Diebold-Mariano with the correction of Harvey, Leybourne and Newbold
    p_value: float  # one-sided: that it is no better
    p_holm: float | None  # after Holm over the finalists; None for those that are not finalists


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The loss difference of the chosen finalist over time, in at most some hundred points."""

    step: tuple[int, ...]
    difference: tuple[float, ...]  # mean around that step
    low: tuple[float, ...]
    high: tuple[float, ...]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a retraining came to."""

    id: str  # of its first request
    requests: tuple[str, ...]  # all that it answers
    trigger: str  # drift, skill, schedule, pairs, operator or http
    goal: str
    why: str
    model: str
    interval_ms: int
    created_ms: int
    seconds: float
    incumbent: int
    outcome: Outcome
    sentence: str  # the decision in plain words
    version: int | None = None  # that was registered
    chosen: str | None = None  # strategy of the finalist
    newest_step: int | None = None  # that was there when it was judged
    cuts: Cuts | None = None
    series: int = 0  # how many were judged on
    observations: int = 0
    steps: int = 0  # of the evaluation span that have a loss
    leads: tuple[int, ...] = ()
    attempts: tuple[Attempted, ...] = ()
    judged: tuple[Judged, ...] = ()
    compared: tuple[Compared, ...] = ()
    over_time: Series | None = None
    trial: Trial | None = None
    cost: float | None = None  # saved in a day, in Verdict.unit; None: not known
    unit: str = ""
    notes: tuple[str, ...] = ()
    format: int = FORMAT
