"""The five steps of updating with everything real, and what happens when a part of it breaks on the way.

Kafka, Redis, `killick consumer`, `monitor`, `retrainer` as processes; the stream goes on all the time, and whatever
happens, every observation has its one forecast.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from models.errors import StaleCommand, VersionError
from models.weights import fresh_weights, weights_to_bytes
from tests.integration.harness import Stack
from tests.integration.oracle import compare
from tests.integration.updating import Flow, Updating, settings, write_history
from tests.services.processes import children, gone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import NewRedis
    from tests.integration.conftest import NewStack
    from tests.services.kafka import KafkaBroker

FITTED, TURN = 400, 700  # steps
PER_S = 30.0  # steps of the stream
RECORDED = 400  # steps of the stream that an untrained version has answered when a test begins


def answered(stack: Stack, *, copies: int = 0) -> None:
    """Every observation has one forecast, bit for bit that of the version that was to answer it."""
    found = compare(stack)
    assert found.exact, found
    assert found.duplicated <= copies, found


def test_a_drift_is_answered_and_a_break_undone(new_stack: NewStack) -> None:
    """Fit, stream, drift, request, verdict, shadow, trial, promotion, guard, rollback: nobody has to do anything.

    The version that breaks is promoted by a person; that it is undone, and why, is in the audit.
    """
    grid = {"strategies": ["update-on-new", "new-on-new"], "rates": [3e-3, 1e-2]}
    stack = new_stack(settings(drift={"calibration_steps": 100}, retraining=grid))
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


def begun(stack: Stack) -> tuple[Updating, Flow]:
    """A stack whose version 1 says the last value, while the world swings: an update will do better.

    A consumer has answered what is recorded, and a monitor has counted it.
    """
    here, flow = Updating(stack), Flow(stack, 0, 0, PER_S)
    here.persistence(1, 1)
    flow.send(RECORDED)
    stack.consumer().ready()
    here.monitor()
    stack.done(60.0)
    here.until(lambda: here.counted() == stack.progress(), 60, "what is recorded to be counted")
    return here, flow


def test_people_sign_off_and_two_of_them_are_told_of_each_other(new_stack: NewStack) -> None:
    """A candidate that proved better waits for a person; of two commands at once one is done, the other one refused."""
    stack = new_stack(settings(judgement={"approval": "required"}))
    here, flow = begun(stack)
    here.retrainer()
    with flow.going_on():
        request = here.ask("the season turns")
        verdict = here.verdict()
        assert (verdict.requests, verdict.outcome, verdict.version) == ((request,), "promote", 2), verdict.sentence
        assert verdict.why == "the season turns (ann)"

        def won() -> bool:
            trial = here.gate().trial
            return trial is not None and trial.state == "waits for approval"

        here.until(won, 180, "the trial to be won")
        roles = stack.registry.aliases()
        assert (roles.incumbent, roles.candidate, roles.approved) == (1, 2, None)
        assert "a person has to sign it off: `killick approve 2`" in stack.output("verdicts")
        codes, said = here.at_once(
            ["approve", "2", "--reason", "it looks good", "--actor", "ann"],
            ["reject", "2", "--reason", "I don't like it", "--actor", "bob"],
        )
        if stack.registry.last("approve") is None:
            assert sorted(codes) == [0, 1], said
            assert "version 2 is not the candidate" in "".join(said)
        else:  # it was signed off, and rejected afterwards or promoted before
            assert codes[0] == 0, said
        here.until(lambda: here.gate().trial is None, 30, "the trial to be over")
        here.answers(stack.registry.aliases().incumbent or 0)
    roles = stack.registry.aliases()
    assert (roles.incumbent, roles.candidate) in {(2, None), (1, None)}
    (ended,) = here.gate().ended
    assert ended.outcome == ("promoted" if roles.incumbent == 2 else "ended")
    if roles.incumbent == 2:
        assert ended.sentence.endswith("; signed off by ann: it looks good")
    answered(stack)


def test_of_two_operators_one_is_done_and_a_break_is_undone_once(new_stack: NewStack) -> None:
    """Who comes second is told who was first: of two promotions, and of guard and operator, whoever is faster."""
    stack = new_stack(settings())
    here, flow = begun(stack)
    by: dict[str, Any] = {"actor": "bob", "reason": "it looks bad", "now_ms": 1}
    with flow.going_on():
        for seed in (2, 3):
            here.persistence(seed, flow.step)
        commands = (["promote", v, "--reason", f"{v}!", "--expected", "1", "--no-wait"] for v in ("2", "3"))
        codes, said = here.at_once(*commands)
        assert sorted(codes) == [0, 1], said
        assert "answers, not 1 as expected (promoted by" in "".join(said)
        good = stack.registry.aliases().incumbent
        assert good in (2, 3)
        here.answers(good)
        by_guard: list[bool] = []
        for seconds in (0.0, 0.25, 2.0):
            bad = here.broken(1, flow.step, seed=len(by_guard))
            stack.registry.promote(bad, expected=good, actor="ann", reason="by mistake", now_ms=1)
            here.until(lambda bad=bad: bad in here.answering(), 30, "the break")
            time.sleep(seconds)
            said.append("")
            try:
                stack.registry.rollback(expected=bad, **by)
            except StaleCommand as error:
                said[-1] = str(error)
            here.answers(good)
            undone = here.audited("rollback")[-1]
            assert (undone.before, undone.after) == (bad, good)
            by_guard.append(undone.actor == "guard")
            assert by_guard[-1] == (f"version {good} answers, not {bad} as expected (rolled back by guard" in said[-1])
    assert by_guard[-1], "the guard was slow"
    assert len(here.audited("rollback")) == len(by_guard)
    assert [one.outcome for one in here.gate().ended] == ["rolled back"] * sum(by_guard)
    assert here.gate().guard is None
    assert stack.registry.aliases().paused
    assert set(stack.registry.statuses().values()) == {"withdrawn"}
    answered(stack)


def test_of_several_retrainers_any_may_die(new_stack: NewStack) -> None:
    """Told to stop in training, killed in training, killed after the verdict: one verdict, one version, promoted."""
    stack = new_stack(settings(judgement={"trial": "harm"}))
    here, flow = begun(stack)
    with flow.going_on():
        first = here.retrainer()
        request = here.ask()
        here.training()
        trainings = children(first.pid)
        assert trainings
        began = time.monotonic()
        assert first.stop() == 0
        assert time.monotonic() - began < 10
        assert gone(trainings)
        assert [(one.request.id, one.worker, one.taken) for one in here.waiting()] == [(request, "", 0)]

        pair = [here.retrainer(), here.retrainer()]
        worker = here.training()
        killed = next(one for one in pair if f"-{one.pid}-" in worker)
        trainings = children(killed.pid)
        killed.kill()
        assert gone(trainings)
        verdict = here.verdict()
        other = next(one for one in pair if one is not killed)
        assert [line["action"] for line in other.lines("verdict")] == ["verdict"]
        assert (verdict.requests, verdict.outcome, verdict.version) == ((request,), "promote", 2), verdict.sentence
        other.kill()
        here.answers(2)
    assert here.waiting() == []
    assert len(here.verdicts.recent(9)) == 1
    assert [one.version for one in stack.registry.versions()] == [1, 2]
    assert [(entry.event, entry.actor) for entry in here.audited("nominate", "promote")] == [
        ("nominate", "retrainer"),
        ("promote", "gate"),
    ]
    answered(stack)


def test_redis_and_the_monitor_die_in_the_middle_of_a_promotion(
    kafka: KafkaBroker, new_redis: NewRedis, tmp_path: Path
) -> None:
    """Killed at the verdict, in the trial and at the promotion, then all of it goes on: promoted once, nothing lost."""
    redis = new_redis({"appendfsync": "always"})
    changed = settings(judgement={"trial": "harm", "harm": "20d"})
    with Stack(kafka.bootstrap_servers, redis.url, tmp_path, settings=changed) as stack:
        here, flow = begun(stack)
        here.retrainer()
        with flow.going_on():
            here.ask()
            here.training()
            redis.kill()
            time.sleep(2.0)
            redis.start()
            here.until(lambda: stack.registry.aliases().candidate == 2, 180, "a candidate")
            redis.restart()

            def tried() -> bool:
                trial = here.gate().trial
                return trial is not None and trial.steps > 0

            here.until(tried, 60, "the trial")
            stack.processes[1].kill()
            here.monitor()
            redis.kill()
            redis.start()
            here.until(lambda: stack.registry.aliases().incumbent == 2, 60, "the promotion")
            redis.kill()
            redis.start()
            here.answers(2)
            here.until(lambda: here.gate().trial is None, 30, "the trial to be over")
        assert [(entry.event, entry.actor) for entry in here.audited("nominate", "promote", "rollback")] == [
            ("nominate", "retrainer"),
            ("promote", "gate"),
        ]
        assert [(one.version, one.outcome) for one in here.gate().ended] == [(2, "promoted")]
        assert len(here.verdicts.recent(9)) == 1
        answered(stack, copies=10_000)


def test_a_candidate_whose_weights_are_corrupted_is_let_go(new_stack: NewStack) -> None:
    """The partitions say why it can't read along, the incumbent answers, and the deadline ends the trial."""
    stack = new_stack(settings(judgement={"deadline": "20d"}))
    here, flow = begun(stack)
    consumer = stack.processes[0]
    here.retrainer()
    with flow.going_on():
        here.ask()
        here.training()
    consumer.pause()  # else it would read the weights before they change
    assert here.verdict().version == 2
    stack.redis.hset(f"killick:{{{stack.model}}}:weights", "2", b"other bytes")
    consumer.resume()
    with flow.going_on():
        here.until(lambda: "diverged" in here.states(), 60, "the partitions to say it")
        assert "the weights of version 2 have SHA-256" in here.states()["diverged"]
        here.until(lambda: here.gate().trial is None and here.gate().ended, 60, "the trial to end")
        here.until(lambda: set(here.states()) == {"running"}, 60, "the partitions to run again")
    roles = stack.registry.aliases()
    assert (roles.incumbent, roles.candidate) == (1, None)
    *_, taken_back = here.audited("nominate")
    assert (taken_back.actor, taken_back.after) == ("gate", None)
    assert taken_back.reason.startswith("version 2 was not proved better than version 1 within 480 steps: e-value")
    assert "after 0 steps" in taken_back.reason
    answered(stack, copies=10_000)


def test_weights_of_another_shape_are_refused_when_they_are_registered(new_stack: NewStack) -> None:
    """The message says which tensor, what shape it has and which it should have."""
    stack = new_stack(settings())
    architecture = stack.settings.architecture((1.0,) * 4)
    wider = msgspec.structs.replace(architecture, units=(9,))
    weights = weights_to_bytes(fresh_weights(wider, 1), wider)
    with pytest.raises(
        VersionError, match=r"weight head.kernel is F32 \[22, 4\], the architecture wants F32 \[21, 4\]"
    ):
        stack.registry.register(architecture, weights, training={}, parent=None, actor="ann", reason="a try", now_ms=1)
    assert stack.registry.versions() == []
