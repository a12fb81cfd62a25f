"""What a comparison decides, in one word and one sentence, and how the one that is chosen is tried live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from models.verdict import Outcome, Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.verdict import Calibration, Compared, Mode

Gate = Literal["offline", "shadow", "both"]
Question = Literal["by-trigger", "superiority", "harm"]  # what a live trial asks
SHARE_A_TRIAL = 0.1  # of what is left of the budget, at most


class Decided(NamedTuple):
    """What was decided, about which finalist, and why."""

    outcome: Outcome
    chosen: str | None
    sentence: str


class JudgementLimits(NamedTuple):
    """What a candidate has to pass."""

    gate: Gate
    screen: float  # level of the comparison, over all finalists together
    alpha: float  # level of a live trial
    budget: float  # of all live trials together
    harm_alpha: float
    harm_steps: int
    deadline_steps: int
    question: Question = "by-trigger"


def decide(compared: Sequence[Compared], incumbent_loss: float, steps: int, limits: JudgementLimits) -> Decided:
    """The decision on the finalists, those of `compared` that have a `p_holm`; `incumbent_loss` is what to beat.

    One at most is chosen: of those that are better beyond chance the one that is so by most. Where the gate is the
    shadow alone, the best one is chosen if it was better at all.
    """
    finalists = [one for one in compared if one.p_holm is not None]
    if not finalists:
        return Decided("inconclusive", None, "no training came to an end, so there was nothing to compare")
    best = max(finalists, key=lambda one: one.difference)
    proven = [one for one in finalists if one.difference > 0 and one.p_holm is not None and one.p_holm <= limits.screen]
    if proven:
        best = max(proven, key=lambda one: one.difference)
    said = f"{best.name} {_words(best, incumbent_loss)}, over {steps:,} steps, p = {best.p_holm:.2g} after Holm"
    among = f" among {len(finalists)} finalists" if len(finalists) > 1 else ""
    if proven:
        return Decided("promote", best.name, f"{said}{among}; the level is {limits.screen:g}")
    if best.difference <= 0:
        return Decided("reject", None, f"no candidate was better than the incumbent: {said}{among}")
    if limits.gate == "shadow":
        return Decided("promote", best.name, f"{said}{among}; the live trial alone decides (judgement.gate)")
    why = f"that may be luck: the level is {limits.screen:g}"
    return Decided("inconclusive", None, f"{said}{among}; {why}")


def trial_of(trigger: str, calibration: Calibration, limits: JudgementLimits, spent: float) -> tuple[Trial, float]:
    """How the chosen one is tried live, and what that spends of the budget of which `spent` is gone.

    By its trigger: after a drift harm is watched for, as proof of being better would come too late; else it must prove
    better, at a level of which all together stay below the budget for good: each takes a tenth of what is left at most.
    """
    by_trigger: Mode = "harm" if trigger == "drift" else "superiority"
    mode: Mode = by_trigger if limits.question == "by-trigger" else limits.question
    if limits.gate == "offline":
        mode = "none"
    alpha, spends = limits.harm_alpha, 0.0
    if mode == "superiority":
        alpha = spends = min(limits.alpha, SHARE_A_TRIAL * max(0.0, limits.budget - spent))
    trial = Trial(
        mode=mode,
        alpha=alpha,
        calibration=calibration,
        harm_steps=limits.harm_steps,
        deadline_steps=limits.deadline_steps,
    )
    return trial, spends


def _words(one: Compared, incumbent_loss: float) -> str:
    """How much better or worse, of the incumbent's loss, with the interval."""
    share = abs(one.difference) / incumbent_loss if incumbent_loss > 0 else 0.0
    word = "less" if one.difference > 0 else "more"
    interval = f"95 % interval {one.low:.3g} to {one.high:.3g}"
    return f"has {100 * share:.1f} % {word} loss (difference {one.difference:.3g}, {interval})"
