"""The gate: what a candidate's trial comes to, what registry and people are told, and that nothing is done twice."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from models.duels import Duel
from models.errors import FencedError, ServiceUnreachable
from models.server import calling, connect
from models.verdict import Calibration
from tests.consumers.test_ledger_calls import Deaf
from tests.worker.judged import CALIBRATION, FIRST_STEP, MODEL, NOW_MS, SIGNED_OFF, World, duel_of, noise, trial_of
from worker import judging
from worker.judging import Evidence
from worker.store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client
    from models.verdict import Mode

pytestmark = pytest.mark.services


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """Redis, then Valkey."""
    made = connect(store_url)
    yield made
    made.close()


def roles(world: World) -> tuple[int | None, int | None, int | None]:
    """Incumbent, candidate, previous."""
    found = world.registry.aliases()
    return found.incumbent, found.candidate, found.previous


def test_a_candidate_that_proves_better_is_promoted(client: Client) -> None:
    """Once its e-value is there; the audit has the numbers, and the trial is told while it runs."""
    world = World(client)
    world.candidate()
    world.pass_steps([0.1] * 10)
    told = world.judging.state.trial
    assert told is not None
    assert (told.version, told.against, told.mode, told.state, told.needed) == (2, 1, "superiority", "running", 50)
    assert 1 < told.e_value < 50
    assert told.steps == 10
    assert told.difference == pytest.approx(0.1)
    assert re.search(r"e-value [\d.]+ of 50 needed, after 10 steps, its squared error lower by 0.1 a step", told.words)
    world.pass_steps([0.1] * 40)
    assert roles(world) == (2, None, 1)
    ((actor, reason),) = world.audited("promote")
    assert actor == "gate"
    assert re.match(r"version 2 proved better than version 1: e-value \d+.* of 50 needed, after \d\d steps", reason)
    assert world.judging.state.trial is None
    (ended,) = world.judging.state.ended
    assert (ended.version, ended.outcome, ended.sentence, ended.time_ms) == (2, "promoted", reason, NOW_MS)
    assert world.judging.state.counts == {"promoted": 1}


def test_a_candidate_that_is_no_better_ends_at_the_deadline(client: Client) -> None:
    """Not a step before; its nomination is taken back with the numbers, and its version stays usable."""
    world = World(client)
    world.candidate(deadline_steps=100)
    world.pass_steps(noise(100))
    assert roles(world) == (1, 2, None)
    world.pass_steps([0.0])
    assert roles(world) == (1, None, None)
    *_, (actor, reason) = world.audited("nominate")
    assert actor == "gate"
    assert reason.startswith("version 2 was not proved better than version 1 within 100 steps: e-value ")
    assert world.registry.statuses() == {}
    assert [(one.version, one.outcome) for one in world.judging.state.ended] == [(2, "ended")]


def test_a_candidate_that_never_runs_ends_at_the_deadline(client: Client) -> None:
    """Event time goes by without any duel; how far a clock may run ahead is waited for."""
    world = World(client)
    world.candidate(deadline_steps=100)
    world.look(clock=FIRST_STEP)
    world.look(clock=FIRST_STEP + 99)
    assert roles(world) == (1, 2, None)
    world.look(clock=FIRST_STEP + 100)
    assert roles(world) == (1, None, None)
    assert "after 0 steps" in world.audited("nominate")[-1][1]


def test_evidence_that_waits_comes_before_the_deadline(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the monitor stood still for long: the clock is ahead of what the trial was fed."""
    monkeypatch.setattr(judging, "FED_AT_ONCE", 20)
    world = World(client)
    world.candidate(deadline_steps=100)
    duels = {(FIRST_STEP + i, 1, 2): duel_of(1.1, 1.0) for i in range(90)}
    for fed in (0, 20, 40, 60):
        world.look({key: duel for key, duel in duels.items() if key[0] >= FIRST_STEP + fed}, clock=FIRST_STEP + 900)
    assert roles(world) == (2, None, 1)


def test_a_trial_for_harm_without_evidence_promotes_nobody(client: Client) -> None:
    """Time alone is no sign of harmlessness."""
    world = World(client)
    world.candidate("harm", deadline_steps=100)
    world.pass_steps([0.0] * 23)
    world.look(clock=FIRST_STEP + 1 + 100 + 23)  # a clock may be 24 steps ahead
    assert roles(world) == (1, 2, None)
    world.look(clock=FIRST_STEP + 1 + 100 + 24)
    assert roles(world) == (1, None, None)
    told = "version 2 never had the steps, or the mean, to pass for no worse than version 1 within 100 steps: e-value"
    assert world.audited("nominate")[-1][1].startswith(told)


@pytest.mark.parametrize(
    ("mean", "promoted", "words"),
    [
        (0.0, True, r"version 2 was not proved worse than version 1 for 24 steps: e-value of harm [\d.e-]+ of 50"),
        (-0.6, False, r"version 2 proved worse than version 1: e-value of harm .* its squared error higher by 0\.6"),
    ],
)
def test_after_a_drift_a_candidate_must_not_do_harm(client: Client, mean: float, words: str, *, promoted: bool) -> None:
    """Proved harm ends the trial; none for so long promotes."""
    world = World(client)
    world.candidate("harm")
    world.pass_steps([mean] * 24)
    assert roles(world) == ((2, None, 1) if promoted else (1, None, None))
    (_, reason), *_ = world.audited("promote") if promoted else world.audited("nominate")[::-1]
    assert re.search(words, reason)


def test_while_the_mean_speaks_clearly_against_it_nobody_is_promoted(client: Client) -> None:
    """That is no proof of harm either: the trial goes on, until the candidate has made up for it."""
    world = World(client)
    world.candidate("harm")
    world.pass_steps([-0.09] * 24)
    assert roles(world) == (1, 2, None)
    world.pass_steps([0.09] * 12)
    assert roles(world) == (2, None, 1)


def test_harm_is_waited_for_as_long_as_was_asked(client: Client) -> None:
    """Steps without a live forecast of both don't count."""
    world = World(client)
    world.candidate("harm")
    world.pass_steps([0.0] * 23)
    for _ in range(5):
        world.step += 1
        world.look({(world.step, 1, 2): Duel(second_lacks=0, first_lacks=0), (world.step, 1, 3): duel_of(1, 1)})
    assert roles(world) == (1, 2, None)
    world.pass_steps([0.0])
    assert roles(world) == (2, None, 1)


def test_an_offline_gate_promotes_at_once(client: Client) -> None:
    """Its verdict decides, and is what the audit says."""
    world = World(client)
    world.candidate("none")
    world.look()
    assert roles(world) == (2, None, 1)
    assert world.audited("promote") == [
        ("gate", "version 2 is judged on recorded data alone: it was better on recorded data")
    ]


@pytest.mark.parametrize("mode", ["superiority", "harm", "none"])
def test_where_people_sign_off_a_won_trial_waits_for_them(client: Client, mode: Mode) -> None:
    """It says so, the evidence goes on, and the audit names who signed it off."""
    world = World(client, SIGNED_OFF)
    world.candidate(mode)
    world.pass_steps([0.1] * 60)
    assert roles(world) == (1, 2, None)
    told = world.judging.state.trial
    assert told is not None
    assert (told.state, told.steps) == ("waits for approval", 60)
    assert "killick approve 2" in told.words
    world.registry.approve(2, actor="bob", reason="looks good", now_ms=NOW_MS)
    world.look()
    assert roles(world) == (2, None, 1)
    assert world.audited("promote")[0][1].endswith("; signed off by bob: looks good")


def test_a_sign_off_alone_promotes_nobody(client: Client) -> None:
    """A candidate that is signed off early still has to earn it."""
    world = World(client, SIGNED_OFF)
    world.candidate()
    world.registry.approve(2, actor="bob", reason="looks good", now_ms=NOW_MS)
    world.pass_steps(noise(30))
    assert roles(world) == (1, 2, None)
    world.pass_steps([0.1] * 60)
    assert roles(world) == (2, None, 1)


def test_while_paused_a_won_trial_waits(client: Client) -> None:
    """Evidence goes on; whoever does no better by then is not promoted when it is resumed."""
    world = World(client)
    world.candidate(deadline_steps=0)
    world.registry.pause(actor="ann", reason="fair", now_ms=NOW_MS)
    world.pass_steps([0.1] * 50)
    told = world.judging.state.trial
    assert told is not None
    assert (roles(world), told.state, told.steps) == ((1, 2, None), "paused", 50)
    assert "killick resume" in told.words
    world.pass_steps([-0.2] * 30)
    world.registry.resume(actor="ann", reason="over", now_ms=NOW_MS)
    world.look()
    assert (roles(world), told.state) == ((1, 2, None), "running")
    world.pass_steps([0.25] * 150)
    assert roles(world) == (2, None, 1)


def test_harm_is_seen_while_a_person_thinks(client: Client) -> None:
    """A candidate that showed no harm for long enough, and does some while it waits, is not promoted."""
    world = World(client, SIGNED_OFF)
    world.candidate("harm")
    world.pass_steps([0.0] * 24)
    world.pass_steps([-0.8] * 40)
    assert roles(world) == (1, None, None)
    assert "proved worse" in world.audited("nominate")[-1][1]


def test_a_candidate_of_another_incumbent_is_taken_back(client: Client) -> None:
    """Whether another version answers since the trial began or did before; the reason says which and by whom."""
    world = World(client)
    world.candidate()
    world.pass_steps([0.1] * 5)
    world.promote(world.add(1))
    world.look()
    assert roles(world) == (3, None, 1)
    told = r"version 2 was made from version 1, and version 3 answers by now: promoted by ann at .*: by hand"
    assert re.fullmatch(told, world.audited("nominate")[-1][1])
    world.candidate(parent=1)
    world.look()
    assert roles(world) == (3, None, 1)
    assert [one.version for one in world.judging.state.ended] == [2, 4]


@pytest.mark.parametrize("by", ["reject", "promote"])
def test_people_may_decide_before_the_gate_does(client: Client, by: str) -> None:
    """The trial is over, the registry is left as they made it, and what they said is told."""
    world = World(client)
    world.candidate()
    world.pass_steps([0.1] * 5)
    if by == "promote":
        world.promote(2)
    else:
        world.registry.nominate(None, expected=2, actor="ann", reason="no", now_ms=NOW_MS)
    before = world.registry.aliases()
    world.pass_steps([0.1] * 60)
    assert world.registry.aliases() == before
    (ended,) = world.judging.state.ended
    assert ended.outcome == ("promoted" if by == "promote" else "ended")
    assert re.search(r"version 2 is no longer the candidate: .* by ann at", ended.sentence)
    assert world.judging.state.trial is None


def test_a_broken_candidate_ends_its_trial_at_once(client: Client) -> None:
    """A forecast that is no number, of a step that is not over; it is not promoted, however good it was."""
    world = World(client, SIGNED_OFF)
    world.candidate()
    world.pass_steps([0.1] * 60)
    world.look({(world.step + 1, 1, 2): Duel(5, 5, 4, 5, 5, 0, 3)}, over=False)
    assert roles(world) == (1, None, None)
    reason = world.audited("nominate")[-1][1]
    assert reason.startswith("version 2 is broken, and version 1 is not: 3 of 8 forecasts are missing or no numbers, ")


def test_a_disaster_ends_a_trial_unless_the_incumbent_has_it_too(client: Client) -> None:
    """Five steps with more than four times persistence's error; what both can't do is nobody's fault."""
    world = World(client)
    world.candidate()
    for _ in range(9):
        world.step += 1
        world.look({(world.step, 1, 2): duel_of(5.0, 6.0)})
    world.pass_steps([0.0])
    assert roles(world) == (1, 2, None)
    for at in range(3):
        world.look({(world.step + 1 + at, 1, 2): duel_of(1.0, 6.0)})
    under_way = {(world.step + 4, 1, 2): duel_of(1.0, 6.0)}
    world.look(under_way, over=False)
    assert roles(world) == (1, 2, None)
    world.look(under_way | {(world.step + 5, 1, 2): duel_of(1.0, 6.0)}, over=False)
    assert roles(world) == (1, None, None)
    assert "for 5 steps its squared error is more than 4 times persistence's" in world.audited("nominate")[-1][1]


def test_who_is_nominated_by_hand_is_only_watched(client: Client) -> None:
    """It has no verdict and no trial: it waits for people for good; so does one whose trial ended before."""
    world = World(client)
    world.registry.nominate(world.add(1), expected=None, actor="ann", reason="try", now_ms=NOW_MS)
    world.pass_steps([0.3] * 60)
    assert (roles(world), world.judging.state.watched, world.judging.state.trial) == ((1, 2, None), 2, None)
    world.registry.nominate(None, expected=2, actor="ann", reason="no", now_ms=NOW_MS)
    world.candidate(deadline_steps=10)
    world.pass_steps(noise(12), 1, 3)
    assert (roles(world), world.judging.state.watched) == ((1, None, None), None)
    world.registry.nominate(3, expected=None, actor="ann", reason="again", now_ms=NOW_MS)
    world.pass_steps([0.3] * 60, 1, 3)
    assert (roles(world), world.judging.state.watched, world.judging.state.trial) == ((1, 3, None), 3, None)
    assert len(world.judging.state.ended) == 1


def test_a_version_that_can_not_answer_is_taken_back_in_the_registrys_words(client: Client) -> None:
    """It was withdrawn while its trial went on."""
    world = World(client)
    version = world.candidate()
    calling(client.hset, f"killick:{{{MODEL}}}:statuses", str(version), "withdrawn")
    world.pass_steps([0.1] * 50)
    world.look()
    assert roles(world) == (1, None, None)
    assert re.search(r"proved better .*; but version 2 is withdrawn", world.audited("nominate")[-1][1])
    assert world.audited("promote") == []


def differences(seed: int = 3) -> list[float]:
    """A trial that takes its time: better, but not clearly so."""
    return noise(120, seed, 0.05)


def test_a_restart_changes_no_bit(client: Client) -> None:
    """A trial that was stored and read after every step stands where one stands that ran through."""
    world = World(client)
    world.candidate(deadline_steps=0)
    duels = {(FIRST_STEP + i, 1, 2): duel_of(1.0 + d, 1.0) for i, d in enumerate(differences()[:60])}
    world.look(duels)
    through = world.judging.state.trial
    client.flushall()
    other = World(client)
    other.candidate(deadline_steps=0)
    for key, duel in duels.items():
        other.look({key: duel})
        other.reopen()
    found = other.judging.state.trial
    assert through is not None
    assert found is not None
    assert (found.wealth, found.e_value, found.words) == (through.wealth, through.e_value, through.words)
    assert found.steps == 60
    assert found.e_value > 2


class Counting(Deaf):
    """A client that loses one call or its answer after so many."""

    def __init__(self, client: Client, after: int, loses: str) -> None:
        super().__init__(client)
        self.after, self.what = after, loses

    def fcall(self, *words: object) -> object:
        """The reply, if nothing is lost."""
        self.after -= 1
        if self.after == 0:
            self.loses = self.what
        return super().fcall(*words)


@pytest.mark.parametrize("loses", ["the call", "the answer"])
@pytest.mark.parametrize("wins", [True, False])
def test_whatever_call_is_lost_one_thing_happens_once(redis_url: str, loses: str, *, wins: bool) -> None:
    """At each of the calls: who opens anew goes on exactly, and the registry's change is made, once."""
    client, after = connect(redis_url), 0
    seen: list[tuple[str, str] | None] = []
    ModelStore(client, MODEL, "one").release()  # its functions are loaded
    while not seen or seen[-1] is not None:
        after += 1
        client.flushall()
        world = World(client)
        world.candidate(deadline_steps=0 if wins else 40)
        counting = Counting(client, after, loses)
        world.judging = world.opened(cast("Client", counting))
        lost = False
        for difference in (0.1 if wins else 0.0 for _ in range(44)):
            world.step += 1
            duels = {(world.step, 1, 2): duel_of(1.0 + difference, 1.0)}
            try:
                world.look(duels)
            except ServiceUnreachable:
                lost = True
                world.judging = world.opened(cast("Client", counting))
                fed = world.judging.state.step
                world.look({key: duel for key, duel in duels.items() if fed is None or key[0] > fed})
        assert roles(world) == ((2, None, 1) if wins else (1, None, None))
        assert len(world.audited("promote")) == int(wins)
        assert len(world.audited("nominate")) == (1 if wins else 2)
        (ended,) = world.judging.state.ended
        seen.append((ended.outcome, ended.sentence) if lost else None)
    assert len(seen) > 20
    assert len(set(seen)) == 2  # one sentence, with the same numbers; None: no call was lost any more
    client.close()


@pytest.mark.parametrize("loses", ["the call", "the answer"])
def test_what_was_carried_out_is_not_carried_out_again(redis_url: str, loses: str) -> None:
    """A monitor ends a trial and dies before that is stored; a person nominates the version anew: it stays so."""
    client, after, met = connect(redis_url), 0, 0
    ModelStore(client, MODEL, "one").release()
    while True:
        after += 1
        client.flushall()
        world = World(client)
        world.candidate(deadline_steps=5)
        counting = Counting(client, after, loses)
        world.judging = world.opened(cast("Client", counting))
        try:
            world.pass_steps([0.0] * 8)
        except ServiceUnreachable:
            if world.registry.aliases().candidate is None:
                world.registry.nominate(2, expected=None, actor="ann", reason="once more", now_ms=NOW_MS)
                met += 1
                world.reopen()
                world.look()
                assert roles(world) == (1, 2, None)
        else:
            break
    assert met >= 1
    client.close()


def test_two_that_believe_they_lead_judge_once(client: Client) -> None:
    """The one whose state was moved on is told so, and begins from there."""
    world = World(client)
    world.candidate()
    one, other = world.opened(who="one"), world.opened(who="other")
    ModelStore(client, MODEL, "other").lease(60_000)
    evidence = Evidence({(FIRST_STEP, 1, 2): duel_of(1.1, 1.0)}, [FIRST_STEP], frozenset({1, 2}), None)
    other.look(evidence, NOW_MS)
    with pytest.raises(FencedError):
        one.look(evidence, NOW_MS)
    one.open()
    assert one.state.trial is not None
    assert one.state.trial.steps == 1
    assert one.state == other.state


def test_a_verdict_that_can_not_be_read_stops_nothing(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Its candidate has no trial, loudly; monitoring goes on."""
    world = World(client)
    world.candidate()
    calling(client.hset, f"killick:{{{MODEL}}}:verdicts", "verdict 2", b"rubbish")
    world.pass_steps([0.1] * 3)
    assert (roles(world), world.judging.state.watched) == ((1, 2, None), 2)
    assert "version 2 has no trial: verdict verdict 2 can't be read" in caplog.text


def test_a_calibration_with_long_blocks_is_judged_by_what_there_is(client: Client) -> None:
    """A trial for harm that is shorter than a block: the mean of its steps against a block's spread."""
    for mean, promoted in ((-0.19, True), (-0.21, False)):
        client.flushall()
        world = World(client)
        trial = trial_of("harm")
        long = Calibration(block_steps=100, scale=0.1, lag1=0.0, steps=500)
        version = world.add(1, type(trial)(mode="harm", alpha=0.02, calibration=long, harm_steps=24, deadline_steps=0))
        world.registry.nominate(version, expected=None, actor="retrainer", reason="better", now_ms=NOW_MS)
        world.pass_steps(np.full(24, mean).tolist())
        assert (roles(world)[0] == 2) is promoted
        if promoted:
            (_, reason), *_ = world.audited("promote")
            assert reason.endswith(
                "higher by 0.19 a step (scaled), by no more than 2 standard errors: that may be luck"
            )


def test_a_trial_without_any_level_left_ends_at_once(client: Client) -> None:
    """The budget of false promotions is spent: nothing could ever be proved."""
    world = World(client)
    trial = type(trial_of())(mode="superiority", alpha=0.0, calibration=CALIBRATION, harm_steps=24, deadline_steps=100)
    version = world.add(1, trial)
    world.registry.nominate(version, expected=None, actor="retrainer", reason="better", now_ms=NOW_MS)
    world.pass_steps([0.1])
    assert roles(world) == (1, None, None)
    assert "no level is left" in world.audited("nominate")[-1][1]
