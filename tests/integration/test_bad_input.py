"""Whatever comes in, the consumer lives, the good records are answered, and the bad ones are kept as they came."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.integration.harness import Message, Stack
from tests.integration.oracle import check
from tests.integration.rubbish import SPECIMENS, batches
from tests.integration.streams import HOUR_MS, START_MS, observation, troubled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.conftest import NewStack
    from tests.uninterrupted import Outcome

BATCHES = 4
OWN = ("killick-reason", "killick-error", "killick-topic", "killick-partition", "killick-offset")


def split_headers(letter: Any) -> tuple[list[tuple[str, bytes]], dict[str, bytes]]:
    """The headers that the record came with, and those that were added behind them."""
    names = [name for name, _ in letter.headers]
    start = max(i for i in range(len(names)) if tuple(names[i : i + len(OWN)]) == OWN)
    return letter.headers[:start], dict(letter.headers[start:])


def check_letters(stack: Stack, wanted: list[Outcome]) -> None:
    """Assert that every refused record lies in the dead-letter topic once, as it came, with what is to be known."""
    originals = {(r.partition, r.offset): r for part in stack.records() for r in part}
    seen = set()
    for letter in stack.dead_letters():
        original_headers, added = split_headers(letter)
        where = int(added["killick-partition"]), int(added["killick-offset"])
        assert where not in seen
        seen.add(where)
        original = originals[where]
        nulls = json.loads(added.get("killick-null-headers", b"[]"))
        as_sent = [(name, b"" if content is None else content) for name, content in original.headers]
        assert [name for name, content in original.headers if content is None] == nulls
        assert original_headers == as_sent
        value = original.value
        if (original.key, original.value) == (None, None):  # no client sends such a record: its letter says so
            value = b""
            assert added["killick-null-value"] == b"1"
        assert (letter.key, letter.value, letter.timestamp) == (original.key, value, original.timestamp)
        assert added["killick-topic"].decode() == stack.settings.kafka.observations
        assert added["killick-reason"].decode() == wanted[where[0]].refusals[where[1]]
        assert added["killick-error"].decode().strip()
    assert seen == {(number, offset) for number, want in enumerate(wanted) for offset in want.refusals}


def test_no_record_stops_the_consumer(new_stack: NewStack) -> None:
    """Rubbish of every kind among good records: exact outcome, and each refused record kept byte for byte."""
    stack = new_stack({"ledger": {"snapshot_every": 200}})
    stack.register()
    process = stack.consumer()
    good = troubled(21, 20, 1_000)
    stack.send(Message(b"series-1", value, (("h", None),)) for value in SPECIMENS)

    @settings(
        max_examples=BATCHES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(batches)
    def pour(batch: Sequence[Message]) -> None:
        stack.send(message for bad in batch for message in (bad, next(good)))

    pour()
    stack.done()
    assert process.stop() == 0
    wanted = check(stack)
    reasons = {reason for want in wanted for reason in want.refusals.values()}
    assert reasons >= {
        "malformed",
        "no-series",
        "key-mismatch",
        "bad-time",
        "missing-feature",
        "not-a-number",
        "future",
    }
    assert sum(len(want.forecasts) for want in wanted) > BATCHES * 100
    check_letters(stack, wanted)


def test_repaired_letters_are_put_through(new_stack: NewStack) -> None:
    """`deadletters resend` sends them as they were or as repaired: the new are forecast, the late go to history."""
    stack = new_stack(partitions=1)
    stack.register()
    process = stack.consumer()
    hours = [START_MS + t * HOUR_MS for t in range(60)]
    stack.send(observation("a", hour, {"value": 1.0 + hour % 7}) for hour in hours[:50])
    broken = [
        Message(b"a", b'{"time":%d,"values":{"value":"17"}}' % hours[50], (("trace", b"x1"),)),
        Message(b"a", b'{"time":%d,"values":{"value":21,}}' % hours[51]),
        observation("a", hours[3], {"value": 5.5}),  # late: for history
        Message(b"a", b"\xff\x00 beyond repair"),
    ]
    stack.send(broken)
    stack.done()
    lines = [json.loads(line) for line in stack.output("deadletters", "list", "--json").splitlines()]
    assert [line["reason"] for line in lines] == ["not-a-number", "malformed", "late", "malformed"]
    assert [line["offset"] for line in lines] == [50, 51, 52, 53]
    assert lines[0]["headers"] == [{"name": "trace", "value": "x1"}]
    assert base64.b64decode(lines[3]["value_base64"]) == broken[3].value
    assert stack.output("deadletters", "list", "--reason", "late").count("late") == 1
    for line, (old, new) in zip(lines[:2], (('"17"', "17"), ("21,", "21")), strict=True):
        line["value"] = line["value"].replace(old, new)
    file = "\n".join(json.dumps(line) for line in lines[:3]).encode()
    assert "3 records" in stack.output("deadletters", "resend", "--from", "-", "--yes", given=file)
    stack.done()
    counted = stack.ledger(0).counters()
    assert counted["observations"] == 52
    assert counted["history"] == 1
    assert stack.records()[0][-1].headers[-1][0] == "killick-resent"
    assert "1 record" in stack.output("deadletters", "resend", "--reason", "not-a-number", "--yes")
    stack.done()
    assert stack.ledger(0).counters()["refused.not-a-number"] == 2
    assert process.stop() == 0
    (history,) = list(stack.ledger(0).history())
    assert history.values.tolist() == [[5.5]]
    check(stack)


@pytest.mark.parametrize("limit", [1_048_588, 100_000])
def test_record_too_big_for_the_dead_letters_is_kept_as_its_digest(new_stack: NewStack, limit: int) -> None:
    """A refused record of nearly 1 MB is kept whole where it fits, else as digest and size; small ones stay whole."""
    stack = new_stack(partitions=1)
    if limit != 1_048_588:
        stack.configure_dead_letters(max_message_bytes=limit)
    stack.register()
    process = stack.consumer()
    sizes = [50_000, 200_000, 890_000, 950_000, 1_000_000]
    sent = [Message(b"a", b"x" * size) for size in sizes]
    small = [Message(b"b", b"y%d" % i + b"y" * 2_000) for i in range(100)]
    stack.send([*small, *sent, observation("a", START_MS, {"value": 1.0})])
    stack.done()
    assert process.stop() == 0
    found = {int(dict(r.headers)["killick-offset"]): r for r in stack.dead_letters()}
    assert sorted(found) == list(range(len(small) + len(sizes)))
    for number, message in enumerate([*small, *sent]):
        letter = found[number]
        assert message.value is not None
        if len(message.value) <= min(900_000, limit - 1_000):
            assert letter.value == message.value
        else:
            summary: dict[str, Any] = {"sha256": hashlib.sha256(message.value).hexdigest(), "bytes": len(message.value)}
            assert json.loads(letter.value) == summary
            assert dict(letter.headers)["killick-too-big"] == b"1"
    assert len(stack.predictions()) == 1


def test_letter_from_the_future_keeps_its_time_in_a_header(new_stack: NewStack) -> None:
    """Where the dead-letter topic refuses timestamps that the observations allow, the letter still arrives."""
    stack = new_stack(partitions=1)
    stack.configure_dead_letters(message_timestamp_after_max_ms=60_000)
    stack.register()
    process = stack.consumer()
    ahead_ms = int(time.time() * 1000) + 1_800_000
    stack.send(
        [Message(b"a", b"early", (), ahead_ms), Message(b"a", b"now"), Message(b"a", b"early too", (), ahead_ms)]
    )
    stack.send([observation("a", START_MS, {"value": 1.0})])
    stack.done()
    assert process.stop() == 0
    letters = {letter.value: dict(letter.headers) for letter in stack.dead_letters()}
    assert set(letters) == {b"early", b"now", b"early too"}
    assert letters[b"early"]["killick-timestamp"] == letters[b"early too"]["killick-timestamp"] == b"%d" % ahead_ms
    assert len(stack.predictions()) == 1
