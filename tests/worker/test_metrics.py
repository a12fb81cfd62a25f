"""Metrics and pages of a process: what Prometheus and a supervisor are told."""

from __future__ import annotations

import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from consumers.roster import Seat
from models.errors import ConfigError
from worker import metrics
from worker.metrics import ConsumerMetrics, Health, Pages

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def health() -> list[Health]:
    """What the process says of itself; a test may put another in front."""
    return [Health(alive=True, waiting_for="", details={})]


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch, health: list[Health]) -> Iterator[Pages]:
    """The pages on a free port, for clients that say what they want within 0.2 s."""
    monkeypatch.setattr(metrics, "PAGE_TIMEOUT_S", 0.2)
    served = Pages("127.0.0.1", 0, ConsumerMetrics("m").registry, lambda: health[0])
    yield served
    served.close()


def status(url: str) -> int:
    """The status of a page."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_process_that_waits_is_alive_and_not_ready(pages: Pages, health: list[Health]) -> None:
    """/readyz fails while something is waited for, /healthz only when the process stands still."""
    answers = []
    for state in (health[0], Health(alive=True, waiting_for="Redis", details={}), Health(False, "", {})):
        health[0] = state
        answers.append((status(f"{pages.url}/healthz"), status(f"{pages.url}/readyz")))
    assert answers == [(200, 200), (200, 503), (503, 503)]
    assert (status(f"{pages.url}/metrics?x=1"), status(f"{pages.url}/nothing")) == (200, 404)


def test_a_client_that_asks_nothing_is_hung_up_on(pages: Pages) -> None:
    """A connection that stays silent is closed: it does not hold a thread for ever."""
    host, port = pages.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as silent:
        assert silent.recv(1) == b""


def test_a_client_that_goes_away_leaves_no_traceback(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Prometheus hangs up after its time-out; that is no error of the process. Other errors are logged."""
    left = threading.Event()

    def slowly() -> Health:
        left.wait(5)
        if not waiting:
            raise ZeroDivisionError("on purpose")
        return Health(alive=True, waiting_for="", details={"much": "x" * 1_000_000})

    served = Pages("127.0.0.1", 0, ConsumerMetrics("m").registry, slowly)
    for waiting in (True, False):
        left.clear()
        with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])), timeout=5) as client:
            client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
        left.set()
        time.sleep(0.3)
        assert ("a page could not be served" in caplog.text) == (not waiting)
    served.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_taken_is_a_wrong_setting(pages: Pages) -> None:
    """Two processes can't serve on one port: the message names it and the cure."""
    port = int(pages.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} .*: choose another http\.port"):
        Pages("127.0.0.1", port, ConsumerMetrics("m").registry, lambda: Health(True, "", {}))


def samples(told: ConsumerMetrics) -> dict[str, float]:
    """What Prometheus reads, without the names' common beginning."""
    lines = [line for line in generate_latest(told.registry).decode().splitlines() if line[0] != "#"]
    return {name.removeprefix("killick_"): float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_a_block_is_counted_by_outcome_reason_and_version() -> None:
    """What a commit counted is what the metrics show, refusals by reason too; an idle reason is not shown."""
    told = ConsumerMetrics("m")
    told.block(Counter({"observations": 5, "duplicates": 2, "refused.late": 3, "forecasts": 5, "gaps_bridged": 1}), 7)
    told.acknowledged(0.02, 5)
    shown = samples(told)
    wanted = {
        'observations_total{model="m",outcome="accepted"}': 5.0,
        'observations_total{model="m",outcome="duplicate"}': 2.0,
        'observations_total{model="m",outcome="refused"}': 3.0,
        'dead_letters_total{model="m",reason="late"}': 3.0,
        'forecasts_total{model="m",version="7"}': 5.0,
        'gaps_bridged_total{model="m"}': 1.0,
        'forecast_latency_seconds_bucket{le="0.01",model="m"}': 0.0,
        'forecast_latency_seconds_bucket{le="0.025",model="m"}': 5.0,
    }
    assert {name: shown[name] for name in wanted} == wanted
    assert not any('outcome="history"' in name for name in shown)


def test_a_partition_that_went_leaves_nothing_behind() -> None:
    """Nothing of a partition that is no longer ours is shown; asking twice is harmless."""
    told = ConsumerMetrics("m")
    told.lag(3, 17)
    assert b'killick_consumer_lag_records{model="m",partition="3"} 17.0' in generate_latest(told.registry)
    told.diverged(3, "the weights of version 3 are others")
    told.lag(3, None)
    told.lag(3, None)
    assert b"partition=" not in generate_latest(told.registry)


def versions(told: ConsumerMetrics) -> set[tuple[str, str]]:
    """The versions at work, with their roles."""
    found = [name for name, value in samples(told).items() if name.startswith("version_info{") and value == 1]
    return {(name.split('"')[5], name.split('"')[3]) for name in found}


def test_versions_are_shown_by_role_as_long_as_any_partition_has_them() -> None:
    """From the rosters of all partitions here: during a swap both incumbents; who left everywhere is gone."""
    told = ConsumerMetrics("m")
    old = (Seat(1, "incumbent", 0, 0),)
    new = (Seat(1, "incumbent", 0, 0, 50), Seat(2, "incumbent", 20, 50), Seat(1, "shadow", 0, 50))
    told.roster(0, old)
    told.roster(1, old)
    assert versions(told) == {("1", "incumbent")}
    told.roster(0, new)
    assert versions(told) == {("1", "incumbent"), ("2", "incumbent"), ("1", "shadow")}
    told.roster(1, new)
    assert versions(told) == {("2", "incumbent"), ("1", "shadow")}
    told.roster(0, ())
    assert versions(told) == {("2", "incumbent"), ("1", "shadow")}
    told.roster(1, ())
    told.roster(1, ())
    assert versions(told) == set()
    assert not any(name.startswith("version_info{") for name in samples(told))


def test_a_version_that_left_everywhere_leaves_no_counters_behind() -> None:
    """Its forecasts and the moment of its beginning are shown as long as it runs in any partition here."""
    told = ConsumerMetrics("m")
    told.roster(0, (Seat(1, "incumbent", 0, 0),))
    told.block(Counter({"observations": 5, "forecasts": 5}), 1)
    told.swapped(0, 1, 0.1)
    assert 'forecasts_total{model="m",version="1"}' in samples(told)
    told.roster(0, (Seat(1, "incumbent", 0, 0, 50), Seat(2, "incumbent", 20, 50)))
    assert not [name for name in samples(told) if 'version="1"' in name]


def test_swaps_and_spin_ups_are_timed() -> None:
    """Each partition's once, with the moment at which a version began to answer."""
    told = ConsumerMetrics("m")
    began = time.time()
    for partition, seconds in ((0, 0.2), (1, 7.0)):
        told.spun_up(partition, 2, seconds)
        told.swapped(partition, 2, 2 * seconds)
    shown = samples(told)
    wanted = {
        'spin_up_seconds_bucket{le="0.1",model="m"}': 0.0,
        'spin_up_seconds_bucket{le="0.25",model="m"}': 1.0,
        'spin_up_seconds_bucket{le="10.0",model="m"}': 2.0,
        'spin_up_seconds_sum{model="m"}': 7.2,
        'swap_seconds_bucket{le="0.25",model="m"}': 0.0,
        'swap_seconds_bucket{le="0.5",model="m"}': 1.0,
        'swap_seconds_count{model="m"}': 2.0,
        'swap_seconds_sum{model="m"}': 14.4,
    }
    assert {name: shown[name] for name in wanted} == wanted
    activated = shown['version_activated_timestamp_seconds{model="m",version="2"}']
    assert began - 1 <= activated <= time.time() + 1


def test_a_partition_that_can_not_follow_is_shown() -> None:
    """1 while it has diverged, 0 once it follows again; the others are not touched."""
    told = ConsumerMetrics("m")
    told.diverged(0, "")
    told.diverged(1, "the weights of version 3 are others")
    gauge = 'partition_diverged{{model="m",partition="{}"}}'
    assert [samples(told)[gauge.format(p)] for p in (0, 1)] == [0.0, 1.0]
    told.diverged(1, "")
    assert [samples(told)[gauge.format(p)] for p in (0, 1)] == [0.0, 0.0]
