"""Pictures of the dashboards, drawn from a real Prometheus that scrapes what our processes serve."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from benchmarks._picture_data import Asked, Prometheus, Span
from benchmarks._picture_svg import drawn
from benchmarks._picture_words import color_of, written
from consumers.roster import Seat
from tests.grafana.queries import dashboards, panels_of
from worker.metrics import ConsumerMetrics, Health, Pages
from worker.metrics_monitor import MonitorMetrics
from worker.monitoring import Shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

    from tests.conftest import NewPrometheus
    from tests.grafana.queries import Json
    from tests.services.prometheus import PrometheusServer

WAIT_S = 30.0


def served(registry: CollectorRegistry) -> Pages:
    """A process that serves these metrics."""
    return Pages("127.0.0.1", 0, registry, lambda: Health(alive=True, waiting_for="", details={}))


@pytest.fixture
def scraped(new_prometheus: NewPrometheus) -> Iterator[PrometheusServer]:
    """A Prometheus that has scraped a consumer and a monitor twice."""
    consumer, monitor = ConsumerMetrics("weather"), MonitorMetrics("weather")
    consumer.redis_up(up=True)
    consumer.roster(0, (Seat(2, "incumbent", 0, 0), Seat(1, "shadow", 0, 0)))
    consumer.lag(0, 7)
    consumer.block(Counter({"observations": 90, "refused.late": 10, "forecasts": 90}), 2)
    shown = Shown(leads=True, redis_up=True, newest_ms=1_375_228_800_000, paused=True, statistics={"ks": (0.1, 0.25)})
    monitor.show(shown)
    pages = [served(consumer.registry), served(monitor.registry)]
    server = new_prometheus(*([one.url.removeprefix("http://")] for one in pages))
    deadline = time.monotonic() + WAIT_S
    while len(server.query("count_over_time(killick_redis_up[1m]) > 1")) < len(pages):
        assert time.monotonic() < deadline, "Prometheus did not scrape both"
        time.sleep(0.1)
    yield server
    for one in pages:
        one.close()


def words_of(page: Json, server: PrometheusServer) -> list[str]:
    """The texts in a dashboard's picture, in their order."""
    svg, height = drawn(Asked(Prometheus(server.url), page, Span.until_now(60.0, 1.0), 1.0, {}))
    root = ET.fromstring(svg)  # noqa: S314 - we wrote it a moment ago
    assert root.attrib["height"] == str(height)
    return [one.text or "" for one in root.iter("{http://www.w3.org/2000/svg}text")]


def test_every_panel_is_drawn_with_what_prometheus_has(scraped: PrometheusServer) -> None:
    """All panels are there; numbers, states, tables and what stands where there is nothing say what was scraped."""
    deadline = time.monotonic() + WAIT_S
    texts, missed = {"health": ["none yet"]}, {"no partition", "none yet"}
    while missed & {*texts["health"]} and time.monotonic() < deadline:  # a busy machine misses a scrape
        texts = {name: words_of(page, scraped) for name, page in dashboards().items()}
    for name, page in dashboards().items():
        assert {one["title"] for one in panels_of(page)} <= set(texts[name])
    health, retraining, skill = texts["health"], texts["retraining"], texts["skill"]
    assert health[health.index("Lag") + 1] == "7"
    assert health[health.index("Newest observation") + 1] == "2013-07-31 00:00"
    assert health[health.index("Latency, 99 %") + 1] == "no forecasts"
    assert retraining[retraining.index("Version that answers") + 1] == "2"
    assert retraining[retraining.index("Automatic promotion") + 1] == "paused"
    assert "version 1: shadow" in retraining
    row = skill.index("ks", skill.index("Detectors now"))
    assert skill[row : row + 3] == ["ks", "0.100", "0.250"]


@pytest.mark.parametrize(
    ("unit", "decimals", "value", "text"),
    [
        ("short", 0, 0.0, "0"),
        ("short", 0, 1234.0, "1.23k"),
        ("s", 3, 0.0483, "48.3 ms"),
        ("s", 0, 7200.0, "2.00 h"),
        ("bytes", 1, 0.0, "0 B"),
        ("percentunit", 2, 0.0014, "0.14 %"),
        ("none", 2, -0.001, "0.00"),
        ("cps", None, 0.0, "0/s"),
        ("dateTimeAsIso", None, 0.0, "1970-01-01 00:00"),
    ],
)
def test_a_value_is_written_in_its_unit(unit: str, decimals: int | None, value: float, text: str) -> None:
    """As a person would write it, nothing and less than nothing included."""
    assert written({"unit": unit, "decimals": decimals}, value) == text


def test_a_colour_comes_from_words_before_thresholds() -> None:
    """A value that has a word has the word's colour, any other the highest threshold's that it reaches."""
    steps = [{"value": None, "color": "green"}, {"value": 1.0, "color": "red"}]
    look = {"thresholds": {"steps": steps}, "mappings": [{"options": {"1": {"text": "up", "color": "blue"}}}]}
    assert len({color_of(look, value) for value in (0.9, 1.0, 1.1)}) == 3
    assert color_of(look, 0.9) == color_of(look, -5.0)
