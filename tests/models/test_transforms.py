"""Transforms of the target: their formulas, their inverses, their slopes, and that no number breaks them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.transforms import MOST, Transform

ALL = {
    "none": Transform.of("none", 0.5),
    "log": Transform.of("log", 0.5),
    **{f"λ={power}": Transform.of("yeo-johnson", power) for power in (0.0, 1e-12, 0.01, 0.5, 1.7, 2.0)},
}
TRANSFORMS = [pytest.param(transform, id=name) for name, transform in ALL.items()]
ONE = np.ones(1)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("power", [0.0, 0.3, 0.999, 1.5, 2.0])
def test_yeo_johnson_is_that_of_scipy(power: float) -> None:
    """Of values in units of the scale, above and below zero."""
    values = np.concatenate([-np.geomspace(1e-9, 1e6, 60), [0.0], np.geomspace(1e-9, 1e6, 60)])
    found = Transform.of("yeo-johnson", power).seen(values * 3.0, np.array(3.0))
    np.testing.assert_allclose(found, stats.yeojohnson(values, power), rtol=1e-9, atol=1e-14)


def test_log_is_the_logarithm_of_one_and_the_ratio_and_odd() -> None:
    """log(1 + |x|/S), with the sign of x."""
    found = Transform.of("log", 0.5).seen(np.array([6.0, -6.0, 0.0]), np.array(2.0))
    np.testing.assert_allclose(found, [math.log(4.0), -math.log(4.0), 0.0])


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_what_was_seen_goes_back_to_the_value(transform: Transform) -> None:
    """Over twelve orders of magnitude, by a scale of its own for each."""
    values = np.concatenate([-np.geomspace(1e-6, 1e6, 50), [0.0], np.geomspace(1e-6, 1e6, 50)])
    scale = np.random.default_rng(0).uniform(0.1, 10.0, values.shape)
    np.testing.assert_allclose(transform.back(transform.seen(values, scale), scale), values, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_larger_values_are_seen_larger_by_the_slope_that_is_told(transform: Transform) -> None:
    """The unit is the derivative at the level, for a move of one scale: the delta method."""
    level, scale = np.linspace(-50.0, 50.0, 41), np.full(41, 4.0)
    step = 1e-5
    slope = (transform.seen(level + step, scale) - transform.seen(level - step, scale)) / (2 * step)
    np.testing.assert_allclose(transform.unit(scale, level), slope * scale, rtol=1e-5)
    assert (slope > 0).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_no_number_breaks_it(transform: Transform) -> None:
    """The largest and the least there are give numbers, in order, and come back within single precision."""
    huge = np.array([-1.7e308, -1e30, -1.0, -5e-324, 0.0, 5e-324, 1.0, 1e30, 1.7e308])
    for scale in (1e-12, 1.0, 1e30):
        seen = transform.seen(huge, np.full(9, scale))
        assert np.isfinite(seen).all()
        assert (np.diff(seen) >= 0).all()
        unit = transform.unit(np.full(9, scale), huge)
        assert np.isfinite(unit).all()
        assert (unit > 0).all()
        if not transform.none:
            back = transform.back(huge, np.full(9, scale))
            assert (np.abs(back) <= MOST).all()
            assert not transform.seen(huge, np.zeros(9)).any()


@given(st.lists(st.tuples(numbers, st.floats(1e-12, 1e12)), min_size=1, max_size=40), st.sampled_from(list(ALL)))
def test_a_number_is_seen_the_same_alone_and_among_others(pairs: list[tuple[float, float]], name: str) -> None:
    """Bit for bit, also in arrays that are cut out of larger ones."""
    transform = ALL[name]
    values, scale = np.array(pairs).T
    among = transform.seen(values, scale), transform.unit(scale, values), transform.back(values, scale)
    wide = np.array(pairs).repeat(3, axis=0).reshape(len(pairs), 3, 2)
    for i in range(len(pairs)):
        v, s = values[i : i + 1], scale[i : i + 1]
        alone = transform.seen(v, s), transform.unit(s, v), transform.back(v, s)
        assert [a.tobytes() for a in alone] == [part[i : i + 1].tobytes() for part in among]
    cut = transform.seen(wide[:, 1, 0], wide[:, 1, 1])
    assert cut.tobytes() == among[0].tobytes()
