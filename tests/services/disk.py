"""A disk that can lose what was not synced, and that can be full: a shim between Redis and its append-only file."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

SOURCE = Path(__file__).with_name("disk.c")
COMPILER_MISSING = "needs a C compiler: install it (apt-get install gcc libc6-dev)"
COMPILE_S = 60.0


def compiler() -> str:
    """The machine's C compiler; empty when it has none."""
    return shutil.which("cc") or shutil.which("gcc") or ""


class Disk:
    """One disk, a context manager; start a server with its `environment` to have the server's log on it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="killick-disk-"))
        self._full = self.directory / "full"
        self._shim = self.directory / "disk.so"
        words = [compiler(), "-O2", "-shared", "-fPIC", "-o", str(self._shim), str(SOURCE)]
        subprocess.run(words, check=True, capture_output=True, timeout=COMPILE_S)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a server whose append-only file lies on this disk."""
        return {**os.environ, "LD_PRELOAD": str(self._shim), "KILLICK_DISK": str(self.directory)}

    def fill(self) -> None:
        """From now on nothing more can be written."""
        self._full.touch()

    def free(self) -> None:
        """There is room again."""
        self._full.unlink(missing_ok=True)

    def synced(self, log: Path) -> int:
        """How much of a file has been synced: what a power cut leaves."""
        lengths = [0]
        notes = self.directory / "synced"
        for line in notes.read_text(encoding="utf-8").splitlines() if notes.exists() else ():
            length, _, path = line.partition(" ")
            if path == str(log):
                lengths.append(int(length))
        return max(lengths)

    def lose_unsynced(self, log: Path, least: int = 0) -> int:
        """Cut a file to what was synced, as a power cut would; the bytes that went. Its server must be dead.

        `least` bytes are left in any case, as if the file had been synced there.
        """
        kept = max(self.synced(log), least)
        lost = log.stat().st_size - kept
        os.truncate(log, kept)
        return lost

    def close(self) -> None:
        """Remove the shim and its notes."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
