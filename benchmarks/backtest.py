"""Observations a second of a backtest that never updates, on ETTm1, beside plain Keras called once a step.

In turns, in one process: the whole run of a policy `never` (fold, pairs, scores, both references), the network alone
over the same inputs, and `LSTM(stateful=True)` by `predict_on_batch`, which is what a stream makes of Keras. Weights
are random: nothing is fitted, and what a forecast is worth takes no time. Processor seconds stand beside those of the
clock, because whatever else the machine does slows the clock alone.
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
    from collections.abc import Callable
    from pathlib import Path

    from worker.backtest_scene import Scene

FITTED_DAYS = 150  # the protocol of `killick bench accuracy`: what is before is fitted on
TOLERANCE = 1e-4  # of the network's outputs, which are about 1


class Took(NamedTuple):
    """How many observations were forecast, in how many seconds."""

    observations: int
    wall_s: float
    cpu_s: float


def main() -> int:
    """Print a table, or with --json one object."""
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the file (default: %(default)s)")
    parser.add_argument("--keras-steps", type=int, default=500, help="steps that Keras takes (default: %(default)s)")
    words = parser.parse_args()
    path = file_of(words)
    if path is None:
        return 2
    told = measured(path, words)
    if words.json:
        print(json.dumps(told))
        return 0
    print(f"{told['observations']:,} observations of {told['series']} series, {words.units} units, H = {words.horizon}")
    print(f"{'':<28} {'observations/s':>15} {'of a core':>12}")
    for name in ("backtest", "network alone", "keras, a call a step"):
        row = told[name]
        print(f"{name:<28} {row['per_s']:>15,} {row['per_cpu_s']:>12,}")
    print(f"the backtest is {told['ratio']} times as fast as Keras")
    return 0


def measured(path: Path, words: argparse.Namespace) -> dict[str, Any]:
    """Medians over the turns, and the ratio of the backtest to Keras on the clock.

    Raises:
        SystemExit: the two don't compute the same.
    """
    from worker.quiet import start_tensorflow

    start_tensorflow(words.threads)
    from rich.console import Console

    from worker.backtest_scene import scene_of

    settings = settings_of(tuple(words.units), words.horizon, words.threads)
    history = history_of(path, words.rows)
    begin_ms = int(history.time_ms[0])
    share_ms = min(FITTED_DAYS * DAY_ROWS, words.rows // 4) * settings.interval_ms
    scene = scene_of(settings, history, begin_ms + share_ms, gate=False, console=Console(stderr=True))
    contests = {"backtest": _backtest(scene), **_networks(scene, words.keras_steps)}
    found: dict[str, list[Took]] = {name: [] for name in contests}
    for _ in range(words.turns):
        for name, contest in contests.items():
            found[name].append(contest())
    told: dict[str, Any] = {"series": len(scene.names), "observations": len(scene.block), "threads": words.threads}
    wall = {name: statistics.median(one.observations / one.wall_s for one in turns) for name, turns in found.items()}
    for name, turns in found.items():
        cpu = statistics.median(one.observations / one.cpu_s for one in turns)
        told[name] = {"per_s": round(wall[name]), "per_cpu_s": round(cpu)}
    told["ratio"] = round(wall["backtest"] / wall["keras, a call a step"], 1)
    return told


def timed(observations: int, work: Callable[[], object]) -> Took:
    """What `work` takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Took(observations, time.perf_counter() - wall, time.process_time() - cpu)


def _backtest(scene: Scene) -> Callable[[], Took]:
    """The run of a policy that never updates, from the first version to the scores."""
    from worker.backtest_policies import parse_policy
    from worker.backtest_run import Run
    from worker.backtest_scene import First
    from worker.backtest_scores import Scores, Truth

    architecture = architecture_of(scene.settings)
    first = First(architecture, weights_of(architecture), 0.0)
    horizon = scene.settings.model.horizon

    def play() -> Took:
        run = Run(scene, parse_policy("never"), first, None, 1)

        def work() -> None:
            truth = Truth.of(scene.block, scene.names, scene.settings.series_form(), scene.online_step)
            scores = Scores(truth, horizon, scene.online_step)
            run.play(scores, lambda *_: None, lambda _: None, (1, horizon))

        return timed(len(scene.block) - scene.row(scene.online_step), work)

    return play


def _networks(scene: Scene, keras_steps: int) -> dict[str, Callable[[], Took]]:
    """The network alone over the inputs of the whole file, and Keras over its first steps; they give the same."""
    from models.network import MIN_TILE, Network
    from models.scaling import SeriesState
    from models.sequences import sequences_of

    form, architecture = scene.settings.series_form(), architecture_of(scene.settings)
    rows = SeriesState(form).look(scene.block.slot, scene.block.step, scene.block.values, scene.block.present)
    inputs = sequences_of(architecture, form, rows).inputs.transpose(1, 0, 2)  # (T, S, I)
    steps, series, _ = inputs.shape
    tile = series + -series % MIN_TILE
    x = np.zeros((steps, tile, architecture.input_size), np.float32)
    x[:, :series] = inputs
    active = np.zeros((steps, tile), np.bool_)
    active[:, :series] = True
    carried = np.zeros((tile, architecture.carried_size), np.float32)
    weights = weights_of(architecture)
    network = Network(architecture, weights)
    model = keras_model(architecture, weights, series, 1)
    some = min(keras_steps, steps)
    theirs = np.stack([model.predict_on_batch(inputs[i][:, None])[:, 0] for i in range(some)])
    ours, _ = network.scan(x[:some], active[:some], carried)
    apart = float(np.abs(ours[:, :series] - theirs).max())
    if not apart <= TOLERANCE:
        raise SystemExit(f"Keras and killick are {apart} apart, at most {TOLERANCE} was expected")

    def by_step() -> None:
        for i in range(some):
            model.predict_on_batch(inputs[i][:, None])

    return {
        "network alone": lambda: timed(steps * series, lambda: network.scan(x, active, carried)),
        "keras, a call a step": lambda: timed(some * series, by_step),
    }


if __name__ == "__main__":
    sys.exit(main())
