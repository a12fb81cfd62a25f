"""Seconds of one epoch of fine-tuning over 30 days of ETTm1: killick's training beside plain `keras.Model.fit`.

Both start from the same weights, walk the same steps and train on the same labels with the same loss, optimiser and
length of back-propagation. Keras: `LSTM(stateful=True)`, the 7 series a batch, one chunk after the other. Killick: the
windows of an update, many of them side by side, each with a burn-in in front of it. They take turns in one process,
compiled beforehand. An epoch of Keras takes more, smaller steps of the gradient than one of killick: so the loss that
each ends with is told too, and how long each takes until its loss is that of Keras after its first epoch.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks._ettm1 import (
    DAY_ROWS,
    ROWS,
    architecture_of,
    file_of,
    history_of,
    keras_model,
    parser_of,
    settings_of,
    weights_of,
)

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from models.architecture import Architecture, Weights
    from models.sequences import Sequences
    from models.training import Trainer

MOST_EPOCHS = 30  # of killick, until its loss is that of Keras after one


class Epoch(NamedTuple):
    """What an epoch took and came to."""

    wall_s: float
    cpu_s: float
    steps: int  # of the gradient
    labels: int
    loss: float  # afterwards, over the same days


def main() -> int:
    """Print a table, or with --json one object."""
    parser = parser_of(__doc__)
    parser.add_argument("--days", type=int, default=30, help="days to train on (default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=48, help="steps of back-propagation (default: %(default)s)")
    words = parser.parse_args()
    path = file_of(words)
    if path is None:
        return 2
    told = measured(path, words)
    if words.json:
        print(json.dumps(told))
        return 0
    print(f"{words.days} days of {told['series']} series, {words.units} units, H = {words.horizon}")
    print(f"{'':<10} {'seconds':>8} {'of a core':>10} {'steps':>6} {'labels':>9} {'loss after':>11}")
    for name in ("killick", "keras"):
        row = told[name]
        print(
            f"{name:<10} {row['wall_s']:>8} {row['cpu_s']:>10} {row['steps']:>6} {row['labels']:>9,} {row['loss']:>11}"
        )
    print(f"an epoch is {told['ratio']} times as fast on the clock, {told['cpu_ratio']} times in processor time;")
    print(f"loss before: {told['loss_before']}; killick comes to that of Keras after {told['epochs_to_equal']} epochs")
    return 0


def measured(path: Path, words: argparse.Namespace) -> dict[str, Any]:
    """Medians over the turns, and their ratios."""
    from worker.quiet import start_tensorflow

    start_tensorflow(words.threads)
    settings = settings_of(tuple(words.units), words.horizon, words.threads)
    architecture, sequences = _sequences(path, settings, words.days)
    contest = Contest(architecture, sequences, words.days * DAY_ROWS, words.chunk)
    found: dict[str, list[Epoch]] = {"killick": [], "keras": []}
    contest.killick()
    contest.keras()
    for _ in range(words.turns):
        found["killick"].append(contest.killick())
        found["keras"].append(contest.keras())
    told: dict[str, Any] = {"series": len(sequences.active), "loss_before": round(contest.loss(contest.start), 4)}
    for name, epochs in found.items():
        middle = {key: statistics.median(getattr(one, key) for one in epochs) for key in Epoch._fields}
        told[name] = {**{k: int(middle[k]) for k in ("steps", "labels")}, "loss": round(middle["loss"], 4)}
        told[name] |= {key: round(middle[key], 3) for key in ("wall_s", "cpu_s")}
    told["ratio"] = round(told["keras"]["wall_s"] / told["killick"]["wall_s"], 1)
    told["cpu_ratio"] = round(told["keras"]["cpu_s"] / told["killick"]["cpu_s"], 1)
    told["epochs_to_equal"] = contest.epochs_to(told["keras"]["loss"])
    return told


class Contest:
    """One epoch from the same weights, by the one and by the other, over the last `span` steps that have all labels."""

    def __init__(self, architecture: Architecture, sequences: Sequences, span: int, chunk: int) -> None:
        from models.learning import TrainingSettings

        self.start = weights_of(architecture)
        self._architecture, self._sequences = architecture, sequences
        self._end = sequences.steps - architecture.horizon  # every label of every step is known
        self._begin = self._end - span
        self._settings = TrainingSettings(chunk=chunk)
        self._steps = span // chunk * chunk
        self._keras = self._compiled()

    def killick(self) -> Epoch:
        """An epoch over windows, as an update walks them."""
        trainer = self._trainer(self.start)
        cpu, wall = time.process_time(), time.perf_counter()
        labels = self._epoch(trainer, np.random.default_rng(0))
        took = (time.perf_counter() - wall, time.process_time() - cpu)
        weights = trainer.moments.as_arrays(self._architecture)
        return Epoch(*took, trainer.moments.steps, labels, self.loss(weights))

    def keras(self) -> Epoch:
        """An epoch of `Model.fit`; its state begins at zero."""
        import keras

        model, chunk, series = self._keras, self._settings.chunk, len(self._sequences.active)
        names = iter(self.start.values())
        for weight in model.trainable_variables:
            weight.assign(next(names))
        for layer in model.layers:
            if isinstance(layer, keras.layers.LSTM):
                layer.reset_states()
        for variable in model.optimizer.variables:
            if variable.name != "learning_rate":
                variable.assign(np.zeros(variable.shape, variable.dtype))
        first = self._end - self._steps
        x, y = (
            np.concatenate([whole[:, at : at + chunk] for at in range(first, self._end, chunk)])
            for whole in (self._sequences.inputs, self._sequences.targets)
        )
        cpu, wall = time.process_time(), time.perf_counter()
        model.fit(x, y, batch_size=series, epochs=1, shuffle=False, verbose=0)
        took = (time.perf_counter() - wall, time.process_time() - cpu)
        weights = {name: np.asarray(weight) for name, weight in zip(self.start, model.trainable_variables, strict=True)}
        return Epoch(*took, len(x) // series, y.size, self.loss(weights))

    def loss(self, weights: Weights) -> float:
        """The mean loss over the span."""
        return self._trainer(weights).evaluate(self._begin, self._end)

    def epochs_to(self, loss: float) -> int | None:
        """How many of killick's epochs it takes until the loss is at most this; None: more than MOST_EPOCHS."""
        trainer, rng = self._trainer(self.start), np.random.default_rng(0)
        for number in range(1, MOST_EPOCHS + 1):
            self._epoch(trainer, rng)
            if trainer.evaluate(self._begin, self._end) <= loss:
                return number
        return None

    def _epoch(self, trainer: Trainer, rng: np.random.Generator) -> int:
        from models.draws import Windows

        windows = Windows(self._sequences, self._settings.chunk, (self._begin, self._end))
        lanes = windows.draw(rng)
        tour = windows.tour(lanes, rng, self._settings.batch_lanes)
        _, labels, _ = trainer.epoch(tour, trainer.zero_state(len(lanes.series)), self._settings.rate)
        return labels

    def _trainer(self, weights: Weights) -> Trainer:
        from models.training import Trainer

        return Trainer(self._architecture, self._sequences, self._settings, weights)

    def _compiled(self) -> Any:
        import keras

        model = keras_model(self._architecture, self.start, len(self._sequences.active), self._settings.chunk)
        optimiser = keras.optimizers.Adam(self._settings.rate, clipnorm=self._settings.clip_norm)
        model.compile(optimiser, loss=keras.losses.Huber())
        return model


def _sequences(path: Path, settings: Any, days: int) -> tuple[Architecture, Sequences]:
    """What there is to train on: the last days of the file's first rows, and two days before them."""
    from consumers.past import admitted
    from models.scaling import SeriesState
    from models.sequences import sequences_of

    form, architecture = settings.series_form(), architecture_of(settings)
    _, found = admitted(history_of(path, ROWS), form)
    block = found.block
    kept = block.take(np.flatnonzero(block.step > int(block.step[-1]) - (days + 2) * DAY_ROWS))
    rows = SeriesState(form).look(kept.slot, kept.step, kept.values, kept.present)
    return architecture, sequences_of(architecture, form, rows)


if __name__ == "__main__":
    sys.exit(main())
