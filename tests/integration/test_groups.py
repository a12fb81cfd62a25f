"""Consumers that come, go and hang: the others take over, and the outcome stays exact."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from consumers.ledger import Ledger
from tests.integration.feeding import feeding
from tests.integration.harness import wait
from tests.integration.oracle import check
from tests.integration.shares import SETTLED_S, opened, share, steady
from tests.integration.streams import troubled

if TYPE_CHECKING:
    from tests.integration.conftest import NewStack

SETTINGS: dict[str, dict[str, Any]] = {
    "kafka": {"max_poll_records": 100, "session_timeout": "2s"},
    "ledger": {"snapshot_every": 1000},
}
PARTITIONS = 3


def test_consumers_come_and_go_under_load(new_stack: NewStack) -> None:
    """From one consumer to three and back, one leaving in order and one killed: exact, and who stays is left alone."""
    stack = new_stack(SETTINGS, partitions=PARTITIONS)
    stack.register()
    with feeding(stack, troubled(11, 60, 2_000), 1_500):
        first = stack.consumer()
        share([first], PARTITIONS)
        second, third = stack.consumer(), stack.consumer()
        share([first, second, third], PARTITIONS)
        (kept,) = first.held()
        assert opened(first).count(kept) == 1  # cooperative: what stays is never interrupted
        before = stack.progress()
        stack.reach(before + 500)
        assert second.stop() == 0
        third.kill()
        share([first], PARTITIONS)
        assert opened(first).count(kept) == 1
    stack.done()
    assert first.stop() == 0
    check(stack)


def test_static_member_that_restarts_keeps_its_partitions(new_stack: NewStack) -> None:
    """A consumer with an instance of its own comes back within its session to the same partitions."""
    stack = new_stack({**SETTINGS, "kafka": {**SETTINGS["kafka"], "session_timeout": "30s"}}, partitions=PARTITIONS)
    stack.register()
    with feeding(stack, troubled(12, 60, 2_000), 1_000):
        first = stack.consumer(KILLICK_KAFKA__INSTANCE="first")
        second = stack.consumer(KILLICK_KAFKA__INSTANCE="second")
        share([first, second], PARTITIONS)
        steady([first, second])
        mine, theirs = first.held(), opened(second)
        assert first.stop() == 0
        again = stack.consumer(KILLICK_KAFKA__INSTANCE="first")
        share([again, second], PARTITIONS)
        assert again.held() == mine
        again.kill()
        began = time.monotonic()
        again = stack.consumer(KILLICK_KAFKA__INSTANCE="first")
        share([again, second], PARTITIONS)
        assert again.held() == mine
        assert time.monotonic() - began < 15  # it did not wait for the session to run out
        assert opened(second) == theirs
    stack.done()
    assert again.stop() == second.stop() == 0
    check(stack)


def test_zombie_does_no_harm(new_stack: NewStack) -> None:
    """A consumer that hangs beyond its session is replaced; when it wakes it writes nothing, and joins anew."""
    stack = new_stack(SETTINGS, partitions=2)
    stack.register()
    with feeding(stack, troubled(13, 60, 2_000), 1_500):
        zombie = stack.consumer()
        share([zombie], 2)
        stack.reach(1000)
        zombie.pause()
        heir = stack.consumer()
        share([heir], 2)
        stack.reach(stack.progress() + 300)
        zombie.resume()
        share([heir, zombie], 2)
        stack.reach(stack.progress() + 300)
    stack.done()
    assert zombie.stop() == heir.stop() == 0
    check(stack)


def test_partition_that_a_stranger_took_is_taken_again(new_stack: NewStack) -> None:
    """A zombie takes a ledger with its last breath: the consumer stops writing, says so, and then goes on."""
    stack = new_stack(SETTINGS, partitions=1)
    stack.register()
    process = stack.consumer()
    process.ready()
    with feeding(stack, troubled(9, 20, 200), 1_000):
        stack.reach(500)
        head = stack.heads()[0]
        assert head is not None
        zombie = Ledger(stack.redis, stack.model, 0, "zombie")
        zombie.take(start=0, form=head.form, topic_id=head.topic_id, partitions=1, chunk_slots=head.chunk_slots)
        wait(lambda: "[0]" in process.waiting_for(), SETTLED_S, "/readyz to say so")
        assert getattr(zombie.head(), "token", "") == zombie.token
        process.ready()
    stack.done()
    assert process.stop() == 0
    check(stack)
