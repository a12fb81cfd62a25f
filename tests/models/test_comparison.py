"""Tests and intervals of a mean difference against statsmodels and arch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]
from statsmodels.tsa.stattools import diebold_mariano_test  # type: ignore[import-untyped]

from models.comparison import band, block_length, bootstrap_interval, diebold_mariano, holm, screen_p_value

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ar(seed: int, steps: int, phi: float) -> NDArray[np.float64]:
    """Stationary Gaussian AR(1) numbers of variance 1."""
    noise = np.random.default_rng(seed).standard_normal(steps + 300) * math.sqrt(1.0 - phi * phi)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise)[300:])


@pytest.mark.parametrize("steps", [30, 300, 2_000])
@pytest.mark.parametrize("horizon", [1, 2, 24])
@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_diebold_mariano_is_that_of_statsmodels(steps: int, horizon: int, phi: float) -> None:
    """Statistic, and the half of its p-value that is on B's side, from squared errors of two forecasts."""
    rng = np.random.default_rng(steps + horizon)
    y = rng.normal(size=steps)
    a, b = y + ar(1, steps, phi) * 1.1, y + ar(2, steps, phi)
    theirs = diebold_mariano_test(y, a, b, harvey_adj=True, horizon=horizon)
    statistic, p_value = diebold_mariano((y - a) ** 2 - (y - b) ** 2, horizon)
    assert statistic == pytest.approx(theirs.statistic)
    assert p_value == pytest.approx(theirs.pvalue / 2 if statistic > 0 else 1.0 - theirs.pvalue / 2)


def test_a_missing_step_keeps_its_place() -> None:
    """Steps after a gap are not taken for neighbours of those before: the rest is as far apart as it was."""
    x = ar(3, 400, 0.9)
    whole, _ = diebold_mariano(x, 24)
    few = x.copy()
    few[[50, 51, 200]] = math.nan
    with_gaps, p_value = diebold_mariano(few, 24)
    assert with_gaps == pytest.approx(whole, rel=0.1)
    assert with_gaps != diebold_mariano(few[~np.isnan(few)], 24)[0]
    assert 0.0 < p_value < 1.0
    around = np.concatenate([np.full(5, math.nan), x, np.full(7, math.nan)])
    assert diebold_mariano(around, 24) == pytest.approx(diebold_mariano(x, 24))


@pytest.mark.parametrize(
    "differences",
    [np.empty(0), np.full(50, math.nan), np.ones(1), np.full(300, 0.1), np.zeros(300), np.arange(24.0)],
)
def test_where_nothing_can_be_told_nothing_is_better(differences: NDArray[np.float64]) -> None:
    """No steps, no spread, or no more steps than leads: the p-value is 1."""
    assert diebold_mariano(differences, 24) == (0.0, 1.0)


@pytest.mark.parametrize("phi", [0.5, 0.9])
def test_the_screen_rests_on_few_slow_cosines(phi: float) -> None:
    """By sums over cosines: .4 n^(2/3) of them, and a quarter of the independent steps where those are fewer."""
    x = ar(6, 400, phi) + 0.2
    centred = x - x.mean()
    found = float(centred[1:] @ centred[:-1] / (centred @ centred))
    corrected = found + (1 + 3 * found) / 400
    degrees = int(min(0.4 * 400 ** (2 / 3), 400 / 4 * (1 - corrected) / (1 + corrected)))
    assert (degrees == 21) == (phi == 0.5)
    at = np.arange(400) + 0.5
    squares = [2 / 400 * float(np.cos(np.pi * j * at / 400) @ x) ** 2 for j in range(1, degrees + 1)]
    by_hand = stats.t.sf(x.mean() / math.sqrt(np.mean(squares) / 400), degrees)
    assert screen_p_value(x, 1) == pytest.approx(max(by_hand, diebold_mariano(x, 1)[1]))
    assert screen_p_value(np.insert(x, [3, 99], math.nan), 1) == pytest.approx(screen_p_value(x, 1), rel=0.2)


@pytest.mark.parametrize(("steps", "phi"), [(100, 0.5), (300, 0.9), (300, 0.97)])
def test_the_screen_keeps_its_level_where_diebold_mariano_does_not(steps: int, phi: float) -> None:
    """Of 500 spans without a difference: at most 5 % and two standard errors; Diebold-Mariano calls more better."""
    spans = [ar(seed, steps, phi) for seed in range(500)]
    screened = np.mean([screen_p_value(span, 24) <= 0.05 for span in spans])
    plain = np.mean([diebold_mariano(span, 24)[1] <= 0.05 for span in spans])
    assert screened <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 500)
    assert phi < 0.9 or plain > 0.08


def test_the_screen_calls_nothing_better_where_nothing_can_be_told() -> None:
    """As Diebold-Mariano; and four steps that rise and fall again have nothing slow to measure their mean by."""
    assert screen_p_value(np.full(300, 0.1), 24) == 1.0
    assert screen_p_value(np.empty(0), 1) == 1.0
    assert screen_p_value(np.array([1.0, 2.0, 2.0, 1.0]), 1) == 1.0


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("steps", [25, 200, 3_000])
def test_block_lengths_are_those_of_arch(steps: int, phi: float) -> None:
    """But for those below one step, which no block has."""
    x = ar(steps, steps, phi)
    theirs = float(optimal_block_length(x)["stationary"].iloc[0])
    assert block_length(x) == pytest.approx(max(1.0, theirs))


def test_no_block_is_shorter_than_a_step() -> None:
    """Where the formula says .55."""
    x = ar(2, 200, 0.0)
    assert float(optimal_block_length(x)["stationary"].iloc[0]) < 0.6
    assert block_length(x) == 1.0


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_intervals_are_those_of_arch(phi: float) -> None:
    """Percentiles of 8,000 resamples with the same block length, up to the noise of drawing."""
    x = ar(7, 600, phi) + 5.0
    low, high = bootstrap_interval(x, seed=1, repeats=8_000)
    length: Any = block_length(x)  # their stubs want a whole number, their code takes any
    theirs = StationaryBootstrap(length, x, seed=2).conf_int(np.mean, 8_000, method="percentile").ravel()
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.06 * (high - low))
    assert low < x.mean() < high


def test_an_interval_is_the_same_for_the_same_seed() -> None:
    """And another for another; a lower level is narrower; gaps are passed over."""
    x = ar(8, 300, 0.5)
    found = bootstrap_interval(x, seed=1)
    assert bootstrap_interval(x, seed=1) == found
    assert bootstrap_interval(x, seed=2) != found
    low, high = bootstrap_interval(x, seed=1, level=0.5)
    assert found[0] < low < high < found[1]
    assert bootstrap_interval(np.insert(x, [10, 10, 90], math.nan), seed=1) == found


def test_intervals_of_next_to_nothing() -> None:
    """None of no differences; a point of one, and of some that don't vary."""
    assert np.isnan(bootstrap_interval(np.full(9, math.nan), seed=1)).all()
    assert np.isnan(bootstrap_interval(np.empty(0), seed=1)).all()
    assert bootstrap_interval(np.array([2.0]), seed=1) == (2.0, 2.0)
    assert bootstrap_interval(np.full(40, 0.25), seed=1) == pytest.approx((0.25, 0.25))


@settings(max_examples=30)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    """In the order of the tests, ties included."""
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_of_no_test() -> None:
    """Nothing to put right."""
    assert holm([]) == []


def test_a_band_follows_the_difference() -> None:
    """A step in the middle of the span shows in the smoothed difference, inside its interval, at steps of the span."""
    rng = np.random.default_rng(4)
    differences = np.where(np.arange(2_000) < 1_000, 0.0, 1.0) + 0.3 * rng.normal(size=2_000)
    differences[300:320] = math.nan
    found = band(differences, 5_000 + np.arange(2_000), points=50, seed=1)
    assert len(found.step) == 50
    assert (found.step[0], found.step[-1]) == (5_000, 6_999)
    at = np.array(found.step) - 5_000
    near = np.array(found.difference)
    assert near[at < 900] == pytest.approx(0.0, abs=0.15)
    assert near[at > 1_100] == pytest.approx(1.0, abs=0.15)
    assert near[np.abs(at - 1_000) < 25].mean() == pytest.approx(0.5, abs=0.2)
    assert (np.array(found.low) <= near).all()
    assert (near <= np.array(found.high)).all()
    assert near[at == 0] == pytest.approx(differences[:100].mean())


def test_a_band_of_little() -> None:
    """As many points as steps at most; none where there is no difference."""
    short = band(np.array([1.0, 2.0, math.nan]), np.array([7, 8, 9]), seed=1)
    assert (short.step, short.difference) == ((7, 8), (1.0, 2.0))
    assert band(np.empty(0), np.empty(0, np.int64), seed=1).step == ()
    assert band(np.full(30, math.nan), np.arange(30), seed=1).step == ()
