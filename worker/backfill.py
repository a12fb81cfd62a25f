"""Past pairs of a version that was not live: recorded blocks, folded again with the version reading along.

    recorded blocks ──(series state alone)──► the version's start ──(spin-up)──► T ──► pairs that count

The version starts where the roster once had it start, if that is at or before the spin-up: its pairs are then those
that were recorded, bit for bit. Else it starts from zero, a spin-up depth before T.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from consumers.archive import tell
from consumers.keeping import decode_index
from consumers.recorded import recorded_blocks
from consumers.recovery import MERGED_OBSERVATIONS, by_spans, merged, per_slot
from consumers.roster import Seat
from consumers.snapshots import restore_series
from consumers.stream import Partition, fold
from models.blocks import checksum
from models.errors import DataError, LedgerError
from models.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from consumers.archive import Archive, Hole
    from consumers.keeping import Chunk, Kept
    from consumers.ledger import Ledger
    from consumers.stream import Folded, Version
    from models.blocks import Block
    from models.scaling import SeriesForm
    from models.server import Client
    from worker.settings import Settings

READINGS = 3  # of snapshots that a consumer at work replaces meanwhile

log = logging.getLogger(__name__)


def backfilled(settings: Settings, client: Client, version: int, since_ms: int) -> Iterator[tuple[int, Block]]:
    """Partition and block, of all partitions in turn, with the pairs of forecasts that it would have issued since T.

    Raises:
        ConfigError: the archive's path can't be used.
        VersionError: there is no such version, or it can't be loaded.
        DataError: what is recorded does not go back far enough.
        ArchiveError, LedgerError: what is recorded can't be read.
        ServiceUnreachable: Redis did not answer.
    """
    from worker import wiring  # noqa: PLC0415 - puts together what this needs

    loaded = wiring.loader(settings, wiring.registry(settings, client))(version)
    archive = wiring.archive(settings)
    since_step = -(-since_ms // settings.interval_ms)
    for ledger in wiring.ledgers(settings, client):
        replay = PastReplay(ledger, archive, settings.series_form(), loaded)
        for block in replay.run(since_step, settings.spin_up_steps):
            yield ledger.partition, block


class PastReplay:
    """One partition's recorded blocks, folded again with a version; it may be at work meanwhile."""

    def __init__(self, ledger: Ledger, archive: Archive | None, form: SeriesForm, version: Version) -> None:
        self._ledger = ledger
        self._archive = archive
        self._version = version
        self._partition = Partition(form)
        self._at = np.empty(0, np.int64)  # by slot: from where on its observations are folded
        self._warned = False

    def run(self, since_step: int, depth_steps: int) -> Iterator[Block]:
        """Blocks in order, from the first that is recorded on; `pairs` has the version alone, once it runs.

        Only forecasts count that were issued at `since_step` or later: others are NaN.

        Raises:
            DataError, ArchiveError, LedgerError, ServiceUnreachable: as `backfilled`.
        """
        spun_step = since_step - depth_steps
        starts = self._starts()
        holes: list[Hole] = []
        next(recorded_blocks(self._ledger, self._archive, holes=holes), None)
        if holes:  # the record begins late: series state comes from snapshots
            start = self._first_start(spun_step)
            starts = [self._restore(start, starts)]
        yield from self._replay(starts, spun_step, since_step)

    def _replay(self, starts: Sequence[int], spun_step: int, since_step: int) -> Iterator[Block]:
        waiting: list[Block] = []
        running, reached = -1, False
        for block in self._recorded():
            if not reached:
                reached = len(block) > 0 and int(block.step.max()) >= spun_step
                begin = max((start for start in starts if start <= block.start), default=-1)
                begin = block.start if reached and begin < 0 else begin
                if begin > running:
                    yield from self._folded(waiting, since_step)
                    waiting, running = [], begin
                    self._seat(begin)
            waiting.append(block)
            if sum(map(len, waiting)) >= MERGED_OBSERVATIONS:
                yield from self._folded(waiting, since_step)
                waiting = []
        yield from self._folded(waiting, since_step)

    def _seat(self, start: int) -> None:
        """Let the version begin at an offset, from zero."""
        number = self._version.number
        self._partition.seat((), {})
        self._partition.seat([Seat(number, "shadow", start, start)], {number: self._version})

    def _starts(self) -> list[int]:
        """Where the partition's roster had the version start, in order."""
        roster = list(self._ledger.roster())
        roster += self._archive.roster(self._ledger.partition) if self._archive is not None else ()
        return sorted({seat.start_offset for seat in roster if seat.version == self._version.number})

    def _first_start(self, spun_step: int) -> int:
        """Where the first block begins that reaches a step; the end of the record, where none does.

        Raises:
            DataError: the record begins there: nobody knows whether the version should have begun before.
        """
        end, newest = 0, None
        for block in recorded_blocks(self._ledger, self._archive, holes=[]):
            end = block.end
            reached = len(block) > 0 and int(block.step.max()) >= spun_step
            if reached and newest is None:
                raise self._too_early(f"the first block that there is reaches {self._time(int(block.step.max()))}")
            if reached:
                return block.start
            newest = int(block.step.max()) if len(block) else newest
        return end

    def _time(self, step: int) -> str:
        return rfc3339(step * self._partition.form.interval_ms)

    def _too_early(self, why: str) -> DataError:
        return DataError(
            f"partition {self._ledger.partition}: the record does not begin with the stream, and {why}",
            "ask for a later --since; an archive that is kept from the beginning on allows any",
        )

    def _restore(self, start: int, starts: Sequence[int]) -> int:
        """Series state from the newest snapshots that serve a start; that start: one of the roster's, if it can be.

        Raises:
            DataError: no snapshot is old enough.
            LedgerError: the snapshots can't be read.
        """
        for last in range(READINGS - 1, -1, -1):
            index = decode_index(self._ledger.snapshot_index())
            chosen, usable = self._usable(index, [*(s for s in reversed(starts) if s <= start), start])
            stored = [(first, kept.offset) for first, kept in usable.items() if kept.stored]
            self._partition.series.reserve(self._ledger.series_count())
            try:
                for first, data in self._ledger.series_snapshots(stored):
                    restore_series(self._partition, first, data)
            except LedgerError:
                if not last:
                    raise
                continue  # a consumer at work has just replaced it
            break
        head = self._ledger.head()
        slots = head.chunk_slots if head is not None else 1
        self._at = per_slot({first: kept.until for first, kept in usable.items()}, slots, self._ledger.series_count())
        return chosen

    def _usable(self, index: Mapping[int, Chunk], starts: Sequence[int]) -> tuple[int, dict[int, Kept]]:
        """The first of the starts that snapshots reach back to, and the snapshots."""
        for start in starts:
            try:
                return start, {first: chunk.usable(start) for first, chunk in index.items()}
            except LedgerError:
                continue
        oldest = max(chunk.kept[0].offset for chunk in index.values())
        raise self._too_early(
            f"the oldest series state that is kept is from offset {oldest}, the version would start at {starts[-1]}"
        )

    def _recorded(self) -> Iterator[Block]:
        """What is recorded, without what series state from snapshots has already.

        Raises:
            ArchiveError: there is a hole after where the series state begins.
        """
        holes: list[Hole] = []
        needed = min((at for at in self._at.tolist() if at >= 0), default=-1)
        for block in recorded_blocks(self._ledger, self._archive, holes=holes):
            if holes and holes[-1].until > needed:
                tell(None, holes[-1], self._ledger.partition)
            more = int(block.slot.max(initial=-1)) + 1 - len(self._at)
            if more > 0:
                self._at = np.append(self._at, np.full(more, -1))
                self._partition.series.reserve(len(self._at))
            keep = self._at[block.slot] <= block.start
            yield block if keep.all() else block.take(keep)

    def _folded(self, blocks: Sequence[Block], since_step: int) -> Iterator[Block]:
        """The blocks with the version's pairs; many small ones are folded as one."""
        filled = [block for block in blocks if len(block)]
        for group in by_spans(filled, self._partition.spans.values()):
            whole = merged(group)
            known = len(self._partition.names)
            if self._version.architecture.series and int(whole.slot.max()) >= known:
                self._partition.learn(self._ledger.names(known))
            (folded,) = fold([(self._partition, whole)], {self._version.number: self._version})
            begin = 0
            for block in group:
                yield self._cut(block, folded, slice(begin, begin + len(block)), since_step)
                begin += len(block)

    def _cut(self, block: Block, folded: Folded, rows: slice, since_step: int) -> Block:
        scale = folded.block.scale[rows]
        if not self._warned and not np.array_equal(scale, block.scale):
            self._warned = True
            log.warning(
                "partition %d: the block before offset %d has other scales than were recorded: was it another machine?",
                self._ledger.partition, block.end, extra={"action": "replay-mismatch"},
            )  # fmt: skip
        number = self._version.number
        if number not in folded.forecasts:
            return replace(block, scale=scale, pairs={}, checksums={})
        pairs = folded.block.pairs[number][rows].copy()
        issued = block.step[:, None] - np.arange(1, pairs.shape[1] + 1)  # (N, H)
        pairs[issued < since_step] = np.nan
        return replace(
            block, scale=scale, pairs={number: pairs}, checksums={number: checksum(folded.forecasts[number][rows])}
        )
