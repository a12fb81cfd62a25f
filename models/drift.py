"""Has the loss of the version that answers risen? ADWIN and Page-Hinkley on the loss per event-time step.

    losses ─► the first `calibration_steps`: quiet ─► readings and thresholds   (models/drift_calibration.py);
           │    made anew from all of them whenever they have doubled without a drift
           └► afterwards: ADWIN and Page-Hinkley, each on level and scatter ─► drifts
                                                                  └► everything begins anew, with a new quiet span

A fall of the loss is no drift. Both detectors are river's (Bifet and Gavalda 2007, SDM, 443; Page 1954, Biometrika
41, 100). Nothing of theirs is stored: a detector is a function of the losses since the last reset, which are kept, at
most `MOST_KEPT`, and fed again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from models.drift_calibration import LARGEST, Calibration
from models.drift_detectors import READINGS, Alarm, Detectors
from models.drift_limits import LOSS_DETECTORS, Drift, DriftLimits
from models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Drift", "DriftLimits", "LossDrift", "LossState"]

NAMES = {"adwin": "ADWIN's evidence, log10(1/delta),", "page_hinkley": "Page-Hinkley's sum"}
MOST_KEPT = 16_384  # losses since the last reset; then the detectors go on from the newest ones
KEPT_ON = 4_096
MOST_CALIBRATED = 6_000  # steps of a quiet span, at most
MOST_RESTLESS = 3  # how often a quiet span that was none is taken half anew
FORMAT = 1


class LossState(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored beside the losses since the last reset; `warm` of them told what quiet is and raise nothing.

    `seen` counts the version's losses, `restless` the quiet spans since the last reset that were none.
    """

    seen: int = 0
    warm: int = 0
    restless: int = 0
    calibration: Calibration | None = None
    format: int = FORMAT


class LossDrift:
    """The loss detectors of one version: restored from `state` and the losses that were kept, to the same bits.

    Raises:
        DataError: the state has another format, or fewer losses than it was made of.
    """

    def __init__(self, limits: DriftLimits, state: LossState | None = None, losses: Sequence[float] = ()) -> None:
        self._limits = limits
        self._state = state or LossState()
        if self._state.format != FORMAT:
            raise DataError(f"the state of drift has format {self._state.format}, known is {FORMAT}", "update killick")
        if len(losses) < self._state.warm:
            raise DataError(
                f"the state of drift was made of {self._state.warm} losses, {len(losses)} are kept",
                "drop the state: the version's next losses then tell anew what quiet is",
            )
        self.forgotten = 0
        self._begin(list(losses))

    @property
    def state(self) -> LossState:
        """What is to be stored beside `losses`; a few hundred bytes."""
        return self._state

    @property
    def losses(self) -> tuple[float, ...]:
        """The losses that are still needed: those since the last reset, the oldest first.

        `forgotten` is how many of those that were given or added, the oldest first, are not needed any more.
        """
        return tuple(self._kept)

    def add(self, loss: float) -> tuple[Drift, ...]:
        """The drifts that the loss of the next step reveals; after one, everything begins anew with the step after it.

        Raises:
            DataError: the loss is NaN or below 0: a step without a loss is to be left out.
        """
        loss = _checked(loss)
        self._state = msgspec.structs.replace(self._state, seen=self._state.seen + 1)
        self._kept.append(loss)
        calibration = self._state.calibration
        if calibration is None or self._detectors is None:
            if len(self._kept) >= min(self._limits.calibration_steps, MOST_CALIBRATED):
                self._calibrate()
            return ()
        drifts = self._watch(loss, calibration, self._detectors)
        if drifts:
            self._state = LossState(seen=self._state.seen)
            self._begin(self._forget(len(self._kept)))
        elif 2 * calibration.steps <= min(len(self._kept), MOST_CALIBRATED):
            self._recalibrate(calibration)
        elif len(self._kept) >= MOST_KEPT:
            self._state = msgspec.structs.replace(self._state, warm=KEPT_ON)
            self._begin(self._forget(len(self._kept) - KEPT_ON))
        return drifts

    def statistics(self) -> dict[str, tuple[float, float | None]]:
        """Detector → (statistic, threshold): the share of its threshold that it has reached, and 1.

        Of level and scatter the one that is nearer. While the quiet span is being watched: 0, and None.
        """
        if self._detectors is None:
            return dict.fromkeys(LOSS_DETECTORS, (0.0, None))
        return {detector: (max(shares), 1.0) for detector, shares in self._detectors.shares().items()}

    def _begin(self, kept: list[float]) -> None:
        """Keep these losses, and detectors that have read them; what they raise here was told before."""
        self._kept = kept
        self._detectors: Detectors | None = None
        if self._state.calibration is not None:
            self._detectors = Detectors(self._state.calibration.thresholds)
            self._detectors.add_all(self._state.calibration.quiet.readings(np.asarray(kept)).tolist())

    def _forget(self, count: int) -> list[float]:
        """The losses that are kept, without the oldest ones."""
        self.forgotten += count
        return self._kept[count:]

    def _calibrate(self) -> None:
        calibration = Calibration.of(np.asarray(self._kept), self._limits.false_alarms / 1_000.0)
        if self._state.restless < MOST_RESTLESS and not calibration.was_quiet(np.asarray(self._kept)):
            self._state = msgspec.structs.replace(self._state, restless=self._state.restless + 1)
            self._begin(self._forget(len(self._kept) // 2))
            return
        self._state = msgspec.structs.replace(self._state, warm=len(self._kept), calibration=calibration)
        self._begin(self._kept)

    def _recalibrate(self, calibration: Calibration) -> None:
        """Take all that has been quiet until now for the quiet span, where it is twice as long as before."""
        losses = np.asarray(self._kept)
        better = Calibration.of(losses, self._limits.false_alarms / 1_000.0)
        if not better.was_quiet(losses):
            better = msgspec.structs.replace(calibration, steps=len(losses))
        self._state = msgspec.structs.replace(self._state, warm=len(losses), calibration=better)
        self._begin(self._kept)

    def _watch(self, loss: float, calibration: Calibration, detectors: Detectors) -> tuple[Drift, ...]:
        readings = calibration.quiet.readings(np.array([loss]), before=self._kept[-2])[0].tolist()
        return tuple(self._told(alarm, calibration) for alarm in detectors.add(readings))

    def _told(self, alarm: Alarm, calibration: Calibration) -> Drift:
        """The alarm for people: the mean since the rise, and before it, of the loss, or of its moves in quiet ones'."""
        kept = np.asarray(self._kept)
        since = min(max(alarm.since, 1), len(kept) - 1)
        told, unit = kept, ""
        if READINGS[alarm.reading] == "scatter":
            told, unit = calibration.quiet.readings(kept)[:, alarm.reading], " times the usual"
        before, after = float(told[:-since].mean()), float(told[-since:].mean())
        return Drift(
            detector=alarm.detector,
            statistic=alarm.statistic / alarm.threshold,
            threshold=1.0,
            words=(
                f"the {READINGS[alarm.reading]} of the loss has risen: {after:.4g}{unit} is its mean over the last "
                f"{since:,} steps, {before:.4g}{unit} over the {len(kept) - since:,} before "
                f"({NAMES[alarm.detector]} is {alarm.statistic:.3g}, its limit {alarm.threshold:.3g})"
            ),
        )


def _checked(loss: float) -> float:
    if math.isnan(loss) or loss < 0.0:
        raise DataError(f"the loss of a step is {loss}, it must be 0 or more", "leave out a step that has no pairs")
    return min(float(loss), LARGEST)
