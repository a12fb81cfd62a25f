"""One seed: consumers on a simulated Kafka and a real Redis, and a world that does to them what worlds do."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from consumers import ledger as ledgers
from consumers.following import Follower
from consumers.holding import Limits, Topics
from consumers.ledger import Ledger
from consumers.loop import Consumer
from consumers.opening import Opener
from consumers.roster import incumbent_of
from consumers.versions import Versions
from models import registry as registries
from models.errors import KillickError, VersionError
from models.registry import Registry
from models.server import load_functions
from tests.faults.boundaries import Boundaries, Crash, Point, Tally
from tests.faults.clock import CLOCK
from tests.faults.records import new_log
from tests.faults.store import RUN, Server, Store, Waiting
from tests.faults.topics import Group, Sent, Sink, Source
from tests.faults.updaters import History
from tests.faults.updates import Updates
from tests.faults.versions import NUMBERS, Loader, architecture, version_of, weights_bytes
from tests.faults.world import PLOTS, Control, Failed, Node, Temper, Watcher
from tests.streams import FORM
from worker import requests
from worker import store as stores

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from consumers.stream import Version

MODEL = "sim"
MAX_AHEAD_MS = 86_400_000
SETTLE_STEPS = 1_500
MEANWHILE = ("step", "step", "step", "step", "acknowledge", "arrive", "sync", "cut", "operate")
DEEPEST = 2  # consumers in the midst of a call


@dataclass
class Simulation:
    """A seed's world; `run` lets it happen, `settle` lets it come to rest."""

    seed: int
    client: redis.Redis
    target: Point | None = None
    control: Control = field(default_factory=Control)
    real: bool = False
    trace: bool = False
    nodes: list[Node] = field(default_factory=list)
    busy: list[Node] = field(default_factory=list)  # in the middle of a step, others within others
    arrived: list[Sent] = field(default_factory=list)
    began: int = 0
    model: str = MODEL

    def __post_init__(self) -> None:
        """Make the world: logs, versions, a first consumer."""
        rng = self.rng = random.Random(self.seed)
        self.client.flushall()
        self.client.set(RUN, "run_id:0")
        unknown = self.target is not None and self.target.label == "function_load"
        if unknown or rng.random() < 0.2:
            self.client.function_flush()
        else:  # whatever seed came before, the first call finds the same
            for code in (ledgers.CODE, registries.CODE, requests.CODE, stores.CODE):
                load_functions(self.client, code)
        CLOCK.now = 1_000.0
        self.temper = Temper.of(rng, self.target)
        self.boundaries = Boundaries(
            random.Random(rng.random()),
            rate=self.temper.crash_rate,
            target=self.target,
            patience=rng.choice((1, 1, 1, 2, 4)),
        )
        self.boundaries.trace = [] if self.trace else None
        self.real = self.real or self.control.real
        count = rng.choice((1, 1, 2, 3))
        total = rng.choice((60, 120, 180))
        self.group = Group([new_log(rng, p, total // count) for p in range(count)], rng)
        history = History(self.seed)
        self.server = Server(self.client, history)
        self.registry = Registry(self.client, MODEL)
        self.updates = Updates(self, history)
        for number in NUMBERS:
            self.registry.register(
                architecture(number), weights_bytes(number), training={}, parent=None,
                actor="sim", reason="seed", now_ms=number,
            )  # fmt: skip
        self.broken = set(rng.sample(NUMBERS[1:], rng.choice((0, 0, 0, 1, 2))))
        self.always = rng.random() < 0.15
        self.server.sync()
        trims = self.target is not None and self.target.label == "trim"
        self.limits = Limits(
            max_series=rng.choice((4, 1_000, 1_000)),
            max_ahead_ms=MAX_AHEAD_MS,
            snapshot_every=4 if trims else rng.choice((4, 4, 15, 60)),
            retention_blocks=1 if trims else rng.choice((2, 3, 10, 1_000)),
            spin_up_steps=rng.choice((2, 5, 20)),
            guard_steps=rng.choice((1, 8, 1_000)),
        )
        self.actions: dict[str, Callable[[], None]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }
        self.actions |= self.updates.actions
        self._do_produce()
        self._do_start()

    @property
    def tally(self) -> Tally:
        """What was passed and hit."""
        return self.boundaries.tally

    def run(self, ticks: int) -> None:
        """Let so many things happen."""
        self.boundaries.quiet = False
        names, weights = zip(*self.temper.weights.items(), strict=True)
        for _ in range(ticks):
            CLOCK.now += self.rng.choice((0.01, 0.1, 0.3, 1.5))
            self.actions[self.rng.choices(names, weights)[0]]()
            if self.rng.random() < 0.02:
                self._plot()
        self.boundaries.quiet = True

    def settle(self) -> None:
        """No more faults: everything that was begun comes to its end.

        Raises:
            Failed: it does not.
        """
        while self.server.late:
            self._arrive()
        for log in self.group.logs:
            log.visible = len(log.records)
        for node in self.nodes:
            node.frozen = node.source.deaf = False
        if not self.nodes:
            self._do_start()
        for _ in range(SETTLE_STEPS):
            CLOCK.now += 0.3
            for node in list(self.nodes):
                self._step(node)
                node.sink.acknowledge(0)
            if not self.nodes:
                self._do_start()
            if self._at_rest() and self.updates.settled() and self._at_rest():
                self.updates.judge()
                return
        raise Failed(f"did not come to rest: {self.describe()}")

    def describe(self) -> str:
        """Where everything stands."""
        parts = []
        for node in self.nodes:
            held = {p: (h.next, h.mark) for p, h in node.consumer.held.items()}
            parts.append(f"{node.name}: {held} opening {node.consumer.opening} trouble {node.consumer.trouble!r}")
        heads = [self.ledger(p).head() for p in range(len(self.group.logs))]
        parts += [f"{p}: {head} of {self.group.logs[p].end}" for p, head in enumerate(heads)]
        return "; ".join(parts)

    def ledger(self, partition: int) -> Ledger:
        """A partition's ledger, to be read."""
        return Ledger(self.client, MODEL, partition)

    def load(self, number: int) -> Version:
        """A version, ready to be stepped."""
        return version_of(number, real=self.real)

    def load_checked(self, number: int) -> Version:
        """A version as a consumer gets it.

        Raises:
            VersionError: this seed wants it to be of no use.
        """
        if number in self.broken:
            self.boundaries.fault("version refused")
            raise VersionError(f"version {number} is of no use (simulated)")
        return self.load(number)

    def _disk(self, key: str) -> Waiting | None:
        del key
        return None if self.always else Waiting(self.server, self.boundaries)

    def _at_rest(self) -> bool:
        for node in self.nodes:
            if node.consumer.opening or node.consumer.trouble or node.sink.waiting:
                return False
        if sum(len(node.consumer.held) for node in self.nodes) != len(self.group.logs):
            return False
        for number, log in enumerate(self.group.logs):
            head = self.ledger(number).head()
            if head is None or head.next != log.end or head.mark != log.end:
                return False
            if not self._follows(self.ledger(number)):
                return False
        return True

    def _follows(self, found: Ledger) -> bool:
        """Whether a partition is where the registry wants it, or says why it can't be."""
        aliases, roster = self.registry.aliases(), found.roster()
        state = found.state()
        running = {seat.version for seat in roster if seat.leave_offset is None}
        lacking = {v for v in (aliases.incumbent, aliases.candidate) if v is not None and v not in running}
        if lacking - self.broken or (aliases.incumbent in running and incumbent_of(roster) != aliases.incumbent):
            return False
        return state is not None and state.kind == ("diverged" if lacking else "running")

    # — what happens —

    def _plot(self) -> None:
        """A chain of events that chance alone would seldom bring about."""
        kind = self.rng.choice(sorted(PLOTS))
        self.boundaries.note("  plot: %s", kind)
        for name in PLOTS[kind]:
            for _ in range(self.rng.randint(3, 25) if name == "steps" else 1):
                CLOCK.now += self.rng.choice((0.01, 0.3))
                if name == "steps":
                    self.actions[self.rng.choice(("step", "step", "step", "acknowledge", "produce", "start"))]()
                else:
                    self.actions[name]()

    def _awake(self) -> list[Node]:
        """The processes that may do something now."""
        return [node for node in self.nodes if not node.frozen and node not in self.busy]

    def meanwhile(self) -> None:
        """While one consumer waits for an answer, another one works, or the server falls."""
        if self.rng.random() < self.temper.interleaving and len(self.busy) <= DEEPEST:
            name = self.rng.choice(MEANWHILE)
            if name in ("cut", "operate") and not self.temper.weights[name]:
                return
            self.boundaries.fault(f"meanwhile: {name}")
            restarts = self.server.restarts
            self.actions[name]()
            if restarts != self.server.restarts:
                for node in self.busy:  # in the midst of its calls nobody misses it
                    node.store.tells_now = True

    def _do_step(self) -> None:
        if awake := self._awake():
            self._step(self.rng.choice(awake))

    def _step(self, node: Node) -> None:
        self.busy.append(node)
        try:
            node.consumer.step(CLOCK.now)
        except Crash:
            self._bury(node)
        except KillickError as error:
            if error.retriable:  # whoever watches the process starts it again
                self._bury(node)
                return
            raise Failed(f"{node.name} ended with {type(error).__name__}: {error}") from error
        except Failed:
            raise
        except Exception as error:
            raise Failed(f"{node.name} ended with {type(error).__name__}: {error}") from error
        finally:
            self.busy.remove(node)

    def _bury(self, node: Node) -> None:
        node.sink.die()
        self.nodes.remove(node)
        self.group.expel(node.name)

    def _do_crash(self) -> None:
        if awake := self._awake():
            self.boundaries.fault("crash between two steps")
            self._bury(self.rng.choice(awake))

    def _do_produce(self) -> None:
        log = self.rng.choice(self.group.logs)
        log.visible = min(len(log.records) - 1, log.visible + self.rng.choice((1, 3, 10)))

    def _do_acknowledge(self) -> None:
        awake = self._awake()
        if awake:
            self.rng.choice(awake).sink.acknowledge(self.rng.choice((1, 4, 50)))

    def _do_sync(self) -> None:
        self.server.sync()

    def _do_cut(self) -> None:
        if self.always:
            self.server.sync()
        if any(not self.client.exists(f"disk:{{{MODEL}/{p}}}:head") for p in self.group.offsets):
            return  # an empty ledger under a group's offset is for people to judge
        self.boundaries.fault("tail cut" if self.server.cut() else "restart, nothing lost")

    def _do_arrive(self) -> None:
        if self.server.late:
            self._arrive()

    def _arrive(self) -> None:
        self.boundaries.fault("late call arrived")
        self.server.arrive()

    def _do_rebalance(self) -> None:
        self.boundaries.fault("rebalance")
        self.group.rebalance()

    def _do_start(self) -> None:
        if len(self.nodes) >= 3:
            return
        self.began += 1
        name = f"consumer-{self.began}"
        rng = random.Random(self.rng.random())
        source = Source(name, self.group, rng, self.boundaries)
        source.from_group = self.control.from_group
        sink = Sink(rng, self.boundaries, self.arrived)
        store = Store(self.server, rng, self.boundaries, self.temper.rates)
        store.tells_restarts = rng.random() < self.temper.tells_restarts
        store.meanwhile = self.meanwhile
        client, watcher = cast("Any", store), cast("Any", Watcher(self.boundaries))
        versions = Versions(self.load_checked, cast("Any", Loader(rng, self.boundaries)))
        registry = Registry(client, MODEL)
        opener = Opener(
            client,
            MODEL,
            FORM,
            lambda: Topics("obs", "pred", "dead", "id", len(self.group.logs)),
            self.limits,
            registry=registry,
            versions=versions,
            sender=cast("Any", sink),
            observer=watcher,
        )
        follower = Follower(registry, versions, self.limits, watcher, self._disk)
        consumer = Consumer(cast("Any", source), opener, follower, versions, self.limits, watcher)
        self.nodes.append(Node(name, consumer, source, sink, store))

    def _do_leave(self) -> None:
        awake = self._awake()
        if not awake:
            return
        node = self.rng.choice(awake)
        self.boundaries.fault("left in order")
        self.busy.append(node)
        CLOCK.meanwhile = lambda: node.sink.acknowledge(4)
        try:
            node.consumer.close(0.1)
        except Crash:
            pass
        except KillickError as error:
            if not error.retriable:
                raise Failed(f"{node.name} left with {type(error).__name__}: {error}") from error
        finally:
            CLOCK.meanwhile = lambda: None
            self.busy.remove(node)
        self._bury(node)

    def _do_freeze(self) -> None:
        awake = self._awake()
        if not awake:
            return
        node = self.rng.choice(awake)
        node.frozen = True
        self.boundaries.fault("frozen")
        if self.rng.random() < 0.8:
            self.group.expel(node.name)
        if len(awake) == 1:
            self._do_start()

    def _do_thaw(self) -> None:
        frozen = [node for node in self.nodes if node.frozen]
        if frozen:
            self.boundaries.fault("thawed")
            node = self.rng.choice(frozen)
            node.frozen = False
            node.source.deaf = self.rng.random() < 0.6

    def _do_deafen(self) -> None:
        """A member that the group gave up, and that goes on; or one that hears again."""
        if not self.nodes:
            return
        node = self.rng.choice(self.nodes)
        node.source.deaf = not node.source.deaf
        if node.source.deaf:
            self.boundaries.fault("expelled, at work")
            self.group.expel(node.name)
