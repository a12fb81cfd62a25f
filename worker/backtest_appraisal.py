"""What a backtest says to do: which policy pays, what it costs, and whether an LSTM is worth it at all.

Two ways to forecast are compared over their errors on the same days, with the bootstrap that verdicts rest on
(models/comparison.py), and over seeds. Only what is beyond luck in both is called better.
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np
from scipy import stats

from models.comparison import Floats, Ints, bootstrap_interval
from models.skill import average

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.backtest_told import Backtested, PolicyRun, ScoreSet, SeriesScore

FROZEN, ALWAYS, CONTROL, ON_DRIFT = "never", "always", "control", "on-drift"
LEVEL = 0.95
ENOUGH = 0.9  # of the best policy's gain: the cheapest that has so much is advised
LEAST_DAYS = 8  # with fewer there is no interval, and nothing is clear
SAME = 1e-9  # of an error: what differs by less was added up in another order
SEED = 0  # of the bootstrap: the same figures give the same interval

Advice = Literal["baseline", "frozen", "updating", "lstm", "undecided", "nothing"]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One way to forecast, over all its seeds; what a baseline does not have is None."""

    name: str
    policy: bool  # else a baseline
    by_seed: tuple[float, ...]  # MSE
    mse: float | None  # here and below: the mean over seeds
    deviation: float | None  # of the MSE over seeds; None: fewer than two
    mae: float | None
    mape: float | None
    skill_persistence: float | None
    skill_seasonal: float | None
    retrainings: float | None = None
    promotions: float | None = None
    rollbacks: float | None = None
    gradient_steps: float | None = None
    training_s: float | None = None
    seconds: float | None = None
    gain_share: float | None = None  # of what `always` gains over `never`; None: it gains nothing, or did not run
    compute_share: float | None = None  # of the gradient steps of `always`


class Faced(msgspec.Struct, frozen=True, kw_only=True):
    """One way to forecast against another."""

    name: str
    other: str
    share: float  # so much less error, of the other's
    low: float  # its interval over days; NaN: too few days
    high: float
    weeks: int
    better_weeks: int
    seeds: int
    better_seeds: int
    clear: bool  # beyond luck, over days and over seeds


class Advised(msgspec.Struct, frozen=True, kw_only=True):
    """What a backtest says to do."""

    advice: Advice
    chosen: str | None  # the way to forecast that is advised
    lstm: str | None  # the best policy, frozen included, that stands against the baselines
    baseline: str | None  # the best of them
    against_frozen: Faced | None  # of the policy that updates and is advised, or of the best that updates
    against_baseline: Faced | None  # of `lstm`
    against_control: Faced | None  # of that policy


class Appraisal:
    """What a backtest is worth: how each way to forecast stands, and what to do; what is found is kept."""

    def __init__(self, told: Backtested) -> None:
        self.told = told

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """Policies and baselines, the least error first."""
        found = [_baseline(name, scores) for name, scores in self.told.baselines.items()]
        names = self.told.policies
        policies = {name: _policy(name, self.runs(name)) for name in names}
        shared = [_shared(one, policies.get(FROZEN), policies.get(ALWAYS)) for one in policies.values()]
        return tuple(sorted([*found, *shared], key=_rank))

    def runs(self, name: str) -> list[PolicyRun]:
        """The runs of a policy, by seed."""
        return sorted((run for run in self.told.runs if run.policy == name), key=lambda run: run.seed)

    def scores(self, name: str) -> list[ScoreSet]:
        """The scores of a policy, by seed, or of a baseline."""
        if name in self.told.baselines:
            return [self.told.baselines[name]]
        return [run.scores for run in self.runs(name)]

    def standing(self, name: str | None) -> Standing | None:
        """How one stands; None where it was not run."""
        return next((one for one in self.standings if one.name == name), None)

    def faced(self, name: str | None, other: str | None) -> Faced | None:
        """One against another; None where one of them has no error."""
        one, against = self.standing(name), self.standing(other)
        if one is None or against is None or one.mse is None or not against.mse:
            return None
        share = 1 - one.mse / against.mse
        days = _Days.of(self.scores(one.name), self.scores(against.name))
        low, high = days.interval(share)
        seeds = _seed_differences(one.by_seed, against.by_seed)
        weeks = days.weeks()
        return Faced(
            name=one.name,
            other=against.name,
            share=share,
            low=low,
            high=high,
            weeks=len(weeks),
            better_weeks=int((weeks > SAME * float(days.theirs.sum())).sum()),
            seeds=len(seeds),
            better_seeds=int((seeds > SAME * against.mse).sum()),
            clear=abs(share) > SAME and (low > 0 or high < 0) and _beyond_seeds(seeds, low > 0),
        )

    @cached_property
    def advised(self) -> Advised:
        """What to do."""
        policies = [one for one in self.standings if one.policy and one.name != CONTROL and one.mse is not None]
        baseline = next((one.name for one in self.standings if not one.policy and one.mse is not None), None)
        updating = [one for one in policies if one.name != FROZEN]
        frozen = self.standing(FROZEN)
        against = {one.name: self.faced(one.name, FROZEN) for one in updating}
        paying = [one for one in updating if _better(against[one.name])]
        shown, lstm = (updating[0].name if updating else None), (policies[0].name if policies else None)
        if paying:
            shown = lstm = _cheapest(paying, frozen).name
            if not _better(self.faced(lstm, baseline)):
                shown = lstm = paying[0].name  # what is cheap would not do
        elif frozen is not None and frozen.mse is not None:
            lstm = FROZEN
        faced = self.faced(lstm, baseline)
        advice: Advice = "updating" if paying else "frozen" if updating and lstm == FROZEN else "lstm"
        if lstm is None:
            advice = "nothing" if baseline is None else "baseline"
        elif faced is not None and not faced.clear:
            advice = "undecided"
        elif faced is not None and faced.share < 0:
            advice = "baseline"
        chosen = baseline if advice == "baseline" else None if advice == "undecided" else lstm
        return Advised(
            advice=advice, chosen=chosen, lstm=lstm, baseline=baseline, against_baseline=faced,
            against_frozen=against.get(shown) if shown is not None else None,
            against_control=self.faced(shown, CONTROL),
        )  # fmt: skip

    def by_series(self, name: str, value: Callable[[SeriesScore], float | None]) -> dict[str, float | None]:
        """A figure of each series, the mean over seeds."""
        found: dict[str, list[float | None]] = {}
        for scores in self.scores(name):
            for one in scores.series:
                found.setdefault(one.series, []).append(value(one))
        return {series: average(values) for series, values in found.items()}

    @cached_property
    def loudest(self) -> tuple[tuple[str, float], ...]:
        """The series, and its share of all squared errors of the first of frozen, best policy and best baseline."""
        name = next((one for one in (FROZEN, self.advised.lstm, self.advised.baseline) if self.standing(one)), None)
        errors = {} if name is None else self.by_series(name, lambda one: (one.mse or 0.0) * one.pairs)
        whole = sum(error or 0.0 for error in errors.values()) or 1.0
        shares = [(series, (error or 0.0) / whole) for series, error in errors.items()]
        return tuple(sorted(shares, key=lambda one: -one[1]))


class _Days(NamedTuple):
    """The days that two ways to forecast have both, in order, `(D,)` each."""

    day: Ints
    pairs: Floats  # as a share of the mean day's
    mine: Floats  # MSE
    theirs: Floats

    @classmethod
    def of(cls, sets: Sequence[ScoreSet], others: Sequence[ScoreSet]) -> _Days:
        mine, theirs = by_day(sets), by_day(others)
        day = [one for one in mine if one in theirs]
        pairs = np.array([theirs[one][0] for one in day])
        pairs = pairs / pairs.mean() if day else pairs
        return cls(np.array(day, np.int64), pairs, *(np.array([of[one][1] for one in day]) for of in (mine, theirs)))

    def interval(self, share: float) -> tuple[float, float]:
        """The interval of the share of error that is spared: the bootstrap of the ratio's logarithm, made linear.

        On the logarithm, as who is worse by forty times is no less sure than who is better by as much.
        """
        mine, theirs = ((self.pairs * errors).mean() if len(self.day) else 0.0 for errors in (self.mine, self.theirs))
        if len(self.day) < LEAST_DAYS or not (mine > 0 and theirs > 0 and share < 1):
            return math.nan, math.nan
        moved = self.pairs * (self.mine / mine - self.theirs / theirs)
        low, high = bootstrap_interval(moved, seed=SEED, level=LEVEL)
        return 1.0 - (1.0 - share) * math.exp(high), 1.0 - (1.0 - share) * math.exp(low)

    def weeks(self) -> Floats:
        """The other's error less the one's in each week of the span, as a sum."""
        if not len(self.day):
            return np.empty(0)
        return np.bincount((self.day - self.day[0]) // 7, self.pairs * (self.theirs - self.mine)).astype(np.float64)


def by_day(sets: Sequence[ScoreSet]) -> dict[int, tuple[float, float, float | None]]:
    """Pairs, MSE and that of persistence by day, as means over seeds."""
    found: dict[int, list[tuple[float, float, float | None]]] = {}
    for scores in sets:
        for one in scores.daily:
            found.setdefault(one.day, []).append((one.pairs, one.mse, one.persistence))
    means = {day: [average(part) for part in zip(*of, strict=True)] for day, of in sorted(found.items())}
    return {day: (pairs or 0.0, mse or 0.0, reference) for day, (pairs, mse, reference) in means.items()}


def _seed_differences(mine: Sequence[float], theirs: Sequence[float]) -> Floats:
    """The other's error less the one's: seed by seed, or all against the one of a baseline."""
    pairs = zip(theirs, mine, strict=True) if len(mine) == len(theirs) else product(theirs, mine)
    return np.array([against - one for against, one in pairs])


def _beyond_seeds(differences: Floats, better: bool) -> bool:  # noqa: FBT001 - the sign that is claimed
    """Whether the mean over seeds lies on that side of zero beyond their noise; one seed says nothing against it."""
    n = len(differences)
    sign = 1.0 if better else -1.0
    mean = sign * float(differences.mean()) if n else 0.0
    if n < 2:
        return mean > 0
    reach = float(differences.std(ddof=1)) / math.sqrt(n) * float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return mean > reach


def _rank(one: Standing) -> tuple[float, bool]:
    """The least error first; of those that are as good the one that is not updated."""
    return (math.inf if one.mse is None else float(f"{one.mse:.9g}")), bool(one.retrainings)


def _better(faced: Faced | None) -> bool:
    return faced is not None and faced.clear and faced.share > 0


def _cheapest(paying: Sequence[Standing], frozen: Standing | None) -> Standing:
    """The one with the fewest gradient steps among those that gain nearly as much as the best, which comes first."""
    level = math.nan if frozen is None or frozen.mse is None else frozen.mse
    most = level - (paying[0].mse or 0.0)
    enough = [one for one in paying if level - (one.mse or 0.0) >= ENOUGH * most] or paying[:1]
    return min(enough, key=lambda one: one.gradient_steps or 0.0)


def _baseline(name: str, scores: ScoreSet) -> Standing:
    return Standing(
        name=name, policy=False, by_seed=() if scores.mse is None else (scores.mse,), mse=scores.mse, deviation=None,
        mae=scores.mae, mape=scores.mape, skill_persistence=scores.skill_persistence,
        skill_seasonal=scores.skill_seasonal,
    )  # fmt: skip


def _policy(name: str, runs: Sequence[PolicyRun]) -> Standing:
    errors = tuple(run.scores.mse for run in runs if run.scores.mse is not None)

    def over(value: Callable[[PolicyRun], float | None]) -> float | None:
        return average(value(run) for run in runs)

    return Standing(
        name=name, policy=True, by_seed=errors, mse=average(errors),
        deviation=float(np.std(errors, ddof=1)) if len(errors) > 1 else None,
        mae=over(lambda run: run.scores.mae), mape=over(lambda run: run.scores.mape),
        skill_persistence=over(lambda run: run.scores.skill_persistence),
        skill_seasonal=over(lambda run: run.scores.skill_seasonal), retrainings=over(lambda run: run.retrainings),
        promotions=over(lambda run: run.promotions), rollbacks=over(lambda run: run.rollbacks),
        gradient_steps=over(lambda run: run.gradient_steps), training_s=over(lambda run: run.training_s),
        seconds=over(lambda run: run.seconds),
    )  # fmt: skip


def _shared(one: Standing, frozen: Standing | None, always: Standing | None) -> Standing:
    """The standing with its shares of what `always` gains and costs."""
    if always is None:
        return one
    gain = compute = None
    if one.gradient_steps is not None and always.gradient_steps:
        compute = one.gradient_steps / always.gradient_steps
    if frozen is not None and one.mse is not None and frozen.mse is not None and always.mse is not None:
        whole = frozen.mse - always.mse
        gain = (frozen.mse - one.mse) / whole if whole > SAME * frozen.mse else None
    return msgspec.structs.replace(one, gain_share=gain, compute_share=compute)
