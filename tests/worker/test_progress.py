"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from worker import progress as module
from worker.progress import progress

if TYPE_CHECKING:
    import pytest


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_a_terminal_gets_a_bar() -> None:
    """On a terminal there is a bar with label, count and note."""
    stream = Terminal()
    with progress("sending", 4, stream) as report:
        report(3, "waiting")
    assert "sending" in stream.getvalue()
    assert "3/4" in stream.getvalue()
    assert "waiting" in stream.getvalue()


def test_elsewhere_there_are_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal a line comes for each new note, and otherwise only after a while."""
    stream = io.StringIO()
    with progress("sending", 4_000, stream) as report:
        report(1)
        report(2, "waiting")
        report(3, "waiting")
        report(4)
        monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
        report(3_000)
    assert stream.getvalue() == "sending: 2 of 4,000, waiting\nsending: 3,000 of 4,000\n"
