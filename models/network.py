"""The network: stacked LSTM or GRU cells over the waves of a tile; the door to TensorFlow for forecasts.

State goes in and comes out; nothing is kept between calls. The cells are those of Keras (gates i,f,c,o; GRU
with `reset_after=True`), so plain Keras computes the same from the same weights. `models.training` scans
with the same functions.

Where the same lanes are active for many waves, as with few series and long blocks, several waves are written out in
one turn of the loop and nothing is chosen between old and new state: a third less time a wave, and equal bits.

Bits: the same lane gives the same bits in every tile of 8, 16, … 1,024 lanes, whoever its neighbours are and
however its waves are cut into calls, as long as XLA is off and oneDNN is on (the default); `self_test` looks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from models.errors import ConfigError, VersionError
from models.weights import check_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.architecture import Architecture, Float32, Weights

MIN_TILE = 8
MAX_TILE = 1024
TURN = 4  # waves that are written out in one turn of the loop
LEAST_STEADY = 4 * TURN  # waves: with fewer, entering another loop costs more than it saves
SELF_TEST_WAVES = 3
SELF_TEST_TILES = (8, 16, 40, 64, 256)
Tensor = Any  # TensorFlow has no type stubs


class Shape(NamedTuple):
    """All that the compiled scan depends on; versions that agree in it share one compiled function."""

    cell: str
    units: tuple[int, ...]
    inputs: int
    horizon: int
    head_inputs: bool
    carried: int
    activation: str
    weights: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, architecture: Architecture) -> Shape:
        """The shape of an architecture."""
        return cls(
            architecture.cell,
            architecture.units,
            architecture.input_size,
            architecture.horizon,
            architecture.head_inputs,
            architecture.carried_size,
            architecture.activation,
            tuple(architecture.weight_shapes().values()),
        )


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": tf.tanh,
    "softsign": tf.nn.softsign,
    "hard_tanh": lambda x: tf.clip_by_value(x, -1.0, 1.0),
    "relu6": tf.nn.relu6,
}


class Masks(NamedTuple):
    """What training multiplies a layer's inputs and hidden state by, `(T, F_in)` and `(T, U)` (dropout)."""

    inputs: Tensor
    hidden: Tensor


def configure(threads: int) -> None:
    """Pin TensorFlow to `threads` threads of the CPU; to be called before its first operation.

    Raises:
        ConfigError: TensorFlow already runs with another number.
    """
    threading = tf.config.threading
    wanted = (threads, 1)
    if (threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()) == wanted:
        return
    try:
        threading.set_intra_op_parallelism_threads(threads)
        threading.set_inter_op_parallelism_threads(1)
        tf.config.set_visible_devices([], "GPU")  # equal bits are promised for one kind of processor
    except RuntimeError as error:
        raise ConfigError(
            f"TensorFlow already runs with other than {threads} threads",
            "configure it before its first operation",
        ) from error


def warm_up() -> None:
    """Run one operation, so that TensorFlow starts (and says what it has to say) now."""
    tf.constant(0.0).numpy()


class Network:
    """A version's network on this machine, ready to scan.

    Raises:
        VersionError: the weights are not those of the architecture.
    """

    def __init__(self, architecture: Architecture, weights: Weights) -> None:
        check_weights(architecture, weights)
        self._shape = Shape.of(architecture)
        self._weights = [tf.constant(weights[name]) for name in architecture.weight_shapes()]

    def scan(self, x: Float32, active: NDArray[np.bool_], carried: Float32) -> tuple[Float32, Float32]:
        """Outputs f `(W, T, H)` and the carried state `(T, S)` after W waves of a tile of T lanes.

        `x` is `(W, T, I)`; a lane that is not `active` (W, T) at a wave keeps its state, and its f there
        means nothing. T must be a multiple of 8.

        Raises:
            ValueError: another shape.
        """
        waves, tile = active.shape
        expected = ((waves, tile, self._shape.inputs), (tile, self._shape.carried))
        if tile % MIN_TILE or (x.shape, carried.shape) != expected:
            raise ValueError(f"x {x.shape}, active {active.shape}, carried {carried.shape}: a tile is a multiple of 8")
        if not waves or not tile:
            return np.zeros((waves, tile, self._shape.horizon), np.float32), carried
        return scan_tile(self._shape, self._weights, x, active, carried)

    def self_test(self, seed: int = 0) -> None:
        """Return if a lane's bits don't depend on tile, neighbours or cut on this machine; takes about .5 s.

        Raises:
            VersionError: they do.
        """
        rng = np.random.default_rng(seed)
        x, active, carried = self._drawn(rng, SELF_TEST_WAVES, MAX_TILE)
        reference = self.scan(x, active, carried)
        for tile in SELF_TEST_TILES:
            for begin in range(0, MAX_TILE, max(tile, MAX_TILE // 8)):
                lanes = slice(begin, begin + tile)
                one_call = self.scan(x[:, lanes], active[:, lanes], carried[lanes])
                self._compare(f"a tile of {tile}", one_call, reference, lanes)
        shifted = self.scan(np.roll(x, 3, axis=1), np.roll(active, 3, axis=1), np.roll(carried, 3, axis=0))
        back = (np.roll(shifted[0], -3, axis=1), np.roll(shifted[1], -3, axis=0))
        self._compare("other neighbours", back, reference, slice(None))
        self._compare("waves in separate calls", self._wave_by_wave(x, active, carried), reference, slice(None))
        x, active, carried = self._drawn(rng, LEAST_STEADY + SELF_TEST_WAVES, MIN_TILE)
        active[: LEAST_STEADY + 1] = True
        self._compare("many waves", self._wave_by_wave(x, active, carried), self.scan(x, active, carried), slice(None))

    def _drawn(self, rng: np.random.Generator, waves: int, tile: int) -> tuple[Float32, NDArray[np.bool_], Float32]:
        """Random inputs, a tenth of the lanes idle at each wave, and carried state."""
        x = rng.normal(size=(waves, tile, self._shape.inputs)).astype(np.float32)
        carried = rng.normal(scale=0.5, size=(tile, self._shape.carried)).astype(np.float32)
        return x, rng.random((waves, tile)) < 0.9, carried

    def _wave_by_wave(self, x: Float32, active: NDArray[np.bool_], carried: Float32) -> tuple[Float32, Float32]:
        parts = []
        for wave in range(len(x)):
            output, carried = self.scan(x[wave : wave + 1], active[wave : wave + 1], carried)
            parts.append(output)
        return np.concatenate(parts), carried

    def _compare(
        self, where: str, found: tuple[Float32, Float32], reference: tuple[Float32, Float32], lanes: slice
    ) -> None:
        outputs, carried = reference[0][:, lanes], reference[1][lanes]
        different = int((found[0] != outputs).sum() + (found[1] != carried).sum())
        if different:
            raise VersionError(
                f"{different} numbers of a {self._shape.cell} network of {self._shape.units} units differ "
                f"in {where} on this machine, so that a replay would not give equal bits",
                "leave oneDNN on (TF_ENABLE_ONEDNN_OPTS) and XLA off, and use one thread",
            )


def scan_tile(
    shape: Shape, weights: list[Tensor], x: Float32, active: NDArray[np.bool_], carried: Float32
) -> tuple[Float32, Float32]:
    """As `Network.scan`, with weights in the order of `Architecture.weight_shapes()`; of one wave and lane at least."""
    same = (active == active[0]).all(axis=1)
    steady = len(active) if same.all() else int(np.argmin(same))
    turns = [np.int32(steady - steady % TURN)] if steady >= LEAST_STEADY else []
    outputs, after = call(_compiled_scan(shape, steady=bool(turns)), [x, active, carried, *turns, *weights])
    return outputs.numpy(), after.numpy()


def call(compiled: Tensor, arguments: list[Any]) -> list[Tensor]:
    """The outputs of a concrete function, one after the other, as of an operation.

    What `tf.function` itself does to its arguments at each call takes .4 ms and more.
    """
    found: list[Tensor] = tf.raw_ops.PartitionedCall(
        args=arguments, Tout=[output.dtype for output in compiled.outputs], f=compiled
    )
    return found


@lru_cache(maxsize=128)
def _compiled_scan(shape: Shape, *, steady: bool) -> Tensor:
    """The compiled scan of all networks of one shape; weights are arguments, so a swap compiles nothing.

    With `steady`, one more argument says for how many waves, a multiple of TURN, the first one's lanes are active.
    """

    def run(x: Tensor, active: Tensor, carried: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        weights = list(others[len(others) - len(shape.weights) :])
        return scan_waves(shape, x, active, carried, weights, steady=others[0] if steady else None)

    signature = [
        tf.TensorSpec([None, None, shape.inputs], tf.float32),
        tf.TensorSpec([None, None], tf.bool),
        tf.TensorSpec([None, shape.carried], tf.float32),
        *([tf.TensorSpec([], tf.int32)] if steady else []),
        *(tf.TensorSpec(weight, tf.float32) for weight in shape.weights),
    ]
    compiled = tf.function(run, input_signature=signature, jit_compile=False, autograph=False)
    return compiled.get_concrete_function()


def scan_waves(  # noqa: PLR0913 - tensors of one scan
    shape: Shape,
    x: Tensor,
    active: Tensor | None,
    carried: Tensor,
    weights: list[Tensor],
    fresh: Tensor | None = None,
    masks: list[Masks] | None = None,
    *,
    steady: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs `(W, T, H)` and carried state `(T, S)` as tensors; to be called inside a `tf.function`.

    `weights` are in the order of `Architecture.weight_shapes()`. Training alone uses `fresh` (W, T), the
    waves before which a lane's state is zeroed, and `masks`, one a layer, and leaves `active` out where all lanes
    always are; forecasts alone use `steady`.
    """
    layers = [tuple(weights[3 * i : 3 * i + 3]) for i in range(len(shape.units))]
    head_kernel, head_bias = weights[-2:]
    waves, tile = tf.shape(x)[0], tf.shape(x)[1]
    project = _project_lstm if shape.cell == "lstm" else _project_gru
    flat = x if masks is None else x * masks[0].inputs
    flat = tf.reshape(flat, [-1, shape.inputs])  # (W·T, I)
    gates = shape.units[0] * (4 if shape.cell == "lstm" else 3)
    first = tf.reshape(project(flat, *layers[0]), [waves, tile, gates])  # (W, T, G·U): one product for all waves
    first_at = first.__getitem__
    if steady is None and (fresh is not None or active is None):
        # in training: the gradient of a slice is as long as all waves, that of an element is an element
        first_at = tf.TensorArray(tf.float32, size=waves, element_shape=[None, gates]).unstack(first).read
    tops = tf.TensorArray(tf.float32, size=waves, element_shape=[None, shape.units[-1]])

    per_layer = 2 if shape.cell == "lstm" else 1
    advanced = _cells(shape, layers, masks)

    def body(wave: Tensor, states: tuple[Tensor, ...], tops: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        if fresh is not None:
            states = tuple(tf.where(fresh[wave][:, None], tf.zeros_like(state), state) for state in states)
        after = advanced(first_at(wave), states)
        tops = tops.write(wave, after[-per_layer])
        if active is not None:
            after = _where(active[wave], after, states)
        return wave + 1, after, tops

    def turn(wave: Tensor, states: tuple[Tensor, ...], tops: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        part = tf.ensure_shape(first[wave : wave + TURN], [TURN, None, gates])
        for i, projected in enumerate(tf.unstack(part)):
            states = advanced(projected, states)
            tops = tops.write(wave + i, states[-per_layer])
        return wave + TURN, states, tops

    sizes = [units for units in shape.units for _ in range(per_layer)]
    begin, states = tf.constant(0), tuple(tf.split(carried, sizes, axis=1))
    if steady is not None and active is not None:
        start = states
        begin, states, tops = tf.while_loop(
            lambda wave, *_: wave < steady, turn, (begin, states, tops), parallel_iterations=1
        )
        states = _where(active[0], states, start)
    _, states, tops = tf.while_loop(lambda wave, *_: wave < waves, body, (begin, states, tops), parallel_iterations=1)
    seen = tf.reshape(tops.stack(), [-1, shape.units[-1]])  # (W·T, U)
    if shape.head_inputs:
        seen = tf.concat([seen, tf.reshape(x, [-1, shape.inputs])], axis=1)  # (W·T, U + I)
    outputs = tf.matmul(seen, head_kernel) + head_bias
    return tf.reshape(outputs, [waves, tile, shape.horizon]), tf.concat(states, axis=1)


def _where(moves: Tensor, after: tuple[Tensor, ...], before: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The states after a wave of those lanes that move `(T,)`, of the others those before it."""
    return tuple(tf.where(moves[:, None], new, old) for new, old in zip(after, before, strict=True))


def _cells(
    shape: Shape, layers: list[tuple[Tensor, ...]], masks: list[Masks] | None
) -> Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """What a wave makes of the lowest layer's projected inputs `(T, G·U)` and all layers' states."""
    project, step = (_project_lstm, _step_lstm) if shape.cell == "lstm" else (_project_gru, _step_gru)
    activate = _ACTIVATIONS[shape.activation]
    per_layer = 2 if shape.cell == "lstm" else 1

    def advanced(projected: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        after: list[Tensor] = []
        for i, layer in enumerate(layers):
            state = states[i * per_layer : (i + 1) * per_layer]
            if i:
                below = after[-per_layer]
                projected = project(below if masks is None else below * masks[i].inputs, *layer)
            hidden = state[0] if masks is None else state[0] * masks[i].hidden
            after += step(activate, projected, hidden, state, *layer)
        return tuple(after)

    return advanced


def _project_lstm(x: Tensor, kernel: Tensor, _recurrent: Tensor, bias: Tensor) -> Tensor:
    """What the inputs add to the four gates, `(…, 4·U)`."""
    return tf.matmul(x, kernel) + bias


def _step_lstm(
    activate: Callable[[Tensor], Tensor],
    projected: Tensor,
    hidden: Tensor,
    state: tuple[Tensor, ...],
    _kernel: Tensor,
    recurrent: Tensor,
    _bias: Tensor,
) -> tuple[Tensor, ...]:
    """`(h, c)` after one step (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000)."""
    z = projected + tf.matmul(hidden, recurrent)  # (T, 4·U)
    i, f, g, o = tf.split(z, 4, axis=1)
    c = tf.sigmoid(f) * state[1] + tf.sigmoid(i) * activate(g)
    return tf.sigmoid(o) * activate(c), c


def _project_gru(x: Tensor, kernel: Tensor, _recurrent: Tensor, bias: Tensor) -> Tensor:
    """What the inputs add to the three gates, `(…, 3·U)`."""
    return tf.matmul(x, kernel) + bias[0]


def _step_gru(
    activate: Callable[[Tensor], Tensor],
    projected: Tensor,
    hidden: Tensor,
    state: tuple[Tensor, ...],
    _kernel: Tensor,
    recurrent: Tensor,
    bias: Tensor,
) -> tuple[Tensor, ...]:
    """`(h,)` after one step (Cho et al. 2014, reset after the product as in cuDNN and Keras)."""
    x_z, x_r, x_h = tf.split(projected, 3, axis=1)
    h_z, h_r, h_h = tf.split(tf.matmul(hidden, recurrent) + bias[1], 3, axis=1)
    z = tf.sigmoid(x_z + h_z)
    candidate = activate(x_h + tf.sigmoid(x_r + h_r) * h_h)
    return (z * state[0] + (1.0 - z) * candidate,)
