"""Where the production code touches the outside: each such call has a label, and may be where the process ends.

As every effect of a consumer passes one of these calls, crashing before and after each of them is crashing at
every step that anybody could tell apart.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from types import CodeType, FrameType

LOOP, OPENING, SPIN_UP, SWAP, CLOSING = "loop", "opening", "spin-up", "swap", "closing"
JUDGING, RETRAINING = "judging", "retraining"
BY_MODULE = {"following": SWAP, "judging": JUDGING, "retrainer": RETRAINING}
BY_FUNCTION = {
    ("updaters", "step"): JUDGING,
    ("holding", "open"): OPENING,
    ("recovery", "advance"): SPIN_UP,
    ("loop", "_follow_registry"): SWAP,
    ("loop", "_open_next"): OPENING,
    ("loop", "close"): CLOSING,
    ("loop", "step"): LOOP,
}


class Crash(BaseException):
    """The process ends here; no handler of the production code may stop it."""


class Point(NamedTuple):
    """A place where a process may end: the call, what the consumer was doing, before or after it."""

    label: str
    phase: str
    when: str

    def __str__(self) -> str:
        return f"{self.phase}/{self.label}/{self.when}"


@dataclass
class Tally:
    """How often each point was passed and crashed at, and how often each fault was done."""

    passed: Counter[Point] = field(default_factory=Counter)
    crashed: Counter[Point] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Count another tally in."""
        self.passed.update(other.passed)
        self.crashed.update(other.crashed)
        self.faults.update(other.faults)


_phases: dict[CodeType, str] = {}


def _phase_of(code: CodeType) -> str:
    path = PurePath(code.co_filename)
    if path.parent.name not in ("consumers", "worker", "faults"):
        return ""
    return BY_FUNCTION.get((path.stem, code.co_name)) or BY_MODULE.get(path.stem, "")


def phase() -> str:
    """What the production code above this call is doing: the innermost function that says so."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        found = _phases.get(code)
        if found is None:
            found = _phases[code] = _phase_of(code)
        if found:
            return found
        frame = frame.f_back
    return LOOP


class Boundaries:
    """Decides at every boundary whether the process ends there.

    `rate` of all passages crash; besides, the passage number `patience` of the point `target` does.
    """

    def __init__(self, rng: random.Random, *, rate: float, target: Point | None, patience: int) -> None:
        self._rng = rng
        self._rate = rate
        self._target = target
        self._patience = patience
        self.quiet = True
        self.tally = Tally()
        self.trace: list[str] | None = None

    def cross(self, label: str, when: str) -> None:
        """Pass a boundary.

        Raises:
            Crash: here the process ends.
        """
        point = Point(label, phase(), when)
        self.tally.passed[point] += 1
        if self.quiet:
            return
        aimed = False
        if point == self._target:
            self._patience -= 1
            aimed = self._patience == 0
        if aimed or self._rng.random() < self._rate:
            self.tally.crashed[point] += 1
            self.note("    crash at %s", point)
            raise Crash(str(point))

    def fault(self, name: str) -> None:
        """Count a fault that was done."""
        self.tally.faults[name] += 1
        self.note("    fault: %s", name)

    def note(self, text: str, *values: object) -> None:
        """A line of the trace, where one is kept."""
        if self.trace is not None:
            self.trace.append(text % values)
