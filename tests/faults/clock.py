"""The simulated time: what the consumers' modules see instead of the module `time`."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


ASKING_S = 0.005
SEEING = ("consumers.", "worker.patience", "worker.retrainer", "worker.executors")


class Clock:
    """The part of the module `time` that consumers use; sleeping moves it."""

    now = 0.0

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def time(self) -> float:
        """Seconds."""
        return self.now

    def perf_counter(self) -> float:
        """Seconds; asking takes some."""
        self.now += ASKING_S
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time passes, and what happens in the world meanwhile."""
        self.now += seconds
        self.meanwhile()


CLOCK = Clock()


@contextmanager
def simulated_time() -> Iterator[None]:
    """While this holds, the modules of the middle floor and those that update a model see the simulated time."""
    seen = [m for n, m in sys.modules.items() if n.startswith(SEEING) and vars(m).get("time") is time]
    for module in seen:
        vars(module)["time"] = CLOCK
    try:
        yield
    finally:
        for module in seen:
            vars(module)["time"] = time
