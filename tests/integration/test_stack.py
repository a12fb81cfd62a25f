"""The whole stack without Docker: Kafka, Redis, Prometheus and `killick up`, and everything that asks Prometheus.

One scene, played once: two consumers and the monitor under the load of `killick produce`; a promotion, a rollback, a
candidate, records that can't be used, a consumer that is killed, and a drift. Then every query of every panel, variable
and annotation, every recording rule and every alert is put to that Prometheus.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import yaml

from models.times import rfc3339
from tests.conftest import require
from tests.grafana.queries import all_queries
from tests.integration.harness import ROOT, Message, Stack, wait
from tests.services import prometheus as prometheus_service
from tests.services import redis as redis_service
from tests.services.processes import children, gone
from tests.services.prometheus import PrometheusServer
from tests.services.redis import RedisServer
from tests.worker.api_served import verdict
from worker.child import Child
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.kafka import KafkaBroker
    from tests.services.prometheus import Sample

SERIES = 8
HOUR_MS = 3_600_000
START_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
FITTED, CALIBRATED, COMMANDED, SHIFTED, ENDED = 21 * 24, 28 * 24, 35 * 24, 43 * 24, 58 * 24  # steps
SHIFT, STRETCH = 60.0, 5.0
SILENT_S = 20.0
PROCESSES = {"api", "consumer-1", "consumer-2", "monitor", "retrainer-1"}
TOKEN = "a-token-of-the-stack"  # noqa: S105 - it opens nothing else
RULES = ROOT / "grafana" / "prometheus" / "rules"
GUARDED = "killick_guard_evidence"  # begins with a promotion, which would let the detectors begin anew: no drift here
METRIC = re.compile(r"\b((?:[a-z_]+:)?killick_\w+(?::\w+)?|up)\b(\{[^}]*\})?")
SETTINGS: dict[str, dict[str, Any]] = {
    "network": {"units": [8], "lags": 6},
    "training": {"epochs": 2},
    "swap": {"guard": "2d"},
    "drift": {"calibration_steps": 100, "recent": "2d"},
    "http": {"port": 0},
    "monitor": {"port": 0, "poll": "200ms"},
    "retraining": {
        "port": 0,
        "strategies": ["update-on-new"],
        "rates": [0.0005],
        "recents": ["all"],
        "epochs": 1,
        "repeats": 1,
        "new_data": "60d",
        "reports": "",
    },
}


class Up:
    """`killick up`, started when it is made; its lines are JSON."""

    def __init__(self, stack: Stack, *words: str) -> None:
        self._log = stack.directory / "up.log"
        self.process = Child("up", stack.words("up", *words), self._log, ROOT)
        self.process.start(lambda: len(self.lines(action="process-started")) >= len(PROCESSES), 30)

    def lines(self, **fields: str) -> list[dict[str, Any]]:
        """The lines that have these values in these fields."""
        if not self._log.exists():
            return []
        whole = self._log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        found = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in found if fields.items() <= line.items()]

    def pid_of(self, name: str) -> int:
        """The process of that name that was started last."""
        return int(self.lines(action="process-started", process_name=name)[-1]["pid"])


@dataclass
class Scene:
    """What was played, still running."""

    stack: Stack
    up: Up
    prometheus: PrometheusServer
    folder: Path

    def value(self, expr: str) -> float:
        """The largest value of a query; 0 where it gives none."""
        return max((sample.value for sample in self.prometheus.query(expr)), default=0.0)

    def asked(self, name: str) -> int:
        """The status of what the HTTP API answers to a question about the model."""
        (address,) = yaml.safe_load((self.folder / "targets" / "apis.yml").read_text())[0]["targets"]
        url = f"http://{address}/v1/models/{self.stack.model}/{name}"
        return httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20.0).status_code


def write_observations(path: Path) -> None:
    """Hours of several series: a daily cycle and noise; from `SHIFTED` on louder and on another level."""
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(ENDED, SERIES))
    for step in range(1, ENDED):
        noise[step] += 0.6 * noise[step - 1]
    values = 20 + 5 * np.sin(2 * np.pi * np.arange(ENDED) / 24)[:, None] + noise
    values[SHIFTED:] = SHIFT + STRETCH * values[SHIFTED:]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["time", "series", "value"])
        for step in range(ENDED):
            time_text = rfc3339(START_MS + step * HOUR_MS)
            rows.writerows([time_text, f"s{at}", round(value, 3)] for at, value in enumerate(values[step]))


@contextmanager
def sending(scene: Scene, since: int, until: int, steps_per_s: float) -> Iterator[None]:
    """`killick produce` sends these steps while the block runs; afterwards all of it is answered."""
    span = ["--since", f"{since}h", "--until", f"{until}h", "--speed", str(steps_per_s * 3600)]
    words = scene.stack.words("produce", str(scene.folder / "observations.csv"), "--series", "series", *span)
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as producer:
        yield
        _, errors = producer.communicate(timeout=60)
        assert producer.returncode == 0, errors
    scene.stack.done()


@pytest.fixture(scope="module")
def scene(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The stack after everything has happened to it, with all of it still running."""
    require(prometheus_service.missing())
    require("" if redis_service.redis_binary() else redis_service.REDIS_MISSING)
    folder = tmp_path_factory.mktemp("stack")
    (folder / "targets").mkdir()
    write_observations(folder / "observations.csv")
    archive = {"path": str(folder / "archive"), "rows": 400, "after": "1d"}
    (folder / "token").write_text(TOKEN)
    api = {"port": 0, "token_file": str(folder / "token")}
    with ExitStack() as opened:
        patch = opened.enter_context(pytest.MonkeyPatch.context())
        for name in [name for name in os.environ if name.startswith("KILLICK_")]:
            patch.delenv(name)
        redis = opened.enter_context(RedisServer(redis_service.redis_binary(), settings={"maxmemory": "512mb"}))
        stack = opened.enter_context(
            Stack(kafka.bootstrap_servers, redis.url, folder, settings={**SETTINGS, "archive": archive, "api": api})
        )
        fit = ["--series", "series", "--until", f"{FITTED}h"]
        stack.output("fit", str(folder / "observations.csv"), *fit)
        prometheus = opened.enter_context(PrometheusServer(targets=folder / "targets"))
        up = Up(stack, "--consumers", "2", "--targets", str(folder / "targets"))
        opened.callback(up.process.kill)
        played = Scene(stack, up, prometheus, folder)
        play(played)
        yield played


def play(scene: Scene) -> None:
    """What happens, in event time: a quiet week, commands, another quiet week, a drift and its aftermath."""
    stack = scene.stack
    wait(lambda: scene.value("count(up == 1)") == len(PROCESSES), 60, "Prometheus to see all processes")
    with sending(scene, FITTED, CALIBRATED, 60):
        stack.send([Message(b"s1", b"rubbish"), Message(b"s2", b'{"time":1704067200000,"values":{"value":"warm"}}')])
    trained = stack.registry.versions()[0]
    assert trained.version == 1
    for seed in (2, 3):
        stack.register(seed=seed)
    with sending(scene, CALIBRATED, COMMANDED, 30):
        stack.output("promote", "2", "--reason", "a try", "--actor", "ann")
        stack.output("rollback", "--reason", "it was worse", "--actor", "bob")
    stack.output("retrain", "--reason", "a try", "--actor", "ann", "--wait")
    on_trial(stack)
    assert scene.asked("status") == 200
    with sending(scene, COMMANDED, ENDED, 50):
        stack.reach(stack.progress() + 50 * SERIES)
        os.kill(scene.up.pid_of("consumer-1"), signal.SIGKILL)
    drifted = 'sum(killick_drifts_total{detector=~"adwin|page_hinkley"})'
    wait(lambda: scene.value(drifted) > 0, 30, "a drift of the loss")
    wait(lambda: scene.value("sum(killick_monitor_lag_records)") == 0, 30, "the monitor to have counted all")
    wait(lambda: scene.value('killick_drift_threshold{detector="adwin"}') > 0, 30, "detectors that are calibrated anew")
    firing = 'count(ALERTS{alertname="KillickLossDrift", alertstate="firing"})'
    wait(lambda: scene.value(firing) > 0, 30, "the alert of the drift")


def on_trial(stack: Stack) -> None:
    """A copy of version 1 goes on trial: neither can win."""
    by: dict[str, Any] = {"actor": "test", "reason": "to be judged", "now_ms": time.time_ns() // 1_000_000}
    candidate = stack.registry.aliases().candidate
    if candidate is not None:
        stack.registry.nominate(None, expected=candidate, **by)
    architecture, weights, _ = stack.registry.load(1)
    tried = stack.registry.register(architecture, weights, training={}, parent=1, **by)
    verdicts = VerdictStore(stack.redis, stack.model)
    verdicts.write(verdict("by hand", tried), "", [], before=verdicts.spent(), spends=0.01)
    stack.registry.nominate(tried, expected=None, **by)


def empty(samples: list[Sample]) -> bool:
    """Whether an answer shows nothing: no series, or none with a number."""
    return all(math.isnan(sample.value) for sample in samples)


def silent(scene: Scene, queries: list[str]) -> list[str]:
    """The queries that stay without data; on a busy machine a failed scrape leaves a hole of one interval."""
    deadline = time.monotonic() + SILENT_S
    while (queries := [query for query in queries if empty(scene.prometheus.query(query))]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.5)
    return queries


def test_every_query_of_the_dashboards_has_data(scene: Scene) -> None:
    """No panel, no variable and no annotation stays empty, once what it shows has happened."""
    queries = [one for one in all_queries({"model": scene.stack.model}) if GUARDED not in one.expr]
    assert len(queries) > 50
    without = silent(scene, [query.expr for query in queries])
    assert [query for query in queries if query.expr in without] == []
    assert empty(scene.prometheus.query("killick_nothing or killick_paused / 0 * 0"))  # such is an empty panel


def rules(kind: str) -> list[dict[str, Any]]:
    """The rules of the repository that are a `record` or an `alert`."""
    files = sorted(RULES.glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def test_every_recording_rule_records(scene: Scene) -> None:
    """Each recording rule has series, and its expression gives some now."""
    recorded = rules("record")
    assert recorded
    for names in ("record", "expr"):
        assert silent(scene, [rule[names] for rule in recorded]) == []


def test_every_alert_looks_at_what_is_there(scene: Scene) -> None:
    """Each metric that an alert reads exists with the labels that it asks for, so that it can fire."""
    alerts = rules("alert")
    assert alerts
    read = {}
    for alert in alerts:
        read[alert["alert"]] = [metric + labels for metric, labels in METRIC.findall(alert["expr"])]
    assert all(read.values()), read
    without = silent(scene, sorted({metric for found in read.values() for metric in found}))
    assert {alert: sorted({*found} & {*without}) for alert, found in read.items() if {*found} & {*without}} == {}


def test_prometheus_evaluates_every_rule_without_error(scene: Scene) -> None:
    """Prometheus itself says of each rule that it is well, and it has all of them."""
    found = scene.prometheus.rules()
    assert {rule["name"]: rule.get("lastError", "") for rule in found if rule["health"] != "ok"} == {}
    wanted = [rule["record"] for rule in rules("record")] + [rule["alert"] for rule in rules("alert")]
    assert sorted(rule["name"] for rule in found) == sorted(wanted)


def test_nothing_was_lost(scene: Scene) -> None:
    """Every record that was sent is forecast or refused, though a consumer was killed, and replayed with equal bits."""
    counted = scene.stack.ledger(0).counters(), scene.stack.ledger(1).counters()
    totals = {name: sum(one.get(name, 0) for one in counted) for name in counted[0]}
    assert totals["observations"] == (ENDED - FITTED) * SERIES
    assert len(scene.stack.dead_letters()) == 2
    assert scene.value("max(killick_replay_mismatches_total)") == 0


def test_the_killed_consumer_came_back(scene: Scene) -> None:
    """`killick up` counted the crash, said so loudly, and both consumers share the partitions again."""
    crashes = scene.up.lines(action="process-crashed")
    assert [(line["process_name"], line["crashes"], line["level"]) for line in crashes] == [("consumer-1", 1, "ERROR")]
    assert len(scene.up.lines(action="process-started", process_name="consumer-1")) == 2
    wait(lambda: scene.value("count(up == 1)") == len(PROCESSES), SILENT_S, "all of them to be up")
    assert {line["process_name"] for line in scene.up.lines() if "process_name" in line} == PROCESSES


def test_it_stops_in_order(scene: Scene) -> None:
    """SIGTERM ends everything in time, with exit code 0; no process stays."""
    pids = children(scene.up.process.pid)
    assert len(pids) == len(PROCESSES)
    began = time.monotonic()
    scene.up.process.stop(patience_s=30)
    assert time.monotonic() - began < 20
    process = scene.up.process._process
    assert process is not None
    assert process.returncode == 0
    assert gone(pids)
    assert scene.up.lines(action="stopped", message="all stopped; crashes meanwhile: 1")
