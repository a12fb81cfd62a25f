"""A real Prometheus reads what our processes serve, applies our rules, and serves the runbooks that alerts name."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from consumers.roster import Seat
from models.errors import ServiceUnreachable
from tests.services.processes import alive
from worker.child import free_port
from worker.metrics import ConsumerMetrics, Health, Pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import NewPrometheus
    from tests.services.prometheus import PrometheusServer, Sample

WAIT_S = 30.0


@pytest.fixture
def told() -> ConsumerMetrics:
    """The metrics of a consumer that had one event of each kind."""
    told = ConsumerMetrics("m")
    told.redis_up(up=True)
    told.roster(0, (Seat(2, "incumbent", 0, 0), Seat(1, "shadow", 0, 0)))
    told.lag(0, 7)
    told.diverged(0, "")
    told.block(Counter({"observations": 90, "refused.late": 10, "forecasts": 90}), 2)
    told.commit(0.002)
    told.acknowledged(0.02, 90)
    told.rewound()
    return told


@pytest.fixture
def consumer(told: ConsumerMetrics) -> Iterator[str]:
    """host:port of a consumer's pages."""
    pages = Pages("127.0.0.1", 0, told.registry, lambda: Health(alive=True, waiting_for="", details={}))
    yield pages.url.removeprefix("http://")
    pages.close()


def until(look: Callable[[], list[Sample]], what: str) -> list[Sample]:
    """What `look` finds as soon as it finds something."""
    deadline = time.monotonic() + WAIT_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not come within {WAIT_S:g} s"
        time.sleep(0.1)
    return found


def value(server: PrometheusServer, expr: str) -> float:
    """The value of the only series that a query gives, waited for."""
    found = until(lambda: server.query(expr), expr)
    assert len(found) == 1, found
    return found[0].value


def test_prometheus_reads_what_a_consumer_serves(
    new_prometheus: NewPrometheus, told: ConsumerMetrics, consumer: str
) -> None:
    """Under its job's name, with every value that the process has, now and as it changes; a dead one is down."""
    nobody = f"127.0.0.1:{free_port()}"
    server = new_prometheus([consumer, nobody])
    assert value(server, f'up{{job="killick-consumer", instance="{consumer}"}} == 1') == 1
    assert value(server, f'up{{job="killick-consumer", instance="{nobody}"}}') == 0
    assert {one["health"] for one in server.targets().values()} == {"up", "down"}
    assert server.targets()[nobody]["labels"]["job"] == "killick-consumer"
    assert value(server, 'killick_observations_total{model="m", outcome="accepted"}') == 90
    assert value(server, 'killick_forecast_latency_seconds_bucket{le="0.025"}') == 90
    began = time.time()
    told.lag(0, 31)
    assert value(server, "killick_consumer_lag_records == 31") == 31
    series = server.query_range("killick_consumer_lag_records", began, time.time() + 1, 0.1)
    assert [labels["partition"] for labels, _ in series] == ["0"]
    assert series[0][1][-1][1] == 31


def test_our_rules_give_figures_and_alerts(new_prometheus: NewPrometheus, told: ConsumerMetrics, consumer: str) -> None:
    """Every rule evaluates without an error; a rewind at the start is an alert, whose link leads to its runbook."""
    server = new_prometheus([consumer])
    assert value(server, "model:killick_consumer_lag_records:sum") == 7
    assert value(server, "model:killick_dead_letters:ratio1h") == pytest.approx(0.1)
    found = until(lambda: server.query('ALERTS{alertname="KillickLedgerRewound", alertstate="firing"}'), "the alert")
    assert found[0].labels["model"] == "m"
    rules = server.rules()
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] == "err"] == []
    assert len({rule["name"] for rule in rules}) == len(rules) > 40
    link = next(r for r in rules if r["name"] == "KillickLedgerRewound")["alerts"][0]["annotations"]["runbook_url"]
    with urllib.request.urlopen(link, timeout=5) as page:  # noqa: S310 - our own server
        assert page.read().startswith(b"# KillickLedgerRewound\n")


def test_targets_may_come_and_go(new_prometheus: NewPrometheus, consumer: str, tmp_path: Path) -> None:
    """What somebody writes to the files of targets is scraped from then on, without a restart."""
    server = new_prometheus(targets=tmp_path)
    assert server.targets() == {}
    (tmp_path / "consumers.yml").write_text(f"- targets: [{consumer}]\n", encoding="utf-8")
    assert value(server, 'up{job="killick-consumer"}') == 1


def test_a_server_is_gone_when_it_is_closed(new_prometheus: NewPrometheus) -> None:
    """Its process and its data are removed; a query that it can't read says so, and one after its end too."""
    server = new_prometheus()
    assert server.query("1 + 1")[0].value == 2
    with pytest.raises(ServiceUnreachable, match=r"refused query .*parse error"):
        server.query("sum by (")
    server.close()
    assert not alive(server.process.pid)
    assert not server.directory.exists()
    with pytest.raises(ServiceUnreachable, match="does not answer"):
        server.query("1")
