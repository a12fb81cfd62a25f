"""The detectors' state in Redis: it goes on after any restart, and asks for an update once for what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np
import pytest

from models.drift import DriftLimits
from models.drift_inputs import inputs_of, trained_inputs
from models.errors import OffsetConflict, ServiceUnreachable
from models.server import connect
from models.tally import COLUMNS, reported_leads
from models.windows import DAY_HOURS, Book
from tests.consumers.test_ledger_calls import Deaf
from worker.counting import Watched
from worker.drifting import DriftWatch, recent_inputs
from worker.pending import StepLoss
from worker.store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client

pytestmark = pytest.mark.services
LIMITS = DriftLimits(calibration_steps=120)
INTERVAL_MS = 3_600_000
QUIET, LOUD = 300, 200
NOW_MS = 1_700_000_000_000
LEADS = reported_leads(2)


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """Redis, then Valkey."""
    made = connect(store_url)
    yield made
    made.close()


def lead(client: Client, who: str) -> None:
    """Let this one lead; whoever did is not told."""
    client.delete("killick:{m}:lease")
    assert ModelStore(client, "m", who).lease(60_000)


def watch_of(client: Client, who: str = "one") -> DriftWatch:
    """The detectors as whoever leads has them: whoever led before is silent."""
    lead(client, who)
    store = ModelStore(client, "m", who)
    watch = DriftWatch(store, LIMITS, INTERVAL_MS)
    watch.open()
    return watch


def losses_of(version: int = 1, seed: int = 0) -> list[StepLoss]:
    """A quiet span and one that is four times as loud."""
    rng = np.random.default_rng(seed)
    level = np.repeat([1.0, 4.0], [QUIET, LOUD])
    values = level * np.exp(0.2 * rng.normal(size=QUIET + LOUD))
    return [StepLoss(1_000 + i, version, float(loss)) for i, loss in enumerate(values)]


def test_a_rise_of_the_loss_asks_once_for_an_update(client: Client) -> None:
    """With version, detector, step, numbers and a sentence; the queue and the state agree after every restart."""
    watch = watch_of(client)
    for one in losses_of():
        watch.feed([one], NOW_MS)
        watch.save()
        if one.step % 50 == 0:
            watch = watch_of(client)
    requests = ModelStore(client, "m").requests()
    assert len(requests) == sum(watch.state.counts.values()) == len(watch.state.found)
    (first, *_) = requests
    (drift, *_) = first.evidence["drifts"]
    assert (first.trigger, first.goal, first.evidence["version"], first.created_ms) == ("drift", "restore", 1, NOW_MS)
    assert QUIET <= drift["at_step"] - 1_000 < QUIET + 60
    assert drift["statistic"] > drift["threshold"]
    assert drift["words"] in first.why
    assert watch.state.found[0].time_ms == drift["at_step"] * INTERVAL_MS
    assert not [found for found in watch.state.found if found.drift.at_step < 1_000 + QUIET]


def test_a_restart_changes_nothing(client: Client) -> None:
    """Detectors that were stored and read after every step say what those say that ran through."""
    through = watch_of(client, "through")
    through.feed(losses_of(), NOW_MS)
    through.save()
    wanted = (through.state.step, through.state.counts, through.state.statistics, through._detectors.losses)
    client.flushall()
    watch = watch_of(client)
    for at in range(0, QUIET + LOUD, 20):
        watch.feed(losses_of()[at : at + 20], NOW_MS)
        watch.save()
        watch = watch_of(client)
    assert (watch.state.step, watch.state.counts, watch.state.statistics, watch._detectors.losses) == wanted


def test_what_nobody_answered_is_asked_for_once(client: Client) -> None:
    """The call or its answer is lost; who opens anew feeds the rest, and there is one request for one drift."""
    deaf = Deaf(client)
    watch, asked = watch_of(cast("Client", deaf)), 0
    losses = losses_of()
    while losses:
        watch.feed(losses[:10], NOW_MS)
        deaf.loses = ("the call", "the answer", "", "")[asked % 4]
        asked += 1
        try:
            watch.save()
        except ServiceUnreachable:
            watch = watch_of(cast("Client", deaf))
        fed = watch.state.step
        losses = [one for one in losses if fed is None or one.step > fed]
    store = ModelStore(client, "m")
    assert len(store.requests()) == sum(watch.state.counts.values()) >= 1
    assert tuple(store.drift_losses()) == watch._detectors.losses


def test_two_that_believe_they_lead_store_one_state(client: Client) -> None:
    """The one whose lease ran out is told so, also when it gets the lease again."""
    one = watch_of(client, "one")
    one.feed(losses_of()[:10], NOW_MS)
    one.save()
    other = watch_of(client, "other")
    other.feed(losses_of()[10:20], NOW_MS)
    other.save()
    lead(client, "one")
    one.feed(losses_of()[10:15], NOW_MS)
    with pytest.raises(OffsetConflict):
        one.save()
    one.open()
    assert one.state.step == 1_019
    assert len(ModelStore(client, "m").drift_losses()) == 20


def test_another_version_begins_anew(client: Client) -> None:
    """Its losses are its own: those of the one before are let go, and what was raised may be raised again."""
    watch = watch_of(client)
    watch.feed(losses_of()[:200], NOW_MS)
    watch.save()
    watch.feed([StepLoss(5_000 + i, 2, 0.5) for i in range(7)], NOW_MS)
    watch.save()
    assert ModelStore(client, "m").drift_losses() == [0.5] * 7
    assert watch_of(client).state.version == 2


def test_another_version_ends_what_was_asked_for(client: Client) -> None:
    """Requests about the version before are moot, also those that are not stored yet; those of the new one stay."""
    watch, store = watch_of(client), ModelStore(client, "m")
    watch.feed(losses_of(1)[:-20], NOW_MS)
    watch.save()
    assert {request.evidence["version"] for request in store.requests()} == {1}
    later = [StepLoss(5_000 + one.step, 2, one.loss) for one in losses_of()]
    watch.feed([*losses_of(1)[-20:], *later], NOW_MS)
    watch.save()
    assert {request.evidence["version"] for request in store.requests()} == {2}
    watch.feed([StepLoss(9_000, 3, 1.0)], NOW_MS)
    watch.save()
    assert store.waiting() == (0, None)


def watched(values: np.ndarray) -> Watched:
    """A version that was trained on one feature."""
    sample = values[:, None]
    present = np.ones(sample.shape, np.bool_)
    trained = trained_inputs({"inputs": inputs_of(["w"], sample, present, np.arange(len(values)), window_steps=200)})
    assert trained is not None
    return Watched(1, trained)


def counts_of(one: Watched, values: np.ndarray) -> np.ndarray:
    """Values in the bins of the training."""
    present = np.ones((len(values), 1), np.bool_)
    return one.count(["w"], values[:, None], present, np.zeros(len(values), np.int64))[0]


def test_inputs_that_moved_are_said_once_until_they_are_back(client: Client) -> None:
    """However often they are judged; after they were back, they may be said again."""
    rng = np.random.default_rng(1)
    one, watch = watched(rng.normal(size=2_000)), watch_of(client)
    spans = [(0.0, 0), (2.0, 1), (2.0, 1), (0.0, 1), (2.0, 2)]
    for step, (shift, times) in enumerate(spans):
        watch.judge_inputs(one, counts_of(one, rng.normal(size=1_000) + shift), step, NOW_MS)
        watch.save()
        assert (watch.state.counts.get("ks", 0), watch.state.counts.get("psi", 0)) == (times, times)
        watch = watch_of(client)
        (value, threshold) = watch.state.statistics["ks"]
        assert (value > (threshold or 0)) == (shift > 0)
    assert {found.drift.detector for found in watch.state.found} == {"ks", "psi"}
    watch.judge_inputs(None, None, 9, NOW_MS)
    assert "ks" not in watch.state.statistics


def test_recent_inputs_are_those_of_the_last_complete_hours(client: Client) -> None:
    """Of all partitions, of the version that is watched; counts of other bins are not mixed in."""
    one = watched(np.arange(100.0))
    some = counts_of(one, np.arange(10.0))
    parts = [{(1, 9): some, (1, 10): some * 5, (2, 9): some * 7}, {(1, 7): some, (1, 6): some * 3, (1, 8): some[1:]}]
    assert client.ping()
    found = recent_inputs(parts, one, 3, 10)
    assert found is not None
    assert found.tolist() == (some * 2).tolist()


def test_a_window_that_has_just_begun_is_not_compared() -> None:
    """A piece of a day differs from the weeks of the training anyway: nine tenths of the window have to be counted."""
    one = watched(np.arange(100.0))
    some = counts_of(one, np.arange(10.0))
    for first, compared in ((11, True), (12, False)):
        parts = [{(1, hour): some for hour in range(first, 20)} | {(2, 1): some}]
        assert (recent_inputs(parts, one, 10, 20) is not None) == compared


def book_of(daily: list[float]) -> Book:
    """A version whose skill against persistence was this, day by day, over all leads."""
    sums = np.zeros((len(daily), len(LEADS) + 1, len(COLUMNS)))
    sums[:, :, COLUMNS["persistence.scaled_squared"]] = (1 - np.array(daily))[:, None]
    sums[:, :, COLUMNS["persistence.scaled_reference_squared"]] = 1.0
    book = Book()
    book.add(1, LEADS, np.arange(len(daily)) * DAY_HOURS, sums)
    return book


def test_a_falling_skill_asks_once(client: Client) -> None:
    """Over a month; the request names the goal, and a week alone asks for nothing."""
    rng = np.random.default_rng(2)
    watch = watch_of(client)
    watch.feed(losses_of()[:3], NOW_MS)
    steady = (0.5 + 0.01 * rng.normal(size=30)).tolist()
    falling = (0.5 - 0.02 * np.arange(30) + 0.01 * rng.normal(size=30)).tolist()
    for daily, times in ((steady, 0), (falling, 1), (falling, 1), (falling[::-1], 1), (falling, 2)):
        watch.judge_trend(book_of(daily), 1, len(daily) * DAY_HOURS, 5, NOW_MS)
        watch.save()
        assert watch.state.counts.get("trend", 0) == times
        watch = watch_of(client)
    assert {window: trend.direction for window, trend in watch.state.trends.items()}["30d"] == -1
    requests = ModelStore(client, "m").requests()
    assert [request.goal for request in requests] == ["restore", "restore"]
    assert requests[0].evidence["trend"]["direction"] == -1
    assert msgspec.json.encode(requests)
