"""The benchmark of the detectors: its errors are what it says, its windows are counted, its page is its own."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift import BEGIN, DOC, END, PHI, _windows, ar_errors, one_run, watched
from models.drift import LossDrift
from models.drift_limits import DriftLimits


def test_errors_have_the_autocorrelation_and_spread_that_the_table_names() -> None:
    """Standard deviation 1, and PHI between neighbours, from the first step on."""
    runs = np.array([ar_errors(50, np.random.default_rng(seed)) for seed in range(2_000)])
    assert np.allclose(runs.std(axis=0), 1.0, atol=0.07)
    assert (runs[:, 1:] * runs[:, :-1]).mean() == pytest.approx(PHI, abs=0.02)


def test_neighbouring_rows_of_a_label_are_one_window() -> None:
    """At both ends too."""
    assert _windows(np.array([1, 1, 0, 0, 1, 0, 1], np.bool_)) == [(0, 2), (4, 5), (6, 7)]


def test_steps_in_which_the_thresholds_are_learned_are_not_counted() -> None:
    """A quiet stream of 150 steps was watched for 50 where 100 told what quiet is."""
    losses = 1.0 + np.random.default_rng(0).random(150)
    assert watched(LossDrift(DriftLimits(calibration_steps=100)), losses.tolist()) == (0, 50)


def test_a_run_finds_its_changes() -> None:
    """Every kind of change is looked for on the same quiet stream, and twice the spread is found soonest."""
    run = one_run("abs(e)", 672, seed=3)
    assert run["steps"] == 672 - 336
    assert run["sd x 2.0"][0] <= run["sd x 1.5"][0]
    assert set(run["sd x 1.5"][1]) <= {"adwin", "page_hinkley"}


def test_the_page_holds_tables() -> None:
    """Between its markers, where `--write` puts them."""
    text = DOC.read_text(encoding="utf-8")
    assert text.index(BEGIN) < text.index("### AR(1) errors") < text.index("### Speed") < text.index(END)
