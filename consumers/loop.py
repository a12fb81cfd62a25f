"""The consumer: one small step, again and again, by an outer runner that passes the clock.

    poll ─► decode ─► admit ─► fold ─► commit (one Redis call a block) ─► publish ─► acknowledged ─► mark

What is folded but not committed waits in `_unfinished`; while anything does, nothing new is fetched, but `poll`
goes on being called, so that the group keeps this member. Redis or Kafka away means waiting, not failing.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumers.codec import Record, raw_record
from consumers.kafka import Change, OffsetOutOfLog, Source
from consumers.ledger import Commit, Refused
from consumers.stream import Admitted, Folded, admit, fold
from consumers.upkeep import encode_snapshots, trim, write_snapshots
from models.errors import FencedError, OffsetConflict, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from consumers.following import Follower
    from consumers.holding import Holding, Limits
    from consumers.observer import Observer
    from consumers.opening import Opener
    from consumers.versions import Versions

MAX_POLLS = 4  # of the client in one step
MAX_OUTSTANDING = 50_000  # messages without acknowledgement before fetching pauses
POLL_S = 0.1
BUSY_POLL_S = 0.005  # while acknowledgements are awaited
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0
MARK_EVERY_S = 0.25
OFFSETS_EVERY_S = 1.0
AWAY_S = 2.0  # how long a consumer that leaves waits for a service that was away already
FENCED_S = 5.0  # by then a consumer that was given up has heard of it: who is still assigned may take again
SILENCE_S = 3.0  # without records for so long, the broker is asked whether it is there
TRIM_EVERY = 32  # commits

log = logging.getLogger(__name__)


@dataclass
class _Unfinished:
    """A block that was folded and is not committed yet."""

    holding: Holding
    commit: Commit
    folded: Folded
    refused: Sequence[Refused] = ()
    polled_at: float | None = None  # None: no records, a change of the roster


class Consumer:
    """Holds partitions and drives them; `step` is called until it is time to `close`."""

    def __init__(
        self,
        source: Source,
        opener: Opener,
        follower: Follower,
        versions: Versions,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self._source = source
        self._opener = opener
        self._follower = follower
        self._versions = versions
        self._limits = limits
        self._observer = observer
        self._held: dict[int, Holding] = {}
        self._waiting: dict[int, Iterator[Holding | None] | None] = {}  # partitions to open, in order
        self._fenced: dict[int, float] = {}  # partitions that another took, and when to look whether they are ours
        self._unfinished: deque[_Unfinished] = deque()
        self._trouble = ""
        self._retry_at = 0.0
        self._wait_s = FIRST_WAIT_S
        self._paused = False
        self._marked_at = self._told_at = 0.0
        self._told: dict[int, int] = {}
        self._heard_at = 0.0
        self.last_step_at = 0.0

    @property
    def trouble(self) -> str:
        """What is being waited for; empty: nothing."""
        return self._trouble

    @property
    def held(self) -> Mapping[int, Holding]:
        """The partitions that are at work."""
        return self._held

    @property
    def opening(self) -> list[int]:
        """The partitions that were assigned and are not at work yet, or no longer."""
        return [*self._waiting, *self._fenced]

    @property
    def _settled(self) -> bool:
        return not self._unfinished and all(h.mark == h.next for h in self._held.values())

    def step(self, now: float) -> int:
        """Do what there is to do, for about `POLL_S` at most; the number of records that were polled."""
        self.last_step_at = now
        self._pause_or_resume()
        outstanding = any(h.publisher.outstanding for h in self._held.values())
        busy = outstanding or self._waiting or self._unfinished or self._follower.busy
        records = self._poll(BUSY_POLL_S if busy else POLL_S)
        self._follow(self._source.changes())
        polled_at = time.monotonic()
        if records:
            self._heard_at = now
        self._take({p: found for p, found in records.items() if p in self._held}, polled_at)
        if now >= self._retry_at:
            self._work(now, polled_at if records else None)
        return sum(len(found) for found in records.values())

    def close(self, timeout_s: float = 10.0) -> None:
        """Finish what was begun, as far as the time goes, and leave."""
        deadline = time.monotonic() + (timeout_s if not self._trouble else min(timeout_s, AWAY_S))
        try:
            while not self._settled and time.monotonic() < deadline:
                self._commit_unfinished()
                self._publish()
                time.sleep(BUSY_POLL_S)
            self._tell_marks()
        except ServiceUnreachable as error:
            log.warning("left with work unfinished (%s); the next consumer takes it up", error)
        finally:
            self._source.close({number: holding.mark for number, holding in self._held.items()})

    def _poll(self, timeout_s: float) -> dict[int, list[Record]]:
        """Records by partition.

        A client's poll drains one partition at a time; what waits of the others is taken too, so that the
        network's waves span them.
        """
        records: dict[int, list[Record]] = {}
        try:
            for _ in range(min(len(self._held), MAX_POLLS) or 1):
                more = self._source.poll(0.0 if records else timeout_s)
                if not more:
                    break
                for number, found in more.items():
                    records.setdefault(number, []).extend(found)
        except OffsetOutOfLog as out:
            self._reopen(out.partitions)
        return records

    # — what happens to the assignment —

    def _follow(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for number in change.partitions:
                if change.kind == "assigned":
                    self._fenced.pop(number, None)
                    self._waiting[number] = None
                else:
                    self._drop(number, change.kind)

    def _drop(self, number: int, why: str) -> None:
        """Forget a partition; everything of it that matters is in its ledger."""
        self._waiting.pop(number, None)
        self._fenced.pop(number, None)
        self._told.pop(number, None)
        self._unfinished = deque(u for u in self._unfinished if u.holding.number != number)
        self._follower.forget(number)
        if self._held.pop(number, None) is not None:
            self._observer.lag(number, None)
            self._observer.roster(number, ())
            log.info("partition %d was %s", number, why, extra={"action": why, "partition": number})

    def _reopen(self, numbers: Sequence[int]) -> None:
        """Begin with a partition anew: from its ledger, as if it were just assigned."""
        for number in numbers:
            self._drop(number, "reloaded")
            self._source.pause([number])
            self._waiting[number] = None

    def _open_next(self) -> None:
        """One slice of work on the first partition that waits to be opened."""
        if not self._waiting:
            return
        number, work = next(iter(self._waiting.items()))
        if work is None:
            span, committed = self._source.log_span(number), self._source.committed(number)
            work = self._waiting[number] = self._opener.open(number, span, committed)
        try:
            holding = next(work)
        except (FencedError, OffsetConflict) as error:
            self._lose(number, error)
            return
        except BaseException:
            self._waiting[number] = None  # begin again, if anyone does
            raise
        if holding is not None:
            del self._waiting[number]
            self._held[number] = holding
            self._follower.opened(holding)
            self._source.start(number, holding.next)
            if self._paused:
                self._source.pause([number])

    # — one block's way —

    def _take(self, records: Mapping[int, list[Record]], polled_at: float) -> None:
        """Fold what was polled, the partitions side by side."""
        queues = {p: deque(self._held[p].parts(found)) for p, found in records.items()}
        while any(queues.values()):
            batch = [(self._held[p], queue.popleft()) for p, queue in queues.items() if queue]
            judged = []
            for holding, found in batch:
                end = found[-1].offset + 1
                arrivals = holding.decoder.decode(found, holding.next, end)
                judged.append(admit(holding.partition, arrivals, max_series=self._limits.max_series))
            work = [(h.partition, a.block) for (h, _), a in zip(batch, judged, strict=True)]
            for (holding, found), admitted, folded in zip(batch, judged, fold(work, self._versions.ready), strict=True):
                self._finish(holding, found, admitted, folded, polled_at)

    def _finish(
        self, holding: Holding, found: list[Record], admitted: Admitted, folded: Folded, polled_at: float
    ) -> None:
        by_offset = {r.offset: r for r in found} if admitted.refusals else {}
        refused = [Refused(refusal, raw_record(by_offset[refusal.offset])) for refusal in admitted.refusals]
        counts = folded.counts + Counter({f"refused.{r.reason}": 0 for r in admitted.refusals})
        counts.update(f"refused.{r.reason}" for r in admitted.refusals)
        counts.update(duplicates=admitted.duplicates, history=len(admitted.history))
        commit = Commit(
            expected=holding.next,
            block=folded.block,
            history=admitted.history,
            new_names=admitted.new_names,
            refused=refused,
            counts={name: amount for name, amount in counts.items() if amount},
        )
        holding.next = folded.block.end
        holding.note(folded.block)
        self._unfinished.append(_Unfinished(holding, commit, folded, refused, polled_at))
        encode_snapshots(holding, len(found))

    # — the side that talks to Redis and Kafka —

    def _work(self, now: float, polled_at: float | None) -> None:
        try:
            if self._trouble:
                self._look_again()
            self._open_fenced(now)
            self._open_next()
            self._commit_unfinished()
            if now - self._marked_at >= MARK_EVERY_S:  # before a spin-up looks for snapshots that may just have gone
                self._marked_at = now
                self._tell_marks()
            self._follow_registry(now, None if polled_at is None else time.monotonic() - polled_at)
            self._publish()
            if now - self._heard_at >= SILENCE_S and self._held:
                self._source.check(next(iter(self._held)))
                self._heard_at = now
            if now - self._told_at >= OFFSETS_EVERY_S:
                self._told_at = now
                self._tell_offsets()
        except ServiceUnreachable as error:
            self._wait(error, now)
        else:
            self._observer.redis_up(up=True)
            if self._trouble:
                log.info("going on after: %s", self._trouble, extra={"action": "resumed"})
            self._trouble, self._wait_s = "", FIRST_WAIT_S

    def _wait(self, error: ServiceUnreachable, now: float) -> None:
        if not self._trouble:
            log.warning("waiting: %s", error, extra={"action": "waiting"})
        self._trouble = str(error)
        self._marked_at = 0.0
        self._observer.redis_up(up=not error.message.startswith("Redis"))
        self._retry_at = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def _commit_unfinished(self) -> None:
        while self._unfinished:
            one = self._unfinished[0]
            holding = one.holding
            began = time.monotonic()
            try:
                holding.ledger.commit(one.commit)
            except (FencedError, OffsetConflict) as error:
                self._lose(holding.number, error)
                continue
            self._unfinished.popleft()
            self._observer.commit(time.monotonic() - began)
            self._observer.block(one.commit.counts, holding.partition.incumbent)
            holding.publish(one.folded.block.end, one.folded, one.refused, one.polled_at)
            if one.commit.roster is not None:
                self._follower.committed(holding, time.monotonic())
            holding.commits += 1
            if holding.commits % TRIM_EVERY == 0:
                self._keeping(holding, lambda held: trim(held, self._limits))

    def _follow_registry(self, now: float, busy_s: float | None) -> None:
        """Bring the rosters to where the registry wants them; everything that was folded is committed here."""
        self._follower.poll(now)
        for holding in list(self._held.values()):
            try:
                commit = self._follower.follow(holding, now, busy_s)
            except (FencedError, OffsetConflict) as error:
                self._lose(holding.number, error)
                continue
            if commit is not None:
                self._unfinished.append(_Unfinished(holding, commit, Folded(commit.block, {}, Counter())))
        if self._unfinished:
            self._commit_unfinished()
            self._forget_versions()

    def _forget_versions(self) -> None:
        """Let go of versions that run nowhere here; what is being opened may need any."""
        if not self._waiting:
            running = {number for holding in self._held.values() for number in holding.partition.spans}
            self._versions.keep(running | self._follower.needed())

    def _lose(self, number: int, error: FencedError | OffsetConflict) -> None:
        log.warning("%s", error, extra={"action": "lost", "partition": number})
        if isinstance(error, FencedError):
            self._drop(number, "fenced")
            self._source.pause([number])
            self._fenced[number] = time.monotonic() + FENCED_S
        else:
            self._reopen([number])

    def _keeping(self, holding: Holding, work: Callable[[Holding], None]) -> None:
        """Do something with a ledger that may no longer be ours."""
        try:
            work(holding)
        except (FencedError, OffsetConflict) as error:
            self._lose(holding.number, error)

    def _open_fenced(self, now: float) -> None:
        """Take a partition again that another took, and that the group still says is ours.

        A zombie may take a ledger with its last breath, and a Redis that lost its tail knows older tokens.
        """
        for number in [number for number, due in self._fenced.items() if due <= now]:
            del self._fenced[number]
            if self._source.assigned(number):
                self._waiting[number] = None

    def _look_again(self) -> None:
        """After a service was away: a partition whose ledger went back meanwhile is opened anew."""
        for holding in list(self._held.values()):
            try:
                holding.ledger.check()
            except OffsetConflict as error:
                self._observer.rewound()
                self._lose(holding.number, error)
            except FencedError as error:
                self._lose(holding.number, error)

    def _publish(self) -> None:
        for holding in list(self._held.values()):
            if holding.disk:
                self._keeping(holding, self._follower.ask_disk)
            if not holding.disk and self._held.get(holding.number) is holding:
                holding.publisher.send()
            for publication in holding.publisher.settle(holding.number):
                holding.mark = publication.end
                if publication.polled_at is not None and publication.forecasts:
                    waited = time.monotonic() - publication.polled_at  # `now` is from before the poll
                    self._observer.acknowledged(waited, publication.forecasts)

    def _tell_marks(self) -> None:
        for holding in list(self._held.values()):
            self._keeping(holding, self._tell_mark)

    def _tell_mark(self, holding: Holding) -> None:
        if holding.mark > holding.mark_told:
            holding.ledger.set_mark(holding.mark)
            holding.mark_told = holding.mark
        write_snapshots(holding)

    def _tell_offsets(self) -> None:
        """The group's offsets and the lag, for whoever watches Kafka."""
        marks = {number: h.mark for number, h in self._held.items() if self._told.get(number) != h.mark}
        self._source.commit(marks)
        self._told |= marks
        for number, holding in self._held.items():
            lag = self._source.lag(number)
            self._observer.lag(number, lag)
            if lag == 0:  # what is left of the log, if anything, are no records
                holding.doubt = min(holding.doubt, holding.next)

    def _pause_or_resume(self) -> None:
        crowded = sum(h.publisher.outstanding for h in self._held.values()) > MAX_OUTSTANDING
        wanted = bool(self._unfinished) or crowded or bool(self._trouble)
        if wanted and not self._paused:
            self._source.pause(self._held)
        elif self._paused and not wanted:
            self._source.resume(self._held)
        self._paused = wanted
