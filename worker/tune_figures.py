"""What a study's trainings say: means, deviations, intervals, who is best, and how sure that is.

The luck of the seed is what repeats show: it is taken to be alike on all splits, so it is estimated over all of them.
Whether another stretch of time would rank alike is what splits and the check show.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

from models.skill import average
from worker.tune_told import Check, StandardError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from worker.tune_told import Run, Split

LEVEL = 0.95
DRAWS = 4_000
SEED = 20_170_101  # of draws for figures: the same study gives the same figures
POWER, SIGNIFICANCE = 0.8, 0.05
MOST_NEEDED = 1_000_000


class Measured(NamedTuple):
    """A mean with its standard error and the degrees of freedom of that; NaN and 0: one repeat says nothing of it."""

    mean: float
    error: float
    freedom: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval (Student's t); None: there is no error."""
        if not self.freedom or not math.isfinite(self.error):
            return None
        reach = float(stats.t.ppf(0.5 + LEVEL / 2, self.freedom)) * self.error
        return self.mean - reach, self.mean + reach


def by_split(runs: Iterable[Run]) -> dict[int, list[float]]:
    """The errors of runs that have one, by split."""
    found: dict[int, list[float]] = {}
    for run in sorted(runs, key=lambda run: (run.split, run.seed)):  # in whatever order they came
        if run.mse is not None:
            found.setdefault(run.split, []).append(run.mse)
    return found


def mean_of(runs: Iterable[Run]) -> float | None:
    """The mean over splits of the mean over repeats; None: there is no error."""
    means = [float(np.mean(values)) for values in by_split(runs).values()]
    return float(np.mean(means)) if means else None


def deviation_of(groups: Iterable[Sequence[Run]]) -> float | None:
    """The deviation of single runs about the mean of their split, over several configurations; None: one repeat."""
    squares, freedom = _pooled([values for runs in groups for values in by_split(runs).values()])
    return math.sqrt(squares / freedom) if freedom else None


def measured(runs: Sequence[Run]) -> Measured | None:
    """The mean of a configuration with its standard error; None: there is no run with an error."""
    groups = list(by_split(runs).values())
    mean = mean_of(runs)
    if mean is None:
        return None
    squares, freedom = _pooled(groups)
    if not freedom:
        return Measured(mean, math.nan, 0)
    share = sum(1 / len(values) for values in groups) / len(groups) ** 2
    return Measured(mean, math.sqrt(squares / freedom * share), freedom)


def apart(one: Measured, other: Measured) -> bool:
    """Whether two means differ by more than luck explains (Welch's t-test, 5 %); without errors they do."""
    if not (one.freedom and other.freedom):
        return one.mean != other.mean
    error, freedom = _welch(one, other)
    return abs(one.mean - other.mean) > float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * error


def gain_over(first: Measured | None, one: Measured | None) -> tuple[float | None, tuple[float, float] | None]:
    """By which share of the first mean the other is lower, with the 95 % interval of that (delta method)."""
    if first is None or one is None or not first.mean:
        return None, None
    gain = 1.0 - one.mean / first.mean
    if not (first.freedom and one.freedom):
        return gain, None
    ratio = one.mean / first.mean
    error = math.hypot(one.error, ratio * first.error) / first.mean
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, _welch(first, one)[1])) * error
    return gain, (gain - reach, gain + reach)


def best_shares(found: Mapping[int, Measured]) -> dict[int, float | None]:
    """How often each mean would be the least, if all were drawn anew; None: one repeat says nothing of it."""
    if not found or not all(one.freedom for one in found.values()):
        return dict.fromkeys(found)
    rng = np.random.default_rng(SEED)
    drawn = [one.mean + one.error * rng.standard_t(one.freedom, DRAWS) for one in found.values()]
    wins = np.bincount(np.argmin(drawn, axis=0), minlength=len(found))
    return dict(zip(found, (wins / DRAWS).tolist(), strict=True))


def standard_errors(values: Sequence[float]) -> tuple[StandardError, ...]:
    """How the error of a mean falls with the number of repeats, by drawing from these; () for fewer than two.

    Efron (1979), "Bootstrap methods". The deviation of what is drawn is made that of the sample without bias.
    """
    count = len(values)
    if count < 2:
        return ()
    sample = np.asarray(values, np.float64)
    deviation = float(sample.std(ddof=1))
    wide = sample.mean() + (sample - sample.mean()) * math.sqrt(count / (count - 1))
    rng = np.random.default_rng(SEED)
    found = []
    for repeats in range(1, count + 1):
        means = rng.choice(wide, (DRAWS, repeats)).mean(axis=1)
        low, high = np.quantile(means, (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)).tolist()
        found.append(
            StandardError(
                repeats=repeats,
                error=float(means.std()),
                theory=deviation / math.sqrt(repeats),
                interval=(low, high),
            )
        )
    return tuple(found)


def needed(first: Sequence[float], best: Sequence[float]) -> int | None:
    """Repeats of each that tell two means apart, by the deviations seen; None: there is no difference, or no telling.

    Two-sided z-test with power 80 % at 5 % (Cohen 1988, section 2.4).
    """
    squares, freedom = _pooled([first, best])
    if min(len(first), len(best)) < 2 or not freedom:
        return None
    difference = abs(float(np.mean(first)) - float(np.mean(best)))
    reach = float(stats.norm.ppf(1 - SIGNIFICANCE / 2) + stats.norm.ppf(POWER))
    if difference == 0:
        return None
    wanted = 2 * squares / freedom * (reach / difference) ** 2
    return max(2, math.ceil(wanted)) if wanted < MOST_NEEDED else None


def checked(split: Split, first: Sequence[Run], best: Sequence[Run]) -> Check:
    """What the check came to."""
    firsts, bests = _values(first), _values(best)
    same = first is best
    gain, interval = gain_over(measured(first), measured(best))
    return Check(
        split=split,
        first=tuple(first),
        best=tuple(best),
        first_mse=mean_of(first),
        best_mse=mean_of(best),
        first_deviation=deviation_of([first]),
        best_deviation=deviation_of([best]),
        gain=None if same else gain,
        gain_interval=None if same else interval,
        skill_persistence=average(run.skill_persistence for run in best),
        skill_seasonal=average(run.skill_seasonal for run in best),
        standard_errors=standard_errors(bests),
        needed=None if same else needed(firsts, bests),
    )


def _values(runs: Iterable[Run]) -> list[float]:
    return [run.mse for run in runs if run.mse is not None]


def _pooled(groups: Iterable[Sequence[float]]) -> tuple[float, int]:
    """The sum of squares about the groups' means, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for values in groups:
        squares += float(np.sum((np.asarray(values) - np.mean(values)) ** 2))
        freedom += len(values) - 1
    return squares, freedom


def _welch(one: Measured, other: Measured) -> tuple[float, float]:
    """The error of a difference, and its degrees of freedom (Welch 1947)."""
    a, b = one.error**2, other.error**2
    spread = a**2 / one.freedom + b**2 / other.freedom
    return math.sqrt(a + b), (a + b) ** 2 / spread if spread else float(one.freedom + other.freedom)
