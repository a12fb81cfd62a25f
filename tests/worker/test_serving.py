"""Waiting for a service that is away: longer each time, and said once."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from models.errors import ServiceUnreachable
from worker.serving import Away

if TYPE_CHECKING:
    import pytest


class Counting(threading.Event):
    """Notes how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        """At once."""
        self.waits.append(timeout)
        return False


def test_it_waits_longer_each_time_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """Up to five seconds; another reason is told, too; after an answer it begins anew."""
    stopping = Counting()
    away = Away(stopping, logging.getLogger("worker.some"), 1.0)
    assert away.trouble == "starting"
    redis, kafka = ServiceUnreachable("Redis is away", "wait"), ServiceUnreachable("Kafka is away", "wait")
    for error in (redis, redis, kafka, kafka):
        away.tell(error)
        away.wait()
    assert stopping.waits == [1.0, 2.0, 4.0, 5.0]
    assert [record.getMessage() for record in caplog.records] == [f"waiting: {redis}", f"waiting: {kafka}"]
    assert away.trouble == str(kafka)
    away.over()
    away.wait()
    assert (away.trouble, stopping.waits[-1]) == ("", 1.0)
