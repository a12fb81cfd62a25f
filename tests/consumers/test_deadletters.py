"""Dead letters as lines of JSON: they give back the record's exact bytes, and may be edited."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumers.codec import RESENT_HEADER, Decoder, dead_letter, raw_record
from consumers.deadletters import Letter, as_json, from_line, resent, to_letter
from consumers.ledger import Refused
from consumers.stream import Refusal
from models.errors import DataError
from tests.streams import FORM

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = (RESENT_HEADER, b"1")


@dataclass
class Record:
    """A Kafka record."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = field(default_factory=list)
    timestamp: int = 1_357_020_000_000
    offset: int = 12


def refused(record: Record, error: str = "too läte") -> Record:
    """The record that the dead-letter topic holds for a refused one."""
    letter = Refused(Refusal(record.offset, "late", error), raw_record(record))
    key, value, headers = dead_letter(letter, "observations", 3)
    return Record(key, value, list(headers), record.timestamp, 99)


def line_of(letter: Letter) -> bytes:
    """The line that `deadletters list --json` prints."""
    return json.dumps(as_json(letter), ensure_ascii=False).encode()


def test_a_letter_says_why_and_where() -> None:
    """Reason, error, topic, partition, offset and time; key, value and headers as they were."""
    record = refused(Record(b"JFK", b'{"a":1}', [("trace", b"7")]))
    assert as_json(to_letter(record)) == {
        "reason": "late",
        "error": "too läte",
        "topic": "observations",
        "partition": 3,
        "offset": 12,
        "time": "2013-01-01T06:00:00Z",
        "key": "JFK",
        "value": '{"a":1}',
        "headers": [{"name": "trace", "value": "7"}],
    }


_contents = st.none() | st.binary(max_size=12) | st.text(max_size=12).map(str.encode)
_headers = st.lists(
    st.tuples(st.text(max_size=8).filter(lambda name: not name.startswith("killick-")), _contents), max_size=3
)


@settings(max_examples=300)
@given(_contents, _contents, _headers, st.integers(-(2**63), 2**63 - 1), st.text(max_size=20))
@example(None, None, [], -1, "")
@example(b"\xff", b"\xfe", [("h", b"\xfd"), ("h", None)], 2**63 - 1, "x")
def test_lines_give_back_the_exact_record(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], timestamp: int, error: str
) -> None:
    """Through the topic, a line of JSON and back: the same bytes; a header of nothing is an empty one."""
    letter = to_letter(refused(Record(key, value, headers, timestamp), error))
    read = from_line(line_of(letter), 1)
    assert read == letter
    assert (read.reason, read.offset) == ("late", 12)
    assert read.error == error or not error
    nothing = key is None and value is None
    assert resent(read) == (
        key,
        b"" if nothing else value,
        [*((name, content or b"") for name, content in headers), MARK],
    )


def test_a_record_that_was_resent_and_refused_again_carries_one_mark() -> None:
    """Nor do our own headers pile up from one refusal to the next, and the last reason counts."""
    record = Record(b"k", b"v", [("trace", b"1")])
    for error in ("first", "second", "third"):
        letter = to_letter(refused(record, error))
        assert letter.error == error
        key, value, headers = resent(letter)
        assert headers == [("trace", b"1"), MARK]
        record = Record(key, value, list(headers))


def test_a_repaired_letter_is_sent_as_it_was_edited() -> None:
    """Value and key may be changed in the line; the decoder takes what comes of it, marked as resent."""
    line = line_of(to_letter(refused(Record(b"JFK", b'{"time":0,"values":{"v":"1","w":2}}'))))
    edited = json.loads(line)
    edited["value"] = edited["value"].replace('"1"', "1")
    key, value, headers = resent(from_line(json.dumps(edited).encode(), 1))
    found = Decoder(FORM, 1).decode([Record(key, value, list(headers), offset=0)], 0, 1)
    assert found.refusals == []
    assert found.series == ["JFK"]
    assert found.resent.tolist() == [True]


def test_bytes_that_are_no_text_are_base64() -> None:
    """Text where it is UTF-8, base64 where it is not."""
    letter = to_letter(refused(Record(b"\xff\0", b"\xed\xa0\x80", [("h", b"\x80")])))
    assert (letter.key, letter.value) == (None, None)
    assert base64.b64decode(letter.key_base64 or "") == b"\xff\0"
    assert as_json(letter)["headers"] == [{"name": "h", "value_base64": "gA=="}]


_own_names = ("killick-reason", "killick-error", "killick-partition", "killick-offset", "killick-null-value", "x")


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(_own_names), st.none() | st.binary(max_size=6) | st.just("²".encode()))),
    _contents,
)
@example([("killick-offset", b"9" * 5_000)], b"v")
@example([("killick-partition", "²".encode())], b"v")
def test_records_that_others_wrote_to_the_topic_are_letters_too(
    headers: list[tuple[str, bytes | None]], value: bytes | None
) -> None:
    """Whatever their headers hold: a letter that can be printed and read again."""
    letter = to_letter(Record(None, value, headers, timestamp=2**62))
    assert letter.reason
    assert from_line(line_of(letter), 1) == letter


@settings(max_examples=200)
@given(
    st.binary(max_size=40)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(("reason", "value", "headers", "offset")), x),
    ).map(lambda tree: json.dumps(tree).encode())
)
@example(b'{"a":' * 100_000)
@example(b"[" * 100_000)
@example(b'{"reason":"x","error":"","topic":"","partition":0,"offset":0,"time":"","value":"\\ud800"}')
def test_a_line_that_is_no_letter_is_refused_with_its_number(line: bytes) -> None:
    """DataError says which line, and what may be edited."""
    with pytest.raises(DataError, match=r"line 7 is not a letter.*edit only key, value and headers"):
        from_line(line, 7)


def test_base64_that_is_none_is_refused() -> None:
    """Of key, value or a header."""
    good = as_json(to_letter(refused(Record(b"\xff", b"\xff", [("h", b"\xff")]))))
    for changes in ({"key_base64": "?"}, {"value_base64": "a"}, {"headers": [{"name": "h", "value_base64": "é"}]}):
        letter = from_line(msgspec.json.encode({**good, **changes}), 1)
        with pytest.raises(DataError, match="is not base64"):
            resent(letter)
