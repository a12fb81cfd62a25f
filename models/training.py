"""Training: truncated back-propagation through time whose state is carried on, never reset between chunks.

Lanes (series cut into segments) are walked side by side in time order, chunk after chunk; the state at a
chunk's end is the next one's start, and across epochs a segment starts from where the one before it ended. In
the first epoch the first chunk is burn-in: it moves the state and trains nothing. (Williams & Peng 1990.)

Adam is written out (Kingma & Ba 2015, algorithm 1, in its efficient form) so that the step is a function of
weights and moments like everything else here: one compiled function serves all trainings of one shape, and
nothing is left behind by them.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from models.errors import DataError, VersionError
from models.learning import EpochReport, TrainingOutcome, TrainingSettings, diagnose, rate_at
from models.network import Masks, Shape, Tensor, scan_waves
from models.sequences import Batch, Sequences, Spans, Walk
from models.weights import check_weights, fresh_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.architecture import Architecture, Float32, Weights

SPIN_UP_STEPS = 64
EVALUATION_CHUNK = 256  # steps a call when nothing is trained
ADAM_FIRST, ADAM_SECOND, ADAM_TINY = 0.9, 0.999, 1e-7
CLOSING_RATE_SHARE = 0.25


class Moments(NamedTuple):
    """Weights in training with Adam's moments, as tensors in the architecture's order, and steps taken."""

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
    l2: float

    @classmethod
    def of(cls, architecture: Architecture, settings: TrainingSettings) -> Recipe:
        """The recipe of a training."""
        return cls(
            Shape.of(architecture),
            settings.loss,
            settings.clip_norm,
            settings.dropout,
            settings.recurrent_dropout,
            settings.l2,
        )


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
        self._step = _compiled_step(recipe)
        self._loss = _compiled_loss(recipe.shape, recipe.loss)
        self.moments = Moments.of(architecture, weights)

    def walk(self, end: int) -> Walk:
        """The lanes over the steps before `end`, cut as the settings say."""
        return Walk(self._sequences, end, self._settings.chunk, self._settings.segments)

    def zero_state(self, lanes: int) -> Float32:
        """The carried state that series begin with, `(lanes, S)`."""
        return np.zeros((lanes, self._architecture.carried_size), np.float32)

    def step(self, batch: Batch, carried: Float32, rate: float) -> tuple[float, float, Float32]:
        """Sum of losses, number of labels and the state `(B, S)` after one step on a batch.

        Raises:
            VersionError: the loss is not finite any more.
        """
        moments = self.moments
        result = self._step(
            *self._data(batch, carried),
            moments.weights,
            moments.first,
            moments.second,
            np.float32(moments.steps + 1),
            np.float32(rate),
            np.array([self._settings.seed, moments.steps], np.int32),
        )
        weights, first, second, total, labels, after = result
        loss = float(total)
        if not math.isfinite(loss):
            raise VersionError(
                f"training exploded: the loss is {loss} at step {moments.steps + 1} with rate {rate:g}",
                "lower training.rate or training.clip_norm",
            )
        self.moments = Moments(weights, first, second, moments.steps + 1)
        return loss, float(labels), after.numpy()

    def follow(self, batch: Batch, carried: Float32) -> tuple[float, float, Float32]:
        """As `step`, with nothing trained."""
        total, labels, after = self._loss(*self._data(batch, carried), self.moments.weights)
        return float(total), float(labels), after.numpy()

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
        self, walk: Walk, carried: Float32, rate: float, rng: np.random.Generator, burn_in_chunks: int
    ) -> tuple[float, Float32]:
        """Mean loss over an epoch's labels and the lanes' state `(B, S)` at its end."""
        groups = -(-walk.lanes // self._settings.batch_lanes)
        carried = carried.copy()
        total = labels = 0.0
        for number, (begin, end) in enumerate(walk.boundaries(rng)):
            for batch in walk.batches(begin, end, groups, rng):
                trains = number >= burn_in_chunks and batch.known.any()
                run = (lambda b, c: self.step(b, c, rate)) if trains else self.follow
                loss, count, carried[batch.lanes] = run(batch, carried[batch.lanes])
                if trains:
                    total, labels = total + loss, labels + count
        if not labels:
            raise DataError(
                f"{walk.lanes} segments of up to {walk.longest} steps hold no label to train on",
                "give a longer history, or lower training.chunk or training.burn_in_chunks",
            )
        return total / labels, carried

    def evaluate(self, begin: int, end: int) -> float:
        """Mean loss over the labels inside `begin…end`, the state run through the steps before; NaN: none."""
        sequences = self._sequences
        spin_up = max(SPIN_UP_STEPS, self._architecture.period_steps)
        start = max(0, begin - spin_up)
        whole = Walk(sequences, end, EVALUATION_CHUNK, segments=1)
        total = labels = 0.0
        for lanes in np.array_split(np.arange(whole.lanes), -(-whole.lanes // self._settings.batch_lanes)):
            carried = self.zero_state(len(lanes))
            cuts = [*range(start, begin, EVALUATION_CHUNK), *range(begin, end, EVALUATION_CHUNK), end]
            for a, b in pairwise(cuts):
                batch = whole.at_times(lanes, a, b)
                loss, count, carried = self.follow(batch, carried)
                if a >= begin:
                    total, labels = total + loss, labels + count
        return total / labels if labels else math.nan


def output_gain(architecture: Architecture) -> Float32:
    """What the network's output is multiplied by, `(H,)`: the gains, or ones in the "plain" form."""
    if architecture.form == "plain":
        return np.ones(architecture.horizon, np.float32)
    return np.asarray(architecture.gain, np.float32)


def train(
    architecture: Architecture,
    sequences: Sequences,
    spans: Spans,
    settings: TrainingSettings,
    on_epoch: Callable[[EpochReport], None] | None = None,
    weights: Weights | None = None,
) -> TrainingOutcome:
    """Weights trained on `…train_end`, stopped early by `train_end…validation_end`, then closed over both.

    Raises:
        DataError: there is nothing to train or to validate on.
        VersionError: the training exploded.
    """
    started = time.monotonic()
    rng = np.random.default_rng(settings.seed)
    start = fresh_weights(architecture, settings.seed) if weights is None else weights
    trainer = Trainer(architecture, sequences, settings, start)
    if not sequences.usable(spans.train_end, spans.validation_end):
        raise DataError("the validation span holds no label", "give a longer history or a larger validation share")
    untrained = (
        trainer.evaluate(0, spans.train_end),
        trainer.evaluate(spans.train_end, spans.validation_end),
    )
    curve, best, kept = _search(trainer, spans, settings, rng, on_epoch)
    steps = trainer.moments.steps
    trainer.moments = kept
    _close(trainer, spans, settings, rng)
    diagnosis, words = diagnose(curve, best, *untrained)
    return TrainingOutcome(
        weights=trainer.moments.as_arrays(architecture),
        curve=tuple(curve),
        best_epoch=best,
        reference_train_loss=untrained[0],
        reference_validation_loss=untrained[1],
        diagnosis=diagnosis,
        words=words,
        steps=steps + trainer.moments.steps - kept.steps,
        seconds=time.monotonic() - started,
    )


def _search(
    trainer: Trainer,
    spans: Spans,
    settings: TrainingSettings,
    rng: np.random.Generator,
    on_epoch: Callable[[EpochReport], None] | None,
) -> tuple[list[EpochReport], int, Moments]:
    """The learning curve, its best epoch, and weights and moments as they were after it."""
    walk = trainer.walk(spans.train_end)
    carried = trainer.zero_state(walk.lanes)
    curve: list[EpochReport] = []
    best, kept = 0, trainer.moments
    for epoch in range(1, settings.epochs + 1):
        since = time.monotonic()
        burn_in = settings.burn_in_chunks if epoch == 1 else 0
        train_loss, carried = trainer.epoch(walk, carried, rate_at(settings, epoch), rng, burn_in)
        carried = walk.handed_on(carried)
        loss = trainer.evaluate(spans.train_end, spans.validation_end)
        better = not curve or loss < curve[best - 1].validation_loss
        if better:
            best, kept = epoch, trainer.moments
        curve.append(EpochReport(epoch, settings.epochs, train_loss, loss, better, time.monotonic() - since))
        if on_epoch:
            on_epoch(curve[-1])
        if epoch - best >= settings.patience:
            break
    return curve, best, kept


def _close(trainer: Trainer, spans: Spans, settings: TrainingSettings, rng: np.random.Generator) -> None:
    """Take the validation span in: a few epochs over training and validation at a low rate."""
    walk = trainer.walk(spans.validation_end)
    carried = trainer.zero_state(walk.lanes)
    for number in range(settings.closing_epochs):
        burn_in = settings.burn_in_chunks if number == 0 else 0
        _, carried = trainer.epoch(walk, carried, settings.rate * CLOSING_RATE_SHARE, rng, burn_in)
        carried = walk.handed_on(carried)


@lru_cache(maxsize=32)
def _compiled_step(recipe: Recipe) -> Callable[..., tuple[Tensor, ...]]:
    """One step of training as a function: data, weights, moments → weights, moments, loss, labels, state."""

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
            outputs, after = scan_waves(recipe.shape, x, active, carried, weights, fresh, masks)
            total = _loss_sum(recipe.loss, outputs, targets / gain, known)
            labels = tf.reduce_sum(known)
            mean = total / tf.maximum(labels, 1.0)
            if recipe.l2:
                mean += recipe.l2 * tf.add_n([tf.reduce_sum(w * w) for w in weights if len(w.shape) == 2])
        gradients = [tf.clip_by_norm(g, recipe.clip_norm) for g in tape.gradient(mean, weights)]
        rate *= tf.sqrt(1.0 - ADAM_SECOND**number) / (1.0 - ADAM_FIRST**number)
        first = [ADAM_FIRST * m + (1.0 - ADAM_FIRST) * g for m, g in zip(first, gradients, strict=True)]
        second = [ADAM_SECOND * v + (1.0 - ADAM_SECOND) * g * g for v, g in zip(second, gradients, strict=True)]
        moved = [w - rate * m / (tf.sqrt(v) + ADAM_TINY) for w, m, v in zip(weights, first, second, strict=True)]
        return moved, first, second, total, labels, after

    tensors = [tf.TensorSpec(shape, tf.float32) for shape in recipe.shape.weights]
    scalar = tf.TensorSpec([], tf.float32)
    signature = [*_data_signature(recipe.shape), tensors, tensors, tensors, scalar, scalar]
    return tf.function(  # type: ignore[no-any-return]
        run, input_signature=[*signature, tf.TensorSpec([2], tf.int32)], jit_compile=False, autograph=False
    )


@lru_cache(maxsize=32)
def _compiled_loss(shape: Shape, loss: str) -> Callable[..., tuple[Tensor, ...]]:
    """The loss and the state after a batch as a function: data, weights → loss, labels, state."""

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
        return _loss_sum(loss, outputs, targets / gain, known), tf.reduce_sum(known), after

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
