"""What keeps a held partition's ledger fit: snapshots in their turn, and old blocks let go."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from consumers.keeping import Taken
from consumers.snapshots import encode_chunk, holds
from models.scaling import NO_STEP

if TYPE_CHECKING:
    from consumers.holding import Holding, Limits
    from consumers.keeping import Chunk
    from consumers.ledger import SnapshotWrite
    from models.blocks import Block

CALL_BYTES = 1_200_000  # of snapshots in one call
OVERHEAD_BYTES = 300  # of a chunk in a call, beside its arrays
WAITING_SNAPSHOTS = 64
TRIM_READ = 64  # blocks that may go in one pass: more than come between two


def encode_snapshots(holding: Holding, records: int) -> None:
    """Encode the chunks whose turn it is after `records` more; they are written once the mark is here."""
    plan, partition = holding.plan, holding.partition
    holding.snapshots += plan.newborn()
    if len(holding.snapshots) >= WAITING_SNAPSHOTS:
        return
    held = holds(partition)
    for first in plan.turn(records, len(partition.names)):
        series, carried = encode_chunk(partition, first, plan.slots)
        holding.snapshots.append(Taken(first, holding.next, holding.newest_step, held, series, carried))
        plan.taken(first, holding.next)
    unchanged = plan.unchanged(holding.next)
    holding.snapshots += [Taken(first, holding.next, holding.newest_step, held) for first in unchanged]


def write_snapshots(holding: Holding) -> None:
    """Write the snapshots that the mark has reached, as many in a call as its size allows, a chunk once in each.

    Raises:
        FencedError, OffsetConflict: the ledger is no longer ours, or not where it was.
        ServiceUnreachable: Redis did not answer; call again.
    """
    plan = holding.plan
    while holding.snapshots and holding.snapshots[0].offset <= holding.mark_told:
        writes: list[SnapshotWrite] = []
        chunks: dict[int, Chunk] = {}
        size = 0
        for taken in holding.snapshots:
            size += OVERHEAD_BYTES + len(taken.series) + len(taken.carried)
            if taken.offset > holding.mark_told or taken.first in chunks or (writes and size > CALL_BYTES):
                break
            write, chunks[taken.first] = plan.write(taken)
            writes.append(write)
        holding.ledger.write_snapshots(writes, plan.least(chunks))
        plan.stored(chunks)
        del holding.snapshots[: len(writes)]


def trim(holding: Holding, limits: Limits) -> None:
    """Let go of blocks beyond the retention, as far as nothing needs them.

    Raises:
        FencedError: the ledger is no longer ours.
        ServiceUnreachable: Redis did not answer.
    """
    ledger = holding.ledger
    excess = ledger.block_count() - limits.retention_blocks
    oldest_kept = holding.newest_step - limits.retention_steps if limits.retention_steps else NO_STEP

    def may_go(number: int, block: Block) -> bool:
        return number < excess or len(block) == 0 or int(block.step.max()) < oldest_kept

    if not all(may_go(0, block) for block in ledger.first_blocks(1)):
        return
    going = itertools.takewhile(lambda pair: may_go(*pair), enumerate(ledger.first_blocks(TRIM_READ)))
    wanted = min(max((block.end for _, block in going), default=0), holding.plan.least())
    if wanted > 0:
        ledger.trim(wanted)
