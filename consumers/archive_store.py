"""The folder of an archive, on a disk or in an object store: files that are there whole, or not at all.

On an object store a file is there when it was closed. Elsewhere it is written beside, forced to the disk and renamed.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs

from models.errors import ArchiveError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECT_STORES = ("s3", "gcs", "abfs")
PART = ".part"
STALE_S = 3_600.0  # after which a part belongs to nobody any more
CURE = "see archive.path in the settings, the rights there and the space that is left"


class Folder:
    """A folder of files by name; names may hold slashes."""

    def __init__(self, path: str, filesystem: fs.FileSystem | None = None) -> None:
        self.path = path
        self._fs, self._root = (filesystem, path.rstrip("/")) if filesystem is not None else _opened(path)
        self._renames = self._fs.type_name not in OBJECT_STORES
        self._on_disk = self._fs.type_name == "local"

    def names(self, folder: str) -> list[str]:
        """The files in a folder of it, sorted; none where it is not there.

        Raises:
            ArchiveError: it can't be listed.
        """
        with self._telling(folder, "listed"):
            found = self._found(folder)
            return sorted(info.base_name for info in found if info.type == fs.FileType.File)

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None: it is not there.

        Raises:
            ArchiveError: it can't be read.
        """
        with self._telling(name, "read"):
            try:
                with self._fs.open_input_file(self._at(name)) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, whole, in the place of another of that name.

        Raises:
            ArchiveError: it can't be written; it may be there all the same.
        """
        with self._telling(name, "written"):
            target = self._at(name)
            if not self._renames:
                self._put(target, data)
                return
            folder, _, base = target.rpartition("/")
            self._fs.create_dir(folder, recursive=True)
            part = f"{folder}/.{base}.{secrets.token_hex(4)}{PART}"
            try:
                self._put(part, data)
                if self._on_disk:
                    _force(part)
                self._fs.move(part, target)
            except OSError:
                with suppress(OSError):  # it may not be there; it would fill a disk that is full already
                    self._fs.delete_file(part)
                raise
            if self._on_disk:
                _force(folder)

    def probe(self, folder: str) -> None:
        """Write a small file and remove it again, to see whether that can be done.

        Raises:
            ArchiveError: it can't be done.
        """
        name = f"{folder}/probe"
        self.write(name, b"written by killick doctor\n")
        with self._telling(name, "removed"):
            self._fs.delete_file(self._at(name))

    def sweep(self, folder: str) -> None:
        """Remove what writers left half written long before the newest file came.

        Raises:
            ArchiveError: it can't be listed.
        """
        with self._telling(folder, "swept"):
            found = self._found(folder)
            newest = max((info.mtime_ns or 0 for info in found), default=0)
            for info in found:
                if info.base_name.endswith(PART) and newest - (info.mtime_ns or 0) > STALE_S * 1e9:
                    self._fs.delete_file(info.path)

    def _found(self, folder: str) -> list[fs.FileInfo]:
        """What is in a folder of it; none where it is not there, or is just being made by another writer."""
        try:
            found: list[fs.FileInfo] = self._fs.get_file_info(fs.FileSelector(self._at(folder), allow_not_found=True))
        except FileNotFoundError:  # it was not there when it was opened, and was when pyarrow looked again
            return []
        return found

    def _put(self, path: str, data: bytes) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(data)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _telling(self, name: str, done: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # pyarrow's own are of these two
            raise ArchiveError(f"{name or 'the archive'} in {self.path!r} can't be {done} ({error})", CURE) from error


def _opened(path: str) -> tuple[fs.FileSystem, str]:
    if "://" not in path:
        root = Path(path).expanduser().absolute()
        if root.exists() and not root.is_dir():
            raise ConfigError(f"archive.path {path!r} is a file", "name a folder")
        return fs.LocalFileSystem(), root.as_posix().rstrip("/")
    try:
        found, root = fs.FileSystem.from_uri(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"archive.path {path!r} can't be used ({error})", "name a folder, or s3://bucket/folder, gs://bucket/folder"
        ) from error
    return found, str(root).rstrip("/")


def _force(path: str) -> None:
    """Have a file or folder on the disk: what the archive has, the ledger lets go."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
