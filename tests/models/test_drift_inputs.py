"""Histograms of inputs that add up, and the distances between them, against scipy and a PSI of its own."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models.drift_inputs import (
    BINS,
    PSI_BINS,
    TrainedInput,
    counts,
    edges_of,
    input_drifts,
    input_statistics,
    inputs_of,
    ks_distance,
    psi,
    trained_inputs,
)
from models.drift_limits import DriftLimits
from models.errors import DataError

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def wandering(steps: int = 2_000, seed: int = 0) -> TrainedInput:
    """A normal feature over a training span of `steps`, in windows of 168."""
    values = np.random.default_rng(seed).normal(size=(steps, 1))
    made = inputs_of(["x"], values, np.ones((steps, 1), np.bool_), np.arange(steps), window_steps=168)
    found = trained_inputs({"inputs": made})
    assert found is not None
    return found.features["x"]


@given(st.lists(numbers, min_size=1, max_size=200), st.lists(numbers, max_size=200), st.lists(numbers, max_size=200))
@settings(deadline=None, max_examples=80)
def test_counts_of_parts_add_up_to_those_of_the_whole(sample: list[float], a: list[float], b: list[float]) -> None:
    """Hour by hour or at once: the same counts, and none of the values is lost."""
    edges = edges_of(np.array(sample))
    assert 2 <= len(edges) <= BINS + 1
    assert (np.diff(edges) > 0).all()
    parts = counts(np.array(a), edges) + counts(np.array(b), edges)
    whole = counts(np.array(a + b), edges)
    assert np.array_equal(parts, whole)
    assert whole.sum() == len(a) + len(b)
    own = counts(np.array(sample), edges)
    assert own[0] == own[-1] == 0
    assert ks_distance(own, own) == 0.0
    assert psi(own, own) == 0.0


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("round_to", [6, 0])
def test_the_distance_is_that_of_scipy(shift: float, round_to: int) -> None:
    """Within the share of one bin for values that are all different, exactly for a few levels."""
    rng = np.random.default_rng(3)
    trained = np.round(rng.normal(size=4_000), round_to)
    recent = np.round(rng.normal(loc=shift, size=700), round_to)
    edges = edges_of(trained)
    ours = ks_distance(counts(trained, edges), counts(recent, edges))
    theirs = float(stats.ks_2samp(trained, recent).statistic)
    assert theirs - 1 / BINS - 1e-9 <= ours <= theirs + 1e-9


def test_psi_is_that_of_tenths_cut_by_numpy() -> None:
    """Equal to the textbook's sum over deciles, but for the half count in each."""
    rng = np.random.default_rng(4)
    trained, recent = rng.normal(size=4_000), rng.normal(loc=0.5, scale=1.3, size=900)
    cuts = np.concatenate([[-np.inf], np.quantile(trained, np.arange(1, PSI_BINS) / PSI_BINS), [np.inf]])
    p = np.histogram(trained, cuts)[0] / len(trained)
    q = np.histogram(recent, cuts)[0] / len(recent)
    edges = edges_of(trained)
    ours = psi(counts(trained, edges), counts(recent, edges))
    assert ours == pytest.approx(float(np.sum((q - p) * np.log(q / p))), rel=0.02)


def test_a_constant_feature_that_moves_is_seen_by_both() -> None:
    """Up or down, whatever little; and without a move there is no distance."""
    edges = edges_of(np.full(500, 3.0))
    trained = counts(np.full(500, 3.0), edges)
    for value in (2.9, 3.1):
        recent = counts(np.full(100, value), edges)
        assert ks_distance(trained, recent) == 1.0
        assert psi(trained, recent) > 5
    assert psi(trained, counts(np.full(100, 3.0), edges)) == pytest.approx(0.0, abs=0.05)


def test_nothing_to_compare_is_no_drift() -> None:
    """An hour without a value has no distance, and missing values lie in no bin."""
    trained = wandering()
    empty = counts(np.array([np.nan, np.nan]), np.array(trained.edges))
    assert empty.sum() == 0
    assert np.isnan(ks_distance(np.array(trained.counts), empty))
    assert np.isnan(psi(np.array(trained.counts), empty))
    assert input_drifts("x", trained, empty, DriftLimits()) == ()


@pytest.mark.parametrize("sample", [[], [1.0, float("nan")], [float("inf")]])
def test_edges_of_what_is_not_finite_are_refused(sample: list[float]) -> None:
    """Missing values must be left out before."""
    with pytest.raises(DataError, match="finite"):
        edges_of(np.array(sample))


def test_a_shift_is_a_drift_by_its_size_and_not_by_the_number_of_values() -> None:
    """A shift of a tenth is none even where any test would call it significant; a shift of one is."""
    trained = wandering()
    rng = np.random.default_rng(5)
    edges = np.array(trained.edges)
    many = counts(rng.normal(loc=0.1, size=1_000_000), edges)
    assert input_drifts("x", trained, many, DriftLimits()) == ()
    few = counts(rng.normal(loc=1.0, size=200), edges)
    drifts = input_drifts("x", trained, few, DriftLimits())
    assert [drift.detector for drift in drifts] == ["ks", "psi"]
    assert "input 'x' has changed" in drifts[0].words
    assert drifts[0].statistic > drifts[0].threshold == 0.25


def test_an_input_that_wandered_in_training_may_wander_later() -> None:
    """The limit is the largest distance of a window of the training span from the whole, where that is larger."""
    steps = np.arange(8 * 168)
    season = np.sin(2 * np.pi * steps / (8 * 168))[:, None]
    made = inputs_of(["x"], season, np.ones((len(steps), 1), np.bool_), steps, window_steps=168)
    trained = trained_inputs({"inputs": msgspec.json.decode(msgspec.json.encode(made))})
    assert trained is not None
    one = trained.features["x"]
    windows = [float(stats.ks_2samp(season[:, 0], season[at : at + 168, 0]).statistic) for at in range(0, 8 * 168, 168)]
    assert one.usual_ks == pytest.approx(max(windows), abs=1.5 / BINS)
    week = counts(season[168 * 2 : 168 * 3, 0], np.array(one.edges))
    assert input_statistics(one, week, DriftLimits())["ks"][0] > 0.25
    assert input_drifts("x", one, week, DriftLimits()) == ()


def test_a_feature_that_was_never_there_is_left_out() -> None:
    """There is nothing to compare it with."""
    present = np.array([[True, False]] * 50)
    made = inputs_of(["x", "y"], np.ones((50, 2)), present, np.arange(50), window_steps=10)
    assert list(made["features"]) == ["x"]


def test_inputs_that_a_training_kept_are_checked_when_they_are_read() -> None:
    """None where there are none; another format, unsorted edges or wrong numbers of counts are refused."""
    assert trained_inputs({"kind": "fit"}) is None
    good = {"features": {"x": {"edges": [0.0, 1.0], "counts": [0, 5, 0]}}, "window_steps": 168, "format": 1}
    assert trained_inputs({"inputs": good}) is not None
    bad = [
        ({**good, "format": 2}, "format 2"),
        ({**good, "features": {"x": {"edges": [1.0, 0.0], "counts": [0, 5, 0]}}}, "2 edges"),
        ({**good, "features": {"x": {"edges": [0.0, 1.0], "counts": [0, 5]}}}, "2 counts"),
        ({"features": 3}, "can't be read"),
    ]
    for inputs, words in bad:
        with pytest.raises(DataError, match=words):
            trained_inputs({"inputs": inputs})
