"""What a quiet stream of losses looks like, and how loud the detectors must be called before they count.

A loss is turned into two readings. The *level* is its distance from the quiet mean in quiet standard deviations.
The *scatter* is the amount by which the loss misses what the one before let expect, in quiet means of that amount:

    z_t = (L_t - mean) / sd          r_t = z_t - phi · z_{t-1}          scatter_t = |r_t| / mean|r|

Where errors grow by a factor, both rise; the scatter hardly depends on its own past, so it tells in a third of the
time that the level needs. Where a constant is added to the errors only the level rises. Both are bounded, so that one
disaster is no drift. Losses whose largest few outweigh the rest (squared errors) are read by their roots.

The thresholds come from simulated quiet streams: a stationary bootstrap of the quiet readings (Politis and Romano 1994,
JASA 89, 1303), long blocks of them joined at random, so that their autocorrelation and their cycles stay. Each detector
runs over them, and its threshold is where alarms come at the wanted rate. A short quiet span knows itself badly: the
thresholds are set higher by a margin that falls as the span grows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.drift_detectors import ADWIN_CLOCK, ADWIN_LEAST, ALLOWANCE, Thresholds, evidence_of

if TYPE_CHECKING:
    from collections.abc import Callable

BOUND = 6.0  # readings beyond are cut: sd of the level, means of the scatter
LARGEST = 1e100  # a loss beyond it counts as this much: squares stay finite

SEED = 20_130_101
PH_STREAMS, ADWIN_STREAMS = 512, 192
WATCHED_STEPS = 2_000  # of a simulated stream after its quiet span
MOST_QUIET = 672  # steps of a simulated quiet span: a longer one moves the running means no more
MARGIN_STEPS = 500  # what a short quiet span does not know of its own thresholds; see ADR 8
APART = 4.0  # standard deviations by which two parts of a quiet span may differ
SKEWED = 1.4  # beyond this skewness a loss is read by its root
BLOCK_STEPS = 48  # mean length of the bootstrap's blocks
WINDOW_EVIDENCE = 1.1  # log10(2 ln W) for windows of hundreds of steps
LEAST_EVIDENCE, MOST_EVIDENCE = 0.1, 300.0  # log10(1/delta) of ADWIN
LEAST_SUM = 6.0  # a threshold of Page-Hinkley below it would make two steps a drift
COUNTED_ALARMS = 8.0  # a rate that so few simulated alarms tell is drawn out from more frequent ones

Floats = NDArray[np.float64]


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """How losses are read, or their roots: the quiet mean, standard deviation, dependence on the last, mean miss."""

    rooted: bool
    mean: float
    sd: float
    phi: float
    miss: float

    @classmethod
    def of(cls, losses: Floats) -> Quiet:
        """The quiet form of `(T,)` losses; a spread that is nothing counts as a millionth of the mean."""
        rooted = _skew(losses) > SKEWED
        x = np.sqrt(losses) if rooted else losses
        mean = float(x.mean())
        sd = max(float(x.std()), 1e-6 * mean, 1e-12)
        z = (x - mean) / sd
        past = float(z[:-1] @ z[:-1])
        phi = min(max(float(z[1:] @ z[:-1]) / past, 0.0), 0.99) if past > 0 else 0.0
        miss = float(np.abs(z[1:] - phi * z[:-1]).mean())
        return cls(rooted=rooted, mean=mean, sd=sd, phi=phi, miss=max(miss, 1e-3))

    def readings(self, losses: Floats, before: float | None = None) -> Floats:
        """Level and scatter of `(T,)` losses, `(T, 2)`; `before` is the loss before the first, else its own equal."""
        known = losses if before is None else np.concatenate([[before], losses])
        z = ((np.sqrt(known) if self.rooted else known) - self.mean) / self.sd
        last = z[:-1] if before is not None else np.concatenate([z[:1], z[:-1]])
        z = z[len(known) - len(losses) :]
        misses = np.abs(z - self.phi * last) / self.miss
        return np.stack([np.clip(z, -BOUND, BOUND), np.minimum(misses, BOUND)], axis=1)


def _skew(x: Floats) -> float:
    """The skewness of `(T,)` numbers; 0 where they don't differ."""
    x = x / max(float(x.max()), 1e-300)  # so that no cube is lost or infinite
    sd = float(x.std())
    return float(((x - x.mean()) ** 3).mean()) / sd**3 if sd > 1e-6 else 0.0


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What a quiet span told: how its losses are read, and when the readings are loud."""

    steps: int
    quiet: Quiet
    thresholds: Thresholds

    @classmethod
    def of(cls, losses: Floats, per_step: float) -> Calibration:
        """The calibration that `(T,)` quiet losses give, at `per_step` false alarms a step."""
        quiet = Quiet.of(losses)
        return cls(steps=len(losses), quiet=quiet, thresholds=thresholds_of(quiet.readings(losses), per_step))

    def was_quiet(self, losses: Floats) -> bool:
        """Whether level and scatter of its own losses stayed where they were: no cut parts two different means."""
        return all(_stays(reading) for reading in self.quiet.readings(losses).T)


def _stays(reading: Floats) -> bool:
    """Whether the means `(T,)` before and after a quarter, the half and three quarters differ no more than by chance.

    Chance is that of an AR(1) series: the variance of a mean of n steps is sd² / n · (1 + phi) / (1 - phi).
    """
    for cut in (len(reading) // 4, len(reading) // 2, 3 * len(reading) // 4):
        parts = reading[:cut], reading[cut:]
        rest = np.concatenate([part - part.mean() for part in parts])
        total = float(rest @ rest)
        phi = min(max(float(rest[1:] @ rest[:-1]) / total, 0.0), 0.99) if total > 0 else 0.0
        chance = total / len(rest) * (1.0 + phi) / (1.0 - phi) * (1.0 / cut + 1.0 / (len(rest) - cut))
        if (parts[0].mean() - parts[1].mean()) ** 2 > APART**2 * chance + 1e-12:
            return False
    return True


def thresholds_of(readings: Floats, per_step: float) -> Thresholds:
    """Thresholds at which quiet readings `(T, 2)` raise `per_step` alarms a step, all four detectors together."""
    rng = np.random.default_rng(SEED)
    quiet, each = min(len(readings), MOST_QUIET), per_step / 4.0
    streams = quiet_streams(readings, PH_STREAMS, quiet + WATCHED_STEPS, rng)  # (N, T, 2)
    sums = [_threshold(highest_sums(streams[:, :, r]), quiet, each) for r in range(2)]
    evidence = [_threshold(highest_evidence(streams[:ADWIN_STREAMS, :, r]), quiet, each) for r in range(2)]
    margin = 1.0 + MARGIN_STEPS / len(readings)
    return Thresholds(
        page_hinkley=(max(sums[0] * margin, LEAST_SUM), max(sums[1] * margin, LEAST_SUM)),
        adwin=(_widened(evidence[0], margin), _widened(evidence[1], margin)),
    )


def _widened(evidence: float, margin: float) -> float:
    """ADWIN's evidence with the margin on the whole exponent of its bound, ln(2 ln W / delta), in tens."""
    wider = (evidence + WINDOW_EVIDENCE) * margin - WINDOW_EVIDENCE
    return min(max(wider, LEAST_EVIDENCE), MOST_EVIDENCE)


def quiet_streams(readings: Floats, streams: int, steps: int, rng: np.random.Generator) -> Floats:
    """Simulated quiet streams `(streams, steps, 2)`: blocks of the readings `(T, 2)`, of random length, end to end."""
    length = len(readings)
    begins = rng.random((streams, steps)) < 1.0 / min(BLOCK_STEPS, length)
    begins[:, 0] = True
    since = np.arange(steps) - np.maximum.accumulate(np.where(begins, np.arange(steps), 0), axis=1)
    drawn = rng.integers(length, size=(streams, steps))
    first = np.take_along_axis(drawn, np.arange(steps) - since, axis=1)
    streams_of: Floats = readings[(first + since) % length]
    return streams_of


def highest_sums(streams: Floats) -> Floats:
    """Page-Hinkley's sum over its least so far, the highest up to each step, `(N, T)` from readings `(N, T)`."""
    count = np.arange(1, streams.shape[1] + 1)
    rises = streams - np.cumsum(streams, axis=1) / count - ALLOWANCE
    total = np.zeros(len(streams))
    least = np.full(len(streams), np.inf)
    found = np.empty_like(streams)
    for t in range(streams.shape[1]):
        total = total + rises[:, t]
        least = np.minimum(least, total)
        found[:, t] = total - least
    return np.asarray(np.maximum.accumulate(found, axis=1))


def highest_evidence(streams: Floats) -> Floats:
    """ADWIN's evidence of a rise, the highest up to each step, `(N, T)` from readings `(N, T)`.

    As `drift_detectors.evidence`, in columns: at the steps at which ADWIN looks, over cuts that are as far apart as its
    buckets, of windows that were never cut.
    """
    steps = streams.shape[1]
    sums, squares = (np.pad(np.cumsum(x, axis=1), ((0, 0), (1, 0))) for x in (streams, streams**2))
    cuts = np.unique((ADWIN_LEAST * 2.0 ** (np.arange(0, 5 * math.log2(steps)) / 5)).astype(np.int64))
    found = np.zeros_like(streams)
    for width in range(2 * ADWIN_LEAST, steps + 1):
        if width % ADWIN_CLOCK:
            continue
        n1 = cuts[cuts <= width - ADWIN_LEAST]  # of the newer part
        head, total = sums[:, width - n1], sums[:, [width]]
        variance = squares[:, [width]] / width - (total / width) ** 2
        found[:, width - 1] = evidence_of((total - head) / n1 - head / (width - n1), variance, width, n1).max(axis=1)
    return np.asarray(np.maximum.accumulate(found, axis=1))


def _threshold(highest: Floats, quiet: int, per_step: float) -> float:
    """The threshold at which the first alarms of the watched steps come `per_step` a step."""
    top = highest[:, -1]

    def rate(threshold: float) -> float:
        alarmed = top > threshold
        began = np.argmax(highest > threshold, axis=1)
        watched = np.where(alarmed, np.maximum(began - quiet + 1, 0), highest.shape[1] - quiet)
        count = int((alarmed & (began >= quiet)).sum())
        return count / max(int(watched.sum()), 1)

    least = COUNTED_ALARMS / (len(highest) * (highest.shape[1] - quiet))
    return _where(rate, per_step, (0.0, float(top.max())), least)


def _where(rate: Callable[[float], float], wanted: float, between: tuple[float, float], least: float) -> float:
    """Where a falling rate of alarms reaches the wanted one: by halving; below `least` drawn out exponentially.

    The rate of first passages of a sum beyond a high threshold falls exponentially with it (Siegmund 1985,
    Sequential Analysis, ch. 2), so two thresholds tell the rest.
    """
    if wanted >= least:
        return _halved(rate, wanted, between)
    near = _halved(rate, 8.0 * least, between)
    far = _halved(rate, least, (near, between[1]))
    return far + (far - near) / math.log(8.0) * math.log(least / wanted)


def _halved(rate: Callable[[float], float], wanted: float, between: tuple[float, float]) -> float:
    low, high = between
    for _ in range(12):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rate(middle) > wanted else (low, middle)
    return high
