"""Files of observations, CSV or Parquet, long or wide, as a `History`."""

from __future__ import annotations

import difflib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from consumers.history import History
from consumers.timestamps import read_times, zone
from models.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MISSING = ("", "NA", "N/A", "NaN", "nan", "na", "n/a", "null", "NULL", "None")
MAX_VALUE = 1e30
_PARQUET = (".parquet", ".pq")
_DELIMITERS = ",;\t"
_UNREADABLE = (ValueError, OSError, EOFError, zlib.error, pa.ArrowException)  # pandas' errors are ValueErrors

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are what.

    `time`: one column, or year, month, day, hour, … apart. A long file names its series in the column
    `series`; in a wide one (`series_from_columns`) every column of values is a series; with neither the
    file is one series, called like the file. `value_columns` maps a feature (wide: a series) to its column;
    without it the features' own names (wide: every column that is left).
    """

    time: tuple[str, ...]
    series: str | None = None
    series_from_columns: bool = False
    value_columns: Mapping[str, str] | None = None
    timezone: str = "UTC"
    epoch_unit: Literal["ms", "s"] = "ms"


@dataclass(frozen=True)
class _Table:
    """A file's columns with what is needed to name a cell."""

    path: Path
    frame: pd.DataFrame
    text: bool

    def where(self, row: int) -> str:
        """The row as a person finds it in the file: a CSV's header is line 1."""
        number = int(self.frame.index[row])
        return f"{self.path.name}, line {number + 2}" if self.text else f"{self.path.name}, row {number + 1}"


def read_history(path: str | Path, columns: Columns, *, features: Sequence[str], target: str) -> History:
    """The observations of a CSV (.gz too) or Parquet file, in the order of time, then of series.

    Raises:
        DataError: the file can't be read, or a row holds no time, no series or no number; it is named.
        ConfigError: the file has no such columns, or they don't fit the features.
    """
    path = Path(path)
    names = _column_names(path)
    chosen = _chosen(columns, names, tuple(features), target, path)
    series_column = [columns.series] if columns.series else []
    table = _read(path, list(dict.fromkeys([*columns.time, *series_column, *chosen.values()])))
    if columns.series_from_columns:
        return _wide(table, columns, chosen, target)
    return _long(table, columns, chosen)


def parse_values(words: str) -> dict[str, str]:
    """{feature: column} of "temp,dew=DEWP".

    Raises:
        ConfigError: a name is empty or stands there twice.
    """
    pairs = [word.strip() for word in words.split(",")]
    parsed: dict[str, str] = {}
    for pair in pairs:
        feature, _, column = pair.partition("=")
        feature, column = feature.strip(), column.strip() or feature.strip()
        if not feature or feature in parsed:
            raise ConfigError(
                f"--values {words!r}: {pair!r} is empty or named twice",
                "write COLUMN or FEATURE=COLUMN, each once",
            )
        parsed[feature] = column
    return parsed


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in _PARQUET


def _delimiter(path: Path) -> str:
    """The sign that parts the columns: the most frequent of comma, semicolon and tab in the first line."""
    head = pd.read_csv(path, sep="\x01", header=None, nrows=1, dtype=str, keep_default_na=False, quoting=3)
    first = str(head.iloc[0, 0])
    return max(_DELIMITERS, key=first.count)


def _column_names(path: Path) -> list[str]:
    try:
        if _is_parquet(path):
            return list(pq.read_schema(path).names)
        return [str(name) for name in pd.read_csv(path, sep=_delimiter(path), nrows=0, dtype=str).columns]
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _read(path: Path, needed: list[str]) -> _Table:
    """The needed columns; a CSV's cells stay text, so that a bad one can be shown as it is."""
    try:
        if _is_parquet(path):
            return _Table(path, pd.read_parquet(path, columns=needed).reset_index(drop=True), text=False)
        frame = pd.read_csv(
            path,
            sep=_delimiter(path),
            usecols=needed,
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            skip_blank_lines=False,
            index_col=False,
        )
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    frame = frame.fillna("")
    return _Table(path, frame[(frame != "").any(axis=1)], text=True)


def _unreadable(path: Path, error: BaseException) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
    return DataError(
        f"{str(path)!r} can't be read ({reason})", "name a CSV file (.gz too) or a Parquet file (.parquet)"
    )


def _chosen(columns: Columns, names: list[str], features: tuple[str, ...], target: str, path: Path) -> dict[str, str]:
    """{feature or series: column}, all there in the file."""
    for name in (*columns.time, *([columns.series] if columns.series else [])):
        _require(name, names, path)
    if columns.series and columns.series_from_columns:
        raise ConfigError("--series and --series-from-columns are both given", "leave one out")
    if columns.series_from_columns:
        if len(features) != 1:
            raise ConfigError(
                f"--series-from-columns gives one value a row, the model has {len(features)} features",
                f'set model.features = ["{target}"] or name the column of the series by --series',
            )
        chosen = dict(columns.value_columns or {name: name for name in names if name not in columns.time})
    else:
        chosen = dict(columns.value_columns or {name: name for name in features})
        if set(chosen) != set(features):
            raise ConfigError(
                f"--values gives {', '.join(chosen)}, the model's features are {', '.join(features)}",
                "name each once, as FEATURE=COLUMN where the column is called otherwise",
            )
        chosen = {feature: chosen[feature] for feature in features}
    for name in chosen.values():
        _require(name, names, path)
    if not chosen:
        raise ConfigError(f"{path.name} has no column of values beside {', '.join(columns.time)}")
    return chosen


def _require(name: str, names: list[str], path: Path) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
        raise ConfigError(f"{path.name} has no column {name!r}", cure)


def _long(table: _Table, columns: Columns, chosen: Mapping[str, str]) -> History:
    """One row, one observation."""
    rows = len(table.frame)
    series: tuple[str, ...]
    if columns.series is None:
        series, index = (table.path.name.split(".")[0],), np.zeros(rows, dtype=np.int64)
    else:
        series, index = _series(table, columns.series)
    time_ms = _times(table, columns, index)
    cells = [_numbers(table, column) for column in chosen.values()]
    values = np.stack([numbers for numbers, _ in cells], axis=1)  # (N, F)
    present = np.stack([held for _, held in cells], axis=1)
    return _sorted(series, tuple(chosen), index, time_ms, values, present)


def _wide(table: _Table, columns: Columns, chosen: Mapping[str, str], target: str) -> History:
    """One row, one observation of each of the C columns."""
    rows, count = len(table.frame), len(chosen)
    time_ms = _times(table, columns, np.zeros(rows, dtype=np.int64))
    cells = [_numbers(table, column) for column in chosen.values()]
    values = np.stack([numbers for numbers, _ in cells], axis=1).reshape(-1, 1)  # (rows·C, 1)
    present = np.stack([held for _, held in cells], axis=1).reshape(-1, 1)
    index = np.tile(np.arange(count, dtype=np.int64), rows)
    return _sorted(tuple(chosen), (target,), index, np.repeat(time_ms, count), values, present)


def _times(table: _Table, columns: Columns, series: Ints) -> Ints:
    parts = [table.frame[name] for name in columns.time]
    return read_times(parts, series, zone(columns.timezone), columns.epoch_unit, table.where)


def _series(table: _Table, column: str) -> tuple[tuple[str, ...], Ints]:
    """The names in their order, and each row's index into them."""
    names = table.frame[column].astype("string").fillna("").str.strip()
    empty = np.flatnonzero((names == "").to_numpy())
    if len(empty):
        raise DataError(f"{table.where(int(empty[0]))}, column {column}: no series", "every row needs its name")
    codes, found = pd.factorize(names, sort=True)
    return tuple(str(name) for name in found), np.asarray(codes, dtype=np.int64)


def _numbers(table: _Table, column: str) -> tuple[Floats, Bools]:
    """A column's numbers (N,) with zeros for what is missing, and where there are any."""
    cells = table.frame[column]
    if pd.api.types.is_numeric_dtype(cells.dtype):
        missing = cells.isna().to_numpy(dtype=bool)
        numbers = cells.fillna(0).to_numpy(dtype=np.float64)
    else:
        text = cells.astype("string").fillna("").str.strip()
        missing = text.isin(MISSING).to_numpy(dtype=bool)
        numbers = pd.to_numeric(text.where(~missing, "0"), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~(np.abs(numbers) <= MAX_VALUE))
    if len(bad):
        row = int(bad[0])
        more = f" (and {len(bad) - 1} rows more)" if len(bad) > 1 else ""
        raise DataError(
            f"{table.where(row)}, column {column}: {str(cells.iloc[row])!r} is not a number{more}",
            f"write a finite number of at most {MAX_VALUE:g}, or nothing or NA where it is missing",
        )
    return np.where(missing, 0.0, numbers), ~missing


def _sorted(
    series: tuple[str, ...],
    features: tuple[str, ...],
    index: Ints,
    time_ms: Ints,
    values: Floats,
    present: Bools,
) -> History:
    order = np.lexsort((index, time_ms))  # stable: equal times of a series stay in the file's order
    return History(series, features, index[order], time_ms[order], values[order], present[order])
