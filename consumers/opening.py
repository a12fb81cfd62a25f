"""Opening a partition: taking it from whoever had it, and recovering its state.

The order of an assignment:
 1. compare the ledger's head with the log and with the group's offset (lost tails, holes, replaced topics),
 2. take the ledger: from here on nobody else can write it,
 3. give it its first roster if it has none, and load who runs,
 4. restore snapshots, replay the blocks after them, and queue again what may not have been published.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from consumers.codec import Decoder, Encoder
from consumers.holding import Holding
from consumers.keeping import SnapshotPlan
from consumers.ledger import Commit, Head, Ledger
from consumers.publishing import Publisher, Sender
from consumers.recovery import Recovery
from consumers.roster import Seat, incumbent_of, reseated, shadows_of, spans
from consumers.snapshots import chunk_slots
from consumers.stream import Folded, Partition
from models.blocks import empty_block
from models.errors import (
    FencedError,
    KillickError,
    LedgerError,
    NotReady,
    OffsetConflict,
    ServiceUnreachable,
    VersionError,
)
from models.scaling import NO_STEP

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from consumers.holding import Limits, Topics
    from consumers.observer import Observer
    from consumers.stream import Version
    from consumers.versions import Versions
    from models.registry import Registry
    from models.scaling import SeriesForm
    from models.server import Client

log = logging.getLogger(__name__)


class Opener:
    """Opens partitions for one consumer."""

    def __init__(  # noqa: PLR0913 - the collaborators of a consumer, wired in one place
        self,
        client: Client,
        model: str,
        form: SeriesForm,
        topics: Callable[[], Topics],
        limits: Limits,
        *,
        registry: Registry,
        versions: Versions,
        sender: Sender,
        observer: Observer,
    ) -> None:
        self._client = client
        self._model = model
        self._form = form
        self._look_up = topics  # a topic may be deleted, and made anew, while this consumer runs
        self._topics = topics()
        self._limits = limits
        self._registry = registry
        self._versions = versions
        self._sender = sender
        self._observer = observer

    def open(
        self, number: int, log_span: tuple[int, int], committed: int | None
    ) -> Generator[Holding | None, None, None]:
        """Yields None after each slice of work, and at last the holding.

        Raises:
            FencedError: another consumer took the partition meanwhile.
            OffsetConflict: Redis lost its tail meanwhile; begin again.
            LedgerError: the ledger does not belong to this log, or to these settings.
            VersionError: the version that answers can't be loaded.
            ServiceUnreachable: Redis did not answer; begin again.
        """
        ledger = Ledger(self._client, self._model, number, new_token())
        try:
            yield from self._open(ledger, log_span, committed)
        except (FencedError, OffsetConflict, ServiceUnreachable):
            raise
        except KillickError:  # what was read at different times need not fit together
            if ledger.taken:
                ledger.check()
            raise

    def _open(
        self, ledger: Ledger, log_span: tuple[int, int], committed: int | None
    ) -> Generator[Holding | None, None, None]:
        number = ledger.partition
        topics = self._topics = self._look_up()
        before = ledger.head()
        start = self._judge(before, number, log_span, committed)
        slots = before.chunk_slots if before is not None else (yield from self._new_chunk_slots())
        head = ledger.take(
            start=start,
            form=self._form.digest(),
            topic_id=topics.topic_id,
            partitions=topics.partitions,
            chunk_slots=slots,
            log_end=log_span[1],
            published=bool(committed),
        )
        head = self._skip_hole(ledger, head, log_span[0])
        head = self._seat_first(ledger, head)
        self._registry.set_partitions(topics.partitions)
        head, roster = yield from self._load_all(ledger, head)
        recovery = Recovery(ledger, head, self._form, self._versions.ready, roster)
        yield None
        plan = SnapshotPlan(
            head.chunk_slots, self._limits.snapshot_every, self._limits.spin_up_steps, dict(recovery.index)
        )
        holding = Holding(
            number, ledger, recovery.partition, Decoder(self._form, self._limits.max_ahead_ms), self._publisher(number),
            plan, next=head.next, mark=head.mark, mark_told=head.mark, doubt=head.doubt, first=head.first,
            newest_step=NO_STEP,
        )  # fmt: skip
        yield from self._replay(holding, head, recovery)
        log.info(
            "partition %d is ours from offset %d, %d series",
            number,
            head.next,
            len(holding.partition.names),
            extra={"action": "opened", "partition": number, "offset": head.next},
        )
        yield holding

    def _judge(self, head: Head | None, number: int, log_span: tuple[int, int], committed: int | None) -> int:
        """Where an empty ledger begins.

        Raises:
            LedgerError: the ledger and the log can't belong together.
        """
        known = self._topics.partitions
        if known and number >= known:
            raise LedgerError(
                f"topic {self._topics.observations!r} got a partition {number}, at the start it had {known}",
                "series would move away from their history: use another model name and `killick produce` again",
            )
        begin, end = log_span
        if head is None:
            if committed and not self._limits.accept_gap:
                raise LedgerError(
                    f"partition {number}: the ledger is empty, but the group has read up to offset {committed}",
                    "restore Redis; or run `killick consumer --accept-gap` to go on from there with nothing remembered",
                )
            return max(begin, committed or 0)
        if head.next > end:
            raise LedgerError(
                f"partition {number}: the ledger stands at offset {head.next}, the log of {self._topics.observations!r}"
                f" ends at {end}",
                "the topic was truncated or replaced: use another model name",
            )
        if committed is not None and head.next < committed:
            self._observer.rewound()
            log.warning(
                "partition %d: Redis lost its tail: the group had read up to offset %d, going back to %d",
                number, committed, head.next, extra={"action": "rewound", "partition": number},
            )  # fmt: skip
        return head.next

    def _skip_hole(self, ledger: Ledger, head: Head, begin: int) -> Head:
        """What the log's retention took away before it was read is counted, and passed over."""
        if head.next >= begin:
            return head
        missing = begin - head.next
        log.error(
            "partition %d: %d records were deleted from the log before they were read",
            ledger.partition, missing, extra={"action": "hole", "partition": ledger.partition},
        )  # fmt: skip
        hole = replace(empty_block(begin, len(self._form.features)), start=head.next)
        ledger.commit(Commit(head.next, hole, counts={"lost_records": missing}))
        return _reread(ledger)

    def _seat_first(self, ledger: Ledger, head: Head) -> Head:
        if ledger.roster():
            return head
        incumbent, generation = self._incumbent()
        seat = Seat(incumbent, "incumbent", head.next, head.next)
        block = empty_block(head.next, len(self._form.features))
        ledger.commit(Commit(head.next, block, roster=(seat,), generation=generation))
        return _reread(ledger)

    def _load_all(self, ledger: Ledger, head: Head) -> Generator[None, None, tuple[Head, tuple[Seat, ...]]]:
        """Load who runs, and who owes forecasts; a shadow that can't be loaded leaves."""
        roster = ledger.roster()
        answering = {s.version for s in roster if s.role == "incumbent" and (s.leave_offset or head.next) >= head.mark}
        lost = set()
        for number in sorted(spans(roster, head.mark)):
            try:
                yield from self._loaded(number)
            except VersionError as error:
                if number in answering:
                    raise
                why = str(error)
                log.error("partition %d: %s", ledger.partition, why, extra={"action": "diverged"})  # noqa: TRY400
                lost.add(number)
        incumbent = incumbent_of(roster)
        if not lost or incumbent is None:
            return head, roster
        stay = shadows_of(roster) - lost
        left = reseated(roster, offset=head.next, step=0, incumbent=incumbent, shadows=stay, starts={})
        ledger.commit(Commit(head.next, empty_block(head.next, len(self._form.features)), roster=left))
        return _reread(ledger), left

    def _loaded(self, number: int) -> Generator[None, None, Version]:
        while (version := self._versions.ask(number)) is None:
            yield None
        return version

    def _new_chunk_slots(self) -> Generator[None, None, int]:
        """How many slots a chunk of a new ledger has, by the size of what the incumbent carries."""
        incumbent, _ = self._incumbent()
        version = yield from self._loaded(incumbent)
        partition = Partition(self._form)
        partition.seat([Seat(incumbent, "incumbent", 0, 0)], {incumbent: version})
        return chunk_slots(partition)

    def _incumbent(self) -> tuple[int, int]:
        """The version that answers, and the registry's generation."""
        aliases = self._registry.aliases()
        if aliases.incumbent is None:
            raise NotReady(f"model {self._model!r} has no version", "fit one: `killick fit FILE`")
        return aliases.incumbent, aliases.generation

    def _replay(self, holding: Holding, head: Head, recovery: Recovery) -> Iterator[None]:
        waiting = holding.ledger.refusals()
        if waiting:  # before all else: the mark lets refusals go, so it must not pass them
            holding.publish(head.mark, self._nothing(head.mark), waiting)
        partition = holding.partition
        for batch in recovery.run():
            newest = partition.series.last[: len(partition.names)].max(initial=holding.newest_step)
            holding.newest_step = int(newest)  # before what is noted: a chunk that is new must not look old
            for replayed in batch:
                if replayed.mismatch:
                    holding.ledger.check()
                    self._observer.mismatch()
                    log.error(
                        "partition %d: the block before offset %d gave other bits than were committed",
                        holding.number, replayed.block.end, extra={"action": "mismatch"},
                    )  # fmt: skip
                holding.note(replayed.block)
                if replayed.block.end > head.mark:
                    holding.publish(replayed.block.end, replayed.folded)
            yield None
        for number in recovery.late & set(partition.spans):
            holding.plan.joined(number, partition.spans[number].start, head.next, len(partition.names))
        if holding.mark < head.next:
            holding.publish(head.next, self._nothing(head.next))

    def _nothing(self, end: int) -> Folded:
        return Folded(empty_block(end, len(self._form.features)), {}, Counter())

    def _publisher(self, number: int) -> Publisher:
        topics = self._topics
        encoder = Encoder(self._form, self._model, topics.observations, number)
        return Publisher(self._sender, encoder, topics.predictions, topics.dead_letters, topics.observations)


def new_token() -> str:
    """A fence token: random, since a Redis that lost its tail would give a counter's numbers twice."""
    return secrets.token_hex(16)


def _reread(ledger: Ledger) -> Head:
    head = ledger.head()
    if head is None:
        raise LedgerError(f"partition {ledger.partition}: the ledger vanished while it was being opened")
    return head
