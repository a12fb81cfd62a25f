"""Keeps a stream coming while a test does something to those who read it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from tests.integration.beside import beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.integration.harness import Message, Stack

SHARE_S = 0.05


@contextmanager
def feeding(stack: Stack, messages: Iterable[Message], per_second: int) -> Iterator[threading.Event]:
    """Send from a thread as long as the block runs; the event stops it early."""
    enough = threading.Event()
    remaining = iter(messages)

    def work() -> None:
        while not enough.is_set():
            began = time.monotonic()
            share = list(islice(remaining, max(1, int(per_second * SHARE_S))))
            if not share:
                return
            stack.send(share)
            enough.wait(max(0.0, SHARE_S - (time.monotonic() - began)))

    with beside("feeding", work, enough.set):
        yield enough
