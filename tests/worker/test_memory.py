"""What a backtest keeps in memory, held to what a service keeps in Redis: the same words, replies and refusals."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import numpy as np
import pytest

from models.drift_limits import DriftLimits
from models.errors import FencedError, KillickError, OffsetConflict, StaleCommand, VersionError
from models.registry import Aliases
from models.server import connect
from tests.models import test_registry_changes as changes
from tests.models.versions import register
from tests.streams import architecture_of
from tests.worker import turning
from tests.worker.desks import MODEL, Desks, InMemory, InRedis
from tests.worker.judged import FIRST_STEP, LIMITS, NOW_MS, duel_of
from tests.worker.test_requests import request, verdict
from tests.worker.test_settling import MADE
from tests.worker.test_settling import verdict as judged
from worker.drifting import DriftWatch
from worker.judging import Evidence, Judging
from worker.memory import Memory, MemoryModelStore, MemoryRequests
from worker.memory_registry import MemoryRegistry
from worker.pending import StepLoss
from worker.requests import Progress, TakenBack
from worker.settling import Settler
from worker.store import Record
from worker.verdicts import KEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NEVER_MS, AT_ONCE_MS = 600_000, 0  # silence after which a worker counts as dead
ROUNDS = 700
SHARED = [
    test
    for name, test in vars(changes).items()
    if name.startswith("test_") and not {"client", "store"} & set(test.__annotations__)
]
globals().update({test.__name__: test for test in SHARED})  # as they stand, on the registry of this module


@pytest.fixture
def registry() -> MemoryRegistry:
    """As in tests/models/test_registry_changes.py, in memory."""
    return changes.filled(MemoryRegistry(MODEL))


@pytest.fixture
def contents(registry: MemoryRegistry) -> Callable[[], object]:
    """What tells everything that the registry holds."""
    return lambda: (registry.aliases(), registry.statuses(), registry.audit(), registry.versions())


@pytest.fixture(params=["redis", "memory"])
def desks(request: pytest.FixtureRequest) -> Iterator[Desks]:
    """Redis, then memory."""
    if request.param == "memory":
        yield InMemory()
        return
    with closing(connect(request.getfixturevalue("redis_url"))) as client:
        yield InRedis(client)


def test_the_contract_of_the_registry_is_held_to() -> None:
    """The tests of the registry's changes run on memory, too: none was lost by a renaming."""
    assert len(SHARED) >= 10
    assert changes.test_what_can_not_be_done_is_refused_and_changes_nothing in SHARED


def test_a_version_comes_back_as_it_was_registered(desks: Desks) -> None:
    """Numbers from 1, the first answers, the same words again are the same version, its record as JSON gives it."""
    kept, network = desks.registry, architecture_of()
    assert [register(kept, network, seed, parent) for seed, parent in ((0, None), (1, 1), (1, 1))] == [1, 2, 2]
    assert [entry.event for entry in kept.audit()] == ["register", "incumbent", "register"]
    assert (kept.aliases().incumbent, kept.aliases().generation) == (1, 1)
    other = architecture_of(units=(4,))
    with pytest.raises(VersionError):
        register_bytes(kept, other, kept.load(1)[1], {})
    data = kept.load(2)[1]
    assert register_bytes(kept, network, data, {"spans": (1, 2), "loss": 0.1}) == 3
    found = kept.info(3)
    assert found is not None
    assert (found.version, found.training, found.actor) == (3, {"spans": [1, 2], "loss": 0.1}, "ann")
    assert found == kept.versions()[2]
    assert kept.info(4) is None
    again, same, weights = kept.load(3)
    assert (again, same) == (network, data)
    assert all(np.array_equal(weights[name], array) for name, array in kept.load(2)[2].items())
    with pytest.raises(VersionError, match=r"model 'weather' has no version 4: it has \[1, 2, 3\]"):
        kept.load(4)


def register_bytes(kept: Any, architecture: Any, weights: bytes, training: dict[str, Any]) -> int:
    """A version with these weights."""
    number = kept.register(architecture, weights, training=training, parent=1, actor="ann", reason="r", now_ms=5)
    assert isinstance(number, int)
    return number


class Both:
    """Redis and memory, told the same things: what they answer, or why they refuse, must be the same."""

    def __init__(self, redis: InRedis) -> None:
        self.sides: tuple[Desks, Desks] = (redis, InMemory())
        self.entries: list[dict[str, str]] = [{}, {}]  # of the stream, by request
        self.told: Counter[str] = Counter()

    def tell(self, what: str, call: Callable[[Desks, dict[str, str]], object]) -> None:
        """Tell both."""
        for side, entries in zip(self.sides, self.entries, strict=True):
            entries |= {one.request.id: one.entry for one in side.requests().waiting()}
        outcomes = []
        for side, entries in zip(self.sides, self.entries, strict=True):
            try:
                found = call(side, entries)
            except KillickError as error:
                found = (type(error), str(error))
                self.told[f"{what}: {type(error).__name__}"] += 1
            by_entry = {entry: name for name, entry in entries.items()}
            outcomes.append([by_entry.get(one, one) for one in found] if isinstance(found, list) else found)
        assert outcomes[0] == outcomes[1], what
        self.told[what] += 1
        assert everything(self.sides[0]) == everything(self.sides[1]), what


def everything(desks: Desks) -> object:
    """All that a model has, without what differs by its keeper: the ids of entries, and how long workers are silent."""
    kept, queue, verdicts, store = desks.registry, desks.requests(), desks.verdicts(), desks.store()
    return (
        [kept.aliases(), kept.statuses(), kept.versions()],
        [msgspec.structs.replace(entry, id="") for entry in kept.audit(20)],
        str(kept.last("promote", "nominate")),
        [(one.request, one.worker, one.taken) for one in queue.waiting()],
        [queue.progress(), verdicts.drafted(), verdicts.recent(5), verdicts.spent(), store.waiting()],
        [store.drift(), store.drift_losses(), store.requests(), [store.state(name) for name in get_args(Record)]],
    )


def drawn(rng: np.random.Generator, names: Sequence[str]) -> list[str]:
    """Some of these names."""
    return [name for name in names if rng.random() < 0.5]


def queue_call(rng: np.random.Generator, names: Sequence[str]) -> tuple[str, Callable[[Desks, dict[str, str]], object]]:
    """Something that a worker, or whoever asks, might do at any time."""
    worker, some, one = str(rng.choice(["w1", "w2"])), drawn(rng, names), str(rng.choice(names))
    silence, number = int(rng.choice([NEVER_MS, AT_ONCE_MS])), int(rng.integers(40))
    progress = Progress(worker=worker, requests=tuple(some), began_ms=1, done=number, total=99, note="so far")
    written = verdict(one, int(rng.integers(2, 5)) if number % 2 else None)
    before, spends = float(rng.choice([0.0, 0.1, 0.2])), float(rng.choice([0.0, 0.1]))
    trigger = str(rng.choice(["operator", "drift"]))

    def among(entries: dict[str, str]) -> list[str]:
        return [entries[name] for name in some if name in entries]

    calls: dict[str, Callable[[Desks, dict[str, str]], object]] = {
        "ask": lambda at, _: at.requests().ask(request(one, trigger)),
        "claim": lambda at, entries: at.requests(worker).claim(among(entries), silence),
        "keep": lambda at, entries: at.requests(worker).keep(among(entries), progress, NEVER_MS),
        "leave": lambda at, entries: at.requests(worker).leave(among(entries)),
        "tell": lambda at, _: at.requests(worker).tell(progress, NEVER_MS),
        "answered": lambda at, entries: at.requests(worker).answered(among(entries)[:1]),
        "cancel": lambda at, _: at.requests().cancel(one),
        "draft": lambda at, entries: at.verdicts().draft(written, worker, among(entries)),
        "get": lambda at, _: (at.verdicts().get(one), at.verdicts().of_version(number)),
        "write": lambda at, entries: at.verdicts().write(
            written, worker, among(entries), before=at.verdicts().spent() if number % 3 else before, spends=spends
        ),
    }
    what = str(rng.choice(["ask", "ask", *calls]))
    return what, calls[what]


def state_call(rng: np.random.Generator, number: int) -> tuple[str, Callable[[Desks, dict[str, str]], object]]:
    """Something that a monitor, or one that believes it leads, might do at any time."""
    token, name = str(rng.choice(["m1", "m2"])), rng.choice(get_args(Record))
    losses, forget = rng.normal(size=int(rng.integers(4))).tolist(), int(rng.integers(4))
    back, state = int(rng.choice([0, 0, 0, 1, 2])), b"%d" % rng.integers(3)
    answers = None if rng.random() < 0.6 else int(rng.integers(1, 4))
    about = {"version": int(rng.integers(1, 4))} if rng.random() < 0.9 else {}
    one = msgspec.structs.replace(
        request(f"s{number}", str(rng.choice(["drift", "skill", "schedule"]))), evidence=about
    )
    some = [one] if rng.random() < 0.5 else []
    calls: dict[str, Callable[[Desks, dict[str, str]], object]] = {
        "lease": lambda at, _: (at.store(token).lease(NEVER_MS), at.store(token).led()),
        "release": lambda at, _: (at.store(token).release(), at.store(token).led()),
        "drift": lambda at, _: at.store(token).change_drift(
            max(0, at.store().drift()[0] - back), state, losses, forget, some, answers
        ),
        "change": lambda at, _: at.store(token).change(name, max(0, at.store().state(name)[0] - back), state, some),
    }
    what = str(rng.choice(["release", "drift", *calls]))
    return what, calls[what]


def version_call(rng: np.random.Generator, number: int) -> tuple[str, Callable[[Desks, dict[str, str]], object]]:
    """Something that a person, the gate or a retrainer might do at any time."""
    first, second = (int(v) if v else None for v in rng.integers(0, 6, 2))
    by: dict[str, Any] = {"actor": "ann\n", "reason": str(rng.choice(["so", "or so"])), "now_ms": number}
    automatic, right = bool(rng.random() < 0.5), bool(rng.random() < 0.7)
    seed = int(rng.integers(9))

    def answers(at: Desks) -> int:
        return (at.registry.aliases().incumbent if right else second) or 0

    def nominated(at: Desks) -> int | None:
        return at.registry.aliases().candidate if right else second

    calls: dict[str, Callable[[Desks, dict[str, str]], object]] = {
        "register": lambda at, _: register(at.registry, architecture_of(), seed, first),
        "promote": lambda at, _: at.registry.promote(first or 0, expected=answers(at), automatic=automatic, **by),
        "rollback": lambda at, _: at.registry.rollback(first, expected=answers(at), **by),
        "nominate": lambda at, _: at.registry.nominate(first, expected=nominated(at), automatic=automatic, **by),
        "approve": lambda at, _: at.registry.approve((nominated(at) or 0), **by),
        "retire": lambda at, _: at.registry.retire(first or 0, **by),
        "pause": lambda at, _: at.registry.pause(**by),
        "resume": lambda at, _: at.registry.resume(**by),
    }
    what = str(rng.choice(["register", "nominate", "promote", "resume", *calls]))
    return what, calls[what]


@pytest.mark.parametrize("kind", ["queue", "state", "version"])
def test_whatever_is_done_both_answer_alike(redis_url: str, kind: str) -> None:
    """Hundreds of things in any order, right and wrong: the same answers, refusals in the same words, the same left."""
    rng = np.random.default_rng(20_261)
    with closing(connect(redis_url)) as client:
        both = Both(InRedis(client))
        for number in range(ROUNDS):
            if kind == "queue":
                what, call = queue_call(rng, ("a", "b", "c", "d"))
            else:
                what, call = (state_call if kind == "state" else version_call)(rng, number)
            both.tell(what, call)
    wanted = {
        "queue": ("keep: FencedError", "write: FencedError", "cancel: VersionError", "claim", "answered"),
        "state": ("drift: OffsetConflict", "drift: FencedError", "change: OffsetConflict", "change: FencedError"),
        "version": ("promote: StaleCommand", "promote: VersionError", "rollback", "nominate: StaleCommand", "approve"),
    }[kind]
    assert all(both.told[one] for one in wanted), both.told


def test_a_worker_that_is_silent_loses_its_requests(desks: Desks) -> None:
    """Another one takes them up, and the first is told so wherever it goes on."""
    first, second = desks.requests("w1"), desks.requests("w2")
    for name in "ab":
        first.ask(request(name))
    one, two = (waiting.entry for waiting in first.waiting())
    assert first.claim([one], NEVER_MS) == [one] == first.claim([one], NEVER_MS)
    assert second.claim([two], NEVER_MS) == []
    assert second.claim([one, two], AT_ONCE_MS) == [one, two]
    assert [(w.worker, w.taken) for w in first.waiting()] == [("w2", 2), ("w2", 1)]
    written = verdict("a", 2)
    late: tuple[Callable[[], None], ...] = (
        lambda: first.answered([one]),
        lambda: desks.verdicts().draft(written, "w1", [one]),
        lambda: desks.verdicts().write(written, "w1", [one], before=0.0, spends=0.0),
    )
    for refused in late:
        with pytest.raises(FencedError, match="the requests are worked on by w2: this worker was silent"):
            refused()
    first.cancel("a")
    with pytest.raises(TakenBack):
        desks.verdicts().draft(written, "w2", [one])
    desks.verdicts().write(written, "w2", [two], before=0.0, spends=0.25)
    with pytest.raises(StaleCommand, match=r"0\.25 of the budget is spent, 0\.0 was expected"):
        desks.verdicts().write(verdict("b"), "w2", [two], before=0.0, spends=0.25)


def test_old_verdicts_are_let_go(desks: Desks) -> None:
    """The newest stay, by their time; a version's verdict that is gone is none."""
    verdicts = desks.verdicts()
    for at in range(KEPT + 2):
        one = msgspec.structs.replace(verdict(f"v{at:03}", at + 2), created_ms=KEPT - at // 2)
        verdicts.write(one, "w", [], before=0.0, spends=0.0)
    assert [one.id for one in verdicts.recent(3)] == ["v001", "v000", "v003"]
    assert len(verdicts.recent(KEPT + 9)) == KEPT
    newest = KEPT + 1
    assert (verdicts.get(f"v{newest:03}"), verdicts.of_version(newest + 2)) == (None, None)


def test_time_passes_in_memory() -> None:
    """A lease ends, progress is forgotten and a worker counts as dead by the clock that is given."""
    now = [100.0]
    memory = Memory(MODEL, lambda: now[0])
    one, other = MemoryModelStore(memory, "one"), MemoryModelStore(memory, "other")
    assert one.lease(5_000)
    now[0] += 4.9
    assert not other.lease(5_000)
    now[0] += 0.2
    assert not one.led()
    assert other.lease(5_000)
    with pytest.raises(FencedError, match="the state 'gate' was taken by another monitor"):
        one.change("gate", 0, b"mine")
    with pytest.raises(OffsetConflict, match="the detectors' state stands elsewhere"):
        other.change_drift(1, b"", [], 0, [])
    first, second = MemoryRequests(memory, "w1"), MemoryRequests(memory, "w2")
    first.ask(request("a"))
    (entry,) = first.claim([first.waiting()[0].entry], 2_000)
    progress = Progress(worker="w1", requests=("a",), began_ms=1, done=1, total=2, note="so far")
    assert first.keep([entry], progress, 1_000) == [entry]
    now[0] += 1.5
    assert (first.progress(), first.waiting()[0].silent_ms) == (None, 1_500)
    assert second.claim([entry], 2_000) == []
    now[0] += 1.0
    assert second.claim([entry], 2_000) == [entry]


def test_a_candidate_is_settled_tried_and_promoted(desks: Desks) -> None:
    """Settler, gate and detectors go their whole way on either: what is left is the same, to the last word."""
    register(desks.registry, architecture_of())
    queue = desks.requests("w1")
    for name in "abc":
        queue.ask(request(name, "schedule"))
    entries = queue.claim([one.entry for one in queue.waiting()][:2], NEVER_MS)
    settled = Settler("w1", queue, desks.verdicts(), desks.registry, turning.LIMITS).settle(judged(), MADE, entries)
    assert settled.version == 2
    drifts = DriftWatch(desks.store("m1"), DriftLimits(calibration_steps=50), LIMITS.interval_ms)
    drifts.open()
    drifts.feed([StepLoss(step, 1, 0.5) for step in range(FIRST_STEP, FIRST_STEP + 9)], NOW_MS)
    drifts.save()
    judging = Judging(desks.store("m1"), desks.registry, desks.verdicts().of_version, LIMITS)
    judging.open()
    for step in range(FIRST_STEP, FIRST_STEP + 600):
        duels = {(step, 1, 2): duel_of(3.0 + 0.1 * (step % 3), 1.0)}
        judging.look(Evidence(duels, [step], frozenset({1, 2}), None), NOW_MS)
        if desks.registry.aliases().incumbent == 2:
            break
    drifts.feed([StepLoss(FIRST_STEP + 10, 2, 0.4)], NOW_MS)
    drifts.save()
    assert desks.registry.aliases() == Aliases(2, None, 1, 3)
    assert [(entry.event, entry.version, entry.actor) for entry in desks.registry.audit()] == [
        ("register", 1, "ann"), ("incumbent", 1, "ann"), ("register", 2, "retrainer"),
        ("nominate", 2, "retrainer"), ("promote", 2, "gate"),
    ]  # fmt: skip
    assert judging.state.ended[-1].outcome == "promoted"
    assert (desks.verdicts().spent(), desks.verdicts().of_version(2)) == (turning.LIMITS.alpha, settled)
    assert [one.request.id for one in queue.waiting()] == ["c"]
    assert desks.store().drift_losses() == [0.4]
    again = Judging(desks.store("m2"), desks.registry, desks.verdicts().of_version, LIMITS)
    again.open()
    assert again.state == judging.state
