"""One partition as the monitor follows it: reads new blocks, scores them, moves cursor and sums in one call."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from consumers.roster import incumbent_at
from models import duels
from models.errors import DataError, OffsetConflict
from models.tally import Scorer
from models.windows import DAY_HOURS, HOUR_MS, Book, Key
from worker.store import START, Advance, encode_sums, offset_of, sums_field
from worker.tenures import tenures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumers.ledger import Ledger
    from consumers.roster import Seat
    from models.blocks import Block, Bools, Floats, Ints
    from models.drift_inputs import TrainedInputs
    from models.duels import Duels
    from models.scaling import SeriesForm
    from models.tally import Scored
    from worker.store import Losses, PartitionStore

READ_OBSERVATIONS = 65_536  # in one step, about
READ_BLOCKS = 1_024  # at most in one step
READ_AT_ONCE = 32  # blocks: they may be large
TRAILS_EVERY = 200_000  # observations, or so many of each series, between two sets of trails
TRAILS_PER_SERIES = 20
TRAILS_EVERY_S = 600.0  # and at least so often where anything changed: else blocks wait too long to be let go

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watched:
    """The version whose inputs are compared with those of its training."""

    version: int
    trained: TrainedInputs

    def count(self, features: Sequence[str], values: Floats, present: Bools, hours: Ints) -> dict[int, Ints]:
        """Hour → how many of the values `(N, F)` lie in each bin, the features' bins in a row."""
        named, of = np.unique(hours, return_inverse=True)
        parts = []
        for name, trained in self.trained.features.items():
            f = features.index(name)
            bins = len(trained.counts)
            rows = np.flatnonzero(present[:, f])
            at = np.searchsorted(np.asarray(trained.edges), values[rows, f], side="left")
            parts.append(np.bincount(of[rows] * bins + at, minlength=len(named) * bins).reshape(len(named), bins))
        counted = np.concatenate(parts, axis=1)
        return dict(zip(named.tolist(), counted, strict=True))


class PartitionMonitor:
    """Scores one partition's blocks as they come."""

    def __init__(self, ledger: Ledger, store: PartitionStore, form: SeriesForm, horizon: int) -> None:
        self._ledger = ledger
        self._store = store
        self._form = form
        self._scorer = Scorer(form, horizon)
        self._changed = 0  # observations since the trails were kept
        self._kept_at: float | None = None  # when they were, monotonic seconds
        self.place = START
        self.newest: int | None = None  # step
        self.hour: int | None = None  # of event time: that most are in, before there are pairs that of the newest
        self.observations = 0
        self.next = 0  # where the ledger stands
        self._seen = 0  # up to where it was read: at its end there may be records that make no block
        self.book = Book()
        self.losses: Losses = {}
        self.duels: Duels = {}
        self.inputs: dict[tuple[int, int], Ints] = {}  # (version, hour) → counts
        self.seats: Sequence[Seat] = ()
        self.touched: set[Key] = set()  # entries of the book that changed since somebody asked
        self.watched: Watched | None = None

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
            self._count(filled, change, fed, judged)
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

    def _count(self, blocks: Sequence[Block], change: Advance, fed: int | None, judged: int | None) -> None:
        """Add the blocks to sums, losses, duels and inputs, and write into `change` what that changed."""
        answering = np.array([incumbent_at(self.seats, block.start) or 0 for block in blocks])
        touched: set[Key] = set()
        lost: set[tuple[int, int]] = set()
        fought: set[tuple[int, int, int]] = set()
        side_by_side = tenures(self.seats, blocks)
        for scored in self._scorer.score(blocks):
            for version, one in scored.items():
                hours = one.step * self._form.interval_ms // HOUR_MS
                named, group = np.unique(hours, return_inverse=True)
                touched |= self.book.add(version, one.leads, named, one.sums(group, len(named)))
                lost |= self._lose(version, one, answering[one.block] == version, fed)
            fought |= duels.count(self.duels, scored, side_by_side, judged)
        self.hour = hour = self._hour_under_way(change.newest)
        outdated = self.book.outdated(hour)
        for key in outdated:
            del self.book.sums[key]
        leads, sums = self.book.leads, self.book.sums
        change.sums = {sums_field(key): encode_sums(leads[key.version], sums[key]) for key in touched - outdated}
        self.touched |= touched | outdated
        change.sums |= self._count_inputs(blocks)
        gone = self._outdated_inputs(hour)
        for known in gone:
            del self.inputs[known]
        change.forget_sums = [*map(sums_field, outdated), *(_inputs_field(*known) for known in gone)]
        change.losses = {key: self.losses[key] for key in lost}
        change.forget_losses = [key for key in self.losses if fed is not None and key[0] <= fed]
        for fed_already in change.forget_losses:
            del self.losses[fed_already]
        change.duels = {key: self.duels[key] for key in fought}
        change.forget_duels = [key for key in self.duels if judged is not None and key[0] <= judged]
        for judged_already in change.forget_duels:
            del self.duels[judged_already]

    def _hour_under_way(self, newest: int) -> int:
        """The hour of event time that is not complete; before there are pairs, that of the `newest` step."""
        found = self.book.newest_hour()
        return newest * self._form.interval_ms // HOUR_MS if found is None else found

    def _lose(self, version: int, scored: Scored, answered: np.ndarray, fed: int | None) -> set[tuple[int, int]]:
        """Add the losses of a version where it answered, by step; those of steps that are over come too late."""
        total, number = scored.losses
        rows = np.flatnonzero(answered & (number > 0) & (scored.step > (fed if fed is not None else -np.inf)))
        steps, of = np.unique(scored.step[rows], return_inverse=True)
        sums, counts = np.bincount(of, total[rows]), np.bincount(of, number[rows])
        for step, loss, count in zip(steps.tolist(), sums.tolist(), counts.tolist(), strict=True):
            before = self.losses.get((step, version), (0, 0.0))
            self.losses[step, version] = (before[0] + int(count), before[1] + loss)
        return {(step, version) for step in steps.tolist()}

    def _count_inputs(self, blocks: Sequence[Block]) -> dict[str, bytes]:
        if self.watched is None or not self.watched.trained.features or not blocks:
            return {}
        version, changed = self.watched.version, {}
        values, present = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("values", "present"))
        hours = np.concatenate([block.step for block in blocks]) * self._form.interval_ms // HOUR_MS
        for hour, counted in self.watched.count(self._form.features, values, present, hours).items():
            before = self.inputs.get((version, hour))
            self.inputs[version, hour] = counted if before is None else before + counted
            changed[_inputs_field(version, hour)] = self.inputs[version, hour].astype("<i8").tobytes()
        return changed

    def _outdated_inputs(self, hour: int) -> list[tuple[int, int]]:
        if self.watched is None:
            return []
        kept = self.watched.trained.window_steps * self._form.interval_ms // HOUR_MS + DAY_HOURS
        return [key for key in self.inputs if key[0] != self.watched.version or key[1] < hour - kept]

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
