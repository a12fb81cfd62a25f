"""The door to Kafka, as far as it can be shown without a broker: records that the client could not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

import consumers.kafka  # noqa: F401 - it mends the client

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
