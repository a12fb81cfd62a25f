"""A model's monitors, step by step: one leads, others stand by, and the figures are the same whoever counted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from consumers.ledger import Commit, Ledger
from consumers.roster import Seat
from consumers.stream import Version
from models.drift import DriftLimits
from models.errors import DataError, ServiceUnreachable
from models.registry import Registry
from models.server import calling, connect
from models.tally import COLUMNS
from models.verdict import Calibration, Trial
from models.windows import Book, Key
from tests.consumers import living
from tests.consumers.test_ledger_calls import Deaf
from tests.models.versions import register
from tests.streams import FORM, NumpyScanner, architecture_of
from tests.worker.following import Tail, assert_same, book_of, live, walks
from tests.worker.judged import verdict_of
from worker.asking import Asking
from worker.drifting import DriftWatch
from worker.gate import Limits, TrialState
from worker.judging import Judging
from worker.monitoring import Monitor, Times
from worker.overseeing import Minds
from worker.partition_monitor import PartitionMonitor
from worker.store import LIBRARY, ModelStore, PartitionStore
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client
    from tests.consumers.living import Live
    from tests.streams import Bools, Singles
    from worker.archiving import Archiver

pytestmark = pytest.mark.services
MODEL = "m"
LEASE_MS = 60_000
LIMITS = DriftLimits(calibration_steps=6_000)  # more than there are
JUDGED = Limits(interval_ms=FORM.interval_ms, ahead_steps=24, approval=False, guard_alpha=0.01, breaker_ratio=4.0,
                breaker_steps=12)  # fmt: skip


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """Redis, then Valkey."""
    made = connect(store_url)
    yield made
    made.close()


def monitor_of(client: Client, who: str, name: str = MODEL, pairs: int = 0, skill_drop: float = 0.0) -> Monitor:
    """A monitor of the model, on the settings of these tests; it asks after so many pairs, or such a drop."""

    def opens(partition: int) -> tuple[PartitionMonitor, Archiver | None]:
        store = PartitionStore(client, name, partition, who)
        return PartitionMonitor(Ledger(client, name, partition), store, FORM, 4), None

    store = ModelStore(client, name, who)
    registry = Registry(client, name)
    minds = Minds(
        DriftWatch(store, LIMITS, FORM.interval_ms),
        Judging(store, registry, VerdictStore(client, name).of_version, JUDGED),
        Asking(store, 0, pairs, skill_drop),
    )
    return Monitor(registry, FORM, store, minds, opens, Times(LEASE_MS, 24))


class Model:
    """A model of several partitions, each with a stream of its own, and the time that goes by."""

    def __init__(self, client: Client, partitions: int = 2, name: str = MODEL) -> None:
        self.client = client
        self.name = name
        self.registry = Registry(client, name)
        self.lives: list[Live] = []
        self.streams = [walks(400, seed=number) for number in range(partitions)]
        self.now = 0.0
        for _ in range(partitions):
            self.add()

    def add(self) -> None:
        """One more partition."""
        self.lives.append(live(self.client, self.name, len(self.lives)))
        self.registry.set_partitions(len(self.lives))

    def feed(self, count: int) -> None:
        """So many records more in each partition."""
        for one, stream in zip(self.lives, self.streams, strict=False):
            one.take(stream, one.read, one.read + count)

    def step(self, monitor: Monitor) -> int:
        """One step, a second later."""
        self.now += 1.0
        return monitor.step(self.now, 1_700_000_000_000)

    def count(self, monitor: Monitor) -> int:
        """Steps until nothing is new; how many observations that were."""
        total = 0
        while new := self.step(monitor):
            total += new
        return total

    def silence(self) -> None:
        """Let the lease run out, as when whoever leads stands still."""
        calling(self.client.delete, f"killick:{{{self.name}}}:lease")

    def wanted(self) -> Book:
        """The sums of all that is in the ledgers, counted in one go."""
        book = Book()
        book.merge([book_of(one.ledger) for one in self.lives])
        return book


def test_one_leads_and_the_other_takes_over(client: Client) -> None:
    """Who stands by shows and counts nothing; when the leader is closed it goes on where that one stood."""
    model = Model(client)
    one, other = monitor_of(client, "one"), monitor_of(client, "other")
    model.feed(50)
    model.count(one)
    assert (one.leads, model.step(other), other.leads) == (True, 0, False)
    assert (other.view().leads, other.view().book.sums) == (False, {})
    assert_same(one.view().book, model.wanted())
    one.close()
    model.feed(50)
    model.count(other)
    view = other.view()
    assert (view.leads, view.observations, view.lags) == (True, 200, {0: 0, 1: 0})
    assert view.newest_ms == max(int(s.step[:100].max()) for s in model.streams) * FORM.interval_ms
    assert view.newest_hour == model.wanted().newest_hour()
    assert view.versions == {1}
    assert_same(view.book, model.wanted())
    assert (model.step(one), one.leads) == (0, False)


def test_who_wakes_up_after_another_took_over_stands_by(client: Client) -> None:
    """Two believe that they lead: whoever took the partitions last counts, and nothing is counted twice."""
    model = Model(client)
    one, other = monitor_of(client, "one"), monitor_of(client, "other")
    for _ in range(4):
        model.feed(20)
        model.count(one)
        model.silence()
        model.feed(20)
        assert model.step(other) > 0  # leads now
        model.silence()
        assert one.leads
        assert other.leads
        assert model.step(one) == 0  # holds the lease again, but not the partitions
        model.feed(10)
        assert model.step(other) == 0
        model.count(one)
        assert_same(one.view().book, model.wanted())
    assert one.view().observations == 2 * 200
    stored = Book()
    stored.merge([PartitionStore(client, MODEL, number).sums()[0] for number in range(2)])
    assert_same(stored, model.wanted())


def test_partitions_may_come_later(client: Client) -> None:
    """A monitor before the first consumer leads and waits; partitions that are added are followed."""
    monitor = monitor_of(client, "one")
    assert monitor.step(0.0, 0) == 0
    assert (monitor.leads, monitor.view().observations, monitor.view().newest_ms) == (True, 0, None)
    model = Model(client, partitions=3)
    model.feed(30)
    assert model.count(monitor) >= 90
    model.streams.append(walks(50, seed=9))
    model.add()
    model.feed(30)
    model.count(monitor)
    assert monitor.view().lags == dict.fromkeys(range(4), 0)
    assert_same(monitor.view().book, model.wanted())


def test_redis_that_is_away_or_lost_its_tail_is_gone_on_with(client: Client) -> None:
    """A step that fails leaves nothing behind: the next one begins with what Redis holds."""
    model = Model(client, partitions=1)
    deaf = Deaf(client)
    monitor = monitor_of(cast("Client", deaf), "one")
    for number in range(4):
        model.feed(20)
        deaf.loses = "the answer" if number % 2 else "the call"
        with pytest.raises(ServiceUnreachable):
            model.step(monitor)
        assert not monitor.leads
        model.count(monitor)
    assert_same(monitor.view().book, model.wanted())
    tail = Tail(client, MODEL)
    model.feed(40)
    model.count(monitor)
    tail.lose()
    assert (model.step(monitor), monitor.leads) == (0, False)  # finds that the ledger is shorter than it was
    model.count(monitor)
    assert_same(monitor.view().book, model.wanted())
    assert monitor.view().observations == 80


def test_blocks_that_do_not_follow_each_other_end_it(client: Client) -> None:
    """Once it may be a lost tail, and it begins anew; twice in a row it is a damaged ledger, and people hear of it."""
    model = Model(client, partitions=1)
    monitor = monitor_of(client, "one")
    model.feed(50)
    model.count(monitor)
    ledger = model.lives[0].ledger
    head, old = ledger.head(), next(block for block in ledger.blocks() if len(block))
    assert head is not None
    end = head.next + len(old)
    again = replace(old, start=head.next, end=end, offset=np.arange(head.next, end), checksums={})
    ledger.commit(Commit(head.next, again))
    assert (model.step(monitor), monitor.leads) == (0, False)
    with pytest.raises(DataError, match=r"partition 0: the blocks after offset 50 don't .* not after its last.*doctor"):
        model.step(monitor)


def test_detectors_are_fed_each_step_once(client: Client) -> None:
    """Whoever leads, the losses that they are fed are those that one monitor feeds them that is never disturbed."""
    found = []
    for name, many in (("calm", False), (MODEL, True)):
        model = Model(client, name=name)
        monitors = [monitor_of(client, who, name) for who in ("a", "b", "c")]
        for number in range(12):
            model.feed(25)
            leader = monitors[number % 3 if many else 0]
            model.step(leader)  # may find that the partitions were taken
            model.count(leader)
            if many:
                model.silence()
        store = ModelStore(client, name)
        assert monitors[2 if many else 0].drifts.state.version == 1
        found.append((store.drift_losses(), monitors[2 if many else 0].drifts.state.step))
    (calm, calm_step), (fed, step) = found
    assert step == calm_step
    assert len(fed) > 20
    assert fed == pytest.approx(calm, rel=1e-12)


class Listening(Deaf):
    """A client that notes which functions are called."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.calls: list[str] = []

    def fcall(self, name: str, *words: Any) -> Any:
        """The reply."""
        self.calls.append(name.removeprefix(f"{LIBRARY}_"))
        return super().fcall(name, *words)


def test_the_lease_is_renewed_while_a_step_goes_on(client: Client) -> None:
    """Before each partition that is opened or read, and before the detectors: a step may take longer than a lease."""
    model, listening = Model(client, partitions=3), Listening(client)
    monitor = monitor_of(cast("Client", listening), "one")
    model.feed(30)
    model.step(monitor)
    for name in ("take", "advance", "drift"):
        places = [at for at, call in enumerate(listening.calls) if call == name]
        assert len(places) == (1 if name == "drift" else 3)
        assert [listening.calls[at - 1] for at in places] == ["lease"] * len(places)


def tried(model: Model, trial: Trial) -> None:
    """Version 2 runs beside version 1, which answers, in every partition, and has a trial."""
    for number in (1, 2):
        register(model.registry, architecture_of(), number, None if number == 1 else 1)
    store = VerdictStore(model.client, model.name)
    store.write(verdict_of(2, 1, trial), "worker", [], before=0.0, spends=0.0)
    model.registry.nominate(2, expected=None, actor="retrainer", reason="better", now_ms=0)
    for one in model.lives:
        one.seat([Seat(1, "incumbent", 0, 0), Seat(2, "shadow", 0, 0)])


def test_a_trial_goes_on_exactly_whoever_leads(client: Client) -> None:
    """Killed and taken over in the middle of it: e-value and wealth are, to the last bit, those of one that ran on."""
    found = []
    calibration = Calibration(block_steps=3, scale=5.0, lag1=0.0, steps=100)
    trial = Trial(mode="superiority", alpha=1e-9, calibration=calibration, harm_steps=0, deadline_steps=0)
    for name, many in (("calm", False), (MODEL, True)):
        model = Model(client, name=name)
        tried(model, trial)
        monitors = [monitor_of(client, who, name) for who in ("a", "b", "c")]
        for number in range(12):
            model.feed(25)
            leader = monitors[number % 3 if many else 0]
            model.step(leader)  # may find that the partitions were taken
            if many and number % 4 == 1:
                leader = monitors[number % 3] = monitor_of(client, f"new {number}", name)
                model.silence()
            model.count(leader)
            if many:
                model.silence()
        state = monitors[2 if many else 0].view().gate
        assert isinstance(state.trial, TrialState)
        found.append((state.step, state.trial.wealth, state.trial.e_value, state.trial.words))
    assert found[0] == found[1]
    assert found[0][1].steps > 40
    assert found[0][2] != 1.0


class Breaking(NumpyScanner):
    """A network whose outputs are, from one moment on, no numbers."""

    outputs: float | None = None

    def scan(self, x: Singles, active: Bools, carried: Singles) -> tuple[Singles, Singles]:
        """As before, until it breaks."""
        outputs, state = super().scan(x, active, carried)
        return (outputs if self.outputs is None else np.full_like(outputs, self.outputs)), state


@pytest.mark.parametrize("outputs", [np.nan, np.inf])
def test_a_version_that_breaks_is_rolled_back_within_a_step(
    client: Client, outputs: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the forecasts in the ledger to the registry: as soon as the first of them met its observation."""
    broken = Breaking(living.VERSIONS[2].architecture, 2)
    monkeypatch.setitem(living.VERSIONS, 2, Version(2, living.VERSIONS[2].architecture, broken))
    model, monitor = Model(client), monitor_of(client, "one")
    for number in (1, 2):
        register(model.registry, architecture_of(), number, None if number == 1 else 1)
    model.registry.promote(2, expected=1, actor="ann", reason="try", now_ms=0)
    for one in model.lives:
        one.seat([Seat(2, "incumbent", 0, 0), Seat(1, "shadow", 0, 0)])
    model.feed(100)
    model.count(monitor)
    assert model.registry.aliases().incumbent == 2
    broken.outputs = outputs
    fed = 0
    while model.registry.aliases().incumbent == 2:
        model.feed(4)
        fed += 4
        model.count(monitor)
        assert fed < 20
    entry = model.registry.last("rollback")
    assert entry is not None
    assert entry.actor == "guard"
    assert "forecasts are missing or no numbers" in entry.reason
    assert model.registry.aliases().paused


def test_what_is_asked_for_is_by_the_pairs_of_who_answers(client: Client) -> None:
    """Over all partitions, counted on by whoever leads."""
    model = Model(client)
    register(model.registry, architecture_of(), 1)
    for number in range(8):
        monitor = monitor_of(client, str(number), pairs=200)
        model.feed(40)
        model.count(monitor)
        monitor.close()
    requests = ModelStore(client, MODEL).requests()
    assert [request.trigger for request in requests] == ["pairs"] * len(requests)
    pairs = model.wanted().window(1, "life", 0)[-1, COLUMNS["pairs"]]
    assert 1 <= len(requests) <= pairs // 200


def test_what_is_asked_for_is_by_the_skill_of_the_last_week(client: Client) -> None:
    """Over all partitions and leads, as it was when an hour began; not before the version has met a week."""
    model = Model(client)
    register(model.registry, architecture_of(), 1)
    monitor, drop = monitor_of(client, "one", skill_drop=0.01), 0.01
    best, last, wanted = -np.inf, 0, list[tuple[float, float]]()
    for _ in range(80):
        model.feed(5)
        model.count(monitor)
        book = model.wanted()
        newest, hours = book.newest_hour() or 0, sorted(key.at for key in book.sums if key.kind == "hour")
        week = [book.sums[Key("hour", 1, hour)][-1] for hour in hours if newest - 168 <= hour < newest]
        if newest - hours[0] < 0.9 * 168 or newest == last:
            continue
        last = newest
        error, reference = (
            sum(float(sums[COLUMNS[f"persistence.scaled_{name}"]]) for sums in week)
            for name in ("squared", "reference_squared")
        )
        skill = 1.0 - error / reference
        best = max(best, skill)
        if (1.0 - skill) / (1.0 - best) - 1.0 > drop:
            wanted.append((skill, best))
    requests = ModelStore(client, MODEL).requests()
    assert len(wanted) >= 3
    assert {(request.trigger, request.goal) for request in requests} == {("skill", "restore")}
    found = [(request.evidence["skill"], request.evidence["best"]) for request in requests]
    np.testing.assert_allclose(found, wanted)
