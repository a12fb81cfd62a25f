"""The door to Kafka, as far as it can be shown without a broker: records that the client could not read."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from consumers.kafka import Source, client_options, opened
from models.errors import NotReady, ServiceUnreachable
from worker.embedded import embedded_services

if TYPE_CHECKING:
    from consumers.codec import Record


class Name(str):
    """A header's name that is sent as other bytes than its text's."""

    __slots__ = ("sent",)
    sent: bytes

    def encode(self, *_: object) -> bytes:
        """The bytes that are sent."""
        return self.sent


def name_of(sent: bytes) -> Name:
    """A name that is sent as these bytes."""
    name = Name("name")
    name.sent = sent
    return name


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
def test_names_of_headers_that_are_no_text_do_not_stop_the_batch(compression: int) -> None:
    """Bytes that are no UTF-8 become question marks in the name; everything else of the batch is as it was sent."""
    builder = DefaultRecordBatchBuilder(2, compression, False, -1, -1, -1, 1_000_000)
    builder.append(0, 7, b"\xff\xfe", b"\xff\xfe", [(name_of(b"\xff\xfe"), b"\xff\xfe"), (name_of(b"a\xc3"), None)])
    builder.append(1, 8, b"key", b"value", [("größe", b"v")])
    found: list[Record] = list(DefaultRecordBatch(bytes(builder.build())))
    assert [(r.key, r.value, list(r.headers)) for r in found] == [
        (b"\xff\xfe", b"\xff\xfe", [("??", b"\xff\xfe"), ("a?", None)]),
        (b"key", b"value", [("größe", b"v")]),
    ]


@pytest.mark.parametrize("kind", [KafkaConsumer, KafkaProducer, KafkaAdminClient])
def test_a_client_that_finds_no_broker_leaves_no_thread_behind(kind: Any) -> None:
    """A service waits for its broker for days, with one client after another."""
    before = set(threading.enumerate())
    with pytest.raises(ServiceUnreachable, match="Kafka did not answer"):
        opened(kind, client_options("127.0.0.1:1") | {"bootstrap_timeout_ms": 300})
    assert set(threading.enumerate()) == before


def test_a_source_whose_topic_is_not_there_leaves_no_thread_behind() -> None:
    """Of a service that reads by hand and waits for its topic."""
    before = set(threading.enumerate())
    with embedded_services() as services:
        with pytest.raises(NotReady, match="topic 'nowhere' is not there"):
            Source(services.bootstrap_servers, "nowhere", "", manual=True)
        assert set(threading.enumerate()) == before
