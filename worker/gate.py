"""The gate: a candidate's live trial, fed step by step. Arithmetic and words; who carries decisions out is judging.py.

    superiority    promoted once it proves better; undecided at the deadline, the trial ends
    harm           ended once it proves worse; promoted when that did not happen for so long, and its mean does not
                   speak clearly against it: then the trial goes on
    none           promoted at once: its verdict decides

A candidate that breaks while the incumbent does not ends its trial at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from models.duels import Breaker, between
from models.sequential import Wealth, advance, e_value, proved
from models.times import rfc3339
from models.verdict import Trial  # noqa: TC001 - msgspec reads it
from worker.gate_told import TrialTold

if TYPE_CHECKING:
    from models.duels import Duel, Duels
    from models.verdict import Calibration, Verdict

CLEARLY = 2.0  # standard errors by which a candidate may look worse, and no more, to be promoted without proof


@dataclass(frozen=True)
class Limits:
    """How gate and guard judge."""

    interval_ms: int
    ahead_steps: int  # how far a step may lie ahead
    approval: bool  # whether a person signs off
    guard_alpha: float
    breaker_ratio: float
    breaker_steps: int


class Decision(msgspec.Struct, frozen=True):
    """What is to be done; stored before it is."""

    act: Literal["promote", "end", "rollback"]
    sentence: str


class TrialState(TrialTold, kw_only=True):
    """What is stored of a trial."""

    trial: Trial
    wealth: Wealth = Wealth()
    breaker: Breaker = msgspec.field(default_factory=Breaker)
    began_step: int | None = None  # of event time
    won: str = ""  # by which evidence
    decision: Decision | None = None


def begin(verdict: Verdict, version: int, trial: Trial) -> TrialState:
    """The trial of a candidate, before any evidence."""
    found = TrialState(
        version=version,
        against=verdict.incumbent,
        verdict=verdict.id,
        mode=trial.mode,
        alpha=trial.alpha,
        needed=1 / trial.alpha if trial.alpha > 0 else math.inf,
        trial=trial,
    )
    if trial.alpha <= 0 and trial.mode == "superiority":
        spent = "no level is left for its trial: the budget of false promotions is spent (judgement.budget)"
        found.decision = Decision("end", f"version {version} can't be proved better: {spent}")
    if trial.mode == "none":
        found.won = f"version {version} is judged on recorded data alone: {verdict.sentence}"
    return found


def fault(one: TrialState, duels: Duels, limits: Limits) -> Decision | None:
    """The end of a trial whose candidate is broken, by the steps that it was not fed; None: it is not."""
    broken = broken_words(one.breaker, duels, (one.version, one.against), limits)
    return None if broken is None else Decision("end", broken)


def broken_words(breaker: Breaker, duels: Duels, versions: tuple[int, int], limits: Limits) -> str | None:
    """That the first version is broken and the second is not, by the steps that they were not fed; None: it is not."""
    first, second = versions
    steps = between(duels, first, second).items()
    found = breaker.fault(steps, limits.breaker_ratio, limits.breaker_steps)
    if found is None:
        return None
    at = rfc3339(found.step * limits.interval_ms)
    return f"version {first} is broken, and version {second} is not: {found.words}, at {at}"


def feed(one: TrialState, step: int, duel: Duel | None, limits: Limits) -> None:
    """Take in a step that is over; `duel` is seen from the candidate. The evidence may decide the trial."""
    if duel is not None:
        turn = -1.0 if one.mode == "superiority" else 1.0
        one.wealth = advance(one.wealth, one.trial.calibration, np.array([turn * duel.difference]))
        one.breaker.feed(duel, limits.breaker_ratio)
        _weigh(one)
    pass_time(one, step)


def pass_time(one: TrialState, step: int) -> None:
    """Let a trial that is undecided at its deadline end; `step` of event time has passed."""
    if one.began_step is None:
        one.began_step = step
    deadline = one.trial.deadline_steps
    if deadline and not one.won and one.decision is None and step - one.began_step >= deadline:
        within = f"than version {one.against} within {deadline:,} steps"
        told = f"version {one.version} was not proved better {within}"
        if one.mode == "harm":
            told = f"version {one.version} never had the steps, or the mean, to pass for no worse {within}"
        one.decision = Decision("end", f"{told}: {_evidence(one)}")


def tell(one: TrialState, state: Literal["running", "waits for approval", "paused"]) -> None:
    """Put down what people are to see."""
    one.e_value, one.steps = e_value(one.wealth), one.wealth.steps
    one.difference = _better_by(one)
    one.state = state
    if not one.won:
        question = "does it do harm" if one.mode == "harm" else "is it better"
        seen = _evidence(one) if one.steps else "no step yet that both have live forecasts for"
        one.words = f"version {one.version} is tried beside {one.against}, {question}? {seen}"
    elif state == "paused":
        one.words = f"{one.won}; promotion is paused: `killick resume`, or `killick promote {one.version}`"
    else:
        one.words = f"{one.won}; a person has to sign it off: `killick approve {one.version}`"


def _weigh(one: TrialState) -> None:
    """Whether the evidence decides."""
    if one.decision is not None or one.mode == "none":
        return
    names = f"version {one.version}", f"version {one.against}"
    found = one.alpha > 0 and proved(one.wealth, one.alpha)
    if one.mode == "superiority":
        if found and not one.won:
            one.won = f"{names[0]} proved better than {names[1]}: {_evidence(one)}"
        elif one.won and one.wealth.mean <= 0:
            one.won = ""  # it had to wait, and does no better by now
    elif found:
        one.decision = Decision("end", f"{names[0]} proved worse than {names[1]}: {_evidence(one)}")
    elif not one.won and one.wealth.steps >= one.trial.harm_steps and not _looks_worse(one):
        told = f"{names[0]} was not proved worse than {names[1]} for {one.wealth.steps:,} steps"
        luck = f", by no more than {CLEARLY:g} standard errors: that may be luck" if _better_by(one) < 0 else ""
        one.won = f"{told}: {_evidence(one)}{luck}"


def _looks_worse(one: TrialState) -> bool:
    """Whether the mean speaks clearly against it, which is no proof."""
    return -_better_by(one) > CLEARLY * _standard_error(one.wealth, one.trial.calibration)


def _better_by(one: TrialState) -> float:
    """The incumbent's loss less the candidate's a step, over all steps so far."""
    return (1.0 if one.mode == "superiority" else -1.0) * mean_of(one.wealth, one.trial.calibration)


def mean_of(wealth: Wealth, calibration: Calibration) -> float:
    """The mean difference a step, of the block that is not over too."""
    total = wealth.total * calibration.block_steps + wealth.part
    return total / wealth.steps if wealth.steps else 0.0


def _standard_error(wealth: Wealth, calibration: Calibration) -> float:
    """Of the mean difference: of one that spans no whole block, at least that of a block."""
    return calibration.scale / math.sqrt(max(1.0, wealth.steps / calibration.block_steps))


def _evidence(one: TrialState) -> str:
    of = "e-value of harm" if one.mode == "harm" else "e-value"
    return f"{of} {evidence(e_value(one.wealth), one.needed, one.wealth.steps)}, {moved(-_better_by(one))}"


def evidence(value: float, needed: float, steps: int) -> str:
    """`131 of 100 needed, after 340 steps`."""
    return f"{value:,.3g} of {needed:,.4g} needed, after {steps:,} steps"


def moved(difference: float) -> str:
    """A difference of squared errors in words."""
    return f"its squared error {'higher' if difference > 0 else 'lower'} by {abs(difference):.3g} a step (scaled)"
