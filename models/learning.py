"""A training's settings, its learning curve, and what the curve says: values only, no TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from models.errors import ConfigError

if TYPE_CHECKING:
    from models.architecture import Weights

FINAL_RATE_SHARE = 0.05  # of the rate, where the cosine ends
DECAY_EPOCHS = 8.0  # after so many a decaying rate is halved
LEAST_GAINED = 0.005  # of the reference's validation loss: less is nothing
LEAST_LEARNED = 0.02  # of the reference's training loss
OVERFIT_RISE = 1.05  # of the best validation loss


@dataclass(frozen=True)
class TrainingSettings:
    """How a version is trained.

    `epochs` at most; `patience` epochs without a better validation loss end it; `closing_epochs` more, at a
    quarter of the rate, take in the validation span. Rates fall by `schedule`: "constant", "cosine", or
    "decaying" as 1/(1 + epoch/8). `batch_lanes` bounds the lanes of one step.

    Raises:
        ConfigError: a value can't be used.
    """

    epochs: int = 60
    patience: int = 8
    closing_epochs: int = 3
    rate: float = 2e-3
    schedule: Literal["constant", "cosine", "decaying"] = "constant"
    chunk: int = 48
    segments: int = 8
    burn_in_chunks: int = 1
    batch_lanes: int = 256
    loss: Literal["huber", "mae", "mse"] = "huber"
    clip_norm: float = 1.0
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    l2: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1, 10_000),
            "patience": (1, 10_000),
            "closing_epochs": (0, 1_000),
            "rate": (1e-8, 1.0),
            "chunk": (2, 4_096),
            "segments": (1, 1_024),
            "burn_in_chunks": (0, 64),
            "batch_lanes": (1, 65_536),
            "clip_norm": (1e-6, 1e6),
            "dropout": (0.0, 0.9),
            "recurrent_dropout": (0.0, 0.9),
            "l2": (0.0, 1.0),
            "seed": (0, 2**31 - 1),
        }
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ConfigError(f"training.{name} is {value}", f"it must be {lowest:g} to {highest:g}")
        for name, allowed in (
            ("loss", ("huber", "mae", "mse")),
            ("schedule", ("constant", "cosine", "decaying")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"training.{name} is {getattr(self, name)!r}", f"use one of {', '.join(allowed)}")


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
    """What a training came to: the weights to use and how they were found."""

    weights: Weights
    curve: tuple[EpochReport, ...]
    best_epoch: int
    reference_train_loss: float
    reference_validation_loss: float
    diagnosis: str
    words: str
    steps: int
    seconds: float

    @property
    def best(self) -> EpochReport:
        """The epoch whose weights were kept."""
        return self.curve[self.best_epoch - 1]


def rate_at(settings: TrainingSettings, epoch: int) -> float:
    """The rate of an epoch, counted from 1, by the schedule."""
    done = (epoch - 1) / settings.epochs
    if settings.schedule == "cosine":  # Loshchilov & Hutter (2017), one cycle
        share = FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * 0.5 * (1.0 + math.cos(math.pi * done))
    elif settings.schedule == "decaying":
        share = 1.0 / (1.0 + (epoch - 1) / DECAY_EPOCHS)
    else:
        share = 1.0
    return settings.rate * share


def diagnose(
    curve: list[EpochReport], best: int, reference_train_loss: float, reference_validation_loss: float
) -> tuple[str, str]:
    """One word and one sentence about a learning curve, against the losses of the untrained network."""
    last, kept = curve[-1], curve[best - 1]
    gained = 1.0 - kept.validation_loss / reference_validation_loss if reference_validation_loss > 0 else 0.0
    learned = 1.0 - last.train_loss / reference_train_loss if reference_train_loss > 0 else 0.0
    numbers = f"validation loss {kept.validation_loss:.4f} at epoch {best}, "
    numbers += f"{reference_validation_loss:.4f} untrained"
    if gained < LEAST_GAINED and learned < LEAST_LEARNED:
        return (
            "underfit",
            f"underfit: little was learned ({numbers}); try more units or epochs",
        )
    if gained < LEAST_GAINED:
        return (
            "overfit",
            f"overfit: what was learned doesn't carry over ({numbers}); try fewer units or more data",
        )
    if last.validation_loss > OVERFIT_RISE * kept.validation_loss and last.train_loss < kept.train_loss:
        return "good fit", f"good fit, taken before it overfits ({numbers})"
    if best == last.epochs:
        return (
            "good fit",
            f"good fit, still improving when the epochs ended ({numbers}); more epochs may help",
        )
    return "good fit", f"good fit ({numbers})"
