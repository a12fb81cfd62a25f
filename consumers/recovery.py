"""Recovery: the newest snapshot of every chunk, and the blocks after it, folded again.

Batches may be cut anywhere without changing a bit, so many small blocks are folded as one large one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from consumers.snapshots import restore_chunk
from consumers.stream import Folded, Partition, Version, fold
from models.blocks import Block, checksum
from models.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consumers.ledger import Head, Ledger
    from models.scaling import SeriesForm

MERGED_OBSERVATIONS = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replayed:
    """A block that was folded again; `mismatch`: not with the bits that were committed."""

    block: Block
    folded: Folded
    mismatch: bool


def restore(ledger: Ledger, head: Head, form: SeriesForm, versions: Mapping[int, Version]) -> tuple[Partition, int]:
    """The partition as its snapshots have it, and the offset after which blocks must be replayed."""
    partition = Partition(form)
    for name in ledger.names():
        partition.add_name(name)
    partition.series.reserve(len(partition.names))
    partition.seat(ledger.roster(), versions)
    offsets = ledger.snapshot_offsets()
    for first, data in ledger.snapshots(sorted(offsets)):
        restore_chunk(partition, first, data)
    return partition, int(_slot_offsets(offsets, head.chunk_slots, len(partition.names)).min(initial=head.next))


def replay(
    ledger: Ledger, head: Head, partition: Partition, after: int, versions: Mapping[int, Version]
) -> Iterator[list[Replayed]]:
    """Fold the blocks after `after` again, some at a time, each series from its own snapshot on."""
    at = _slot_offsets(ledger.snapshot_offsets(), head.chunk_slots, len(partition.names))
    pending: list[Block] = []
    size = 0
    for block in ledger.blocks(after):
        if len(block) and int(block.slot.max()) >= len(at):
            raise LedgerError(
                f"the block before offset {block.end} names slot {int(block.slot.max())}, there are {len(at)} series",
                "restore Redis from a backup",
            )
        keep = at[block.slot] <= block.start
        pending.append(block if keep.all() else block.take(keep))
        size += len(pending[-1])
        if size >= MERGED_OBSERVATIONS:
            yield _fold_merged(partition, pending, versions)
            pending, size = [], 0
    if pending:
        yield _fold_merged(partition, pending, versions)


def _slot_offsets(offsets: Mapping[int, int], chunk_slots: int, slots: int) -> np.ndarray:
    at = np.full(-(-slots // chunk_slots), -1, np.int64)
    for first, offset in offsets.items():
        if first // chunk_slots < len(at):
            at[first // chunk_slots] = offset
    return np.repeat(at, chunk_slots)[:slots]


def _fold_merged(partition: Partition, blocks: list[Block], versions: Mapping[int, Version]) -> list[Replayed]:
    groups: list[list[Block]] = []
    for block in blocks:  # a version may start at a block's edge: do not fold across it
        starts = {seat.start_offset for seat in partition.roster}
        if not groups or block.start in starts:
            groups.append([])
        groups[-1].append(block)
    return [replayed for group in groups for replayed in _fold_group(partition, group, versions)]


def _fold_group(partition: Partition, blocks: list[Block], versions: Mapping[int, Version]) -> Iterator[Replayed]:
    merged = Block(
        blocks[0].start,
        blocks[-1].end,
        np.concatenate([block.offset for block in blocks]),
        np.concatenate([block.slot for block in blocks]),
        np.concatenate([block.step for block in blocks]),
        np.concatenate([block.values for block in blocks]),
        np.concatenate([block.present for block in blocks]),
    )
    (folded,) = fold([(partition, merged)], versions)
    begin = 0
    for block in blocks:
        rows = slice(begin, begin + len(block))
        begin = rows.stop
        forecasts = {number: issued[rows] for number, issued in folded.forecasts.items()}
        pairs = {number: paired[rows] for number, paired in folded.block.pairs.items()}
        again = replace(block, scale=folded.block.scale[rows], pairs=pairs)
        mismatch = not _same(block, again, forecasts)
        yield Replayed(block, Folded(again, forecasts, folded.counts), mismatch)


def _same(committed: Block, again: Block, forecasts: Mapping[int, np.ndarray]) -> bool:
    for number in set(committed.pairs) & set(again.pairs):
        theirs, ours = committed.pairs[number].view(np.uint32), again.pairs[number].view(np.uint32)
        if not np.array_equal(theirs, ours):
            return False
        if number in committed.checksums and committed.checksums[number] != checksum(forecasts[number]):
            return False
    return True
