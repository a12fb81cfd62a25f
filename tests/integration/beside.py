"""Work that goes on in a thread while a test does something else."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def beside(name: str, work: Callable[[], object], stop: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Do `work` while the block runs, then tell it to `stop` and await its end; what it raised is raised here."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised again by the test's thread
            failures.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()
    if failures:
        raise failures[0]
