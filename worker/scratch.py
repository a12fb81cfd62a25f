"""Folders for what a command needs on its way, which do not pile up when commands are killed.

Each is locked as long as its process lives, and the kernel lets go of a lock however a process ends. Who makes a folder
removes first those that nobody holds any more. A lock is seen where a process id is not, in containers that share
a folder, and is never another's later on; systemd-tmpfiles leaves alone what is locked so, however old it is
(https://systemd.io/TEMPORARY_DIRECTORIES/). Where the file system has no locks, nothing is removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "killick-scratch-"


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A new folder, which goes with the context; those of processes that were killed go before.

    Raises:
        ConfigError: there is no place for it.
    """
    try:
        _sweep()
        path, lock = _made(name)
    except OSError as error:
        raise ConfigError(
            f"no folder can be made for what is needed on the way ({error.strerror})",
            "set TMPDIR to a folder that takes files",
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)  # what a process writes meanwhile goes with the next sweep
        os.close(lock)


def _made(name: str) -> tuple[Path, int]:
    """A new folder that we hold, and the descriptor of its lock, which no child process inherits."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}-"))
        with suppress(FileNotFoundError):  # another one's sweep was faster than our lock
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # it is being swept
                os.close(lock)
                continue
            except OSError:  # no locks here: nobody can sweep
                return path, lock
            if path.exists():
                return path, lock
            os.close(lock)


def _sweep() -> None:
    """Remove our user's folders that nobody holds; what can't be removed stays for the next time."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
