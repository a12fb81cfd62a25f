"""What a model's monitors make of losses, inputs and skill: the detectors' state in Redis, and the requests.

State, fed losses and requests move in one call, so a restart goes on where it was and asks for nothing twice.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from models.drift import Drift, DriftLimits, LossDrift, LossState
from models.drift_inputs import input_drifts, input_statistics
from models.trend import trend_of
from models.windows import DAY_HOURS, daily_skill
from worker.drift_told import Found, Told, read_told
from worker.store import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from models.blocks import Ints
    from models.windows import Book
    from worker.counting import Watched
    from worker.desks import StateDesk
    from worker.pending import StepLoss

TREND_DAYS = {"7d": 7, "30d": 30}
ASKING_TREND = "30d"  # a week falls too often by chance (docs/drift.md)
OVER_BELOW = 0.8  # of its threshold: then an input's drift is over; between, it may go to and fro
LEAST_WINDOW = 0.9  # of the recent span, that has to be counted before it is compared
STEADY_P = 0.5  # from which p-value on a fall of skill is over
KEPT_DRIFTS = 50
TRIGGER = "drift"  # of what is asked for here
LOSS_DETECTORS = ("adwin", "page_hinkley")


class State(Told):
    """What is stored of the detectors, beside the losses that they were fed."""

    loss: LossState | None = None
    raised: dict[str, bool] = msgspec.field(default_factory=dict)  # of inputs and trend: said once, until it is over


class DriftWatch:
    """Feeds the detectors, and asks for an update where one of them found a drift."""

    def __init__(self, store: StateDesk, limits: DriftLimits, interval_ms: int) -> None:
        self._store = store
        self._limits = limits
        self._interval_ms = interval_ms
        self._revision = 0
        self._new: list[float] = []  # losses that are not stored yet
        self._forget = 0
        self._requests: list[Request] = []
        self._answers: int | None = None  # the version that does from now on: requests about others are moot
        self._changed = False
        self.state = State()
        self._detectors = LossDrift(limits)

    def open(self) -> None:
        """Take up what whoever led before left.

        Raises:
            ServiceUnreachable: Redis did not answer.
        """
        self._revision, state = self._store.drift()
        self.state = read_told(state, State)
        self._detectors = LossDrift(self._limits, self.state.loss, self._store.drift_losses())
        self._all_saved()

    def feed(self, losses: Iterable[StepLoss], now_ms: int) -> None:
        """Show the detectors the losses of steps that are over.

        Where another version answers, all begins anew, and nothing is asked for because of the one before any more.
        """
        for step, version, loss in losses:
            if version != self.state.version:
                self._forget += len(self._detectors.losses)
                self.state.version = version
                self.state.raised.clear()
                self._detectors = LossDrift(self._limits)
                self._answers, self._requests = version, []
            before = self._detectors.forgotten
            drifts = self._detectors.add(loss)
            self._new.append(loss)
            self._forget += self._detectors.forgotten - before
            self.state.step = step
            self._changed = True
            self._raise([msgspec.structs.replace(drift, at_step=step) for drift in drifts], now_ms)
        if self._changed:
            self.state.loss = self._detectors.state
            self.state.statistics |= self._detectors.statistics()

    def judge_inputs(self, watched: Watched | None, recent: Ints | None, step: int, now_ms: int) -> None:
        """Compare the inputs of late, counted in the bins of the training, with those of the training."""
        statistics: dict[str, tuple[float, float | None]] = {}
        drifts: list[Drift] = []
        if watched is not None and recent is not None and recent.sum() > 0:
            at = 0
            for name, trained in watched.trained.features.items():
                counts = recent[at : at + len(trained.counts)]
                at += len(trained.counts)
                drifts += input_drifts(name, trained, counts, self._limits)
                for detector, (value, threshold) in input_statistics(trained, counts, self._limits).items():
                    if _nearness(value, threshold) >= _nearness(*statistics.get(detector, (0.0, threshold))):
                        statistics[detector] = (value, threshold)
        worst = {drift.detector: drift for drift in sorted(drifts, key=lambda d: d.statistic / d.threshold)}
        for detector in ("ks", "psi"):
            over = detector in statistics and _nearness(*statistics[detector]) < OVER_BELOW
            self._once(detector, worst.get(detector), over, step, now_ms)
            if statistics.get(detector) != self.state.statistics.get(detector):
                self.state.statistics.pop(detector, None)
                self.state.statistics |= {detector: statistics[detector]} if detector in statistics else {}
                self._changed = True

    def judge_trend(self, book: Book, version: int, newest_hour: int, step: int, now_ms: int) -> None:
        """Whether the daily skill of the version that answers falls, stays or rises."""
        for window, days in TREND_DAYS.items():
            trend = trend_of(daily_skill(book, version, newest_hour, days), p=self._limits.trend_p)
            if self.state.trends.get(window) != trend:
                self.state.trends[window] = trend
                self._changed = True
        trend, falls = self.state.trends[ASKING_TREND], None
        if trend.direction < 0:
            falls = Drift(
                detector="trend", statistic=trend.p_value, threshold=self._limits.trend_p,
                words=f"over {ASKING_TREND}: {trend.words}",
            )  # fmt: skip
        self._once("trend", falls, trend.slope >= 0 or trend.p_value > STEADY_P, step, now_ms)
        self._judge_others(book, version, newest_hour // DAY_HOURS)

    def _judge_others(self, book: Book, answering: int, today: int) -> None:
        """The trends of the versions that don't answer, once a day; nothing is asked for because of them."""
        if today == self.state.others_day:
            return
        recent = {key.version for key in book.sums if key.kind == "day" and key.at >= today - max(TREND_DAYS.values())}
        self.state.others_day = today
        self.state.others = {
            version: {
                window: trend_of(daily_skill(book, version, today * DAY_HOURS, days), p=self._limits.trend_p)
                for window, days in TREND_DAYS.items()
            }
            for version in sorted(recent - {answering})
        }
        self._changed = True

    def save(self) -> None:
        """Put down what changed, and ask.

        Raises:
            FencedError, OffsetConflict: another monitor leads, or Redis lost its tail: open anew.
            ServiceUnreachable: Redis did not answer: open anew.
        """
        if not self._changed:
            return
        state = msgspec.msgpack.encode(self.state)  # JSON knows no NaN
        self._store.change_drift(self._revision, state, self._new, self._forget, self._requests, self._answers)
        self._revision += 1
        self._all_saved()

    def _all_saved(self) -> None:
        self._new, self._forget, self._requests, self._answers, self._changed = [], 0, [], None, False

    def _once(self, name: str, drift: Drift | None, over: bool, step: int, now_ms: int) -> None:  # noqa: FBT001
        """Raise what was not there before; only when it is clearly `over` it may come again."""
        raised = self.state.raised.get(name, False)
        if drift is not None and not raised:
            self.state.raised[name] = self._changed = True
            self._raise([msgspec.structs.replace(drift, at_step=step)], now_ms)
        elif drift is None and raised and over:
            self.state.raised[name] = False
            self._changed = True

    def _raise(self, drifts: Sequence[Drift], now_ms: int) -> None:
        if not drifts:
            return
        version = self.state.version or 0
        for drift in drifts:
            self.state.counts[drift.detector] = self.state.counts.get(drift.detector, 0) + 1
            self.state.found.append(Found(drift, version, drift.at_step * self._interval_ms))
        del self.state.found[:-KEPT_DRIFTS]
        trend = self.state.trends.get("30d")
        lost = any(drift.detector in (*LOSS_DETECTORS, "trend") for drift in drifts)
        evidence = {
            "version": version,
            "drifts": [msgspec.to_builtins(drift) for drift in drifts],
            "trend": msgspec.to_builtins(trend) if trend else None,
        }
        self._requests.append(
            Request(
                id=uuid.uuid4().hex,
                trigger=TRIGGER,
                goal="restore" if lost or trend is None else trend.goal,
                why="; ".join(drift.words for drift in drifts),
                evidence=evidence,
                created_ms=now_ms,
            )
        )


def recent_inputs(
    parts: Iterable[Mapping[tuple[int, int], Ints]], watched: Watched, hours: int, newest_hour: int
) -> Ints | None:
    """The counts of all partitions over the last complete hours, the features' bins in a row; None: too few hours.

    What is compared with whole windows of the training must be one: a day's piece of a week differs from it anyway.
    """
    bins = sum(len(one.counts) for one in watched.trained.features.values())
    total, first = np.zeros(bins, np.int64), newest_hour
    for part in parts:
        for (version, hour), counted in part.items():
            if version == watched.version and newest_hour - hours <= hour < newest_hour and len(counted) == bins:
                total += counted
                first = min(first, hour)
    return total if newest_hour - first >= LEAST_WINDOW * hours else None


def _nearness(value: float, threshold: float | None) -> float:
    return value / threshold if threshold else 0.0
