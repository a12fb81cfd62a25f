"""A consumer of one partition without Kafka, for the tests of recovery and spin-up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from consumers.keeping import SnapshotPlan, Taken
from consumers.ledger import Commit, Ledger
from consumers.recovery import Recovery, per_slot
from consumers.roster import Seat
from consumers.snapshots import encode_chunk, holds
from consumers.stream import Partition, Version, admit, fold
from models.blocks import empty_block
from tests.streams import FORM, NumpyScanner, Stream, architecture_of, stream_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumers.recovery import Replayed, SpinUp
    from tests.consumers.conftest import Store

CHUNK_SLOTS = 2
DEPTH_STEPS = 10
_ONE = architecture_of()
# names that other tests' series have, in another order than their slots, and not all of them
_TWO = architecture_of(form="plain", horizon=2, units=(4, 2), cell="gru", series=("s3", "d", "s0", "zz", "a", "s1"))
VERSIONS = {1: Version(1, _ONE, NumpyScanner(_ONE, 1)), 2: Version(2, _TWO, NumpyScanner(_TWO, 2))}


@dataclass
class Live:
    """A consumer of one partition without Kafka: admits, folds, commits, publishes, snapshots, trims."""

    ledger: Ledger
    partition: Partition = field(default_factory=lambda: Partition(FORM))
    plan: SnapshotPlan = field(default_factory=lambda: SnapshotPlan(CHUNK_SLOTS, 10, DEPTH_STEPS, {}))
    at: int = 0
    read: int = 0  # records of the stream
    newest_step: int = 0
    takes: list[tuple[int, int, int]] = field(default_factory=list)  # records from, to before, offset of the first
    forecasts: dict[int, dict[int, bytes]] = field(default_factory=dict)  # version -> block's end -> bytes

    def begin(self) -> None:
        """Take the ledger and seat the first version."""
        self.ledger.take(start=0, form=FORM.digest(), topic_id="t", partitions=1, chunk_slots=CHUNK_SLOTS)
        self.seat([Seat(1, "incumbent", 0, 0)])

    def seat(self, roster: Sequence[Seat], spun: SpinUp | None = None) -> None:
        """Commit a roster, with a version that was spun up."""
        self.ledger.commit(Commit(self.at, empty_block(self.at, 2), roster=roster))
        before = set(self.partition.spans)
        self.partition.seat(roster, VERSIONS)
        for number in set(self.partition.spans) - before:
            start = self.partition.spans[number].start
            self.plan.joined(number, start, self.at, len(self.partition.names))
        if spun is not None:
            self.partition.carried[spun.version.number] = spun.carried

    def refuse(self, records: int) -> None:
        """So many records that are all refused: the offset moves, and no block is stored."""
        nothing = replace(empty_block(self.at + records, 2), start=self.at)
        self.ledger.commit(Commit(self.at, nothing))
        self.at += records

    def take(self, stream: Stream, begin: int, end: int) -> None:
        """Fold and commit the records `begin` to before `end`."""
        self.takes.append((begin, end, self.at))
        admitted = admit(self.partition, stream.arrivals(begin, end, self.at - begin), max_series=99)
        (folded,) = fold([(self.partition, admitted.block)], VERSIONS)
        counts = folded.counts + Counter(duplicates=admitted.duplicates)
        self.ledger.commit(Commit(self.at, folded.block, new_names=admitted.new_names, counts=counts))
        self.plan.note(folded.block, self.newest_step)
        self.newest_step = max(self.newest_step, int(folded.block.step.max(initial=0)))
        self.at += end - begin
        self.read = end
        for version, issued in folded.forecasts.items():
            self.forecasts.setdefault(version, {})[self.at] = issued.tobytes()

    def publish(self) -> None:
        """Everything up to here has been acknowledged."""
        self.ledger.set_mark(self.at)

    def snapshot(self, firsts: list[int]) -> None:
        """Snapshots of these chunks at the present offset, which must be published."""
        held = holds(self.partition)
        for first in firsts:
            if first < len(self.partition.names):
                series, carried = encode_chunk(self.partition, first, CHUNK_SLOTS)
                self.write([Taken(first, self.at, self.newest_step, held, series, carried)])
                self.plan.taken(first, self.at)

    def confirm(self) -> None:
        """Say which chunks did not change."""
        self.write([Taken(first, self.at, self.newest_step) for first in self.plan.unchanged(self.at)])

    def write(self, some: list[Taken]) -> None:
        """Write these, and first what is new."""
        for taken in [*self.plan.newborn(), *some]:
            write, chunk = self.plan.write(taken)
            self.ledger.write_snapshots([write], self.plan.least({taken.first: chunk}))
            self.plan.stored({taken.first: chunk})

    def trim(self) -> int:
        """Let go of what nothing needs."""
        return self.ledger.trim(self.plan.least())


def recovered(ledger: Ledger) -> tuple[Partition, list[Replayed], int]:
    """The partition from the ledger alone, what was replayed for it, and from where."""
    head = ledger.head()
    assert head is not None
    recovery = Recovery(ledger, head, FORM, VERSIONS)
    replayed = [one for batch in recovery.run() for one in batch]
    newest = {first: chunk.kept[-1].until for first, chunk in recovery.index.items()}
    after = per_slot(newest, CHUNK_SLOTS, len(recovery.partition.names)).min(initial=head.next)
    return recovery.partition, replayed, int(after)


def new_live(store: Store, model: str) -> Live:
    """A partition at its beginning."""
    live = Live(Ledger(store.client, model, 0, "mine"))
    live.begin()
    return live


def uninterrupted(live: Live, stream: Stream, roster: Sequence[Seat]) -> Partition:
    """What one run over the same blocks gives, with these versions from their starts on."""
    partition = Partition(FORM)
    partition.seat(roster, VERSIONS)
    for begin, end, offset in live.takes:
        admitted = admit(partition, stream.arrivals(begin, end, offset - begin), max_series=99)
        fold([(partition, admitted.block)], VERSIONS)
    return partition


def walks(records: int, series: int = 5, seed: int = 0) -> Stream:
    """Series in random order, a step at a time."""
    rng = np.random.default_rng(seed)
    now = np.full(series, 100)
    rows = []
    for i in rng.integers(0, series, records).tolist():
        now[i] += rng.choice([1, 1, 1, 2, 4, 5, 30])
        rows.append((f"s{i}", int(now[i]), (float(rng.normal()), None if rng.random() < 0.2 else 1.0)))
    return stream_of(rows)
