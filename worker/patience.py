"""Waiting for a service that is away, with one line that says so."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TypeVar

from models.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_S = 1.0
Found = TypeVar("Found")


def patiently(call: Callable[[], Found], patience_s: float) -> Found:
    """What `call` returns, tried again while a service is away.

    Raises:
        ServiceUnreachable: it was away for longer than `patience_s`.
    """
    deadline_s = time.monotonic() + patience_s
    said = False
    while True:
        try:
            return call()
        except ServiceUnreachable as error:
            if time.monotonic() + RETRY_S > deadline_s:
                raise
            if not said:
                sys.stderr.write(f"waiting for up to {patience_s:.0f} s: {error.message}\n")
                said = True
            time.sleep(RETRY_S)
