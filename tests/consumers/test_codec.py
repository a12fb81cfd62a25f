"""The codec: no bytes stop it, every refusal says why, and forecasts come back as the same singles."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from consumers.codec import (
    MAX_DEAD_LETTER_BYTES,
    MAX_ERROR_CHARS,
    MAX_NAME_CHARS,
    RESENT_HEADER,
    Decoder,
    Encoder,
    dead_letter,
    digest_record,
    printable,
    raw_record,
)
from consumers.ledger import RawRecord, Refused
from consumers.messages import Prediction, message_schema
from consumers.stream import Reason, Refusal
from models.scaling import SeriesForm
from models.times import to_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumers.stream import Arrivals

HOUR_MS = 3_600_000
FORM = SeriesForm(("temp", "dewp"), "temp", HOUR_MS, 24, 168.0, 30, 6)
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_357_020_000_000  # 2013-01-01T06:00:00Z
GOOD = b'{"series":"JFK","time":"2013-01-01T06:00:00Z","values":{"temp":39.0,"dewp":26.1}}'


@dataclass
class Record:
    """A Kafka record."""

    value: bytes | None = GOOD
    key: bytes | None = None
    timestamp: int = NOW_MS
    headers: Sequence[tuple[str, bytes | None]] = field(default_factory=list)
    offset: int = 0


def decode(*records: Record) -> Arrivals:
    """What becomes of these records, in order."""
    for offset, record in enumerate(records):
        record.offset = offset
    return Decoder(FORM, DAY_MS).decode(records, 0, len(records))


# — what is accepted —


def test_a_record_becomes_a_row() -> None:
    """Series, step, values in the order of the features, and the mask."""
    found = decode(Record(), Record(b'{"values":{"dewp":null,"x":1,"temp":-1e3},"time":1357020000001}', b"LGA"))
    assert found.refusals == []
    assert found.series == ["JFK", "LGA"]
    assert found.step.tolist() == [NOW_MS // HOUR_MS] * 2
    assert found.values.tolist() == [[39.0, 26.1], [-1000.0, 0.0]]
    assert found.present.tolist() == [[True, True], [True, False]]
    assert found.offset.tolist() == [0, 1]
    assert found.resent.tolist() == [False, False]
    assert (found.start, found.end) == (0, 2)


@pytest.mark.parametrize(
    ("time", "ms"),
    [
        (b'"2013-01-01T06:00:00Z"', NOW_MS),
        (b'"2013-01-01t06:00:00z"', NOW_MS),
        (b'"2013-01-01T01:00:00-05:00"', NOW_MS),
        (b'"2013-01-01T11:30:00.000+05:30"', NOW_MS),
        (b'"2013-01-01 06:00:00Z"', NOW_MS),
        (b"1357020000000", NOW_MS),
        (b'"1969-12-31T23:29:59Z"', -HOUR_MS),
        (b"-1800001", -HOUR_MS),
        (b'"2013-01-01T06:30:00Z"', NOW_MS + HOUR_MS),
        (b'"2013-01-01T06:29:59.999Z"', NOW_MS),
    ],
)
def test_times_become_the_nearest_step(time: bytes, ms: int) -> None:
    """Any RFC 3339 time with an offset, or milliseconds; half an hour later belongs to the next hour."""
    found = decode(Record(b'{"series":"a","time":' + time + b',"values":{"temp":1,"dewp":2}}'))
    assert found.refusals == []
    assert found.step.tolist() == [ms // HOUR_MS]


@pytest.mark.parametrize(
    ("key", "series", "name"),
    [
        (b"JFK", b'"JFK"', "JFK"),
        (b"JFK", b"null", "JFK"),
        (b"", b'"JFK"', "JFK"),
        (None, b'"Z\xc3\xbcrich \\u00e9 \\ud83c\\udf27"', "Zürich é 🌧"),
        ("Zürich".encode(), b'"Z\\u00fcrich"', "Zürich"),
        (b"x" * MAX_NAME_CHARS, b"null", "x" * MAX_NAME_CHARS),
    ],
)
def test_the_series_is_named_by_key_or_value(key: bytes | None, series: bytes, name: str) -> None:
    """Either will do; an empty key is none."""
    found = decode(Record(b'{"series":' + series + b',"time":0,"values":{"temp":1,"dewp":2}}', key))
    assert found.refusals == []
    assert found.series == [name]


def test_a_resent_record_is_marked() -> None:
    """By the header that `deadletters resend` sets; other headers are nothing."""
    found = decode(Record(headers=[(RESENT_HEADER, b"1")]), Record(headers=[("x", None), ("trace", b"\xff")]))
    assert found.resent.tolist() == [True, False]


@pytest.mark.parametrize("timestamp", [-1, NOW_MS - DAY_MS, NOW_MS, 2**62])
def test_a_time_up_to_the_limit_beyond_the_records_timestamp_is_accepted(timestamp: int) -> None:
    """A day ahead is allowed; without a timestamp (-1) nothing can be said."""
    assert decode(Record(timestamp=timestamp)).refusals == []


# — what is refused —


def body(time: bytes = b"0", values: bytes = b'{"temp":1,"dewp":2}', rest: bytes = b'"series":"a",') -> bytes:
    """An observation with parts replaced."""
    return b"{" + rest + b'"time":' + time + b',"values":' + values + b"}"


REFUSED: list[tuple[Reason, str, Record]] = [
    ("malformed", "no value", Record(None, b"a")),
    ("malformed", "not JSON", Record(b"")),
    ("malformed", "not JSON", Record(b"   ")),
    ("malformed", "not JSON", Record(b"temp=1")),
    ("malformed", "not JSON", Record(GOOD[:-1])),
    ("malformed", "not JSON", Record(GOOD + b"}")),
    ("malformed", "not JSON", Record(GOOD + GOOD)),
    ("malformed", "not JSON", Record(b"\xef\xbb\xbf" + GOOD)),
    ("malformed", "not JSON", Record(GOOD.decode().encode("utf-16"))),
    ("malformed", "not JSON", Record(GOOD.decode().encode("utf-16-le"))),
    ("malformed", "not JSON", Record("{“series”: “a”}".encode())),
    ("malformed", "not JSON", Record(b'{"series":"Z\xfcrich","time":0,"values":{"temp":1,"dewp":2}}')),
    ("malformed", "not JSON", Record(b'{"series":"\\ud800","time":0,"values":{"temp":1,"dewp":2}}')),
    ("malformed", "not JSON", Record(b'{"series":"\xed\xa0\x80","time":0,"values":{"temp":1,"dewp":2}}')),
    ("malformed", "not JSON", Record(b"[" * 100_000)),
    ("malformed", "not JSON", Record(b'{"a":' * 100_000)),
    ("malformed", "not JSON", Record(b'{"series":"a","time":0,"x":' + b"[" * 9_999 + b"]" * 9_999 + b"}")),
    ("malformed", "text, not an object", Record(b'"a"')),
    ("malformed", "a list, not an object", Record(b"[1]")),
    ("malformed", "null or missing, not an object", Record(b"null")),
    ("malformed", "the number 5, not an object", Record(b"5")),
    ("no-series", "neither the value nor the key", Record(body(rest=b""))),
    ("no-series", "neither the value nor the key", Record(body(rest=b'"series":"",'), b"")),
    ("no-series", "the number 7, not text", Record(body(rest=b'"series":7,'), b"a")),
    ("no-series", "an object, not text", Record(body(rest=b'"series":{},'))),
    ("no-series", "201 characters, the limit is 200", Record(body(rest=b'"series":"' + b"x" * 201 + b'",'))),
    ("no-series", "201 characters, the limit is 200", Record(body(rest=b""), b"x" * 201)),
    ("no-series", "not UTF-8", Record(body(rest=b""), b"\xff\xfe")),
    ("key-mismatch", "series is 'a', the record's key says 'b'", Record(body(), b"b")),
    ("key-mismatch", "series is '', the record's key says 'b'", Record(body(rest=b'"series":"",'), b"b")),
    ("key-mismatch", "not UTF-8", Record(body(), b"\xff")),
    ("key-mismatch", "series is 'a', the record's key says 'kkk", Record(body(), b"k" * 5_000)),
    ("bad-time", "time is missing", Record(b'{"series":"a","values":{"temp":1,"dewp":2}}')),
    ("bad-time", "time is null or missing", Record(body(b"null"))),
    ("bad-time", "time is true or false", Record(body(b"true"))),
    ("bad-time", "time is the number 1.5", Record(body(b"1.5"))),
    ("bad-time", "time is a list", Record(body(b"[0]"))),
    ("bad-time", "'' is not RFC 3339", Record(body(b'""'))),
    ("bad-time", "'yesterday' is not RFC 3339", Record(body(b'"yesterday"'))),
    ("bad-time", "has no offset; add Z", Record(body(b'"2013-01-01T06:00:00"'))),
    ("bad-time", "is not RFC 3339", Record(body(b'"2013-01-01"'))),
    ("bad-time", "is not RFC 3339", Record(body(b'"2013-02-30T06:00:00Z"'))),
    ("bad-time", "is not RFC 3339", Record(body(b'"2013-01-01T25:00:00Z"'))),
    ("bad-time", "is not RFC 3339", Record(body(b'"1357020000000"'))),
    ("bad-time", "numbers are milliseconds since 1970", Record(body(b"1357020000000000"))),
    ("bad-time", "lies outside 1600 to 2400", Record(body(b"9" * 30))),
    ("bad-time", "lies outside 1600 to 2400", Record(body(b"-" + b"9" * 4_000))),
    ("bad-time", "lies outside 1600 to 2400", Record(body(b'"9999-12-31T23:59:59Z"'))),
    ("bad-time", "lies outside 1600 to 2400", Record(body(b'"0001-01-01T00:00:00+14:00"'))),
    ("missing-feature", "values have no 'dewp'", Record(body(values=b'{"temp":1}'))),
    ("missing-feature", "values have no 'temp'", Record(body(values=b"{}"))),
    ("missing-feature", "values is null or missing", Record(b'{"series":"a","time":0}')),
    ("missing-feature", "values is a list", Record(body(values=b"[1,2]"))),
    ("missing-feature", "values is the number 3", Record(body(values=b"3"))),
    ("not-a-number", "'temp' is text", Record(body(values=b'{"temp":"39","dewp":1}'))),
    ("not-a-number", "'temp' is true or false", Record(body(values=b'{"temp":true,"dewp":1}'))),
    ("not-a-number", "'dewp' is a list", Record(body(values=b'{"temp":1,"dewp":[1]}'))),
    ("not-a-number", "'temp' is 1e+39, the limit is", Record(body(values=b'{"temp":1e39,"dewp":1}'))),
    ("not-a-number", "'dewp' is -1.1e+30", Record(body(values=b'{"temp":1,"dewp":-1.1e30}'))),
    ("not-a-number", "'temp' is 1e+32", Record(body(values=b'{"temp":1' + b"0" * 32 + b',"dewp":1}'))),
    ("not-a-number", "beyond what can be read", Record(body(values=b'{"temp":1e400,"dewp":1}'))),
    ("not-a-number", "beyond what can be read", Record(body(values=b'{"temp":-1e999999999,"dewp":1}'))),
    ("not-a-number", "beyond what can be read", Record(body(values=b'{"temp":' + b"9" * 5_000 + b',"dewp":1}'))),
    ("not-a-number", "NaN and Infinity are not JSON", Record(body(values=b'{"temp":NaN,"dewp":1}'))),
    ("not-a-number", "NaN and Infinity are not JSON", Record(body(values=b'{"temp":-Infinity,"dewp":1}'))),
    ("future", "more than 86400 s beyond", Record(timestamp=NOW_MS - DAY_MS - 1)),
    ("future", "timestamp 1970-01-01T00:00:00Z", Record(timestamp=0)),
]


@pytest.mark.parametrize(("reason", "words", "record"), REFUSED)
def test_every_refusal_has_its_reason_and_words(reason: Reason, words: str, record: Record) -> None:
    """One row a case: the reason exactly, and what its producer is told; the record beside it goes on."""
    found = decode(record, Record())
    assert [(refusal.offset, refusal.reason) for refusal in found.refusals] == [(0, reason)]
    assert words in found.refusals[0].error
    assert len(found.refusals[0].error) <= MAX_ERROR_CHARS
    assert found.series == ["JFK"]


def test_every_reason_of_the_decoder_is_in_the_table() -> None:
    """Late, contradiction and too-many-series are for the stream core; each other one is shown above."""
    judged_later = {"late", "contradiction", "too-many-series"}
    assert {reason for reason, _, _ in REFUSED} == set(get_args(Reason)) - judged_later


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from((39.5, 1e30, 1e39, "2013-01-01T06:00:00Z", NOW_MS, "JFK"))
)
_trees = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
_numbers = st.none() | st.floats() | st.integers() | _trees


@st.composite
def near_observations(draw: st.DrawFn) -> bytes:
    """JSON (or what Python takes for it) that has most of an observation's fields, of any type."""
    fields = {
        "series": draw(st.sampled_from(("JFK", "", None)) | _trees),
        "time": draw(st.sampled_from(("2013-01-01T06:00:00Z", NOW_MS, "2013-01-01")) | _trees),
        "values": draw(st.fixed_dictionaries({"temp": _numbers, "dewp": _numbers}) | _trees),
    }
    for name in draw(st.sets(st.sampled_from(("series", "time", "values", "other")), max_size=2)):
        fields.pop(name, None)
    text = json.dumps(fields, ensure_ascii=draw(st.booleans()))
    encoding = draw(st.sampled_from(("utf-8", "utf-8", "utf-8", "utf-16", "utf-32-be", "latin-1")))
    return text.encode(encoding, "replace" if encoding == "latin-1" else "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An observation with some bytes changed, cut out or repeated."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 6))] = draw(st.binary(max_size=6))
    return bytes(data)


_keys = st.none() | st.binary(max_size=8) | st.sampled_from((b"JFK", b"\xed\xa0\x80", b"k" * 5_000))
_headers = st.lists(
    st.tuples(st.text(max_size=8) | st.just(RESENT_HEADER), st.none() | st.binary(max_size=8)), max_size=3
)
_values = st.none() | st.binary(max_size=50) | near_observations() | damaged()
_timestamps = st.sampled_from((-1, 0, NOW_MS, 2**63 - 1, -(2**63))) | st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=500)
@given(st.lists(st.builds(Record, _values, _keys, _timestamps, _headers), min_size=1, max_size=4))
@example([Record(timestamp=2**63 - 1), Record(timestamp=-(2**63))])
def test_no_record_stops_the_decoder(records: list[Record]) -> None:
    """Whatever bytes, keys, headers and timestamps: accepted with finite numbers, or refused with words."""
    found = decode(*records)
    refused = [refusal.offset for refusal in found.refusals]
    assert sorted(refused + found.offset.tolist()) == list(range(len(records)))
    assert np.isfinite(found.values).all()
    assert (np.abs(found.values) <= 1e30).all()
    assert not found.values[~found.present].any()
    assert len(found.series) == len(found.step) == len(found.values) == len(found.offset) == len(found.resent)
    for name in found.series:
        assert 0 < len(name) <= MAX_NAME_CHARS
        name.encode()
    for refusal in found.refusals:
        assert refusal.reason in get_args(Reason)
        assert 0 < len(refusal.error) <= MAX_ERROR_CHARS
        refusal.error.encode()
        check_dead_letter(records[refusal.offset], refusal)


def check_dead_letter(record: Record, refusal: Refusal) -> None:
    """Fail unless the dead letter has the record's exact bytes and headers, and ours after them."""
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(raw_record(record)), type=RawRecord)
    key, value, headers = dead_letter(Refused(refusal, raw), "observations", 3)
    own = dict(headers[len(record.headers) :])
    assert key == record.key
    assert value == (record.value if record.value is not None or record.key is not None else b"")
    assert [name for name, _ in headers[: len(record.headers)]] == [name for name, _ in record.headers]
    assert [content for _, content in headers[: len(record.headers)]] == [
        b"" if content is None else content for _, content in record.headers
    ]
    assert own["killick-reason"] == refusal.reason.encode()
    assert own["killick-error"] == refusal.error.encode()
    assert own["killick-topic"] == b"observations"
    assert (own["killick-partition"], own["killick-offset"]) == (b"3", str(refusal.offset).encode())
    nulls = [name for name, content in record.headers if content is None]
    assert json.loads(own.get("killick-null-headers", b"[]")) == nulls
    assert raw.timestamp_ms == record.timestamp


def test_huge_keys_are_not_remembered() -> None:
    """A producer of keys of a megabyte can't fill the memory: they are refused, and forgotten."""
    decoder = Decoder(FORM, DAY_MS)
    tracemalloc.start()
    try:
        for i in range(40):
            key = b"%d" % i + b"k" * 500_000
            assert decoder.decode([Record(GOOD, key)], 0, 1).refusals[0].reason == "key-mismatch"
            assert decoder.decode([Record(body(rest=b""), key)], 0, 1).refusals[0].reason == "no-series"
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 3_000_000


def test_long_times_are_not_remembered() -> None:
    """A time with a hundred thousand digits of a second is read, or refused, and forgotten."""
    decoder = Decoder(FORM, DAY_MS)
    for digits in (3, 9, 30, 100_000):
        decoder.decode([Record(body(b'"2013-01-01T06:00:00.' + b"1" * digits + b'Z"'))], 0, 1)
    assert len(str(decoder._times)) < 200


def test_what_is_remembered_of_times_and_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More different keys and times than are kept still decode alike."""
    monkeypatch.setattr("consumers.codec.MAX_CACHED", 10)
    decoder = Decoder(FORM, DAY_MS)
    records = [Record(body(b"%d" % (i * HOUR_MS), rest=b""), b"s%d" % (i % 50)) for i in range(300)]
    for offset, record in enumerate(records):
        record.offset = offset
    found = decoder.decode(records, 0, 300)
    assert found.step.tolist() == list(range(300))
    assert found.series == [f"s{i % 50}" for i in range(300)]
    assert len(decoder._times) <= 10
    assert len(decoder._keys) <= 10


def test_a_record_too_big_for_a_dead_letter_is_kept_as_its_digest() -> None:
    """SHA-256 and size instead of a megabyte; just below the limit it is kept whole."""
    value = b"x" * MAX_DEAD_LETTER_BYTES
    assert raw_record(Record(value)).value == value
    raw = raw_record(Record(value, b"k" * 300, headers=[("a", b"b")]))
    assert raw.is_digest
    assert json.loads(raw.value or b"") == {"sha256": hashlib.sha256(value).hexdigest(), "bytes": len(value)}
    assert raw.key == b"k" * MAX_NAME_CHARS
    assert digest_record(raw_record(Record(b"", None))).key is None


def test_a_record_of_nothing_can_be_sent_as_a_dead_letter() -> None:
    """Neither key nor value: the client could not send it, so an empty value and a header stand for it."""
    refusal = Refusal(4, "malformed", "no value")
    key, value, headers = dead_letter(Refused(refusal, RawRecord(None, None, (), 5)), "observations", 0)
    assert (key, value) == (None, b"")
    assert ("killick-null-value", b"1") in headers
    key, value, headers = dead_letter(Refused(refusal, RawRecord(b"k", None, (), 5)), "observations", 0)
    assert (key, value) == (b"k", None)
    assert "killick-null-value" not in dict(headers)


@given(st.text(alphabet=st.characters(), max_size=700))
@example("\ud800" * 300)
def test_words_of_a_refusal_can_always_be_written(text: str) -> None:
    """Lone surrogates are spelled out, and length is bounded; other text is unchanged."""
    found = printable(text)
    assert len(found.encode()) <= 4 * MAX_ERROR_CHARS
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert found == text[:MAX_ERROR_CHARS]


# — predictions —

_forecasts = st.integers(1, 4).flatmap(
    lambda h: nps.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(h)), elements=st.floats(width=32))
)


@settings(max_examples=200)
@given(_forecasts, st.lists(st.text(min_size=1, max_size=8), min_size=5, max_size=5), st.integers(-400_000, 3_000_000))
def test_predictions_are_json_and_give_back_the_same_singles(
    forecasts: np.ndarray, names: list[str], step: int
) -> None:
    """As the schema says, field by field; what is no number is null."""
    encoder = Encoder(FORM, 'wea"ther', "observations", 7)
    slot, steps = np.arange(len(forecasts)) % 5, step + np.arange(len(forecasts))
    for _ in range(2):  # the second time from what was kept
        records = encoder.encode(12, names, slot, steps, forecasts)
        assert len(records) == len(forecasts)
        for i, (key, value) in enumerate(records):
            check_prediction(key, value, names[slot[i]], int(steps[i]), forecasts[i])


def check_prediction(key: bytes, value: bytes, name: str, step: int, forecast: np.ndarray) -> None:
    """Fail unless a prediction is what its schema says."""
    assert key == name.encode()
    found = msgspec.json.decode(value, type=Prediction)
    plain = json.loads(value, parse_constant=pytest.fail)
    schema = message_schema("prediction")
    assert list(plain) == schema["required"] == list(schema["properties"])
    assert (found.model, found.series, found.version, found.target) == ('wea"ther', name, 12, "temp")
    times = (found.issued_at, *found.valid_at)
    assert [to_ms(datetime.fromisoformat(text)) for text in times] == [
        (step + k) * HOUR_MS for k in range(len(forecast) + 1)
    ]
    read = np.array([np.nan if x is None else x for x in found.values], np.float32)
    finite = np.isfinite(forecast)
    assert read[finite].tobytes() == forecast[finite].tobytes()
    assert [x is None for x in found.values] == (~finite).tolist()


def test_two_horizons_at_once_do_not_mix() -> None:
    """What is kept of times is kept by horizon, and of names by slot."""
    encoder = Encoder(FORM, "m", "observations", 0)
    one, two = np.array([0]), np.array([5])
    for horizon in (2, 3, 2):
        ((_, value),) = encoder.encode(1, ["a"], one, two, np.ones((1, horizon), np.float32))
        assert len(json.loads(value)["valid_at"]) == len(json.loads(value)["values"]) == horizon
    ((key, value),) = encoder.encode(1, ["a", "b"], np.array([1]), two, np.ones((1, 2), np.float32))
    assert (key, json.loads(value)["series"]) == (b"b", "b")


def test_headers_say_where_a_forecast_comes_from() -> None:
    """Topic, partition and offset of the observation, and that it is JSON."""
    assert dict(Encoder(FORM, "m", "obs", 7).headers(99)) == {
        "source-topic": b"obs",
        "source-partition": b"7",
        "source-offset": b"99",
        "content-type": b"application/json",
    }


def test_no_forecast_is_no_record() -> None:
    """A block of refusals only."""
    none = np.empty(0, np.int64)
    assert Encoder(FORM, "m", "obs", 0).encode(1, [], none, none, np.empty((0, 3), np.float32)) == []
