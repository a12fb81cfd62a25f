"""What keeps a held partition's ledger fit: snapshots in their turn, and old blocks let go."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from consumers.snapshots import encode_chunk
from models.scaling import NO_STEP

if TYPE_CHECKING:
    from consumers.holding import Holding, Limits
    from models.blocks import Block

CALL_BYTES = 1_200_000  # of snapshots in one call
OVERHEAD_BYTES = 40  # of a chunk in a call, beside its arrays
WAITING_SNAPSHOTS = 64
TRIM_READ = 64  # blocks that may go in one pass: more than come between two


def encode_snapshots(holding: Holding, records: int) -> None:
    """Encode the chunks whose turn it is after `records` more; they are written once the mark is here."""
    if len(holding.snapshots) >= WAITING_SNAPSHOTS:
        return
    plan, partition = holding.plan, holding.partition
    for first in plan.turn(records, len(partition.names)):
        holding.snapshots.append((holding.next, first, encode_chunk(partition, first, plan.slots)))
        plan.taken(first, holding.next)
    holding.snapshots += [(holding.next, first, b"") for first in plan.unchanged(holding.next)]


def write_snapshots(holding: Holding) -> None:
    """Write the snapshots that the mark has reached, as many in a call as its size allows.

    Raises:
        FencedError, OffsetConflict: the ledger is no longer ours, or not where it was.
        ServiceUnreachable: Redis did not answer; call again.
    """
    while holding.snapshots and holding.snapshots[0][0] <= holding.mark_told:
        sizes = itertools.accumulate(OVERHEAD_BYTES + len(data) for _, _, data in holding.snapshots)
        fitting = sum(1 for _ in itertools.takewhile(lambda size: size <= CALL_BYTES, sizes))
        some = [one for one in holding.snapshots[: max(1, fitting)] if one[0] <= holding.mark_told]
        holding.ledger.write_snapshots([(first, offset, data) for offset, first, data in some])
        for offset, first, _ in some:
            holding.plan.stored(first, offset)
        del holding.snapshots[: len(some)]


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
