"""Times: integer milliseconds inside, RFC 3339 at the edges, and the step that is nearest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.times import EARLIEST_MS, LATEST_MS, rfc3339, step_of, to_ms

times_ms = st.integers(EARLIEST_MS, LATEST_MS - 1)


@given(times_ms, st.integers(1, 10_000_000_000))
@example(30, 60)
@example(-30, 60)
def test_a_step_is_the_nearest_multiple_of_the_interval(time_ms: int, interval_ms: int) -> None:
    """No multiple is nearer; of two as near it is the later one (of an odd interval no two are)."""
    step = step_of(time_ms, interval_ms)
    distance = Fraction(step * interval_ms - time_ms)
    assert -Fraction(interval_ms, 2) < distance <= Fraction(interval_ms, 2)


@given(st.lists(times_ms, min_size=1), st.integers(1, 10_000_000_000))
def test_steps_of_an_array_are_those_of_its_numbers(moments: list[int], interval_ms: int) -> None:
    """NumPy rounds times before 1970 as Python does."""
    column = step_of(np.array(moments, np.int64), interval_ms)
    assert column.tolist() == [step_of(moment, interval_ms) for moment in moments]


@given(times_ms)
def test_text_gives_back_the_time(time_ms: int) -> None:
    """`rfc3339` is read back by the standard library to the same millisecond, and ends with Z."""
    text = rfc3339(time_ms)
    assert text.endswith("Z")
    assert ("." in text) == (time_ms % 1_000 != 0)
    assert to_ms(datetime.fromisoformat(text)) == time_ms


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_357_020_000_000, "2013-01-01T06:00:00Z"),
        (1_357_020_000_007, "2013-01-01T06:00:00.007Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00Z"),
    ],
)
def test_known_times(time_ms: int, text: str) -> None:
    """Whole seconds carry no fraction, others three digits; years have four."""
    assert rfc3339(time_ms) == text


def test_to_ms_cuts_fractions_off_and_minds_the_offset() -> None:
    """Microseconds are cut towards the past, and 06:00 at +05:30 is 00:30 UTC."""
    assert to_ms(datetime(1970, 1, 1, 0, 0, 0, 1_999, tzinfo=UTC)) == 1
    assert to_ms(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    east = timezone(timedelta(hours=5, minutes=30))
    assert to_ms(datetime(2013, 1, 1, 6, tzinfo=east)) == to_ms(datetime(2013, 1, 1, 0, 30, tzinfo=UTC))
