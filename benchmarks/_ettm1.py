"""ETTm1, or any file like it, for benchmarks of speed: its first rows as a history, the settings, a plain Keras model.

The file has a column `date` and one column of values for each series.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from consumers.observations import Columns, read_history
from models.times import DAY_MS
from models.weights import fresh_weights
from worker.durations import Duration
from worker.settings_reading import load

if TYPE_CHECKING:
    from consumers.history import History
    from models.architecture import Architecture, Weights
    from worker.settings import Settings

FILE = "ETTm1.csv.gz"
ROWS = 57_600
DAY_ROWS = 96


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The options that these benchmarks share."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--data", default="../shared/data", help=f"folder of {FILE} (default: %(default)s)")
    parser.add_argument("--units", type=int, nargs="+", default=[64, 64], help="of each layer (default: 64 64)")
    parser.add_argument("--horizon", type=int, default=24, help="leads (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of TensorFlow (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="how often each is timed (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    return parser


def file_of(words: argparse.Namespace) -> Path | None:
    """The file; None where it is not there, which is said."""
    path = Path(words.data) / FILE
    if path.exists():
        return path
    print(f"{path} is not there: name its folder with --data", file=sys.stderr)
    return None


def history_of(path: Path, rows: int) -> History:
    """The first `rows` rows of a file, each column of values a series."""
    history = read_history(path, Columns(time=("date",), series_from_columns=True), features=["value"], target="value")
    times = np.unique(history.time_ms)
    return history.until(int(times[min(rows, len(times)) - 1]) + 1)


def settings_of(units: tuple[int, ...], horizon: int, threads: int) -> Settings:
    """The defaults, for a quarter of an hour between observations."""
    settings = load(environment=False).settings
    model = {"interval": Duration(DAY_MS // DAY_ROWS), "horizon": horizon}
    network = {"units": units, "threads": threads}
    return settings.model_copy(
        update={
            "model": settings.model.model_copy(update=model),
            "network": settings.network.model_copy(update=network),
        }
    )


def architecture_of(settings: Settings) -> Architecture:
    """The network of the settings; forecasts are what they are, so that its gain says nothing."""
    return settings.architecture(gain=(1.0,) * settings.model.horizon)


def weights_of(architecture: Architecture, seed: int = 0) -> Weights:
    """Fresh weights whose head is drawn too, so that every forecast is another."""
    weights = fresh_weights(architecture, seed)
    head = weights["head.kernel"]
    weights["head.kernel"] = np.random.default_rng(seed).normal(scale=0.1, size=head.shape).astype(np.float32)
    return weights


def keras_model(architecture: Architecture, weights: Weights, series: int, steps: int) -> Any:
    """The same network in plain Keras: `LSTM(stateful=True)`, all series a batch, `steps` steps a call."""
    import keras

    seen = keras.Input(batch_shape=(series, steps, architecture.input_size))
    hidden = seen
    layers = []
    for units in architecture.units:
        layers.append(keras.layers.LSTM(units, stateful=True, return_sequences=True))
        hidden = layers[-1](hidden)
    head = keras.layers.Dense(architecture.horizon)
    model = keras.Model(seen, head(keras.layers.Concatenate()([hidden, seen])))
    for i, layer in enumerate(layers):
        layer.set_weights([weights[f"layer{i}.{name}"] for name in ("kernel", "recurrent", "bias")])
    head.set_weights([weights["head.kernel"], weights["head.bias"]])
    return model
