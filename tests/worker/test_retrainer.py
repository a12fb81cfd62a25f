"""A worker of requests: when it takes them up, what it makes of them, and what is left when it is stopped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from models.errors import ServiceUnreachable
from models.registry import Registry
from models.server import calling, connect
from models.verdict import Verdict
from tests.streams import stream_of
from tests.worker.turning import END, TURN, drift, filled, request, retrainer
from worker.executors import TrainingError
from worker.requests import RequestStore
from worker.retrainer import MOST_TAKEN, Stopped
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client
    from tests.streams import Stream
    from worker.store import Request

pytestmark = pytest.mark.services
NOW_MS = 1_700_000_000_000
MODEL = "retrained"


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    """A Redis that holds a world that has turned."""
    made = connect(redis_url)
    calling(made.flushall)
    filled(made, MODEL)
    yield made
    made.close()


def asked(client: Client, *requests: Request) -> RequestStore:
    """The requests of the model, these among them."""
    store = RequestStore(client, MODEL)
    for one in requests:
        store.ask(one)
    return store


def test_a_drift_leads_to_a_candidate(client: Client) -> None:
    """Trained in a process of its own, registered with its parent, nominated; equal requests are one retraining.

    A later drift whose data does not suffice yet is answered with the first one.
    """
    late = request("d2", "drift", version=1, drifts=[{"at_step": END - 9}])
    store = asked(client, late, drift("d1"), request("o1"))
    worker = retrainer(client, MODEL)
    found = worker.step(NOW_MS)
    assert found is not None
    assert found.requests == ("d1", "o1", "d2")
    assert (found.outcome, found.trigger, found.version) == ("promote", "drift", 2)
    assert found.trial is not None
    assert found.trial.mode == "harm"
    registry = Registry(client, MODEL)
    assert registry.aliases().candidate == 2
    info = registry.versions()[1]
    assert (info.parent, info.training["kind"], info.training["verdict"]) == (1, "retraining", "d1")
    registry.load(2)
    assert (store.waiting(), store.progress(), worker.progress) == ([], None, None)
    assert worker.step(NOW_MS) is None


def test_what_fails_is_a_verdict_too(client: Client) -> None:
    """Too little data: the request is answered, and the sentence says what to do."""
    store = asked(client, request("o1", version=1, drifts=[{"at_step": END - 30}]))
    found = retrainer(client, MODEL).step(NOW_MS)
    assert found is not None
    assert (found.outcome, found.version) == ("failed", None)
    assert found.sentence.startswith("the new data has 30 steps")
    assert store.waiting() == []
    assert VerdictStore(client, MODEL).recent(1) == [found]


def verdict(outcome: str, newest_step: int) -> Verdict:
    """An earlier one."""
    return msgspec.convert(
        {
            "id": "before", "requests": ["before"], "trigger": "drift", "goal": "restore", "why": "", "model": MODEL,
            "interval_ms": 1, "created_ms": 3, "seconds": 1, "incumbent": 1, "outcome": outcome, "sentence": "so",
            "newest_step": newest_step,
        },
        Verdict,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asks", "last", "rules", "taken"),
    [
        (drift("d"), None, {}, True),
        (drift("d"), END - 50, {}, False),  # within the cool-down of 100 steps
        (drift("d"), END - 150, {}, True),
        (drift("d"), None, {"new_steps": END - TURN}, False),  # one step too few
        (drift("d"), None, {"new_steps": END - TURN - 1}, True),
        (drift("d", look=1), None, {"new_steps": (END - TURN) // 2}, False),  # a second look wants twice the data
        (drift("d", look=1), END - 50, {}, True),  # and waits for no cool-down
        (request("p", "pairs"), END - 50, {}, False),
        (request("p", "pairs"), None, {"tried": 7}, False),  # the clock ends no trial
        (drift("d"), None, {"tried": 7}, True),
        (request("o"), None, {"tried": 7}, True),
        (request("o"), END - 1, {"new_steps": 10_000}, True),  # people wait for nothing
        (request("h", "http"), END - 1, {"new_steps": 10_000}, True),
    ],
)
def test_who_has_to_wait(
    client: Client,
    asks: Request,
    last: int | None,
    rules: dict[str, Any],
    *,
    taken: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cool-down and least new data bind whom no person asked for; a cluster that is away leaves all as it was."""
    monkeypatch.setattr("worker.executors.CONNECT_S", 0.2)
    if last is not None:
        VerdictStore(client, MODEL).write(verdict("reject", last), "w0", [], before=0.0, spends=0.0)
    store = asked(client, asks)
    found = retrainer(client, MODEL, executor="tcp://127.0.0.1:1", **rules)  # an executor that is not there ends it
    if taken:
        with pytest.raises(ServiceUnreachable):
            found.step(NOW_MS)
        told = store.progress()
        assert told is not None
        assert told.note.startswith("waits: the Dask cluster at tcp://127.0.0.1:1 does not answer")
    else:
        assert found.step(NOW_MS) is None
    assert [(one.worker, one.taken) for one in store.waiting()] == [("", 0)]


def test_after_a_drift_it_looks_again_when_there_is_more(client: Client) -> None:
    """A verdict that finds nothing asks for the next look, at half the level, until the last one."""
    calling(client.flushall)
    filled(client, MODEL, wandering())
    looks = []
    store = asked(client, drift("d", look=2))
    for _ in range(3):
        found = retrainer(client, MODEL, new_steps=1, cooldown_steps=0).step(NOW_MS)
        if found is None:
            break
        looks.append(found)
    assert [one.id for one in looks] == ["d", "d.3"]
    assert {one.outcome for one in looks} <= {"reject", "inconclusive"}
    assert store.waiting() == []


def wandering() -> Stream:
    """Random walks: nothing is better than the last value, which is what an untrained network says."""
    rng = np.random.default_rng(4)
    level = rng.normal(size=2)
    rows = []
    for step in range(TURN - 420, END):
        level += rng.normal(size=2)
        rows += [(name, step, (float(value), float(rng.normal()))) for name, value in zip("ab", level, strict=True)]
    return stream_of(rows)


def test_a_worker_that_is_told_to_stop_leaves_its_requests(client: Client) -> None:
    """Another one can take them up at once."""
    store = asked(client, drift("d"))
    asked_at: list[float] = []

    def stopping() -> bool:
        asked_at.append(time.monotonic())
        return len(asked_at) > 2

    with pytest.raises(Stopped):
        retrainer(client, MODEL, stopping=stopping).step(NOW_MS)
    assert [(one.worker, one.taken) for one in store.waiting()] == [("", 0)]
    assert Registry(client, MODEL).aliases().candidate is None


def test_a_request_that_is_taken_back_ends_its_retraining(client: Client) -> None:
    """No verdict is written, and the trainings are given up."""
    store = asked(client, drift("d"))
    calls = []

    def stopping() -> bool:
        calls.append(time.monotonic())
        if len(calls) == 2:
            store.cancel("d")
        return False

    assert retrainer(client, MODEL, stopping=stopping).step(NOW_MS) is None
    assert VerdictStore(client, MODEL).recent(1) == []
    assert store.waiting() == []


def test_a_request_that_kills_its_workers_is_answered(client: Client) -> None:
    """After some deaths it is no more taken up for training."""
    store = asked(client, drift("d"))
    for number in range(MOST_TAKEN):
        dead = RequestStore(client, MODEL, f"dead-{number}")
        assert dead.claim([store.waiting()[0].entry], 0)
        time.sleep(0.002)
    silent = RequestStore(client, MODEL, "w1")
    assert silent.waiting()[0].taken == MOST_TAKEN
    worker = retrainer(client, MODEL, worker=store.waiting()[0].worker)
    found = worker.step(NOW_MS)
    assert found is not None
    assert found.outcome == "failed"
    assert found.sentence == str(TrainingError("3 workers died of this request", "see their logs, and memory"))
