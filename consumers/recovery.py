"""Recovery and spin-up: a partition's arrays from snapshots, and the blocks after them, folded again.

A spin-up gives one version its carried state, in a core of its own: series state from the newest snapshots at or
before its start, replayed alone up to there, then the version too. A recovery is the newest snapshot of every
chunk, replayed; versions that these don't hold are spun up to the published mark and join there.

Batches may be cut anywhere without changing a bit, so many small blocks are folded as one large one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from consumers.keeping import Chunk, decode_index, unserved
from consumers.ledger import block_position
from consumers.roster import Seat
from consumers.snapshots import held_name, restore_carried, restore_series
from consumers.stream import Folded, Partition, Version, fold
from models.blocks import Block, checksum
from models.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from consumers.ledger import Head, Ledger
    from consumers.roster import Span
    from models.forecaster import Carried
    from models.scaling import Ints, SeriesForm

MERGED_OBSERVATIONS = 4096
READ_BLOCKS = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replayed:
    """A block that was folded again; `mismatch`: not with the bits that were committed."""

    block: Block
    folded: Folded
    mismatch: bool


class Recovery:
    """Rebuilds a partition from its ledger: as it was when `head` was read, bit for bit.

    `run` yields what was replayed, some blocks at a time; when it ends, `partition` stands at the head.
    """

    def __init__(
        self,
        ledger: Ledger,
        head: Head,
        form: SeriesForm,
        versions: Mapping[int, Version],
        roster: Sequence[Seat] | None = None,
    ) -> None:
        self._ledger = ledger
        self._head = head
        self._versions = versions
        self._roster = ledger.roster() if roster is None else roster  # read once: another may have it changed
        self.late: set[int] = set()  # versions that the snapshots don't hold yet
        self.index = decode_index(ledger.snapshot_index())
        self.partition = Partition(form)
        self.partition.seat(self._roster, versions, head.mark)
        for name in ledger.names():
            self.partition.add_name(name)
        self.late |= unserved(self.index, self.partition.spans)

    def run(self) -> Iterator[list[Replayed]]:
        """Restore and replay.

        Raises:
            LedgerError: what the ledger holds can't be read, or does not fit together.
            ServiceUnreachable: Redis did not answer; begin again with a new recovery.
        """
        partition, head = self.partition, self._head
        late = {number: partition.spans.pop(number) for number in self.late}  # not stepped until the mark
        for number in late:
            del partition.carried[number]
        at = self._restore()
        yield []
        if late:
            yield from self._replay(at, int(at.min(initial=head.next)), head.mark)
            for number, span in sorted(late.items()):
                spun = SpinUp(self._ledger, partition.form, self._versions[number], span.start, self.index)
                while not spun.advance(MERGED_OBSERVATIONS, head.mark):
                    yield []
                partition.carried[number] = spun.carried
                partition.spans[number] = span
            yield from self._replay(at, head.mark, head.next)
        else:
            yield from self._replay(at, int(at.min(initial=head.next)), head.next)
        partition.seat(self._roster, self._versions)

    def _restore(self) -> Ints:
        """The newest snapshots into the arrays; per slot the offset from which its blocks must be replayed."""
        partition, slots = self.partition, self._head.chunk_slots
        partition.series.reserve(len(partition.names))
        newest = {first: chunk.kept[-1] for first, chunk in self.index.items()}
        stored = [(first, kept.offset) for first, kept in newest.items() if kept.stored]
        for first, data in self._ledger.series_snapshots(stored):
            restore_series(partition, first, data)
        for first, data in self._ledger.carried_snapshots([first for first, _ in stored]):
            held = [n for n, span in partition.spans.items() if held_name(n, span.start) in self.index[first].holds]
            restore_carried(partition, first, data, held)
        return per_slot({first: kept.until for first, kept in newest.items()}, slots, len(partition.names))

    def _replay(self, at: Ints, after: int, until: int) -> Iterator[list[Replayed]]:
        pending: list[Block] = []
        size = 0
        for block in self._ledger.blocks(after, until):
            if len(block) and int(block.slot.max()) >= len(at):
                raise LedgerError(
                    f"the block before offset {block.end} names slot {int(block.slot.max())}, "
                    f"there are {len(at)} series",
                    "restore Redis from a backup",
                )
            keep = at[block.slot] <= block.start
            pending.append(block if keep.all() else block.take(keep))
            size += len(pending[-1])
            if size >= MERGED_OBSERVATIONS:
                yield self._fold(pending)
                pending, size = [], 0
        if pending:
            yield self._fold(pending)

    def _fold(self, blocks: Sequence[Block]) -> list[Replayed]:
        groups = by_spans(blocks, self.partition.spans.values())
        return [one for group in groups for one in _fold_group(self.partition, group, self._versions)]


class SpinUp:
    """Gives a version its carried state, from `start` on, in a core of its own, as fast as it is asked to advance."""

    def __init__(
        self, ledger: Ledger, form: SeriesForm, version: Version, start: int, index: Mapping[int, Chunk]
    ) -> None:
        self.version = version
        self.start = start
        self.observations = 0
        self._ledger = ledger
        self._index = index
        self._partition = Partition(form)
        self._at = np.empty(0, np.int64)
        self._blocks: list[Block] = []  # read, not folded yet
        self._place = ""  # in the stream of blocks; empty: nothing was restored yet
        self.position = -1  # the offset up to which everything was folded

    @property
    def carried(self) -> Carried:
        """The version's carried state at `position`."""
        return self._partition.carried[self.version.number]

    def advance(self, observations: int, until: int) -> bool:
        """Fold about so many observations more, at most up to offset `until`; whether it stands there.

        Raises:
            LedgerError: what the ledger holds can't be read, or the snapshots don't go back to the start.
            ServiceUnreachable: Redis did not answer; call again.
        """
        if not self._place:
            self._restore()
        while sum(map(len, self._blocks)) < observations and self._read(until):
            pass  # before any is taken, as reading may fail
        some: list[Block] = []
        room = observations
        while room > 0 and self._blocks:
            block = self._blocks.pop(0)
            if len(block) > room:
                block, rest = _cut(block, room)
                self._blocks.insert(0, rest)
            some.append(block)
            room -= len(block)
        if some:
            self._fold(some)
        if room > 0:  # there was nothing more
            self.position = until
        return room > 0

    def _restore(self) -> None:
        """Series state from the newest snapshots at or before the start."""
        head = self._ledger.head()
        if head is None:
            raise LedgerError(f"partition {self._ledger.partition}: the ledger vanished during a spin-up")
        partition, number = self._partition, self.version.number
        usable = {first: chunk.usable(self.start) for first, chunk in self._index.items()}
        slots = self._ledger.series_count()
        partition.series.reserve(slots)
        partition.seat([Seat(number, "shadow", self.start, self.start)], {number: self.version})
        for first, data in self._ledger.series_snapshots([(f, k.offset) for f, k in usable.items() if k.stored]):
            restore_series(partition, first, data)
        self._at = per_slot({first: kept.until for first, kept in usable.items()}, head.chunk_slots, slots)
        if self.version.architecture.series:
            self._learn(slots)
        self.position = int(np.minimum(self._at, self.start).min(initial=self.start))
        self._place = block_position(self.position)

    def _read(self, until: int) -> bool:
        """Read some blocks more; whether there were any up to `until`."""
        blocks, place = self._ledger.read_blocks(self._place, READ_BLOCKS, until)
        if self.version.architecture.series:  # before the place moves: they may fail to come
            self._learn(1 + max((int(block.slot.max(initial=-1)) for block in blocks), default=-1))
        self._place = place
        for block in blocks:
            more = int(block.slot.max(initial=-1)) + 1 - len(self._at)  # series that came meanwhile
            if more > 0:
                self._at = np.append(self._at, np.full(more, -1))
                self._partition.series.reserve(len(self._at))
            keep = self._at[block.slot] <= block.start
            self._blocks.append(block if keep.all() else block.take(keep))
        return bool(blocks)

    def _learn(self, slots: int) -> None:
        """Know the names of so many series at least."""
        known = len(self._partition.names)
        if slots > known:
            self._partition.learn(self._ledger.names(known))

    def _fold(self, blocks: Sequence[Block]) -> None:
        for group in by_spans(blocks, self._partition.spans.values()):
            whole = merged(group)
            fold([(self._partition, whole)], {self.version.number: self.version})
            self.position = whole.end
            self.observations += len(whole)


def per_slot(offsets: Mapping[int, int], chunk_slots: int, slots: int) -> Ints:
    """What is known by the first slot of each chunk as an array by slot, `(slots,)`; -1 where nothing is."""
    at = np.full(-(-slots // chunk_slots), -1, np.int64)
    for first, offset in offsets.items():
        if first // chunk_slots < len(at):
            at[first // chunk_slots] = offset
    return np.repeat(at, chunk_slots)[:slots]


def by_spans(blocks: Iterable[Block], spans: Iterable[Span]) -> list[list[Block]]:
    """Blocks in groups that may be folded as one: no version begins or ends between them."""
    edges = {edge for span in spans for edge in span if edge is not None}
    groups: list[list[Block]] = []
    for block in blocks:  # where all records were refused, there is no block that starts at an edge
        if not groups or any(groups[-1][0].start < edge <= block.start for edge in edges):
            groups.append([])
        groups[-1].append(block)
    return groups


def merged(blocks: Sequence[Block]) -> Block:
    """Blocks that follow each other as one."""
    return Block(
        blocks[0].start,
        blocks[-1].end,
        np.concatenate([block.offset for block in blocks]),
        np.concatenate([block.slot for block in blocks]),
        np.concatenate([block.step for block in blocks]),
        np.concatenate([block.values for block in blocks]),
        np.concatenate([block.present for block in blocks]),
    )


def _cut(block: Block, size: int) -> tuple[Block, Block]:
    """The first observations of a block, and the others."""
    edge = int(block.offset[size])
    before, after = block.take(np.arange(size)), block.take(np.arange(size, len(block)))
    return replace(before, end=edge), replace(after, start=edge)


def _fold_group(partition: Partition, blocks: Sequence[Block], versions: Mapping[int, Version]) -> Iterator[Replayed]:
    (folded,) = fold([(partition, merged(blocks))], versions)
    joined = _joined(partition)
    begin = 0
    for block in blocks:
        rows = slice(begin, begin + len(block))
        begin = rows.stop
        forecasts = {number: issued[rows] for number, issued in folded.forecasts.items()}
        pairs = {number: paired[rows] for number, paired in folded.block.pairs.items()}
        again = replace(block, scale=folded.block.scale[rows], pairs=pairs)
        comparable = {number for number, offset in joined.items() if offset <= block.start}
        mismatch = not _same(block, again, forecasts, comparable)
        yield Replayed(block, Folded(again, forecasts, folded.counts), mismatch)


def _joined(partition: Partition) -> dict[int, int]:
    """Where each version joined; what it had committed before it left, and came back, was another fold."""
    found: dict[int, int] = {}
    for seat in partition.roster:
        span = partition.spans.get(seat.version)
        if span is not None and seat.start_offset == span.start:
            found[seat.version] = min(seat.join_offset, found.get(seat.version, seat.join_offset))
    return found


def _same(committed: Block, again: Block, forecasts: Mapping[int, np.ndarray], versions: Collection[int]) -> bool:
    for number in set(committed.pairs) & set(again.pairs) & set(versions):
        theirs, ours = committed.pairs[number].view(np.uint32), again.pairs[number].view(np.uint32)
        if not np.array_equal(theirs, ours):
            return False
        if number in committed.checksums and committed.checksums[number] != checksum(forecasts[number]):
            return False
    return True
