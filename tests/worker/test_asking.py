"""Requests because of time and pairs: once each, counted from the last one of any trigger and from the training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from models.errors import LedgerError, OffsetConflict, ServiceUnreachable
from models.server import calling, connect
from models.times import DAY_MS
from tests.worker.test_gate import Counting
from worker.asking import Asking, Seen, trained_until_ms
from worker.store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client
    from worker.store import Request

pytestmark = pytest.mark.services
NOW_MS = 1_700_000_000_000
DAY = 16_000  # since 1970
AT = Seen(version=1, clock_ms=DAY * DAY_MS, pairs=500, trained_ms=DAY * DAY_MS, drifts=0, drifted_ms=None,
          goal="improve")  # fmt: skip


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """Redis, then Valkey."""
    made = connect(store_url)
    yield made
    made.close()


def asking_of(client: Client, days: int = 0, pairs: int = 0, who: str = "one") -> Asking:
    """Whoever leads, as it begins."""
    made = Asking(ModelStore(client, "m", who), days * DAY_MS, pairs)
    made.open()
    return made


def requests(client: Client) -> list[Request]:
    """What was asked for."""
    return ModelStore(client, "m").requests()


def days(count: float) -> int:
    """Event time after so many days."""
    return int((DAY + count) * DAY_MS)


def test_a_request_every_so_often(client: Client) -> None:
    """Of event time since the incumbent's training, then since the last request, whoever leads."""
    for day in range(100):
        asking_of(client, days=30).look(replace(AT, clock_ms=days(day)), NOW_MS)
    first, *_ = found = requests(client)
    assert [(one.trigger, one.goal) for one in found] == [("schedule", "improve")] * 3
    assert first.why == "nothing was asked for, and nothing learned, for 30 days, limit 30 (retraining.every)"
    assert first.evidence == {"version": 1, "since": "2013-10-22T00:00:00Z", "pairs": 500}
    assert first.created_ms == NOW_MS


def test_a_request_after_so_many_new_pairs(client: Client) -> None:
    """Since the last request; another version's pairs are its own, and one that answers again goes on counting."""
    asking, asked = asking_of(client, pairs=1_000), []
    for version, pairs in ((1, 999), (1, 1_000), (1, 1_999), (2, 999), (2, 1_001), (1, 1_999), (1, 2_000), (1, 2_999)):
        before = len(requests(client))
        asking.look(replace(AT, version=version, pairs=pairs), NOW_MS)
        if len(requests(client)) > before:
            asked.append((version, pairs))
    assert asked == [(1, 1_000), (2, 1_001), (1, 2_000)]
    assert requests(client)[0].trigger == "pairs"
    assert requests(client)[0].why == "1,000 new pairs, limit 1,000 (retraining.pairs)"


def test_what_a_drift_asked_for_counts(client: Client) -> None:
    """Time and pairs are counted from there: the next one is so long, and so many pairs, after it."""
    asking = asking_of(client, days=30, pairs=1_000)
    asking.look(replace(AT, clock_ms=days(25), pairs=900, drifts=2, drifted_ms=days(24)), NOW_MS)
    asking.look(replace(AT, clock_ms=days(53), pairs=1_899, drifts=2, drifted_ms=days(24)), NOW_MS)
    assert requests(client) == []
    asking.look(replace(AT, clock_ms=days(54), pairs=1_899, drifts=2, drifted_ms=days(24)), NOW_MS)
    (found,) = requests(client)
    assert (found.trigger, found.evidence["since"]) == ("schedule", "2013-11-15T00:00:00Z")


def test_a_drift_counts_once(client: Client) -> None:
    """One that was found long ago does not keep pairs from being counted."""
    asking = asking_of(client, pairs=1_000)
    for pairs in (900, 1_500, 1_899):
        asking.look(replace(AT, pairs=pairs, drifts=2, drifted_ms=days(24)), NOW_MS)
    assert requests(client) == []
    asking.look(replace(AT, pairs=1_900, drifts=2, drifted_ms=days(24)), NOW_MS)
    assert len(requests(client)) == 1


def test_a_new_version_begins_with_its_training(client: Client) -> None:
    """What it learned is not to be learned again; where its training says nothing, it counts from when it answers."""
    asking = asking_of(client, days=30)
    asking.look(replace(AT, clock_ms=days(20)), NOW_MS)
    asking.look(replace(AT, version=2, clock_ms=days(31), trained_ms=days(15)), NOW_MS)
    asking.look(replace(AT, version=2, clock_ms=days(44), trained_ms=days(15)), NOW_MS)
    asking.look(replace(AT, version=3, clock_ms=days(45), trained_ms=None), NOW_MS)
    asking.look(replace(AT, version=3, clock_ms=days(74), trained_ms=None), NOW_MS)
    assert requests(client) == []
    asking.look(replace(AT, version=3, clock_ms=days(75), trained_ms=None), NOW_MS)
    assert len(requests(client)) == 1


@pytest.mark.parametrize("minutes", [0, 15, 45])
def test_minutes_of_the_training_delay_nothing(client: Client, minutes: int) -> None:
    """The clock goes by hours: who looks once a day, with each day's version trained up to its end, asks every day."""
    asking, end_ms = asking_of(client, days=1), 23 * 60 * 60_000
    for day in range(5):
        trained = days(day - 1) + end_ms + minutes * 60_000
        asking.look(replace(AT, version=day + 1, clock_ms=days(day) + end_ms, trained_ms=trained), NOW_MS)
    assert len(requests(client)) == 5


def test_a_training_from_the_future_delays_nothing(client: Client) -> None:
    """A replay of old data with a version that was fitted on newer ones: time counts from where it stands."""
    asking = asking_of(client, days=30)
    for day in (0, 29, 30):
        assert requests(client) == []
        asking.look(replace(AT, clock_ms=days(day), trained_ms=days(9_000)), NOW_MS)
    assert len(requests(client)) == 1


def test_nothing_is_asked_for_that_nobody_wants(client: Client) -> None:
    """Neither is set: nothing is asked for, however long."""
    asking = asking_of(client)
    for day in range(0, 5_000, 100):
        asking.look(replace(AT, clock_ms=days(day), pairs=day * 1_000), NOW_MS)
    assert requests(client) == []


@pytest.mark.parametrize("loses", ["the call", "the answer"])
def test_whatever_call_is_lost_it_is_asked_for_once(redis_url: str, loses: str) -> None:
    """Who opens anew knows what was asked for."""
    client, after, lost = connect(redis_url), 0, True
    ModelStore(client, "m", "one").release()  # its functions are loaded
    while lost:
        after, lost = after + 1, False
        client.flushall()
        counting = cast("Client", Counting(client, after, loses))
        asking = asking_of(counting, days=30)
        for day in range(70):
            try:
                asking.look(replace(AT, clock_ms=days(day)), NOW_MS)
            except ServiceUnreachable:
                lost = True
                asking = asking_of(counting, days=30)
                asking.look(replace(AT, clock_ms=days(day)), NOW_MS)
        assert len(requests(client)) == 2
    assert after == 4  # the beginning and two requests, and then no call was lost
    client.close()


def looked_at(client: Client, skills: list[tuple[float, float | None]], **limits: float) -> list[Request]:
    """What is asked for after looks at (day, skill) of version 1; it is asked for at a fall of a fifth, once a day."""
    given: dict[str, Any] = {"every_ms": 0, "pairs": 0, "skill_drop": 0.2, "cooldown_ms": DAY_MS}
    asking = Asking(ModelStore(client, "m", "one"), **(given | limits))
    asking.open()
    for day, skill in skills:
        asking.look(replace(AT, clock_ms=days(day), skill=skill), NOW_MS)
    return requests(client)


def test_skill_that_is_far_below_its_best_is_asked_about(client: Client) -> None:
    """A fifth more error, as a share of persistence's, than at the best; how high the best was makes no difference."""
    best = [(1.0, 0.3), (2.0, 0.5), (3.0, 0.45)]
    assert looked_at(client, [*best, (4.0, 0.401), (5.0, None)]) == []
    (found,) = looked_at(client, [(6.0, 0.399)])
    assert (found.trigger, found.goal) == ("skill", "restore")
    assert found.evidence == {
        "version": 1, "since": "2013-10-22T00:00:00Z", "pairs": 500, "skill": 0.399, "best": 0.5,
    }  # fmt: skip
    assert found.why == (
        "the week's skill is 0.399, and was 0.500 on 2013-10-24: 20% more error beside persistence's, limit 20% "
        "(retraining.skill_drop)"
    )


def test_it_is_asked_again_while_skill_stays_low(client: Client) -> None:
    """After each cool-down, which begins with what anybody asked for; not once it has recovered."""
    asked = looked_at(client, [(1.0, 0.5), (1.5, 0.1), (2.0, 0.1), (2.9, 0.1), (3.0, 0.1), (4.5, 0.5), (9.0, 0.41)])
    assert len(asked) == 2
    asking = Asking(ModelStore(client, "m", "one"), 0, 0, 0.2, DAY_MS)
    asking.open()
    drifted = replace(AT, skill=0.1, drifts=1, drifted_ms=days(10.0))
    asking.look(replace(drifted, clock_ms=days(10.5)), NOW_MS)
    assert len(requests(client)) == 2
    asking.look(replace(drifted, clock_ms=days(11.0)), NOW_MS)
    assert len(requests(client)) == 3


def test_the_best_is_that_of_the_last_year_whoever_answered(client: Client) -> None:
    """An update that only stopped the fall does not end the asking; a year that went by does."""
    asking = Asking(ModelStore(client, "m", "one"), 0, 0, 0.2)
    asking.open()
    told = ((1, 1, 0.9), (2, 1, 0.1), (9, 2, 0.1), (9.5, 2, 0.1), (10, 3, 0.895), (395, 3, -0.5), (396, 3, -0.7))
    for day, version, skill in told:
        asking.look(replace(AT, version=version, clock_ms=days(day), trained_ms=None, skill=skill), NOW_MS)
    assert [(one.evidence["version"], one.evidence["best"]) for one in requests(client)] == [(1, 0.9), (2, 0.9)]
    asking.look(replace(AT, version=3, clock_ms=days(397), trained_ms=None, skill=-0.9), NOW_MS)
    assert [one.evidence["best"] for one in requests(client)][2:] == [-0.5]


def test_without_a_limit_skill_asks_for_nothing(client: Client) -> None:
    """As it is by default."""
    assert looked_at(client, [(1.0, 0.9), (2.0, -9.0)], skill_drop=0.0) == []


def test_two_that_believe_they_lead_ask_once(client: Client) -> None:
    """Who was overtaken is told so."""
    one, other = asking_of(client, pairs=10, who="one"), asking_of(client, pairs=10, who="other")
    one.look(AT, NOW_MS)
    with pytest.raises(OffsetConflict):
        other.look(AT, NOW_MS)
    other.open()
    other.look(AT, NOW_MS)
    assert len(requests(client)) == 1


def test_another_format_is_refused(client: Client) -> None:
    """What can't be read is not guessed."""
    asking_of(client, pairs=10).look(AT, NOW_MS)
    calling(client.hset, "killick:{m}:asking", "state", b"\x81\xa6format\x63")
    with pytest.raises(LedgerError, match="has format 99, known is 1: upgrade killick"):
        asking_of(client)
    calling(client.hset, "killick:{m}:asking", "state", b"rubbish")
    with pytest.raises(LedgerError, match=r"can't be read .*: restore Redis from a backup"):
        asking_of(client)


def test_a_record_of_a_training_says_how_far_it_knew() -> None:
    """As `killick fit` writes it; other records say nothing."""
    assert trained_until_ms({"data": {"until": "2013-10-22T00:00:00Z"}}) == DAY * DAY_MS
    others: list[dict[str, Any]] = [
        {},
        {"data": {}},
        {"data": None},
        {"data": {"until": "soon"}},
        {"data": {"until": 7}},
    ]
    for record in others:
        assert trained_until_ms(record) is None
