"""What is stored of drift and is told to people; read without what finds it, which takes long to import."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from models.drift_limits import Drift, Trend  # noqa: TC001 - msgspec reads them
from worker.stored import read_stored

FORMAT = 1


class Found(msgspec.Struct, frozen=True):
    """One drift, with the version that it is about and when it was."""

    drift: Drift
    version: int
    time_ms: int  # of the event


class Told(msgspec.Struct):
    """What the detectors found, how near they are, and how skill moves."""

    version: int | None = None  # whose losses they watch
    step: int | None = None  # up to which they were fed
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    found: list[Found] = msgspec.field(default_factory=list)  # the newest ones
    statistics: dict[str, tuple[float, float | None]] = msgspec.field(default_factory=dict)
    trends: dict[str, Trend] = msgspec.field(default_factory=dict)  # by window, of `version`
    others: dict[int, dict[str, Trend]] = msgspec.field(default_factory=dict)  # of the other versions
    others_day: int | None = None  # since 1970, on which these were judged
    format: int = FORMAT

    def trends_of(self, version: int) -> dict[str, Trend]:
        """How the skill of a version moves, by window; empty where that was not judged yet."""
        return self.trends if version == self.version else self.others.get(version, {})


ToldType = TypeVar("ToldType", bound=Told)


def read_told(data: bytes, kind: type[ToldType]) -> ToldType:
    """What was stored, as `kind`; nothing yet where nothing was stored.

    Raises:
        LedgerError: another format.
    """
    return read_stored(data, kind, "the detectors' state")
