"""What a comparison decides, and how the one that was chosen is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from models.decision import JudgementLimits, decide, trial_of
from models.verdict import Calibration, Compared

if TYPE_CHECKING:
    from models.decision import Gate, Question

LIMITS = JudgementLimits(
    gate="both", screen=0.05, alpha=0.01, budget=0.2, harm_alpha=0.02, harm_steps=24, deadline_steps=720
)
CALIBRATION = Calibration(block_steps=24, scale=0.5, lag1=0.05, steps=300)


def compared(name: str, difference: float, p_holm: float | None) -> Compared:
    """A contender against the incumbent."""
    return Compared(
        name=name, difference=difference, low=difference - 1, high=difference + 1, statistic=0.0, p_value=0.5,
        p_holm=p_holm,
    )  # fmt: skip


def test_the_best_of_those_beyond_chance_is_chosen() -> None:
    """Not the best of all, if that one may be luck; controls and references are no finalists."""
    found = decide(
        [compared("a", 0.2, 0.04), compared("b", 0.3, 0.05), compared("c", 0.9, 0.06), compared("control", 5.0, None)],
        2.0, 100, LIMITS,
    )  # fmt: skip
    assert (found.outcome, found.chosen) == ("promote", "b")
    assert found.sentence == (
        "b has 15.0 % less loss (difference 0.3, 95 % interval -0.7 to 1.3), over 100 steps, p = 0.05 after Holm "
        "among 3 finalists; the level is 0.05"
    )


def test_a_difference_that_may_be_luck_decides_nothing() -> None:
    """The sentence says which one was best, and the level that it did not reach."""
    found = decide([compared("a", 0.2, 0.06)], 2.0, 1_100, LIMITS)
    assert (found.outcome, found.chosen) == ("inconclusive", None)
    assert found.sentence.endswith("over 1,100 steps, p = 0.06 after Holm; that may be luck: the level is 0.05")


def test_where_no_one_was_better_all_are_rejected() -> None:
    """However sure: a small p-value with a difference of the wrong sign is no proof of being better."""
    found = decide([compared("a", -0.2, 0.9), compared("b", 0.0, 0.001)], 2.0, 100, LIMITS)
    assert (found.outcome, found.chosen) == ("reject", None)
    assert found.sentence.startswith("no candidate was better than the incumbent: b has 0.0 % more loss")


def test_where_the_shadow_alone_decides_the_best_one_is_tried() -> None:
    """If it was better at all."""
    shadow = LIMITS._replace(gate="shadow")
    found = decide([compared("a", 0.2, 0.6)], 2.0, 100, shadow)
    assert (found.outcome, found.chosen) == ("promote", "a")
    assert decide([compared("a", -0.2, 0.6)], 2.0, 100, shadow).outcome == "reject"


def test_without_finalists_nothing_is_decided() -> None:
    """All trainings exploded."""
    assert decide([compared("control", 1.0, None)], 2.0, 100, LIMITS).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("gate", "question", "trigger", "spent", "mode", "alpha", "spends"),
    [
        ("both", "by-trigger", "schedule", 0.0, "superiority", 0.01, 0.01),
        ("shadow", "by-trigger", "operator", 0.15, "superiority", 0.005, 0.005),
        ("both", "by-trigger", "drift", 0.15, "harm", 0.02, 0.0),
        ("offline", "by-trigger", "drift", 0.0, "none", 0.02, 0.0),
        ("both", "by-trigger", "pairs", 0.3, "superiority", 0.0, 0.0),
        ("both", "harm", "schedule", 0.3, "harm", 0.02, 0.0),
        ("shadow", "superiority", "drift", 0.0, "superiority", 0.01, 0.01),
        ("offline", "harm", "schedule", 0.0, "none", 0.02, 0.0),
    ],
)
def test_how_it_is_tried(
    gate: Gate, question: Question, trigger: str, spent: float, mode: str, alpha: float, spends: float
) -> None:
    """Harm after a drift, proof of being better else, at a tenth of what is left of the budget; or as is set."""
    limits = LIMITS._replace(gate=gate, question=question)
    trial, found = trial_of(trigger, CALIBRATION, limits, spent)
    assert (trial.mode, trial.calibration, trial.harm_steps, trial.deadline_steps) == (mode, CALIBRATION, 24, 720)
    assert trial.alpha == pytest.approx(alpha)
    assert found == pytest.approx(spends)
