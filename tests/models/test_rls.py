"""Online least squares against weighted least squares solved anew at every step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.rls import MAX_COVARIANCE, PRIOR, LeastSquares, Past, forecasts, lags_of

PERIOD, HORIZON = 24, 5
FORGETTING = 0.97


def solved(inputs: np.ndarray, labels: np.ndarray, forgetting: float) -> np.ndarray:
    """Weights `(D,)` of weighted least squares with a ridge that is forgotten as the observations are."""
    count, size = inputs.shape
    weight = forgetting ** np.arange(count - 1, -1, -1)
    ridge = forgetting**count / PRIOR * np.eye(size)
    return np.linalg.solve(inputs.T @ (weight[:, None] * inputs) + ridge, inputs.T @ (weight * labels))


def past_of(target: np.ndarray, max_gap: int = 6) -> Past:
    """The past of series `(S, T)` without gaps beyond `max_gap` but at the start; NaN is missing, and not observed."""
    held, began = np.empty_like(target), np.empty(target.shape, np.int64)
    for at, series in enumerate(target):
        last, value, first = -1, np.nan, target.shape[1]
        for t, x in enumerate(series):
            if np.isfinite(x):
                if last < 0 or t - last > max_gap + 1:
                    first = t
                last, value = t, x
            held[at, t], began[at, t] = value, first
    return Past(first_step=1_000, target=target, held=held, began=began, observed=np.isfinite(target))


def whole(past: Past, unit: np.ndarray) -> np.ndarray:
    """All forecasts `(T, S, H)`, NaN where none was issued."""
    found = np.full((past.target.shape[1], len(unit), HORIZON), np.nan)
    for step, slots, issued in forecasts(past, unit, period_steps=PERIOD, horizon=HORIZON):
        found[step - past.first_step, slots] = issued
    return found


def cycles(steps: int = 1_500, series: int = 3, noise: float = 0.1) -> np.ndarray:
    """Cycles of a day with noise that lasts, `(S, T)`."""
    rng = np.random.default_rng(5)
    t = np.arange(steps)
    found = []
    for at in range(series):
        lasting = np.zeros(steps)
        for step in range(1, steps):
            lasting[step] = 0.9 * lasting[step - 1] + noise * rng.normal()
        found.append((at + 1) * (np.sin(2 * np.pi * t / PERIOD + at) + lasting) + 10 * at)
    return np.array(found)


def test_every_lead_forecasts_as_least_squares_over_the_labels_that_have_come() -> None:
    """At each step and lead the weights are those of a fit to inputs at least a lead old, the recent ones heavier."""
    rng = np.random.default_rng(0)
    steps, series, size = 60, 2, 3
    inputs, x = rng.normal(size=(steps, series, size)), rng.normal(size=(steps, series))
    squares = LeastSquares(series, size, HORIZON, FORGETTING)
    for t in range(steps):
        squares.learn(x[t], np.full(series, np.inf))
        found = squares.forecast(inputs[t], x[t], np.ones(series, np.bool_))
        for s in range(series):
            for lead in range(1, HORIZON + 1):
                known = max(0, t - lead + 1)  # inputs whose label of this lead has come
                labels = x[lead : known + lead, s] - x[:known, s]
                weights = solved(inputs[:known, s], labels, FORGETTING) if known else np.zeros(size)
                assert found[s, lead - 1] == pytest.approx(weights @ inputs[t, s], rel=1e-7, abs=1e-9)


def test_a_series_that_does_not_learn_leaves_the_others_as_they_are() -> None:
    """Forecasts of one series are the same beside another that has nothing to learn from."""
    rng = np.random.default_rng(1)
    inputs, x = rng.normal(size=(50, 2, 3)), rng.normal(size=(50, 2))
    alone, beside = LeastSquares(1, 3, HORIZON, FORGETTING), LeastSquares(2, 3, HORIZON, FORGETTING)
    for t in range(50):
        alone.learn(x[t, :1], np.full(1, 0.5))
        beside.learn(np.array([x[t, 0], np.nan]), np.array([0.5, 0.0]))
        expected = alone.forecast(inputs[t, :1], x[t, :1], np.array([True]))
        found = beside.forecast(inputs[t] * [[1.0], [0.0]], np.array([x[t, 0], np.nan]), np.array([True, False]))
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
        np.testing.assert_array_equal(found[1], 0.0)


def test_what_does_not_move_does_not_make_the_covariance_grow_without_end() -> None:
    """Inputs that are nearly zero for long leave the covariance within its limit, and what comes after finite."""
    squares = LeastSquares(1, 2, HORIZON, 0.9)
    for t in range(3_000):
        squares.learn(np.array([0.0]), np.array([1.0]))
        squares.forecast(np.array([[1e-9 * (t % 2), 0.0]]), np.array([0.0]), np.array([True]))
    assert squares._covariance.max() <= MAX_COVARIANCE / 0.9
    for t in range(50):
        squares.learn(np.array([np.sin(t)]), np.array([9.0]))
        found = squares.forecast(np.array([[np.sin(t), np.cos(t)]]), np.array([np.sin(t)]), np.array([True]))
    np.testing.assert_allclose(found[0, :2], [np.sin(50) - np.sin(49), np.sin(51) - np.sin(49)], atol=0.05)


def test_forecasts_do_not_know_what_comes_after() -> None:
    """All values after a step replaced by garbage: what was forecast up to it is the same, bit for bit."""
    past, cut = past_of(cycles()), 900
    rubbish = past.target.copy()
    rubbish[:, cut:] = np.random.default_rng(2).normal(size=rubbish[:, cut:].shape) * 1e12
    unit = np.array([1.0, 2.0, 3.0])
    honest, other = whole(past, unit), whole(past_of(rubbish), unit)
    np.testing.assert_array_equal(honest[:cut], other[:cut])
    assert np.isfinite(honest[:cut]).all()
    assert not np.array_equal(honest[cut:], other[cut:])


def test_a_cycle_is_learned() -> None:
    """After some days the error is close to that of whoever knows how the series came about, and below persistence."""
    target = cycles()
    found = whole(past_of(target), np.ones(3))
    issued = np.arange(1_000, 1_400)
    for lead in (1, HORIZON):
        errors = target[:, issued + lead].T - found[issued, :, lead - 1]
        naive = target[:, issued + lead].T - target[:, issued].T
        best = (np.arange(1, 4) * 0.1) ** 2 * sum(0.81**i for i in range(lead))
        assert (np.mean(errors**2, axis=0) < 1.35 * best).all()
        assert (np.mean(errors**2, axis=0) < 0.6 * np.mean(naive**2, axis=0)).all()


@pytest.mark.parametrize("bad", [1e3, 1e6, -1e12, 1e30])
def test_one_bad_value_does_not_spoil_what_was_learned(bad: float) -> None:
    """However large it is: once it is out of the inputs, errors are of the size they had without it."""
    target = cycles(2_200, 2)
    spoilt = target.copy()
    spoilt[0, 1_500] = bad
    found, honest = (whole(past_of(one), np.ones(2)) for one in (spoilt, target))
    np.testing.assert_array_equal(found[:, 1], honest[:, 1])
    issued = np.arange(1_500 + 2 * PERIOD, 2_100)
    for lead in (1, HORIZON):
        label = target[0, issued + lead]
        mine, other = (np.mean((label - one[issued, 0, lead - 1]) ** 2) for one in (found, honest))
        assert mine < 4 * other


def test_the_unit_hardly_matters() -> None:
    """Series and unit a thousand times as large give forecasts a thousand times as large."""
    target, unit = cycles(600), np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(whole(past_of(1_000 * target), 1_000 * unit), 1_000 * whole(past_of(target), unit))


def test_without_all_its_lags_a_series_forecasts_persistence_and_without_a_value_nothing() -> None:
    """So it is at the start, and after a gap that is too long; unobserved steps issue nothing."""
    target = cycles(400, 2)
    target[1, :10] = np.nan
    target[0, 200:220] = np.nan
    past = past_of(target)
    found = whole(past, np.ones(2))
    assert np.isnan(found[:10, 1]).all()
    assert np.isnan(found[200:220, 0]).all()
    for slot, steps in ((0, range(PERIOD)), (1, range(10, 10 + PERIOD)), (0, range(220, 220 + PERIOD))):
        for step in steps:
            np.testing.assert_allclose(found[step, slot], target[slot, step], rtol=1e-12)
    assert abs(found[220 + PERIOD, 0, HORIZON - 1] - target[0, 220 + PERIOD]) > 1e-3


def test_an_observation_without_a_target_is_forecast_from_the_last_value() -> None:
    """A missing target is no label, and the forecast at its step starts from the value held."""
    target = cycles(600, 1)
    past = past_of(target)
    target = target.copy()
    target[0, 500] = np.nan
    missing = replace(past_of(target), observed=past.observed)
    found, full = whole(missing, np.ones(1)), whole(past, np.ones(1))
    assert np.isfinite(found[500]).all()
    np.testing.assert_array_equal(found[:500], full[:500])
    assert not np.array_equal(found[500:], full[500:])


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (1, [1, 2, 3, 4]),
        (7, [1, 2, 3, 4, 5, 6, 7]),
        (24, list(range(1, 25))),
        (96, [1, 2, 3, *range(4, 97, 4)]),
    ],
)
def test_lags_cover_one_period(period: int, expected: list[int]) -> None:
    """The nearest ones, and about 24 over the period, whatever its length."""
    assert lags_of(period).tolist() == expected
