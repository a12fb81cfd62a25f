"""A span of recorded observations as columns, in the order of time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_ROWS_AT_ONCE = 8_192


@dataclass(frozen=True)
class History:
    """N observations of several series, sorted by time, then by series.

    `values` are zero where `present` is not. Times are epoch milliseconds.
    """

    series: tuple[str, ...]
    features: tuple[str, ...]
    series_index: NDArray[np.int64]  # (N,) into `series`
    time_ms: NDArray[np.int64]  # (N,)
    values: NDArray[np.float64]  # (N, F)
    present: NDArray[np.bool_]  # (N, F)

    def __len__(self) -> int:
        return len(self.time_ms)

    def slice(self, start: int, stop: int) -> History:
        """The observations `start` to before `stop`, by their number."""
        rows = slice(max(0, start), max(0, stop))
        return replace(
            self,
            series_index=self.series_index[rows],
            time_ms=self.time_ms[rows],
            values=self.values[rows],
            present=self.present[rows],
        )

    def since(self, time_ms: int) -> History:
        """The observations at `time_ms` or after it."""
        return self.slice(int(np.searchsorted(self.time_ms, time_ms, side="left")), len(self))

    def until(self, time_ms: int) -> History:
        """The observations before `time_ms`: with `since(time_ms)` it makes the whole."""
        return self.slice(0, int(np.searchsorted(self.time_ms, time_ms, side="left")))

    def messages(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Key, JSON and time (epoch ms) of each observation's record, in order."""
        encode = msgspec.json.Encoder().encode
        keys = [name.encode() for name in self.series]
        for start in range(0, len(self), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            times_ms = self.time_ms[rows].tolist()
            texts = rfc3339_column(self.time_ms[rows])
            values = np.where(self.present[rows], self.values[rows], np.nan).tolist()  # msgspec writes NaN as null
            for index, time_ms, text, row in zip(
                self.series_index[rows].tolist(), times_ms, texts, values, strict=True
            ):
                message = {
                    "series": self.series[index],
                    "time": text,
                    "values": dict(zip(self.features, row, strict=True)),
                }
                yield keys[index], encode(message), time_ms


def rfc3339_column(time_ms: NDArray[np.int64]) -> list[str]:
    """Epoch milliseconds (N,) as text such as 2013-01-01T06:00:00Z, with milliseconds where there are any."""
    moments = time_ms.astype("datetime64[ms]")
    whole = np.char.add(np.datetime_as_string(moments, unit="s"), "Z")
    if not (time_ms % 1_000).any():
        return list(whole.tolist())
    fine = np.char.add(np.datetime_as_string(moments, unit="ms"), "Z")
    return list(np.where(time_ms % 1_000 == 0, whole, fine).tolist())
