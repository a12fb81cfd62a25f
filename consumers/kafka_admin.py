"""The administrator's side of the door to Kafka: topics are looked up and created, logs and groups looked at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import NewTopic, OffsetSpec

from consumers.kafka import calling, client_options, opened
from models.errors import KillickError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COORDINATOR_TRIES = 5
COORDINATOR_PAUSE_S = 0.3


class Admin:
    """Looks topics up and creates them."""

    def __init__(self, bootstrap_servers: str, **security: str) -> None:
        options = client_options(bootstrap_servers, **security)
        self._admin = opened(KafkaAdminClient, options)

    def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has; None: it is not there."""
        found = self._describe(topic)
        return len(found["partitions"]) if found else None

    def topic_id(self, topic: str) -> str | None:
        """The topic's id, which changes when it is deleted and made anew; None: not there, or none is given."""
        found = self._describe(topic)
        identity = str(found.get("topic_id") or "") if found else ""
        return identity if identity.strip("0-") else None

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> bool:
        """Create a topic with the broker's own replication factor; False: it is there already."""
        topic = NewTopic(name, num_partitions=partitions, replication_factor=-1, topic_configs=dict(config or {}))
        try:
            calling(lambda: self._admin.create_topics([topic]))
        except KillickError as error:
            if isinstance(error.__cause__, kafka_errors.TopicAlreadyExistsError):
                return False
            raise
        return True

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete topics; one that is not there is no error."""
        try:
            calling(lambda: self._admin.delete_topics(list(names)))
        except KillickError as error:
            if not isinstance(error.__cause__, kafka_errors.UnknownTopicOrPartitionError):
                raise

    def log_ends(self, topic: str, partitions: int, timeout_s: float) -> dict[int, int]:
        """The offset after the last record of each partition; those that the topic does not have are left out."""
        wanted = {TopicPartition(topic, number): OffsetSpec.LATEST for number in range(partitions)}
        found = calling(lambda: self._admin.list_partition_offsets(wanted, timeout_ms=int(timeout_s * 1000)))
        return {tp.partition: int(at.offset) for tp, at in found.items()}

    def members(self, group: str) -> int:
        """How many consumers the group has at present.

        Raises:
            ServiceUnreachable: Kafka did not answer, or does not know yet who coordinates the group.
        """
        for _ in range(COORDINATOR_TRIES):
            try:
                found = calling(lambda: self._admin.describe_groups([group]))
                return len(found.get(group, {}).get("members", ()))
            except ServiceUnreachable as error:  # a broker that never had a group takes a moment to get ready for one
                if not isinstance(error.__cause__, kafka_errors.CoordinatorNotAvailableError):
                    raise
                failure = error
            time.sleep(COORDINATOR_PAUSE_S)
        raise failure

    def close(self) -> None:
        """Let the connection go."""
        self._admin.close()

    def _describe(self, topic: str) -> Mapping[str, Any] | None:
        found: Sequence[Mapping[str, Any]] = calling(lambda: self._admin.describe_topics([topic]))
        for entry in found:
            if entry.get("name", entry.get("topic")) == topic and not entry.get("error_code"):
                return entry
        return None
