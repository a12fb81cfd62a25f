"""The simulated Kafka: logs, a group that moves partitions about, sources and sinks with late acknowledgements.

This is the outside world; the classes have the faces of consumers.kafka.Source and Sink.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumers.kafka import Change
from models.errors import ServiceUnreachable

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping, Sequence

    from consumers.codec import Headers
    from tests.faults.boundaries import Boundaries

LANES = 2  # of acknowledgements: what goes to different partitions of a topic is acknowledged in any order


@dataclass(frozen=True)
class Written:
    """A record in a log."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Sequence[tuple[str, bytes | None]]


@dataclass
class Log:
    """One partition of the observations; of its records the first `visible` have been produced so far."""

    records: list[Written]
    visible: int = 0

    @property
    def end(self) -> int:
        """The offset after the last record."""
        return self.records[self.visible - 1].offset + 1 if self.visible else 0

    def read(self, offset: int, count: int) -> list[Written]:
        """Up to `count` records from this offset on."""
        first = next((i for i in range(self.visible) if self.records[i].offset >= offset), self.visible)
        return self.records[first : min(first + count, self.visible)]


@dataclass
class Group:
    """Who owns which partition, who shall, and the group's offsets."""

    logs: list[Log]
    rng: random.Random
    members: dict[str, Source] = field(default_factory=dict)
    owner: dict[int, str | None] = field(default_factory=dict)
    target: dict[int, str] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)

    def rebalance(self) -> None:
        """Share the partitions out anew."""
        names = sorted(self.members)
        self.target = {p: self.rng.choice(names) for p in range(len(self.logs))} if names else {}

    def expel(self, name: str) -> None:
        """A member that was not heard of loses its partitions, whatever it believes."""
        if self.members.pop(name, None) is not None:
            self.owner = {p: None if owner == name else owner for p, owner in self.owner.items()}
            self.rebalance()

    def join(self, source: Source) -> None:
        """A member comes, or comes back."""
        self.members[source.name] = source
        self.rebalance()


class Source:
    """One member of the group, as the loop sees it."""

    def __init__(self, name: str, group: Group, rng: random.Random, boundaries: Boundaries) -> None:
        self.name = name
        self._group = group
        self._rng = rng
        self._boundaries = boundaries
        self._mine: set[int] = set()
        self._at: dict[int, int] = {}  # position of each partition that was started
        self._paused: set[int] = set()
        self._changes: deque[Change] = deque()
        self._pending: list[dict[int, int]] = []  # offsets on their way to the broker
        self.deaf = False  # hears nothing of the group: a zombie
        self.from_group = False  # a negative control: begin at the group's offset instead of the ledger's
        group.join(self)

    def poll(self, timeout_s: float) -> dict[int, list[Written]]:
        """Some records of some partitions."""
        del timeout_s
        self._boundaries.cross("source.poll", "before")
        self._deliver_offsets()
        if not self.deaf:
            self._hear()
        found = {}
        for number in sorted(self._mine & set(self._at) - self._paused):
            if self._rng.random() < 0.3 and not self._boundaries.quiet:
                continue
            most = self._rng.choice((1, 1, 2, 3, 5, 8, 13, 40)) if not self._boundaries.quiet else 30
            records = self._group.logs[number].read(self._at[number], most)
            if records:
                found[number] = records
                self._at[number] = records[-1].offset + 1
        self._boundaries.cross("source.poll", "after")
        return found

    def changes(self) -> list[Change]:
        """What happened to the assignment."""
        happened = list(self._changes)
        self._changes.clear()
        return happened

    def start(self, partition: int, offset: int) -> None:
        """Read a partition from `offset` on."""
        self._boundaries.cross("source.start", "at")
        if partition in self._mine:
            group = self._group.offsets.get(partition) if self.from_group else None
            self._at[partition] = offset if group is None else group
            self._paused.discard(partition)

    def assigned(self, partition: int) -> bool:
        """Whether this member believes that a partition is its own."""
        return partition in self._mine

    def pause(self, partitions: Iterable[int]) -> None:
        """Fetch nothing of these."""
        self._paused |= set(partitions) & self._mine

    def resume(self, partitions: Iterable[int]) -> None:
        """Fetch these again."""
        self._paused -= set(partitions)

    def log_span(self, partition: int) -> tuple[int, int]:
        """First offset and end of the log."""
        self._boundaries.cross("source.log_span", "at")
        self._away("Kafka away")
        return 0, self._group.logs[partition].end

    def committed(self, partition: int) -> int | None:
        """The group's offset."""
        self._boundaries.cross("source.committed", "at")
        self._away("Kafka away")
        return self._group.offsets.get(partition)

    def check(self, partition: int) -> None:
        """Is the broker there?"""
        del partition
        self._away("Kafka away")

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Offsets for the group; they arrive later, or never."""
        if offsets:
            self._boundaries.cross("source.commit", "before")
            self._pending.append(dict(offsets))
            self._boundaries.cross("source.commit", "after")

    def lag(self, partition: int) -> int | None:
        """How many records wait."""
        return self._group.logs[partition].end - self._at.get(partition, 0)

    def close(self, offsets: Mapping[int, int] | None = None) -> None:
        """Leave the group."""
        self._boundaries.cross("source.close", "at")
        self._pending.append(dict(offsets or {}))
        self._deliver_offsets()
        self._group.expel(self.name)

    def _deliver_offsets(self) -> None:
        for offsets in self._pending:
            if self._boundaries.quiet or self._rng.random() < 0.8:
                mine = {p: o for p, o in offsets.items() if self._group.owner.get(p) == self.name}
                self._group.offsets |= mine
        self._pending.clear()

    def _hear(self) -> None:
        """Learn what the group decided: what is lost, what to give up, what is new."""
        group = self._group
        if self.name not in group.members:
            group.join(self)
        self._forget("lost", [p for p in self._mine if group.owner.get(p) != self.name])
        leaving = [p for p in self._mine if group.target.get(p) != self.name]
        self._forget("revoked", leaving)
        group.owner |= dict.fromkeys(leaving, None)
        coming = [p for p, name in group.target.items() if name == self.name and group.owner.get(p) is None]
        if coming:
            group.owner |= dict.fromkeys(coming, self.name)
            self._mine |= set(coming)
            self._changes.append(Change("assigned", tuple(coming)))

    def _forget(self, kind: str, partitions: list[int]) -> None:
        if not partitions:
            return
        self._mine -= set(partitions)
        for number in partitions:
            self._at.pop(number, None)
            self._paused.discard(number)
        self._changes.append(Change("lost" if kind == "lost" else "revoked", tuple(sorted(partitions))))

    def _away(self, name: str) -> None:
        if not self._boundaries.quiet and self._rng.random() < 0.05:
            self._boundaries.fault(name)
            raise ServiceUnreachable("Kafka did not answer (simulated)")


Sent = tuple[str, bytes | None, bytes | None, "Headers", int | None]


class Delivery:
    """What became of one send."""

    def __init__(self, message: Sent) -> None:
        self.message = message
        self.done = False
        self.error: Exception | None = None
        self.too_big = False
        self.bad_time = False


class Sink:
    """A producer; what it was given arrives in order within a lane, some time later."""

    def __init__(self, rng: random.Random, boundaries: Boundaries, arrived: list[Sent]) -> None:
        self._rng = rng
        self._boundaries = boundaries
        self._arrived = arrived
        self._lanes: list[deque[Delivery]] = [deque() for _ in range(LANES)]

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
        timestamp_ms: int | None = None,
    ) -> Delivery:
        """Hand one record over."""
        label = "sink.letter" if "dead" in topic else "sink.forecast"
        self._boundaries.cross(label, "before")
        if not self._boundaries.quiet and self._rng.random() < 0.003:
            self._boundaries.fault("producer full")
            raise ServiceUnreachable("Kafka took nothing (simulated)")
        delivery = Delivery((topic, key, value, list(headers or []), timestamp_ms))
        self._lanes[sum(key or b"") % LANES].append(delivery)
        self._boundaries.cross(label, "after")
        return delivery

    @property
    def waiting(self) -> int:
        """How many records have not arrived."""
        return sum(len(lane) for lane in self._lanes)

    def acknowledge(self, most: int) -> None:
        """Up to `most` records of each lane arrive, and this is told."""
        for lane in self._lanes:
            for _ in range(min(len(lane), self._rng.randint(0, most) if most else len(lane))):
                delivery = lane.popleft()
                self._arrive(delivery)
                delivery.done = True

    def die(self) -> None:
        """The process is gone: of what it had handed over, the first so many of each lane arrive."""
        for lane in self._lanes:
            for delivery in list(lane)[: self._rng.randint(0, len(lane))]:
                self._boundaries.fault("arrived, not acknowledged")
                self._arrive(delivery)
            lane.clear()

    def _arrive(self, delivery: Delivery) -> None:
        self._arrived.append(delivery.message)
        if not self._boundaries.quiet and self._rng.random() < 0.02:
            self._boundaries.fault("arrived twice")
            self._arrived.append(delivery.message)
