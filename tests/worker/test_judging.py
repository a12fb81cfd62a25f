"""Gate, guard and operators at once, with calls that are lost: whatever order things come in, nothing is half-done."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from models.errors import KillickError, ServiceUnreachable
from models.registry import Registry
from models.server import connect
from tests.consumers.test_ledger_calls import Deaf
from tests.worker.judged import MODEL, NOW_MS, SIGNED_OFF, World, duel_of, trial_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.audit import AuditEntry
    from models.duels import Duel
    from models.server import Client
    from models.verdict import Mode

pytestmark = pytest.mark.services
ROUNDS = 400
MODES: tuple[Mode, ...] = ("superiority", "harm", "none")


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    """Redis."""
    made = connect(redis_url)
    yield made
    made.close()


class Restless(World):
    """A world in which people do as they like, versions break, and calls are lost."""

    def begin(self, seed: int) -> None:
        """Draw what happens from this seed."""
        self.rng = np.random.default_rng(seed)
        self.deaf = Deaf(self.client)
        self.judging = self.opened(cast("Client", self.deaf))
        self.unfed: dict[tuple[int, int, int], Duel] = {}

    def operate(self) -> None:
        """What a person or the retrainer does; that it is refused is no fault."""
        aliases, registry = self.registry.aliases(), Registry(self.client, MODEL)
        answers, what = aliases.incumbent or 0, self.rng.random()
        by = {"actor": "ann", "reason": f"round {self.step}", "now_ms": NOW_MS}
        try:
            if what < 0.10 and aliases.candidate is None:
                mode = MODES[self.rng.integers(3)]
                number = self.add(answers, trial_of(mode, 5, 30) if self.rng.random() < 0.9 else None)
                registry.nominate(number, expected=None, **by)  # type: ignore[arg-type]
            elif what < 0.13:
                registry.rollback(expected=answers, **by)  # type: ignore[arg-type]
            elif what < 0.16 and aliases.candidate is not None:
                registry.promote(aliases.candidate, expected=answers, **by)  # type: ignore[arg-type]
            elif what < 0.19 and aliases.candidate is not None:
                registry.nominate(None, expected=aliases.candidate, **by)  # type: ignore[arg-type]
            elif what < 0.40 and aliases.candidate is not None:
                registry.approve(aliases.candidate, **by)  # type: ignore[arg-type]
            elif what < 0.50 and aliases.paused:
                registry.resume(**by)  # type: ignore[arg-type]
        except KillickError:
            pass

    def happen(self) -> None:
        """A step of the stream: the versions that run do well or badly, and sometimes break."""
        self.step += 1
        found = self.registry.aliases()
        for other in {found.candidate, found.previous} - {None, found.incumbent}:
            first, second = 1.0 + self.rng.normal(size=2) * 0.1 + self.rng.choice([0.0, 0.0, 0.15], 2)
            duel = duel_of(float(first), float(second))
            if self.rng.random() < 0.02:
                duel = duel._replace(first_lacks=1.0)
            self.unfed[self.step, found.incumbent or 0, other or 0] = duel
        self.running = frozenset({found.incumbent or 0, found.candidate or 0, found.previous or 0})

    def judge(self) -> None:
        """A look, of which a call may be lost; the next one begins with what is stored."""
        self.deaf.loses = str(self.rng.choice(["the call", "the answer", "", "", ""]))
        fed = self.judging.state.step
        self.unfed = {key: duel for key, duel in self.unfed.items() if fed is None or key[0] > fed}
        try:
            self.look(self.unfed)
        except ServiceUnreachable:
            self.judging = self.opened(cast("Client", self.deaf))
        self.deaf.loses = ""


def check(entries: list[AuditEntry], world: Restless) -> None:
    """What the machine did was allowed when it did it, once, and is what it tells."""
    paused, approved, told = False, set[int](), Counter[tuple[str, str]]()
    withdrawn, parents = set[int | None](), {info.version: info.parent for info in world.registry.versions()}
    for entry in entries:
        if entry.event == "promote" and entry.actor == "gate":
            assert not paused
            assert entry.version in approved
            assert parents[entry.version or 0] == entry.before
        if entry.actor in ("gate", "guard"):
            told[entry.event, entry.reason] += 1
        if entry.event == "promote":
            assert entry.version not in withdrawn
        if entry.event == "rollback":
            withdrawn.add(entry.before)
        paused = entry.event == "rollback" or (paused and entry.event != "resume")
        approved = {entry.version or 0} if entry.event == "approve" else approved
    assert set(told.values()) <= {1}
    outcomes = {"promote": "promoted", "nominate": "ended", "rollback": "rolled back"}
    ended = {(one.outcome, one.sentence) for one in world.judging.state.ended}
    newest = [(outcomes[event], reason) for event, reason in told][-20:]  # not all of them are kept
    pending = {one.decision.sentence for one in (world.judging.state.trial, world.judging.state.guard)
               if one is not None and one.decision is not None}  # fmt: skip
    assert {one for one in newest if one[1] not in pending} <= ended


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_nothing_is_done_twice_or_without_leave(client: Client, seed: int) -> None:
    """No promotion while paused, unsigned, or of a version that was made from another; every deed is told, once."""
    world = Restless(client, SIGNED_OFF)
    world.begin(seed)
    for _ in range(ROUNDS):
        world.operate()
        world.happen()
        world.judge()
    entries = world.registry.audit()
    check(entries, world)
    by_machine = Counter((entry.actor, entry.event) for entry in entries)
    assert by_machine["gate", "promote"] > 0
    assert by_machine["gate", "nominate"] > 0
    assert by_machine["guard", "rollback"] > 0
