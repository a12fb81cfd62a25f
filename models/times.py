"""Times and steps: integer milliseconds (UTC) inside, RFC 3339 at the edges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
EARLIEST_MS = (datetime(1600, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND
LATEST_MS = (datetime(2400, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970 of an aware time; fractions of one are cut off."""
    return (moment - EPOCH) // MILLISECOND


def rfc3339(time_ms: int) -> str:
    """The time as text, `2013-01-01T06:00:00Z`, with milliseconds where there are any."""
    text = (EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds" if time_ms % 1000 else "seconds")
    return text.replace("+00:00", "Z")


def day_text(day: int) -> str:
    """A day since 1970 as text, `2013-01-01`."""
    return rfc3339(day * DAY_MS)[:10]


@overload
def step_of(time_ms: int, interval_ms: int) -> int: ...
@overload
def step_of(time_ms: NDArray[np.int64], interval_ms: int) -> NDArray[np.int64]: ...
def step_of(time_ms: int | NDArray[np.int64], interval_ms: int) -> int | NDArray[np.int64]:
    """The multiple of the interval that is nearest; the later one of two as near."""
    return (time_ms + interval_ms // 2) // interval_ms
