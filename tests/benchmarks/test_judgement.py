"""The benchmark of the gate: its streams are what they say, its simulations see what they should, in small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks import _judgement_gate as gates
from benchmarks._judgement_page import tables
from benchmarks._judgement_picture import picture
from benchmarks._judgement_real import trials
from benchmarks._judgement_streams import PRESENT, World, alternating, struck
from benchmarks.judgement import BEGIN, DOC, END, PARTS, PICTURE
from models.sequential import Wealth, advance, calibrate, proved


@pytest.mark.parametrize("series", [1, 7])
@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_a_world_has_the_dependence_that_it_says(series: int, phi: float) -> None:
    """Standard deviation 1, lag-1 autocorrelation phi, a fifth of the observations missing."""
    streams = np.stack(list(World(phi, series).streams(40, 3_000, seed=2)))
    assert np.nanstd(streams) == pytest.approx(1.0, abs=0.05)
    assert np.nanmean(streams) == pytest.approx(0.0, abs=0.05)
    assert np.nanmean(streams[:, 1:] * streams[:, :-1]) == pytest.approx(phi, abs=0.05)
    assert np.isnan(streams).mean() == pytest.approx((1.0 - PRESENT) ** series, abs=0.01)


def test_streams_do_not_depend_on_how_many_are_asked_for() -> None:
    """The first of many are the few; another seed gives others."""
    few = np.stack(list(World(0.5, 7).streams(2, 100, seed=1)))
    assert not np.array_equal(few, np.stack(list(World(0.5, 7).streams(2, 100, seed=2))), equal_nan=True)
    assert np.isfinite(few).any()
    assert len({one.tobytes() for one in few}) == 2


def test_heavy_tails_and_disasters_are_there() -> None:
    """Kurtosis beyond the normal one's, and steps that no normal number reaches; neither version is better."""
    heavy = np.concatenate(list(World(0.0, tails="heavy").streams(20, 5_000, seed=1)))
    assert np.nanmean(heavy**4) / np.nanmean(heavy**2) ** 2 > 6.0
    struck_steps = np.concatenate(list(World(0.5, tails="disasters").streams(20, 5_000, seed=1)))
    far = struck_steps[np.abs(struck_steps) > 20.0]
    assert len(far) / np.isfinite(struck_steps).sum() == pytest.approx(0.002, rel=0.3)
    assert 0.3 < (far > 0).mean() < 0.7


def test_a_struck_candidate_is_worse_and_mostly_better() -> None:
    """The mean is what was asked for, and all steps but the struck ones gain."""
    stream = struck(np.zeros(200_000), 0.1, 0.01, -0.02, np.random.default_rng(1))
    assert stream.mean() == pytest.approx(-0.02, abs=0.01)
    assert (stream == 0.1).mean() == pytest.approx(0.99, abs=0.002)


def test_seasons_alternate() -> None:
    """As long better as worse, in halves of the period."""
    stream = alternating(np.zeros(400), 0.5, 50, np.random.default_rng(1))
    assert stream.mean() == 0.0
    assert len(np.flatnonzero(np.diff(stream))) in (7, 8)


def test_a_first_proof_is_when_a_live_trial_would_have_ended() -> None:
    """Step by step with the functions that the gate calls, over steps without a difference."""
    calibration, stream = next(gates.calibrated(World(0.5), 1, 500, 2_000))
    wealth = Wealth()
    for step, difference in enumerate(stream + 0.5, 1):  # noqa: B007 - the step is asked for below
        wealth = advance(wealth, calibration, np.array([difference]))
        if proved(wealth, 0.01):
            break
    assert np.isnan(stream).any()
    assert gates.first_proof(calibration, stream + 0.5, 0.01) == step
    assert gates.first_proof(calibration, stream - 0.5, 0.01) == math.inf


def test_blocks_of_one_step_promote_what_is_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """At phi .9 nearly always, where the gate's own blocks keep their level."""
    monkeypatch.setattr(gates, "worlds", lambda: [World(0.9)])
    monkeypatch.setattr(gates, "STEPS", 3_000)
    (row,) = gates.false_promotions(40, spans=(500,))
    assert row["false_single_steps"] > 0.3
    assert row["false_0.05"] <= 0.1
    assert 30 < row["block"] < 100


def test_a_harm_trial_stops_who_is_far_worse_and_lets_through_who_is_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over two weeks at phi .5; and what it lets through the guard takes back where it is far worse."""
    monkeypatch.setattr(gates, "PHIS", (0.5,))
    equal, half, _, far = gates.harm(20, watched=(24,))
    assert equal["ended"] <= 0.2
    assert far["ended"] > 0.8
    assert half["undone_in_a_month"] > 0.3 * (1.0 - half["ended"])


def test_trials_on_real_losses_tell_the_better_from_the_worse() -> None:
    """Of two versions one of which is better all the time, only that one is promoted; with the mean taken out, none."""
    stream = next(World(0.5).streams(1, 5_000, seed=3))
    rows = trials(np.stack([stream, np.zeros_like(stream) - 1.0]))
    month = next(row for row in rows if (row["calibrated_on"], row["deadline"]) == (2_000, 2_160 // 3))
    assert month["better_0.05"] > 0.5
    assert month["worse_0.05"] == 0.0
    assert month["even_0.05"] <= 0.1


def test_all_tables_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the rows of every part, made of two streams each; each is a table whose lines are as long as its head."""
    monkeypatch.setattr(gates, "STEPS", 800)
    monkeypatch.setattr(gates, "PHIS", (0.0, 0.5))
    monkeypatch.setattr(gates, "worlds", lambda: [World(0.5), World(0.5, 7)])
    found: dict[str, list[dict[str, Any]]] = {name: part.make(2) for name, part in PARTS.items() if name != "lifetime"}
    found["lifetime"] = gates.lifetime(1, trials=2)
    losses = np.stack([next(World(0.5).streams(1, 4_400, seed)) for seed in (1, 2)])
    found["real"] = [{"data": "x", "horizon": 1, **row} for row in trials(losses)]
    lines = list(tables(found))
    heads = [at for at, line in enumerate(lines) if line.startswith("|--")]
    assert len(heads) == 8
    for at in heads:
        body = lines[at + 1 : lines.index("", at)]
        assert body
        assert {line.count("|") for line in body} == {lines[at].count("|")} == {lines[at - 1].count("|")}


def test_the_budget_is_never_spent_whole() -> None:
    """A hundred trials spend less than it, each a tenth of what is left at most."""
    rows = gates.lifetime(1, trials=100)
    assert all(0.19 < row["spent"] < 0.2 for row in rows)


def test_the_page_holds_tables_and_the_picture_is_the_one_that_is_drawn() -> None:
    """Tables between their markers; the picture shows all three candidates, and the one that was promoted."""
    text = DOC.read_text(encoding="utf-8")
    assert (
        text.index(BEGIN)
        < text.index("### No true difference")
        < text.index("### Better for 60 days")
        < text.index(END)
    )
    drawn = picture()
    assert PICTURE.read_text(encoding="utf-8").count("<polyline") == drawn.count("<polyline") == 3
    assert "promoted" in drawn


def test_a_calibration_of_the_benchmark_is_the_one_that_runs() -> None:
    """On the steps before the stream, and no other."""
    calibration, stream = next(gates.calibrated(World(0.9), 1, 500, 100))
    (whole,) = World(0.9).streams(1, 600, gates.SEED)
    assert calibration == calibrate([whole[:500]])
    assert np.array_equal(stream, whole[500:], equal_nan=True)
