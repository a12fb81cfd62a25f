"""Lengths of time as people write them: "500ms", "45s", "15min", "1h", "7d"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.errors import ConfigError
from models.times import DAY_MS, HOUR_MS, MINUTE_MS, WEEK_MS

_UNITS_MS = {"ms": 1, "s": 1_000, "min": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": WEEK_MS}
_PRINTED = ("d", "h", "min", "s", "ms")  # a week is read, but printed as days
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d|w)\s*")
_LIMIT_MS = 100 * 366 * DAY_MS

PATTERN = r"^\d+(\.\d+)?(ms|s|min|h|d|w)$"
EXAMPLES = '"500ms", "45s", "15min", "1h", "7d"'


@dataclass(frozen=True, order=True, slots=True)
class Duration:
    """A length of time in whole milliseconds, printed in the largest unit that divides it."""

    ms: int

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.ms / 1_000

    def __str__(self) -> str:
        unit = next(unit for unit in _PRINTED if self.ms % _UNITS_MS[unit] == 0)
        return "0s" if self.ms == 0 else f"{self.ms // _UNITS_MS[unit]}{unit}"


def parse_duration(text: str) -> Duration:
    """The duration that `text` names.

    Raises:
        ConfigError: no number with a unit, not a whole number of milliseconds, or over a century.
    """
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise ConfigError(f"{text!r} is not a duration", f"write a number and a unit, such as {EXAMPLES}")
    number, unit = written.groups()
    if len(number) > 20:
        raise ConfigError(f"{text[:24]!r}… is too long for a duration", "the limit is a century")
    ms = float(number) * _UNITS_MS[unit]
    if ms > _LIMIT_MS:
        raise ConfigError(f"{text!r} is longer than a century", f"the limit is {_LIMIT_MS // _UNITS_MS['d']}d")
    if ms != int(ms):
        raise ConfigError(f"{text!r} is not a whole number of milliseconds", "write it in a smaller unit")
    return Duration(int(ms))
