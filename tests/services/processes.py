"""Looks at processes: what tests need to see that a server is gone."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def alive(pid: int) -> bool:
    """Whether a process of this id runs; one that ended but was not waited for (a zombie) does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pids: Iterable[int], within_s: float = 10.0) -> bool:
    """Whether all these processes end in time."""
    deadline = time.monotonic() + within_s
    waiting = set(pids)
    while waiting and time.monotonic() < deadline:
        waiting = {pid for pid in waiting if alive(pid)}
        time.sleep(0.02)
    return not waiting


def children(pid: int) -> set[int]:
    """The processes that this one started and that run (Linux)."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]) == pid:
                found.add(int(stat.parent.name))
    return {p for p in found if alive(p)}
