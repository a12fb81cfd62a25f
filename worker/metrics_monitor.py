"""Prometheus metrics of the monitor: made anew from what it shows, so that nothing of a retired version stays."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from models.drift_limits import DETECTORS
from models.windows import SCALINGS, WINDOWS, figures
from worker.monitoring import Shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client.core import Metric


Words = TypeVar("Words", bound="Sequence[str]")  # the values of a metric's labels
PEOPLE = "person"  # every actor that is no part of Killick: names of people are no labels
AUTOMATIC = ("gate", "guard")
TRIAL_OUTCOMES = ("promoted", "ended")


class MonitorMetrics:
    """What Prometheus reads of a monitor; `show` says what there is."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._lock = threading.Lock()
        self._families: list[Metric] = []
        self.show(Shown())
        self.registry.register(self)

    def show(self, shown: Shown) -> None:
        """From now on, this is what is so."""
        families = [*self._process(shown), *(self._of_model(shown) if shown.leads else ())]
        with self._lock:
            self._families = families

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads."""
        with self._lock:
            families = self._families
        yield from families

    def _process(self, shown: Shown) -> Iterator[Metric]:
        yield self._gauge("monitor_leader", "1 if this monitor leads, 0 if it stands by.", {(): shown.leads})
        yield self._gauge("redis_up", "1 if the last call to Redis was answered.", {(): shown.redis_up})

    def _of_model(self, shown: Shown) -> Iterator[Metric]:
        yield self._counter("monitor_observations", "Observations that were counted.", {(): shown.observations})
        if shown.newest_ms is not None:
            yield self._gauge("event_time_seconds", "Time of the newest observation.", {(): shown.newest_ms / 1000})
        lags = {(str(number),): lag for number, lag in shown.lags.items()}
        yield self._gauge("monitor_lag_records", "Records of the ledger that were not counted yet.", lags, "partition")
        blocks = {(str(number),): count for number, count in shown.blocks.items()}
        yield self._gauge("ledger_blocks", "Blocks in the ledger.", blocks, "partition")
        lags = {(str(number),): lag for number, lag in shown.archive_lags.items()}
        yield self._gauge("archive_lag_records", "Counted records that are not archived.", lags, "partition")
        yield self._counter("archived_records", "Observations archived by this process.", {(): shown.archived})
        yield self._counter("archive_failures", "Times that the archive took no file.", {(): shown.archive_failures})
        yield self._gauge("redis_memory_bytes", "Memory that Redis uses.", {(): shown.memory_bytes})
        yield self._gauge("redis_memory_limit_bytes", "Memory that Redis may use; 0: no limit.",
                          {(): shown.memory_limit_bytes})  # fmt: skip
        yield from self._registry(shown)
        yield from self._drift(shown)
        yield from self._judgement(shown)
        yield from self._skill(shown)

    def _registry(self, shown: Shown) -> Iterator[Metric]:
        yield self._gauge("registry_generation", "Changes of the registry so far.", {(): shown.generation})
        yield self._gauge("paused", "1 while only people promote.", {(): shown.paused})
        yield self._counter("promotions", "Promotions so far.", {(): shown.promotions})
        by = Counter({(actor,): 0 for actor in (PEOPLE, *AUTOMATIC)})
        for actor, count in shown.rollbacks.items():
            by[actor if actor in AUTOMATIC else PEOPLE,] += count
        yield self._counter("rollbacks", "Rollbacks so far, by whom.", by, "actor")
        yield self._gauge("retraining_queue", "Requests for retraining that wait.", {(): shown.requests})
        yield self._gauge("retraining_oldest_request_seconds", "Age of the oldest of them; 0: none waits.",
                          {(): shown.oldest_request_s})  # fmt: skip

    def _drift(self, shown: Shown) -> Iterator[Metric]:
        statistics = {(name,): value for name, (value, _) in shown.statistics.items()}
        thresholds = {(name,): limit for name, (_, limit) in shown.statistics.items() if limit is not None}
        yield self._gauge("drift_statistic", "How far a detector is.", statistics, "detector")
        yield self._gauge("drift_threshold", "From where on it says that there is a drift.", thresholds, "detector")
        counts = {(name,): shown.drifts.get(name, 0) for name in DETECTORS}
        yield self._counter("drifts", "Drifts found so far.", counts, "detector")
        trends = {(window,): trend.direction for window, trend in shown.trends.items()}
        yield self._gauge("skill_trend", "Daily skill falls (-1), stays (0), rises (1).", trends, "window")

    def _judgement(self, shown: Shown) -> Iterator[Metric]:
        trial, guard = shown.gate.trial, shown.gate.guard
        tried: list[str] = [] if trial is None else [str(trial.version)]
        watched: list[str] = [] if guard is None else [str(guard.version)]
        for name, text, versions, value in (
            ("evidence", "E-value of the candidate's trial: that it is better; in a trial for harm, that it is worse.",
             tried, trial.e_value if trial is not None else 0.0),
            ("evidence_threshold", "The e-value that proves it.", tried, trial.needed if trial is not None else 0.0),
            ("trial_steps", "Steps of the candidate's trial so far.", tried, trial.steps if trial is not None else 0),
            ("guard_evidence", "E-value that the version that answered before is better than this one.",
             watched, guard.e_value if guard is not None else 0.0),
            ("guard_evidence_threshold", "The e-value at which the guard rolls back.",
             watched, guard.needed if guard is not None else 0.0),
        ):  # fmt: skip
            yield self._gauge(name, text, {(version,): value for version in versions}, "version")
        waits = float(trial is not None and trial.state == "waits for approval")
        yield self._gauge("approval_waiting", "1 while the candidate has won and waits for a person to sign it off.",
                          {(version,): waits for version in tried}, "version")  # fmt: skip
        counts = {(outcome,): shown.gate.counts.get(outcome, 0) for outcome in TRIAL_OUTCOMES}
        yield self._counter("trials", "Trials that are over.", counts, "outcome")
        yield self._gauge("alpha_spent", "Level of all live trials so far together.", {(): shown.alpha_spent})
        yield self._gauge("alpha_budget", "Level that all live trials together may take.", {(): shown.alpha_budget})

    def _skill(self, shown: Shown) -> Iterator[Metric]:
        book = shown.book
        skill: dict[tuple[str, ...], float] = {}
        errors: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in ("mae", "rmse", "bias", "mase")}
        pairs: dict[tuple[str, ...], float] = {}
        for version in sorted(shown.versions & set(book.versions)):
            for window in WINDOWS:
                sums = book.window(version, window, shown.newest_hour)
                for scaling in SCALINGS:
                    found = figures(sums, book.leads[version], scaling)
                    for at, lead in enumerate(found.leads):
                        words = (str(version), lead, window)
                        for name, values in errors.items():
                            values[*words, scaling] = float(getattr(found, name)[at])
                        for reference, scores in found.skill.items():
                            skill[*words, reference, scaling] = float(scores[at])
                pairs[str(version), window] = found.pairs
        labels = ("version", "lead", "window")
        yield self._gauge("skill_score", "1 - MSE / MSE(reference).", skill, *labels, "reference", "scaling")
        for name, text, values in (
            ("mae", "Mean absolute error.", errors["mae"]),
            ("rmse", "Root of the mean squared error.", errors["rmse"]),
            ("bias", "Mean error, forecast less observation.", errors["bias"]),
            ("mase_ratio", "MAE / MAE of persistence one step ahead.", errors["mase"]),
        ):
            yield self._gauge(name, text, values, *labels, "scaling")
        yield self._gauge("pairs", "Observations that met a forecast.", pairs, "version", "window")

    def _gauge(self, name: str, text: str, values: Mapping[Words, float], *labels: str) -> Metric:
        return self._filled(GaugeMetricFamily(f"killick_{name}", text, labels=["model", *labels]), values)

    def _counter(self, name: str, text: str, values: Mapping[Words, float], *labels: str) -> Metric:
        return self._filled(CounterMetricFamily(f"killick_{name}", text, labels=["model", *labels]), values)

    def _filled(self, family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[Words, float]) -> Metric:
        for words, value in values.items():
            if value == value:  # noqa: PLR0124 - NaN: there is no such figure
                family.add_metric([self._model, *words], float(value))
        return family
