"""A model's monitor, one step at a time: leads or stands by, follows every partition, feeds the detectors.

step ─┬─ lease: does another one lead?
      ├─ every partition: new blocks ─► sums                     (worker/partition_monitor.py)
      ├─ old blocks ─► archive                                   (worker/archiving.py)
      └─ sums of all of them ─► detectors, gate, guard, requests (worker/overseeing.py)
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.errors import DataError, FencedError, KillickError, OffsetConflict
from models.times import HOUR_MS
from models.windows import Book
from worker.gate_told import GateTold
from worker.overseeing import Overseer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from models.drift_limits import Trend
    from models.registry import Registry
    from models.scaling import SeriesForm
    from worker.archiving import Archiver
    from worker.overseeing import Minds
    from worker.partition_monitor import PartitionMonitor
    from worker.store import ModelStore

IDLE_S = 60.0  # without new observations for so long, a partition is not waited for

log = logging.getLogger(__name__)


@dataclass
class _Followed:
    """A partition, and when it had something new last (monotonic seconds)."""

    monitor: PartitionMonitor
    archiver: Archiver | None
    moved_at: float


@dataclass(frozen=True)
class Times:
    """The lengths that a monitor goes by."""

    lease_ms: int
    ahead_steps: int  # how far a step may lie ahead


@dataclass(frozen=True)
class Shown:
    """What is to be seen of a monitor and of its model at one moment; the last ones are filled by its process."""

    leads: bool = False
    observations: int = 0
    newest_ms: int | None = None
    newest_hour: int = 0  # of event time: it is not complete yet
    book: Book = field(default_factory=Book)
    versions: frozenset[int] = frozenset()  # that run anywhere
    generation: int = 0
    paused: bool = False
    promotions: int = 0
    rollbacks: Mapping[str, int] = field(default_factory=dict)  # by actor
    statistics: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    drifts: Mapping[str, int] = field(default_factory=dict)
    trends: Mapping[str, Trend] = field(default_factory=dict)
    gate: GateTold = field(default_factory=GateTold)
    lags: Mapping[int, int] = field(default_factory=dict)
    blocks: Mapping[int, int] = field(default_factory=dict)
    archive_lags: Mapping[int, int] = field(default_factory=dict)
    archived: int = 0
    archive_failures: int = 0
    redis_up: bool = False
    alpha_spent: float = 0.0
    alpha_budget: float = 0.0
    requests: int = 0
    oldest_request_s: float = 0.0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0


class Monitor:
    """Follows all partitions of a model, as long as no other monitor does."""

    def __init__(
        self,
        registry: Registry,
        form: SeriesForm,
        store: ModelStore,
        minds: Minds,
        opens: Callable[[int], tuple[PartitionMonitor, Archiver | None]],
        times: Times,
    ) -> None:
        self._registry = registry
        self._form = form
        self._store = store
        self._opens = opens
        self._times = times
        self._followed: list[_Followed] = []
        self._audited: int | None = None  # the generation that `_changes` is of
        self._changes: tuple[int, Mapping[str, int]] = (0, {})
        self._doubted = False  # whether the last step met blocks that don't follow each other
        self._overseer = Overseer(registry, form, times.ahead_steps, minds)
        self._judging = minds.judging
        self.drifts = minds.drifts
        self.leads = False

    def step(self, now: float, now_ms: int) -> int:
        """How many observations were counted; `now` in monotonic seconds, `now_ms` since 1970.

        Raises:
            ServiceUnreachable: Redis did not answer; the next step begins with what it holds.
            LedgerError: a record that can't be used.
            DataError: blocks that don't follow each other, twice in a row.
        """
        try:
            counted = self._step(now, now_ms)
        except (FencedError, OffsetConflict, DataError) as error:
            self._leave()
            if isinstance(error, DataError) and self._doubted:
                raise  # it was no passing thing, as a lost tail is
            self._doubted = isinstance(error, DataError)
            log.warning("the monitor begins anew: %s", error, extra={"action": "taken"})
            return 0
        except KillickError:
            self._leave()
            raise
        self._doubted = False
        return counted

    def close(self) -> None:
        """Keep what a successor would have to read again, and let it lead.

        Raises:
            ServiceUnreachable: Redis did not answer; nothing is lost by that.
        """
        if self.leads:
            for one in self._followed:
                one.monitor.keep_trails(None)
            self._store.release()
        self._leave()

    def view(self) -> Shown:
        """What is to be seen now.

        Raises:
            ServiceUnreachable: Redis did not answer.
        """
        if not self.leads:
            return Shown()
        monitors = [one.monitor for one in self._followed]
        archivers = [(o.monitor.partition, o.monitor, o.archiver) for o in self._followed if o.archiver is not None]
        newest, book, state = self._newest(), self._overseer.book(monitors), self.drifts.state
        promotions, rollbacks = self._promotions_and_rollbacks()
        return Shown(
            leads=True,
            observations=sum(m.observations for m in monitors),
            newest_ms=None if newest is None else newest * self._form.interval_ms,
            newest_hour=book.newest_hour() or 0,
            book=book,
            versions=frozenset(seat.version for m in monitors for seat in m.seats if seat.leave_offset is None),
            generation=self._overseer.aliases.generation,
            paused=self._overseer.aliases.paused,
            promotions=promotions,
            rollbacks=rollbacks,
            statistics=state.statistics,
            drifts=state.counts,
            trends=state.trends,
            gate=self._judging.state,
            lags={m.partition: m.lag for m in monitors},
            blocks={m.partition: m.blocks() for m in monitors},
            archive_lags={n: a.lag(m.offset) for n, m, a in archivers},
            archived=sum(a.archived for _, _, a in archivers),
            archive_failures=sum(a.failures for _, _, a in archivers),
        )

    def _promotions_and_rollbacks(self) -> tuple[int, Mapping[str, int]]:
        """As `rollbacks_by_actor`; the audit is read again when an alias moved, as both of them do."""
        if self._overseer.aliases.generation != self._audited:
            self._changes = rollbacks_by_actor((entry.event, entry.actor) for entry in self._registry.audit())
            self._audited = self._overseer.aliases.generation
        return self._changes

    def _step(self, now: float, now_ms: int) -> int:
        if not self._store.lease(self._times.lease_ms):
            if self.leads:
                log.warning("another monitor leads now", extra={"action": "stood-by"})
                self._leave()
            return 0
        if not self.leads:
            self._overseer.open()
            self.leads = True
            log.info("this monitor leads", extra={"action": "leads"})
        self._open_new(now)
        self._overseer.watch_incumbent([one.monitor for one in self._followed])
        counted = 0
        for one in self._followed:
            self._go_on_leading()
            new = one.monitor.step(self.drifts.state.step, self._judging.state.step)
            if new:
                one.moved_at = now
                counted += new
            one.monitor.keep_trails(now)
            if one.archiver is not None and one.monitor.hour is not None:
                step = one.monitor.hour * HOUR_MS // self._form.interval_ms
                one.archiver.step(step, one.monitor.offset, one.monitor.observations, now)
        newest = self._newest()
        if newest is not None:
            parts = [one.monitor for one in self._followed]
            self._overseer.look(parts, self._until(now, newest), now_ms, self._go_on_leading)
        return counted

    def _go_on_leading(self) -> None:
        """Hold the lease for its whole length from now on: what one step does may take longer than that.

        Raises:
            FencedError: another monitor leads.
        """
        if not self._store.lease(self._times.lease_ms):
            raise FencedError("another monitor leads now", "this one stands by")

    def _open_new(self, now: float) -> None:
        for number in range(len(self._followed), self._registry.partitions()):
            self._go_on_leading()
            monitor, archiver = self._opens(number)
            monitor.open()
            monitor.watched = self._overseer.watched
            if archiver is None:
                monitor.keep_no_archive()
            else:
                archiver.open(monitor.offset, monitor.observations)
            self._followed.append(_Followed(monitor, archiver, now))
            self._overseer.forget_sums()
            log.info(
                "partition %d: the monitor goes on from offset %d", number, max(monitor.offset, 0),
                extra={"action": "followed"},
            )  # fmt: skip

    def _until(self, now: float, newest: int) -> int:
        """The least newest step of the partitions that move: all of them are past the steps before it."""
        moving = [o.monitor.newest for o in self._followed if now - o.moved_at < IDLE_S or o.monitor.lag]
        return min((step for step in moving if step is not None), default=newest)

    def _newest(self) -> int | None:
        """The newest step that was counted."""
        return max((o.monitor.newest for o in self._followed if o.monitor.newest is not None), default=None)

    def _leave(self) -> None:
        self._followed = []
        self._overseer.forget()
        self.leads = False


def rollbacks_by_actor(events: Iterable[tuple[str, str]]) -> tuple[int, dict[str, int]]:
    """How often was promoted, and rolled back by whom, from (event, actor)."""
    promotions, rollbacks = 0, Counter[str]()
    for event, actor in events:
        promotions += event == "promote"
        rollbacks[actor] += event == "rollback"
    return promotions, {actor: count for actor, count in rollbacks.items() if count}
