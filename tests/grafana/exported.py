"""What Killick's processes export: every metric's name as Prometheus sees it, and its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.metrics import ConsumerMetrics
from worker.metrics_api import ApiMetrics
from worker.metrics_monitor import MonitorMetrics
from worker.metrics_retrainer import RetrainerMetrics
from worker.monitoring import Shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
OF_PROMETHEUS = {"up": frozenset[str](), "ALERTS": frozenset({"alertname", "alertstate", "severity"})}
OF_EVERY_SERIES = frozenset({"job", "instance"})


def exported() -> dict[str, frozenset[str]]:
    """Each metric and its labels, `job` and `instance` among them, of our processes and of Prometheus itself."""
    monitor = MonitorMetrics("demo")
    monitor.show(Shown(leads=True, newest_ms=0))
    found = {**OF_PROMETHEUS}
    ours = (ConsumerMetrics("demo"), monitor, RetrainerMetrics("demo"), ApiMetrics("demo"))
    for metrics in ours:
        found |= dict(_metrics(metrics.registry))
    return {name: labels | OF_EVERY_SERIES for name, labels in found.items()}


def _metrics(registry: CollectorRegistry) -> Iterator[tuple[str, frozenset[str]]]:
    for collector in list(registry._collector_to_names):
        families: list[Any] = [collector] if hasattr(collector, "_labelnames") else list(collector.collect())
        for family in families:
            name, kind = getattr(family, "_name", "") or family.name, getattr(family, "_type", "") or family.type
            for suffix in SUFFIXES[kind]:
                extra = {"le"} if suffix == "_bucket" else set()
                yield name + suffix, frozenset({*family._labelnames, *extra})
