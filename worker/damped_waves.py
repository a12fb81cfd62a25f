"""The damped sine problem: its waves, its published figure, and what a training on it came to.

J. Brownlee, "Long Short-Term Memory Networks With Python" (2017), the chapter on stacked LSTMs: of a sine wave that
dies away, 50 steps are seen and the next 5 are to be said. Period and decay are drawn anew for each wave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from models.architecture import Float32

SEEN = 50  # steps
HORIZON = 5  # steps
PERIODS = (10, 20)  # steps, both included, whole numbers
DECAYS = (0.01, 0.1)  # a step
SAMPLES = 10_000
TEST_SAMPLES = 1_000
UNITS = (20, 20)
PUBLISHED_MAE = 0.0217
STREAM = 55  # of draws: none of them was looked at when the settings of the training were chosen


@dataclass(frozen=True)
class Trained:
    """A network after its training: what it says of the test samples, `(M, 5)`, and what the training cost.

    `seconds` are from its start to its end, building and compiling included; `steady_s` is what the same steps take
    once everything is compiled; `cpu_s` is what all threads of the process worked meanwhile.
    """

    forecasts: Float32
    seconds: float
    steady_s: float
    cpu_s: float
    steps: int
    parameters: int


def draw_waves(seed: int, part: int, count: int) -> Float32:
    """So many waves, `(count, 55)`; other parts of the same seed are other draws."""
    rng = np.random.default_rng([STREAM, seed, part])
    period = rng.integers(PERIODS[0], PERIODS[1], count, endpoint=True)[:, None]
    decay = rng.uniform(*DECAYS, count)[:, None]
    step = np.arange(SEEN + HORIZON)
    waves: Float32 = (0.5 + 0.5 * np.sin(2.0 * np.pi * step / period) * np.exp(-decay * step)).astype(np.float32)
    return waves


def samples_of(seed: int, training: int) -> tuple[Float32, Float32]:
    """What is trained on and, drawn apart from it, what errors are measured on; both `(·, 55)`."""
    return draw_waves(seed, 0, training), draw_waves(seed, 1, TEST_SAMPLES)


def mean_absolute_error(forecasts: Float32, waves: Float32) -> float:
    """The mean over samples and leads, in the waves' own units."""
    return float(np.abs(forecasts.astype(np.float64) - waves[:, SEEN:]).mean())
