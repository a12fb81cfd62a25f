"""One partition as the monitor follows it: reads new blocks, scores them, moves cursor and sums in one call."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from models.errors import DataError, OffsetConflict
from worker.counting import Counting
from worker.store import START, Advance, encode_sums, offset_of, sums_field

if TYPE_CHECKING:
    from consumers.ledger import Ledger
    from models.blocks import Block
    from models.scaling import SeriesForm
    from worker.counting import Changed
    from worker.store import PartitionStore

READ_OBSERVATIONS = 65_536  # in one step, about
READ_BLOCKS = 1_024  # at most in one step
READ_AT_ONCE = 32  # blocks: they may be large
TRAILS_EVERY = 200_000  # observations, or so many of each series, between two sets of trails
TRAILS_PER_SERIES = 20
TRAILS_EVERY_S = 600.0  # and at least so often where anything changed: else blocks wait too long to be let go

log = logging.getLogger(__name__)


class PartitionMonitor(Counting):
    """Counts one partition's blocks as they come, and keeps what it counted."""

    def __init__(self, ledger: Ledger, store: PartitionStore, form: SeriesForm, horizon: int) -> None:
        super().__init__(form, horizon)
        self._ledger = ledger
        self._store = store
        self._changed = 0  # observations since the trails were kept
        self._kept_at: float | None = None  # when they were, monotonic seconds
        self.place = START
        self.observations = 0
        self.next = 0  # where the ledger stands
        self._seen = 0  # up to where it was read: at its end there may be records that make no block

    @property
    def partition(self) -> int:
        """Its number."""
        return self._ledger.partition

    @property
    def offset(self) -> int:
        """Up to where everything is counted."""
        return offset_of(self.place)

    @property
    def lag(self) -> int:
        """Records of the ledger that are not counted yet."""
        return self.next - self._seen

    def blocks(self) -> int:
        """How many blocks the ledger holds."""
        return self._ledger.block_count()

    def open(self) -> None:
        """Take the partition, and go on where whoever had it before stood.

        Raises:
            ServiceUnreachable, LedgerError: as `PartitionStore.take`.
        """
        standing = self._store.take()
        begin = offset_of(standing.trails_place)
        self._store.need("monitor", begin)  # first of all: from here on nothing goes that is not read yet
        head = self._ledger.head()
        self.seats = self._ledger.roster()
        self.place, self.observations = standing.place, standing.observations
        self.newest = standing.newest if standing.observations else None
        (self.book, self.inputs), self.losses = self._store.sums(), self._store.losses()
        self.duels = self._store.duels()
        self.hour = None if self.newest is None else self._hour_under_way(self.newest)
        if head is None or head.trimmed <= begin:  # else they lack what went meanwhile
            for first, recent in self._store.trails(standing.trails):
                self._scorer.trails.restore(first, recent)
        if head is not None and head.trimmed > self.offset:
            log.warning(
                "partition %d: blocks of offsets %d to %d were trimmed before a monitor read them: no figure has them",
                self.partition, self.offset, head.trimmed, extra={"action": "hole"},
            )  # fmt: skip
        self._follow(standing.trails_place)

    def _follow(self, place: str) -> None:
        """Look at what was counted since the trails were kept."""
        while place != self.place:
            blocks, place = self._read(place, self.offset)
            if not blocks:
                return
            self._scorer.follow([block for block in blocks if len(block)])
            self._changed += sum(map(len, blocks))

    def keep_no_archive(self) -> None:
        """Let blocks go that were never archived, as nobody archives them any more."""
        self._store.need("archive", None)

    def step(self, fed: int | None, judged: int | None = None) -> int:
        """How many observations were counted.

        The detectors were `fed` up to this step, whose losses may go; gate and guard have `judged` duels up to that.

        Raises:
            FencedError, OffsetConflict: another monitor is at work, or Redis lost its tail: open anew.
            ServiceUnreachable: Redis did not answer: open anew.
            DataError: the blocks don't follow each other: open anew, once.
        """
        head = self._ledger.head()
        if (head.next if head is not None else 0) < self.offset:
            raise OffsetConflict(f"partition {self.partition}: the ledger lost its tail", next_offset=self.offset)
        if head is None:
            return 0
        blocks, place = self._read(self.place, head.next)
        self.next = head.next
        self._seen = offset_of(place) if blocks else head.next
        if not blocks:
            return 0
        self.seats = self._ledger.roster()
        filled = [block for block in blocks if len(block)]
        count = sum(map(len, filled))
        steps = [int(block.step.max()) for block in filled] + ([] if self.newest is None else [self.newest])
        change = Advance(self.place, place, max(steps, default=0), count)
        try:
            self._put_down(change, self.count(filled, change.newest, fed, judged))
        except DataError as error:
            raise DataError(
                f"partition {self.partition}: the blocks after offset {self.offset} don't follow the others ({error})",
                "the ledger is damaged, or this killick has a defect: `killick doctor`, restore Redis from a backup",
            ) from error
        self._store.advance(change)
        self.place, self.newest = place, change.newest if steps else None
        self.observations += count
        self._changed += count
        return max(count, 1)

    def keep_trails(self, now: float | None) -> None:
        """Keep what the references look back on, when it is time: from here on a restart reads blocks.

        `now` in monotonic seconds; None: it is time.

        Raises:
            FencedError, ServiceUnreachable: as `step`.
        """
        if self._kept_at is None:
            self._kept_at = now
        long_ago = now is None or self._kept_at is None or now - self._kept_at >= TRAILS_EVERY_S
        due = max(TRAILS_EVERY, TRAILS_PER_SERIES * len(self._scorer.trails))
        if self._changed >= due or (self._changed and long_ago):
            self._store.keep_trails(self._scorer.trails, self.place, self.offset)
            self._changed, self._kept_at = 0, now

    def _put_down(self, change: Advance, changed: Changed) -> None:
        """Write what was counted into what the store is told."""
        leads, sums = self.book.leads, self.book.sums
        change.sums = {sums_field(key): encode_sums(leads[key.version], sums[key]) for key in changed.sums}
        change.sums |= {_inputs_field(*key): self.inputs[key].astype("<i8").tobytes() for key in changed.inputs}
        change.forget_sums = [
            *map(sums_field, changed.sums_gone),
            *(_inputs_field(*key) for key in changed.inputs_gone),
        ]
        change.losses = {key: self.losses[key] for key in changed.losses}
        change.forget_losses = changed.losses_gone
        change.duels = {key: self.duels[key] for key in changed.duels}
        change.forget_duels = changed.duels_gone

    def _read(self, place: str, until: int) -> tuple[list[Block], str]:
        """The next blocks after a place, of about READ_OBSERVATIONS, and the place of the last of them."""
        found: list[Block] = []
        size = 0
        while size < READ_OBSERVATIONS and len(found) < READ_BLOCKS:
            blocks, place = self._ledger.read_blocks(place, READ_AT_ONCE, until)
            found += blocks
            size += sum(map(len, blocks))
            if len(blocks) < READ_AT_ONCE:
                break
        return found, place


def _inputs_field(version: int, hour: int) -> str:
    return f"inputs/{version}/{hour}"
