"""What is made of the counts of all partitions: the detectors are fed, gate and guard look, retraining is asked for.

    counts ─┬─ losses of the steps that are over ─► detectors ─► requests     (worker/drifting.py)
            ├─ duels of versions side by side ─► gate, guard ─► registry      (worker/judging.py)
            └─ time and pairs that went by, skill that fell ─► requests       (worker/asking.py)

The monitor and a backtest oversee alike.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.drift_inputs import trained_inputs
from models.errors import DataError
from models.registry import Aliases
from models.tally import COLUMNS, PAIRS
from models.times import HOUR_MS
from models.windows import LIFE, Book, recent_skill
from worker.asking import Seen, trained_until_ms
from worker.counting import Watched
from worker.drifting import ASKING_TREND, recent_inputs
from worker.judging import Evidence
from worker.pending import complete, fought, merged, together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.scaling import SeriesForm
    from worker.asking import Asking
    from worker.counting import Counting
    from worker.desks import VersionDesk
    from worker.drifting import DriftWatch
    from worker.judging import Judging

ASKING_WINDOW = "7d"  # of skill
FED_AT_ONCE = 256  # losses: telling what quiet is takes about a second, and is due once in so many at most

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Minds:
    """What makes something of the figures."""

    drifts: DriftWatch
    judging: Judging
    asking: Asking


class Overseer:
    """Looks after one model's versions."""

    def __init__(self, registry: VersionDesk, form: SeriesForm, ahead_steps: int, minds: Minds) -> None:
        """`ahead_steps`: how far a step may lie ahead."""
        self._registry = registry
        self._features = form.features
        self._interval_ms = form.interval_ms
        self._ahead_steps = ahead_steps
        self._minds = minds
        self._trained_ms: int | None = None  # event time up to which the incumbent's training had data
        self.forget()

    def open(self) -> None:
        """Take up what whoever led before left.

        Raises:
            ServiceUnreachable: Redis did not answer.
            LedgerError: another format.
        """
        self._minds.drifts.open()
        self._minds.judging.open()
        self._minds.asking.open()

    def forget(self) -> None:
        """Know nothing any more of partitions, and of who answers."""
        self.aliases = Aliases(None, None, None, 0)
        self.watched: Watched | None = None
        self._seen: int | None = None  # the incumbent whose training was looked at
        self._judged: int | None = None  # the hour in which inputs and trend were judged last
        self._merged: Book | None = None
        self._week: tuple[int, int, float | None] = (-1, -1, None)  # version, hour and its skill

    def forget_sums(self) -> None:
        """Add the partitions' sums up anew: there are more of them."""
        self._merged = None

    def watch_incumbent(self, parts: Sequence[Counting]) -> None:
        """Count the inputs of late in the bins of what the incumbent was trained on."""
        self.aliases = self._registry.aliases()
        incumbent = self.aliases.incumbent
        if incumbent == self._seen:
            return
        self._seen = incumbent
        info = None if incumbent is None else self._registry.info(incumbent)
        self._trained_ms = trained_until_ms(info.training) if info is not None else None
        trained = None
        try:
            trained = trained_inputs(info.training) if info is not None else None
        except DataError as error:
            log.warning("version %s: its inputs are not watched: %s", incumbent, error, extra={"action": "unwatched"})
        known = trained is not None and set(trained.features) <= set(self._features)
        self.watched = Watched(incumbent, trained) if known and incumbent and trained else None
        for one in parts:
            one.watched = self.watched

    def look(self, parts: Sequence[Counting], until: int, now_ms: int, hold: Callable[[], None]) -> None:
        """Make something of what was counted; all partitions that move are past the steps before `until`.

        `hold` is called before what may take long.

        Raises:
            FencedError, OffsetConflict: another monitor leads, or Redis lost its tail: open anew.
            ServiceUnreachable: Redis did not answer: open anew.
        """
        self.feed(parts, until, now_ms, hold)
        hold()
        self.judge(parts, until, now_ms)
        self.ask(parts, now_ms)

    def book(self, parts: Sequence[Counting]) -> Book:
        """The sums of all partitions."""
        if self._merged is None:
            self._merged = Book()
            self._merged.merge([one.book for one in parts])
        else:
            self._merged.merge([one.book for one in parts], set().union(*(one.touched for one in parts)))
        for one in parts:
            one.touched.clear()
        return self._merged

    def feed(self, parts: Sequence[Counting], until: int, now_ms: int, hold: Callable[[], None] = lambda: None) -> None:
        """Show the detectors what is over; as `look`."""
        drifts = self._minds.drifts
        losses = merged((one.losses for one in parts), drifts.state.step)
        over = complete(losses, until=until, ahead_steps=self._ahead_steps)
        while some := list(itertools.islice(over, FED_AT_ONCE)):
            hold()
            drifts.feed(some, now_ms)
        book = self.book(parts)
        hour = book.newest_hour()
        if hour is not None and hour != self._judged:
            self._judged = hour
            newest = max(one.newest for one in parts if one.newest is not None)
            recent = None
            if self.watched is not None:
                hours = max(1, self.watched.trained.window_steps * self._interval_ms // HOUR_MS)
                recent = recent_inputs((one.inputs for one in parts), self.watched, hours, hour)
            drifts.judge_inputs(self.watched, recent, newest, now_ms)
            if drifts.state.version is not None:
                drifts.judge_trend(book, drifts.state.version, hour, newest, now_ms)
        drifts.save()

    def judge(self, parts: Sequence[Counting], until: int, now_ms: int) -> None:
        """Let gate and guard look at what versions that run side by side did."""
        judging = self._minds.judging
        duels = together((one.duels for one in parts), judging.state.step)
        over = fought(duels, until=until, ahead_steps=self._ahead_steps)
        running = frozenset(seat.version for one in parts for seat in one.seats if seat.leave_offset is None)
        hour = self.book(parts).newest_hour()
        clock = None if hour is None else hour * HOUR_MS // self._interval_ms
        judging.look(Evidence(duels, over, running, clock), now_ms)

    def ask(self, parts: Sequence[Counting], now_ms: int) -> None:
        """Ask for retraining where time, pairs or skill say so."""
        book, version = self.book(parts), self.aliases.incumbent
        hour = book.newest_hour()
        if hour is None or version is None or version not in book.leads:
            return
        state = self._minds.drifts.state
        trend = state.trends_of(version).get(ASKING_TREND)
        self._minds.asking.look(
            Seen(
                version=version,
                clock_ms=hour * HOUR_MS,
                pairs=int(book.window(version, LIFE, hour)[-1, COLUMNS[PAIRS]]),
                trained_ms=self._trained_ms,
                drifts=sum(state.counts.values()),
                drifted_ms=state.found[-1].time_ms if state.found else None,
                goal="improve" if trend is None else trend.goal,
                skill=self._skill(book, version, hour),
            ),
            now_ms,
        )

    def _skill(self, book: Book, version: int, hour: int) -> float | None:
        """The skill that requests go by; looked at once an hour, as windows are of hours."""
        if self._week[:2] != (version, hour):
            self._week = (version, hour, recent_skill(book, version, ASKING_WINDOW, hour))
        return self._week[2]
