"""The running system forecasts what plain Keras does on the exported weights, over restarts and a kill."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file

from tests.integration.plain import walk
from tests.integration.streams import HOUR_MS, START_MS, observation, smooth

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.integration.conftest import NewStack
    from tests.integration.harness import Message, Stack

STEPS = 2_000
SERIES = ("south", "north", "west")
FEATURES = ("value", "load")
HORIZON = 5
LAGS, SEASON_LAGS = 6, [1, 3]
GAIN = (0.5, 0.75, 1.0, 1.25, 1.5)
TOLERANCE = 1e-5  # of the series' scale
NETWORKS: dict[str, dict[str, Any]] = {
    "lstm": {"cell": "lstm", "units": [16]},
    "lstm, two layers": {"cell": "lstm", "units": [12, 9]},
    "gru": {"cell": "gru", "units": [16]},
    "gru, two layers": {"cell": "gru", "units": [12, 9]},
}
Rows = dict[str, list[dict[str, float | None] | None]]


def rows_of(seed: int) -> Rows:
    """What is observed of each series at each step; None: nothing, a gap that is bridged."""
    rng = np.random.default_rng(seed)
    rows: Rows = {}
    for name in SERIES:
        columns = {feature: smooth(rng, STEPS) for feature in FEATURES}
        rows[name] = [
            {f: None if rng.random() < 0.03 else float(columns[f][t]) for f in FEATURES} for t in range(STEPS)
        ]
        for start in (20 * rng.choice(np.arange(1, STEPS // 20), 60, replace=False)).tolist():
            for t in range(start, start + int(rng.integers(1, 7))):
                rows[name][t] = None
        rows[name][0] = dict.fromkeys(FEATURES, 1.5)
        rows[name][STEPS - 1] = dict.fromkeys(FEATURES, -0.5)
    return rows


def messages(rows: Rows, begin: int, end: int) -> list[Message]:
    """The records of some steps, the series interleaved."""
    found = []
    for t in range(begin, end):
        for name in SERIES:
            row = rows[name][t]
            if row is not None:
                found.append(observation(name, START_MS + t * HOUR_MS, row))
    return found


def keras_outputs(folder: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What stateful Keras layers with the exported weights answer to `inputs` (S, T, I), `(S, T, H)`."""
    import keras

    weights = load_file(folder / "weights.safetensors")
    network = json.loads((folder / "architecture.json").read_text())
    kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[network["cell"]]
    x = keras.Input(batch_shape=(len(inputs), None, inputs.shape[2]))
    layers, h = [], x
    for units in network["units"]:
        layers.append(kind(units, stateful=True, return_sequences=True))
        h = layers[-1](h)
    head = keras.layers.Dense(network["horizon"])
    model = keras.Model(x, head(keras.layers.Concatenate()([h, x])))
    for number, layer in enumerate(layers):
        layer.set_weights([weights[f"layer{number}.{part}"] for part in ("kernel", "recurrent", "bias")])
    head.set_weights([weights["head.kernel"], weights["head.bias"]])
    cuts = [0, 1, 2, 3, *range(50, inputs.shape[1], 50), inputs.shape[1]]  # the first ones step by step
    parts = [np.asarray(model(inputs[:, a:b])) for a, b in itertools.pairwise(cuts)]
    return np.concatenate(parts, axis=1)


def forecasts(stack: Stack) -> dict[str, dict[int, list[float]]]:
    """The published forecasts by series and step; a step that was published twice has the same bytes."""
    found: dict[str, dict[int, list[float]]] = {name: {} for name in SERIES}
    seen: dict[tuple[bytes, str], bytes] = {}
    for record in stack.predictions():
        body = json.loads(record.value)
        assert seen.setdefault((record.key, body["issued_at"]), record.value) == record.value
        step = int(np.datetime64(body["issued_at"].removesuffix("Z"), "ms").astype(np.int64)) - START_MS
        found[body["series"]][step // HOUR_MS] = body["values"]
    return found


def run(stacks: list[Stack], rows: Rows) -> None:
    """The stream through all stacks side by side: a restart of the first, a kill of each in the midst of it."""
    for stack in stacks:
        stack.register(seed=4, architecture=stack.settings.architecture(GAIN))
        stack.send(messages(rows, 0, 700))
    process = stacks[0].consumer()
    stacks[0].reach(1_000)
    assert process.stop() == 0
    for stack in stacks:
        stack.send(messages(rows, 700, STEPS))
    for stack, process in [(stack, stack.consumer()) for stack in stacks]:
        stack.reach(2_500)
        process.kill()
    for stack, process in [(stack, stack.consumer()) for stack in stacks]:
        stack.done()
        assert process.stop() == 0


def test_forecasts_equal_those_of_plain_keras(new_stack: NewStack, tmp_path: Path) -> None:
    """Over 2,000 steps of three series, with a restart and a kill, all forecasts agree within 1e-5 scales."""
    model = {"features": list(FEATURES), "horizon": HORIZON, "max_gap": "12h"}
    inputs = {"lags": LAGS, "season_lags": SEASON_LAGS}
    kafka = {"max_poll_records": 50, "session_timeout": "1s"}
    stacks = [
        new_stack({"model": model, "network": {**network, **inputs}, "kafka": kafka}) for network in NETWORKS.values()
    ]
    rows = rows_of(seed=7)
    run(stacks, rows)
    hour = START_MS // HOUR_MS
    walks = [
        walk(rows[series], hour, features=FEATURES, target="value", lags=LAGS, season_lags=SEASON_LAGS)
        for series in SERIES
    ]
    fed = np.stack([one.inputs for one in walks]).astype(np.float32)
    for name, stack in zip(NETWORKS, stacks, strict=True):
        stack.output("versions", "export", "1", "--out", str(tmp_path / name))
        outputs = keras_outputs(tmp_path / name, fed)
        assert np.abs(outputs).mean() > 0.1
        found = forecasts(stack)
        for number, series in enumerate(SERIES):
            steps = [t for t, row in enumerate(rows[series]) if row is not None]
            assert sorted(found[series]) == steps
            base, scale = walks[number].base[steps, None], walks[number].scale[steps, None]
            wanted = base + scale * np.array(GAIN) * outputs[number, steps]
            difference = np.abs(np.array([found[series][t] for t in steps]) - wanted)
            # a single stands within half a unit of its last place: of large values that is more than the tolerance
            allowed = TOLERANCE * scale + np.spacing(np.abs(wanted).astype(np.float32))
            assert (difference <= allowed).all(), (name, series, float((difference / scale).max()))
