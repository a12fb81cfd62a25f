"""Moves a partition's counted blocks to the archive before the ledger lets them go."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from consumers.ledger import block_position
from models.errors import ArchiveError

if TYPE_CHECKING:
    from consumers.archive import Archive
    from consumers.ledger import Ledger
    from models.blocks import Block
    from models.scaling import SeriesForm
    from worker.store import PartitionStore

RETRY_S = 30.0
READ_BLOCKS = 64  # at once: they may be large

log = logging.getLogger(__name__)


class Archiver:
    """One partition's way to the archive: a file when enough has come, or the oldest is old enough."""

    def __init__(
        self, archive: Archive, ledger: Ledger, store: PartitionStore, form: SeriesForm, rows: int, after_steps: int
    ) -> None:
        self._archive = archive
        self._ledger = ledger
        self._store = store
        self._form = form
        self._rows = rows
        self._after_steps = after_steps
        self._place = (-1, 0)
        self._begun = False  # whether the archive said how far it is
        self._waiting = 0  # observations that are counted and not archived
        self._counted = 0  # when `_waiting` was known last
        self._oldest: int | None = None  # the newest step of the oldest block that waits
        self._retry_at = 0.0
        self.archived = 0  # observations, by this process
        self.failures = 0

    def lag(self, offset: int) -> int:
        """Records before `offset` that are not archived."""
        return max(0, offset - max(self._place[0], 0))

    def open(self, offset: int, counted: int) -> None:
        """Go on after what is archived; up to `offset` the monitor has `counted` so many observations.

        Raises:
            ServiceUnreachable: Redis did not answer.
        """
        self._counted = counted
        if "archive" not in self._store.needed():
            self._store.need("archive", 0)  # nothing goes before the archive was asked what it has
        self._begin(offset, 0.0)

    def _begin(self, offset: int, now: float) -> None:
        """Ask the archive how far it is, and count what waits."""
        try:
            self._place = self._archive.place(self._ledger.partition)
        except ArchiveError as error:
            self._failed(error, now)
            return
        self._begun, self._waiting = True, 0
        self._store.need("archive", max(self._place[0], 0))
        place = block_position(*self._place)
        while True:
            blocks, place = self._ledger.read_blocks(place, READ_BLOCKS, offset)
            self._waiting += sum(map(len, blocks))
            self._oldest = self._oldest if self._oldest is not None else _newest_step(blocks)
            if not blocks:
                return

    def step(self, newest: int, offset: int, counted: int, now: float) -> None:
        """Write a file if it is time: `newest` step, offset and number of observations are those of the monitor.

        Raises:
            ServiceUnreachable, FencedError: as the store's calls.
        """
        self._waiting += counted - self._counted
        self._counted = counted
        if now < self._retry_at:
            return
        if not self._begun:
            self._begin(offset, now)
        if not self._begun or not self._waiting:
            return
        if self._oldest is None:
            self._oldest = _newest_step(self._read(offset, 1))
        old = self._oldest is not None and newest - self._oldest > self._after_steps
        if self._waiting < self._rows and not old:
            return
        try:
            self._write(self._read(offset, self._rows))
        except ArchiveError as error:
            self._failed(error, now)

    def _write(self, blocks: list[Block]) -> None:
        if not blocks:
            return
        partition = self._ledger.partition
        head = self._ledger.head()
        gone = head.trimmed if head is not None and head.trimmed > max(self._place[0], 0) else -1
        new = self._archive.write(
            partition, blocks, self._ledger.names(), self._form, roster=self._ledger.roster(), gone=gone
        )
        self._place = blocks[-1].place
        self._store.need("archive", self._place[0])
        self._waiting = max(0, self._waiting - sum(map(len, blocks)))
        self._oldest = None
        self.archived += new
        log.info(
            "partition %d: %d observations archived, up to offset %d", partition, new, self._place[0],
            extra={"action": "archived"},
        )  # fmt: skip

    def _read(self, offset: int, observations: int) -> list[Block]:
        """Blocks after what is archived, of about so many observations; where the last one ends, more may come."""
        place, found, size = block_position(*self._place), [], 0
        while size < observations:
            blocks, place = self._ledger.read_blocks(place, READ_BLOCKS, offset - 1)
            if not blocks:
                break
            for block in blocks:
                if size >= observations:
                    break
                found.append(block)
                size += len(block)
        return found

    def _failed(self, error: ArchiveError, now: float) -> None:
        self.failures += 1
        self._retry_at = now + RETRY_S
        log.error(
            "partition %d: blocks stay in Redis, the archive can't take them: %s", self._ledger.partition, error,
            extra={"action": "archive-failed"},
        )  # fmt: skip


def _newest_step(blocks: list[Block]) -> int | None:
    return next((int(block.step.max()) for block in blocks if len(block)), None)
