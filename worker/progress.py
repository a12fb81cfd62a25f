"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_EVERY_S = 5.0


class Report(Protocol):
    """Takes how much is done, and a word on it."""

    def __call__(self, done: int, note: str = "") -> None:
        """`done` of the total; `note` stands behind the numbers."""


@contextmanager
def progress(label: str, total: int, stream: TextIO) -> Iterator[Report]:
    """What to call with the count that is done; `total` things make the whole."""
    if stream.isatty():
        with _bar(label, total, stream) as report:
            yield report
    else:
        yield _Lines(label, total, stream)


@contextmanager
def _bar(label: str, total: int, stream: TextIO) -> Iterator[Report]:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only needed on a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(file=stream)) as bar:
        task = bar.add_task(label, total=total, note="")

        def report(done: int, note: str = "") -> None:
            bar.update(task, completed=done, note=note)

        yield report


class _Lines:
    """One line every few seconds, and whenever there is something new to say."""

    def __init__(self, label: str, total: int, stream: TextIO) -> None:
        self._label = label
        self._total = total
        self._stream = stream
        self._last_s = time.monotonic()
        self._note = ""

    def __call__(self, done: int, note: str = "") -> None:
        """Prints a line if it is time for one, or `note` is a new one."""
        now_s = time.monotonic()
        if now_s - self._last_s < LINE_EVERY_S and note in ("", self._note):
            return
        self._last_s, self._note = now_s, note
        behind = f", {note}" if note else ""
        print(f"{self._label}: {done:,} of {self._total:,}{behind}", file=self._stream, flush=True)
