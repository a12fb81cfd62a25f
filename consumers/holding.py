"""A partition while it is held: what is kept of it beside its ledger, and what bounds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from consumers.roster import incumbent_at
from models.times import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consumers.codec import Decoder, Record
    from consumers.keeping import SnapshotPlan, Taken
    from consumers.ledger import Ledger, Refused
    from consumers.publishing import Publisher
    from consumers.roster import Seat
    from consumers.stream import Folded, Partition
    from models.blocks import Block

BLOCK_BYTES = 1_200_000  # of records and what follows from them: a commit stays below the ledger's limit
RECORD_OVERHEAD_BYTES = 96


class Reachable(Protocol):
    """What is on its way to the disk (models.server.OnDisk)."""

    def reached(self) -> bool:
        """Whether it is there."""


@dataclass(frozen=True)
class Topics:
    """Where observations come from, where forecasts and refusals go; the id and size of the first."""

    observations: str
    predictions: str
    dead_letters: str
    topic_id: str = ""
    partitions: int = 0


@dataclass(frozen=True)
class Limits:
    """What bounds a consumer; the settings' values."""

    max_series: int = 1_000_000
    max_ahead_ms: int = DAY_MS
    snapshot_every: int = 20_000  # records
    retention_steps: int = 0  # 0: keep for ever
    retention_blocks: int = 1_000_000
    accept_gap: bool = False
    spin_up_steps: int = 64  # of event time
    guard_steps: int = 168


@dataclass
class Holding:
    """One partition while it is ours."""

    number: int
    ledger: Ledger
    partition: Partition
    decoder: Decoder
    publisher: Publisher
    plan: SnapshotPlan
    next: int  # the offset after the last record that was folded
    mark: int  # everything before it is published
    mark_told: int  # the mark as the ledger knows it
    doubt: int  # up to here forecasts may have been published that Redis forgot when it was restarted
    first: int  # the offset at which the ledger began
    newest_step: int
    snapshots: list[Taken] = field(default_factory=list)  # waiting for the mark
    disk: list[Reachable] = field(default_factory=list)  # nothing is published until it is there
    disk_since: float = 0.0  # when that was first asked
    commits: int = 0
    joined: tuple[Seat, ...] = ()  # the seats that the last change of the roster made here has brought

    def note(self, block: Block) -> None:
        """A block was folded: what it changed, and how far time is."""
        self.plan.note(block, self.newest_step)
        if len(block):
            self.newest_step = max(self.newest_step, int(block.step.max()))

    def parts(self, records: Sequence[Record]) -> Iterator[list[Record]]:
        """The records in parts that fit a commit, without those that were folded already."""
        carried = self.partition.carried.values()
        per_row = RECORD_OVERHEAD_BYTES + sum(4 * c.pending.shape[1] for c in carried)
        part: list[Record] = []
        size = 0
        for record in records:
            if record.offset < self.next:
                continue
            weight = per_row + len(record.value or b"") + 2 * len(record.key or b"")
            weight += sum(len(name) + len(content or b"") for name, content in record.headers or ())
            if part and size + weight > BLOCK_BYTES:
                yield part
                part, size = [], 0
            part.append(record)
            size += weight
        if part:
            yield part

    def publish(
        self, end: int, folded: Folded, refused: Sequence[Refused] = (), polled_at: float | None = None
    ) -> None:
        """Queue what a committed block brought."""
        partition = self.partition
        self.publisher.add(
            end,
            folded,
            incumbent_at(partition.roster, folded.block.start),
            partition.names,
            refused,
            partition=self.number,
            polled_at=polled_at,
        )
