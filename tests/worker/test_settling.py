"""The last steps of a retraining: whoever is killed between two of them, another worker brings them to the same end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
import redis

from models.errors import FencedError, ServiceUnreachable
from models.registry import Registry
from models.server import connect
from models.verdict import Calibration, Trial, Verdict
from models.weights import fresh_weights, weights_to_bytes
from tests.streams import architecture_of
from tests.worker.turning import LIMITS, register, request
from worker.requests import RequestStore
from worker.settling import Made, Settler
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models.server import Client

pytestmark = pytest.mark.services
SILENT_MS = 60_000
NETWORK = architecture_of()
MADE = Made(NETWORK.to_json(), weights_to_bytes(fresh_weights(NETWORK, 9), NETWORK), {"strategy": "update-on-new"})
TRIAL = Trial(
    mode="superiority", alpha=1.0, calibration=Calibration(block_steps=12, scale=1.0, lag1=0.1, steps=100),
    harm_steps=24, deadline_steps=700,
)  # fmt: skip


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """Redis, then Valkey."""
    made = connect(store_url)
    yield made
    made.close()


class Dying:
    """A client whose server is gone after so many calls: before the next one, or after it and before its answer."""

    def __init__(self, client: Client, calls: int, *, answered: bool) -> None:
        self._client = client
        self._left = calls
        self._answered = answered

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        def call(*words: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left < 0 or (self._left == 0 and not self._answered):
                if self._left == 0:
                    found(*words, **options)
                raise redis.exceptions.ConnectionError("killed")
            return found(*words, **options)

        return call


def verdict(trigger: str = "schedule") -> Verdict:
    """A verdict that promotes."""
    return Verdict(
        id="a", requests=("a", "b"), trigger=trigger, goal="improve", why="it is time", model="m", interval_ms=1,
        created_ms=9, seconds=1.0, incumbent=1, outcome="promote", sentence="better by far", chosen="update-on-new",
        trial=TRIAL,
    )  # fmt: skip


def settler(client: Client, model: str, worker: str) -> Settler:
    """What ends the retrainings of a worker."""
    stores = (RequestStore(client, model, worker), VerdictStore(client, model), Registry(client, model))
    return Settler(worker, *stores, LIMITS)


def asked(client: Client, model: str, worker: str = "w1") -> list[str]:
    """Version 1 answers, requests a and b are claimed, c waits."""
    register(Registry(client, model), 0)
    store = RequestStore(client, model, worker)
    for name in "abc":
        store.ask(request(name, "schedule"))
    return store.claim([one.entry for one in store.waiting()][:2], SILENT_MS)


def outcome(client: Client, model: str) -> dict[str, Any]:
    """All that is left of it."""
    registry, verdicts = Registry(client, model), VerdictStore(client, model)
    return {
        "aliases": registry.aliases(),
        "versions": [(one.version, one.parent, one.training.get("verdict")) for one in registry.versions()],
        "events": [(entry.event, entry.version) for entry in registry.audit()],
        "verdicts": verdicts.recent(9),
        "of version": verdicts.of_version(2),
        "spent": verdicts.spent(),
        "draft": verdicts.drafted(),
        "waiting": [one.request.id for one in RequestStore(client, model).waiting()],
    }


def test_a_candidate_is_registered_nominated_and_its_requests_answered(client: Client) -> None:
    """The version knows its verdict and the verdict its version; the trial takes a tenth of the budget at most."""
    entries = asked(client, "settled")
    found = settler(client, "settled", "w1").settle(verdict(), MADE, entries)
    assert found.version == 2
    assert found.trial is not None
    assert found.trial.alpha == LIMITS.alpha
    after = outcome(client, "settled")
    assert (after["aliases"].incumbent, after["aliases"].candidate) == (1, 2)
    assert after["versions"] == [(1, None, None), (2, 1, "a")]
    assert after["of version"] == found == after["verdicts"][0]
    assert (after["spent"], after["draft"], after["waiting"]) == (LIMITS.alpha, None, ["c"])
    assert Registry(client, "settled").audit(1)[0].reason == "better by far"


@pytest.mark.parametrize("answered", [True, False], ids=["before a call", "before its answer"])
def test_whoever_dies_between_two_steps_is_followed_by_another(client: Client, *, answered: bool) -> None:
    """Killed before any call, or before its answer, what is left in the end is what one worker leaves that lives."""
    entries = asked(client, "lived")
    settler(client, "lived", "w1").settle(verdict(), MADE, entries)
    wanted = outcome(client, "lived")
    deaths = 0
    for calls in range(1, 60):
        model = f"died-{calls}-{answered}"
        entries = asked(client, model)
        dying = cast("Client", Dying(client, calls, answered=answered))
        try:
            settler(dying, model, "w1").settle(verdict(), MADE, entries)
            break
        except ServiceUnreachable:
            deaths += 1
        time.sleep(0.002)
        second = RequestStore(client, model, "w2")
        left = second.waiting()
        claimed = second.claim([one.entry for one in left if one.request.id in "ab"], 0)
        mine = [one for one in left if one.entry in claimed]
        heir = settler(client, model, "w2")
        if mine and heir.resume(mine) is None:  # nothing was registered yet: it is trained again
            heir.settle(verdict(), MADE, claimed)
        assert comparable(outcome(client, model)) == comparable(wanted)
    assert deaths >= 9


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """Without what time makes of it."""
    return {**found, "events": sorted(found["events"], key=str)}


def test_where_another_version_answers_by_now_nothing_is_registered(client: Client) -> None:
    """The comparison was with another incumbent: the verdict says so, and its requests are answered."""
    entries = asked(client, "late")
    registry = Registry(client, "late")
    register(registry, 1)
    registry.promote(2, expected=1, actor="ann", reason="by hand", now_ms=5)
    found = settler(client, "late", "w1").settle(verdict(), MADE, entries)
    assert (found.outcome, found.version, found.trial) == ("inconclusive", None, None)
    assert found.sentence.endswith("but version 2 answers by now, and it was compared with version 1")
    assert len(registry.versions()) == 2
    assert VerdictStore(client, "late").spent() == 0


def test_a_slow_worker_registers_nothing(client: Client) -> None:
    """Its requests were taken up by another one meanwhile: it is told before there is a second version."""
    entries = asked(client, "slow")
    assert RequestStore(client, "slow", "w2").claim(entries, 0) == entries
    with pytest.raises(FencedError):
        settler(client, "slow", "w1").settle(verdict(), MADE, entries)
    after = outcome(client, "slow")
    assert (after["versions"], after["draft"]) == ([(1, None, None)], None)


def test_what_a_slow_worker_registered_is_settled(client: Client) -> None:
    """Another one that has trained meanwhile does not register a second version of the verdict."""
    entries = asked(client, "twice")
    slow = VerdictStore(client, "twice")
    slow.draft(verdict(), "w1", entries)
    assert RequestStore(client, "twice", "w2").claim(entries, 0) == entries
    register(Registry(client, "twice"), 7, 1, verdict="a")
    found = settler(client, "twice", "w2").settle(msgspec.structs.replace(verdict(), seconds=9.0), MADE, entries)
    assert (found.version, found.seconds) == (2, 1.0)
    assert outcome(client, "twice")["versions"] == [(1, None, None), (2, 1, "a")]


class Overtaken:
    """A client before whose call that writes a verdict somebody else does something."""

    def __init__(self, client: Client, meanwhile: Callable[[], object]) -> None:
        self._client = client
        self._meanwhile = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def fcall(self, name: str, *words: Any) -> Any:
        """The reply."""
        if name.endswith("_write"):
            self._meanwhile()
        return self._client.fcall(name, *words)


def test_of_two_workers_that_settle_one_nominates(client: Client) -> None:
    """Overtaken between registering and writing, the slower one goes on with the verdict that is written."""
    entries = asked(client, "overtaken")

    def meanwhile() -> None:
        assert RequestStore(client, "overtaken", "w2").claim(entries, 0) == entries
        other = msgspec.structs.replace(verdict(), created_ms=10)
        VerdictStore(client, "overtaken").write(
            msgspec.structs.replace(other, version=register(Registry(client, "overtaken"), 7, 1)),
            "w2", entries, before=0.0, spends=0.0,
        )  # fmt: skip

    slow = settler(cast("Client", Overtaken(client, meanwhile)), "overtaken", "w1")
    with pytest.raises(FencedError):
        slow.settle(verdict(), MADE, entries)
    registry = Registry(client, "overtaken")
    assert registry.aliases().candidate == 3
    assert [entry.version for entry in registry.audit() if entry.event == "nominate"] == [3]


def test_a_candidate_that_is_tried_gives_way_to_a_better_one(client: Client) -> None:
    """The newer comparison is with the same incumbent."""
    entries = asked(client, "again")
    registry = Registry(client, "again")
    register(registry, 1, 1)
    registry.nominate(2, expected=None, actor="ann", reason="try", now_ms=5)
    settler(client, "again", "w1").settle(verdict(), MADE, entries)
    assert registry.aliases().candidate == 3


def test_each_trial_takes_a_tenth_of_what_is_left(client: Client) -> None:
    """So all together stay below the budget for good."""
    register(Registry(client, "budget"), 0)
    store, verdicts = RequestStore(client, "budget", "w1"), VerdictStore(client, "budget")
    spent = 0.0
    for number in range(40):
        name = f"r{number}"
        store.ask(request(name, "schedule"))
        entries = store.claim([one.entry for one in store.waiting()], SILENT_MS)
        one = msgspec.structs.replace(verdict(), id=name, requests=(name,), created_ms=number)
        found = settler(client, "budget", "w1").settle(one, MADE, entries)
        assert found.trial is not None
        assert found.trial.alpha == pytest.approx(min(LIMITS.alpha, 0.1 * (LIMITS.budget - spent)))
        spent += found.trial.alpha
    assert verdicts.spent() == pytest.approx(spent)
    assert 0.5 * LIMITS.budget < spent < LIMITS.budget


def test_without_a_budget_there_is_no_trial(client: Client) -> None:
    """Somebody lowered it: the sentence says what to raise, and nothing is registered."""
    entries = asked(client, "spent")
    stores = (RequestStore(client, "spent", "w1"), VerdictStore(client, "spent"), Registry(client, "spent"))
    found = Settler("w1", *stores, LIMITS._replace(budget=0.0)).settle(verdict(), MADE, entries)
    assert (found.outcome, found.version) == ("inconclusive", None)
    assert found.sentence.endswith("but the live trials have spent their budget of 0: raise judgement.budget")


def test_a_trial_for_harm_spends_nothing(client: Client) -> None:
    """After a drift the level is that of the comparison."""
    entries = asked(client, "harm")
    found = settler(client, "harm", "w1").settle(verdict("drift"), MADE, entries)
    assert found.trial is not None
    assert (found.trial.mode, found.trial.alpha) == ("harm", LIMITS.harm_alpha)
    assert VerdictStore(client, "harm").spent() == 0
