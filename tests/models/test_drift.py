"""The loss detectors: what they find, what they don't, and that a restart changes nothing."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models.drift import KEPT_ON, MOST_KEPT, LossDrift, LossState
from models.drift_limits import Drift, DriftLimits
from models.errors import DataError

LIMITS = DriftLimits(calibration_steps=200)
QUIET_STEPS = 380

Floats = NDArray[np.float64]


def errors(steps: int, seed: int = 0, phi: float = 0.7) -> Floats:
    """Stationary AR(1) errors of standard deviation 1."""
    noise = np.random.default_rng(seed).normal(size=steps) * np.sqrt(1 - phi**2)
    made = np.zeros(steps)
    made[0] = noise[0] / np.sqrt(1 - phi**2)
    for t in range(1, steps):
        made[t] = phi * made[t - 1] + noise[t]
    return made


def fed(detectors: LossDrift, losses: Floats) -> list[tuple[int, Drift]]:
    """The drifts that these losses reveal, with the number of the step."""
    return [(step, drift) for step, loss in enumerate(losses.tolist()) for drift in detectors.add(loss)]


@pytest.fixture(scope="module")
def quiet() -> tuple[LossState, tuple[float, ...]]:
    """State and losses of detectors that have seen nothing but quiet."""
    detectors = LossDrift(LIMITS)
    assert fed(detectors, np.abs(errors(QUIET_STEPS))) == []
    return detectors.state, detectors.losses


def restored(quiet: tuple[LossState, tuple[float, ...]]) -> LossDrift:
    """Detectors as they were at the end of the quiet span."""
    return LossDrift(LIMITS, *quiet)


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_errors_that_grow_by_a_factor_are_a_drift(quiet: tuple[LossState, tuple[float, ...]], factor: float) -> None:
    """The drift comes within two hundred steps, names its numbers, and everything begins anew."""
    detectors = restored(quiet)
    grown = np.abs(factor * errors(200, seed=1))
    step, drift = fed(detectors, grown)[0]
    assert step < 150
    assert drift.detector in {"adwin", "page_hinkley"}
    assert drift.statistic > drift.threshold == 1.0
    assert "of the loss has risen" in drift.words
    assert detectors.state.calibration is None
    assert detectors.losses == tuple(grown[step + 1 :].tolist())
    assert detectors.forgotten == QUIET_STEPS + step + 1
    assert detectors.state.seen == QUIET_STEPS + 200


def test_a_constant_that_is_added_is_a_drift_of_the_level(quiet: tuple[LossState, tuple[float, ...]]) -> None:
    """A rise of the level alone is found too, and told with the means before and since."""
    drifts = fed(restored(quiet), np.abs(errors(400, seed=3)) + 0.7)
    assert drifts
    assert "the level of the loss" in drifts[0][1].words


def test_losses_that_fall_are_no_drift(quiet: tuple[LossState, tuple[float, ...]]) -> None:
    """A forecaster that becomes better is left alone."""
    assert fed(restored(quiet), 0.1 * np.abs(errors(1_000, seed=3))) == []


@pytest.mark.parametrize("disaster", [1e3, 1e100, 1e308, float("inf")])
def test_one_disaster_is_no_drift(quiet: tuple[LossState, tuple[float, ...]], disaster: float) -> None:
    """A single loss counts for a bounded amount, however large it is."""
    losses = np.abs(errors(150, seed=4))
    losses[20] = disaster
    assert fed(restored(quiet), losses) == []


@pytest.mark.parametrize("loss", [float("nan"), -0.5])
def test_what_is_no_loss_is_refused(quiet: tuple[LossState, tuple[float, ...]], loss: float) -> None:
    """NaN and negative losses are refused with the cure, and change nothing."""
    detectors = restored(quiet)
    with pytest.raises(DataError, match="leave out a step"):
        detectors.add(loss)
    assert (detectors.state, detectors.losses) == quiet


@pytest.mark.parametrize("value", [0.0, 0.3, 1e100])
def test_losses_that_never_move_are_quiet(value: float) -> None:
    """Constant losses calibrate, raise nothing while they stay, and a drift as soon as they rise for good."""
    detectors = LossDrift(DriftLimits(calibration_steps=100))
    assert fed(detectors, np.full(150, value)) == []
    assert detectors.state.calibration is not None
    if value < 1e100:  # beyond it all losses count alike
        assert fed(detectors, np.full(40, 2 * value + 1.0))


def test_a_span_with_a_jump_is_no_quiet_span() -> None:
    """The older half of it is forgotten, and the rest waits for as many more losses."""
    detectors = LossDrift(LIMITS)
    losses = np.abs(errors(300, seed=5))
    losses[:100] *= 0.02
    fed(detectors, losses[:200])
    assert detectors.state.calibration is None
    assert (detectors.state.restless, detectors.forgotten, len(detectors.losses)) == (1, 100, 100)
    fed(detectors, losses[200:])
    assert detectors.state.calibration is not None


def test_a_restart_at_any_step_changes_nothing() -> None:
    """Detectors that are stored as JSON and restored at each cut raise the same alarms with the same numbers."""
    losses = np.abs(errors(460, seed=6))
    losses[420:] *= 5
    whole = LossDrift(LIMITS)
    expected = [(whole.add(loss), whole.statistics()) for loss in losses.tolist()]
    assert any(drifts for drifts, _ in expected)
    broken = LossDrift(LIMITS)
    found = []
    stored: list[float] = []
    for step, loss in enumerate(losses.tolist()):
        if step in {0, 120, 199, 200, 201, 305, 400, 401, 425, 459}:
            state = msgspec.json.decode(msgspec.json.encode(broken.state), type=LossState)
            assert stored == list(broken.losses)
            broken = LossDrift(LIMITS, state, stored)
        before = broken.forgotten
        found.append((broken.add(loss), broken.statistics()))
        stored = [*stored, loss][broken.forgotten - before :]
    assert found == expected
    assert broken.state == whole.state
    assert len(msgspec.json.encode(whole.state)) < 1_000


def test_the_thresholds_are_made_anew_when_the_quiet_has_doubled(quiet: tuple[LossState, tuple[float, ...]]) -> None:
    """At 400 losses the span of 200 is replaced by all of them."""
    detectors = restored(quiet)
    assert quiet[0].calibration is not None
    assert quiet[0].calibration.steps == 200
    assert fed(detectors, np.abs(errors(QUIET_STEPS + 20))[QUIET_STEPS:]) == []
    assert detectors.state.calibration is not None
    assert detectors.state.calibration.steps == 400
    assert detectors.state.calibration.quiet != quiet[0].calibration.quiet


def test_what_is_kept_is_bounded() -> None:
    """After many quiet losses the newest ones are gone on from, and a restart there changes nothing."""
    detectors = LossDrift(DriftLimits(false_alarms=0.01, calibration_steps=6_000))
    losses = 1.0 + np.random.default_rng(8).random(MOST_KEPT + 500)
    assert fed(detectors, losses[:MOST_KEPT]) == []
    assert detectors.losses == tuple(losses[MOST_KEPT - KEPT_ON : MOST_KEPT].tolist())
    assert detectors.forgotten == MOST_KEPT - KEPT_ON
    again = LossDrift(DriftLimits(), detectors.state, detectors.losses)
    assert again.statistics() == detectors.statistics()
    assert fed(again, losses[MOST_KEPT:]) == fed(detectors, losses[MOST_KEPT:]) == []
    assert again.statistics() == detectors.statistics()


def test_statistics_tell_how_near_an_alarm_is(quiet: tuple[LossState, tuple[float, ...]]) -> None:
    """No threshold while the quiet is being learned; then shares of 1 that grow before the alarm."""
    assert LossDrift(LIMITS).statistics() == {"adwin": (0.0, None), "page_hinkley": (0.0, None)}
    detectors = restored(quiet)
    begun = detectors.statistics()
    assert all(0 <= statistic < threshold == 1.0 for statistic, threshold in begun.values() if threshold)
    reached = begun
    for loss in np.abs(3 * errors(200, seed=7)).tolist():
        now = detectors.statistics()
        if detectors.add(loss):
            break
        reached = now
    assert reached["page_hinkley"][0] > 2 * begun["page_hinkley"][0]


def test_state_that_does_not_fit_is_refused(quiet: tuple[LossState, tuple[float, ...]]) -> None:
    """Another format, or losses that are gone, can't be restored."""
    state, losses = quiet
    with pytest.raises(DataError, match="format 2"):
        LossDrift(LIMITS, msgspec.structs.replace(state, format=2), losses)
    with pytest.raises(DataError, match="made of 200 losses, 100 are kept"):
        LossDrift(LIMITS, state, losses[:100])
