"""The producer's side of the door to Kafka: forecasts and dead letters are sent until the broker has them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from consumers.kafka import LOOKUP_TIMEOUT_MS, client_options, opened
from models.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Collection

    from consumers.codec import Headers

LINGER_MS = 5
BATCH_BYTES = 262_144
FOREVER_MS = 2**31 - 1  # a forecast that was committed is sent until it arrives; back-pressure bounds how many wait

log = logging.getLogger(__name__)


class Delivery:
    """What became of one send."""

    __slots__ = ("_future",)

    def __init__(self, future: Any) -> None:
        self._future = future

    @property
    def done(self) -> bool:
        """Acknowledged, or failed for good."""
        return bool(self._future.is_done)

    @property
    def error(self) -> Exception | None:
        """Why it failed for good."""
        return self._future.exception if self._future.is_done and self._future.failed() else None

    @property
    def too_big(self) -> bool:
        """Whether the topic refused the record for its size."""
        return isinstance(self.error, kafka_errors.MessageSizeTooLargeError | kafka_errors.RecordListTooLargeError)

    @property
    def bad_time(self) -> bool:
        """Whether the topic refused the record for its timestamp, or for that of another in the same batch."""
        error = self.error
        refused = isinstance(error, kafka_errors.InvalidTimestampError | kafka_errors.InvalidRecordError)
        return refused or type(error) is kafka_errors.KafkaError  # what the client says of the others in the batch


class Sink:
    """A producer, `acks=all`, that keeps sending until the broker has it.

    It is idempotent, but for `letters`: there a record may be refused for its size or its time, and kafka-python's
    idempotent producer sends nothing more after any refusal. These topics have a producer of their own.
    """

    def __init__(self, bootstrap_servers: str, *, letters: Collection[str] = (), **security: str) -> None:
        options = client_options(bootstrap_servers, **security) | {
            "acks": "all",
            "enable_idempotence": True,
            "delivery_timeout_ms": FOREVER_MS,
            "linger_ms": LINGER_MS,
            "batch_size": BATCH_BYTES,
            "max_block_ms": LOOKUP_TIMEOUT_MS,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        self._options = options
        self._letters = frozenset(letters)
        self._producer = opened(KafkaProducer, options)
        self._letters_producer: Any = None  # made when it is needed
        self._failed: Exception | None = None

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
        timestamp_ms: int | None = None,
    ) -> Delivery:
        """Hand one record over; look at what comes back, or at `failed`.

        Raises:
            ServiceUnreachable: nothing is known of the topic yet, and the broker does not answer.
        """
        stamp = timestamp_ms if timestamp_ms is not None and timestamp_ms >= 0 else None
        try:
            producer = self._producer if topic not in self._letters else self._for_letters()
            future = producer.send(topic, value=value, key=key, headers=headers or [], timestamp_ms=stamp)
        except kafka_errors.MessageSizeTooLargeError as error:
            return Delivery(_Failed(error))
        except (kafka_errors.KafkaError, OSError) as error:
            raise ServiceUnreachable(
                f"Kafka took nothing for topic {topic!r} ({type(error).__name__}: {error})",
                "is it running, and is the topic there?",
            ) from error
        future.add_errback(self._note_failure)
        return Delivery(future)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything handed over is acknowledged or failed; False: not in this time."""
        try:
            for producer in self._producers():
                producer.flush(timeout=timeout_s)
        except kafka_errors.KafkaError:
            return False
        return True

    def failed(self) -> Exception | None:
        """The last send that failed for good."""
        return self._failed

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what is waiting, as far as the time goes, and stop."""
        self.flush(timeout_s)
        for producer in self._producers():
            try:
                producer.close(timeout=0)
            except kafka_errors.KafkaError as error:
                log.warning("the producer stopped with records unsent (%s)", error)

    def _producers(self) -> list[Any]:
        return [producer for producer in (self._producer, self._letters_producer) if producer is not None]

    def _for_letters(self) -> Any:
        if self._letters_producer is None:
            own = {"enable_idempotence": False, "max_in_flight_requests_per_connection": 1}
            self._letters_producer = opened(KafkaProducer, self._options | own)
        return self._letters_producer

    def _note_failure(self, error: Exception) -> None:
        self._failed = error


class _Failed:
    is_done = True

    def __init__(self, exception: Exception) -> None:
        self.exception = exception

    def failed(self) -> bool:
        return True
