"""Servers that go away and come back: the consumer waits, says so, goes on by itself, and nothing is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.integration.feeding import feeding
from tests.integration.harness import ConsumerProcess, Stack, wait
from tests.integration.oracle import check
from tests.integration.streams import troubled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import NewKafka, NewRedis
    from tests.services.kafka import KafkaBroker

SETTINGS: dict[str, dict[str, Any]] = {
    "kafka": {"max_poll_records": 100, "session_timeout": "3s"},
    "redis": {"timeout": "500ms"},
    "ledger": {"snapshot_every": 1000},
}
NOTICED_S = 15.0
STOPS_S = 8.0
RATE = 2_000  # records a second


def waits_for(process: ConsumerProcess, subject: str) -> None:
    """Wait until /readyz says 503 and names the subject; meanwhile /healthz stays well."""
    wait(lambda: subject in process.waiting_for(), NOTICED_S, lambda: f"/readyz: {process.page('/readyz')}")
    assert process.page("/healthz")[0] == 200


def complaints(process: ConsumerProcess) -> list[str]:
    """What the process logged above INFO, but for what it says of each server that promises no disk."""
    return [
        line["message"]
        for line in process.lines()
        if line["level"] not in ("DEBUG", "INFO") and line.get("action") != "no-promise"
    ]


def stops(stack: Stack, process: ConsumerProcess) -> None:
    """SIGTERM ends the process soon, with exit code 0, and all that was committed is published."""
    began = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - began < STOPS_S
    assert all(head is None or head.mark == head.next for head in stack.heads())


def test_consumer_outlives_redis(kafka: KafkaBroker, new_redis: NewRedis, tmp_path: Path) -> None:
    """Redis killed, then frozen, under load: one line each, 503 with the reason, and an exact outcome."""
    redis = new_redis()
    with Stack(kafka.bootstrap_servers, redis.url, tmp_path, settings=SETTINGS) as stack:
        stack.register()
        process = stack.consumer()
        process.ready()
        with feeding(stack, troubled(1, 50, 300), RATE):
            stack.reach(1000)
            redis.kill()
            waits_for(process, "Redis")
            assert process.metric("killick_redis_up") == 0
            time.sleep(1.0)
            assert len(complaints(process)) == 1
            redis.restart()
            process.ready()
            stack.reach(stack.progress() + 500)
            redis.process.pause()  # calls are taken and not answered: they may or may not have happened
            waits_for(process, "Redis")
            redis.process.resume()
            process.ready()
            stack.reach(stack.progress() + 100)
            stops(stack, process)  # in the midst of the stream
        assert len(process.lines("waiting")) == len(process.lines("resumed")) == len(complaints(process)) == 2
        process = stack.consumer()
        stack.done()
        assert process.metric("killick_redis_up") == 1
        stops(stack, process)
        check(stack)


def test_consumer_outlives_the_broker(new_kafka: NewKafka, redis_url: str, tmp_path: Path) -> None:
    """The broker killed under load: one line, 503 with the reason, and an exact outcome after its return."""
    broker = new_kafka()
    with Stack(broker.bootstrap_servers, redis_url, tmp_path, settings=SETTINGS) as stack:
        stack.register()
        process = stack.consumer()
        process.ready()
        with feeding(stack, troubled(2, 50, 300), RATE):
            stack.reach(2000)
            broker.kill()
            waits_for(process, "Kafka")
            time.sleep(1.0)
            assert len(complaints(process)) == 1
            broker.restart()
            process.ready()
        stack.done()
        assert len(process.lines("waiting")) == len(process.lines("resumed")) == len(complaints(process)) == 1
        stops(stack, process)
        check(stack)


def test_consumer_ends_in_order_without_its_broker(new_kafka: NewKafka, redis_url: str, tmp_path: Path) -> None:
    """SIGTERM while the broker is away ends the consumer too, and the next one publishes what it left."""
    broker = new_kafka()
    with Stack(broker.bootstrap_servers, redis_url, tmp_path, settings=SETTINGS) as stack:
        stack.register()
        process = stack.consumer()
        process.ready()
        with feeding(stack, troubled(8, 50, 60), RATE):
            stack.reach(500)
            broker.kill()
            waits_for(process, "Kafka")
            began = time.monotonic()
            assert process.stop(40) == 0
            assert time.monotonic() - began < 15
            broker.restart()
        stack.consumer()
        stack.done()
        check(stack)


def test_consumer_that_comes_first_waits_for_servers_topics_and_version(
    kafka: KafkaBroker, new_redis: NewRedis, tmp_path: Path
) -> None:
    """Started before Redis, the topics and a version are there, the consumer names each in turn, then goes on."""
    redis = new_redis()
    redis.stop()
    with Stack(kafka.bootstrap_servers, redis.url, tmp_path, settings=SETTINGS, create_topics=False) as stack:
        process = stack.consumer()
        waits_for(process, stack.settings.kafka.observations)
        stack.create_topics()
        waits_for(process, "Redis")
        redis.start()
        waits_for(process, "no version")
        assert "killick fit" in process.waiting_for()
        stack.send(troubled(3, 10, 40))
        stack.register()
        stack.done()
        stops(stack, process)
        check(stack)


def test_redis_that_lost_its_tail_is_rewound(kafka: KafkaBroker, new_redis: NewRedis, tmp_path: Path) -> None:
    """Redis comes back as it was a while ago: the running consumer goes back, counts it, and all is exact."""
    redis = new_redis({"appendonly": "no"})
    with Stack(kafka.bootstrap_servers, redis.url, tmp_path, settings=SETTINGS) as stack:
        stack.register()
        process = stack.consumer()
        process.ready()
        with feeding(stack, troubled(4, 50, 300), RATE):
            stack.reach(2000)
            stack.redis.save()
            kept = stack.progress()
            stack.reach(kept + 3000)
            redis.kill()
            redis.restart()
            assert stack.progress() < kept + 3000
            stack.reach(kept + 1)
        stack.done()
        assert process.metric("killick_ledger_rewinds_total") >= 1
        stops(stack, process)
        check(stack)


def test_emptied_redis_is_refused_and_accepted_on_demand(
    kafka: KafkaBroker, new_redis: NewRedis, tmp_path: Path
) -> None:
    """Redis lost everything: the consumer ends with the cure, at work and at the start; --accept-gap goes on."""
    redis = new_redis()
    with Stack(kafka.bootstrap_servers, redis.url, tmp_path, settings=SETTINGS, partitions=1) as stack:
        stack.register()
        process = stack.consumer()
        before = stack.send(troubled(5, 20, 60))
        stack.done()
        wait(lambda: process.metric("killick_consumer_lag_records") == 0, 10, "the lag")
        time.sleep(1.5)  # the group's offset is told to Kafka once a second
        stack.redis.flushall()
        stack.register()
        stack.send(troubled(6, 20, 10))
        for attempt in range(2):
            assert process.ended() == 1, attempt
            said = process.log.read_text(errors="replace")
            assert "ledger is empty" in said
            assert "--accept-gap" in said
            process = stack.consumer()
        assert process.ended() == 1
        process = stack.consumer("--accept-gap")
        stack.done()
        stops(stack, process)
        counted = stack.ledger(0).counters()
        sent = len(stack.records()[0]) - before
        assert 0 < counted["observations"] <= sent
        issued = [r for r in stack.predictions() if int(dict(r.headers)["source-offset"]) >= before]
        assert len(issued) == counted["forecasts"] == counted["observations"]


def test_records_deleted_before_they_were_read_are_counted(
    kafka: KafkaBroker, new_redis: NewRedis, tmp_path: Path
) -> None:
    """Retention took records away while no consumer ran: the hole is counted and passed over."""
    redis = new_redis()
    with Stack(kafka.bootstrap_servers, redis.url, tmp_path, settings=SETTINGS, partitions=1) as stack:
        stack.register()
        process = stack.consumer()
        first = stack.send(troubled(7, 20, 30))
        stack.done()
        stops(stack, process)
        second = stack.send(troubled(7, 20, 60))
        stack.delete_records(0, first + second // 2)
        process = stack.consumer()
        stack.done()
        stops(stack, process)
        assert stack.ledger(0).counters()["lost_records"] == second // 2
        assert stack.heads()[0].next == first + second  # type: ignore[union-attr]
