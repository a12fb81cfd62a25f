"""The guard: whether the version that answers does worse than the one before, or breaks. Arithmetic and words.

As long as the previous version runs on as a shadow: the test of the gate the other way round, with the calibration of
the verdict by which the version came; one that came without is calibrated on the first live differences, which are
not bet on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from models.duels import Breaker
from models.errors import DataError
from models.sequential import Wealth, advance, calibrate, e_value, proved
from models.verdict import Calibration  # noqa: TC001 - msgspec reads it
from worker.gate import Decision, broken_words, evidence, mean_of, moved
from worker.gate_told import GuardTold

if TYPE_CHECKING:
    from models.duels import Duel, Duels
    from models.verdict import Verdict
    from worker.gate import Limits

LEARNED_STEPS = 100  # live differences that calibrate, at least
TRIED_EVERY = 20  # steps, where they did not suffice
KEPT_STEPS = 1_000


class GuardState(GuardTold, kw_only=True):
    """What is stored of a guard."""

    calibration: Calibration | None = None
    learned: list[float] = msgspec.field(default_factory=list)
    wealth: Wealth = Wealth()
    breaker: Breaker = msgspec.field(default_factory=Breaker)
    decision: Decision | None = None


def begin(version: int, previous: int, verdict: Verdict | None, limits: Limits) -> GuardState:
    """The guard of a version that came in place of another one, by a verdict or by hand."""
    trial = verdict.trial if verdict is not None and verdict.incumbent == previous else None
    calibration = trial.calibration if trial is not None else None
    return GuardState(version=version, previous=previous, needed=1 / limits.guard_alpha, calibration=calibration)


def fault(one: GuardState, duels: Duels, limits: Limits) -> Decision | None:
    """What to do where the version is broken, by the steps that it was not fed; None: it is not."""
    broken = broken_words(one.breaker, duels, (one.version, one.previous), limits)
    return None if broken is None else Decision("rollback", broken)


def feed(one: GuardState, duel: Duel | None, limits: Limits) -> None:
    """Take in a step that is over; `duel` is seen from the version that answers. The evidence may decide."""
    if duel is None:
        return
    one.breaker.feed(duel, limits.breaker_ratio)
    difference = duel.difference
    if one.calibration is None:
        _learn(one, difference)
        return
    one.wealth = advance(one.wealth, one.calibration, np.array([difference]))
    if one.decision is None and one.state != "refused" and proved(one.wealth, limits.guard_alpha):
        told = f"version {one.previous}, which answered before, proved better than version {one.version}"
        one.decision = Decision("rollback", f"{told}: e-value {_evidence(one)}")


def tell(one: GuardState) -> None:
    """Put down what people are to see."""
    one.e_value, one.steps = e_value(one.wealth), one.wealth.steps or len(one.learned)
    one.difference = _mean(one)
    if one.state == "refused":
        return
    one.state = "learning" if one.calibration is None else "running"
    if one.calibration is None:
        one.words = f"looks at {LEARNED_STEPS} steps before it bets, {one.steps} so far; breaks are seen at once"
    else:
        one.words = f"version {one.previous} is not proved better than version {one.version}: e-value {_evidence(one)}"


def _learn(one: GuardState, difference: float) -> None:
    if not np.isnan(difference):
        one.learned.append(difference)
    count = len(one.learned)
    if count >= LEARNED_STEPS and count % TRIED_EVERY == 0:
        try:
            one.calibration = calibrate([np.array(one.learned)])
        except DataError:  # versions that don't differ yet
            del one.learned[: max(0, count + TRIED_EVERY - KEPT_STEPS)]
        else:
            one.learned.clear()


def _mean(one: GuardState) -> float:
    if one.calibration is None:
        return float(np.mean(one.learned)) if one.learned else 0.0
    return mean_of(one.wealth, one.calibration)


def _evidence(one: GuardState) -> str:
    return f"{evidence(e_value(one.wealth), one.needed, one.wealth.steps)}, {moved(_mean(one))}"
