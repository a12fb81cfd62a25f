"""Dead letters for people: read them, show them, put repaired ones through again.

As JSON a letter is one line, which may be edited: `value` is text, or `value_base64` where it is not UTF-8.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from consumers.codec import RESENT_HEADER, Headers, Record
from models.errors import DataError
from models.times import LATEST_MS, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consumers.kafka import Source

READ_S = 2.0
OWN = "killick-"
MAX_DIGITS = 20  # of an offset


class Header(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A header of a refused record; `value_base64` where it is not UTF-8."""

    name: str
    value: str | None = None
    value_base64: str | None = None


class Letter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A refused record, and why and where it was refused."""

    reason: str
    error: str
    topic: str
    partition: int
    offset: int
    time: str
    key: str | None = None
    key_base64: str | None = None
    value: str | None = None
    value_base64: str | None = None
    headers: list[Header] = []


def read_letters(source: Source) -> Iterator[Letter]:
    """Every letter in the dead-letter topic, partition by partition, oldest first.

    Raises:
        ServiceUnreachable: Kafka did not answer.
    """
    for change in source.changes():
        for number in change.partitions:
            begin, end = source.log_span(number)
            source.pause(change.partitions)
            position = begin
            if begin < end:
                source.start(number, begin)
            silent = 0
            while position < end and silent < 5:  # compaction or an aborted record may leave the end unreached
                found = source.poll(READ_S).get(number, [])
                silent = 0 if found else silent + 1
                for record in found:
                    position = record.offset + 1
                    if record.offset < end:
                        yield to_letter(record)


def to_letter(record: Record) -> Letter:
    """The letter that a dead-letter record is; what it lacks is said to be unknown."""
    headers = [(name, content or b"") for name, content in record.headers or ()]
    own = {
        name.removeprefix(OWN): content.decode(errors="replace") for name, content in headers if name.startswith(OWN)
    }
    key, key_base64 = _text(record.key)
    value, value_base64 = _text(None if own.get("null-value") else record.value)
    return Letter(
        reason=own.get("reason") or "unknown",
        error=own.get("error") or "the record has no killick headers",
        topic=own.get("topic", ""),
        partition=_number(own.get("partition")),
        offset=_number(own.get("offset")),
        time=rfc3339(record.timestamp) if 0 <= record.timestamp < LATEST_MS else "",
        key=key,
        key_base64=key_base64,
        value=value,
        value_base64=value_base64,
        headers=[_header(name, content) for name, content in headers if not name.startswith(OWN)],
    )


def from_line(line: bytes, number: int) -> Letter:
    """The letter of a line of JSON.

    Raises:
        DataError: it is not one.
    """
    try:
        return msgspec.json.decode(line, type=Letter)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"line {number} is not a letter ({error})", "edit only key, value and headers") from error


def resent(letter: Letter) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers with which a letter is sent again; the mark lets it be of the past.

    Raises:
        DataError: base64 that is none.
    """
    key = _bytes(letter.key, letter.key_base64)
    value = _bytes(letter.value, letter.value_base64)
    headers: Headers = [(h.name, _bytes(h.value, h.value_base64) or b"") for h in letter.headers]
    if key is None and value is None:
        value = b""  # the client can't send a record of nothing
    return key, value, [*headers, (RESENT_HEADER, b"1")]


def as_json(letter: Letter) -> Mapping[str, Any]:
    """The letter as an object."""
    built: Mapping[str, Any] = msgspec.to_builtins(letter)
    return built


def _header(name: str, content: bytes) -> Header:
    value, value_base64 = _text(content)
    return Header(name=name, value=value, value_base64=value_base64)


def _text(content: bytes | None) -> tuple[str | None, str | None]:
    if content is None:
        return None, None
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(content).decode()


def _bytes(text: str | None, encoded: str | None) -> bytes | None:
    if text is not None:
        return text.encode()
    if encoded is None:
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise DataError(f"{encoded[:40]!r} is not base64 ({error})") from error


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < MAX_DIGITS else -1
