"""The door to Kafka: a source of records; its siblings hold the sink and the administrator. The client is kafka-python.

Rebalance callbacks run on the client's I/O loop, so they only note what happened; the polling thread acts on it.
A partition that was just assigned stays paused until `Source.start` seeks it to the ledger's offset.
"""

from __future__ import annotations

import gc
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.net.compat import KafkaNetClient
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint
from kafka.structs import OffsetAndMetadata

from models.errors import ConfigError, LedgerError, NotReady, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from consumers.codec import Record

REQUEST_TIMEOUT_MS = 10_000
BOOTSTRAP_TIMEOUT_MS = 10_000
LOOKUP_TIMEOUT_MS = 3_000
CHECK_TIMEOUT_MS = 1_000
RECONNECT_MS = 1_000
CLIENT = "killick"

log = logging.getLogger(__name__)
T = TypeVar("T")


def client_options(
    bootstrap_servers: str,
    *,
    security_protocol: str = "PLAINTEXT",
    sasl_mechanism: str = "",
    username: str = "",
    password: str = "",
    ca_file: str = "",
) -> dict[str, Any]:
    """What every client of Kafka is given: where the brokers are, how to be let in, how long to wait."""
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in bootstrap_servers.split(",")],
        "security_protocol": security_protocol,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "client_id": CLIENT,
        "reconnect_backoff_max_ms": RECONNECT_MS,
    }
    if sasl_mechanism:
        options |= {
            "sasl_mechanism": sasl_mechanism,
            "sasl_plain_username": username,
            "sasl_plain_password": password,
        }
    if ca_file:
        options["ssl_cafile"] = ca_file
    return options


def calling(work: Callable[[], T]) -> T:
    """What `work` returns.

    Raises:
        ServiceUnreachable: Kafka did not answer.
        ConfigError: it refused the user, or its client the settings.
    """
    try:
        return work()
    except (kafka_errors.SaslAuthenticationFailedError, kafka_errors.AuthorizationError) as error:
        raise ConfigError(f"Kafka refused this user ({error})", "see kafka.username and the broker's ACLs") from error
    except (kafka_errors.KafkaConfigurationError, AssertionError, ValueError) as error:
        raise ConfigError(f"Kafka's client refused the settings ({error})", "see [kafka] in the settings") from error
    except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
        raise ServiceUnreachable(
            f"Kafka did not answer ({type(error).__name__}: {error})",
            "is it running? see kafka.bootstrap_servers and kafka.security_protocol in the settings",
        ) from error


def opened(kind: Callable[..., T], options: Mapping[str, Any]) -> T:
    """A client of Kafka, `kind(**options)`. One that can't be made leaves nothing behind.

    kafka-python's own constructors leave their I/O thread and its sockets when no broker answers: a service that
    waits for its broker would gather them until it has no files left.

    Raises:
        ServiceUnreachable: Kafka did not answer.
        ConfigError: it refused the user, or its client the settings.
    """
    begun: list[KafkaNetClient] = []

    def connections(**configs: Any) -> KafkaNetClient:
        begun.append(KafkaNetClient(**configs))
        return begun[-1]

    try:
        return calling(lambda: kind(**options, kafka_client=connections))
    except BaseException:
        for client in begun:
            client.close()
        gc.collect()  # the sockets of those before it: they hang in circles, and who waits makes little other garbage
        raise


@dataclass(frozen=True)
class Change:
    """Partitions came to this consumer, are given up, or were already lost to another."""

    kind: Literal["assigned", "revoked", "lost"]
    partitions: tuple[int, ...]


class OffsetOutOfLog(LedgerError):
    """A partition's log no longer holds the offset that was asked of it."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.partitions = tuple(sorted(partitions))
        super().__init__(f"the log no longer holds the next offset of partitions {list(self.partitions)}")


class Source:
    """Records of one topic, by consumer group or, in `manual`, of named partitions."""

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        group: str,
        *,
        instance: str = "",
        session_timeout_ms: int = 45_000,
        max_poll_records: int = 4096,
        manual: bool = False,
        **security: str,
    ) -> None:
        self.topic = topic
        self._changes: deque[Change] = deque()
        options = client_options(bootstrap_servers, **security) | {
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "max_poll_records": max_poll_records,
            "fetch_max_wait_ms": 50,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        if not manual:
            options |= {
                "group_id": group,
                "session_timeout_ms": session_timeout_ms,
                "heartbeat_interval_ms": min(3_000, session_timeout_ms // 3),
                "partition_assignment_strategy": [CooperativeStickyAssignor],
            }
            if instance:
                options["group_instance_id"] = instance
        self._manual = manual
        self._consumer = opened(KafkaConsumer, options)
        if manual:
            try:
                found = tuple(range(self.partition_count()))
            except BaseException:  # a client that nobody has leaves its thread, too
                self.close()
                raise
            self._consumer.assign([self._tp(p) for p in found])
            self._hold(self._tp(p) for p in found)
            self._changes.append(Change("assigned", found))
        else:
            self._consumer.subscribe([topic], listener=_Listener(self._hold, self._changes))

    def partition_count(self) -> int:
        """How many partitions the topic has.

        Raises:
            ServiceUnreachable: the topic is not there, or the broker does not answer.
        """
        found = calling(lambda: self._consumer.partitions_for_topic(self.topic))
        if not found:
            raise NotReady(
                f"topic {self.topic!r} is not there", "create it: `killick doctor --create-topics` shows how"
            )
        return len(found)

    def poll(self, timeout_s: float) -> dict[int, list[Record]]:
        """Records by partition, in the order of their offsets; what has happened to the group is in `changes`.

        Raises:
            OffsetOutOfLog: retention overtook a partition, or its topic was replaced.
        """
        self._unblock()
        try:
            found = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        except kafka_errors.OffsetOutOfRangeError as error:
            raise OffsetOutOfLog(tp.partition for tp in (error.args[0] if error.args else ())) from error
        except (kafka_errors.NoOffsetForPartitionError, kafka_errors.RetriableError):
            return {}  # between assignment and `start`; or the client goes on by itself
        except kafka_errors.AuthorizationError as error:
            raise ConfigError(
                f"Kafka refused this user ({error})", "see kafka.username and the broker's ACLs"
            ) from error
        except kafka_errors.CorruptRecordError as error:
            raise LedgerError(
                f"topic {self.topic!r} holds a damaged batch ({error})",
                "repair it, or let go of it by deleting its records up to there",
            ) from error
        except kafka_errors.FencedInstanceIdError as error:
            raise LedgerError(
                "another consumer runs with the same kafka.instance",
                "give every consumer an instance of its own",
            ) from error
        except kafka_errors.KafkaError as error:
            raise ServiceUnreachable(f"Kafka stopped this consumer ({type(error).__name__}: {error})") from error
        return {tp.partition: records for tp, records in found.items()}

    def changes(self) -> list[Change]:
        """What happened to the assignment since the last call, in order."""
        happened = []
        while self._changes:
            happened.append(self._changes.popleft())
        return happened

    def start(self, partition: int, offset: int) -> None:
        """Read a partition from `offset` on."""
        if self._tp(partition) in self._consumer.assignment():
            self._consumer.seek(self._tp(partition), offset)
            self._consumer.resume(self._tp(partition))

    def assigned(self, partition: int) -> bool:
        """Whether the group, or the manual assignment, says that a partition is this consumer's."""
        return self._tp(partition) in self._consumer.assignment()

    def pause(self, partitions: Iterable[int]) -> None:
        """Fetch nothing of these for now; membership of the group goes on as long as `poll` is called."""
        self._consumer.pause(*self._assigned(partitions))

    def resume(self, partitions: Iterable[int]) -> None:
        """Fetch these again."""
        self._consumer.resume(*self._assigned(partitions))

    def log_span(self, partition: int) -> tuple[int, int]:
        """The first offset that the log still holds, and the one after its last."""
        tp = self._tp(partition)
        begin = calling(lambda: self._consumer.beginning_offsets([tp], timeout_ms=LOOKUP_TIMEOUT_MS))
        end = calling(lambda: self._consumer.end_offsets([tp], timeout_ms=LOOKUP_TIMEOUT_MS))
        return int(begin[tp]), int(end[tp])

    def committed(self, partition: int) -> int | None:
        """The group's offset in Kafka; None: never committed."""
        if self._manual:
            return None
        found = calling(lambda: self._consumer.committed(self._tp(partition), timeout_ms=LOOKUP_TIMEOUT_MS))
        return None if found is None else int(found)

    def check(self, partition: int) -> None:
        """Ask the broker something small: the client itself goes on in silence when nobody answers.

        Raises:
            ServiceUnreachable: nobody answered.
        """
        calling(lambda: self._consumer.end_offsets([self._tp(partition)], timeout_ms=CHECK_TIMEOUT_MS))

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell Kafka how far the group is, without waiting: for lag tools, and as a tripwire."""
        if self._manual or not offsets:
            return
        wanted = {self._tp(p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
        self._consumer.commit_async(wanted)

    def lag(self, partition: int) -> int | None:
        """Records that are in the log and were not yet polled, as of the last fetch."""
        tp = self._tp(partition)
        if tp not in self._consumer.assignment():
            return None
        high = self._consumer.highwater(tp)
        position = self._consumer._subscription.assignment[tp].position  # noqa: SLF001 - position() may block
        return None if high is None or position is None else max(0, high - position.offset)

    def close(self, offsets: Mapping[int, int] | None = None) -> None:
        """Leave the group; a static member keeps its partitions until its session runs out."""
        if offsets and not self._manual:
            wanted = {self._tp(p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
            try:
                self._consumer.commit(wanted, timeout_ms=LOOKUP_TIMEOUT_MS)
            except kafka_errors.KafkaError as error:
                log.warning("the group's offset could not be committed (%s); the ledger has it", error)
        self._consumer.close(autocommit=False, timeout_ms=LOOKUP_TIMEOUT_MS)

    def _unblock(self) -> None:
        """Help the client over two places where kafka-python 3.0.12 would stand still for good.

        1. Records of a paused partition are put aside, and looked at again only while the slot for the records in
           line is None; but a drained object is left there, and a partition with records put aside is not fetched
           (kafka/consumer/fetcher.py, `fetched_records`).
        2. A join that was begun because the topic's metadata came late is forgotten when a poll returns before it
           is through: the need for it has gone by then, and heartbeats stay off (kafka/coordinator/base.py,
           `join_group_async`). Asking again makes the next poll await the same join.

        Both are touched by the thread that polls, and by no other.
        """
        fetcher = self._consumer._fetcher  # noqa: SLF001
        if not fetcher._next_partition_records:  # noqa: SLF001
            fetcher._next_partition_records = None  # noqa: SLF001
        if self._consumer._coordinator.rejoining:  # noqa: SLF001
            self._consumer._coordinator.request_rejoin()  # noqa: SLF001

    def _hold(self, partitions: Iterable[TopicPartition]) -> None:
        """Keep partitions from being fetched before `start`: any position will do, as they are paused."""
        for tp in partitions:
            self._consumer.seek(tp, 0)
            self._consumer.pause(tp)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self.topic, partition)

    def _assigned(self, partitions: Iterable[int]) -> list[TopicPartition]:
        assigned = self._consumer.assignment()
        return [tp for tp in map(self._tp, partitions) if tp in assigned]


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, hold: Callable[[Iterable[TopicPartition]], None], changes: deque[Change]) -> None:
        self._hold = hold
        self._changes = changes

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        assigned = list(assigned)
        self._hold(assigned)
        self._note("assigned", assigned)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._note("revoked", revoked)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self._note("lost", lost)

    def _note(self, kind: Literal["assigned", "revoked", "lost"], partitions: Iterable[TopicPartition]) -> None:
        found = tuple(sorted(tp.partition for tp in partitions))
        if found:
            self._changes.append(Change(kind, found))


def _read_any_header(batch: Any, read: Callable[..., Any] = DefaultRecordBatch._read_msg) -> Any:  # noqa: SLF001
    """The next record of a batch; bytes of a header's name that are no UTF-8 text become question marks.

    kafka-python 3.0.12 gives up the whole batch for one such name, at every attempt: the consumer would stand still
    for good. Producers on librdkafka may send any bytes there.
    """
    name_at = 0

    def noting(buffer: bytearray, pos: int) -> tuple[int, int]:
        nonlocal name_at
        length, name_at = decode_varint(buffer, pos)
        return length, name_at

    while True:
        try:
            return read(batch, noting)
        except UnicodeDecodeError as error:  # the last length that was read was that of this name
            shown = bytes(byte if byte < 128 else ord("?") for byte in error.object)
            batch._buffer[name_at : name_at + len(shown)] = shown  # noqa: SLF001


def _read_quickly(batch: Any, read: Callable[..., Any] = DefaultRecordBatch._read_msg) -> Any:  # noqa: SLF001
    try:
        return read(batch)
    except UnicodeDecodeError:
        return _read_any_header(batch)


DefaultRecordBatch._read_msg = _read_quickly  # noqa: SLF001
