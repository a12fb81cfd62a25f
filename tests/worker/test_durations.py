"""Lengths of time as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ConfigError
from worker.durations import Duration, parse_duration


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("500ms", 500),
        ("45s", 45_000),
        ("15min", 900_000),
        ("1.5h", 5_400_000),
        (" 7 d ", 604_800_000),
        ("1w", 604_800_000),
    ],
)
def test_reads_a_number_and_a_unit(text: str, ms: int) -> None:
    """A duration is a number and one of the units ms, s, min, h, d, w."""
    assert parse_duration(text).ms == ms


@pytest.mark.parametrize(
    "text", ["", "5", "h", "1 hour", "-1h", "1h30min", "0.5ms", "1e3s", "200000d", "9" * 400 + "s"]
)
def test_refuses_what_is_no_duration(text: str) -> None:
    """Text that is no duration, too long or finer than a millisecond is refused with a cure."""
    with pytest.raises(ConfigError) as refusal:
        parse_duration(text)
    assert refusal.value.cure


@given(st.integers(min_value=0, max_value=3_000_000_000_000))
def test_reads_what_it_prints(ms: int) -> None:
    """A printed duration reads back as the same number of milliseconds."""
    assert parse_duration(str(Duration(ms))) == Duration(ms)


def test_prints_the_largest_whole_unit() -> None:
    """The unit that is printed is the largest that divides the length."""
    assert [str(Duration(ms)) for ms in (0, 90_000, 3_600_000, 604_800_000, 1_001)] == [
        "0s",
        "90s",
        "1h",
        "7d",
        "1001ms",
    ]
