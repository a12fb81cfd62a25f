"""Who of several consumers holds which partitions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.integration.harness import wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.harness import ConsumerProcess

SETTLED_S = 30.0
STEADY_S = 4.0
POLL_S = 0.1


def share(processes: Sequence[ConsumerProcess], partitions: int) -> None:
    """Wait until the processes hold all partitions between them, each at least one, none twice."""

    def settled() -> bool:
        assert all(process.running for process in processes), "a consumer has ended"
        held = [process.held() for process in processes]
        return all(held) and sum(map(len, held)) == partitions == len(set.union(*held))

    wait(settled, SETTLED_S, lambda: f"shares of {partitions}: {[process.held() for process in processes]}", POLL_S)


def steady(processes: Sequence[ConsumerProcess]) -> None:
    """Wait until nobody's partitions have changed for a while: a join may still be on its way when all are held."""
    since, seen = time.monotonic(), [process.held() for process in processes]

    def unchanged() -> bool:
        nonlocal since, seen
        held = [process.held() for process in processes]
        if held != seen:
            since, seen = time.monotonic(), held
        return time.monotonic() - since >= STEADY_S

    wait(unchanged, SETTLED_S, "steady partitions", POLL_S)


def opened(process: ConsumerProcess) -> list[int]:
    """The partitions that the process has opened so far, one entry for each time."""
    return [line["partition"] for line in process.lines("opened")]
