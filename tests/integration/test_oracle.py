"""The comparison with an uninterrupted run sees what it is there to see."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from tests.integration.harness import Message
from tests.integration.oracle import check, compare
from tests.integration.streams import troubled

if TYPE_CHECKING:
    from tests.integration.conftest import NewStack
    from tests.integration.harness import Stack


def say_again(stack: Stack, **changed: Any) -> None:
    """Publish the first forecast once more, with these fields."""
    first = stack.predictions()[0]
    value = json.dumps(json.loads(first.value) | changed).encode() if changed else first.value
    stack.send([Message(first.key, value, tuple(first.headers))], stack.settings.kafka.predictions)


def lose(stack: Stack, topic: str) -> None:
    """Let the first record of a topic's first partition go."""
    admin = KafkaAdminClient(bootstrap_servers=stack.servers)
    admin.delete_records({TopicPartition(topic, 0): 1})
    admin.close()


def count(stack: Stack) -> None:
    """Count an observation that there was not."""
    stack.redis.hincrby(f"killick:{{{stack.model}/0}}:counters", "observations", 1)


@pytest.fixture
def stack(new_stack: NewStack) -> Stack:
    """A stream that has come to its end, exactly."""
    stack = new_stack(partitions=1)
    stack.register()
    process = stack.consumer()
    stack.send(troubled(31, 10, 40))
    stack.done()
    assert process.stop() == 0
    check(stack)
    return stack


def test_every_damage_shows(stack: Stack) -> None:
    """Lost forecasts and letters are counted, copies too; other bytes, another version and wrong counts are named."""
    lose(stack, stack.settings.kafka.predictions)
    assert (compare(stack).lost, compare(stack).mismatches) == (1, [])
    lose(stack, stack.settings.kafka.dead_letters)
    assert (compare(stack).lost, compare(stack).mismatches) == (2, [])
    say_again(stack)
    assert (compare(stack).duplicated, compare(stack).mismatches) == (1, [])
    count(stack)
    (first,) = compare(stack).mismatches
    assert "observations: " in first
    say_again(stack, version=2)
    assert "with 2 different values" in compare(stack).mismatches[-1]
    say_again(stack, values=[0.0] * 4)
    assert "with 3 different values" in compare(stack).mismatches[-1]
