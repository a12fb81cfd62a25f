"""A training's settings, its learning curve, and what the curve says: values only, no TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from models import choices
from models.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.architecture import Weights

FINAL_RATE_SHARE = 0.05  # of the rate, where the cosine ends
DECAY_EPOCHS = 8.0  # after so many a decaying rate is halved
LEAST_GAINED = 0.005  # of the reference's validation loss: less is nothing
LEAST_LEARNED = 0.02  # of the reference's training loss
OVERFIT_RISE = 1.05  # of the best validation loss
EXPLODED = "exploded"  # a diagnosis
DIVERGED = 10.0  # times the validation loss before training


def known(value: float) -> float | None:
    """The value, None where it is no number: JSON has none such."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class TrainingSettings:
    """How a version is trained.

    `epochs` at most; `patience` epochs without a better validation loss end it; `closing_epochs` more, at a
    quarter of the rate, take in the validation span. Rates fall by `schedule`: "constant", "cosine", or
    "decaying" as 1/(1 + epoch/8). `batch_lanes` bounds the lanes of one step. `l1` and `l2` weigh absolute and
    squared kernels in the loss; `max_norm` bounds the norm of each unit's incoming weights, 0 leaves them free.
    `momentum` is that of "sgd"; `weight_decay` is what "adamw" takes off kernels, a share of them times the rate.
    `start` is how fresh kernels are drawn, `head_start` whether the last layer is drawn too or begins at zero.

    Raises:
        ConfigError: a value can't be used.
    """

    epochs: int = 60
    patience: int = 8
    closing_epochs: int = 3
    rate: float = 2e-3
    schedule: Literal["constant", "cosine", "decaying"] = "constant"
    optimiser: choices.Optimiser = "adam"
    momentum: float = 0.0
    weight_decay: float = 0.0
    start: choices.Start = "glorot"
    head_start: choices.HeadStart = "zero"
    chunk: int = 48
    segments: int = 8
    burn_in_chunks: int = 1
    batch_lanes: int = 256
    loss: Literal["huber", "mae", "mse"] = "huber"
    clip_norm: float = 1.0
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    max_norm: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1, 10_000),
            "patience": (1, 10_000),
            "closing_epochs": (0, 1_000),
            "rate": (1e-8, 1.0),
            "momentum": (0.0, 0.999),
            "weight_decay": (0.0, 1.0),
            "chunk": (2, 4_096),
            "segments": (1, 1_024),
            "burn_in_chunks": (0, 64),
            "batch_lanes": (1, 65_536),
            "clip_norm": (1e-6, 1e6),
            "dropout": (0.0, 0.9),
            "recurrent_dropout": (0.0, 0.9),
            "l1": (0.0, 1.0),
            "l2": (0.0, 1.0),
            "max_norm": (0.0, 1e6),
            "seed": (0, 2**31 - 1),
        }
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ConfigError(f"training.{name} is {value}", f"it must be {lowest:g} to {highest:g}")
        for name, allowed in (
            ("loss", ("huber", "mae", "mse")),
            ("schedule", ("constant", "cosine", "decaying")),
            ("optimiser", choices.OPTIMISERS),
            ("start", choices.STARTS),
            ("head_start", choices.HEAD_STARTS),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"training.{name} is {getattr(self, name)!r}", f"use one of {', '.join(allowed)}")
        for problem, cure in choices.of_optimiser(self.optimiser, self.momentum, self.weight_decay):
            raise ConfigError(f"training.{problem}", cure)


@dataclass(frozen=True)
class EpochReport:
    """What one epoch came to; losses are means over labels in units of the gain."""

    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float
    best: bool
    seconds: float


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training came to: the weights to use and how they were found.

    An exploded one has a diagnosis and words for that, a curve that ends there, and no weights worth having.
    `validation_mse` is in units of the series' scale, of the target as the architecture sees it: between transforms
    compare forecasts. `steps` are all that were taken, `kept_steps` those that the weights have taken.
    """

    weights: Weights
    curve: tuple[EpochReport, ...]
    best_epoch: int
    reference_train_loss: float
    reference_validation_loss: float
    validation_mse: float
    diagnosis: str
    words: str
    steps: int
    kept_steps: int
    seconds: float

    @property
    def exploded(self) -> bool:
        """Whether the training ended in numbers that are no weights."""
        return self.diagnosis == EXPLODED

    @property
    def best(self) -> EpochReport:
        """The epoch whose weights were kept."""
        return self.curve[self.best_epoch - 1]


def rate_at(settings: TrainingSettings, epoch: int) -> float:
    """The rate of an epoch, counted from 1, by the schedule; it falls no further when the epochs are over."""
    done = min(1.0, (epoch - 1) / settings.epochs)
    if settings.schedule == "cosine":  # Loshchilov & Hutter (2017), one cycle
        share = FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * 0.5 * (1.0 + math.cos(math.pi * done))
    elif settings.schedule == "decaying":
        share = 1.0 / (1.0 + (epoch - 1) / DECAY_EPOCHS)
    else:
        share = 1.0
    return settings.rate * share


def went_wrong(report: EpochReport, reference_validation_loss: float, step: int, rate: float) -> str:
    """What says that a training exploded in this epoch; empty: it did not."""
    if not math.isfinite(report.train_loss):
        return f"exploded: the loss is {report.train_loss} at step {step} with rate {rate:g}"
    if not math.isfinite(report.validation_loss):
        return f"exploded: the validation loss is {report.validation_loss} after step {step} with rate {rate:g}"
    if report.validation_loss > DIVERGED * reference_validation_loss > 0:
        return (
            f"exploded: the validation loss is {report.validation_loss:.4g} after step {step} with rate {rate:g}, "
            f"more than {DIVERGED:g} times the {reference_validation_loss:.4g} before training"
        )
    return ""


def diagnose(
    curve: Sequence[EpochReport],
    best: int,
    reference_train_loss: float,
    reference_validation_loss: float,
    before: Literal["untrained", "before the update"] = "untrained",
) -> tuple[str, str]:
    """One word and one sentence about a learning curve, against the losses of the weights that it began with."""
    last, kept = curve[-1], curve[best - 1]
    gained = 1.0 - kept.validation_loss / reference_validation_loss if reference_validation_loss > 0 else 0.0
    learned = 1.0 - last.train_loss / reference_train_loss if reference_train_loss > 0 else 0.0
    numbers = f"validation loss {kept.validation_loss:.4f} at epoch {best}, "
    numbers += f"{reference_validation_loss:.4f} {before}"
    anew = before == "untrained"
    if gained < LEAST_GAINED and learned < LEAST_LEARNED:
        cure = "more units or epochs" if anew else "a higher rate or more epochs"
        cure = "a lower rate" if learned < -LEAST_LEARNED else cure
        return "underfit", f"underfit: little was learned ({numbers}); try {cure}"
    if gained < LEAST_GAINED:
        cure = "fewer units or more data" if anew else "a lower rate or more data"
        return "overfit", f"overfit: what was learned doesn't carry over ({numbers}); try {cure}"
    if last.validation_loss > OVERFIT_RISE * kept.validation_loss and last.train_loss < kept.train_loss:
        return "good fit", f"good fit, taken before it overfits ({numbers})"
    if best == last.epochs:
        return "good fit", f"good fit, still improving when the epochs ended ({numbers}); more epochs may help"
    return "good fit", f"good fit ({numbers})"
