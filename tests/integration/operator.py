"""An operator who promotes and rolls back while things break, and asks again until there is an answer."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from models.errors import ServiceUnreachable
from models.registry import Registry
from models.server import connect
from tests.integration.beside import beside

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from models.registry import Aliases
    from tests.integration.harness import Stack

AGAIN_S = 0.1
ANSWERED_S = 60.0
LATEST_S = 1.5  # between two commands
ROLLED_BACK = 0.7  # of the promotions


class Operator:
    """Gives commands, each at a moment by chance; `told` is what the last one was answered."""

    def __init__(self, stack: Stack, rng: random.Random) -> None:
        self._client = connect(stack.settings.redis.url, timeout_s=1.0)
        self._registry = Registry(self._client, stack.model)
        self._rng = rng
        self.told: Aliases | None = None
        self.commands = 0

    def work(self) -> None:
        """A promotion, and mostly a rollback after it."""
        for give in (self._promote, self._roll_back)[: 1 + (self._rng.random() < ROLLED_BACK)]:
            time.sleep(self._rng.uniform(0, LATEST_S))
            self._until_answered(give)
            self.commands += 1

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()

    def _until_answered(self, give: Callable[[Aliases], Aliases]) -> None:
        """Give a command again while nobody answers, unless it turns out that it was done."""
        deadline = time.monotonic() + ANSWERED_S
        given: int | None = None  # in whose place
        while time.monotonic() < deadline:
            try:
                found = self._registry.aliases()
                done = given is not None and found.incumbent != given
                given = found.incumbent
                self.told = found if done else give(found)
            except ServiceUnreachable:
                time.sleep(AGAIN_S)
            else:
                return
        raise AssertionError(f"nobody answered a command for {ANSWERED_S:g} s")

    def _promote(self, found: Aliases) -> Aliases:
        assert found.incumbent is not None
        return self._registry.promote(
            self._other(found), expected=found.incumbent, actor="test", reason="it is time", now_ms=_now_ms()
        )

    def _roll_back(self, found: Aliases) -> Aliases:
        assert found.incumbent is not None
        to = None if found.previous is not None else self._other(found)
        return self._registry.rollback(
            to, expected=found.incumbent, actor="test", reason="it was not", now_ms=_now_ms()
        )

    def _other(self, found: Aliases) -> int:
        """A version that may answer, and does not."""
        barred = {found.incumbent, *self._registry.statuses()}
        return self._rng.choice([info.version for info in self._registry.versions() if info.version not in barred])


@contextmanager
def commanding(stack: Stack, rng: random.Random) -> Iterator[Operator]:
    """An operator who is at work while the block runs; it ends when all commands are answered."""
    operator = Operator(stack, rng)
    try:
        with beside("operator", operator.work):
            yield operator
    finally:
        operator.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
