"""A partition's recorded blocks: from the archive, then from the ledger, each once and in order, while both move.

A block is archived before the ledger lets it go, and the ledger's head says up to where it did. So what the ledger
lets go between two reads is found in the archive; if it is not, the hole is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumers.archive import START, Hole, after_end, following, tell
from consumers.ledger import READ_BLOCKS, block_position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumers.archive import Archive
    from consumers.ledger import Ledger
    from models.blocks import Block

NO_END = 1 << 62  # beyond all offsets


def recorded_blocks(
    ledger: Ledger,
    archive: Archive | None = None,
    after: int = -1,
    until: int = NO_END,
    holes: list[Hole] | None = None,
) -> Iterator[Block]:
    """Blocks that end after one offset and not after another, oldest first; holes that are met go to `holes`.

    A hole that begins at -1 is what there was before the record begins.

    Raises:
        ArchiveError: the archive can't be read, or there is a hole and no list for it.
        ServiceUnreachable: Redis did not answer.
    """
    place, read, number = after_end(after), START, ledger.partition
    covered = place  # up to here nothing is asked of the ledger
    while True:
        if archive is not None:
            covered = max(covered, after_end(archive.end(number)))
            for block in archive.blocks(number, place, until, holes):
                yield block
                place = read = block.place
        while True:
            blocks, _ = ledger.read_blocks(block_position(*place), READ_BLOCKS, until)
            head = ledger.head()  # after the blocks: they may have been let go before they were read
            gone = min(head.trimmed, until) if head is not None else -1
            covered = max(covered, place)
            if after_end(gone) > covered:
                break
            for block in blocks:
                yield following(block, read)
                place = read = block.place
            if not blocks:
                return
        if archive is None or archive.end(number) < gone:
            if gone > covered[0]:
                tell(holes, Hole(covered[0], gone), number)
            place = covered = after_end(gone)
