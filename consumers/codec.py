"""Records to columns, forecasts to records, refusals to dead letters. Bytes in and out; no Kafka client.

A record that can't be decoded is refused with a reason and words for its producer; the rest goes on.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import orjson

from consumers.ledger import DIGEST_HEADER, RawRecord, Refused
from consumers.stream import Arrivals, Reason, Refusal, Singles
from models.errors import KillickError
from models.times import EARLIEST_MS, LATEST_MS, rfc3339, step_of, to_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.scaling import Ints, SeriesForm

RESENT_HEADER = "killick-resent"
MAX_VALUE = 1e30  # beyond it a forecast would leave single precision
MAX_NAME_CHARS = 200
MAX_TIME_CHARS = 40  # of the times that are remembered
MAX_ERROR_CHARS = 500
MAX_CACHED = 16_384
MAX_CACHED_LEADS = 400_000  # times of leads that the encoder remembers: about 10 MB
MAX_DEAD_LETTER_BYTES = 900_000  # a topic's default limit is 1 MiB a record, headers included

Headers = list[tuple[str, bytes]]


class Record(Protocol):
    """What the codec reads of a Kafka record."""

    @property
    def offset(self) -> int:
        """Its offset in the log."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its value; None: a tombstone."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970; below 0: none."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Name and content of each header."""


class _Wire(msgspec.Struct):
    values: dict[str, float | None]
    time: str | int
    series: str | None = None


class _Refused(KillickError):
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Decoder:
    """Decodes the records of one partition for a model."""

    def __init__(self, form: SeriesForm, max_ahead_ms: int) -> None:
        self._form = form
        self._max_ahead_ms = max_ahead_ms
        self._decode = msgspec.json.Decoder(_Wire).decode
        self._times: dict[str | int, int] = {}
        self._keys: dict[bytes, str] = {}

    def decode(self, records: Sequence[Record], start: int, end: int) -> Arrivals:
        """The records' columns, in their order, covering offsets `start … end - 1`."""
        offsets: list[int] = []
        series: list[str] = []
        times: list[int] = []
        rows: list[list[float | None]] = []
        resent: list[bool] = []
        refusals: list[Refusal] = []
        for record in records:
            try:
                name, time_ms, row = self._read(record)
            except _Refused as refused:
                refusals.append(Refusal(record.offset, refused.reason, printable(refused.message)))
                continue
            offsets.append(record.offset)
            series.append(name)
            times.append(time_ms)
            rows.append(row)
            resent.append(bool(record.headers) and any(key == RESENT_HEADER for key, _ in record.headers))
        values = np.array(rows, np.float64).reshape(len(rows), len(self._form.features))
        present = ~np.isnan(values)
        values[~present] = 0.0
        return Arrivals(
            start, end, np.array(offsets, np.int64), series,
            step_of(np.array(times, np.int64), self._form.interval_ms), values, present,
            np.array(resent, np.bool_), refusals,
        )  # fmt: skip

    def _read(self, record: Record) -> tuple[str, int, list[float | None]]:
        if record.value is None:
            raise _Refused("malformed", "the record has no value")
        try:
            wire = self._decode(record.value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError, ValueError) as error:
            wire = self._salvage(record.value, error)
        name = self._name(record.key, wire.series)
        time_ms = self._times.get(wire.time)
        if time_ms is None:
            time_ms = self._time(wire.time)
        if 0 <= record.timestamp < time_ms - self._max_ahead_ms:
            raise _Refused(
                "future",
                f"time {rfc3339(time_ms)} is more than {self._max_ahead_ms // 1000} s beyond the record's "
                f"timestamp {rfc3339(record.timestamp)}",
            )
        try:
            row = [wire.values[feature] for feature in self._form.features]
        except KeyError as missing:
            raise _Refused(
                "missing-feature", f"values have no {missing.args[0]!r}; send null where it was not measured"
            ) from None
        for feature, value in zip(self._form.features, row, strict=True):
            if value is not None and not -MAX_VALUE <= value <= MAX_VALUE:
                raise _Refused("not-a-number", f"{feature!r} is {value!r}, the limit is ±{MAX_VALUE:g}")
        return name, time_ms, row

    def _name(self, key: bytes | None, name: str | None) -> str:
        if key:
            keyed = self._keys.get(key)
            if keyed is None:
                keyed = self._decode_key(key, name)
            if name is not None and name != keyed:
                raise _Refused("key-mismatch", f"series is {name!r}, the record's key says {keyed!r}")
            name = keyed
        if not name:
            raise _Refused("no-series", "neither the value nor the key names a series")
        if len(name) > MAX_NAME_CHARS:
            raise _Refused("no-series", f"a series name of {len(name)} characters, the limit is {MAX_NAME_CHARS}")
        return name

    def _decode_key(self, key: bytes, name: str | None) -> str:
        try:
            keyed = key.decode()
        except UnicodeDecodeError:
            reason: Reason = "no-series" if name is None else "key-mismatch"
            raise _Refused(reason, f"the record's key {key[:50]!r} is not UTF-8 text") from None
        if len(keyed) <= MAX_NAME_CHARS:  # a longer one will be refused: do not keep it
            if len(self._keys) >= MAX_CACHED:
                self._keys.clear()
            self._keys[key] = keyed
        return keyed

    def _time(self, time: str | int) -> int:
        if isinstance(time, str):
            try:
                moment = msgspec.convert(time, datetime)
            except (msgspec.ValidationError, ValueError, OverflowError):
                raise _Refused("bad-time", f"time {time[:50]!r} is not RFC 3339, as 2013-01-01T06:00:00Z is") from None
            if moment.tzinfo is None:
                raise _Refused("bad-time", f"time {time[:50]!r} has no offset; add Z where it is UTC")
            time_ms = to_ms(moment)
        else:
            time_ms = time
        if not EARLIEST_MS <= time_ms < LATEST_MS:
            raise _Refused(
                "bad-time",
                f"time {str(time)[:50]} lies outside {rfc3339(EARLIEST_MS)[:4]} to {rfc3339(LATEST_MS)[:4]}; "
                "numbers are milliseconds since 1970",
            )
        if isinstance(time, int) or len(time) <= MAX_TIME_CHARS:
            if len(self._times) >= MAX_CACHED:
                self._times.clear()
            self._times[time] = time_ms
        return time_ms

    def _salvage(self, value: bytes, error: Exception) -> _Wire:
        """The observation in a value that was not read at once: one whose other fields alone are odd.

        Raises:
            _Refused: for the first thing wrong with it, in the order of the fields.
        """
        try:
            found: Any = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError, ValueError) as worse:
            raise _not_json(value, worse) from None
        if not isinstance(found, dict):
            raise _Refused("malformed", f"the value is {_kind(found)}, not an object")
        if not isinstance(found.get("series"), str | None):
            raise _Refused("no-series", f"series is {_kind(found['series'])}, not text")
        if isinstance(found.get("time"), bool) or not isinstance(found.get("time"), str | int):
            kind = _kind(found["time"]) if "time" in found else "missing"
            raise _Refused("bad-time", f"time is {kind}; send RFC 3339 text or whole milliseconds")
        values = found.get("values")
        if not isinstance(values, dict):
            raise _Refused("missing-feature", f"values is {_kind(values)}, not an object of numbers")
        ours = {feature: values[feature] for feature in self._form.features if feature in values}
        for name, number in ours.items():
            if isinstance(number, bool) or not isinstance(number, int | float | None):
                raise _Refused("not-a-number", f"{name!r} is {_kind(number)}; send a number, or null if missing")
        try:
            return msgspec.convert({**found, "values": ours}, _Wire)
        except (msgspec.ValidationError, OverflowError):
            raise _Refused("not-a-number", f"a number is beyond what can be read ({error})") from None


def _not_json(value: bytes, error: Exception) -> _Refused:
    if "out of range" in str(error):
        return _Refused("not-a-number", f"a number is beyond what can be read ({error})")
    if b"NaN" in value or b"Infinity" in value:
        return _Refused("not-a-number", "NaN and Infinity are not JSON; send null where a value is missing")
    return _Refused("malformed", f"the value is not JSON ({error})")


class Encoder:
    """Encodes the forecasts of one partition; the parts that repeat are encoded once."""

    def __init__(self, form: SeriesForm, model: str, topic: str, partition: int) -> None:
        self._form = form
        self._model = model
        self._fixed: Headers = [
            ("source-topic", topic.encode()),
            ("source-partition", str(partition).encode()),
        ]
        self._content: Headers = [("content-type", b"application/json")]
        self._prefixes: dict[int, bytes] = {}
        self._texts: dict[int, bytes] = {}  # step → its time as JSON
        self._times: dict[tuple[int, int], tuple[bytes, bytes]] = {}

    def encode(
        self, version: int, names: Sequence[str], slot: Ints, step: Ints, forecasts: Singles
    ) -> list[tuple[bytes, bytes]]:
        """Key and value per forecast; values are the shortest text that gives back the same single."""
        if len(slot) == 0:
            return []
        horizon = forecasts.shape[1]
        if len(self._times) * horizon > MAX_CACHED_LEADS:
            self._times.clear()
            self._texts.clear()
        target = orjson.dumps(self._form.target)
        middle = b',"version":' + str(version).encode() + b',"target":' + target + b',"valid_at":'
        numbers = orjson.dumps(np.ascontiguousarray(forecasts), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
        records = []
        for at, when, row in zip(slot.tolist(), step.tolist(), numbers, strict=True):
            name = names[at]
            prefix = self._prefixes.get(at) or self._prefix(at, name)
            issued, valid = self._times.get((when, horizon)) or self._when(when, horizon)
            value = b"".join((prefix, issued, middle, valid, b',"values":[', row, b"]}"))
            records.append((name.encode(), value))
        return records

    def headers(self, offset: int) -> Headers:
        """Where the forecast comes from."""
        return [*self._fixed, ("source-offset", b"%d" % offset), *self._content]

    def _prefix(self, at: int, name: str) -> bytes:
        prefix = b'{"model":' + orjson.dumps(self._model) + b',"series":' + orjson.dumps(name) + b',"issued_at":'
        self._prefixes[at] = prefix
        return prefix

    def _when(self, step: int, horizon: int) -> tuple[bytes, bytes]:
        valid = b"[" + b",".join([self._text(step + lead) for lead in range(1, horizon + 1)]) + b"]"
        entry = (self._text(step), valid)
        self._times[step, horizon] = entry
        return entry

    def _text(self, step: int) -> bytes:
        text = self._texts.get(step)
        if text is None:
            text = self._texts[step] = orjson.dumps(rfc3339(step * self._form.interval_ms))
        return text


def raw_record(record: Record) -> RawRecord:
    """The record as a dead letter keeps it; one too big for a topic's default limit as its digest and size."""
    raw = RawRecord(record.key, record.value, tuple(record.headers or ()), record.timestamp)
    size = len(raw.key or b"") + len(raw.value or b"") + sum(len(content or b"") for _, content in raw.headers)
    return raw if size <= MAX_DEAD_LETTER_BYTES else digest_record(raw)


def digest_record(record: RawRecord) -> RawRecord:
    """What stands for a record that is too big: the digest and size of its value, its key as far as it goes."""
    value = record.value or b""
    summary = orjson.dumps({"sha256": hashlib.sha256(value).hexdigest(), "bytes": len(value)})
    key = None if record.key is None else record.key[:MAX_NAME_CHARS]
    return RawRecord(key, summary, ((DIGEST_HEADER, b"1"),), record.timestamp_ms)


def dead_letter(refused: Refused, topic: str, partition: int) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers of a dead letter: the original's, and why, and where it was."""
    record, refusal = refused.record, refused.refusal
    headers = [(key, b"" if content is None else content) for key, content in record.headers]
    nulls = [key for key, content in record.headers if content is None]
    added = {
        "killick-reason": refusal.reason,
        "killick-error": refusal.error,
        "killick-topic": topic,
        "killick-partition": str(partition),
        "killick-offset": str(refusal.offset),
    }
    if nulls:
        added["killick-null-headers"] = orjson.dumps(nulls).decode()
    key, value = record.key, record.value
    if key is None and value is None:  # the client can't send a record of nothing
        value = b""
        added["killick-null-value"] = "1"
    return key, value, [*headers, *((name, text.encode()) for name, text in added.items())]


def printable(text: str) -> str:
    """The text, cut to what a header should hold, without what UTF-8 can't say."""
    return text.encode("utf-8", "backslashreplace").decode()[:MAX_ERROR_CHARS]


def _kind(value: object) -> str:
    names = {
        bool: "true or false",
        str: "text",
        list: "a list",
        dict: "an object",
        type(None): "null or missing",
    }
    return names.get(type(value), f"the number {str(value)[:50]}")
