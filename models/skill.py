"""Errors by lead, skill, and the reference forecasts, on columns; missing pairs are masked, never NaN.

    skill = 1 - MSE / MSE(reference)                                  (Murphy 1988, Mon. Wea. Rev. 116, 2417)

Persistence forecasts the last value; seasonal naive the value one period (or as many whole periods as the
lead needs) before. Both are issued at the same observations as the forecasts that they are compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ErrorSums:
    """Sums over pairs by lead, `(H,)` each; sums of disjoint sets of pairs are added with `+`."""

    count: NDArray[np.int64]
    squared: Floats

    @classmethod
    def over(cls, errors: Floats, paired: Bools) -> ErrorSums:
        """The sums over errors `(N, H)` where `paired` `(N, H)`; the other errors are not looked at."""
        kept = np.where(paired, errors, 0.0)
        return cls(paired.sum(axis=0), (kept * kept).sum(axis=0))

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(self.count + other.count, self.squared + other.squared)

    @property
    def mse(self) -> Floats:
        """Mean squared error by lead, NaN where there is no pair."""
        mean = np.full(len(self.squared), np.nan)
        np.divide(self.squared, self.count, out=mean, where=self.count > 0)
        return mean


def skill(mse: Floats, reference_mse: Floats) -> Floats:
    """`1 - MSE / MSE(reference)`; NaN where either is missing or the reference makes no error."""
    known = np.isfinite(mse) & np.isfinite(reference_mse) & (reference_mse > 0)
    ratio = np.full(np.shape(mse), np.nan)
    np.divide(mse, reference_mse, out=ratio, where=known)
    return 1.0 - ratio


def mean_skill(mse: Floats, reference_mse: Floats) -> float:
    """Skill of the mean over those leads that both have; NaN if there is none."""
    known = np.isfinite(mse) & np.isfinite(reference_mse)
    if not known.any():
        return float("nan")
    return float(skill(mse[known].mean(keepdims=True), reference_mse[known].mean(keepdims=True))[0])


def average(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None: nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def persistence(x: Floats, known: Bools, horizon: int) -> tuple[Floats, Bools]:
    """The persistence forecasts that were issued for each step `t` of a series, and where there were any.

    `x` is `(T,)` by step, `known` `(T,)` says where it was observed. Lead k's forecast for `t` is `x_{t-k}`;
    both results are `(T, H)`.
    """
    lags = np.arange(1, horizon + 1)
    return _back(x, known, np.broadcast_to(lags, (horizon,)))


def seasonal_naive(x: Floats, known: Bools, horizon: int, period_steps: int) -> tuple[Floats, Bools]:
    """The seasonal naive forecasts that were issued for each step, `(T, H)`, and where there were any.

    Lead k's forecast for `t` is `x_{t-mp}` with the least m for which `mp ≥ k`, p the period: it was known at
    `t-k`.
    """
    leads = np.arange(1, horizon + 1)
    return _back(x, known, period_steps * -(-leads // period_steps))


def _back(x: Floats, known: Bools, lags: NDArray[np.int64]) -> tuple[Floats, Bools]:
    at = np.arange(len(x))[:, None] - lags[None, :]  # (T, H)
    inside = at >= 0
    at = np.maximum(at, 0)
    valid = inside & known[at]
    return np.where(valid, x[at], 0.0), valid
