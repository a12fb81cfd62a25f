"""Thresholds from a quiet span: readings, simulated streams, and the rate of alarms that comes out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from models.drift_calibration import Calibration, Quiet, highest_evidence, highest_sums, quiet_streams, thresholds_of
from models.drift_detectors import Detectors, PageHinkley, Thresholds, adwin, evidence


def ar(steps: int, phi: float, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Stationary AR(1) errors of standard deviation 1, by scipy's filter."""
    noise = np.random.default_rng(seed).normal(size=steps + 200) * np.sqrt(1 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise)[200:])


def test_readings_of_a_quiet_span_have_unit_spread_and_unit_mean() -> None:
    """The level has mean 0 and standard deviation 1, the scatter mean 1; phi is that of numpy's regression."""
    losses = 5.0 + ar(2_000, 0.8, 1)
    quiet = Quiet.of(losses)
    level, scatter = quiet.readings(losses).T
    assert abs(level.mean()) < 1e-9
    assert level.std() == pytest.approx(1.0, abs=1e-3)
    assert scatter.mean() == pytest.approx(1.0, abs=2e-3)
    z = (losses - losses.mean()) / losses.std()
    assert quiet.phi == pytest.approx(np.linalg.lstsq(z[:-1, None], z[1:])[0][0], rel=1e-9)


def test_a_loss_is_read_alike_alone_and_in_a_row() -> None:
    """Bit for bit, with the loss before it given; this is what a restart rests on."""
    for losses in (np.abs(ar(300, 0.9, 2)), ar(300, 0.9, 2) ** 2):
        quiet = Quiet.of(losses)
        row = quiet.readings(losses)
        alone = [quiet.readings(losses[t : t + 1], before=losses[t - 1])[0] for t in range(1, 300)]
        assert np.array_equal(row[1:], alone)


def test_squared_errors_are_read_by_their_roots() -> None:
    """So squares and amounts of the same errors get the same thresholds."""
    errors = ar(400, 0.9, 3)
    squares, amounts = Calibration.of(errors**2, 2e-4), Calibration.of(np.abs(errors), 2e-4)
    assert squares.quiet.rooted
    assert not amounts.quiet.rooted
    assert squares.thresholds == amounts.thresholds


def test_simulated_streams_keep_autocorrelation_and_mean() -> None:
    """Blocks are long enough that neighbours stay as alike as they were."""
    readings = Quiet.of(5 + ar(3_000, 0.9, 4)).readings(5 + ar(3_000, 0.9, 4))
    streams = quiet_streams(readings, 50, 2_000, np.random.default_rng(0))[:, :, 0]
    assert streams.mean() == pytest.approx(0.0, abs=0.1)
    assert np.corrcoef(streams[:, 1:].ravel(), streams[:, :-1].ravel())[0, 1] == pytest.approx(0.88, abs=0.03)


def test_the_sum_of_the_simulation_is_that_of_river() -> None:
    """Page-Hinkley in columns goes step by step as river's detector does."""
    x = np.random.default_rng(5).normal(size=500) + np.r_[np.zeros(300), np.full(200, 0.5)]
    detector = PageHinkley(1e9)
    totals = []
    for value in x.tolist():
        detector.update(value)  # type: ignore[no-untyped-call]
        totals.append(detector.total)
    assert np.allclose(highest_sums(x[None])[0], np.maximum.accumulate(totals), rtol=1e-9, atol=1e-9)


def test_evidence_is_the_delta_at_which_river_cuts() -> None:
    """River's ADWIN cuts a window that rose at a delta above 10^-evidence, and not at one well below."""
    rng = np.random.default_rng(6)
    x = np.r_[rng.normal(size=128), rng.normal(size=64) + 1.5]
    reached, since = evidence(x)
    assert reached > 3
    assert abs(since - 64) < 10

    def cuts(at: float) -> bool:
        """Whether river cuts when it looks for the first time, at the last step."""
        detector = adwin(at)
        detector.clock, detector.grace_period = len(x), 10
        detector._reset()  # type: ignore[no-untyped-call]
        for value in x.tolist():
            detector.update(value)  # type: ignore[no-untyped-call]
        return bool(detector.drift_detected)

    assert cuts(0.85 * reached)
    assert not cuts(1.01 * reached)


def test_the_evidence_of_the_simulation_tells_when_river_alarms() -> None:
    """In columns and without buckets, but at most streams the first alarm is river's within two looks."""
    rng = np.random.default_rng(7)
    streams = rng.normal(size=(40, 600))
    streams[:, 400:] += 1.0
    highest = highest_evidence(streams)
    apart = []
    for stream, reached in zip(streams, highest, strict=True):
        detectors = Detectors(Thresholds(page_hinkley=(1e9, 1e9), adwin=(6.0, 6.0)))
        river = next((t for t, x in enumerate(stream.tolist()) if detectors.add([x, 0.0])), 600)
        apart.append(river - int(np.argmax(reached > 6.0)))
    assert sum(abs(steps) <= 16 for steps in apart) >= 30
    assert abs(np.median(apart)) <= 8


def test_only_rises_count() -> None:
    """ADWIN cuts its window at a fall too; that is no alarm, and neither is a rise within the allowance."""
    rng = np.random.default_rng(7)

    def alarms(change: float, steps: int) -> int:
        detectors = Detectors(Thresholds(page_hinkley=(1e9, 1e9), adwin=(3.0, 3.0)))
        stream = rng.normal(size=2 * steps) + np.repeat([0.0, change], steps)
        return sum(len(detectors.add([x, 0.0])) for x in stream.tolist())

    assert alarms(-3.0, 200) == 0
    assert alarms(0.15, 8_000) == 0
    assert alarms(3.0, 200) > 0


def test_a_lower_rate_asks_for_higher_thresholds_beyond_what_is_simulated() -> None:
    """Also at rates of which the simulation sees no alarm; the same losses give the same thresholds."""
    losses = np.abs(ar(400, 0.9, 8))
    readings = Quiet.of(losses).readings(losses)
    found = [thresholds_of(readings, rate / 1_000) for rate in (20.0, 0.2, 0.0002)]
    for detector in ("page_hinkley", "adwin"):
        for reading in range(2):
            rising = [getattr(thresholds, detector)[reading] for thresholds in found]
            assert rising == sorted(rising)
            assert rising[2] > 1.2 * rising[0]
    assert thresholds_of(readings, 0.0002) == found[1]


def test_false_alarms_come_at_the_rate_that_was_asked_for() -> None:
    """Calibrated on one long quiet span, fresh quiet streams raise about the alarms that were allowed."""
    wanted = 8e-3  # all four; each a quarter
    calibration = Calibration.of(np.abs(ar(6_000, 0.6, 9)), wanted)
    for reading in range(2):
        alarms = steps = 0
        threshold = calibration.thresholds.page_hinkley[reading]
        for seed in range(60):
            fresh = calibration.quiet.readings(np.abs(ar(672 + 1_000, 0.6, 100 + seed)))[:, reading]
            beyond = highest_sums(fresh[None])[0] > threshold
            if not beyond[671]:
                alarms += bool(beyond.any())
                steps += int(np.argmax(beyond)) - 671 if beyond.any() else 1_000
        assert 0.3 < (alarms / steps) / (wanted / 4) < 2.0
