"""`killick promote` and `rollback` on a running consumer: the commands wait, the stream does not stop."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.integration.feeding import feeding
from tests.integration.harness import wait
from tests.integration.streams import troubled

if TYPE_CHECKING:
    from tests.integration.conftest import NewStack
    from tests.integration.harness import Stack

FOLLOWED_S = 30.0


def answering(stack: Stack) -> list[int]:
    """Who answers in each partition, as `killick status` says."""
    body: dict[str, Any] = json.loads(stack.output("status", "--json"))
    return [partition["incumbent"] for partition in body["partitions"]]


def versions_published(stack: Stack) -> list[list[int]]:
    """The versions whose forecasts each partition's records got, in order and each once in a row."""
    found: dict[int, list[tuple[int, int]]] = {}
    for record in stack.predictions():
        headers = dict(record.headers)
        place = int(headers["source-partition"])
        found.setdefault(place, []).append((int(headers["source-offset"]), json.loads(record.value)["version"]))
    runs = []
    for place in sorted(found):
        run: list[int] = []
        for _, version in sorted(set(found[place])):
            if not run or run[-1] != version:
                run.append(version)
        runs.append(run)
    return runs


def test_commands_wait_until_every_partition_has_changed_over(new_stack: NewStack) -> None:
    """Exit code 0 means that all follow: forecasts are version 1's, then 2's, then 1's again, and none is missing."""
    stack = new_stack(partitions=3)
    for seed in (1, 2):
        stack.register(seed=seed)
    process = stack.consumer()
    process.ready()
    with feeding(stack, troubled(5, 30, 1_500), 1_000):
        stack.reach(1_000)
        done = stack.run("promote", "2", "--reason", "better", "--actor", "ann")
        assert done.returncode == 0, done
        assert done.stdout.decode().splitlines()[-1] == "3 of 3 partitions follow"
        assert answering(stack) == [2, 2, 2]
        stack.reach(stack.progress() + 500)
        done = stack.run("rollback", "--reason", "worse", "--actor", "bob")
        assert done.returncode == 0, done
        assert answering(stack) == [1, 1, 1]
        stack.reach(stack.progress() + 500)
    stack.done()
    assert process.stop() == 0
    assert versions_published(stack) == [[1, 2, 1]] * 3
    entries = [json.loads(line) for line in stack.output("audit", "--json").splitlines()][-2:]
    assert [(entry["event"], entry["actor"], entry["before"], entry["after"]) for entry in entries] == [
        ("promote", "ann", 1, 2),
        ("rollback", "bob", 2, 1),
    ]


def test_a_version_that_can_not_be_loaded_leaves_the_former_one_answering(new_stack: NewStack) -> None:
    """Weights that changed in the store are loaded nowhere; command and status say why, and a rollback mends it."""
    stack = new_stack(partitions=2)
    stack.register(seed=1)
    process = stack.consumer()
    process.ready()
    with feeding(stack, troubled(6, 20, 400), 1_000):
        stack.reach(300)
        stack.register(seed=2)
        stack.redis.hset(f"killick:{{{stack.model}}}:weights", "2", b"other bytes")
        done = stack.run("promote", "2", "--reason", "better")
        said = done.stdout.decode()
        assert done.returncode == 1, done
        assert "0 of 2 partitions follow" in said
        assert len(re.findall(r"partition [01] diverged: the weights of version 2 have SHA-256", said)) == 2
        assert answering(stack) == [1, 1]
        assert "diverged: version 2 (the weights of version 2 have SHA-256" in stack.output("status")
        assert stack.run("rollback", "--reason", "it can't be loaded").returncode == 0
        wait(lambda: "diverged" not in stack.output("status"), FOLLOWED_S, "the partitions to run again")
    stack.done()
    assert process.stop() == 0
    assert versions_published(stack) == [[1], [1]]
