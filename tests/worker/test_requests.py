"""Requests and verdicts in Redis: asked once, worked on by one, written once, answered or taken over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from models.errors import FencedError, LedgerError, StaleCommand, VersionError
from models.server import calling, connect
from models.verdict import Verdict
from worker.requests import Progress, RequestStore, TakenBack
from worker.store import Request
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client

pytestmark = pytest.mark.services
LONG_MS = 60_000
PROGRESS = Progress(worker="w1", requests=("a",), began_ms=5, done=1, total=9, note="update-on-new")


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """Redis, then Valkey."""
    made = connect(store_url)
    yield made
    made.close()


def request(name: str, trigger: str = "operator") -> Request:
    """A request of that name."""
    return Request(id=name, trigger=trigger, goal="restore", why="a test", evidence={}, created_ms=7)


def verdict(name: str, version: int | None = None) -> Verdict:
    """The least of a verdict."""
    return Verdict(
        id=name, requests=(name,), trigger="operator", goal="restore", why="a test", model="m", interval_ms=1,
        created_ms=9, seconds=1.0, incumbent=1, outcome="promote" if version else "reject",
        sentence="so it is", version=version,
    )  # fmt: skip


def entries(store: RequestStore) -> list[str]:
    """Where the requests stand in the stream."""
    return [one.entry for one in store.waiting()]


def test_a_request_is_asked_once_however_often_it_is_sent(client: Client) -> None:
    """A lost answer is repeated; two requests that say the same are two."""
    store = RequestStore(client, "asked")
    for one in (request("a"), request("a"), request("b")):
        store.ask(one)
    assert [(w.request, w.worker, w.taken) for w in store.waiting()] == [(request("a"), "", 0), (request("b"), "", 0)]


def test_one_worker_at_a_time_and_another_when_it_is_silent(client: Client) -> None:
    """Nobody takes anything while a worker lives, and all that a dead one had is taken over; it is told so."""
    first, second = RequestStore(client, "taken", "w1"), RequestStore(client, "taken", "w2")
    for name in "ab":
        first.ask(request(name))
    one, two = entries(first)
    assert first.claim([one], LONG_MS) == [one]
    assert second.claim([two], LONG_MS) == []
    assert first.keep([one], PROGRESS, LONG_MS) == [one]
    assert second.progress() == PROGRESS
    time.sleep(0.03)
    assert second.claim([one, two], 20) == [one, two]
    assert [(w.worker, w.taken) for w in first.waiting()] == [("w2", 2), ("w2", 1)]
    with pytest.raises(FencedError, match="worked on by w2"):
        first.keep([one], PROGRESS, LONG_MS)
    with pytest.raises(FencedError, match="worked on by w2"):
        VerdictStore(client, "taken").write(verdict("a"), "w1", [one], before=0, spends=0)
    with pytest.raises(FencedError, match="worked on by w2"):
        first.answered([one])
    assert VerdictStore(client, "taken").recent(9) == []


def test_what_is_left_waits_for_anybody(client: Client) -> None:
    """A worker that is told to stop hands its requests back at once."""
    first, second = RequestStore(client, "left", "w1"), RequestStore(client, "left", "w2")
    first.ask(request("a"))
    (one,) = first.claim(entries(first), LONG_MS)
    first.keep([one], PROGRESS, LONG_MS)
    first.leave([one])
    assert first.progress() is None
    assert second.claim([one], LONG_MS) == [one]


def test_a_request_that_is_taken_back_ends_the_work_on_it(client: Client) -> None:
    """Whoever works on it is told so when it next says that it lives."""
    store = RequestStore(client, "cancelled", "w1")
    for name in "ab":
        store.ask(request(name))
    one, two = store.claim(entries(store), LONG_MS)
    RequestStore(client, "cancelled").cancel("a")
    assert store.keep([one, two], PROGRESS, LONG_MS) == [two]
    store.cancel("b")
    assert store.keep([one, two], PROGRESS, LONG_MS) == []
    with pytest.raises(VersionError, match="no request 'b' waits for model 'cancelled'"):
        store.cancel("b")
    assert store.claim([one], LONG_MS) == []


def test_on_a_request_that_was_taken_back_no_verdict_is_written(client: Client) -> None:
    """Also where that came after the last sign of life: no version is registered, no trial begins."""
    store, verdicts = RequestStore(client, "late", "w1"), VerdictStore(client, "late")
    store.ask(request("a"))
    (one,) = store.claim(entries(store), LONG_MS)
    store.cancel("a")
    with pytest.raises(TakenBack):
        verdicts.draft(verdict("a"), "w1", [one])
    with pytest.raises(TakenBack):
        verdicts.write(verdict("a"), "w1", [one], before=0.0, spends=0.01)
    assert (verdicts.recent(9), verdicts.drafted(), verdicts.spent()) == ([], None, 0.0)


def test_a_verdict_is_written_once_and_answers_its_requests(client: Client) -> None:
    """Written again it spends nothing more; it is found by its id and its version; others still wait."""
    store, verdicts = RequestStore(client, "judged", "w1"), VerdictStore(client, "judged")
    for name in "ab":
        store.ask(request(name))
    (one,) = store.claim(entries(store)[:1], LONG_MS)
    found = verdict("a", 7)
    verdicts.draft(found, "w1", [one])
    assert verdicts.drafted() == found
    for _ in range(2):
        verdicts.write(found, "w1", [one], before=0.0, spends=0.01)
    assert verdicts.spent() == 0.01
    store.answered([one])
    assert verdicts.drafted() is None
    assert (verdicts.get("a"), verdicts.of_version(7), verdicts.of_version(8), verdicts.recent(9)) == (
        found, found, None, [found],
    )  # fmt: skip
    assert [w.request.id for w in store.waiting()] == ["b"]


def test_what_another_trial_spent_meanwhile_is_told(client: Client) -> None:
    """Two judges can't spend the same share of the budget."""
    store, verdicts = RequestStore(client, "spent", "w1"), VerdictStore(client, "spent")
    store.ask(request("a"))
    (one,) = store.claim(entries(store), LONG_MS)
    verdicts.write(verdict("x", 3), "w1", [], before=0.0, spends=0.01)
    with pytest.raises(StaleCommand, match=r"0\.01 of the budget is spent, 0\.0 was expected"):
        verdicts.write(verdict("a", 4), "w1", [one], before=0.0, spends=0.01)
    verdicts.write(verdict("a", 4), "w1", [one], before=verdicts.spent(), spends=0.01)
    assert verdicts.spent() == pytest.approx(0.02)


def test_old_verdicts_are_let_go(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest ones stay."""
    monkeypatch.setattr("worker.verdicts.KEPT", 2)
    verdicts = VerdictStore(client, "old")
    for at, name in enumerate("abc"):
        verdicts.write(msgspec.structs.replace(verdict(name), created_ms=at), "w", [], before=0.0, spends=0.0)
    assert [one.id for one in verdicts.recent(9)] == ["c", "b"]
    assert verdicts.get("a") is None


def test_a_verdict_of_another_format_is_refused(client: Client) -> None:
    """One that a later killick wrote, and one that is damaged, by name."""
    verdicts = VerdictStore(client, "format")
    verdicts.write(msgspec.structs.replace(verdict("a"), format=9), "w", [], before=0.0, spends=0.0)
    with pytest.raises(LedgerError, match="verdict a has format 9, known is 1: upgrade killick"):
        verdicts.get("a")
    calling(client.hset, "killick:{format}:verdicts", "a", b"rubbish")
    with pytest.raises(LedgerError, match="verdict a can't be read"):
        verdicts.get("a")
