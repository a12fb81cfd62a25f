"""What happens to and by those who update the model in the simulator: the actions of a world that has such."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from models.errors import KillickError, VersionError
from models.server import calling
from tests.faults.audited import wrong
from tests.faults.boundaries import Crash
from tests.faults.clock import CLOCK
from tests.faults.store import Store
from tests.faults.updaters import Gate, request, retrainer, unsettled
from tests.faults.world import Failed, Updater
from worker.requests import RequestStore
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumers.roster import Seat
    from tests.faults.simulation import Simulation
    from tests.faults.updaters import History
    from worker.judging import Evidence, Judging

TRAINING = ("step", "step", "acknowledge", "pass", "update", "update", "operate", "sync", "thaw")
MACHINE = ("gate", "guard", "retrainer")
MOST_REQUESTS = 5
SETTLING_STEPS = 30
MOST = 4  # processes that update
DEEPEST = 2  # of them in the midst of a call


class Updates:
    """Gates and retrainers of a world."""

    def __init__(self, world: Simulation, history: History) -> None:
        self._world = world
        self._history = history
        self._rng = world.rng
        self._model = world.model
        self._verdicts = VerdictStore(world.client, world.model)
        self._approval = world.rng.random() < 0.3
        self._lease = f"killick:{{{world.model}}}:lease"
        self._updaters: list[Updater] = []
        self._last: Judging | None = None  # the gate by which the world came to rest
        self._asked = self._began = 0
        self.actions: dict[str, Callable[[], None]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    def settled(self) -> bool:
        """Whether nobody who updates the model has anything to do any more; new ones take up what others left."""
        if not self._world.temper.weights["update"]:
            return True
        before = self._world.registry.aliases()
        self._updaters.clear()
        calling(self._world.client.delete, self._lease)
        worker, gate = self._worker(), self._gate()
        for one in (worker, worker, worker, gate):
            self._update(one)
        self._history.go_on(self._rosters(), SETTLING_STEPS)
        for _ in range(2):
            self._update(gate)
        self._last = gate.judging
        return self._world.registry.aliases() == before

    def judge(self) -> None:
        """Nothing was left half-done.

        Raises:
            Failed: something was.
        """
        if self._last is None:
            return
        for entry in self._world.registry.audit():
            if entry.actor in MACHINE:
                self._world.boundaries.fault(f"{entry.actor}: {entry.event}")
        if waits := RequestStore(self._world.client, self._model).waiting():
            raise Failed(f"requests wait on: {waits}")
        if why := unsettled(self._world.registry, self._last):
            raise Failed(why)

    def _rosters(self) -> list[tuple[Seat, ...]]:
        return [tuple(self._world.ledger(number).roster()) for number in range(len(self._world.group.logs))]

    def do_pass(self) -> None:
        """Event time passes, and versions that run do as they can."""
        self._history.go_on(self._rosters(), self._rng.choice((1, 4, 20)))

    def do_ask(self) -> None:
        """Somebody asks for a retraining."""
        if self._asked < MOST_REQUESTS:
            self._asked += 1
            self._world.server.writes += 1
            RequestStore(self._world.client, self._model).ask(request(self._asked, self._rng))

    def do_expire(self) -> None:
        """The lease of whoever judges runs out."""
        self._world.boundaries.fault("lease ran out")
        calling(self._world.client.delete, self._lease)

    def do_hire(self) -> None:
        """One more process that updates the model."""
        if len(self._updaters) < MOST:
            self._updaters.append(self._rng.choice((self._gate, self._worker))())

    def do_update(self) -> None:
        """One of them takes a step."""
        awake = [one for one in self._updaters if not one.frozen and not one.busy]
        if awake:
            self._update(self._rng.choice(awake))

    def do_stall(self) -> None:
        """Such a process stops in the midst of its work, and may go on later; or it is killed."""
        if self._updaters:
            one = self._rng.choice(self._updaters)
            if self._rng.random() < 0.5 and not one.busy:
                self._world.boundaries.fault("an updater killed")
                self._updaters.remove(one)
            else:
                one.frozen = not one.frozen

    def _update(self, one: Updater) -> None:
        """One step of a gate or a retrainer; whatever comes of it, the registry is in order."""
        one.busy = True
        try:
            one.step()
        except Crash:
            self._updaters.remove(one)
        except KillickError as error:
            if not error.retriable:
                raise Failed(f"{one.name} ended with {type(error).__name__}: {error}") from error
        finally:
            one.busy = False
        if why := wrong(self._world.registry, self._verdicts):
            raise Failed(f"after a step of {one.name}: {why}")

    def _line(self, name: str) -> tuple[Store, random.Random]:
        """A new process's way to the server, and its dice."""
        rng = random.Random(self._rng.random())
        store = Store(self._world.server, rng, self._world.boundaries, self._world.temper.rates)
        store.tells_restarts = rng.random() < self._world.temper.tells_restarts
        store.meanwhile = self._world.meanwhile
        self._world.boundaries.note("  %s begins", name)
        return store, rng

    def _gate(self) -> Updater:
        self._began += 1
        name = f"gate-{self._began}"
        store, _ = self._line(name)
        gate = Gate(name, store, self._model, self._evidence, approval=self._approval)
        return Updater(name, gate.step, gate.judging)

    def _evidence(self, step: int | None) -> Evidence:
        running = frozenset(seat.version for roster in self._rosters() for seat in roster if seat.leave_offset is None)
        return self._history.since(step, running)

    def _worker(self) -> Updater:
        self._began += 1
        name = f"retrainer-{self._began}"
        store, rng = self._line(name)
        worker = retrainer(name, store, self._model, rng, self._training, self._silent)
        return Updater(name, lambda: worker.step(int(CLOCK.now * 1000)))

    def _silent(self, name: str) -> bool:
        """Whether a worker counts as dead: it is, or it was not heard of for too long."""
        alive = any(one.name == name and not one.frozen for one in self._updaters)
        return not alive or (not self._world.boundaries.quiet and self._rng.random() < 0.1)

    def _training(self) -> None:
        """What happens while one trains."""
        if (
            self._world.boundaries.quiet
            or len(self._world.busy) > DEEPEST
            or sum(one.busy for one in self._updaters) > DEEPEST
        ):
            return
        for _ in range(self._rng.choice((0, 2, 6))):
            self._world.actions[self._rng.choice(TRAINING)]()

    def do_operate(self) -> None:
        """Somebody changes who answers, or who is judged; now and then in vain."""
        world, rng = self._world, self._rng
        aliases, registry = world.registry.aliases(), world.registry
        by: dict[str, Any] = {"actor": "sim", "reason": "by chance", "now_ms": int(CLOCK.now * 1000)}
        commands = ["promote", "promote", "rollback", "rollback to", "nominate", "nominate", "clear"]
        if world.temper.weights["update"]:
            commands += ["resume", "resume", "resume", "pause", "approve", "approve"]
        command = rng.choice(commands)
        begun = all(world.client.exists(f"disk:{{{self._model}/{p}}}:roster") for p in range(len(world.group.logs)))
        numbers = range(1, int(calling(world.client.hget, f"killick:{{{self._model}}}:state", "versions")) + 1)
        useful = [n for n in numbers if begun or n not in world.broken]  # a first version must be of use
        incumbent, number = aliases.incumbent or 1, rng.choice(useful)
        try:
            if command == "promote":
                registry.promote(aliases.candidate or number, expected=incumbent, **by)
            elif command == "rollback":
                registry.rollback(expected=incumbent, **by)
            elif command == "rollback to":
                registry.rollback(number, expected=incumbent, **by)
            elif command in ("resume", "pause"):
                (registry.resume if command == "resume" else registry.pause)(**by)
            elif command == "approve":
                registry.approve(aliases.candidate or number, **by)
            else:
                wanted = number if command == "nominate" else None
                registry.nominate(wanted, expected=aliases.candidate, **by)
        except VersionError:
            return
        world.server.writes += 1
        world.boundaries.fault(command)
        if rng.random() < 0.6:  # the command waits for the disk
            world.server.sync()
