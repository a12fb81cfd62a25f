"""The guard: it rolls back who does worse than the version before, or breaks, and nobody else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import pytest

from models.duels import Duel
from models.errors import ServiceUnreachable
from models.server import calling, connect
from tests.worker.judged import MODEL, NOW_MS, SIGNED_OFF, World, duel_of, noise, trial_of
from tests.worker.test_gate import Counting, roles
from worker.guard import LEARNED_STEPS
from worker.store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client

pytestmark = pytest.mark.services


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """Redis, then Valkey."""
    made = connect(store_url)
    yield made
    made.close()


def promoted(client: Client, *, by_verdict: bool = True) -> World:
    """Version 2 answers, version 1 did before and runs on."""
    world = World(client)
    world.promote(world.add(1, trial_of() if by_verdict else None))
    return world


def rolled_back(world: World) -> str:
    """The guard's reason; it rolled back once, and that paused automatic promotion."""
    assert roles(world) == (1, None, None)
    assert world.registry.aliases().paused
    assert world.registry.statuses() == {2: "withdrawn"}
    ((actor, reason),) = world.audited("rollback")
    assert actor == "guard"
    assert [(one.outcome, one.sentence) for one in world.judging.state.ended] == [("rolled back", reason)]
    assert world.judging.state.guard is None
    return reason


def test_a_previous_version_that_proves_better_comes_back(client: Client) -> None:
    """By the calibration of the verdict; the audit has the numbers, and the guard is told while it watches."""
    world = promoted(client)
    world.pass_steps([0.1] * 10, 2, 1)
    told = world.judging.state.guard
    assert told is not None
    assert (told.version, told.previous, told.state, told.steps) == (2, 1, "running", 10)
    assert 1 < told.e_value < told.needed == pytest.approx(50)
    assert told.difference == pytest.approx(0.1)
    world.pass_steps([0.1] * 40, 2, 1)
    words = r"version 1, which answered before, proved better than version 2: e-value .* of 50 needed, after \d\d steps"
    assert re.match(words, rolled_back(world))
    world.pass_steps([0.1] * 40, 2, 1)
    rolled_back(world)


def test_a_version_that_does_as_well_stays(client: Client) -> None:
    """No difference is no reason, nor is doing better; when the version before is gone, the guard is over."""
    world = promoted(client)
    world.pass_steps([*noise(150, 1), *noise(150, 2, -0.05)], 2, 1)
    assert roles(world) == (2, None, 1)
    assert world.judging.state.guard is not None
    world.running = frozenset({2})
    world.pass_steps([], 2, 1)
    world.look()
    assert roles(world) == (2, None, 1)
    assert world.judging.state.guard is None


def test_a_version_promoted_by_hand_is_calibrated_live(client: Client) -> None:
    """On the first hundred steps, which are not bet on however bad they are; then as any other."""
    world = promoted(client, by_verdict=False)
    world.pass_steps(noise(LEARNED_STEPS - 1, 1, 2.0), 2, 1)
    told = world.judging.state.guard
    assert told is not None
    assert (told.state, told.steps, told.e_value) == ("learning", LEARNED_STEPS - 1, 1.0)
    assert told.difference == pytest.approx(2.0, abs=0.1)
    world.pass_steps(noise(1, 2, 2.0), 2, 1)
    assert (told.state, told.steps, told.e_value) == ("running", 0, 1.0)
    assert told.calibration is not None
    assert 0.01 < told.calibration.scale < 0.1  # of blocks of at least twelve steps
    assert roles(world) == (2, None, 1)
    world.reopen()
    world.pass_steps(noise(200, 3, 0.0), 2, 1)
    assert roles(world) == (2, None, 1)
    world.pass_steps(noise(300, 4, 0.2), 2, 1)
    rolled_back(world)


def test_a_verdict_about_others_calibrates_nothing(client: Client) -> None:
    """The version was compared with another one than that which answered before it."""
    world = World(client)
    world.promote(world.add(1))
    world.promote(world.add(1, trial_of()))
    world.pass_steps([0.0], 3, 2)
    assert world.judging.state.guard is not None
    assert world.judging.state.guard.state == "learning"


def test_versions_that_do_not_differ_calibrate_nothing(client: Client) -> None:
    """Two that forecast the same: the guard goes on looking, in bounds, until they do differ."""
    world = promoted(client, by_verdict=False)
    world.pass_steps([0.0] * 1_200, 2, 1)
    told = world.judging.state.guard
    assert told is not None
    assert told.state == "learning"
    assert len(told.learned) <= 1_000
    world.pass_steps(noise(20), 2, 1)
    assert told.calibration is not None


@pytest.mark.parametrize("follows", [True, False])
def test_a_forecast_that_is_no_number_rolls_back_at_once(client: Client, *, follows: bool) -> None:
    """In a step that is not over, with the guard still learning; also in a partition that does not follow yet."""
    world = promoted(client, by_verdict=False)
    world.pass_steps([0.0] * 3, 2, 1)
    broken = Duel(5, 5, 5, 5, 5, 3, 0)
    at = (world.step + 1, 2, 1) if follows else (world.step + 1, 1, 2)
    world.look({at: broken.turned()} if follows else {at: broken}, over=False)
    assert roles(world) == (2, None, 1)  # it was the other one
    world.look({at: broken} if follows else {at: broken.turned()}, over=False)
    words = "version 2 is broken, and version 1 is not: 3 of 8 forecasts are missing or no numbers, at 2015-08"
    assert rolled_back(world).startswith(words)


def test_a_disaster_rolls_back_after_so_many_steps(client: Client) -> None:
    """A restart forgets none of them; an error that is large for both of them does not count."""
    world = promoted(client, by_verdict=False)  # only the breaker can act so soon
    for first, second in [(9.0, 1.0)] * 4 + [(9.0, 9.0)] + [(9.0, 1.0)] * 4:
        world.step += 1
        world.look({(world.step, 2, 1): duel_of(first, second)})
        world.reopen()
        assert roles(world) == (2, None, 1)
    world.look({(world.step + 1, 2, 1): duel_of(9.0, 1.0)}, over=False)
    assert "for 5 steps its squared error is more than 4 times persistence's, 9 times in" in rolled_back(world)


def test_an_operator_was_faster(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever rolled back meanwhile is not undone: what the guard had decided is overtaken."""
    world = promoted(client)
    world.pass_steps([0.0], 2, 1)
    registry = world.judging._registry
    aliases = registry.aliases()
    seen = iter([aliases])
    registry.aliases = lambda: next(seen, None) or type(registry).aliases(registry)  # type: ignore[method-assign]
    world.registry.rollback(expected=2, actor="ann", reason="looks wrong", now_ms=NOW_MS)
    world.look({(world.step + 1, 2, 1): Duel(first_lacks=8)}, over=False)
    assert "guard was overtaken: version 1 answers, not 2 as expected" in caplog.text
    assert world.audited("rollback") == [("ann", "looks wrong")]
    assert roles(world) == (1, None, None)
    assert world.judging.state.ended == []
    world.look()
    assert world.judging.state.guard is None


def test_gate_and_guard_at_once(client: Client) -> None:
    """The guard comes first: the candidate was made from a version that does not answer any more."""
    world = World(client, SIGNED_OFF)
    world.promote(world.add(1, trial_of()))
    world.candidate(parent=2)
    for _ in range(60):
        world.step += 1
        world.look({(world.step, 2, 3): duel_of(1.1, 1.0), (world.step, 2, 1): duel_of(1.0, 1.0)})
    assert roles(world) == (2, 3, 1)
    world.registry.approve(3, actor="bob", reason="good", now_ms=NOW_MS)
    broken = {(world.step + 1, 2, 1): Duel(first_lacks=3), (world.step + 1, 2, 3): Duel(first_lacks=3)}
    world.look(broken, over=False)
    world.look(broken, over=False)
    assert roles(world) == (1, None, None)
    assert world.audited("promote")[1:] == []
    outcomes = [(one.version, one.outcome) for one in world.judging.state.ended]
    assert outcomes == [(2, "rolled back"), (3, "ended")]
    assert "version 3 was made from version 2, and version 1 answers by now" in world.judging.state.ended[1].sentence


def test_what_the_registry_refuses_is_said_and_not_asked_again(client: Client) -> None:
    """The version before was withdrawn meanwhile: nobody can go back to it."""
    world = promoted(client)
    world.pass_steps([0.0], 2, 1)
    calling(client.hset, f"killick:{{{MODEL}}}:statuses", "1", "withdrawn")
    for _ in range(3):
        world.look({(world.step + 1, 2, 1): Duel(first_lacks=8)}, over=False)
    told = world.judging.state.guard
    assert told is not None
    assert told.state == "refused"
    assert re.search(r"version 2 is broken.*; but version 1 is withdrawn", told.words)
    assert roles(world) == (2, None, 1)
    assert world.audited("rollback") == []


@pytest.mark.parametrize("loses", ["the call", "the answer"])
def test_whatever_call_is_lost_it_rolls_back_once(redis_url: str, loses: str) -> None:
    """At each of the calls: who opens anew goes on exactly."""
    client, after, sentences, lost = connect(redis_url), 0, set[str](), True
    ModelStore(client, MODEL, "one").release()  # its functions are loaded
    while lost:
        after, lost = after + 1, False
        client.flushall()
        world = promoted(client)
        counting = Counting(client, after, loses)
        world.judging = world.opened(cast("Client", counting))
        for _ in range(44):
            world.step += 1
            duels = {(world.step, 2, 1): duel_of(1.1, 1.0)}
            try:
                world.look(duels)
            except ServiceUnreachable:
                lost = True
                world.judging = world.opened(cast("Client", counting))
                fed = world.judging.state.step
                world.look({key: duel for key, duel in duels.items() if fed is None or key[0] > fed})
        sentences.add(rolled_back(world))
    assert after > 20
    assert len(sentences) == 1
    client.close()
