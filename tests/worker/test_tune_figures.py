"""The figures of a tuning, against SciPy, statsmodels and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import NormalIndPower  # type: ignore[import-untyped]

from tests.worker.tune_runs import run_of, runs_of
from worker.tune_figures import (
    Measured,
    apart,
    best_shares,
    checked,
    deviation_of,
    gain_over,
    mean_of,
    measured,
    needed,
    standard_errors,
)
from worker.tune_told import Split

SPLIT = Split(begin_ms=0, train_ms=1, validation_ms=2, end_ms=3, pairs=5, persistence=1.0, seasonal=2.0)


def test_a_mean_gives_every_split_the_same_weight_in_whatever_order_runs_came() -> None:
    """The mean over splits of means over repeats, bit for bit the same for any order."""
    runs = runs_of((0.1, 0.2, 0.3), (0.7,))
    assert mean_of(runs) == pytest.approx(0.45)
    assert {mean_of(tuple(np.random.default_rng(i).permutation(np.array(runs, object)))) for i in range(20)} == {
        mean_of(runs)
    }
    assert mean_of(()) is None
    assert mean_of([run_of(None)]) is None


def test_the_interval_is_that_of_students_t_for_one_split() -> None:
    """Mean, standard error and 95 % interval of one split's repeats are SciPy's."""
    values = (0.41, 0.44, 0.39, 0.43)
    found = measured(runs_of(values))
    assert found is not None
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.error == pytest.approx(stats.sem(values))
    assert found.interval == pytest.approx(expected)
    assert deviation_of([runs_of(values)]) == pytest.approx(np.std(values, ddof=1))


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    """Over 2,000 draws from three splits of different levels, 95 % of the intervals hold the mean of the levels."""
    rng = np.random.default_rng(1)
    levels = np.array([0.3, 0.9, 1.4])
    held = 0
    for _ in range(2_000):
        found = measured(runs_of(*(tuple(level + 0.05 * rng.standard_normal(3)) for level in levels)))
        assert found is not None
        assert found.interval is not None
        held += found.interval[0] <= levels.mean() <= found.interval[1]
    assert 0.935 < held / 2_000 < 0.965


def test_two_means_are_apart_when_welchs_test_says_so() -> None:
    """On one split the judgement is that of SciPy's t-test with unequal variances."""
    rng = np.random.default_rng(2)
    said = []
    for difference in np.linspace(0, 3, 60):
        a, b = rng.standard_normal(4), difference + 2 * rng.standard_normal(6)
        one, other = measured(runs_of(tuple(a))), measured(runs_of(tuple(b)))
        assert one is not None
        assert other is not None
        assert apart(one, other) == (stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05)
        said.append(apart(one, other))
    assert True in said
    assert False in said
    assert apart(Measured(1.0, math.nan, 0), Measured(1.1, math.nan, 0))


def test_the_interval_of_a_gain_holds_the_true_gain_as_often_as_it_says() -> None:
    """Over 2,000 draws of ten repeats each, 95 % of the intervals hold the true share."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(2_000):
        first = measured(runs_of(tuple(1.0 + 0.05 * rng.standard_normal(10))))
        best = measured(runs_of(tuple(0.9 + 0.03 * rng.standard_normal(10))))
        gain, interval = gain_over(first, best)
        assert gain is not None
        assert interval is not None
        held += interval[0] <= 0.1 <= interval[1]
    assert 0.935 < held / 2_000 < 0.965
    assert gain_over(None, best) == (None, None)
    gain, interval = gain_over(Measured(2.0, math.nan, 0), Measured(1.0, math.nan, 0))
    assert (gain, interval) == (0.5, None)


def test_chances_of_being_the_best_follow_the_luck() -> None:
    """Alike ones share the chance, one far below has all of it; one repeat says nothing."""
    alike = best_shares({7: Measured(1.0, 0.1, 6), 3: Measured(1.0, 0.1, 6)})
    assert alike[7] == pytest.approx(0.5, abs=0.03)
    assert sum(share or 0.0 for share in alike.values()) == pytest.approx(1.0)
    assert best_shares({0: Measured(1.0, 0.01, 6), 1: Measured(0.5, 0.01, 6)}) == {0: 0.0, 1: 1.0}
    assert best_shares({0: Measured(1.0, math.nan, 0)}) == {0: None}
    assert best_shares({}) == {}


def test_the_standard_error_falls_with_the_root_of_the_repeats() -> None:
    """Drawn from twelve repeats, the error of a mean of n is deviation / √n within the error of 4,000 draws."""
    values = np.random.default_rng(4).normal(0.4, 0.02, 12).tolist()
    found = standard_errors(values)
    assert [one.repeats for one in found] == list(range(1, 13))
    for one in found:
        assert one.theory == pytest.approx(np.std(values, ddof=1) / math.sqrt(one.repeats))
        assert one.error == pytest.approx(one.theory, rel=0.05)
        assert one.interval[0] < np.mean(values) < one.interval[1]
    assert standard_errors([0.4]) == ()


def test_the_repeats_needed_are_those_of_a_power_calculation() -> None:
    """As statsmodels solves it for the deviations seen; none where there is no difference to find."""
    first, best = [1.0, 1.1, 0.9, 1.05], [0.95, 1.0, 0.9, 0.97]
    deviation = math.sqrt((np.var(first, ddof=1) + np.var(best, ddof=1)) / 2)
    effect = (np.mean(first) - np.mean(best)) / deviation
    expected = NormalIndPower().solve_power(effect, alpha=0.05, power=0.8, alternative="two-sided")
    assert needed(first, best) == math.ceil(expected)
    assert needed([1.0, 1.1], [1.1, 1.0]) is None
    assert needed([1.0], [0.5]) is None


def test_a_check_compares_the_best_with_the_settings_as_they_are() -> None:
    """Means, gain and what repeats are worth; the settings as they are gain nothing over themselves."""
    first, best = runs_of((1.0, 1.1, 1.05)), runs_of((0.5, 0.52, None))  # type: ignore[arg-type]
    found = checked(SPLIT, first, best)
    assert found.first_mse == pytest.approx(1.05)
    assert found.best_mse == pytest.approx(0.51)
    assert found.gain == pytest.approx(1 - 0.51 / 1.05)
    assert found.gain_interval is not None
    assert found.gain_interval[0] > 0.4
    assert len(found.standard_errors) == 2
    assert found.skill_persistence == pytest.approx(0.49)
    itself = checked(SPLIT, first, first)
    assert (itself.gain, itself.gain_interval, itself.needed) == (None, None, None)
