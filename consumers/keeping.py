"""Which snapshots there are of a partition's chunks, whose turn it is, and which older ones must stay.

A version may start in the past: where its carried state begins, each chunk needs a snapshot of series state at
or before that offset. So older ones are kept, half a spin-up depth apart, back to the first that is a whole
depth old. Blocks are needed from the oldest of them on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from consumers.ledger import SnapshotWrite
from consumers.snapshots import held_name
from models.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumers.roster import Span
    from models.blocks import Block

RECORDS_PER_SERIES = 2  # at least so many records a series between two snapshots of everything
MAX_AT_ONCE = 8  # chunks


class Kept(NamedTuple):
    """A snapshot of a chunk's series state; the first of a chunk says that there was nothing yet, and has no bytes."""

    offset: int  # where it was taken
    until: int  # up to where nothing changed
    step: int  # the partition's newest step when it was taken
    stored: bool = True


class Chunk(msgspec.Struct, frozen=True):
    """A chunk's entry in the index: its snapshots, oldest first, and whose carried state the newest has."""

    kept: tuple[Kept, ...]
    holds: frozenset[str] = frozenset()

    def usable(self, start: int) -> Kept:
        """The newest snapshot at or before `start`, or that from before there was anything in the chunk.

        Raises:
            LedgerError: there is none.
        """
        found = [kept for kept in self.kept if kept.offset <= start or not kept.stored]
        if not found:
            raise LedgerError(
                f"no snapshot is kept from offset {start} or before, the oldest is from {self.kept[0].offset}",
                "promote a version again: it then starts later",
            )
        return found[-1]

    def serves(self, version: int, start: int) -> bool:
        """Whether a version that starts here can go on from the newest snapshot."""
        newest = self.kept[-1]
        return newest.offset <= start or not newest.stored or held_name(version, start) in self.holds


def decode_index(entries: Mapping[int, bytes]) -> dict[int, Chunk]:
    """The index as the ledger has it.

    Raises:
        LedgerError: it can't be read.
    """
    try:
        return {first: msgspec.json.decode(entry, type=Chunk) for first, entry in sorted(entries.items())}
    except msgspec.DecodeError as error:
        raise LedgerError(f"the index of snapshots is damaged ({error})", "restore Redis from a backup") from error


class Taken(NamedTuple):
    """A chunk on its way to the ledger, once the mark is at `offset`; without bytes: it did not change, or is new."""

    first: int
    offset: int
    step: int
    holds: frozenset[str] = frozenset()
    series: bytes = b""
    carried: bytes = b""


class SnapshotPlan:
    """Which chunks changed since their last snapshot, and whose turn it is.

    Work is in proportion to what changes: while `every` records pass, each changed chunk is written once,
    a few at a time, the one that waited longest first.
    """

    def __init__(self, slots: int, every: int, depth_steps: int, index: dict[int, Chunk]) -> None:
        self.slots = slots
        self._every = every
        self._depth = depth_steps
        self._index = dict(index)
        self._encoded = {first: chunk.kept[-1].until for first, chunk in index.items()}
        self._born: dict[int, Taken] = {}  # chunks of which the ledger does not know yet
        self._unnamed: list[Taken] = []  # of these, those that do not wait to be written yet
        self._dirty: dict[int, int] = {}  # first slot → offset from which it changed; longest waiting first
        self._pins: dict[int, int] = {}  # version → the start offset for which older snapshots must stay
        self._left: dict[int, int] = {}  # of these, who left, and where: what it answered before may be owed
        self._joined: dict[int, int] = {}  # of these, who runs: where it joined, until every newest snapshot has it
        self._credit = 0.0
        self._confirmed = max(self._encoded.values(), default=0)

    @property
    def index(self) -> Mapping[int, Chunk]:
        """The chunks that the ledger has snapshots of."""
        return self._index

    def note(self, block: Block, step: int) -> None:
        """A block was folded: its chunks have changed; `step` is the newest from before it."""
        for chunk in np.unique(block.slot // self.slots).tolist():
            first = chunk * self.slots
            self._dirty.setdefault(first, block.start)
            if first not in self._index and first not in self._born:
                self._born[first] = Taken(first, block.start, step)
                self._unnamed.append(self._born[first])

    def turn(self, records: int, series: int) -> list[int]:
        """The chunks to encode now that `records` more have passed."""
        every = max(self._every, RECORDS_PER_SERIES * series)
        self._credit = min(self._credit + len(self._dirty) * records / every, MAX_AT_ONCE)
        count = int(self._credit)
        self._credit -= count
        return list(self._dirty)[:count]

    def taken(self, first: int, offset: int) -> None:
        """A chunk was encoded at `offset`; what comes after is a new change."""
        self._dirty.pop(first, None)
        self._encoded[first] = offset

    def newborn(self) -> list[Taken]:
        """Chunks that have come since this was asked last."""
        found, self._unnamed = self._unnamed, []
        return found

    def unchanged(self, offset: int) -> list[int]:
        """Chunks that did not change up to `offset`, named once in a while: their snapshots are true there too."""
        if offset - self._confirmed < self._every:
            return []
        self._confirmed = offset
        still = [first for first, at in self._encoded.items() if first not in self._dirty and at < offset]
        for first in still:
            self._encoded[first] = offset
        return still

    def write(self, taken: Taken) -> tuple[SnapshotWrite, Chunk]:
        """What the ledger is to be told of a chunk that was taken, and the chunk's entry once it was (`stored`)."""
        before = self._index.get(taken.first)
        forget: list[int] = []
        if before is None:
            chunk = Chunk((Kept(taken.offset, taken.offset, taken.step, stored=False),))
        elif taken.series:
            chunk, forget = self._with(taken, before)
        else:
            newest = before.kept[-1]._replace(until=taken.offset)
            kept, forget = self._needed([*before.kept[:-1], newest], taken)
            chunk = msgspec.structs.replace(before, kept=kept)
        entry = msgspec.json.encode(chunk)
        return SnapshotWrite(taken.first, taken.offset, entry, taken.series, taken.carried, forget), chunk

    def stored(self, chunks: Mapping[int, Chunk]) -> None:
        """The ledger has these entries."""
        self._index |= chunks
        for first in chunks:
            self._born.pop(first, None)
        newest = max((chunk.kept[-1].until for chunk in chunks.values()), default=0)  # the mark is there, too
        for version in [v for v in self._joined if newest >= self._left.get(v, newest + 1) or self._served(v)]:
            self.unpin(version)

    def pin(self, version: int, start: int) -> None:
        """Keep the snapshots that a spin-up from `start` needs."""
        self._pins[version] = start

    def joined(self, version: int, start: int, offset: int, series: int) -> None:
        """A version runs from `offset` on: all chunks are taken anew, and until then its pin stays."""
        self._pins[version] = start
        self._joined[version] = offset
        self._left.pop(version, None)
        for first in range(0, series, self.slots):
            self._dirty.setdefault(first, offset)

    def left(self, version: int, offset: int) -> None:
        """A version runs no more: its pin goes when the mark is at `offset`, and nothing is owed."""
        if version in self._joined:
            self._left[version] = offset

    def unpin(self, version: int) -> None:
        """Nothing needs older snapshots for this version any more."""
        self._pins.pop(version, None)
        self._joined.pop(version, None)
        self._left.pop(version, None)

    def least(self, chunks: Mapping[int, Chunk] | None = None) -> int:
        """The offset from which blocks are still needed, once the ledger has these entries too."""
        needed = [chunk.kept[0].until for chunk in {**self._index, **(chunks or {})}.values()]
        return min([*needed, *(born.offset for born in self._born.values())], default=0)

    def start_offset(self, step: int, first: int) -> int:
        """Where a version should start that is to be spun up over the depth; `first` is where the ledger began."""
        deep = step - self._depth
        old = [max((k.offset for k in chunk.kept if k.step <= deep), default=first) for chunk in self._index.values()]
        return max(old, default=first)

    def _served(self, version: int) -> bool:
        """Whether all snapshots have who joined: those on their way may have been taken before."""
        name, joined = held_name(version, self._pins[version]), self._joined[version]
        newest = [(chunk.kept[-1], chunk.holds) for chunk in self._index.values()]
        return all(born.offset >= joined for born in self._born.values()) and all(
            name in holds or (kept.offset >= joined and not kept.stored) for kept, holds in newest
        )

    def _with(self, taken: Taken, before: Chunk) -> tuple[Chunk, list[int]]:
        """The chunk with a new snapshot, and the offsets of those that are no longer needed."""
        kept = list(before.kept)
        gone = []
        newest = kept[-1]
        if newest.offset == taken.offset and newest.stored:
            kept.pop()  # the new bytes take the place of the old ones
        elif len(kept) > 1 and newest.step - kept[-2].step < self._depth / 2:
            gone.append(kept.pop().offset)
        needed, older = self._needed([*kept, Kept(taken.offset, taken.offset, taken.step)], taken)
        return Chunk(needed, taken.holds), gone + older

    def _needed(self, kept: list[Kept], taken: Taken) -> tuple[tuple[Kept, ...], list[int]]:
        """These snapshots from the first that is a whole depth old, or pinned, on; the offsets of those before."""
        pinned = min(self._pins.values(), default=taken.offset)
        begin = 0
        while begin + 1 < len(kept) and kept[begin + 1].step <= taken.step - self._depth:
            if kept[begin + 1].offset > pinned:
                break
            begin += 1
        return tuple(kept[begin:]), [old.offset for old in kept[:begin] if old.stored]


def unserved(index: Mapping[int, Chunk], spans: Mapping[int, Span]) -> set[int]:
    """The versions that can't go on from the newest snapshot of every chunk."""
    return {
        version
        for version, span in spans.items()
        if not all(chunk.serves(version, span.start) for chunk in index.values())
    }
