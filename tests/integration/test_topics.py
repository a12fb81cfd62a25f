"""What happens to the topic of observations under a killick: made anew, given more partitions, cut at its start."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError

from tests.integration.harness import Message, wait
from tests.integration.oracle import recovered
from tests.integration.streams import HOUR_MS, START_MS, troubled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import NewStack
    from tests.integration.harness import ConsumerProcess, Stack

NOTICED_S = 60.0
ANOTHER = ("deleted and made anew", "truncated or replaced")  # the second where the log is shorter than it was
SETTINGS: dict[str, dict[str, Any]] = {"kafka": {"max_poll_records": 100}, "ledger": {"snapshot_every": 400}}


def made_anew(stack: Stack) -> None:
    """Delete the topic of observations and create it again."""
    topic = stack.settings.kafka.observations
    admin = KafkaAdminClient(bootstrap_servers=stack.servers)

    def created() -> bool:
        with suppress(TopicAlreadyExistsError):  # the broker is not through with deleting it
            admin.create_topics([NewTopic(topic, stack.partitions, 1)])
            return True
        return False

    admin.delete_topics([topic])
    wait(created, NOTICED_S, "the topic to be gone")
    admin.close()


def ends_because_of(process: ConsumerProcess, *words: str) -> None:
    """Wait until the process ends by itself, with exit code 1 and some of these words in its log."""
    assert process.ended(NOTICED_S) == 1
    said = process.log.read_text(errors="replace")
    assert any(word in said for word in words), said


@pytest.mark.parametrize("more", [False, True], ids=["fewer records than before", "more records than before"])
def test_topic_made_anew_under_a_running_consumer_stops_it(new_stack: NewStack, *, more: bool) -> None:
    """Other records under the old name change no memory: the consumer ends and says why; so does the next one."""
    stack = new_stack(SETTINGS, partitions=1)
    stack.register()
    process = stack.consumer()
    stack.send(troubled(1, 20, 40))
    stack.done()
    before = recovered(stack, 0)
    made_anew(stack)
    stack.send(troubled(2, 20, 80 if more else 5))
    ends_because_of(process, *ANOTHER)
    assert recovered(stack, 0) == before
    ends_because_of(stack.consumer(), *ANOTHER)


def test_topic_with_more_partitions_is_refused_at_the_start(new_stack: NewStack) -> None:
    """The keys' partitions have changed: the consumer ends and names the way out, and the ledger is as it was."""
    stack = new_stack(SETTINGS, partitions=1)
    stack.register()
    process = stack.consumer()
    stack.send(troubled(3, 20, 20))
    stack.done()
    assert process.stop() == 0
    before = recovered(stack, 0)
    admin = KafkaAdminClient(bootstrap_servers=stack.servers)
    admin.create_partitions({stack.settings.kafka.observations: NewPartitions(2)})
    admin.close()
    ends_because_of(stack.consumer(), "killick produce")
    assert recovered(stack, 0) == before


def test_records_deleted_under_a_running_consumer_are_counted(new_stack: NewStack) -> None:
    """Retention overtakes a consumer that hangs: when it goes on, the hole is counted and passed over."""
    stack = new_stack({"kafka": {"session_timeout": "30s"}}, partitions=1)
    stack.register()
    process = stack.consumer()
    first = stack.send(wide(0, 50))
    stack.done()
    process.pause()
    sent = first + stack.send(wide(50, 400))
    stack.delete_records(0, sent - 20)
    process.resume()
    stack.done()
    assert process.stop() == 0
    counted = stack.ledger(0).counters()
    assert counted["lost_records"] > 100  # what was on its way to the consumer, it may still have had
    assert counted["lost_records"] + counted["observations"] == sent


def wide(begin: int, end: int) -> Iterator[Message]:
    """Records of one series at these hours, too wide for many of them to be fetched at once."""
    for hour in range(begin, end):
        body = {"time": START_MS + hour * HOUR_MS, "values": {"value": 1.0 + hour % 7}, "note": "-" * 20_000}
        yield Message(b"a", json.dumps(body).encode())
