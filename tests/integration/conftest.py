"""The fixture that gives a test a whole killick on the shared Kafka and Redis."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.integration.harness import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.services.kafka import KafkaBroker


class NewStack(Protocol):
    """Makes a stack: topics, settings, no version and no process yet."""

    def __call__(self, settings: Mapping[str, Mapping[str, Any]] | None = None, *, partitions: int = 2) -> Stack:
        """Settings by section and name, beside those of the harness."""


@pytest.fixture
def new_stack(kafka: KafkaBroker, redis_url: str, tmp_path: Path) -> Iterator[NewStack]:
    """A function that makes stacks; their processes are gone at the end of the test."""
    made: list[Stack] = []
    with ExitStack() as stacks:

        def make(settings: Mapping[str, Mapping[str, Any]] | None = None, *, partitions: int = 2) -> Stack:
            stack = Stack(kafka.bootstrap_servers, redis_url, tmp_path, partitions=partitions, settings=settings)
            made.append(stack)
            return stacks.enter_context(stack)

        yield make
        sys.stdout.write("".join(stack.logs() for stack in made))  # pytest shows it where the test fails
