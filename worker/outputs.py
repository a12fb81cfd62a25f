"""Where commands write what they found: what can't be written is refused before any work, in the same words."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from models.errors import ConfigError

PAGE = (".html", ".htm")
ANOTHER = "make it, or name another place"


def check_file(option: str, path: str, suffixes: tuple[str, ...] = (), source: str | None = None) -> None:
    """Refuse a file that can't be put there; `source` is a file that is read, and must stay.

    Raises:
        ConfigError: it has no name or another suffix, is a folder or a device, its folder is missing or takes no
            files, or it is `source`.
    """
    example = f"out{suffixes[0]}" if suffixes else "out"
    if not path:
        raise ConfigError(f"{option} is empty", f"name a file: {option} {example}")
    target, said = Path(path), f"{option} {path!r}"
    mode = _mode(said, target)
    if source is not None and target.resolve() == Path(source).resolve():
        raise ConfigError(f"{said} is the file of history", "name another file")
    if stat.S_ISDIR(mode):
        raise ConfigError(f"{said} is a folder", f"name a file in it: {option} {target / example}")
    if suffixes and target.suffix.lower() not in suffixes:
        cure = f"name it so: {option} {target.with_suffix(suffixes[0])}"
        raise ConfigError(f"{said} does not end in {suffixes[0]}", cure)
    if mode and not stat.S_ISREG(mode):
        raise ConfigError(f"{said} is no plain file, and would be replaced by one", "name another file")
    _check_room(said, target.absolute().parent)


def check_folder(option: str, path: str) -> None:
    """Refuse a folder that neither takes files nor can be made; it is not made yet.

    Raises:
        ConfigError: as said.
    """
    if not path:
        raise ConfigError(f"{option} is empty", f"name a folder: {option} pages")
    said, nearest = f"{option} {path!r}", Path(path).absolute()
    mode = _mode(said, nearest)
    if mode and not stat.S_ISDIR(mode):
        raise ConfigError(f"{said} is no folder", f"name a folder: {option} pages")
    while not mode and nearest != nearest.parent:
        nearest = nearest.parent
        mode = _mode(said, nearest)
    _check_room(said, nearest)


def _mode(said: str, path: Path) -> int:
    """Kind and mode of what is there; 0: nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise _refused(said, os.strerror(error.errno or 0)) from error


def _check_room(said: str, folder: Path) -> None:
    """Refuse a folder that is not there, or takes no files; a file is tried, as modes don't say all."""
    mode = _mode(said, folder)
    if not stat.S_ISDIR(mode):
        reason = f"{str(folder)!r} is no folder" if mode else f"there is no folder {str(folder)!r}"
        raise _refused(said, reason)
    try:
        with tempfile.TemporaryFile(dir=folder):  # has no name where the system can do without
            pass
    except OSError as error:
        reason = f"{str(folder)!r} takes no files: {os.strerror(error.errno or 0)}"
        raise _refused(said, reason, "let it be written to, or name another place") from error


def _refused(said: str, reason: str, cure: str = ANOTHER) -> ConfigError:
    return ConfigError(f"{said} can't be written ({reason})", cure)
