"""Prometheus metrics of a process, and the pages that it serves: /metrics, /healthz, /readyz.

The loop reports once per block; histograms count by weight, so that nothing is done per observation.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from bisect import bisect_left
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from consumers.observer import Observer
from consumers.roster import seated
from models.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from consumers.roster import Seat

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
PAGE_TIMEOUT_S = 10.0  # who asks more slowly holds no thread
SWAP_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
SIZE_BUCKETS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0)

log = logging.getLogger(__name__)


class WeightedHistogram:
    """A histogram that is told a value and how many observations had it."""

    def __init__(self, name: str, text: str, model: str, buckets: tuple[float, ...]) -> None:
        self._name, self._text, self._model, self._buckets = name, text, model, buckets
        self._counts = [0.0] * (len(buckets) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float, weight: float = 1.0) -> None:
        """Count `weight` observations of `value`."""
        with self._lock:
            self._counts[bisect_left(self._buckets, value)] += weight
            self._sum += value * weight

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What Prometheus reads."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        cumulated, so_far = [], 0.0
        for bound, count in zip((*self._buckets, float("inf")), counts, strict=True):
            so_far += count
            cumulated.append(("+Inf" if bound == float("inf") else str(bound), so_far))
        family = HistogramMetricFamily(self._name, self._text, labels=["model"])
        family.add_metric([self._model], buckets=cumulated, sum_value=total)
        yield family


class ConsumerMetrics(Observer):
    """The metrics of a consumer process: the loop's observer."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._observations = self._counter("observations", "Records by what became of them.", "outcome")
        self._dead_letters = self._counter("dead_letters", "Records refused, by reason.", "reason")
        self._forecasts = self._counter("forecasts", "Forecasts issued by the version that answers.", "version")
        self._gaps = self._counter("gaps_bridged", "Gaps that were bridged.")
        self._resets = self._counter("series_resets", "Series that started anew after a long gap.")
        self._lost = self._counter("lost_records", "Records that the log deleted before they were read.")
        self._rewinds = self._counter("ledger_rewinds", "Times that Redis had lost what was committed.")
        self._mismatches = self._counter("replay_mismatches", "Replayed blocks with other bits than committed.")
        self._lag = self._gauge("consumer_lag_records", "Records in the log that were not polled yet.", "partition")
        self._redis_up = Gauge(  # not shown before the first call
            "killick_redis_up", "1 if the last call to Redis was answered.", ["model"], registry=self.registry
        )
        self._version_info = self._gauge("version_info", "1 for the versions at work.", "version", "role")
        self.sizes = self._histogram("block_observations", "Observations in a committed block.", SIZE_BUCKETS)
        self.commits = self._histogram("ledger_commit_seconds", "Time of one ledger commit.", LATENCY_BUCKETS_S)
        self.latency = self._histogram(
            "forecast_latency_seconds", "From poll to acknowledged forecast.", LATENCY_BUCKETS_S
        )
        self._activated = self._gauge("version_activated_timestamp_seconds", "When it began to answer.", "version")
        self._diverged = self._gauge(
            "partition_diverged", "1 where a partition can't follow the registry.", "partition"
        )
        self.swaps = self._histogram(
            "swap_seconds", "From the registry's change to another version's seat.", SWAP_BUCKETS_S
        )
        self.spin_ups = self._histogram("spin_up_seconds", "Time of one version's spin-up.", SWAP_BUCKETS_S)
        self._seats: dict[int, set[tuple[str, str]]] = {}  # partition → (version, role)

    def block(self, counts: Mapping[str, int], version: int | None) -> None:
        """A block was committed."""
        for name, outcome in (
            ("observations", "accepted"),
            ("duplicates", "duplicate"),
            ("history", "history"),
        ):
            if counts.get(name):
                self._observations.labels(self._model, outcome).inc(counts[name])
        for name, amount in counts.items():
            if name.startswith("refused."):
                self._dead_letters.labels(self._model, name.removeprefix("refused.")).inc(amount)
                self._observations.labels(self._model, "refused").inc(amount)
        for name, counter in (("gaps_bridged", self._gaps), ("series_resets", self._resets)):
            counter.labels(self._model).inc(counts.get(name, 0))
        self._lost.labels(self._model).inc(counts.get("lost_records", 0))
        if counts.get("observations"):
            self.sizes.observe(counts["observations"])
        if version is not None:
            self._forecasts.labels(self._model, str(version)).inc(counts.get("forecasts", 0))

    def commit(self, seconds: float) -> None:
        """How long the ledger took for one commit."""
        self.commits.observe(seconds)

    def acknowledged(self, seconds: float, forecasts: int) -> None:
        """From poll to acknowledgement, for so many forecasts."""
        self.latency.observe(seconds, forecasts)

    def lag(self, partition: int, records: int | None) -> None:
        """Records that wait in the log; None: the partition is no longer ours."""
        if records is not None:
            self._lag.labels(self._model, str(partition)).set(records)
        else:
            self._lag.remove(self._model, str(partition))
            self._diverged.remove(self._model, str(partition))

    def rewound(self) -> None:
        """Redis had lost what was committed."""
        self._rewinds.labels(self._model).inc()

    def mismatch(self) -> None:
        """A replayed block gave other bits."""
        self._mismatches.labels(self._model).inc()

    def redis_up(self, *, up: bool) -> None:
        """Whether the last call to Redis was answered."""
        self._redis_up.labels(self._model).set(int(up))

    def roster(self, partition: int, seats: Sequence[Seat]) -> None:
        """Who runs in a partition that is at work here; nobody where it no longer is."""
        before = self._all_seats()
        self._seats[partition] = {(str(number), seat.role) for number, seat in seated(seats).items()}
        now = self._all_seats()
        for gone in before - now:
            self._version_info.remove(self._model, *gone)
        for version in {version for version, _ in before} - {version for version, _ in now}:
            self._forecasts.remove(self._model, version)
            self._activated.remove(self._model, version)
        for version, role in now - before:
            self._version_info.labels(self._model, version, role).set(1)

    def spun_up(self, partition: int, version: int, seconds: float) -> None:
        """A version was given its carried state."""
        del partition, version
        self.spin_ups.observe(seconds)

    def swapped(self, partition: int, version: int, seconds: float) -> None:
        """Another version answers."""
        del partition
        self.swaps.observe(seconds)
        self._activated.labels(self._model, str(version)).set_to_current_time()

    def diverged(self, partition: int, why: str) -> None:
        """Whether a partition can't follow the registry."""
        self._diverged.labels(self._model, str(partition)).set(int(bool(why)))

    def _all_seats(self) -> set[tuple[str, str]]:
        return {one for seats in self._seats.values() for one in seats}

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        counter = Counter(f"killick_{name}", text, ["model", *labels], registry=self.registry)
        if not labels:
            counter.labels(self._model)
        return counter

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        gauge = Gauge(f"killick_{name}", text, ["model", *labels], registry=self.registry)
        if not labels:
            gauge.labels(self._model)
        return gauge

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> WeightedHistogram:
        histogram = WeightedHistogram(f"killick_{name}", text, self._model, buckets)
        self.registry.register(histogram)
        return histogram


@dataclass(frozen=True)
class Health:
    """What /healthz and /readyz answer: alive, and what is being waited for (empty: ready)."""

    alive: bool
    waiting_for: str
    details: Mapping[str, object]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Log what went wrong, unless the client has only gone away, as one does that waited for too long."""
        del request
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            log.error("a page could not be served to %s", client_address, exc_info=error)


class Pages:
    """The process's own HTTP server, in a thread."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        health: Callable[[], Health],
        setting: str = "http.port",
    ) -> None:
        try:
            self._server = _Server((host, port), _handler(registry, health))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"the pages can't be served on {host}:{port} ({error})",
                f"choose another {setting}; 0 takes a free one",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="pages", daemon=True)
        self._thread.start()
        self.url = f"http://{host}:{self._server.server_port}"
        log.info("metrics at %s/metrics", self.url, extra={"action": "serving"})

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(registry: CollectorRegistry, health: Callable[[], Health]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = PAGE_TIMEOUT_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] == "/metrics":
                self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry))
                return
            state = health()
            body = json.dumps({"waiting_for": state.waiting_for, **state.details}).encode() + b"\n"
            good = {"/healthz": state.alive, "/readyz": state.alive and not state.waiting_for}.get(self.path)
            if good is None:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"here are /metrics, /healthz and /readyz\n")
            else:
                status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, "application/json", body)

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has it
            log.debug(format, *args)

    return Handler
