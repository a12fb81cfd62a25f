"""Is B better than A over a recorded span? Tests and intervals for the mean difference of losses, step by step.

    Diebold-Mariano     t = mean / sqrt(long-run variance / n), corrected for small samples
    screen              the same with a long-run variance from few slow cosines: it keeps its level where losses are
                        alike for long (see docs/judgement.md for both)
    bootstrap           the interval of the mean, from blocks of random length drawn with replacement
    Holm                p-values of several finalists, put right for the choice among them

A difference is the loss of A less that of B: positive ones say that B is better. NaN: a step without a difference.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.fft import dct

from models.sequential import phi_of
from models.verdict import Series

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDING = 1e-12  # of the largest difference: less is no spread
DRAWN = 1 << 22  # numbers that the bootstrap draws in one go: memory stays bounded
WINDOW_SHARE = 20  # a band's point is a mean over this part of the span
BAND_REPEATS = 500
INDEPENDENT_SHARE = 0.25

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def diebold_mariano(differences: Floats, horizon: int) -> tuple[float, float]:
    """Statistic and one-sided p-value that B is no better, from differences `(T,)` of forecasts of `horizon` leads.

    Long-run variance with Bartlett weights (Newey and West 1987, doi:10.2307/1913610) over
    max(horizon - 1, ceil(n^(1/3))) lags; the correction for small samples and Student's t with n - 1 degrees of
    freedom are those of Harvey, Leybourne and Newbold (1997, doi:10.1016/S0169-2070(96)00719-4). Products with a
    missing step are left out of the autocovariances (Parzen 1963). Where nothing can be told, from no more steps than
    the horizon or from differences that don't vary, the statistic is 0 and the p-value 1.
    """
    known = ~np.isnan(differences)
    n = int(known.sum())
    if n <= max(horizon, 1) or not _varies(differences[known]):
        return 0.0, 1.0
    mean = float(differences[known].mean())
    centred = np.where(known, differences - mean, 0.0)
    lags = min(max(horizon - 1, math.ceil(n ** (1 / 3))), len(centred) - 1)
    long_run = float(centred @ centred)
    for lag in range(1, lags + 1):
        long_run += 2.0 * (1.0 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    correction = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    statistic = math.sqrt(correction) * mean / (math.sqrt(long_run) / n)
    return statistic, float(stats.t.sf(statistic, n - 1))


def screen_p_value(differences: Floats, horizon: int) -> float:
    """The p-value that B is no better that a decision may rest on: no less than Diebold and Mariano's.

    The long-run variance is the mean square of the first few cosine transforms, and there are as many degrees of
    freedom (Lazarus, Lewis, Stock and Watson 2018, doi:10.1080/07350015.2018.1506926, the EWC test). There it is
    0.4 n^(2/3) of them; here no more than a quarter of the number of independent steps that the span is worth,
    n (1 - phi) / (1 + phi), since only the slowest have the variance that the mean has.
    """
    p_value = diebold_mariano(differences, horizon)[1]
    if p_value == 1.0:
        return 1.0
    known = differences[~np.isnan(differences)]
    n, mean = len(known), float(known.mean())
    phi = phi_of(known - mean)
    degrees = max(1, int(min(0.4 * n ** (2 / 3), INDEPENDENT_SHARE * n * (1.0 - phi) / (1.0 + phi))))
    cosines = dct(known - mean, norm="ortho")[1 : degrees + 1]
    long_run = float((cosines**2).mean())
    if long_run <= 0.0:
        return 1.0
    return max(p_value, float(stats.t.sf(mean / math.sqrt(long_run / n), degrees)))


def bootstrap_interval(
    differences: Floats, *, seed: int, level: float = 0.95, repeats: int = 2_000
) -> tuple[float, float]:
    """The interval of the mean difference of `(T,)` at `level`: percentiles of the stationary block bootstrap.

    Blocks of the steps that are known begin anywhere, have geometric lengths, and go on at the beginning when they
    reach the end (Politis and Romano 1994, doi:10.1080/01621459.1994.10476870). The mean length is `block_length`.
    Without a difference there is no interval: (NaN, NaN).
    """
    known = differences[~np.isnan(differences)]
    if not len(known):
        return math.nan, math.nan
    means = _resampled_means(known, seed, repeats)
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def block_length(known: Floats) -> float:
    """The mean block length of the stationary bootstrap that suits `(T,)` numbers without gaps; at least 1.

    Politis and White 2004 (doi:10.1081/ETC-120028836) with the correction of Patton, Politis and White 2009
    (doi:10.1080/07474930802459016): b = (2 g² / d · n)^(1/3) from autocovariances up to twice the lag from which
    `quiet` of them in a row are small.
    """
    n = len(known)
    if n < 3 or not _varies(known):
        return 1.0
    centred = known - known.mean()
    quiet = max(5, int(math.log10(n)))
    most = min(math.ceil(math.sqrt(n)) + quiet, n - 2)
    covariance = np.array([float(centred[k:] @ centred[: n - k]) / n for k in range(most + 1)])
    norms = [math.sqrt(_square(centred[k + 1 :]) * _square(centred[: n - k - 1])) for k in range(most + 1)]
    small = np.abs(covariance) * n < 2.0 * math.sqrt(math.log10(n) / n) * np.array(norms)
    begins = (k for k in range(most - quiet + 1) if small[k : k + quiet].all())
    first = next(begins, None)
    lags = min(2 * max(first, 1), most) if first is not None else most
    k = np.arange(1, lags + 1)
    weighted = 2.0 * np.minimum(1.0, 2.0 * (1.0 - k / lags)) * covariance[1 : lags + 1]
    g, long_run = float((k * weighted).sum()), float(covariance[0] + weighted.sum())
    longest = math.ceil(min(3.0 * math.sqrt(n), n / 3.0))
    if long_run == 0.0:
        return float(longest)
    return max(1.0, min(math.cbrt(g * g / long_run**2 * n), float(longest)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, in their order, put right so that all together keep a level.

    The smallest is multiplied by their number, the next by one less, and none falls below one before it
    (Holm 1979, Scand. J. Stat. 6, 65).
    """
    found = [1.0] * len(p_values)
    least = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        found[at] = least
    return found


def band(differences: Floats, step: Ints, points: int = 200, *, seed: int) -> Series:
    """The difference over time at `points` steps at most: the mean around each, and its pointwise 95 % interval.

    A point is the mean over a twentieth of the span around it; its interval comes from the bootstrap of that window.
    `differences` and `step` `(T,)`, in order; windows without any difference are left out.
    """
    n = len(differences)
    width = max(1, n // WINDOW_SHARE)
    found: list[tuple[int, float, float, float]] = []
    for at in np.unique(np.linspace(0, n - 1, min(points, n)).round().astype(np.int64)).tolist() if n else []:
        begin = min(max(0, at - width // 2), n - width)
        window = differences[begin : begin + width]
        known = window[~np.isnan(window)]
        if len(known):
            low, high = bootstrap_interval(known, seed=seed + at, repeats=BAND_REPEATS)
            found.append((int(step[at]), float(known.mean()), low, high))
    steps, means, lows, highs = zip(*found, strict=True) if found else ((), (), (), ())
    return Series(step=steps, difference=means, low=lows, high=highs)


def _resampled_means(known: Floats, seed: int, repeats: int) -> Floats:
    """The means `(repeats,)` of resamples of `(T,)` numbers without gaps."""
    rng = np.random.default_rng(seed)
    n, length = len(known), block_length(known)
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([known, known]))])  # a block goes around the end once
    at_once = max(1, DRAWN // n)
    parts = [_draw(rng, sums, n, length, min(at_once, repeats - begin)) for begin in range(0, repeats, at_once)]
    return np.concatenate(parts)


def _draw(rng: np.random.Generator, sums: Floats, n: int, length: float, repeats: int) -> Floats:
    """The means of `repeats` resamples, from the running sums of the series and itself once more `(2 n + 1,)`."""
    begins = rng.random((repeats, n)) < 1.0 / length
    begins[:, 0] = True
    row, at = np.nonzero(begins)  # a block for each: where it begins in its resample
    ends = np.append(at[1:], 0)
    ends[np.append(row[1:] != row[:-1], True)] = n
    first = rng.integers(n, size=len(at))
    total = np.bincount(row, sums[first + ends - at] - sums[first], repeats)
    return np.asarray(total / n)


def _varies(known: Floats) -> bool:
    """Whether there is a spread beyond rounding."""
    return float(np.ptp(known)) > ROUNDING * float(np.abs(known).max())


def _square(x: Floats) -> float:
    return float(x @ x)
