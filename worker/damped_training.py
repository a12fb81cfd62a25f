"""Killick's training on the damped sine problem: the network of the recipe, its samples and labels, each used once too.

What is other than in the recipe: values are standardised, batches are larger, the rate starts ten times as high and
falls. On one other seed Adam's usual rate gave .030 instead of .0030, values as they are .039; on three, labels at
every step of a wave gave .0037 instead of .0027. The steps are those of `models.training`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from models.architecture import Architecture, Inputs
from models.learning import TrainingSettings, rate_at
from models.network import Network
from models.sequences import Lanes, Sequences
from models.training import Trainer
from models.weights import fresh_weights
from worker.damped_waves import HORIZON, SEEN, UNITS, Trained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.architecture import Float32
    from models.sequences import Batch, Ints

BATCH = 64  # waves
RATE = 1e-2
PARTS = 20  # of the one pass over the samples: the rate falls from each to the next


def architecture() -> Architecture:
    """Two layers of 20 and a head on the upper one alone; one input a step, the value."""
    return Architecture(
        units=UNITS,
        horizon=HORIZON,
        form="plain",
        features=("wave",),
        target="wave",
        inputs=Inputs(level=True, delta=False, lags=0, calendar=False, missing=False),
        gain=(1.0,) * HORIZON,
        interval_ms=1,
        period_steps=1,
        head_inputs=False,
    )


def sequences_of_waves(waves: Float32, level: float, scale: float) -> Sequences:
    """The waves `(N, 55)` as series of 50 steps, the last with the next five values as its labels."""
    z = (waves - np.float32(level)) / np.float32(scale)
    shape = (len(waves), SEEN)
    fresh = np.zeros(shape, np.bool_)
    fresh[:, 0] = True
    known = np.zeros((*shape, HORIZON), np.bool_)
    known[:, -1] = True
    return Sequences(
        inputs=z[:, :SEEN, None],
        targets=np.stack([z[:, k : k + SEEN] for k in range(1, HORIZON + 1)], axis=2),
        known=known,
        active=np.ones(shape, np.bool_),
        fresh=fresh,
        first_step=0,
    )


def train_as_killick(samples: Float32, test: Float32, seed: int) -> Trained:
    """One pass over samples `(N, 55)`; nothing of `test` is looked at before the training has ended."""
    began_s, worked_s = time.perf_counter(), time.process_time()
    network = architecture()
    level, scale = float(samples.mean()), float(samples.std())
    sequences = sequences_of_waves(samples, level, scale)
    settings = TrainingSettings(loss="mae", rate=RATE, schedule="cosine", epochs=PARTS, chunk=SEEN, seed=seed)
    trainer = Trainer(network, sequences, settings, fresh_weights(network, seed))
    clock = _Clock()
    for part, waves in enumerate(parts_of(len(samples), seed), 1):
        tour = clock.watched(_tour(sequences, waves))
        trainer.epoch(tour, trainer.zero_state(len(samples)), rate_at(settings, part))
    ended_s, cpu_s = time.perf_counter(), time.process_time() - worked_s
    steps = trainer.moments.steps
    outputs = _last_outputs(network, trainer, sequences_of_waves(test, level, scale))
    return Trained(
        forecasts=np.float32(level) + np.float32(scale) * outputs,
        seconds=ended_s - began_s,
        steady_s=(ended_s - clock.first_done_s) * steps / (steps - 1),
        cpu_s=cpu_s,
        steps=steps,
        parameters=network.parameter_count,
    )


class _Clock:
    """Notes when the first step of a training was done: when the batch after it is asked for."""

    def __init__(self) -> None:
        self.first_done_s = 0.0
        self._given = 0

    def watched(self, tour: Iterator[tuple[Batch, bool]]) -> Iterator[tuple[Batch, bool]]:
        """The same tour."""
        for one in tour:
            if self._given == 1:
                self.first_done_s = time.perf_counter()
            self._given += 1
            yield one


def parts_of(count: int, seed: int) -> list[list[Ints]]:
    """The waves in batches, each wave in one of them, and the batches in parts."""
    order = np.random.default_rng(seed).permutation(count)
    batches = np.array_split(order, -(-count // BATCH))
    return [[batches[i] for i in which] for which in np.array_split(np.arange(len(batches)), PARTS) if len(which)]


def _tour(sequences: Sequences, batches: list[Ints]) -> Iterator[tuple[Batch, bool]]:
    """Whole waves, all of them to be trained on; no label lies behind a wave's 55 steps."""
    count = len(sequences.active)
    start = np.zeros(count, np.int64)
    lanes = Lanes(np.arange(count), start, start + SEEN, start, start + SEEN + HORIZON)
    for waves in batches:
        yield lanes.batch(sequences, waves, 0, SEEN), True


def _last_outputs(network: Architecture, trainer: Trainer, sequences: Sequences) -> Float32:
    """What the network says after the last step seen, `(N, 5)`, by the function that forecasts in a stream."""
    scanner = Network(network, trainer.moments.as_arrays(network))
    x = np.ascontiguousarray(sequences.inputs.transpose(1, 0, 2))  # (50, N, 1)
    outputs, _ = scanner.scan(x, np.ascontiguousarray(sequences.active.T), trainer.zero_state(x.shape[1]))
    last: Float32 = outputs[-1]
    return last
