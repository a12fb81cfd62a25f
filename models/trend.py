"""Does skill fall, stay or rise from day to day? Theil-Sen slope, and Mann-Kendall corrected for autocorrelation.

    slope = median over pairs of days of (x_j - x_i) / (j - i)          (Sen 1968, JASA 63, 1379)
    S     = sum over pairs of days of sign(x_j - x_i)                   (Mann 1945, Econometrica 13, 245)
    var*  = var(S) · n/n*, n/n* from the autocorrelation of the ranks   (Hamed and Rao 1998, J. Hydrol. 204, 182)

Days that follow each other have skill alike; the uncorrected test then sees a trend too often.
"""

from __future__ import annotations

import math

import numpy as np
import pymannkendall  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy import stats

from models.drift_limits import Trend

LEAST_DAYS = 5  # with fewer no order of the days is rare enough
LEAST_SHARE = 2 / 3  # of the days that are asked about: a week says nothing of a month

Floats = NDArray[np.float64]


def trend_of(daily: Floats, *, p: float) -> Trend:
    """The trend of daily skill `(D,)`, the oldest day first, NaN where a day has none; `p` is the level of the test.

    A skill that falls is to be restored, a steady one to be improved, and one that rises to be understood first.
    """
    known = ~np.isnan(daily)
    days = int(known.sum())
    slope = _slope(daily, known)
    needed = max(LEAST_DAYS, math.ceil(LEAST_SHARE * len(daily)))
    if days < needed:
        words = f"skill is known on {days} of {len(daily)} days: a trend needs {needed}"
        return Trend(direction=0, slope=slope, p_value=1.0, days=days, goal="improve", words=words)
    p_value = _p_value(daily, known)
    if p_value >= p or slope == 0.0:
        words = f"skill is steady: {slope:+.4f} a day over {days} days (p = {p_value:.3f}, limit {p:g})"
        return Trend(direction=0, slope=slope, p_value=p_value, days=days, goal="improve", words=words)
    falls = slope < 0.0
    words = (
        f"skill {'falls' if falls else 'rises'} by {abs(slope):.4f} a day over {days} days "
        f"(p = {p_value:.3f}, limit {p:g}): {'restore it' if falls else 'find out why before anything is changed'}"
    )
    return Trend(
        direction=-1 if falls else 1,
        slope=slope,
        p_value=p_value,
        days=days,
        goal="restore" if falls else "investigate",
        words=words,
    )


def _slope(daily: Floats, known: NDArray[np.bool_]) -> float:
    if known.sum() < 2:
        return float("nan")
    return float(stats.theilslopes(daily[known], np.flatnonzero(known)).slope)


def _p_value(daily: Floats, known: NDArray[np.bool_]) -> float:
    """The corrected test's p-value, and never less than the uncorrected one's: the correction may only widen.

    From few days the autocorrelation is known badly; a chance negative one would make a trend out of nothing.
    """
    if np.ptp(daily[known]) == 0.0:
        return 1.0
    plain = float(pymannkendall.original_test(daily).p)
    with np.errstate(all="ignore"):  # a perfect line leaves no ranks to correlate: the uncorrected test stands
        corrected = float(pymannkendall.hamed_rao_modification_test(daily).p)
    return max(plain, corrected) if np.isfinite(corrected) else plain
