"""The steps of training: truncated back-propagation through time whose state is carried on from chunk to chunk.

What is walked comes from outside (`models.sequences.Walk`, `models.draws.Windows`), batch after batch; the state at a
lane's chunk's end is where its next one starts. A chunk of burn-in moves the state and trains nothing. (Williams &
Peng 1990.) How epochs make a training is in `models.epochs`.

The optimisers are written out, so that the step is a function of weights and moments like everything else here: one
compiled function serves all trainings of one shape, and nothing is left behind by them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from models.network import Masks, Shape, Tensor, call, scan_tile, scan_waves
from models.sequences import Batch, Sequences, Walk
from models.weights import check_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from models.architecture import Architecture, Float32, Weights
    from models.learning import TrainingSettings

SPIN_UP_STEPS = 64
EVALUATION_CHUNK = 256  # steps a call when nothing is trained
ADAM_FIRST, ADAM_SECOND = 0.9, 0.999
RMSPROP_SECOND = 0.9
TINY = 1e-7


class Moments(NamedTuple):
    """Weights in training with the optimiser's moments, as tensors in the architecture's order, and steps taken."""

    weights: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    steps: int

    @classmethod
    def of(cls, architecture: Architecture, weights: Weights) -> Moments:
        """The start of a training from some weights."""
        check_weights(architecture, weights)
        tensors = [tf.constant(weights[name]) for name in architecture.weight_shapes()]
        return cls(tensors, [tf.zeros_like(w) for w in tensors], [tf.zeros_like(w) for w in tensors], 0)

    def finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(np.isfinite(weight.numpy()).all() for weight in self.weights)

    def as_arrays(self, architecture: Architecture) -> Weights:
        """The weights by name."""
        return {name: tensor.numpy() for name, tensor in zip(architecture.weight_shapes(), self.weights, strict=True)}


class Recipe(NamedTuple):
    """All that the compiled training step depends on."""

    shape: Shape
    loss: str
    clip_norm: float
    dropout: float
    recurrent_dropout: float
    l1: float
    l2: float
    max_norm: float
    optimiser: str
    momentum: float
    weight_decay: float

    @classmethod
    def of(cls, architecture: Architecture, settings: TrainingSettings) -> Recipe:
        """The recipe of a training."""
        return cls(
            Shape.of(architecture),
            settings.loss,
            settings.clip_norm,
            settings.dropout,
            settings.recurrent_dropout,
            settings.l1,
            settings.l2,
            settings.max_norm,
            settings.optimiser,
            settings.momentum,
            settings.weight_decay,
        )


class Measured(NamedTuple):
    """Means over the labels of a span; NaN: there are none."""

    loss: float  # in units of the gain
    mse: float  # squared errors in units of the series' scale: comparable between gains and losses, not transforms


class Trainer:
    """Trains weights of one architecture on one set of sequences, step by step.

    `moments` is moved by `step` and `epoch`; nothing else is.
    """

    def __init__(
        self, architecture: Architecture, sequences: Sequences, settings: TrainingSettings, weights: Weights
    ) -> None:
        self._architecture = architecture
        self._sequences = sequences
        self._settings = settings
        self._gain = output_gain(architecture)
        recipe = Recipe.of(architecture, settings)
        self._recipe = recipe
        self._loss = _compiled_loss(recipe.shape, recipe.loss)
        self.moments = Moments.of(architecture, weights)

    def walk(self, end: int) -> Walk:
        """The lanes over the steps before `end`, cut as the settings say."""
        return Walk(self._sequences, end, self._settings.chunk, self._settings.segments)

    def usable(self, begin: int, end: int) -> int:
        """How many labels lie inside `begin…end`."""
        return self._sequences.usable(begin, end)

    def zero_state(self, lanes: int) -> Float32:
        """The carried state that series begin with, `(lanes, S)`."""
        return np.zeros((lanes, self._architecture.carried_size), np.float32)

    def step(self, batch: Batch, carried: Float32, rate: float) -> tuple[float, float, Float32]:
        """Sum of losses, number of labels and the state `(B, S)` after one step on a batch."""
        moments = self.moments
        plain = bool(batch.active.all()) and not batch.fresh[1:].any()
        if plain:
            carried = _begun(batch, carried)
        arguments = [
            *self._data(batch, carried),
            *moments.weights,
            *moments.first,
            *moments.second,
            np.float32(moments.steps + 1),
            np.float32(rate),
            np.array([self._settings.seed, moments.steps], np.int32),
        ]
        *moved, total, labels, after = call(_compiled_step(self._recipe, plain=plain), arguments)
        n = len(moments.weights)
        self.moments = Moments(moved[:n], moved[n : 2 * n], moved[2 * n :], moments.steps + 1)
        return float(total), float(labels), after.numpy()

    def follow(self, batch: Batch, carried: Float32) -> tuple[float, float, Float32]:
        """As `step`, with nothing trained."""
        total, _, labels, after = self._loss(*self._data(batch, carried), self.moments.weights)
        return float(total), float(labels), after.numpy()

    def burn_in(self, batch: Batch, carried: Float32) -> Float32:
        """The state `(B, S)` after a batch, nothing else."""
        if batch.fresh[1:].any() or not batch.active.size:
            return self.follow(batch, carried)[2]
        start = _begun(batch, carried)
        return scan_tile(self._recipe.shape, self.moments.weights, batch.inputs, batch.active, start)[1]

    def _data(self, batch: Batch, carried: Float32) -> tuple[Float32, ...]:
        return (
            batch.inputs,
            batch.active,  # type: ignore[return-value]
            batch.fresh,
            carried,
            batch.targets,
            batch.known,
            self._gain,
        )

    def epoch(
        self, tour: Iterable[tuple[Batch, bool]], carried: Float32, rate: float, most_steps: int | None = None
    ) -> tuple[float, int, Float32]:
        """Mean loss over an epoch's labels, their number, and the lanes' state `(B, S)` at its end.

        `tour` gives batches and whether they train or only move the state. It ends when `most_steps` have been taken
        in all, and at once when the loss is not finite any more, which is then given back.
        """
        carried = carried.copy()
        total = labels = 0.0
        for batch, wanted in tour:
            trains = wanted and bool(batch.known.any())
            before = carried[batch.lanes]
            if not trains:
                carried[batch.lanes] = self.burn_in(batch, before)
                continue
            loss, count, carried[batch.lanes] = self.step(batch, before, rate)
            total, labels = total + loss, labels + count
            if not math.isfinite(total) or self.moments.steps == most_steps:
                break
        return (total / labels if labels else math.nan), int(labels), carried

    def evaluate(self, begin: int, end: int) -> float:
        """Mean loss over the labels inside `begin…end`, the state run through the steps before; NaN: none."""
        return self.measure(begin, end).loss

    def measure(self, begin: int, end: int) -> Measured:
        """As `evaluate`, with the mean squared scaled error."""
        sequences = self._sequences
        spin_up = max(SPIN_UP_STEPS, self._architecture.period_steps)
        start = max(0, begin - spin_up)
        whole = Walk(sequences, end, EVALUATION_CHUNK, segments=1)
        cuts = [*range(start, begin, EVALUATION_CHUNK), *range(begin, end, EVALUATION_CHUNK), end]
        sums = np.zeros(3)  # loss, squared error, labels
        for first in range(0, whole.lanes, self._settings.batch_lanes):
            lanes = np.arange(first, min(first + self._settings.batch_lanes, whole.lanes))
            carried = self.zero_state(len(lanes))
            for a, b in pairwise(cuts):
                batch = whole.at_times(lanes, a, b)
                *found, after = self._loss(*self._data(batch, carried), self.moments.weights)
                carried = after.numpy()
                if a >= begin:
                    sums += [float(value) for value in found]
        return Measured(*(sums[:2] / sums[2]).tolist()) if sums[2] else Measured(math.nan, math.nan)


def _begun(batch: Batch, carried: Float32) -> Float32:
    """The carried state, zero where a lane begins with the batch."""
    return np.where(batch.fresh[0][:, None], np.float32(0.0), carried)


def output_gain(architecture: Architecture) -> Float32:
    """What the network's output is multiplied by, `(H,)`: the gains, or ones in the "plain" form."""
    if not architecture.has_gain:
        return np.ones(architecture.horizon, np.float32)
    return np.asarray(architecture.gain, np.float32)


@lru_cache(maxsize=64)
def _compiled_step(recipe: Recipe, *, plain: bool) -> Tensor:
    """One step of training as a function: data, weights, moments → weights, moments, loss, labels, state.

    `plain`: all lanes are always active, and none becomes fresh on its way; equal bits in a third less time.
    """

    def run(  # noqa: PLR0913, PLR0917 - tensors of one step
        x: Tensor,
        active: Tensor,
        fresh: Tensor,
        carried: Tensor,
        targets: Tensor,
        known: Tensor,
        gain: Tensor,
        weights: list[Tensor],
        first: list[Tensor],
        second: list[Tensor],
        number: Tensor,
        rate: Tensor,
        seed: Tensor,
    ) -> tuple[Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            masks = _dropout_masks(recipe, tf.shape(carried)[0], seed)
            lanes = (None, None) if plain else (active, fresh)
            outputs, after = scan_waves(recipe.shape, x, lanes[0], carried, weights, lanes[1], masks)
            total = _loss_sum(recipe.loss, outputs, targets / gain, known)
            labels = tf.reduce_sum(known)
            mean = total / tf.maximum(labels, 1.0)
            if recipe.l1:
                mean += recipe.l1 * tf.add_n([tf.reduce_sum(tf.abs(weights[i])) for i in kernels])
            if recipe.l2:
                mean += recipe.l2 * tf.add_n([tf.reduce_sum(weights[i] * weights[i]) for i in kernels])
        gradients = [tf.clip_by_norm(g, recipe.clip_norm) for g in tape.gradient(mean, weights)]
        moved, first, second = _moved(recipe, Moments(weights, first, second, number), gradients, rate)
        if recipe.max_norm:
            moved = [_bounded(w, recipe.max_norm) if i in kernels else w for i, w in enumerate(moved)]
        return moved, first, second, total, labels, after

    kernels = _kernels(recipe.shape)
    tensors = [tf.TensorSpec(shape, tf.float32) for shape in recipe.shape.weights]
    scalar = tf.TensorSpec([], tf.float32)
    signature = [*_data_signature(recipe.shape), tensors, tensors, tensors, scalar, scalar]
    compiled = tf.function(
        run, input_signature=[*signature, tf.TensorSpec([2], tf.int32)], jit_compile=False, autograph=False
    )
    return compiled.get_concrete_function()


def _moved(
    recipe: Recipe, at: Moments, gradients: list[Tensor], rate: Tensor
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights and moments after the step whose number is `at.steps`, counted from 1.

    "adam": Kingma & Ba (2015), algorithm 1, in its efficient form. "adamw": Loshchilov & Hutter (2019),
    arXiv:1711.05101; biases don't decay. "rmsprop": Tieleman & Hinton (2012), lecture 6.5. "sgd" with momentum: Polyak
    (1964). Constants and the place of the tiny number are those of Keras.
    """
    weights, first, second, number = at
    if recipe.optimiser == "sgd":
        first = [recipe.momentum * m - rate * g for m, g in zip(first, gradients, strict=True)]
        return [w + m for w, m in zip(weights, first, strict=True)], first, second
    if recipe.optimiser == "rmsprop":
        second = [RMSPROP_SECOND * v + (1.0 - RMSPROP_SECOND) * g * g for v, g in zip(second, gradients, strict=True)]
        moves = [rate * g / tf.sqrt(v + TINY) for g, v in zip(gradients, second, strict=True)]
        return [w - move for w, move in zip(weights, moves, strict=True)], first, second
    if recipe.optimiser == "adamw":
        kernels, keep = _kernels(recipe.shape), 1.0 - rate * recipe.weight_decay
        weights = [w * keep if i in kernels else w for i, w in enumerate(weights)]
    rate *= tf.sqrt(1.0 - ADAM_SECOND**number) / (1.0 - ADAM_FIRST**number)
    first = [ADAM_FIRST * m + (1.0 - ADAM_FIRST) * g for m, g in zip(first, gradients, strict=True)]
    second = [ADAM_SECOND * v + (1.0 - ADAM_SECOND) * g * g for v, g in zip(second, gradients, strict=True)]
    moved = [w - rate * m / (tf.sqrt(v) + TINY) for w, m, v in zip(weights, first, second, strict=True)]
    return moved, first, second


def _kernels(shape: Shape) -> list[int]:
    """Which of the weights are kernels, not biases: by layer, and the head's."""
    layers = range(len(shape.units))
    return [*(3 * i + j for i in layers for j in (0, 1)), len(shape.weights) - 2]


def _bounded(kernel: Tensor, most: float) -> Tensor:
    """The kernel with each unit's incoming weights scaled down to a norm of at most `most`.

    Srivastava et al. (2014), "Dropout", section 5.1; as the MaxNorm constraint of Keras.
    """
    norms = tf.sqrt(tf.reduce_sum(kernel * kernel, axis=0, keepdims=True))
    return kernel * (most / tf.maximum(norms, most))


@lru_cache(maxsize=32)
def _compiled_loss(shape: Shape, loss: str) -> Callable[..., tuple[Tensor, ...]]:
    """The loss and the state after a batch as a function: data, weights → loss, squared error, labels, state."""

    def run(  # noqa: PLR0913, PLR0917 - tensors of one step
        x: Tensor,
        active: Tensor,
        fresh: Tensor,
        carried: Tensor,
        targets: Tensor,
        known: Tensor,
        gain: Tensor,
        weights: list[Tensor],
    ) -> tuple[Tensor, ...]:
        outputs, after = scan_waves(shape, x, active, carried, weights, fresh)
        squared = tf.reduce_sum((outputs * gain - targets) ** 2 * known)
        return _loss_sum(loss, outputs, targets / gain, known), squared, tf.reduce_sum(known), after

    tensors = [tf.TensorSpec(weight, tf.float32) for weight in shape.weights]
    return tf.function(  # type: ignore[no-any-return]
        run, input_signature=[*_data_signature(shape), tensors], jit_compile=False, autograph=False
    )


def _data_signature(shape: Shape) -> list[Tensor]:
    labels = tf.TensorSpec([None, None, shape.horizon], tf.float32)
    flags = tf.TensorSpec([None, None], tf.bool)
    return [
        tf.TensorSpec([None, None, shape.inputs], tf.float32),
        flags,
        flags,
        tf.TensorSpec([None, shape.carried], tf.float32),
        labels,
        labels,
        tf.TensorSpec([shape.horizon], tf.float32),
    ]


def _loss_sum(loss: str, outputs: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """The sum of the losses over known labels; Huber's with δ = 1 (Huber 1964)."""
    error = outputs - targets
    absolute = tf.abs(error)
    if loss == "mse":
        each = error * error
    elif loss == "mae":
        each = absolute
    else:
        each = tf.where(absolute <= 1.0, 0.5 * error * error, absolute - 0.5)
    return tf.reduce_sum(each * known)


def _dropout_masks(recipe: Recipe, lanes: Tensor, seed: Tensor) -> list[Masks] | None:
    """Masks that stay as they are over a chunk (Gal & Ghahramani 2016, arXiv:1512.05287), None without."""
    if not (recipe.dropout or recipe.recurrent_dropout):
        return None
    masks = []
    fan_in = recipe.shape.inputs
    for i, units in enumerate(recipe.shape.units):
        drawn = []
        for j, (width, share) in enumerate(((fan_in, recipe.dropout), (units, recipe.recurrent_dropout))):
            noise = tf.random.stateless_uniform([lanes, width], seed + tf.constant([7919 * (2 * i + j), 0]))
            drawn.append(tf.cast(noise >= share, tf.float32) / (1.0 - share))
        masks.append(Masks(*drawn))
        fan_in = units
    return masks
