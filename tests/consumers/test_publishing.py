"""Publishing: in order, as the same bytes again, and the mark only behind what was acknowledged."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.codec import Encoder
from consumers.ledger import DIGEST_HEADER, RawRecord, Refused
from consumers.publishing import Publisher
from consumers.stream import Folded, Refusal
from models.blocks import Block, empty_block
from models.errors import LedgerError, ServiceUnreachable
from tests.streams import FORM

if TYPE_CHECKING:
    from consumers.codec import Headers


@dataclass
class Sent:
    """One record that was handed over, and what became of it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None
    done: bool = False
    error: Exception | None = None
    too_big: bool = False
    bad_time: bool = False

    def acknowledge(self) -> None:
        """The broker has it."""
        self.done = True

    def fail(self, *, too_big: bool = False, bad_time: bool = False) -> None:
        """The broker refused it for good."""
        self.done, self.error, self.too_big, self.bad_time = True, ValueError("refused"), too_big, bad_time


@dataclass
class Topic:
    """Takes records; `room` bounds how many before it says that it takes nothing now."""

    sent: list[Sent] = field(default_factory=list)
    room: int = 10**9

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int | None
    ) -> Sent:
        """Keep the record, not acknowledged."""
        if len(self.sent) >= self.room:
            raise ServiceUnreachable("Kafka took nothing")
        self.sent.append(Sent(topic, key, value, headers, timestamp_ms))
        return self.sent[-1]


def publisher_to(topic: Topic) -> Publisher:
    """A publisher of partition 3."""
    return Publisher(topic, Encoder(FORM, "m", "observations", 3), "predictions", "dead", "observations")


def folded_of(start: int, n: int) -> Folded:
    """A block of `n` observations of one series each, forecast by two versions."""
    steps = np.arange(start, start + n)
    block = Block(start, start + n, steps, steps - start, steps + 100, np.zeros((n, 2)), np.ones((n, 2), np.bool_))
    one = np.repeat(steps[:, None], 3, axis=1).astype(np.float32)
    return Folded(block, {1: one, 2: -one}, Counter())


NAMES = [f"s{i}" for i in range(50)]


def add(publisher: Publisher, start: int, n: int, refused: int = 0, record: RawRecord | None = None) -> None:
    """Queue a block and so many refusals."""
    letters = [
        Refused(Refusal(start + n + i, "late", "why"), record or RawRecord(b"k", b"raw %d" % i, (), 77))
        for i in range(refused)
    ]
    publisher.add(start + n + refused, folded_of(start, n), 1, NAMES, letters, partition=3, polled_at=1.0)


def test_a_block_becomes_forecasts_and_dead_letters() -> None:
    """The incumbent's forecasts with key, source and no timestamp; refusals with their own timestamp and why."""
    topic = Topic()
    publisher = publisher_to(topic)
    add(publisher, 10, 2, refused=1)
    assert topic.sent == []
    publisher.send()
    one, two, letter = topic.sent
    assert (one.topic, one.key, one.timestamp_ms) == ("predictions", b"s0", None)
    found = json.loads(two.value or b"")
    assert (found["series"], found["version"], found["values"]) == ("s1", 1, [11.0] * 3)
    assert dict(two.headers)["source-offset"] == b"11"
    assert (letter.topic, letter.key, letter.value, letter.timestamp_ms) == ("dead", b"k", b"raw 0", 77)
    own = dict(letter.headers)
    assert (own["killick-topic"], own["killick-partition"], own["killick-offset"]) == (b"observations", b"3", b"12")


def test_nothing_is_sent_twice_and_all_of_it_goes() -> None:
    """A client that takes nothing now is asked again from where it stopped."""
    topic = Topic(room=2)
    publisher = publisher_to(topic)
    add(publisher, 0, 3, refused=1)
    add(publisher, 4, 2)
    for room in (2, 3, 5):
        topic.room = room
        with pytest.raises(ServiceUnreachable):
            publisher.send()
    topic.room = 100
    publisher.send()
    publisher.send()
    assert [sent.topic for sent in topic.sent] == ["predictions"] * 3 + ["dead"] + ["predictions"] * 2
    assert [dict(sent.headers).get("source-offset") for sent in topic.sent] == [b"0", b"1", b"2", None, b"4", b"5"]
    assert publisher.outstanding == 6


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=5), st.data())
def test_the_mark_never_passes_what_is_not_acknowledged(shape: list[tuple[int, int]], data: st.DataObject) -> None:
    """Acknowledgements in any order: a block is settled when it and all before it are, and then at once."""
    topic = Topic()
    publisher = publisher_to(topic)
    ends, needed = [], []
    at = count = 0
    for n, refused in shape:
        add(publisher, at, n, refused)
        at, count = at + n + refused, count + n + refused
        ends.append(at)
        needed.append(count)
    publisher.send()
    marks: list[int] = []
    for index in data.draw(st.permutations(range(count))):
        topic.sent[index].acknowledge()
        marks += [publication.end for publication in publisher.settle(3)]
        prefix = next((i for i, sent in enumerate(topic.sent) if not sent.done), count)
        assert marks == [end for end, need in zip(ends, needed, strict=True) if need <= prefix]
        assert publisher.outstanding >= sum(not sent.done for sent in topic.sent)
    marks += [publication.end for publication in publisher.settle(3)]
    assert marks == ends
    assert publisher.outstanding == 0


def test_a_block_that_brings_nothing_settles_in_its_turn() -> None:
    """The mark passes it only after what was before it."""
    topic = Topic()
    publisher = publisher_to(topic)
    add(publisher, 0, 1)
    publisher.add(9, Folded(empty_block(9, 2), {}, Counter()), 1, NAMES, (), partition=3, polled_at=None)
    publisher.send()
    assert publisher.settle(3) == []
    topic.sent[0].acknowledge()
    assert [publication.end for publication in publisher.settle(3)] == [1, 9]


def test_forecasts_are_counted_without_dead_letters() -> None:
    """For the latency histogram."""
    topic = Topic()
    publisher = publisher_to(topic)
    add(publisher, 0, 3, refused=2)
    publisher.send()
    for sent in topic.sent:
        sent.acknowledge()
    (publication,) = publisher.settle(3)
    assert (publication.forecasts, publication.outstanding) == (3, 0)


def test_a_version_without_forecasts_publishes_none() -> None:
    """Nobody answers yet, or the incumbent did not run in this block: no forecasts, but the mark goes on."""
    for version in (None, 9):
        topic = Topic()
        publisher = publisher_to(topic)
        publisher.add(2, folded_of(0, 2), version, NAMES, (), partition=3, polled_at=None)
        publisher.send()
        assert topic.sent == []
        assert [publication.end for publication in publisher.settle(3)] == [2]


def test_a_dead_letter_too_big_for_its_topic_goes_as_its_digest() -> None:
    """In its place and with its reason; what comes after it waits for it."""
    topic = Topic()
    publisher = publisher_to(topic)
    record = RawRecord(b"key", b"x" * 1_000, (("h", b"v"),), 77)
    add(publisher, 0, 1, refused=2, record=record)
    add(publisher, 3, 1)
    publisher.send()
    for sent in topic.sent:
        sent.acknowledge()
    topic.sent[1].fail(too_big=True)
    assert publisher.settle(3) == []
    assert len(topic.sent) == 5
    again = topic.sent[-1]
    assert (again.topic, again.key, again.timestamp_ms) == ("dead", b"key", 77)
    assert json.loads(again.value or b"") == {"sha256": hashlib.sha256(b"x" * 1_000).hexdigest(), "bytes": 1_000}
    own = dict(again.headers)
    assert own["killick-offset"] == b"1"
    assert DIGEST_HEADER in own
    assert publisher.settle(3) == []
    again.acknowledge()
    assert [publication.end for publication in publisher.settle(3)] == [3, 4]


def test_a_dead_letter_whose_time_is_refused_keeps_it_in_a_header() -> None:
    """It is sent once more with the time of sending."""
    topic = Topic()
    publisher = publisher_to(topic)
    add(publisher, 0, 0, refused=1, record=RawRecord(b"key", b"value", (("h", b"v"),), 77))
    publisher.send()
    topic.sent[0].fail(bad_time=True)
    assert publisher.settle(3) == []
    again = topic.sent[-1]
    assert (again.key, again.value, again.timestamp_ms) == (b"key", b"value", None)
    assert again.headers == [*topic.sent[0].headers, ("killick-timestamp", b"77")]
    again.acknowledge()
    assert len(publisher.settle(3)) == 1


@pytest.mark.parametrize("which", ["a forecast", "a dead letter", "a digest", "a forecast too big"])
def test_what_a_topic_refuses_for_good_is_a_stop(which: str) -> None:
    """The message names the topic and what to look at."""
    topic = Topic()
    publisher = publisher_to(topic)
    digest = RawRecord(b"k", b"{}", ((DIGEST_HEADER, b"1"),), 5)
    add(publisher, 0, 1, refused=1, record=digest if which == "a digest" else None)
    publisher.send()
    for sent in topic.sent:
        sent.acknowledge()
    forecast = which.startswith("a forecast")
    topic.sent[0 if forecast else 1].fail(too_big=which in ("a digest", "a forecast too big"))
    name = "predictions" if forecast else "dead"
    with pytest.raises(LedgerError, match=rf"topic '{name}' refused a record for good \(refused\): see the topic's"):
        publisher.settle(3)


def test_what_is_published_again_is_the_same_bytes() -> None:
    """Another publisher, as after a crash, sends equal keys, values and headers."""
    topics = [Topic(), Topic()]
    for topic in topics:
        publisher = publisher_to(topic)
        add(publisher, 0, 5, refused=1)
        publisher.send()
    assert topics[0].sent == topics[1].sent
