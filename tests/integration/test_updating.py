"""The five steps of updating with everything real, and what happens when a part of it breaks on the way.

Kafka, Redis, `killick consumer`, `monitor`, `retrainer` as processes; the stream goes on all the time, and whatever
happens, every observation has its one forecast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.oracle import compare
from tests.integration.updating import Flow, Updating, settings, write_history

if TYPE_CHECKING:
    from tests.integration.conftest import NewStack
    from tests.integration.harness import Stack

FITTED, TURN = 400, 700  # steps
PER_S = 30.0  # steps of the stream


def answered(stack: Stack, *, copies: int = 0) -> None:
    """Every observation has one forecast, bit for bit that of the version that was to answer it."""
    found = compare(stack)
    assert found.exact, found
    assert found.duplicated <= copies, found


def test_a_drift_is_answered_and_a_break_undone(new_stack: NewStack) -> None:
    """Fit, stream, drift, request, verdict, shadow, trial, promotion, guard, rollback: nobody has to do anything.

    The version that breaks is promoted by a person; that it is undone, and why, is in the audit.
    """
    stack = new_stack(settings())
    here = Updating(stack)
    stack.output("fit", write_history(stack, FITTED), "--series", "series")
    assert stack.registry.aliases().incumbent == 1
    flow = Flow(stack, FITTED, TURN, PER_S)
    stack.consumer().ready()
    here.monitor()
    retrainer = here.retrainer()
    flow.send(TURN - FITTED)
    with flow.going_on():
        verdict = here.verdict()
        assert (verdict.trigger, verdict.outcome, verdict.incumbent) == ("drift", "promote", 1), verdict.sentence
        assert verdict.trial is not None
        assert verdict.trial.mode == "harm"
        here.answers(2)
        assert retrainer.stop() == 0
        here.until(lambda: here.gate().guard is not None, 30, "the guard")
        version = str(here.broken(2, flow.step))
        stack.output("promote", version, "--reason", "by mistake", "--actor", "bob", "--no-wait")
        here.answers(2)
    roles = stack.registry.aliases()
    assert (roles.incumbent, roles.candidate, roles.previous, roles.paused) == (2, None, None, True)
    assert stack.registry.statuses() == {3: "withdrawn"}
    nominated, promoted, by_hand, undone = here.audited("nominate", "promote", "rollback")
    assert (nominated.actor, nominated.after) == ("retrainer", 2)
    assert (promoted.actor, promoted.before, promoted.after) == ("gate", 1, 2)
    assert promoted.reason.startswith("version 2 was not proved worse than version 1 for ")
    assert (by_hand.actor, by_hand.after) == ("bob", 3)
    assert (undone.actor, undone.event, undone.before, undone.after) == ("guard", "rollback", 3, 2)
    assert undone.reason.startswith("version 3 is broken, and version 2 is not: for 5 steps its squared error is more")
    assert [(one.version, one.outcome) for one in here.gate().ended] == [(2, "promoted"), (3, "rolled back")]
    answered(stack)
