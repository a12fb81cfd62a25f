"""Prometheus metrics of a retrainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from models.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

TRIGGERS = ("drift", "skill", "schedule", "pairs", "operator", "http")
SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200)


class RetrainerMetrics:
    """What Prometheus reads of a retrainer."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        ours = ("model",)
        self._retrainings = Counter(
            "killick_retrainings", "Retrainings that ended.", (*ours, "trigger", "outcome"), registry=self.registry
        )
        self._seconds = Histogram(
            "killick_retraining_seconds", "How long a retraining took.", ours, buckets=SECONDS, registry=self.registry
        )
        self._running = Gauge(
            "killick_retraining_running", "1 while this retrainer is at work.", ours, registry=self.registry
        )
        self._attempts = Gauge(
            "killick_retraining_attempts", "Trainings done by the retraining under way.", ours, registry=self.registry
        )
        self._redis_up = Gauge(
            "killick_redis_up", "1 if the last call to Redis was answered.", ours, registry=self.registry
        )
        for trigger in TRIGGERS:  # a counter that begins with an event hides its first one from Prometheus
            for outcome in get_args(Outcome):
                self._retrainings.labels(model, trigger, outcome)
        self.watch(lambda: None)
        self.redis_up(up=False)
        self._seconds.labels(model)

    def ended(self, trigger: str, outcome: str, seconds: float) -> None:
        """A retraining has come to a verdict."""
        self._retrainings.labels(self._model, trigger, outcome).inc()
        self._seconds.labels(self._model).observe(seconds)

    def watch(self, done: Callable[[], int | None]) -> None:
        """From now on `done` says how many trainings are done of the retraining under way; None: none is."""
        self._running.labels(self._model).set_function(lambda: done() is not None)
        self._attempts.labels(self._model).set_function(lambda: done() or 0)

    def redis_up(self, *, up: bool) -> None:
        """Whether the last call was answered."""
        self._redis_up.labels(self._model).set(up)
