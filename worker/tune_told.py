"""What a tuning came to: values only, for tables, JSON and pages.

Errors are those of forecasts issued in the evaluation span of a split, in standard deviations of each series over that
split's training span; a mean over leads is the mean of the leads' means. What stands for "a configuration" is the mean
over splits of the mean over repeats: repeats differ by their seed alone.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

State = Literal["complete", "pruned", "exploded", "refused"]


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Spans that follow each other in time: begin … train … validation … end, epoch milliseconds."""

    begin_ms: int
    train_ms: int  # where training ends and the validation span, which stops it, begins
    validation_ms: int  # where that ends and the evaluation span begins
    end_ms: int
    pairs: int  # forecasts with their observation in the evaluation span, all leads and series
    persistence: float | None  # MSE of the references there, mean over leads; None here and below: there is no pair
    seasonal: float | None


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch: mean losses over labels, in units of the gain; None: not a number any more."""

    train_loss: float | None
    validation_loss: float | None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training on one split with one seed."""

    split: int  # number in Tuned.splits, from 0; of a check always 0
    seed: int
    mse: float | None  # over the evaluation span; None: the training exploded
    leads: tuple[float | None, ...]  # MSE by lead, 1…H
    skill_persistence: float | None  # mean over leads of 1 - MSE / MSE of the reference over the pairs that both have
    skill_seasonal: float | None
    untrained: Learned  # losses before the first epoch
    curve: tuple[Learned, ...]
    best_epoch: int  # from 1: whose weights were kept; 0: none
    diagnosis: str  # one word or two: good fit, overfit, underfit, exploded
    words: str  # the same as a sentence with its numbers
    steps: int  # gradient steps
    seconds: float  # of training, by the clock
    pairs: int = 0  # forecasts with their observation in the evaluation span, all leads and series
    persistence: float | None = None  # MSE of the references over the pairs that both have, mean over leads
    seasonal: float | None = None


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration."""

    number: int  # 0: the settings as they are
    settings: dict[str, Any]  # all that are searched, by "section.name"
    changed: dict[str, Any]  # those that differ from trial 0
    state: State  # pruned: given up before its last run; refused: can't be built or trained on this data
    words: str  # why it is not complete; "" where it is
    parameters: int  # trained numbers of the network
    runs: tuple[Run, ...]
    mse: float | None  # mean over splits of the mean over repeats; of the runs that there are
    deviation: float | None  # of single runs about their split's mean: the luck of the seed; None: one repeat
    error: float | None  # standard error of `mse` by that luck
    interval: tuple[float, float] | None  # 95 % of `mse`, by that luck (t)
    skill_persistence: float | None
    skill_seasonal: float | None
    gain: float | None  # share of trial 0's MSE that it is lower by, over the same splits; negative: worse
    gain_interval: tuple[float, float] | None  # 95 %
    splits_won: int  # in how many splits its mean is below that of trial 0
    best_share: float | None  # chance to be the best of the complete ones, by the luck of the seeds; None: one repeat
    seconds: float  # of all its trainings, by the clock

    @property
    def pace_s(self) -> float:
        """Mean seconds of a training."""
        return self.seconds / max(1, len(self.runs))


class StandardError(msgspec.Struct, frozen=True, kw_only=True):
    """How far a mean over so many repeats is from the true one (bootstrap over the repeats of a check)."""

    repeats: int
    error: float  # standard error of the mean
    theory: float  # deviation / sqrt(repeats)
    interval: tuple[float, float]  # 95 % of the means


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The best configuration and trial 0 on a span at the end that the search has not seen, with new seeds.

    It is the span that `killick fit` holds out, and the trainings are those of `killick fit`.
    """

    split: Split
    first: tuple[Run, ...]  # trial 0
    best: tuple[Run, ...]  # the same runs as `first` where trial 0 is the best
    first_mse: float | None
    best_mse: float | None
    first_deviation: float | None
    best_deviation: float | None
    gain: float | None  # share of trial 0's MSE that the best is lower by
    gain_interval: tuple[float, float] | None  # 95 %, by the luck of the seeds
    skill_persistence: float | None  # of the best
    skill_seasonal: float | None
    standard_errors: tuple[StandardError, ...]  # of the best, for 1…N repeats; empty with one repeat
    needed: int | None  # repeats that tell the best from trial 0 (power 80 %, level 5 %); None: no difference


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """All trials of a study over one file."""

    file: str
    model: str
    target: str
    interval_ms: int
    horizon: int
    series: int
    observations: int
    begin_ms: int
    end_ms: int
    splits: tuple[Split, ...]  # expanding: each trains on all that is before its validation span
    repeats: int
    wanted: int  # trials that were asked for
    trials: tuple[Trial, ...]  # by number; only those that have ended
    ranking: tuple[int, ...]  # complete trials, the best first
    tied: tuple[int, ...]  # those that can't be told from the best (95 %), without itself, the best first
    cheapest: int | None  # of the best and those tied with it: the one that trains the fastest
    importance: dict[str, float]  # share that each setting has in being among the best; {}: too few trials
    check: Check | None
    toml: str  # what the best changes, to paste into killick.toml; "": nothing
    seconds: float  # of all trainings, by the clock, summed over processes
    workers: int
    study: str  # folder

    @property
    def best(self) -> Trial | None:
        """The best complete trial; None: there is none."""
        return self.trial(self.ranking[0]) if self.ranking else None

    @property
    def trainings(self) -> int:
        """All runs, those of the check too."""
        check = self.check
        checked = 0 if check is None else len(check.first) + (len(check.best) if check.best != check.first else 0)
        return sum(len(one.runs) for one in self.trials) + checked

    def trial(self, number: int | None) -> Trial | None:
        """The trial of that number; None: it has not ended, or there is none."""
        return next((one for one in self.trials if one.number == number), None)
