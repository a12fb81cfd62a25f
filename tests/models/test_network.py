"""The network: equal to plain Keras, and equal to itself bit for bit however it is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.architecture import Architecture, Float32, Inputs, Weights
from models.choices import ACTIVATIONS, Activation
from models.errors import ConfigError, VersionError
from models.network import LEAST_STEADY, MAX_TILE, TURN, Network, configure
from models.weights import fresh_weights

ROOT = Path(__file__).parents[2]
TILES = (8, 16, 24, 40, 64, 96, 128, 256, 512, 1000, 1024)
SHAPES = [
    ("lstm", (32,)),
    ("lstm", (64, 64)),
    ("lstm", (1,)),
    ("gru", (33,)),
    ("gru", (16, 5)),
    ("lstm", (256,)),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    configure(threads=1)


def architecture_of(
    cell: str, units: tuple[int, ...], horizon: int = 5, activation: Activation = "tanh"
) -> Architecture:
    """An architecture with 18 inputs."""
    return Architecture(
        cell=cell,  # type: ignore[arg-type]
        units=units,
        horizon=horizon,
        features=("x", "y"),
        target="x",
        gain=(1.0,) * horizon,
        interval_ms=60_000,
        period_steps=60,
        inputs=Inputs(lags=8),
        activation=activation,
    )


def trained_weights(architecture: Architecture, seed: int = 1) -> Weights:
    """Weights as training leaves them: nothing is zero."""
    rng = np.random.default_rng(seed)
    fresh = fresh_weights(architecture, seed)
    return {name: (w + rng.normal(scale=0.15, size=w.shape)).astype(np.float32) for name, w in fresh.items()}


def random_waves(
    architecture: Architecture, waves: int, lanes: int, seed: int = 0
) -> tuple[Float32, np.ndarray, Float32]:
    """Inputs, a mask with a tenth of the lanes idle at each wave, and carried state."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(waves, lanes, architecture.input_size)).astype(np.float32)
    carried = rng.normal(scale=0.5, size=(lanes, architecture.carried_size)).astype(np.float32)
    return x, rng.random((waves, lanes)) < 0.9, carried


def assert_equal_bits(found: tuple[Float32, Float32], wanted: tuple[Float32, Float32]) -> None:
    """Fail unless outputs and carried state have the same bytes."""
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def keras_outputs(architecture: Architecture, weights: Weights, x: Float32, per_call: int) -> Float32:
    """What plain Keras layers with `stateful=True` give for `x` (steps, lanes, I), in calls of `per_call`."""
    import keras

    kind = keras.layers.LSTM if architecture.cell == "lstm" else keras.layers.GRU
    how = {"stateful": True, "return_sequences": True, "activation": architecture.activation}
    layers = [kind(units, **how) for units in architecture.units]
    head = keras.layers.Dense(architecture.horizon)
    names = list(weights)
    parts = []
    for begin in range(0, len(x), per_call):
        fed = h = np.swapaxes(x[begin : begin + per_call], 0, 1)  # (lanes, steps, I)
        for i, layer in enumerate(layers):
            if not layer.built:
                layer.build(h.shape)
                layer.set_weights([weights[name] for name in names if name.startswith(f"layer{i}.")])
            h = layer(h)
        seen = np.concatenate([np.asarray(h), fed], axis=2)
        if not head.built:
            head.build(seen.shape)
            head.set_weights([weights["head.kernel"], weights["head.bias"]])
        parts.append(np.swapaxes(np.asarray(head(seen)), 0, 1))
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("cell", "units", "activation"),
    [
        ("lstm", (16,), "tanh"),
        ("lstm", (12, 7), "tanh"),
        ("gru", (16,), "tanh"),
        ("gru", (12, 7), "tanh"),
        ("lstm", (12, 7), "softsign"),
        ("gru", (12, 7), "softsign"),
        ("lstm", (16,), "hard_tanh"),
        ("gru", (16,), "hard_tanh"),
        ("lstm", (16,), "relu6"),
        ("gru", (16,), "relu6"),
    ],
)
def test_outputs_equal_those_of_stateful_keras_layers(
    cell: str, units: tuple[int, ...], activation: Activation
) -> None:
    """Over 400 steps, cut into calls elsewhere than here, plain Keras gives the same within 1e-5."""
    architecture = architecture_of(cell, units, activation=activation)
    weights = trained_weights(architecture)
    x, _, _ = random_waves(architecture, 400, 8)
    network = Network(architecture, weights)
    carried = np.zeros((8, architecture.carried_size), np.float32)
    parts = []
    for begin in range(0, 400, 37):
        piece = x[begin : begin + 37]
        output, carried = network.scan(piece, np.ones(piece.shape[:2], np.bool_), carried)
        parts.append(output)
    expected = keras_outputs(architecture, weights, x, per_call=20)
    assert np.abs(expected).mean() > 0.05
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_other_activations_pass_the_self_test_and_stay_within_bounds(cell: str, activation: Activation) -> None:
    """Bits don't depend on the tile, and an input that never ends drives no output beyond what weights allow."""
    architecture = architecture_of(cell, (24, 9), activation=activation)
    weights = trained_weights(architecture)
    network = Network(architecture, weights)
    network.self_test()
    x = np.full((2_000, 8, architecture.input_size), 3.0, np.float32)
    outputs, _ = network.scan(x, np.ones(x.shape[:2], np.bool_), np.zeros((8, architecture.carried_size), np.float32))
    most = np.abs(weights["head.kernel"]).sum(axis=0) * 6.0 + np.abs(weights["head.bias"])
    assert (np.abs(outputs) <= most).all()


@pytest.mark.parametrize(("cell", "units"), SHAPES)
def test_bits_do_not_depend_on_tile_order_neighbours_or_cut(cell: str, units: tuple[int, ...]) -> None:
    """Tiles of 8…1,024, shuffled lanes, other neighbours and waves in separate calls give equal bits."""
    architecture = architecture_of(cell, units)
    network = Network(architecture, trained_weights(architecture))
    x, active, carried = random_waves(architecture, 4, MAX_TILE)
    whole = network.scan(x, active, carried)
    for tile in TILES:
        for begin in (0, 8 * ((MAX_TILE - tile) // 16), MAX_TILE - tile):
            lanes = slice(begin, begin + tile)
            part = network.scan(x[:, lanes], active[:, lanes], carried[lanes])
            assert_equal_bits(part, (whole[0][:, lanes], whole[1][lanes]))
    order = np.random.default_rng(3).permutation(MAX_TILE)
    shuffled = network.scan(x[:, order], active[:, order], carried[order])
    assert_equal_bits(shuffled, (whole[0][:, order], whole[1][order]))
    strangers = random_waves(architecture, 4, MAX_TILE, seed=9)
    for mine, theirs, axis in zip((x, active, carried), strangers, (1, 1, 0), strict=True):
        theirs[(slice(None),) * axis + (5,)] = mine[(slice(None),) * axis + (5,)]
    among = network.scan(*strangers)
    assert_equal_bits((among[0][:, 5], among[1][5]), (whole[0][:, 5], whole[1][5]))
    first = network.scan(x[:1], active[:1], carried)
    rest = network.scan(x[1:], active[1:], first[1])
    assert_equal_bits((np.concatenate([first[0], rest[0]]), rest[1]), whole)


@pytest.mark.parametrize(("cell", "units"), SHAPES)
@pytest.mark.parametrize("steady", [LEAST_STEADY - 1, LEAST_STEADY, LEAST_STEADY + TURN + 1, 3 * LEAST_STEADY])
def test_bits_do_not_depend_on_how_many_waves_are_written_out(cell: str, units: tuple[int, ...], steady: int) -> None:
    """Lanes that are alike for many waves, idle ones among them, and then change: as wave by wave."""
    architecture = architecture_of(cell, units)
    network = Network(architecture, trained_weights(architecture))
    x, active, carried = random_waves(architecture, 3 * LEAST_STEADY, 16)
    active[0, [2, 9]] = False
    active[:steady] = active[0]
    outputs, after = network.scan(x, active, carried)
    for wave in range(len(x)):
        alone, carried = network.scan(x[wave : wave + 1], active[wave : wave + 1], carried)
        assert outputs[wave, active[wave]].tobytes() == alone[0, active[wave]].tobytes()
    assert after.tobytes() == carried.tobytes()


def test_the_comparison_of_bits_can_fail() -> None:
    """Sums taken in another order give other bits for numbers like these, and the comparison sees it."""
    architecture = architecture_of("lstm", (32,))
    x, _, carried = random_waves(architecture, 1, 64)
    kernel = trained_weights(architecture)["layer0.kernel"]
    forward = np.zeros((64, kernel.shape[1]), np.float32)
    backward = forward.copy()
    for i in range(len(kernel)):
        forward += x[0, :, i, None] * kernel[i]
        backward += x[0, :, -1 - i, None] * kernel[-1 - i]
    np.testing.assert_allclose(forward, backward, atol=1e-5)
    with pytest.raises(AssertionError):
        assert_equal_bits((forward, carried), (backward, carried))


ONE_RUN = """
import hashlib
from models.network import Network, configure
from tests.models.test_network import architecture_of, random_waves, trained_weights
configure({threads})
architecture = architecture_of("lstm", (64, 64))
network = Network(architecture, trained_weights(architecture))
outputs, carried = network.scan(*random_waves(architecture, 6, 1024))
print(hashlib.sha256(outputs.tobytes() + carried.tobytes()).hexdigest())
"""


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    """Processes with 1, 2 and 4 threads give equal bits."""
    runs = {
        threads: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", ONE_RUN.format(threads=threads)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for threads in (1, 2, 4)
    }
    digests = {}
    for threads, run in runs.items():
        out, err = run.communicate(timeout=180)
        assert run.returncode == 0, err.decode()
        digests[threads] = out.decode().strip()
    assert len(digests[1]) == 64
    assert len(set(digests.values())) == 1, digests


class TileDependent(Network):
    """A network broken on purpose: its outputs move by one part in ten million in small tiles."""

    def scan(self, x: Float32, active: np.ndarray, carried: Float32) -> tuple[Float32, Float32]:
        """Outputs with a fault, and the carried state."""
        outputs, after = super().scan(x, active, carried)
        return (outputs * np.float32(1 + 2e-7) if x.shape[1] == 16 else outputs), after


def test_the_self_test_passes_here_and_notices_a_network_whose_bits_depend_on_the_tile() -> None:
    """A sound network passes the self-test; one broken for tiles of 16 is refused."""
    for cell, units in SHAPES:
        architecture = architecture_of(cell, units)
        Network(architecture, trained_weights(architecture)).self_test()
    architecture = architecture_of("lstm", (32,))
    with pytest.raises(VersionError, match="a tile of 16"):
        TileDependent(architecture, trained_weights(architecture)).self_test()


def test_a_lane_that_is_not_active_keeps_its_state_and_disturbs_nobody() -> None:
    """Idle waves in between leave a lane where it would be without them."""
    architecture = architecture_of("gru", (8, 8))
    network = Network(architecture, trained_weights(architecture))
    x, _, carried = random_waves(architecture, 6, 8)
    active = np.ones((6, 8), np.bool_)
    active[[1, 4], 2] = False
    outputs, after = network.scan(x, active, carried)
    taken = np.flatnonzero(active[:, 2])
    alone, alone_after = network.scan(x[taken], np.ones((4, 8), np.bool_), carried)
    assert_equal_bits((outputs[taken, 2], after[2]), (alone[:, 2], alone_after[2]))
    assert (after[3] != alone_after[3]).any()


def test_the_untrained_network_gives_zero() -> None:
    """With the head at zero every output is exactly zero, so that the forecast is the reference."""
    architecture = architecture_of("lstm", (8,))
    outputs, carried = Network(architecture, fresh_weights(architecture, 1)).scan(*random_waves(architecture, 3, 8))
    assert not outputs.any()
    assert carried.any()


def test_no_waves_leave_the_state_as_it_was() -> None:
    """A scan over nothing gives no outputs and the same state."""
    architecture = architecture_of("lstm", (8,))
    x, active, carried = random_waves(architecture, 0, 16)
    outputs, after = Network(architecture, trained_weights(architecture)).scan(x, active, carried)
    assert outputs.shape == (0, 16, 5)
    assert_equal_bits((outputs, after), (outputs, carried))


def test_a_tile_of_another_shape_is_refused() -> None:
    """Tiles that are no multiple of 8, and inputs or state of another width, are refused."""
    architecture = architecture_of("lstm", (8,))
    network = Network(architecture, trained_weights(architecture))
    x, active, carried = random_waves(architecture, 2, 12)
    for wrong in [
        (x, active, carried),
        (x[:, :8, 1:], active[:, :8], carried[:8]),
        (x[:, :8], active[:, :8], carried),
    ]:
        with pytest.raises(ValueError, match="multiple of 8"):
            network.scan(*wrong)


def test_weights_of_another_architecture_are_refused() -> None:
    """A network is not built from weights that don't fit."""
    with pytest.raises(VersionError, match=r"layer0\.kernel"):
        Network(architecture_of("lstm", (8,)), fresh_weights(architecture_of("lstm", (16,)), 1))


def test_another_number_of_threads_is_refused_once_tensorflow_runs() -> None:
    """Threads are pinned once for the process."""
    architecture = architecture_of("lstm", (8,))
    Network(architecture, trained_weights(architecture)).self_test()
    configure(threads=1)
    with pytest.raises(ConfigError, match="already runs"):
        configure(threads=3)
