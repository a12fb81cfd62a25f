"""Errors, skill and reference forecasts against pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from models.skill import ErrorSums, average, mean_skill, persistence, seasonal_naive, skill

HORIZON = 5


def random_errors(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Errors (200, 5) and a mask that leaves a third out, with rubbish where nothing is paired."""
    rng = np.random.default_rng(seed)
    paired = rng.random((200, HORIZON)) < 2 / 3
    return np.where(paired, rng.normal(1, 2, (200, HORIZON)), np.nan), paired


def test_means_by_lead_equal_those_of_pandas() -> None:
    """MSE and counts skip what is not paired, as pandas skips NaN."""
    errors, paired = random_errors()
    sums = ErrorSums.over(errors, paired)
    frame = pd.DataFrame(errors)
    np.testing.assert_allclose(sums.mse, (frame**2).mean(), rtol=1e-12)
    np.testing.assert_array_equal(sums.count, frame.count())


def test_sums_of_parts_add_up_to_those_of_the_whole() -> None:
    """Error sums of two halves, added, are those of all pairs."""
    errors, paired = random_errors()
    whole = ErrorSums.over(errors, paired)
    added = ErrorSums.over(errors[:77], paired[:77]) + ErrorSums.over(errors[77:], paired[77:])
    np.testing.assert_array_equal(added.count, whole.count)
    np.testing.assert_allclose(added.mse, whole.mse, rtol=1e-12)


def test_skill_is_one_less_the_ratio_of_errors_and_nothing_where_there_is_no_ratio() -> None:
    """Half the reference's MSE is a skill of .5; no pair, or a perfect reference, gives none."""
    found = skill(np.array([1.0, 4.0, 0.0, np.nan, 1.0]), np.array([2.0, 2.0, 2.0, 2.0, 0.0]))
    np.testing.assert_allclose(found, [0.5, -1.0, 1.0, np.nan, np.nan])
    assert mean_skill(np.array([1.0, 4.0, np.nan]), np.array([2.0, 8.0, 9.0])) == pytest.approx(0.5)
    assert np.isnan(mean_skill(np.array([np.nan]), np.array([1.0])))


def test_a_lead_without_pairs_has_no_error() -> None:
    """Where nothing is paired means are NaN, with no warning."""
    sums = ErrorSums.over(np.zeros((4, 2)), np.array([[True, False]] * 4))
    np.testing.assert_array_equal(sums.mse, [0.0, np.nan])


def test_persistence_equals_a_shift_by_the_lead() -> None:
    """Lead k's persistence forecast is the value k steps earlier, where it was observed."""
    rng = np.random.default_rng(1)
    x, known = rng.normal(size=60), rng.random(60) < 0.8
    values, valid = persistence(x, known, HORIZON)
    series = pd.Series(np.where(known, x, np.nan))
    for lead in range(1, HORIZON + 1):
        shifted = series.shift(lead).to_numpy()
        np.testing.assert_array_equal(valid[:, lead - 1], ~np.isnan(shifted))
        np.testing.assert_array_equal(values[valid[:, lead - 1], lead - 1], shifted[~np.isnan(shifted)])
    assert not values[~valid].any()


def test_a_mean_goes_over_what_is_known() -> None:
    """What is None is skipped, as pandas skips NaN; of nothing there is no mean."""
    assert average([0.5, None, 2.0]) == pd.Series([0.5, np.nan, 2.0]).mean()
    assert average(value for value in (None, None)) is None


def test_seasonal_naive_uses_only_what_was_known_when_it_was_issued() -> None:
    """With a period of 3 leads 1…3 look back 3 steps, leads 4 and 5 look back 6, never into the future."""
    x, known = np.arange(20.0), np.ones(20, np.bool_)
    values, valid = seasonal_naive(x, known, HORIZON, period_steps=3)
    np.testing.assert_array_equal(values[10], [7, 7, 7, 4, 4])
    np.testing.assert_array_equal(valid[5], [True, True, True, False, False])
    for t in range(20):
        for lead in range(1, HORIZON + 1):
            if valid[t, lead - 1]:
                assert values[t, lead - 1] <= t - lead
