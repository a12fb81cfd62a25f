"""A consumer whose observations lie in lists: everything behind Kafka is real, Redis included."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from consumers.following import Follower
from consumers.holding import Limits, Topics
from consumers.kafka import Change, Source
from consumers.loop import Consumer
from consumers.observer import Observer
from consumers.opening import Opener
from consumers.stream import Partition, Version, fold
from consumers.versions import Versions
from models.errors import VersionError
from models.registry import Registry
from tests.consumers.test_publishing import Sent, Topic
from tests.models.versions import register
from tests.streams import FORM, AtOnce, NumpyScanner, architecture_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from consumers.holding import Holding, Reachable
    from consumers.roster import Seat
    from models.architecture import Architecture
    from tests.consumers.conftest import Store

ARCHITECTURES = {
    1: architecture_of(),
    2: architecture_of(units=(4, 2), cell="gru", horizon=2, series=("s2", "s9", "s0")),
    3: architecture_of(form="plain"),
    4: architecture_of(units=(5,)),
}
SPIN_UP_STEPS, GUARD_STEPS = 5, 12
TICK_S = 0.3  # between two steps: the registry is polled in each


@dataclass(frozen=True)
class Written:
    """A record of the log."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int = -1
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass
class Log:
    """The observations' partitions, read by one consumer that has them all."""

    records: dict[int, list[Written]]
    at: dict[int, int] = field(default_factory=dict)
    changes_left: list[Change] = field(default_factory=list)

    def poll(self, timeout_s: float) -> dict[int, list[Written]]:
        """All that is there."""
        assert timeout_s >= 0
        found = {p: self.records[p][at:] for p, at in self.at.items() if self.records[p][at:]}
        self.at |= {p: len(self.records[p]) for p in found}
        return found

    def changes(self) -> list[Change]:
        """What happened to the assignment, once."""
        left, self.changes_left = self.changes_left, []
        return left

    def start(self, partition: int, offset: int) -> None:
        """Read from here on."""
        self.at[partition] = offset

    def log_span(self, partition: int) -> tuple[int, int]:
        """First offset and end."""
        return 0, len(self.records[partition])

    def committed(self, partition: int) -> None:
        """The group knows nothing."""
        assert partition in self.records

    def pause(self, partitions: Iterable[int]) -> None:
        """Nothing is fetched ahead here."""

    def resume(self, partitions: Iterable[int]) -> None:
        """Nor was anything left."""

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Nobody asks for them."""

    def lag(self, partition: int) -> int | None:
        """Records that wait."""
        return len(self.records[partition]) - self.at.get(partition, 0)

    def check(self, partition: int) -> None:
        """The broker is there."""

    def close(self, offsets: Mapping[int, int]) -> None:
        """Leave."""


class Willing(Topic):
    """Acknowledges at once."""

    def send(self, *record: Any) -> Sent:
        """Take the record."""
        sent = super().send(*record)
        sent.acknowledge()
        return sent

    def versions(self) -> list[int]:
        """Who made the forecasts that were published."""
        return [json.loads(sent.value or b"")["version"] for sent in self.sent if sent.topic == "predictions"]


class Loader(AtOnce):
    """Loads at once; while `held`, when it is let go."""

    def __init__(self) -> None:
        self.held = False
        self._waiting: list[tuple[Future[Any], Any, tuple[Any, ...]]] = []

    def submit(self, work: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        """The outcome, or one that is not there yet."""
        if not self.held:
            return super().submit(work, *arguments, **options)
        self._waiting.append((Future(), work, arguments))
        return self._waiting[-1][0]

    def let_go(self) -> None:
        """Do what was held."""
        self.held = False
        for future, work, arguments in self._waiting:
            done = super().submit(work, *arguments)
            if (error := done.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result())
        self._waiting.clear()


@dataclass
class Heard(Observer):
    """What the observer was told of swaps."""

    swaps: list[tuple[int, int]] = field(default_factory=list)
    spin_ups: list[tuple[int, int]] = field(default_factory=list)
    divergences: dict[int, str] = field(default_factory=dict)
    rosters: dict[int, tuple[Seat, ...]] = field(default_factory=dict)

    def roster(self, partition: int, seats: Sequence[Seat]) -> None:
        """Who runs."""
        self.rosters[partition] = tuple(seats)

    def spun_up(self, partition: int, version: int, seconds: float) -> None:
        """Who was spun up."""
        assert seconds >= 0
        self.spin_ups.append((partition, version))

    def swapped(self, partition: int, version: int, seconds: float) -> None:
        """Who answers now."""
        assert seconds >= 0
        self.swaps.append((partition, version))

    def diverged(self, partition: int, why: str) -> None:
        """Who does not follow."""
        self.divergences[partition] = why


@dataclass
class Waiting:
    """What is on its way to the disk until it is let there."""

    there: bool = False
    keys: list[str] = field(default_factory=list)

    def __call__(self, key: str) -> Reachable | None:
        """Wait for a key's server."""
        self.keys.append(key)
        return self

    def reached(self) -> bool:
        """Whether it is there."""
        return self.there


class World:
    """A model with four versions, of which the first answers, its log, and one consumer."""

    def __init__(self, store: Store, model: str, partitions: int = 1) -> None:
        self.store, self.model = store, model
        self.registry = Registry(store.client, model)
        for number, architecture in ARCHITECTURES.items():
            assert register(self.registry, architecture, number) == number
        self.log = Log({p: [] for p in range(partitions)})
        self.topic = Willing()
        self.now = 0.0
        self.broken: dict[int, str] = {}
        self.loads: list[int] = []
        self.loader = Loader()
        self.disk: Waiting | None = None
        self.limits = Limits(snapshot_every=20, spin_up_steps=SPIN_UP_STEPS, guard_steps=GUARD_STEPS)
        self.start()

    def start(self) -> None:
        """A new consumer takes all partitions; the one before, if any, is dead."""
        self.heard = Heard()
        self.versions = Versions(self.load, self.loader)
        count = len(self.log.records)
        self.log.at.clear()
        self.log.changes_left = [Change("assigned", tuple(range(count)))]
        opener = Opener(
            self.store.client, self.model, FORM, lambda: Topics("o", "predictions", "dead", "t", count), self.limits,
            registry=self.registry, versions=self.versions, sender=self.topic, observer=self.heard,
        )  # fmt: skip
        self.follower = Follower(
            self.registry, self.versions, self.limits, self.heard, lambda key: self.disk(key) if self.disk else None
        )
        self.consumer = Consumer(
            cast("Source", self.log), opener, self.follower, self.versions, self.limits, self.heard
        )
        while not self.consumer.held or self.consumer.opening:
            self.step()

    def load(self, number: int) -> Version:
        """A version with a network in NumPy."""
        self.loads.append(number)
        if number in self.broken:
            raise VersionError(self.broken[number])
        architecture: Architecture = self.registry.load(number)[0]
        return Version(number, architecture, NumpyScanner(architecture, number))

    def step(self, count: int = 1) -> None:
        """Let the consumer work."""
        for _ in range(count):
            self.now += TICK_S
            self.consumer.step(self.now)

    def feed(self, steps: int, series: int = 3, partition: int = 0) -> None:
        """So many steps more of each series, a step of the consumer after each."""
        for _ in range(steps):
            records = self.log.records[partition]
            for i in range(series):
                step = 1_000 + len(records) // series
                value = {"time": step * FORM.interval_ms, "values": {"v": float((step * (i + 3)) % 11), "w": None}}
                records.append(Written(len(records), b"s%d" % i, json.dumps(value).encode()))
            self.step()

    def promote(self, version: int, expected: int) -> None:
        """Command that a version answers."""
        self.now += TICK_S
        self.registry.promote(version, expected=expected, actor="ann", reason="test", now_ms=int(1000 * self.now))

    def rollback(self, expected: int) -> None:
        """Command that the previous version answers again."""
        self.now += TICK_S
        self.registry.rollback(expected=expected, actor="ann", reason="test", now_ms=int(1000 * self.now))

    def nominate(self, version: int | None, expected: int | None = None) -> None:
        """Command that a version reads along."""
        self.now += TICK_S
        self.registry.nominate(version, expected=expected, actor="ann", reason="test", now_ms=int(1000 * self.now))

    def holding(self, partition: int = 0) -> Holding:
        """The partition as the consumer has it."""
        return self.consumer.held[partition]

    def roles(self, partition: int = 0) -> dict[int, str]:
        """Who runs, as the ledger says, which must be as the consumer does."""
        holding = self.holding(partition)
        roster = holding.ledger.roster()
        assert roster == holding.partition.roster == self.heard.rosters[partition]
        return {seat.version: seat.role for seat in roster if seat.leave_offset is None}

    def state(self, partition: int = 0) -> tuple[str, int | None, str]:
        """What the partition says of itself."""
        said = self.holding(partition).ledger.state()
        assert said is not None
        return said.kind, said.version, said.why

    def whole(self, partition: int = 0) -> str:
        """The digest after one run over the ledger's blocks, with those who run now from their starts on."""
        holding = self.holding(partition)
        fresh = Partition(FORM)
        for name in holding.partition.names:
            fresh.add_name(name)
        fresh.seat([seat for seat in holding.partition.roster if seat.leave_offset is None], self.versions.ready)
        for block in holding.ledger.blocks():
            if len(block):
                fold([(fresh, block)], self.versions.ready)
        return fresh.digest()
