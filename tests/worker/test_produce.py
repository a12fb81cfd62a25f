"""Sending a file of observations to a real Kafka."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from typing import TYPE_CHECKING

import click
import numpy as np
import pytest
from click.testing import CliRunner
from kafka import KafkaConsumer, TopicPartition

from consumers.history import History
from consumers.kafka_sink import Sink
from models.errors import ConfigError, DataError, ServiceUnreachable
from worker import cli
from worker.cli_history import Speed, moment_ms
from worker.patience import patiently
from worker.produce import Producer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import NewKafka, Topics
    from tests.services.kafka import KafkaBroker

START_MS = 1_357_020_000_000
HOUR_MS = 3_600_000


def history_of(hours: int, series: int = 2) -> History:
    """Hourly observations of some series, numbered one by one."""
    count = hours * series
    return History(
        series=tuple(f"s{number}" for number in range(series)),
        features=("value",),
        series_index=np.tile(np.arange(series), hours),
        time_ms=START_MS + HOUR_MS * np.repeat(np.arange(hours), series),
        values=np.arange(count, dtype=np.float64)[:, None],
        present=np.ones((count, 1), np.bool_),
    )


def records_of(broker: KafkaBroker, topic: str, count: int) -> list[tuple[bytes, float, int]]:
    """Key, value and timestamp of the topic's records, `count` of them, in the order of the values."""
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, metrics_enabled=False)
    found: list[tuple[bytes, float, int]] = []
    try:
        consumer.assign([TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()])
        consumer.seek_to_beginning()
        deadline = time.monotonic() + 30
        while len(found) < count and time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=500).values():
                found += [(r.key, json.loads(r.value)["values"]["value"], r.timestamp) for r in records]
    finally:
        consumer.close()
    return sorted(found, key=lambda record: record[1])


def test_sends_every_observation_with_its_key_and_time(kafka: KafkaBroker, topics: Topics, tmp_path: Path) -> None:
    """`killick produce` sends each row once, keyed by its series; the broker will not take it for old."""
    path = tmp_path / "load.csv"
    path.write_text("time,b,a\n2013-01-01T06:00Z,1,0\n2013-01-01T05:00Z,-1,-2\n2013-01-01T07:00Z,9,9\n")
    topic = topics(partitions=2)
    environment = {
        "KILLICK_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KILLICK_KAFKA__OBSERVATIONS": topic,
        "KILLICK_CONFIG": str(written_settings(tmp_path)),
    }
    words = ["produce", str(path), "--series-from-columns", "--until", "2013-01-01T07:00Z"]
    result = CliRunner().invoke(cli.killick, words, env=environment)
    assert result.exit_code == 0, result.output
    assert "sent 4 observations" in result.output
    found = records_of(kafka, topic, 4)
    assert [record[:2] for record in found] == [(b"a", -2.0), (b"b", -1.0), (b"a", 0.0), (b"b", 1.0)]
    assert all(abs(stamp - time.time() * 1_000) < 60_000 for _, _, stamp in found)


def written_settings(tmp_path: Path) -> Path:
    """A settings file of the defaults."""
    path = tmp_path / "settings.toml"
    path.write_text('[model]\nname = "test"\n')
    return path


def test_keeps_the_pace_of_event_time(kafka: KafkaBroker, topics: Topics) -> None:
    """At a speed of three hours a second, nine steps of an hour take no less than three seconds."""
    sink = Sink(kafka.bootstrap_servers)
    sent = Producer(sink, topics(), speed=3 * 3_600).run(history_of(hours=10))
    sink.close()
    assert sent.observations == 20
    assert 3.0 <= sent.seconds < 6.0


def test_waits_while_it_is_held_and_says_why(kafka: KafkaBroker, topics: Topics) -> None:
    """While there is a reason to wait nothing is sent, and the reason is reported."""
    reasons = ["a fit is running"] * 3
    said: list[tuple[int, str]] = []
    topic = topics()
    sink = Sink(kafka.bootstrap_servers)
    producer = Producer(
        sink,
        topic,
        report=lambda done, note="": said.append((done, note)),
        hold=lambda: reasons.pop() if reasons else "",
    )
    assert producer.run(history_of(hours=2)).seconds >= 0.75
    sink.close()
    assert said[:3] == [(0, "a fit is running")] * 3
    assert len(records_of(kafka, topic, 4)) == 4


def test_waits_for_a_broker_that_comes_back(new_kafka: NewKafka) -> None:
    """What is sent while the broker is killed and started again arrives, once and in order."""
    broker = new_kafka()
    from kafka.admin import KafkaAdminClient, NewTopic

    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    admin.create_topics([NewTopic("t", 1, 1)])
    admin.close()
    said: list[str] = []
    sink = Sink(broker.bootstrap_servers)
    producer = Producer(sink, "t", speed=100 * 3_600, report=lambda _done, note="": said.append(note))
    history = history_of(hours=300)
    thread = threading.Thread(target=producer.run, args=(history,))
    thread.start()
    time.sleep(1.0)
    broker.kill()
    time.sleep(4.0)
    broker.start()
    thread.join(timeout=60)
    assert not thread.is_alive()
    sink.close()
    assert any("waiting for Kafka" in note for note in said)
    assert [value for _, value, _ in records_of(broker, "t", len(history))] == list(range(len(history)))


def test_a_missing_topic_is_refused_with_its_cure(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A topic that is not there is not waited for."""
    path = tmp_path / "load.csv"
    path.write_text("time,value\n2013-01-01T06:00Z,1\n")
    environment = {
        "KILLICK_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KILLICK_KAFKA__OBSERVATIONS": "nowhere",
        "KILLICK_CONFIG": str(written_settings(tmp_path)),
    }
    result = CliRunner().invoke(cli.killick, ["produce", str(path)], env=environment)
    assert isinstance(result.exception, ConfigError)
    assert "--create-topics" in str(result.exception)


def test_patience_ends() -> None:
    """A service that stays away is tried again until patience ends; one that comes back is used."""
    tries = iter([False, True])

    def call() -> str:
        if not next(tries):
            raise ServiceUnreachable("not yet")
        return "there"

    assert patiently(call, patience_s=5.0) == "there"

    def away() -> None:
        raise ServiceUnreachable("never")

    with pytest.raises(ServiceUnreachable):
        patiently(away, patience_s=0.5)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2013-01-01T06:00:00Z", START_MS),
        ("2013-01-01 07:00+01:00", START_MS),
        ("2013-01-01T06:00", START_MS),
        (str(START_MS), START_MS),
        ("8w", 1_000 + 8 * 7 * 86_400_000),
        ("20130101", START_MS - 6 * HOUR_MS),
    ],
)
def test_moments_are_times_or_lengths_from_the_start(text: str, ms: int) -> None:
    """--since and --until take ISO times, epoch milliseconds and lengths from the file's first time."""
    assert moment_ms(text, 1_000) == ms


def test_what_is_no_moment_is_refused() -> None:
    """Text that is neither a time nor a length is refused; a length too, where there is no beginning to count from."""
    with pytest.raises(ConfigError, match=r"'tomorrow' is not a time.* or 56d"):
        moment_ms("tomorrow", 0)
    with pytest.raises(ConfigError, match=r"'56d' is not a time: write 2013-03-01 or 2013-03-01T06:00:00Z$"):
        moment_ms("56d")


def test_speed_is_max_or_above_zero() -> None:
    """A speed is "max" or a number above 0."""
    assert Speed().convert("max", None, None) is None
    assert Speed().convert("1.5", None, None) == 1.5
    for text in ("0", "-1", "nan", "inf", "fast"):
        with pytest.raises(click.BadParameter):
            Speed().convert(text, None, None)


def test_a_record_that_kafka_does_not_take_is_tried_again() -> None:
    """While nothing is known of the topic, the same record is handed over again, and the wait is reported."""

    class Slow:
        """A sink that takes nothing at first."""

        def __init__(self) -> None:
            self.refusals = 1
            self.taken: list[bytes | None] = []

        def send(self, topic: str, key: bytes | None, value: bytes | None) -> None:  # noqa: ARG002
            """Refuse once, then take."""
            if self.refusals:
                self.refusals -= 1
                raise ServiceUnreachable("Kafka took nothing")
            self.taken.append(value)

        def flush(self, timeout_s: float) -> bool:  # noqa: ARG002
            """At once."""
            return True

        def failed(self) -> Exception | None:
            """Never."""
            return None

    said: list[str] = []
    sink = Slow()
    history = history_of(hours=2, series=1)
    sent = Producer(sink, "t", report=lambda _done, note="": said.append(note)).run(history)
    assert sent.observations == 2
    assert sink.taken == [value for _, value, _ in history.messages()]
    assert said[0] == "waiting for Kafka (Kafka took nothing)"


def test_a_record_that_is_refused_for_good_ends_it(kafka: KafkaBroker, topics: Topics) -> None:
    """A record that the topic will never take ends the sending with what the broker said."""
    sink = Sink(kafka.bootstrap_servers)
    history = history_of(hours=1, series=1)
    wide = dataclasses.replace(history, series=("s" * 2_000,))
    topic = topics(configs={"max.message.bytes": "500"})
    with pytest.raises(DataError, match="refused a record"):
        Producer(sink, topic).run(wide)
    sink.close()
