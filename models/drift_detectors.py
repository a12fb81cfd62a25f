"""ADWIN and Page-Hinkley as river has them, on rises alone, and how near each is to an alarm.

ADWIN         Bifet and Gavalda 2007, Proc. SIAM Data Mining, 443
Page-Hinkley  Page 1954, Biometrika 41, 100
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import drift

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ALLOWANCE = 0.2  # a rise that is none, in the unit of the reading: however sure it is, it is not worth an update
ADWIN_CLOCK = 8  # ADWIN looks for a cut at every eighth step
ADWIN_LEAST = 5  # steps on each side of a cut, river's default

READINGS = ("level", "scatter")

Floats = NDArray[np.float64]


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """By reading (level, scatter): Page-Hinkley's sum, and ADWIN's log10(1/delta), from which a rise is a drift."""

    page_hinkley: tuple[float, float]
    adwin: tuple[float, float]


class Alarm(NamedTuple):
    """Which detector (adwin, page_hinkley) on which reading, its numbers, and how many steps ago it sees the rise."""

    detector: str
    reading: int
    statistic: float
    threshold: float
    since: int


class PageHinkley(drift.PageHinkley):
    """River's, on rises alone, which shows its sum.

    Without forgetting: the sum falls for as long as all is quiet, and what river forgets of it would be a rise.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__(threshold=threshold, delta=ALLOWANCE, alpha=1.0, mode="up")

    @property
    def total(self) -> float:
        """The sum of the rises over its least so far; 0 before the first."""
        return max(self._sum_increase - self._min_increase, 0.0) if math.isfinite(self._min_increase) else 0.0


def adwin(evidence: float) -> drift.ADWIN:
    """River's ADWIN at delta = 10^-evidence."""
    delta = 10.0**-evidence
    return drift.ADWIN(delta=delta, clock=ADWIN_CLOCK, min_window_length=ADWIN_LEAST)  # type: ignore[no-untyped-call]


class Detectors:
    """The four detectors of one stream of readings; a function of the readings that they were given."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._adwin = [adwin(evidence) for evidence in thresholds.adwin]
        self._page_hinkley = [PageHinkley(threshold) for threshold in thresholds.page_hinkley]
        self._since = [0, 0]  # steps since Page-Hinkley's sum was at its least
        self._readings: list[Sequence[float]] = []

    def add(self, readings: Sequence[float]) -> list[Alarm]:
        """The alarms that a step's level and scatter raise."""
        self._readings.append(readings)
        found = []
        for i, value in enumerate(readings):
            window, sums = self._adwin[i], self._page_hinkley[i]
            width = int(window.width)
            window.update(value)  # type: ignore[no-untyped-call]
            if window.drift_detected:  # and then whether it was a rise
                reached, since = evidence(self._window(width + 1, i))
                if reached > self._thresholds.adwin[i]:
                    found.append(Alarm("adwin", i, reached, self._thresholds.adwin[i], since))
            sums.update(value)  # type: ignore[no-untyped-call]
            self._since[i] = self._since[i] + 1 if sums.total > 0.0 else 0
            if sums.drift_detected:
                found.append(Alarm("page_hinkley", i, sums.total, self._thresholds.page_hinkley[i], self._since[i]))
        return found

    def add_all(self, readings: Iterable[Sequence[float]]) -> bool:
        """Whether any of the readings, which are all taken, raised an alarm."""
        return sum(len(self.add(step)) for step in readings) > 0

    def shares(self) -> dict[str, list[float]]:
        """Detector → the share of its threshold that it has reached, on level and on scatter."""
        reached = [evidence(self._window(int(window.width), i))[0] for i, window in enumerate(self._adwin)]
        sums = [detector.total for detector in self._page_hinkley]
        return {
            "adwin": [e / t for e, t in zip(reached, self._thresholds.adwin, strict=True)],
            "page_hinkley": [s / t for s, t in zip(sums, self._thresholds.page_hinkley, strict=True)],
        }

    def _window(self, width: int, reading: int) -> Floats:
        return np.array([step[reading] for step in self._readings[len(self._readings) - width :]])


def evidence(window: Floats) -> tuple[float, int]:
    """log10(1/delta) at which ADWIN would just cut a window `(W,)` because it rose, and how many steps ago.

    That is river's bound, solved for delta, at the cut that needs the least.
    """
    width = len(window)
    n1 = np.arange(ADWIN_LEAST, width - ADWIN_LEAST + 1)  # of the newer part
    if not len(n1):
        return 0.0, 0
    tail = np.cumsum(window[::-1])[n1 - 1]
    reached = evidence_of(tail / n1 - (window.sum() - tail) / (width - n1), window.var(), width, n1)
    best = int(np.argmax(reached))
    return float(reached[best]), int(n1[best])


def evidence_of(rise: Floats, variance: Floats | np.float64, width: int, newer: NDArray[np.int64]) -> Floats:
    """log10(1/delta) at which ADWIN would just cut where the `newer` steps of a window lie above the others by `rise`.

    0 for a rise within the allowance. Arrays `(…, cuts)`.
    """
    share = 1.0 / (width - newer - ADWIN_LEAST + 1) + 1.0 / (newer - ADWIN_LEAST + 1)
    root = np.sqrt(
        2.0 * share * np.maximum(variance, 0.0)
    )  # rise = root · s + 2/3 · share · s², s² = ln(2 ln W / delta)
    s = (np.sqrt(root**2 + 8.0 / 3.0 * share * np.maximum(rise, 0.0)) - root) / (4.0 / 3.0 * share)
    found = (s**2 - math.log(2.0 * math.log(width))) / math.log(10.0)
    return np.asarray(np.where(rise > ALLOWANCE, np.maximum(found, 0.0), 0.0))
