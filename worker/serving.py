"""Runs a process's service until a signal asks it to stop."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import logging
    import threading
    from types import FrameType

    from models.errors import ServiceUnreachable

LONGEST_WAIT_S = 5.0


class Service(Protocol):
    """What a process does, in the thread that calls `run`."""

    def run(self) -> None:
        """Work until asked to stop."""

    def stop(self) -> None:
        """Ask `run` to finish; from any thread, or a signal."""


class Away:
    """Waits for a service that does not answer: longer each time, and said once."""

    def __init__(self, stopping: threading.Event, log: logging.Logger, first_s: float) -> None:
        self._stopping = stopping
        self._log = log
        self._first_s = self._wait_s = first_s
        self.trouble = "starting"  # what is waited for, in words; "" for nothing

    def tell(self, error: ServiceUnreachable) -> None:
        """Say what is waited for, where that is something else than before."""
        if self.trouble != str(error):
            self._log.warning("waiting: %s", error, extra={"action": "waiting"})
        self.trouble = str(error)

    def wait(self) -> None:
        """Wait, unless asked to stop."""
        self._stopping.wait(self._wait_s)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def over(self) -> None:
        """It answers."""
        self.trouble, self._wait_s = "", self._first_s


def run_until_told(service: Service) -> None:
    """Run the service until SIGTERM or SIGINT."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    service.run()
