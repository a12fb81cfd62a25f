"""What versions were fitted on, in the archive: one Parquet file per history, a row per observation.

    <path>/<model>/history/<digest of the history>-<SHA-256 of the file>.parquet
    columns    series, time, value_<feature> (null where missing)

The digest is the one that the registry keeps as `data.sha256` with each version that was fitted on the history.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from consumers.archive_files import COMPRESSION, CURE
from consumers.archive_store import Folder
from consumers.history import History
from models.errors import ArchiveError

if TYPE_CHECKING:
    from pyarrow import fs

FORMAT = b"1"
KEY = b"killick-history"
NAME = re.compile(r"([0-9a-f]{64})-([0-9a-f]{64})\.parquet")
PREFIX = "value_"


class Histories:
    """The histories of one model."""

    def __init__(self, path: str, model: str, filesystem: fs.FileSystem | None = None) -> None:
        """At a folder's path or URI, or at a path of a file system of pyarrow.

        Raises:
            ConfigError: the path can't be used.
        """
        self._folder = Folder(path, filesystem)
        self._at = f"{model}/history"

    def write(self, history: History, digest: str) -> None:
        """Put a history there, in the place of one that was damaged.

        Raises:
            ArchiveError: it can't be written.
        """
        series = pa.DictionaryArray.from_arrays(
            pa.array(history.series_index.astype(np.int32)), pa.array(list(history.series), pa.string())
        )
        columns = {"series": series, "time": pa.array(history.time_ms, pa.timestamp("ms", "UTC"))}
        for i, feature in enumerate(history.features):
            values = np.ascontiguousarray(history.values[:, i])
            columns[PREFIX + feature] = pa.array(values, mask=~history.present[:, i])
        table = pa.table(columns)
        stream = pa.BufferOutputStream()
        schema = table.schema.with_metadata({KEY: FORMAT})
        with parquet.ParquetWriter(stream, schema, compression=COMPRESSION, use_dictionary=["series"]) as writer:
            writer.write_table(table)
        data = bytes(stream.getvalue())
        self._folder.write(f"{self._at}/{digest}-{hashlib.sha256(data).hexdigest()}.parquet", data)

    def read(self, digest: str) -> History:
        """A history as it was given.

        Raises:
            ArchiveError: it is not there, or not what its digest says.
        """
        names = self._names().get(digest, [])
        for name in names:
            data = self._folder.read(f"{self._at}/{name}")
            if data is not None and name.endswith(f"-{hashlib.sha256(data).hexdigest()}.parquet"):
                return _decoded(data, name)
        if names:
            raise ArchiveError(f"{self._at}/{names[0]} in {self._folder.path!r} is damaged: its SHA-256 differs", CURE)
        raise ArchiveError(
            f"history {digest} is not in {self._folder.path!r}", "fit with archive.path set: it is put there"
        )

    def _names(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._folder.names(self._at):
            if match := NAME.fullmatch(name):
                found.setdefault(match[1], []).append(name)
        return found


def _decoded(data: bytes, name: str) -> History:
    try:
        table = parquet.ParquetFile(pa.BufferReader(data)).read()
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(f"{name} can't be read ({error})", CURE) from error
    if (table.schema.metadata or {}).get(KEY) != FORMAT:
        raise ArchiveError(f"{name} has another format, known is {FORMAT.decode()}", "upgrade killick")
    features = [column for column in table.column_names if column.startswith(PREFIX)]
    series = table["series"].unify_dictionaries().combine_chunks()
    columns = [table[column].combine_chunks() for column in features]
    return History(
        tuple(series.dictionary.to_pylist()),
        tuple(column.removeprefix(PREFIX) for column in features),
        series.indices.to_numpy().astype(np.int64),
        table["time"].cast(pa.int64()).to_numpy(),
        np.stack([column.fill_null(0.0).to_numpy(zero_copy_only=False) for column in columns], axis=1),
        np.stack([column.is_valid().to_numpy(zero_copy_only=False) for column in columns], axis=1),
    )
