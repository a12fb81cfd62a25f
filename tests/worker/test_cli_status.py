"""`killick status`: who answers where, how far, whether it follows; and at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from kafka import KafkaProducer

from consumers.ledger import Commit, Ledger, PartitionState
from consumers.roster import Seat
from models.blocks import empty_block
from models.registry import Registry
from models.server import connect
from tests.models.versions import register
from tests.streams import architecture_of
from worker import cli
from worker.gate_told import GateTold, TrialTold
from worker.requests import Progress, RequestStore
from worker.standing import Aside
from worker.store import START, Advance, ModelStore, PartitionStore, Request

if TYPE_CHECKING:
    from tests.conftest import Topics
    from tests.services.kafka import KafkaBroker

MODEL = "weather"
HEAVY = ("tensorflow", "pandas", "pyarrow", "scipy", "rich", "prometheus_client")
PROGRAM = f"""
import resource, sys
from worker import cli
code = cli.run(sys.argv[1:], sys.stderr)
used = resource.getrusage(resource.RUSAGE_SELF)
print([name for name in {HEAVY!r} if name in sys.modules], used.ru_utime + used.ru_stime, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def environment(redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Settings of a model with three versions, whose three partitions are in different states; Kafka is away."""
    client = connect(redis_url)
    registry = Registry(client, MODEL)
    for seed in range(3):
        register(registry, architecture_of(), seed)
    registry.promote(2, expected=1, actor="ann", reason="better", now_ms=1_772_366_400_000)
    registry.nominate(3, expected=None, actor="ann", reason="new", now_ms=1_772_366_400_000)
    registry.pause(actor="bob", reason="a holiday", now_ms=1_772_366_400_000)
    registry.set_partitions(4)  # the fourth was never taken
    states = [
        PartitionState("running", 3),
        PartitionState("spinning-up", 3, 3),
        PartitionState("diverged", 2, 2, "it has other features"),
    ]
    for number, state in enumerate(states):
        ledger = Ledger(client, MODEL, number, "mine")
        ledger.take(start=0, form="f", topic_id="t", partitions=4, chunk_slots=2)
        old = Seat(1, "incumbent", 0, 0, leave_offset=None if number == 2 else 5)
        seats = [old] if number == 2 else [old, Seat(2, "incumbent", 0, 5), Seat(3, "shadow", 2, 5)]
        counts = {"forecasts": 7, "pairs": 6, "refused.late": 1, "refused.future": 2}
        block = empty_block(5, 1)
        ledger.commit(Commit(0, block, new_names=["a"], counts=counts, roster=seats, generation=state.generation))
        ledger.note(state)
    client.close()
    return {
        **os.environ,
        "KILLICK_REDIS__URL": redis_url,
        "KILLICK_MODEL__NAME": MODEL,
        "KILLICK_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "KILLICK_CONFIG": str(empty(tmp_path)),
    }


def empty(folder: Path) -> Path:
    """A settings file without settings."""
    file = folder / "killick.toml"
    file.write_text("")
    return file


def killick(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own; what it imported and used is its last line of errors."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env=environment,
        cwd=Path(cli.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def status(environment: dict[str, str]) -> dict[str, Any]:
    """What `killick status --json` says."""
    found: dict[str, Any] = json.loads(killick(environment, "status", "--json").stdout)
    return found


def test_status_says_who_answers_where_and_who_does_not_follow(environment: dict[str, str]) -> None:
    """Aliases, the reason of a pause, and for each partition its versions, offsets, generation and state."""
    body = status(environment)
    assert (body["incumbent"], body["candidate"], body["previous"], body["generation"]) == (2, 3, 1, 3)
    assert (body["paused"], body["paused_why"]) == (True, "paused by bob at 2026-03-01T12:00:00Z: a holiday")
    first, second, third = body["partitions"]
    assert (first["incumbent"], first["since_offset"], first["shadows"], first["next_offset"]) == (2, 5, [3], 5)
    assert (first["state"], first["generation"], first["lag"]) == ("running", 3, None)
    assert (second["state"], second["state_version"]) == ("spinning-up", 3)
    assert (third["incumbent"], third["since_offset"], third["shadows"], third["generation"]) == (1, 0, [], 2)
    assert (third["state"], third["state_version"], third["state_why"]) == ("diverged", 2, "it has other features")


def test_status_says_what_is_under_way_to_replace_the_version(environment: dict[str, str]) -> None:
    """Requests, how far a retraining is, and the words of trial and guard."""
    client = connect(environment["KILLICK_REDIS__URL"])
    queue = RequestStore(client, MODEL, "w1")
    for name in "ab":
        queue.ask(Request(id=name, trigger="http", goal="improve", why="try", evidence={}, created_ms=5))
    assert "requests for retraining: 2; `killick verdicts` says more" in killick(environment, "status").stdout
    (entry, _) = queue.claim([one.entry for one in queue.waiting()], 1)
    progress = Progress(worker="w1", requests=("a",), began_ms=1, done=3, total=9, note="control")
    queue.keep([entry], progress, 60_000)
    trial = TrialTold(version=3, against=2, verdict="a", mode="harm", alpha=0.01, words="it does no harm yet")
    ModelStore(client, MODEL, "m1").change("gate", 0, msgspec.msgpack.encode(GateTold(trial=trial)))
    client.close()
    body = status(environment)
    assert (body["requests"], body["retraining"]) == (2, "3 of 9 trainings done, control")
    assert (body["trial"], body["guard"]) == ("it does no harm yet (running)", "")
    lines = killick(environment, "status").stdout.splitlines()
    assert "requests for retraining: 2; 3 of 9 trainings done, control" in lines
    assert "trial: it does no harm yet (running)" in lines


def test_status_is_read_by_people(environment: dict[str, str]) -> None:
    """The lines on top say who is who, and a row of the table what is not as it should be."""
    lines = killick(environment, "status").stdout.splitlines()
    assert lines[:3] == [
        "model weather: version 2 answers, generation 3",
        "candidate 3, previous 1",
        "automatic promotion is paused until `killick resume`: paused by bob at 2026-03-01T12:00:00Z: a holiday",
    ]
    assert lines[3] == "no monitor runs (`killick monitor`): 15 records are not counted yet"
    assert lines[4].split() == [
        "partition", "version", "since", "next", "lag", "published", "series", "forecasts", "pairs", "refused",
        "generation", "shadows", "state",
    ]  # fmt: skip
    assert lines[5].split() == ["0", "2", "5", "5", "?", "0", "1", "7", "6", "3", "3", "3", "running"]
    assert lines[6].endswith("spinning-up: version 3")
    assert "2 of 3" in lines[7]
    assert lines[7].endswith("diverged: version 2 (it has other features)")


def test_status_says_whether_a_monitor_runs_and_how_far_it_is(environment: dict[str, str], redis_url: str) -> None:
    """A lease that somebody holds is a monitor at work; counted is what was read, and records that were refused."""
    client = connect(redis_url)
    assert ModelStore(client, MODEL, "mine").lease(60_000)
    for number in range(3):
        store = PartitionStore(client, MODEL, number, "mine")
        store.take()
        store.advance(Advance(START, f"{5 if number else 3}-1", 0, 0))
    refusing = Ledger(client, MODEL, 1, "again")
    refusing.take(start=0, form="f", topic_id="t", partitions=4, chunk_slots=2)
    refusing.commit(Commit(5, replace(empty_block(5, 1), end=9)))  # four records, none of which was accepted
    body = status(environment)
    assert body["monitor"]
    assert [partition["monitored"] for partition in body["partitions"]] == [3, 9, 5]
    assert "a monitor runs, 2 records are not counted yet" in killick(environment, "status").stdout


def test_status_asks_kafka_for_the_lag(environment: dict[str, str], kafka: KafkaBroker, topics: Topics) -> None:
    """The end of each log less the next offset; where Kafka is away the rest is said all the same."""
    topic = topics(4)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    for number in range(12):
        producer.send(topic, b"x", partition=0 if number < 9 else 1).get(timeout=30)
    producer.close()
    environment |= {"KILLICK_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "KILLICK_KAFKA__OBSERVATIONS": topic}
    for _ in range(10):  # a busy machine may be too slow for the time that Kafka is given
        lags = [partition["lag"] for partition in status(environment)["partitions"]]
        if lags[0] is not None:
            break
    assert lags == [4, 0, 0]


def test_status_is_there_at_once(environment: dict[str, str]) -> None:
    """It imports nothing heavy, and the best of three runs uses less than half a second of one core."""
    used = []
    for _ in range(3):
        imported, _, seconds = killick(environment, "status").stderr.splitlines()[-1].rpartition(" ")
        assert imported == "[]"
        used.append(float(seconds))
    assert min(used) < 0.5


def test_what_is_asked_aside_keeps_nobody_waiting() -> None:
    """Where the answer takes longer than there is time for, there is none yet; later there is."""

    def slow() -> int:
        time.sleep(0.5)
        return 7

    began = time.monotonic()
    aside = Aside(slow)
    assert aside.found(0.1) is None
    assert time.monotonic() - began < 0.4
    assert aside.found(10.0) == 7
