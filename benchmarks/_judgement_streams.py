"""Simulated streams of loss differences, for the benchmark of the gate.

The difference of one series at one step is AR(phi); its innovations are shared half and half with the other series
of the stream. A fifth of the observations is missing. What the gate is fed is the mean over the series of a step that
were observed, as the monitor makes it; a step without any has no difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

if TYPE_CHECKING:
    from collections.abc import Iterator

Floats = NDArray[np.float64]
Tails = Literal["normal", "heavy", "disasters", "slow part"]

SHARED = 0.5  # of the innovations' variance: the same in all series of a step
PRESENT = 0.8  # of the observations
SPIN_UP = 300  # steps before the first one, so that the series is stationary
CELLS = 1 << 20  # numbers that are held at once: they stay in the cache
DISASTER_SHARE, DISASTER_SIZE = 0.002, 50.0  # of the steps; standard deviations, of either version
SLOW_PHI, SLOW_SIZE = 0.97, 0.3  # the part of a day or two under the noise, and its standard deviation


@dataclass(frozen=True)
class World:
    """What a stream of differences is like where neither version is better."""

    phi: float
    series: int = 1
    tails: Tails = "normal"

    def streams(self, count: int, steps: int, seed: int) -> Iterator[Floats]:
        """`count` streams `(steps,)` of standard deviation 1 (disasters not counted) with a NaN where there is none."""
        at_once = max(1, CELLS // ((steps + SPIN_UP) * self.series))
        for begin in range(0, count, at_once):
            yield from self._some(min(at_once, count - begin), steps, np.random.default_rng([seed, begin]))

    def _some(self, count: int, steps: int, rng: np.random.Generator) -> Floats:
        if self.series == 1:
            differences = self._drawn(rng, (count, steps)).astype(np.float64)
        else:
            shape = (count, self.series, steps)
            own = self._drawn(rng, shape) * np.float32(math.sqrt(1.0 - SHARED))
            shared = self._drawn(rng, (count, 1, steps)) * np.float32(math.sqrt(SHARED))
            present = rng.random(shape, dtype=np.float32) < PRESENT
            number = present.sum(axis=1)
            total = ((own + shared) * present).sum(axis=1)
            whole = SHARED + (1.0 - SHARED) / (PRESENT * self.series)
            differences = np.where(number, total / number.clip(1), np.nan) / math.sqrt(whole)
        if self.tails == "disasters":
            struck = rng.random((count, steps)) < DISASTER_SHARE
            differences = differences + struck * DISASTER_SIZE * rng.choice([-1.0, 1.0], (count, steps))
        if self.tails == "slow part":
            slow = autoregression(rng, (count, steps), SLOW_PHI, "normal")
            differences = (differences + SLOW_SIZE * slow) / math.sqrt(1.0 + SLOW_SIZE**2)
        if self.series == 1:
            differences = np.where(rng.random((count, steps)) < PRESENT, differences, np.nan)
        return np.asarray(differences, np.float64)

    def _drawn(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return autoregression(rng, shape, self.phi, self.tails)


def autoregression(rng: np.random.Generator, shape: tuple[int, ...], phi: float, tails: Tails) -> NDArray[np.float32]:
    """AR(phi) numbers of variance 1 along the last axis; heavy tails are those of Student's t with 3 degrees."""
    drawn = (*shape[:-1], shape[-1] + SPIN_UP)
    if tails == "heavy":
        noise = (rng.standard_t(3.0, drawn) / math.sqrt(3.0)).astype(np.float32)
    else:
        noise = rng.standard_normal(drawn, np.float32)
    noise *= np.float32(math.sqrt(1.0 - phi**2))
    if phi == 0.0:
        return noise[..., SPIN_UP:]
    weights = np.array([1.0], np.float32), np.array([1.0, -phi], np.float32)
    return np.asarray(lfilter(*weights, noise, axis=-1)[..., SPIN_UP:], np.float32)


def struck(quiet: Floats, gain: float, share: float, mean: float, rng: np.random.Generator) -> Floats:
    """A quiet stream `(T,)` of a candidate that gains on most steps and is worse by the `mean` for its disasters.

    A `share` of the steps is a disaster, of exponential size.
    """
    size = (gain - mean) / share
    hit = rng.random(len(quiet)) < share
    return np.asarray(quiet + gain - hit * rng.exponential(size, len(quiet)))


def alternating(quiet: Floats, gain: float, half_period: int, rng: np.random.Generator) -> Floats:
    """A quiet stream `(T,)` of a candidate that gains for a season, and loses as much in the next."""
    phase = rng.integers(2 * half_period)
    better = (np.arange(len(quiet)) + phase) // half_period % 2 == 0
    return np.asarray(quiet + np.where(better, gain, -gain))
