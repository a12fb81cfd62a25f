"""Prometheus metrics of `killick api`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from worker.metrics import LATENCY_BUCKETS_S, WeightedHistogram

METRICS_MEDIA = CONTENT_TYPE_LATEST


class ApiMetrics:
    """What the API counts: requests by route and status, how long they took, whether Redis answers."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._requests = Counter(
            "killick_api_requests",
            "Requests by route (empty: none fits) and status.",
            ["model", "route", "status"],
            registry=self.registry,
        )
        self._redis_up = Gauge(  # not shown before the first call
            "killick_redis_up", "1 if the last call to Redis was answered.", ["model"], registry=self.registry
        )
        self._seconds = WeightedHistogram(
            "killick_api_seconds", "Time of a request, until its answer was sent.", model, LATENCY_BUCKETS_S
        )
        self.registry.register(self._seconds)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(self._model, route, str(status)).inc()
        self._seconds.observe(seconds)

    def redis_up(self, *, up: bool) -> None:
        """Whether the last call to Redis was answered."""
        self._redis_up.labels(self._model).set(int(up))

    def page(self) -> bytes:
        """What Prometheus reads."""
        return generate_latest(self.registry)
