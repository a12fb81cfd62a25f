"""Columns of a file as times: epoch numbers, ISO 8601, other text, or year, month, day, … apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.api import guess_datetime_format

from models.errors import ConfigError, DataError

PARTS = ("year", "month", "day", "hour", "minute", "second")
EPOCH_UNITS_MS = {"ms": 1, "s": 1_000}
_WITH_OFFSET = r"[T ].*(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"
_EPOCH = r"[+-]?\d{9,}"  # fewer digits are a date such as 20130101

Times = NDArray[np.int64]
Where = Callable[[int], str]  # a row's number -> "line 12" or "row 11"


def zone(name: str) -> ZoneInfo:
    """The time zone of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(f"time zone {name!r} is not known", "name one as America/New_York") from error


def read_times(
    columns: Sequence[pd.Series], series: NDArray[np.int64], timezone: ZoneInfo, epoch_unit: str, where: Where
) -> Times:
    """Epoch milliseconds (N,) of the rows of one or more columns; without an offset they are of `timezone`.

    `series` (N,) tells which of two equal local times is the earlier one where clocks are turned back.

    Raises:
        DataError: a row holds no time; the message names it.
    """
    name = ",".join(str(column.name) for column in columns)
    if len(columns) >= 3:
        moments = _from_parts(columns)
    elif len(columns) == 2:
        moments = _from_text(columns[0].astype(str) + " " + columns[1].astype(str), timezone, series)
    elif isinstance(columns[0].dtype, pd.DatetimeTZDtype):
        moments = columns[0].dt.tz_convert("UTC")
    elif pd.api.types.is_datetime64_dtype(columns[0].dtype):
        moments = columns[0]
    elif pd.api.types.is_numeric_dtype(columns[0].dtype):
        moments = _from_epoch(columns[0], epoch_unit)
    else:
        text = columns[0].astype(str).str.strip()
        numeric = bool(text.str.fullmatch(_EPOCH).all())
        moments = _from_epoch(text, epoch_unit) if numeric else _from_text(text, timezone, series)
    if moments.dt.tz is None:
        moments = _localise(moments, timezone, series)
    _refuse_missing(moments, columns, name, timezone, where)
    return np.asarray(moments.dt.tz_localize(None).to_numpy().astype("datetime64[ms]").astype(np.int64))


def _refuse_missing(
    moments: pd.Series, columns: Sequence[pd.Series], name: str, timezone: ZoneInfo, where: Where
) -> None:
    missing = np.flatnonzero(moments.isna().to_numpy())
    if len(missing):
        row = int(missing[0])
        shown = ", ".join(repr(column.iloc[row]) for column in columns)
        more = f" (and {len(missing) - 1} rows more)" if len(missing) > 1 else ""
        skipped = "" if timezone.key == "UTC" else f"; one that the clocks of {timezone.key} skip is none"
        raise DataError(
            f"{where(row)}, column {name}: {shown} is not a time{more}",
            f"write 2013-01-01T06:00:00Z or epoch milliseconds{skipped}",
        )


def _from_epoch(column: pd.Series, unit: str) -> pd.Series:
    ms = pd.to_numeric(column, errors="coerce") * EPOCH_UNITS_MS[unit]
    return pd.to_datetime(ms, unit="ms", errors="coerce", utc=True)


def _from_parts(columns: Sequence[pd.Series]) -> pd.Series:
    if len(columns) > len(PARTS):
        raise ConfigError(f"--time names {len(columns)} columns, the limit is {len(PARTS)}: {', '.join(PARTS)}")
    parts = {part: pd.to_numeric(column, errors="coerce") for part, column in zip(PARTS, columns, strict=False)}
    possible = np.logical_and.reduce([_within(part, values) for part, values in parts.items()])
    moments = pd.to_datetime(pd.DataFrame(parts), errors="coerce")
    return moments.where(possible)


def _within(part: str, values: pd.Series) -> NDArray[np.bool_]:
    """Where a part is a whole number that a clock can show; days of the month are left to pandas."""
    lowest, highest = {
        "year": (1, 9_999),
        "month": (1, 12),
        "day": (1, 31),
        "hour": (0, 23),
        "minute": (0, 59),
        "second": (0, 59),
    }[part]
    return np.asarray((values >= lowest) & (values <= highest) & (values % 1 == 0), dtype=np.bool_)


def _from_text(text: pd.Series, timezone: ZoneInfo, series: NDArray[np.int64]) -> pd.Series:
    """Aware moments of text; NaT where it is none. ISO 8601, else the one form that the first row has."""
    text = text.str.strip()
    with_offset = text.str.contains(_WITH_OFFSET, regex=True).to_numpy(dtype=bool)
    local = pd.to_datetime(text.where(~with_offset), format="ISO8601", errors="coerce")
    aware = pd.to_datetime(text.where(with_offset), format="ISO8601", errors="coerce", utc=True)
    if not with_offset.any() and local.isna().all() and len(text):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it took 13/02/2013 for a 13th of February
            form = guess_datetime_format(str(text.iloc[0]))
        if form:
            local = pd.to_datetime(text, format=form, errors="coerce")
            if local.dt.tz is not None:
                return local.dt.tz_convert("UTC")
    return aware.where(with_offset, _localise(local, timezone, series).dt.tz_convert("UTC"))


def _localise(local: pd.Series, timezone: ZoneInfo, series: NDArray[np.int64]) -> pd.Series:
    """Local times as aware ones; of equal ones of a series (clocks go back) the first is the earlier."""
    if timezone.key == "UTC":
        ambiguous: str | NDArray[np.bool_] = "NaT"  # there are none
    else:
        ambiguous = ~pd.DataFrame({"series": series, "time": local.to_numpy()}).duplicated().to_numpy()
    aware: pd.Series = local.dt.tz_localize(timezone, ambiguous=ambiguous, nonexistent="NaT")
    return aware
