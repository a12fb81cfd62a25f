"""Runs a process's service until a signal asks it to stop."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from types import FrameType


class Service(Protocol):
    """What a process does, in the thread that calls `run`."""

    def run(self) -> None:
        """Work until asked to stop."""

    def stop(self) -> None:
        """Ask `run` to finish; from any thread, or a signal."""


def run_until_told(service: Service) -> None:
    """Run the service until SIGTERM or SIGINT."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    service.run()
