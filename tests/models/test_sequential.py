"""The sequential test: its bets by hand, its validity by simulation, its calibration against theory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter
from statsmodels.tsa.arima_process import ArmaProcess  # type: ignore[import-untyped]

from models import sequential
from models.errors import DataError
from models.sequential import (
    BETS,
    LEAST_BLOCK,
    LEAST_STEPS,
    LEVELS,
    Wealth,
    advance,
    ar_block,
    block_of,
    calibrate,
    course_of,
    e_value,
    phi_of,
    proved,
)
from models.verdict import Calibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOUR = Calibration(block_steps=4, scale=0.5, lag1=0.0, steps=400)
NUMBERS = st.floats(-1e3, 1e3) | st.sampled_from([math.nan, 0.0, 1e-300, -1e120, 1e120])


def ar(rng: np.random.Generator, streams: int, steps: int, phi: float) -> NDArray[np.float64]:
    """Stationary Gaussian AR(1) numbers of variance 1, `(streams, steps)`."""
    noise = rng.standard_normal((streams, steps + 300)) * math.sqrt(1.0 - phi * phi)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise, axis=1)[:, 300:])


def by_hand(means: list[float], scale: float) -> float:
    """The wealth after blocks with these means, bet by bet and block by block."""
    wealth = []
    for bet in (0.05, 0.12, 0.3):
        one = 1.0
        for mean in means:
            one *= 1.0 + bet * max(min(mean / scale, 3.0), -0.9 / bet)
        wealth.append(one)
    return sum(wealth) / 3


def test_wealth_is_that_of_the_bets_on_block_means() -> None:
    """Blocks of four steps, good ones cut at three scales, bad ones where they took nine tenths of a bet."""
    blocks = np.array([[1.0, 2.0, 3.0, -4.0], [9.0, 9.0, 9.0, 9.0], [-9.0, -9.0, 0.0, 0.0], [0.1, 0.1, 0.2, 0.4]])
    wealth = advance(Wealth(), FOUR, blocks.ravel())
    means = [0.5, 9.0, -4.5, 0.2]
    assert e_value(wealth) == pytest.approx(by_hand(means, 0.5))
    assert (wealth.blocks, wealth.steps, wealth.part_steps) == (4, 16, 0)
    assert wealth.mean == pytest.approx(np.mean(means))


@given(st.lists(NUMBERS, max_size=120), st.lists(st.integers(0, 120), max_size=6))
def test_pieces_come_to_the_same_bits_as_the_whole(numbers: list[float], cuts: list[int]) -> None:
    """However the steps are cut, and though the state is written as JSON and MessagePack in between."""
    differences = np.array(numbers, np.float64)
    whole = advance(Wealth(), FOUR, differences)
    wealth = Wealth()
    for piece in np.split(differences, sorted(cuts)):
        wealth = advance(wealth, FOUR, piece)
        wealth = msgspec.json.decode(msgspec.json.encode(wealth), type=Wealth)
        wealth = msgspec.msgpack.decode(msgspec.msgpack.encode(wealth), type=Wealth)
    assert wealth == whole
    assert math.isfinite(e_value(whole))


@given(st.lists(NUMBERS, max_size=80), st.lists(st.integers(0, 80), max_size=20))
def test_steps_without_a_difference_count_for_nothing(numbers: list[float], gaps: list[int]) -> None:
    """NaN anywhere between the steps leaves everything as it was."""
    differences = np.array(numbers, np.float64)
    holes = np.insert(differences, [min(gap, len(differences)) for gap in gaps], math.nan)
    assert advance(Wealth(), FOUR, holes) == advance(Wealth(), FOUR, differences)


def test_a_course_is_what_looking_after_every_block_sees() -> None:
    """E-values and verdicts along the way equal those of a test that was stopped there."""
    differences = ar(np.random.default_rng(5), 1, 400, 0.3)[0] + 0.4
    course = course_of(advance(Wealth(), FOUR, differences[:30]), FOUR, differences[30:])
    for at, blocks in enumerate(course.blocks.tolist()):
        stopped = advance(Wealth(), FOUR, differences[: 4 * blocks])
        assert e_value(stopped) == course.e_values[at]
        assert proved(stopped, 0.05) == course.proved(0.05)[at]
    assert course.proved(0.05).any()
    assert not course.proved(0.05).all()


def test_an_even_difference_is_proved() -> None:
    """Without any spread, as soon as the bets have won enough; one that is as even against it never is."""
    wealth = Wealth()
    needed = next(n for n in range(1, 99) if by_hand([1.0] * n, 0.5) >= 100.0)
    for _ in range(needed):
        assert not proved(wealth, 0.01)
        wealth = advance(wealth, FOUR, np.ones(4))
    assert proved(wealth, 0.01)
    assert not proved(advance(Wealth(), FOUR, -np.ones(400)), 0.01)
    assert not proved(advance(Wealth(), FOUR, np.zeros(400)), 0.4)


def test_a_sure_loss_and_a_single_block_prove_nothing() -> None:
    """However large the wealth: a plain mean that is surely below 0, and one of which no spread is known."""
    rich = Wealth(logs=(20.0,) * len(BETS), blocks=100, total=-200.0, marks=(-200.0,) + (0.0,) * (LEVELS - 1),
                  squares=(401.0,) + (0.0,) * (LEVELS - 1), steps=400)  # fmt: skip
    assert e_value(rich) > 1e8
    assert not proved(rich, 0.01)
    assert proved(msgspec.structs.replace(rich, total=200.0, marks=(200.0, *rich.marks[1:])), 0.01)
    one = msgspec.structs.replace(rich, blocks=1, total=2.0, marks=(2.0, *rich.marks[1:]), squares=(4.0,) * LEVELS)
    assert not proved(one, 0.01)


def test_wealth_without_a_sure_unclipped_mean_proves_nothing() -> None:
    """Many blocks that are a little better, and one disaster that outweighs them."""
    good = np.full(4 * 400, 0.2)
    assert proved(advance(Wealth(), FOUR, good), 0.01)
    with_disaster = good.copy()
    with_disaster[800] = -300.0  # takes 0.19 from a mean of 0.2
    wealth = advance(Wealth(), FOUR, with_disaster)
    assert e_value(wealth) > 1e6
    assert wealth.mean > 0.0
    assert not proved(wealth, 0.01)


def test_dependence_that_calibration_missed_widens_the_mean() -> None:
    """Blocks that go together are no evidence of their own: the long-run variance counts them as groups."""
    slow = np.repeat(ar(np.random.default_rng(2), 1, 64, 0.0)[0], 16)  # (1024,) the same for 16 blocks
    course = course_of(Wealth(), FOUR, np.repeat(slow, 4))
    assert course.long_run[-1] == pytest.approx(16 * np.var(slow), rel=0.5)
    free = course_of(Wealth(), FOUR, np.repeat(np.random.default_rng(2).permutation(slow), 4))
    assert free.long_run[-1] < 3 * np.var(slow)


def test_groups_double() -> None:
    """Mark and squares of each level are those of the groups of 1, 2, 4, … blocks that are over."""
    values = np.random.default_rng(8).normal(size=4 * 37)
    wealth = advance(advance(Wealth(), FOUR, values[:50]), FOUR, values[50:])
    means = values.reshape(37, 4).mean(axis=1)
    for level in range(LEVELS):
        over = 37 // 2**level * 2**level
        groups = means[:over].reshape(-1, 2**level).sum(axis=1)
        assert wealth.marks[level] == pytest.approx(means[:over].sum(), abs=1e-12)
        assert wealth.squares[level] == pytest.approx((groups**2).sum(), abs=1e-12)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_no_difference_is_rarely_proved(phi: float) -> None:
    """Calibrated on 500 steps, looked at after every one of 2,000: at most alpha, and two standard errors of 200."""
    streams = ar(np.random.default_rng(11), 200, 2_500, phi)
    found = [course_of(Wealth(), calibrate([stream[:500]]), stream[500:]).proved(0.05).any() for stream in streams]
    assert np.mean(found) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def test_a_difference_of_half_a_deviation_is_proved() -> None:
    """In each of 40 streams within 2,000 steps, at a level of .01."""
    for stream in ar(np.random.default_rng(12), 40, 2_500, 0.5):
        assert proved(advance(Wealth(), calibrate([stream[:500]]), stream[500:] + 0.5), 0.01)


@pytest.mark.parametrize(("phi", "shortest"), [(0.0, 1), (0.3, 4), (0.5, 8), (0.9, 57), (0.97, 197)])
def test_an_ar_block_is_the_shortest_that_decorrelates(phi: float, shortest: int) -> None:
    """Against the autocovariances of statsmodels: its means correlate by .1 or less, those of one step less don't."""
    assert ar_block(phi) == shortest
    covariance = ArmaProcess([1.0, -phi], [1.0]).acovf(2 * shortest)
    lags = np.abs(np.subtract.outer(np.arange(2 * shortest), np.arange(2 * shortest)))

    def lag1(size: int) -> float:
        of = covariance[lags]
        return float(of[:size, size : 2 * size].sum() / of[:size, :size].sum())

    assert lag1(shortest) <= 0.1
    assert shortest == 1 or lag1(shortest - 1) > 0.1


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_phi_is_put_right_for_small_samples(phi: float) -> None:
    """Its mean over 2,000 series of 100 steps is phi within .02; the plain estimate of phi .9 lies .04 below."""
    series = ar(np.random.default_rng(4), 2_000, 100, phi)
    centred = series - series.mean(axis=1, keepdims=True)
    found = np.array([phi_of(one) for one in centred])
    plain = (centred[:, 1:] * centred[:, :-1]).sum(axis=1) / (centred**2).sum(axis=1)
    if phi > 0.0:  # a phi below 0 counts as 0
        assert found.mean() == pytest.approx(phi, abs=0.02)
        assert plain.mean() < found.mean() - 0.01


def test_blocks_and_scale_of_known_series() -> None:
    """20,000 steps of AR(.9): the block of theory within a tenth, and the deviation of its means by theory."""
    series = ar(np.random.default_rng(6), 1, 20_000, 0.9)[0]
    found = calibrate([series + 7.0])
    assert found.block_steps == pytest.approx(57, rel=0.1)
    covariance = ArmaProcess([1.0, -0.9], [math.sqrt(1.0 - 0.81)]).acovf(found.block_steps)
    weights = found.block_steps - np.arange(found.block_steps)
    variance = (2.0 * (weights * covariance).sum() - found.block_steps * covariance[0]) / found.block_steps**2
    assert found.scale == pytest.approx(math.sqrt(variance), rel=0.05)
    assert found.lag1 <= 0.15
    assert found.steps == 20_000
    assert "blocks of" in found.words


def test_a_slow_part_under_noise_lengthens_the_block() -> None:
    """Steps that hardly correlate, whose long means do: the autocorrelation of one step alone would see nothing."""
    rng = np.random.default_rng(9)
    series = rng.standard_normal(8_000) + 0.4 * ar(rng, 1, 8_000, 0.97)[0]
    centred = series - series.mean()
    assert ar_block(phi_of(centred)) <= LEAST_BLOCK
    assert 13 * LEAST_BLOCK < block_of(centred, LEAST_BLOCK) < 1_000


def test_the_longest_block_and_the_widest_scale_of_all_pairs_count() -> None:
    """Of two pairs of versions; gaps, and pairs that are too short or never differ, change nothing."""
    rng = np.random.default_rng(3)
    fast, slow = ar(rng, 1, 2_000, 0.0)[0] * 10.0, ar(rng, 1, 2_000, 0.9)[0]
    slow[100:140] = math.nan
    both = calibrate([fast, slow])
    assert both.block_steps == calibrate([slow]).block_steps
    assert both.scale > calibrate([slow]).scale
    assert calibrate([fast, slow, np.zeros(500), np.full(500, math.nan), rng.normal(size=9) * 1e9]) == both


def test_scales_of_short_spans_are_put_right() -> None:
    """The span's own mean takes a share of the variance: 400 spans of 100 white steps, blocks of 12."""
    series = ar(np.random.default_rng(7), 400, 100, 0.0)
    squares = [sequential._scale(one - one.mean(), 12) ** 2 for one in series]
    assert np.mean(squares) == pytest.approx(1 / 12, rel=0.06)


def test_where_few_blocks_were_seen_the_scale_is_no_less_than_of_an_autoregression() -> None:
    """Of 30 spans of 400 steps at phi .97, each against theory with its own phi and variance."""
    for series in ar(np.random.default_rng(8), 30, 400, 0.97):
        found = calibrate([series])
        if found.block_steps * 8 > 400:
            covariance = ArmaProcess([1.0, -phi_of(series - series.mean())], [1.0]).acovf(found.block_steps)
            weights = 2.0 * (found.block_steps - np.arange(found.block_steps))
            share = ((weights * covariance).sum() / covariance[0] - found.block_steps) / found.block_steps**2
            assert found.scale >= 0.999 * math.sqrt(share * series.var(ddof=1))


def test_few_steps_form_an_autoregression() -> None:
    """60 steps of a series that hardly moves: the block is that of theory, though longer than what was seen."""
    found = calibrate([ar(np.random.default_rng(1), 1, 60, 0.97)[0]])
    assert found.block_steps > 30
    assert found.scale > 0.0
    assert "of them were seen" in found.words


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([], "there are 0 steps"),
        ([np.ones(LEAST_STEPS - 1), np.full(500, math.nan)], f"there are {LEAST_STEPS - 1} steps"),
        ([np.full(500, 0.1), np.zeros(100)], "don't vary over 500 steps"),
    ],
)
def test_what_can_not_be_calibrated_is_refused(differences: list[NDArray[np.float64]], words: str) -> None:
    """Too few steps, none at all, and versions that never differ."""
    with pytest.raises(DataError, match=words):
        calibrate(differences)


def test_no_bet_can_be_lost_whole() -> None:
    """Ten thousand disasters in a row leave a number, and later evidence still counts; so do as many good blocks."""
    wealth = advance(Wealth(), FOUR, np.full(40_000, -1e300))
    assert len(wealth.logs) == len(BETS)
    assert all(math.isfinite(log) for log in wealth.logs)
    assert e_value(advance(wealth, FOUR, np.full(4, 1e300))) >= e_value(wealth)
    assert math.isfinite(e_value(advance(Wealth(), FOUR, np.ones(40_000))))
