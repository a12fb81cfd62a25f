"""The published recipe for the damped sine problem in plain Keras; the door to Keras.

A network of the sizes of the book, trained as there: MAE, Adam as it comes, batches of 10, one epoch.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from worker.damped_waves import HORIZON, SEEN, UNITS, Trained

if TYPE_CHECKING:
    from models.architecture import Float32

BATCH = 10


def warm_up() -> None:
    """Run one operation, so that what starts with the first one has started."""
    np.asarray(keras.ops.zeros(1))


class _FirstStep(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Notes when the first step was done: what came before it is building and compiling."""

    def __init__(self) -> None:
        super().__init__()
        self.done_s = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called after each step."""
        del logs
        if batch == 0:
            self.done_s = time.perf_counter()


def train_by_recipe(samples: Float32, test: Float32, seed: int) -> Trained:
    """The recipe on samples `(N, 55)`; nothing of `test` is looked at before the training has ended.

    The weights' own seeds are given: those that Keras would draw come from Python's generator, which other threads
    of the process draw from too.
    """
    keras.utils.set_random_seed(seed)
    first = _FirstStep()
    began_s, worked_s = time.perf_counter(), time.process_time()
    below, top = UNITS
    network = keras.Sequential(
        [
            keras.layers.Input((SEEN, 1)),
            keras.layers.LSTM(below, return_sequences=True, **_starts(seed, 1)),
            keras.layers.LSTM(top, **_starts(seed, 2)),
            keras.layers.Dense(HORIZON, kernel_initializer=keras.initializers.GlorotUniform(_drawn(seed, 3))),
        ]
    )
    network.compile(loss="mae", optimizer="adam")
    network.fit(samples[:, :SEEN, None], samples[:, SEEN:], batch_size=BATCH, epochs=1, verbose=0, callbacks=[first])
    ended_s, cpu_s = time.perf_counter(), time.process_time() - worked_s
    steps = -(-len(samples) // BATCH)
    return Trained(
        forecasts=np.asarray(network.predict(test[:, :SEEN, None], verbose=0), np.float32),
        seconds=ended_s - began_s,
        steady_s=(ended_s - first.done_s) * steps / (steps - 1),
        cpu_s=cpu_s,
        steps=steps,
        parameters=int(network.count_params()),
    )


def _starts(seed: int, layer: int) -> dict[str, Any]:
    """Keras' own starts of an LSTM's weights."""
    return {
        "kernel_initializer": keras.initializers.GlorotUniform(_drawn(seed, layer, 0)),
        "recurrent_initializer": keras.initializers.Orthogonal(seed=_drawn(seed, layer, 1)),
    }


def _drawn(*of: int) -> int:
    """A seed by what it is for."""
    return int(np.random.SeedSequence(of).generate_state(1)[0] >> 1)
