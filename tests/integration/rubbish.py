"""Hypothesis strategies for records that are mostly not observations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.integration.harness import Message
from tests.integration.streams import FAR_MS, START_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

SPECIMENS: tuple[bytes, ...] = (
    b"",
    b"\xff\xfe{",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"[" * 5_000,
    b'{"values":' * 2_000,
    b'{"time":1704067200000,"values":{"value":NaN}}',
    b'{"time":1704067200000,"values":{"value":1e39}}',
    b'{"time":1704067200000,"values":{"value":1e999}}',
    b'{"time":1704067200000,"values":{"value":' + b"9" * 5_000 + b"}}",
    b'{"time":' + b"9" * 400 + b',"values":{"value":1}}',
    b'{"time":"2024-01-01T00:00:00","values":{"value":1}}',
    b'{"time":"9999-12-31T23:59:59.999999-23:59","values":{"value":1}}',
    b'{"time":"0001-01-01T00:00:00+23:59","values":{"value":1}}',
    b'{"time":true,"values":{"value":1}}',
    b'{"time":1704067200000,"values":{"value":true}}',
    b'{"time":1704067200000,"values":[1]}',
    b'{"series":"\\ud800","time":1704067200000,"values":{"value":1}}',
    b'{"series":"' + b"s" * 500 + b'","time":1704067200000,"values":{"value":1}}',
    '{"time":1704067200000,"values":{"value":1}}'.encode("utf-16"),
    b'\xef\xbb\xbf{"time":1704067200000,"values":{"value":1}}',
    json.dumps({"time": FAR_MS, "values": {"value": 1}}).encode(),
)

odd_numbers: st.SearchStrategy[Any] = st.one_of(
    st.floats(), st.integers(), st.integers(-(10**400), 10**400), st.none(), st.booleans(), st.text(max_size=8)
)
odd_times: st.SearchStrategy[Any] = st.one_of(
    st.integers(), st.integers(START_MS, START_MS + 10**9), st.datetimes().map(lambda t: t.isoformat()), st.text()
)
texts = st.text(max_size=12)
odd_bodies = st.fixed_dictionaries(
    {},
    optional={
        "series": st.one_of(texts, odd_numbers),
        "time": st.one_of(odd_times, odd_numbers),
        "values": st.one_of(st.dictionaries(st.sampled_from(["value", "load"]), odd_numbers), odd_numbers),
        "more": st.recursive(odd_numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    },
).map(lambda body: json.dumps(body).encode())
odd_values: st.SearchStrategy[bytes | None] = st.one_of(
    st.binary(max_size=60), odd_bodies, st.sampled_from(SPECIMENS), st.none()
)
keys = st.one_of(st.none(), st.binary(max_size=12), texts.map(str.encode), st.just(b"s" * 300))
headers = st.lists(
    st.tuples(
        st.sampled_from(["trace", "", "killick-reason", "killick-resent", "content-type"]) | st.text(max_size=6),
        st.none() | st.binary(max_size=12),
    ),
    max_size=3,
)


@st.composite
def odd_messages(draw: st.DrawFn) -> Message:
    """A record of any kind."""
    return Message(draw(keys), draw(odd_values), tuple(draw(headers)))


batches: st.SearchStrategy[Sequence[Message]] = st.lists(odd_messages(), min_size=200, max_size=200)
