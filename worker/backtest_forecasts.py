"""Every forecast of a backtest as rows of a Parquet file, so that anyone can score them.

    policy, series, issued_at, valid_at, lead, forecast, version, seed

A file appears when it is complete. Several processes write a file each; `merge` makes one of them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from models.blocks import Floats, Ints, Singles

GROUP_ROWS = 500_000  # of a file, kept in memory until they are written
COMPRESSION = "zstd"
TIME = pa.timestamp("ms", "UTC")
NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    {
        "policy": NAME,
        "series": NAME,
        "issued_at": TIME,
        "valid_at": TIME,
        "lead": pa.int32(),
        "forecast": pa.float32(),
        "version": pa.int32(),
        "seed": pa.int32(),
    }
)


class ForecastWriter:
    """Writes forecasts as they are issued; `names` are the series by slot. Close it, or use it in a `with`."""

    def __init__(self, path: str | Path, names: Sequence[str], interval_ms: int) -> None:
        """Begin a file.

        Raises:
            DataError: it can't be written there.
        """
        self._file = _File(Path(path))
        self._names = pa.array(list(names), pa.string())
        self._interval_ms = interval_ms
        self._tables: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.discard()

    def add(
        self, policy: str, seed: int, slot: Ints, step: Ints, forecasts: Singles | Floats, version: int | Ints
    ) -> None:
        """Add forecasts `(N, H)` issued at observations `(N,)` by one version, or one each; NaN is no forecast."""
        count, horizon = forecasts.shape
        kept = np.flatnonzero(np.isfinite(forecasts).ravel())
        row, lead = kept // horizon, kept % horizon + 1
        issued = step[row] * self._interval_ms
        versions = np.broadcast_to(np.asarray(version, np.int32), count)
        columns = {
            "policy": pa.DictionaryArray.from_arrays(np.zeros(len(kept), np.int32), pa.array([policy])),
            "series": pa.DictionaryArray.from_arrays(slot[row].astype(np.int32), self._names),
            "issued_at": pa.array(issued).cast(TIME),
            "valid_at": pa.array(issued + lead * self._interval_ms).cast(TIME),
            "lead": lead.astype(np.int32),
            "forecast": forecasts.ravel()[kept].astype(np.float32),
            "version": versions[row],
            "seed": np.full(len(kept), seed, np.int32),
        }
        self._tables.append(pa.table(columns, schema=SCHEMA))
        self._rows += len(kept)
        if self._rows >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left; the file is there from now on."""
        self._flush()
        self._file.finish()

    def _flush(self) -> None:
        if self._tables:
            self._file.write(pa.concat_tables(self._tables).unify_dictionaries())
        self._tables, self._rows = [], 0


def merge(parts: Sequence[str | Path], path: str | Path) -> None:
    """Make one file of those that several writers wrote, in their order, and remove them.

    Raises:
        DataError: one of them can't be read, or the file can't be written.
    """
    file = _File(Path(path))
    try:
        for part in parts:
            _append(file, Path(part))
    except BaseException:
        file.discard()
        raise
    file.finish()
    for part in parts:
        Path(part).unlink()


def _append(file: _File, part: Path) -> None:
    try:
        with parquet.ParquetFile(part, read_dictionary=["policy", "series"]) as source:
            for group in range(source.num_row_groups):
                file.write(source.read_row_group(group).cast(SCHEMA))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"the forecasts in {part.name} can't be read ({error})", "run the backtest again") from error


class _File:
    """A Parquet file that is written beside its place, and moved there when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.name}.writing")
        try:
            # Without the Arrow schema in it every reader finds plain text where we have dictionaries.
            self._writer = parquet.ParquetWriter(
                self._beside,
                SCHEMA,
                compression=COMPRESSION,
                use_dictionary=["policy", "series", "issued_at", "valid_at", "lead", "version", "seed"],
                store_schema=False,
            )
        except OSError as error:
            raise self._refused(error) from error

    def write(self, table: pa.Table) -> None:
        """Write a row group."""
        try:
            self._writer.write_table(table, row_group_size=max(1, len(table)))
        except OSError as error:
            raise self._refused(error) from error

    def finish(self) -> None:
        """Put it in its place."""
        try:
            self._writer.close()
            self._beside.replace(self._path)
        except OSError as error:
            raise self._refused(error) from error

    def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self._writer.close()
        self._beside.unlink(missing_ok=True)

    def _refused(self, error: OSError) -> DataError:
        reason = os.strerror(error.errno) if error.errno else str(error)  # pyarrow's own words are long
        return DataError(f"forecasts can't be written to {str(self._path)!r} ({reason})", "name another file")
