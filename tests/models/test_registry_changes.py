"""Changes of the registry on Redis, on Valkey and on a cluster: one wins, the others are told who was faster."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from models.audit import printable
from models.errors import ConfigError, StaleCommand, VersionError
from models.registry import CODE, Aliases, Registry
from models.server import call_function
from tests.models.versions import Registered, register
from tests.streams import architecture_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.server import Client
    from tests.consumers.conftest import Store

    Kept = TypeVar("Kept", bound="Registered")

NOON = 1_772_366_400_000  # 2026-03-01T12:00:00Z
BY_ANN: dict[str, Any] = {"actor": "ann@desk", "reason": "better in winter", "now_ms": NOON}
BY_BOB: dict[str, Any] = {"actor": "bob@desk", "reason": "worse at night", "now_ms": NOON + 60_000}


@pytest.fixture
def registry(client: Client) -> Registry:
    """A model with versions 1 (the incumbent), 2 and 3 made from it, and 4 made from 3."""
    return filled(Registry(client, "weather"))


@pytest.fixture
def contents(client: Client) -> Callable[[], object]:
    """What tells every key with what it holds."""

    def told() -> dict[bytes, object]:
        found: Any = client.keys("*")
        return {key: client.dump(key) for key in found}

    return told


def filled(registry: Kept) -> Kept:
    """The registry with versions 1 to 4."""
    for seed, parent in enumerate((None, 1, 1, 3)):
        register(registry, architecture_of(), seed, parent)
    return registry


def test_a_promotion_moves_the_aliases_and_the_generation(registry: Registry) -> None:
    """The former incumbent is the previous version; what is given back is what is read afterwards."""
    found = registry.promote(2, expected=1, **BY_ANN)
    assert found == Aliases(2, None, 1, 2, paused=False) == registry.aliases()
    assert registry.promote(3, expected=2, **BY_BOB) == Aliases(3, None, 2, 3, paused=False)
    assert registry.statuses() == {}


def test_a_rollback_withdraws_and_pauses(registry: Registry) -> None:
    """The previous version answers again, there is none before it, and the one that failed is withdrawn."""
    registry.promote(2, expected=1, **BY_ANN)
    assert registry.rollback(expected=2, **BY_BOB) == Aliases(1, None, None, 3, paused=True) == registry.aliases()
    assert registry.statuses() == {2: "withdrawn"}
    registry.promote(3, expected=1, **BY_ANN)
    assert registry.rollback(4, expected=3, **BY_BOB) == Aliases(4, None, None, 5, paused=True)
    assert registry.statuses() == {2: "withdrawn", 3: "withdrawn"}


def test_a_candidate_is_set_cleared_and_taken_up(registry: Registry) -> None:
    """A promotion, or a rollback, to the candidate leaves no candidate; to another version it stays."""
    assert registry.nominate(2, expected=None, **BY_ANN) == Aliases(1, 2, None, 2)
    assert registry.nominate(3, expected=2, **BY_ANN).candidate == 3
    assert registry.nominate(None, expected=3, **BY_ANN) == Aliases(1, None, None, 4)
    registry.nominate(2, expected=None, **BY_ANN)
    assert registry.promote(3, expected=1, **BY_ANN).candidate == 2
    assert registry.promote(2, expected=3, **BY_ANN).candidate is None
    registry.nominate(4, expected=None, **BY_ANN)
    assert registry.rollback(4, expected=2, **BY_ANN).candidate is None


def test_every_change_is_in_the_audit(registry: Registry) -> None:
    """Who, what, when, why, from which to which, and the generation that it made."""
    registry.nominate(2, expected=None, **BY_ANN)
    registry.promote(2, expected=1, **BY_ANN)
    registry.rollback(expected=2, **BY_BOB)
    registry.resume(**BY_ANN)
    registry.pause(**BY_BOB)
    registry.retire(4, **BY_BOB)
    found = registry.audit(6)
    assert [(e.event, e.version, e.before, e.after, e.generation) for e in found] == [
        ("nominate", 2, None, 2, 2),
        ("promote", 2, 1, 2, 3),
        ("rollback", 1, 2, 1, 4),
        ("resume", None, None, None, 4),
        ("pause", None, None, None, 4),
        ("retire", 4, None, None, 4),
    ]
    assert (found[1].actor, found[1].reason, found[1].time_ms) == ("ann@desk", "better in winter", NOON)
    assert str(found[2]) == "rolled back by bob@desk at 2026-03-01T12:01:00Z: worse at night"
    everything = registry.audit()
    assert everything[-6:] == found
    assert [entry.event for entry in everything[:-6]] == ["register", "incumbent", *["register"] * 3]
    assert (everything[1].before, everything[1].after, everything[1].generation) == (None, 1, 1)
    assert [entry.id for entry in everything] == sorted(entry.id for entry in everything)


def test_a_long_audit_is_read_whole(registry: Registry) -> None:
    """More entries than one read holds come in their order, none twice and none left out."""
    for number in range(300):
        change = registry.pause if number % 2 == 0 else registry.resume
        change(actor="ann", reason=f"change {number}", now_ms=number)
    assert [entry.time_ms for entry in registry.audit()[-300:]] == list(range(300))
    assert [entry.time_ms for entry in registry.audit(2)] == [298, 299]
    assert registry.audit(0) == []


REFUSED: list[tuple[str, dict[str, Any], type[VersionError], str]] = [
    (
        "promote", {"version": 2, "expected": 1}, StaleCommand,
        "version 2 already answers (promoted by ann@desk at 2026-03-01T12:00:00Z: better in winter): there is nothing",
    ),
    (
        "promote", {"version": 3, "expected": 1}, StaleCommand,
        "version 2 answers, not 1 as expected (promoted by ann@desk at 2026-03-01T12:00:00Z: better in winter): see",
    ),
    ("promote", {"version": 9, "expected": 2}, VersionError, "model 'weather' has no version 9: it has [1, 2, 3, 4, 5"),
    ("promote", {"version": 0, "expected": 2}, VersionError, "model 'weather' has no version 0: it has [1, 2, 3, 4, 5"),
    (
        "promote", {"version": 4, "expected": 2}, VersionError,
        "version 4 is withdrawn (rolled back by bob@desk at 2026-03-01T12:01:00Z: worse at night): choose another",
    ),
    (
        "promote", {"version": 5, "expected": 2}, VersionError,
        "version 5 is retired (retired by bob@desk at 2026-03-01T12:01:00Z: worse at night): choose another",
    ),
    (
        "promote", {"version": 3, "expected": 2, "automatic": True}, StaleCommand,
        "automatic promotion of model 'weather' is paused (rolled back by bob@desk at 2026-03-01T12:01:00Z: worse at",
    ),
    (
        "rollback", {"to": None, "expected": 3}, StaleCommand,
        "version 2 answers, not 3 as expected (promoted by ann@desk at 2026-03-01T12:00:00Z: better in winter): see",
    ),
    ("rollback", {"to": 2, "expected": 2}, StaleCommand, "version 2 already answers (promoted by ann@desk"),
    ("rollback", {"to": 9, "expected": 2}, VersionError, "model 'weather' has no version 9"),
    ("rollback", {"to": 4, "expected": 2}, VersionError, "version 4 is withdrawn (rolled back by bob@desk"),
    ("rollback", {"to": 5, "expected": 2}, VersionError, "version 5 is retired (retired by bob@desk"),
    ("nominate", {"version": 6, "expected": None}, StaleCommand, "the candidate is 6 already (nominated by ann@desk"),
    ("nominate", {"version": 3, "expected": None}, StaleCommand, "the candidate is 6, not none as expected (nominated"),
    ("nominate", {"version": None, "expected": 3}, StaleCommand, "the candidate is 6, not 3 as expected (nominated by"),
    ("nominate", {"version": 2, "expected": 6}, StaleCommand, "version 2 answers, so it is no candidate (promoted by"),
    ("nominate", {"version": 4, "expected": 6}, VersionError, "version 4 is withdrawn"),
    ("nominate", {"version": 9, "expected": 6}, VersionError, "model 'weather' has no version 9"),
    (
        "nominate", {"version": 3, "expected": 6, "automatic": True}, StaleCommand,
        "version 3 was made from version 1, and version 2 answers by now (promoted by ann@desk",
    ),
    ("approve", {"version": 3}, StaleCommand, "version 3 is not the candidate (that is: 6) (nominated by ann@desk"),
    ("approve", {"version": 6}, StaleCommand, "version 6 was made from version none, and version 2 answers by now"),
    ("approve", {"version": 2}, StaleCommand, "version 2 already answers (promoted by ann@desk"),
    ("approve", {"version": 4}, VersionError, "version 4 is withdrawn"),
    ("approve", {"version": 9}, VersionError, "model 'weather' has no version 9"),
    ("retire", {"version": 5}, StaleCommand, "version 5 is retired already (retired by bob@desk at 2026-03-01T12:01"),
    ("retire", {"version": 1}, VersionError, "version 1 is the previous: retire it when it no longer is"),
    ("retire", {"version": 2}, VersionError, "version 2 is the incumbent: retire it when it no longer is"),
    ("retire", {"version": 6}, VersionError, "version 6 is the candidate: retire it when it no longer is"),
    ("retire", {"version": 9}, VersionError, "model 'weather' has no version 9"),
    ("pause", {}, StaleCommand, "automatic promotion of model 'weather' is paused already (rolled back by bob@desk"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words", "kind", "said"), REFUSED)
def test_what_can_not_be_done_is_refused_and_changes_nothing(
    registry: Registry,
    contents: Callable[[], object],
    change: str,
    words: dict[str, Any],
    kind: type[VersionError],
    said: str,
) -> None:
    """The message says what is in the way, who did it, when and why; nothing that is stored has changed."""
    for seed in (4, 5):
        register(registry, architecture_of(), seed)
    registry.promote(4, expected=1, **BY_ANN)
    registry.rollback(1, expected=4, **BY_BOB)
    registry.retire(5, **BY_BOB)
    registry.promote(2, expected=1, **BY_ANN)
    registry.nominate(6, expected=None, **BY_ANN)
    before = contents()
    with pytest.raises(VersionError) as refused:
        getattr(registry, change)(**words, actor="eve", reason="try", now_ms=NOON + 120_000)
    assert type(refused.value) is kind
    assert str(refused.value).startswith(said)
    assert refused.value.cure
    assert refused.value.exit_code == 1
    assert contents() == before


def test_a_candidate_is_signed_off_once(registry: Registry) -> None:
    """The sign-off is of this candidate beside this incumbent: any change of an alias takes it back."""
    registry.nominate(2, expected=None, automatic=True, **BY_ANN)
    assert registry.approve(2, **BY_BOB).approved == 2 == registry.aliases().approved
    with pytest.raises(StaleCommand, match=r"version 2 is approved already \(approved by bob@desk"):
        registry.approve(2, **BY_ANN)
    assert registry.nominate(3, expected=2, automatic=True, **BY_ANN).approved is None
    registry.approve(3, **BY_BOB)
    assert registry.promote(3, expected=1, automatic=True, **BY_ANN) == Aliases(3, None, 1, 4)
    assert [entry.event for entry in registry.audit(3)] == ["nominate", "approve", "promote"]


def test_without_a_candidate_none_can_be_taken_away(registry: Registry) -> None:
    """Two operators send it away: the slower one is told who did."""
    registry.nominate(2, expected=None, **BY_ANN)
    registry.nominate(None, expected=2, **BY_BOB)
    with pytest.raises(StaleCommand, match=r"there is no candidate \(sent away by bob@desk"):
        registry.nominate(None, expected=2, **BY_ANN)


def test_what_was_made_from_another_version_is_promoted_by_people_only(registry: Registry) -> None:
    """A candidate was compared with its parent: when another version answers, that comparison says nothing."""
    registry.nominate(2, expected=None, **BY_ANN)
    registry.promote(3, expected=1, **BY_BOB)
    with pytest.raises(StaleCommand, match=r"version 2 was made from version 1, and version 3 answers by now"):
        registry.promote(2, expected=3, automatic=True, **BY_ANN)
    assert registry.promote(2, expected=3, **BY_ANN).incumbent == 2


def test_a_second_rollback_is_refused_with_who_rolled_back(registry: Registry) -> None:
    """Two operators see the same trouble: the slower one does not undo what the faster one did."""
    registry.promote(2, expected=1, **BY_ANN)
    registry.rollback(expected=2, **BY_BOB)
    with pytest.raises(StaleCommand, match=r"version 1 answers, not 2 as expected \(rolled back by bob@desk"):
        registry.rollback(expected=2, **BY_ANN)
    with pytest.raises(StaleCommand, match=r"no previous version to go back to \(rolled back by bob@desk .*: name one"):
        registry.rollback(expected=1, **BY_ANN)


def test_resume_lets_promotion_go_on(registry: Registry) -> None:
    """Automatic promotion works until it is paused, and again after `resume`; people may promote meanwhile."""
    with pytest.raises(StaleCommand, match="not paused: there is nothing to do"):
        registry.resume(**BY_ANN)
    assert registry.promote(3, expected=1, automatic=True, **BY_ANN).incumbent == 3
    assert registry.pause(**BY_ANN).paused
    with pytest.raises(StaleCommand, match=r"is paused \(paused by ann@desk"):
        registry.promote(4, expected=3, automatic=True, **BY_BOB)
    assert registry.promote(2, expected=3, **BY_BOB) == Aliases(2, None, 3, 3, paused=True)
    assert not registry.resume(**BY_ANN).paused
    with pytest.raises(StaleCommand, match=r"not paused \(resumed by ann@desk"):
        registry.resume(**BY_BOB)
    registry.promote(3, expected=2, **BY_BOB)
    assert registry.promote(4, expected=3, automatic=True, **BY_BOB).incumbent == 4


@pytest.mark.parametrize("change", ["promote", "rollback"])
def test_of_two_operators_at_once_exactly_one_wins(store: Store, registry: Registry, change: str) -> None:
    """Eight threads with the same belief: one succeeds, seven are told who was faster; one generation, one entry."""
    registry.promote(2, expected=1, **BY_ANN)
    start = Barrier(8)

    def operate(number: int) -> str:
        mine = Registry(store.another_client(), "weather")
        start.wait()
        by: dict[str, Any] = {"actor": f"operator {number}", "reason": "now", "now_ms": NOON + number}
        try:
            if change == "promote":
                mine.promote(3 + number % 2, expected=2, **by)
            else:
                mine.rollback(expected=2, **by)
        except StaleCommand as error:
            return str(error)
        return "won"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(operate, range(8)))
    winner = outcomes.index("won")
    losers = [said for number, said in enumerate(outcomes) if number != winner]
    assert all(f"by operator {winner} at 2026-03-01T12:00:00" in said for said in losers)
    assert registry.aliases().generation == 3
    assert [entry.event for entry in registry.audit(2)] == ["promote", change]


def test_a_call_that_the_server_gets_twice_is_made_once(registry: Registry, client: Client) -> None:
    """A client that lost the answer sends the same bytes again: done, not refused, and not done again."""
    keys = [f"killick:{{weather}}:{name}" for name in ("state", "statuses", "infos", "audit")]
    words: list[bytes | str | int] = ["call-1", "ann", "better", NOON, 2, 1, 0]
    first = call_function(client, CODE, "killick_registry_v3_promote", keys, words)
    assert call_function(client, CODE, "killick_registry_v3_promote", keys, words) == first
    assert first[0] == b"ok"
    assert registry.aliases().generation == 2
    assert call_function(client, CODE, "killick_registry_v3_promote", keys, ["call-2", *words[1:]])[0] != b"ok"


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_change_without_a_reason_is_refused(registry: Registry, reason: str) -> None:
    """The audit would not say why."""
    with pytest.raises(ConfigError, match="promote needs a reason: say why: --reason"):
        registry.promote(2, expected=1, actor="ann", reason=reason, now_ms=NOON)
    assert registry.aliases().incumbent == 1


def test_words_in_the_audit_stay_in_their_line(registry: Registry) -> None:
    """Line breaks are blanks, and what moves a cursor is a question mark, so that no reason forges an entry."""
    registry.pause(actor="ann\x1b[2J", reason="  too\nhot \t today ☀ ", now_ms=NOON)
    assert (registry.audit(1)[0].actor, registry.audit(1)[0].reason) == ("ann?[2J", "too hot today ☀")
    assert printable("é ☀") == "é ☀"


def test_the_aliases_are_read_in_well_under_a_poll(registry: Registry) -> None:
    """Consumers ask five times a second: a hundred reads take less than a second."""
    began = time.monotonic()
    for _ in range(100):
        registry.aliases()
    assert time.monotonic() - began < 1
