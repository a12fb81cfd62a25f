"""Settings of a training, and its learning curve in words."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from models.errors import ConfigError
from models.learning import EpochReport, TrainingSettings, diagnose, rate_at, went_wrong


def test_rates_follow_their_schedule() -> None:
    """Constant stays, cosine falls to 5 %, decaying is halved after eight epochs."""
    settings = TrainingSettings(epochs=21, rate=1e-2)
    assert rate_at(settings, 21) == 1e-2
    cosine = replace(settings, schedule="cosine")
    assert rate_at(cosine, 1) == pytest.approx(1e-2)
    assert rate_at(replace(cosine, epochs=1000), 1000) == pytest.approx(5e-4, rel=1e-3)
    assert rate_at(replace(settings, schedule="decaying"), 9) == pytest.approx(5e-3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 0}, "training.epochs is 0"),
        ({"rate": 2.0}, "training.rate"),
        ({"loss": "log"}, "'log'"),
        ({"optimiser": "lion"}, "'lion'"),
        ({"start": "zero"}, "training.start is 'zero'"),
        ({"head_start": "glorot"}, "training.head_start is 'glorot'"),
        ({"optimiser": "sgd", "momentum": 1.0}, "training.momentum is 1.0"),
        ({"momentum": 0.9}, "training.momentum is 0.9 and optimiser is 'adam'"),
        ({"weight_decay": 0.1}, "weight_decay is 0.1 and optimiser is 'adam'"),
        ({"optimiser": "adamw"}, "'adamw' and weight_decay is 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes: dict[str, object], says: str) -> None:
    """A setting out of range names itself and its limits."""
    with pytest.raises(ConfigError, match=says):
        replace(TrainingSettings(), **changes)  # type: ignore[arg-type]


def curve_of(*losses: tuple[float, float]) -> list[EpochReport]:
    """A learning curve from training and validation losses."""
    return [EpochReport(i + 1, 10, t, v, best=False, seconds=0.1) for i, (t, v) in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "best", "word", "says"),
    [
        ([(1.0, 1.0), (0.995, 1.0)], 1, "underfit", "little was learned"),
        ([(0.9, 1.2), (0.5, 1.4)], 1, "overfit", "carry over"),
        ([(0.9, 0.8), (0.5, 1.4)], 1, "good fit", "before it overfits"),
        ([(0.9, 0.8), (0.8, 0.75)], 2, "good fit", "good fit \\(validation"),
        ([(0.9 - i / 50, 0.9 - i / 50) for i in range(10)], 10, "good fit", "more epochs may help"),
        ([(1.5, 1.2), (1.1, 1.3)], 1, "underfit", "a lower rate"),
    ],
)
def test_a_curve_is_named_for_what_it_shows(losses: list[tuple[float, float]], best: int, word: str, says: str) -> None:
    """Underfit, overfit and good fit are told apart against the untrained network's losses of 1."""
    found, words = diagnose(curve_of(*losses), best, 1.0, 1.0)
    assert found == word
    assert re.search(says, words)


def test_an_update_is_named_for_what_it_gained_over_the_weights_it_began_with() -> None:
    """The words speak of the loss before it, and of rates instead of units."""
    for losses, word, says in (
        ([(1.0, 1.0)], "underfit", "a higher rate"),
        ([(0.9, 1.2)], "overfit", "a lower rate or more data"),
        ([(0.9, 0.8), (0.8, 0.75), (0.8, 0.76)], "good fit", "1.0000 before the update"),
    ):
        curve = curve_of(*losses)
        best = 1 + int(np.argmin([report.validation_loss for report in curve]))
        found, words = diagnose(curve, best, 1.0, 1.0, "before the update")
        assert found == word
        assert says in words


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ((np.nan, 0.5), "exploded: the loss is nan at step 7 with rate 0.1"),
        ((0.5, np.inf), "exploded: the validation loss is inf after step 7"),
        ((0.5, 1.01), r"exploded: the validation loss is 1.01 .* more than 10 times the 0.1 before training"),
        ((0.5, 0.99), "^$"),
    ],
)
def test_what_went_wrong_is_said_with_its_numbers(losses: tuple[float, float], says: str) -> None:
    """A loss that is no number, or a validation loss far above the one before training."""
    (report,) = curve_of(losses)
    assert re.search(says, went_wrong(report, 0.1, 7, 0.1))
