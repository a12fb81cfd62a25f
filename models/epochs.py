"""A training: epoch after epoch until the validation loss falls no more, and what it came to in words.

`train` makes a version of whole series whose state is carried on, from segment to segment across epochs (the fit).
`retrain` makes one of windows of recent and of old data, from an incumbent's weights or fresh ones. `update` is the
plain one: so many passes over windows, which nothing stops early.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from models.errors import DataError, VersionError
from models.learning import EXPLODED, EpochReport, TrainingOutcome, diagnose, rate_at, went_wrong
from models.training import Moments, Trainer
from models.weights import fresh_weights, with_zero_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.architecture import Architecture, Weights
    from models.draws import Range, Windows
    from models.learning import TrainingSettings
    from models.sequences import Sequences, Spans

CLOSING_RATE_SHARE = 0.25
TOO_HIGH = "lower training.rate or training.clip_norm"


class _Search(NamedTuple):
    """A learning curve, its best epoch with weights, moments and error as they were after it; what went wrong."""

    curve: list[EpochReport]
    best: int
    kept: Moments
    mse: float
    wrong: str


class _Course(NamedTuple):
    """How a trainer is taken through an epoch at a rate, and where losses are measured."""

    trainer: Trainer
    settings: TrainingSettings
    epoch: Callable[[float], float]  # rate → mean training loss
    training: Range
    validation: Range


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
    rng = np.random.default_rng(settings.seed)
    start = _begun(architecture, settings) if weights is None else weights
    trainer = Trainer(architecture, sequences, settings, start)
    course = _Course(
        trainer,
        settings,
        _segments(trainer, spans.train_end, settings, rng),
        (0, spans.train_end),
        (spans.train_end, spans.validation_end),
    )

    def closing() -> Callable[[float], float]:
        return _segments(trainer, spans.validation_end, settings, rng)

    before: Literal["untrained", "before the update"] = "untrained" if weights is None else "before the update"
    outcome = _run(course, architecture, closing, on_epoch, before)
    if outcome.exploded:
        raise VersionError(f"training {outcome.words}", TOO_HIGH)
    return outcome


def _begun(architecture: Architecture, settings: TrainingSettings) -> Weights:
    return fresh_weights(architecture, settings.seed, settings.start, settings.head_start)


def _segments(
    trainer: Trainer, end: int, settings: TrainingSettings, rng: np.random.Generator
) -> Callable[[float], float]:
    """Epochs over all steps before `end`, the first one with burn-in; state is handed on from one to the next."""
    walk = trainer.walk(end)
    carried, burn_in = trainer.zero_state(walk.lanes), settings.burn_in_chunks

    def epoch(rate: float) -> float:
        nonlocal carried, burn_in
        loss, labels, after = trainer.epoch(walk.tour(rng, settings.batch_lanes, burn_in), carried, rate)
        if not labels:
            raise DataError(
                f"{walk.lanes} segments of up to {walk.longest} steps hold no label to train on",
                "give a longer history, or lower training.chunk or training.burn_in_chunks",
            )
        carried, burn_in = walk.handed_on(after), 0
        return loss

    return epoch


class Material(NamedTuple):
    """What a retraining trains on and is validated on; `closing`: what it takes in at its end."""

    windows: Windows
    training: Range  # that the loss before training is measured on
    validation: Range
    closing: Windows | None = None


def retrain(
    architecture: Architecture,
    sequences: Sequences,
    material: Material,
    settings: TrainingSettings,
    weights: Weights | None,
    exactly: int | None = None,
) -> TrainingOutcome:
    """Weights trained on windows, from `weights` or fresh ones; `exactly` so many steps, or stopped by validation.

    An exploded training is an outcome too.

    Raises:
        DataError: there is nothing to train or to validate on.
    """
    rng = np.random.default_rng(settings.seed)
    start = _begun(architecture, settings) if weights is None else weights
    trainer = Trainer(architecture, sequences, settings, start)
    course = _Course(
        trainer,
        settings,
        _drawn(trainer, material.windows, settings, rng, exactly),
        material.training,
        material.validation,
    )

    def closing() -> Callable[[float], float]:
        return _drawn(trainer, material.closing or material.windows, settings, rng)

    before: Literal["untrained", "before the update"] = "untrained" if weights is None else "before the update"
    return _run(course, architecture, closing if material.closing else None, None, before, exactly)


class Updated(NamedTuple):
    """What a plain update came to; an exploded one has the words for that, and weights that are of no use."""

    weights: Weights
    steps: int
    seconds: float
    wrong: str


def update(
    architecture: Architecture,
    sequences: Sequences,
    windows: Windows,
    settings: TrainingSettings,
    weights: Weights,
    passes: int,
) -> Updated:
    """Weights after so many passes over windows from `weights` on; the rate falls from that of the settings towards 0.

    Raises:
        DataError: the windows hold no label.
    """
    started = time.monotonic()
    trainer = Trainer(architecture, sequences, settings, weights)
    epoch = _drawn(trainer, windows, settings, np.random.default_rng(settings.seed))
    loss = 0.0
    for done in range(passes):
        loss = epoch(settings.rate * (1.0 - done / passes))
        if not math.isfinite(loss):
            break
    wrong = "" if math.isfinite(loss) and trainer.moments.finite() else f"exploded: the loss became {loss}"
    return Updated(trainer.moments.as_arrays(architecture), trainer.moments.steps, time.monotonic() - started, wrong)


def _drawn(
    trainer: Trainer,
    windows: Windows,
    settings: TrainingSettings,
    rng: np.random.Generator,
    most_steps: int | None = None,
) -> Callable[[float], float]:
    """Epochs over windows that are drawn anew for each; every window's state starts from zero."""

    def epoch(rate: float) -> float:
        lanes = windows.draw(rng)
        tour = windows.tour(lanes, rng, settings.batch_lanes)
        loss, labels, _ = trainer.epoch(tour, trainer.zero_state(len(lanes.series)), rate, most_steps)
        if not labels:
            raise DataError(
                f"{len(lanes.series)} windows of recent and old data hold no label to train on",
                "wait for more data: a series' first period and all that is missing train nothing",
            )
        return loss

    return epoch


def _run(
    course: _Course,
    architecture: Architecture,
    closing: Callable[[], Callable[[float], float]] | None,
    on_epoch: Callable[[EpochReport], None] | None,
    before: Literal["untrained", "before the update"],
    exactly: int | None = None,
) -> TrainingOutcome:
    started = time.monotonic()
    trainer, settings = course.trainer, course.settings
    if not trainer.usable(*course.validation):
        raise DataError("the validation span holds no label", "give a longer history or a larger validation share")
    reference = _reference(course, architecture, anew=before == "untrained")
    found = _search(course, reference[1], on_epoch, exactly)
    steps, wrong = trainer.moments.steps, found.wrong
    trainer.moments = found.kept
    if closing is not None and not wrong:
        wrong = _close(trainer, closing(), settings)
    steps += trainer.moments.steps - found.kept.steps
    diagnosis, words = (EXPLODED, wrong) if wrong else diagnose(found.curve, found.best, *reference, before)
    return TrainingOutcome(
        weights=trainer.moments.as_arrays(architecture),
        curve=tuple(found.curve),
        best_epoch=found.best,
        reference_train_loss=reference[0],
        reference_validation_loss=reference[1],
        validation_mse=found.mse,
        diagnosis=diagnosis,
        words=words,
        steps=steps,
        kept_steps=trainer.moments.steps,
        seconds=time.monotonic() - started,
    )


def _reference(course: _Course, architecture: Architecture, *, anew: bool) -> tuple[float, float]:
    """The losses before training over both spans: of fresh weights those with the head at zero, however it begins."""
    trainer, began = course.trainer, course.trainer.moments
    if anew:
        trainer.moments = Moments.of(architecture, with_zero_head(began.as_arrays(architecture)))
    losses = trainer.evaluate(*course.training), trainer.evaluate(*course.validation)
    trainer.moments = began
    return losses


def _search(
    course: _Course, reference: float, on_epoch: Callable[[EpochReport], None] | None, exactly: int | None
) -> _Search:
    """Epochs until validation stops them; until `exactly` so many steps are taken, if that is given."""
    trainer, settings = course.trainer, course.settings
    curve: list[EpochReport] = []
    best, kept, mse = 1, trainer.moments, math.nan
    epoch = 0
    while (epoch < settings.epochs) if exactly is None else (trainer.moments.steps < exactly):
        epoch += 1
        since = time.monotonic()
        rate = rate_at(settings, epoch)
        train_loss = course.epoch(rate)
        measured = trainer.measure(*course.validation)
        better = epoch == 1 or exactly is not None or measured.loss < curve[best - 1].validation_loss
        report = EpochReport(
            epoch, settings.epochs, train_loss, measured.loss, better, seconds=time.monotonic() - since
        )
        curve.append(report)
        wrong = went_wrong(report, reference, trainer.moments.steps, rate)
        if wrong:
            return _Search(curve, best, kept, mse, wrong)
        if better:
            best, kept, mse = epoch, trainer.moments, measured.mse
        if on_epoch:
            on_epoch(report)
        if exactly is None and epoch - best >= settings.patience:
            break
    return _Search(curve, best, kept, mse, "")


def _close(trainer: Trainer, epoch: Callable[[float], float], settings: TrainingSettings) -> str:
    """A few epochs at a low rate that take the validation span in; what went wrong, if anything did."""
    for _ in range(settings.closing_epochs):
        loss = epoch(settings.rate * CLOSING_RATE_SHARE)
        if not math.isfinite(loss) or not trainer.moments.finite():
            return f"exploded: the loss became {loss} when the validation span was taken in"
    return ""
