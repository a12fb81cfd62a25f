"""The door to Kafka, as far as it can be shown without a broker: records that the client could not read."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from consumers.kafka import Source
from models.errors import NotReady
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


WAITS = """
import gc, os, threading
from contextlib import suppress
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from consumers.kafka import client_options, opened
from models.errors import ServiceUnreachable

gc.disable()  # as where little else is done
options = client_options("127.0.0.1:1") | {"bootstrap_timeout_ms": 50}
for kind in (KafkaConsumer, KafkaProducer, KafkaAdminClient):
    for _ in range(12):
        with suppress(ServiceUnreachable):
            opened(kind, options)
            print("there is a broker")
    print(threading.active_count(), len(os.listdir("/proc/self/fd")) < 12)
"""


def test_clients_that_find_no_broker_leave_nothing_behind() -> None:
    """No thread, and the sockets of the last one at most: a service may wait for its broker for days."""
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["1 True"] * 3


def test_a_source_whose_topic_is_not_there_leaves_no_thread_behind() -> None:
    """Of a service that reads by hand and waits for its topic."""
    before = set(threading.enumerate())
    with embedded_services() as services:
        with pytest.raises(NotReady, match="topic 'nowhere' is not there"):
            Source(services.bootstrap_servers, "nowhere", "", manual=True)
        assert set(threading.enumerate()) == before
