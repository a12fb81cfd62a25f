"""Which versions run side by side in a partition's blocks, and from which step on both of them are live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumers.roster import Span, incumbent_at
from models.duels import Tenure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumers.roster import Seat
    from models.blocks import Block


def tenures(seats: Sequence[Seat], blocks: Sequence[Block]) -> list[list[Tenure]]:
    """Of each block the version that answers beside each other one; none where it runs alone."""
    joined: dict[tuple[int, int], int] = {}
    found: list[list[Tenure]] = []
    for block in blocks:
        found.append([])
        answering = incumbent_at(seats, block.start) if len(block.pairs) > 1 else None
        if answering is None or answering not in block.pairs:
            continue
        began = {version: _joined(seats, version, block.start, joined) for version in block.pairs}
        mine, own = began[answering], block.pairs[answering].shape[1]
        for version, theirs in began.items():
            if version != answering and mine is not None and theirs is not None:
                horizon = min(own, block.pairs[version].shape[1])
                found[-1].append(Tenure((answering, version), max(mine, theirs), horizon))
    return found


def _joined(seats: Sequence[Seat], version: int, offset: int, known: dict[tuple[int, int], int]) -> int | None:
    """The step at which a version joined, in whatever role, that runs in the block that starts here.

    Who leaves, and is brought back, starts from another offset: what it forecast meanwhile was replayed.
    """
    for seat in reversed(seats):
        if seat.version == version and Span(seat.join_offset, seat.leave_offset).covers(offset):
            tenure = (version, seat.start_offset)
            if tenure not in known:
                known[tenure] = min(s.join_step for s in seats if (s.version, s.start_offset) == tenure)
            return known[tenure]
    return None
