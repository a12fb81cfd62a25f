"""The servers of the tests are real, keep their data over a crash, and are gone when they are stopped."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import redis as redis_client
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from tests.services.processes import alive
from worker.child import listens

if TYPE_CHECKING:
    from tests.conftest import NewKafka, NewRedis, Topics
    from tests.services.kafka import KafkaBroker
    from tests.services.redis import RedisServer


def _produce(servers: str, topic: str, values: list[bytes]) -> None:
    producer = KafkaProducer(bootstrap_servers=servers)
    sent = [
        producer.send(topic, v, key=b"k", headers=[("h", b"\x00\xff")], timestamp_ms=1_000 + i)
        for i, v in enumerate(values)
    ]
    producer.flush()
    for future in sent:
        future.get(timeout=30)
    producer.close()


def _consume(servers: str, topic: str, count: int) -> list[Any]:
    consumer = KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    records: list[Any] = []
    deadline = time.monotonic() + 30
    while len(records) < count and time.monotonic() < deadline:
        for batch in consumer.poll(timeout_ms=500).values():
            records += batch
    consumer.close()
    return records


def test_kafka_gives_back_what_was_produced(kafka: KafkaBroker, topics: Topics) -> None:
    """Values, keys, headers and timestamps come back from the broker as they were sent, in order."""
    topic = topics(partitions=1)
    values = [f"value {i}".encode() for i in range(1_000)]
    _produce(kafka.bootstrap_servers, topic, values)
    records = _consume(kafka.bootstrap_servers, topic, len(values))
    assert [r.value for r in records] == values
    assert {r.key for r in records} == {b"k"}
    assert [r.timestamp for r in records] == [1_000 + i for i in range(1_000)]
    assert [tuple(h) for h in records[7].headers] == [("h", b"\x00\xff")]


def test_topics_have_the_partitions_asked_for(kafka: KafkaBroker, topics: Topics) -> None:
    """The factory gives every topic a name of its own and as many partitions as it was asked for."""
    first, second = topics(partitions=3), topics(partitions=1)
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)
    assert first != second
    assert consumer.partitions_for_topic(first) == {0, 1, 2}
    assert consumer.partitions_for_topic(second) == {0}
    consumer.close()


def test_kafka_keeps_its_data_over_a_kill(new_kafka: NewKafka) -> None:
    """A broker that is killed and started again serves the same records on the same port."""
    broker = new_kafka()
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    topic = f"kept-{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(topic, 1, 1)])
    admin.close()
    _produce(broker.bootstrap_servers, topic, [b"a", b"b", b"c"])
    pid, port = broker.process.pid, broker.port
    broker.kill()
    assert not alive(pid)
    assert not listens(port)
    broker.restart()
    assert broker.port == port
    assert [r.value for r in _consume(broker.bootstrap_servers, topic, 3)] == [b"a", b"b", b"c"]
    broker.close()
    assert not alive(broker.process.pid)
    assert not broker.directory.exists()


def test_redis_keeps_its_data_over_a_kill(new_redis: NewRedis) -> None:
    """A Redis that is killed and started again has what it had acknowledged."""
    server = new_redis({"appendfsync": "always"})
    with redis_client.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
    pid, port = server.process.pid, server.port
    server.kill()
    assert not alive(pid)
    server.restart()
    assert server.port == port
    with redis_client.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
    server.stop()
    assert not alive(server.process.pid)
    assert not listens(port)


def test_redis_that_is_paused_does_not_answer_until_it_is_resumed(new_redis: NewRedis) -> None:
    """`pause` leaves connections open and unanswered; `resume` brings the answers back."""
    server = new_redis()
    with redis_client.Redis.from_url(server.url, socket_timeout=0.3, retry=None) as client:
        assert client.ping()
        server.process.pause()
        with pytest.raises(redis_client.TimeoutError):
            client.get("x")
        server.process.resume()
        assert client.ping()


def test_redis_url_is_empty_at_every_test(redis_server: RedisServer, redis_url: str) -> None:
    """The shared Redis has neither keys nor functions when a test gets it, and is reached by its address."""
    assert redis_url == redis_server.url
    with redis_client.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert client.function_list() == []


def test_store_is_redis_and_valkey(store_url: str) -> None:
    """Both stores know functions and keep an append-only file."""
    with redis_client.Redis.from_url(store_url) as client:
        code = "#!lua name=try\nredis.register_function('seven', function(keys, args) return 7 end)"
        client.function_load(code)
        assert client.fcall("seven", 0) == 7
        assert client.config_get("appendonly") == {"appendonly": "yes"}
