"""Publishing: forecasts and dead letters on their way to Kafka, and the mark that follows them.

What was committed is published in order of offsets. The mark stands before the first block that is not
wholly acknowledged; what lies after it is made again after a crash.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from consumers.codec import Encoder, Headers, dead_letter, digest_record
from consumers.ledger import Refused
from models.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from consumers.stream import Folded

Message = tuple[str, bytes | None, bytes | None, Headers, int | None]  # topic, key, value, headers, timestamp


class Delivery(Protocol):
    """What became of one send (consumers.kafka_sink.Delivery)."""

    @property
    def done(self) -> bool:
        """Acknowledged, or failed for good."""

    @property
    def error(self) -> Exception | None:
        """Why it failed for good."""

    @property
    def too_big(self) -> bool:
        """Whether the topic refused the record for its size."""

    @property
    def bad_time(self) -> bool:
        """Whether the topic refused the record for its timestamp."""


class Sender(Protocol):
    """Where messages go (consumers.kafka_sink.Sink)."""

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int | None
    ) -> Delivery:
        """Hand one record over."""


@dataclass
class Publication:
    """The messages of one block, `end` its end; `deliveries` of those that were handed over."""

    end: int
    messages: list[Message]
    polled_at: float | None  # None: made again by replay
    refused: list[Refused] = field(default_factory=list)  # those of the last messages, one each
    deliveries: list[Delivery] = field(default_factory=list)
    settled: int = 0  # messages that are acknowledged, from the front

    @property
    def outstanding(self) -> int:
        """Messages that are not acknowledged yet."""
        return len(self.messages) - self.settled

    @property
    def forecasts(self) -> int:
        """How many of the messages are forecasts."""
        return len(self.messages) - len(self.refused)


class Publisher:
    """One partition's publications, oldest first."""

    def __init__(self, sender: Sender, encoder: Encoder, predictions: str, dead_letters: str, source: str) -> None:
        self._sender = sender
        self._encoder = encoder
        self._predictions = predictions
        self._dead_letters = dead_letters
        self._source = source
        self._queue: deque[Publication] = deque()

    @property
    def outstanding(self) -> int:
        """Messages of this partition that are not acknowledged yet."""
        return sum(publication.outstanding for publication in self._queue)

    def add(
        self,
        end: int,
        folded: Folded,
        version: int | None,
        names: Sequence[str],
        refused: Iterable[Refused],
        *,
        partition: int,
        polled_at: float | None,
    ) -> None:
        """Queue what a committed block brought: the forecasts of the version that answers, and its refusals."""
        block = folded.block
        refused = list(refused)
        messages: list[Message] = []
        if version is not None and version in folded.forecasts:
            records = self._encoder.encode(version, names, block.slot, block.step, folded.forecasts[version])
            messages = [
                (self._predictions, key, value, self._encoder.headers(offset), None)
                for (key, value), offset in zip(records, block.offset.tolist(), strict=True)
            ]
        for letter in refused:
            key, value, headers = dead_letter(letter, self._source, partition)
            messages.append((self._dead_letters, key, value, headers, letter.record.timestamp_ms))
        self._queue.append(Publication(end, messages, polled_at, refused))

    def send(self) -> None:
        """Hand over what waits.

        Raises:
            ServiceUnreachable: the client takes nothing now; call again.
        """
        for publication in self._queue:
            while len(publication.deliveries) < len(publication.messages):
                message = publication.messages[len(publication.deliveries)]
                publication.deliveries.append(self._sender.send(*message))

    def settle(self, partition: int) -> list[Publication]:
        """Publications that are wholly acknowledged by now, taken off the queue, in order.

        Raises:
            LedgerError: a topic refused a message for good.
        """
        finished = []
        while self._queue and self._settle_one(self._queue[0], partition):
            finished.append(self._queue.popleft())
        return finished

    def _settle_one(self, publication: Publication, partition: int) -> bool:
        while publication.settled < len(publication.messages):
            at = publication.settled
            if at >= len(publication.deliveries) or not publication.deliveries[at].done:
                return False
            delivery = publication.deliveries[at]
            if delivery.error is not None:
                self._repair(publication, at, delivery, partition)
                return False
            publication.settled += 1
        return True

    def _repair(self, publication: Publication, at: int, delivery: Delivery, partition: int) -> None:
        """Send a dead letter once more in a form that its topic may take; anything else is a stop.

        What is too big goes as its digest; a time that is further ahead than the topic allows goes into a header.
        """
        topic, key, value, headers, timestamp_ms = publication.messages[at]
        which = at - publication.forecasts
        if delivery.too_big and which >= 0 and not publication.refused[which].record.is_digest:
            letter = publication.refused[which]
            letter = Refused(letter.refusal, digest_record(letter.record))
            publication.refused[which] = letter
            key, value, headers = dead_letter(letter, self._source, partition)
        elif delivery.bad_time and which >= 0 and timestamp_ms is not None:
            headers = [*headers, ("killick-timestamp", str(timestamp_ms).encode())]
            timestamp_ms = None
        else:
            raise LedgerError(
                f"topic {topic!r} refused a record for good ({delivery.error})",
                "see the topic's settings and ACLs",
            ) from delivery.error
        publication.messages[at] = (topic, key, value, headers, timestamp_ms)
        publication.deliveries[at] = self._sender.send(*publication.messages[at])
