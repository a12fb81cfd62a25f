"""The trend of skill against Theil-Sen of scipy and a Mann-Kendall of its own."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter

from models.trend import LEAST_DAYS, trend_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

P = 0.05
WEEK = np.array([0.41, 0.36, 0.38, 0.30, 0.22, 0.25, 0.11])


def mann_kendall(x: NDArray[np.float64]) -> float:
    """Two-sided p-value of the uncorrected test, written from Mann (1945) without ties."""
    n = len(x)
    s = sum(np.sign(b - a) for a, b in combinations(x, 2))
    z = (s - np.sign(s)) / np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    return float(2 * stats.norm.sf(abs(z)))


def hamed_rao(x: NDArray[np.float64]) -> float:
    """The same with the variance of Hamed and Rao (1998): the detrended ranks' significant autocorrelations."""
    n = len(x)
    ranks = stats.rankdata(x - stats.theilslopes(x).slope * np.arange(1, n + 1))
    centred = ranks - ranks.mean()
    more = 0.0
    for lag in range(1, n):
        rho = centred[lag:] @ centred[:-lag] / (centred @ centred)
        if abs(rho) > stats.norm.ppf(0.975) / np.sqrt(n):
            more += (n - lag) * (n - lag - 1) * (n - lag - 2) * rho
    s = sum(np.sign(b - a) for a, b in combinations(x, 2))
    var = n * (n - 1) * (2 * n + 5) / 18 * (1 + 2 / (n * (n - 1) * (n - 2)) * more)
    return float(2 * stats.norm.sf(abs((s - np.sign(s)) / np.sqrt(var))))


def test_a_falling_skill_is_to_be_restored() -> None:
    """Direction, slope, p-value, goal and words of a week that falls."""
    trend = trend_of(WEEK, p=P)
    assert (trend.direction, trend.goal, trend.days) == (-1, "restore", 7)
    assert trend.slope == pytest.approx(stats.theilslopes(WEEK).slope)
    assert trend.p_value == pytest.approx(mann_kendall(WEEK))
    assert "skill falls by" in trend.words


def test_a_rising_skill_is_to_be_understood() -> None:
    """The same week backwards."""
    trend = trend_of(WEEK[::-1], p=P)
    assert (trend.direction, trend.goal) == (1, "investigate")
    assert trend.slope == pytest.approx(-stats.theilslopes(WEEK).slope)


def test_a_steady_skill_is_to_be_improved() -> None:
    """No order in the days, or all days equal."""
    for days in (np.array([0.3, 0.1, 0.4, 0.1, 0.5, 0.2, 0.3]), np.full(30, 0.3), np.zeros(7)):
        trend = trend_of(days, p=P)
        assert (trend.direction, trend.goal) == (0, "improve")
        assert trend.p_value > P


def test_a_perfect_line_is_a_trend() -> None:
    """Nothing is left to correlate when the line is taken away; that is no error."""
    assert trend_of(np.arange(10) / 10, p=P).direction == 1


def test_the_correction_is_that_of_hamed_and_rao() -> None:
    """On a month of autocorrelated days the p-value is the corrected one, and larger than the plain one."""
    wider = 0
    for seed in range(20):
        month = lfilter([1], [1, -0.8], np.random.default_rng(seed).normal(size=80))[50:]
        trend = trend_of(month, p=P)
        assert trend.p_value == pytest.approx(max(mann_kendall(month), hamed_rao(month)), rel=1e-6)
        wider += trend.p_value > mann_kendall(month) * 1.01
    assert wider >= 5


def test_too_few_days_have_no_trend() -> None:
    """Gaps count as no day; the sentence says how many are needed."""
    days = np.array([0.9, np.nan, 0.5, 0.4, np.nan, np.nan, 0.1])
    trend = trend_of(days, p=P)
    assert (trend.direction, trend.days, trend.p_value) == (0, 4, 1.0)
    assert f"needs {LEAST_DAYS}" in trend.words
    assert np.isnan(trend_of(np.full(7, np.nan), p=P).slope)
    assert trend_of(np.zeros(0), p=P).direction == 0


def test_gaps_keep_their_place_in_time() -> None:
    """The slope is per day, also across days without skill."""
    days = np.array([1.0, 0.9, np.nan, np.nan, 0.6, 0.5, 0.4, np.nan, 0.2])
    trend = trend_of(days, p=P)
    assert trend.slope == pytest.approx(-0.1)
    assert trend.direction == -1


@given(st.lists(st.one_of(st.floats(-100, 1), st.just(float("nan"))), max_size=30))
def test_any_days_give_a_verdict(days: list[float]) -> None:
    """Never an error or a warning, and a direction that has the slope's sign and a small p-value."""
    trend = trend_of(np.array(days), p=P)
    assert 0.0 <= trend.p_value <= 1.0
    if trend.direction:
        assert np.sign(trend.slope) == trend.direction
        assert trend.p_value < P
