"""What the monitor keeps: changed whole or not at all, by whoever took it last, and once however often it is asked."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

import msgspec
import numpy as np
import pytest

from models import references
from models.duels import Duel
from models.errors import FencedError, LedgerError, OffsetConflict, ServiceUnreachable
from models.references import Observed, Recent, Trails
from models.server import calling, connect
from models.tally import COLUMNS, reported_leads
from models.windows import Key
from tests.consumers.test_ledger_calls import Deaf
from worker import store as store_module
from worker.store import START, Advance, ModelStore, PartitionStore, Request, Standing, decode_sums, encode_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models.server import Client

pytestmark = pytest.mark.services
LEADS = reported_leads(4)
LEASE_MS = 60_000


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """Redis, then Valkey."""
    made = connect(store_url)
    yield made
    made.close()


def sums_of(seed: int) -> np.ndarray:
    """Sums of a version with four leads."""
    return np.random.default_rng(seed).normal(size=(len(LEADS) + 1, len(COLUMNS)))


def first_advance() -> Advance:
    """From the start to the block that ends at 7."""
    sums = {"hour/3/412": encode_sums(LEADS, sums_of(1)), "life/3/0": encode_sums(LEADS, sums_of(2))}
    duels = {(98, 3, 4): Duel(4, 0.1, 1 / 3, 3, 2, 1, 0), (99, 3, 4): Duel(1, 2.5, 1.5, 1, 9, 0, 2)}
    return Advance(START, "7-1", 99, 5, sums=sums, losses={(98, 3): (4, 1.5), (99, 3): (2, 0.25)}, duels=duels)


def test_cursor_sums_losses_and_duels_move_together(client: Client) -> None:
    """What one call writes is there afterwards, to the bit, and what it lets go is not."""
    store = PartitionStore(client, "m", 2, "mine")
    assert store.take() == Standing()
    store.advance(first_advance())
    assert store.standing() == Standing(place="7-1", newest=99, observations=5)
    counts = np.array([2], "<i8").tobytes()
    sums = {"hour/3/413": encode_sums(LEADS, sums_of(3)), "inputs/3/413": counts}
    assert PartitionStore(client, "m", 2).duels() == first_advance().duels
    duels = {(99, 3, 4): Duel(2, 3.5, 1.5, 1, 9, 0, 2), (-3, 4, 3): Duel(1)}
    second = Advance("7-1", "9-2", 101, 4, sums=sums, losses={(99, 3): (3, 0.5)}, duels=duels)
    forget = replace(second, forget_sums=["hour/3/412"], forget_losses=[(98, 3)], forget_duels=[(98, 3, 4)])
    store.advance(forget)
    assert store.duels() == duels
    book = PartitionStore(client, "m", 2).sums()[0]
    assert book.leads == {3: LEADS}
    assert set(book.sums) == {Key("life", 3), Key("hour", 3, 413)}
    np.testing.assert_array_equal(book.sums[Key("life", 3)], sums_of(2))
    np.testing.assert_array_equal(book.sums[Key("hour", 3, 413)], sums_of(3))
    assert store.losses() == {(99, 3): (3, 0.5)}
    assert {key: found.tolist() for key, found in store.sums()[1].items()} == {(3, 413): [2]}
    assert store.standing() == Standing(place="9-2", newest=101, observations=9)
    assert PartitionStore(client, "m", 1).standing() == Standing()


def test_a_change_is_made_once(client: Client) -> None:
    """Whether the call or its answer was lost, the same change may be asked for again."""
    for loses in ("the call", "the answer"):
        deaf = Deaf(client)
        store = PartitionStore(cast("Client", deaf), loses.replace(" ", "-"), 0, "mine")
        store.take()
        deaf.loses = loses
        with pytest.raises(ServiceUnreachable):
            store.advance(first_advance())
        for _ in range(2):
            store.advance(first_advance())
        assert store.standing() == Standing(place="7-1", newest=99, observations=5)


def test_a_change_from_another_place_is_refused(client: Client) -> None:
    """Redis lost its tail, or somebody else was at work: nothing is written."""
    store = PartitionStore(client, "m", 0, "mine")
    store.take()
    store.advance(first_advance())
    with pytest.raises(OffsetConflict):
        store.advance(replace(first_advance(), expected="5-1", place="9-1"))
    assert store.standing().place == "7-1"


def test_who_was_taken_over_from_writes_nothing(client: Client) -> None:
    """Every function that writes asks for the token."""
    mine, theirs = PartitionStore(client, "m", 0, "mine"), PartitionStore(client, "m", 0, "theirs")
    mine.take()
    theirs.take()
    writes: list[Callable[[], object]] = [
        partial(mine.advance, first_advance()),
        partial(mine.need, "monitor", 5),
        partial(mine.keep_trails, Trails(3, 4), "7-1", 7),
        partial(mine.keep_trails, trails_of(3), "7-1", 7),
    ]
    for write in writes:
        with pytest.raises(FencedError):
            write()
    assert theirs.standing() == Standing()
    assert theirs.needed() == {}
    assert calling(client.exists, "killick:{m/0}:trails") == 0


def trails_of(series: int) -> Trails:
    """Trails after three observations of each series."""
    trails = Trails(3, 4)
    slot = np.tile(np.arange(series), 3)
    step = np.repeat(np.arange(3), series)
    trails.look_back(Observed(slot, step, (10 * slot + step).astype(np.float64), step != 1), np.array([1]))
    return trails


def test_trails_count_when_they_are_whole(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of a few series; the set before stays until `keep` names the new one, and goes then."""
    monkeypatch.setattr(store_module, "TRAIL_SLOTS", 100)
    store = PartitionStore(client, "m", 0, "mine")
    store.take()
    store.keep_trails(trails_of(300), "7-1", 7)
    standing = store.standing()
    assert (standing.trails, standing.trails_place, store.needed()) == ("7-1", "7-1", {"monitor": 7})
    kept = dict(store.trails("7-1"))
    wanted = trails_of(300)
    assert sorted(kept) == list(range(0, len(wanted), 100))
    for first, recent in kept.items():
        for name in Recent.__annotations__:
            np.testing.assert_array_equal(getattr(recent, name), getattr(wanted.recent(first, 100), name))
    deaf = Deaf(client)
    dying = PartitionStore(cast("Client", deaf), "m", 0, "mine")
    deaf.loses = "the answer"
    with pytest.raises(ServiceUnreachable):
        dying.keep_trails(trails_of(400), "9-1", 9)
    assert store.standing() == standing
    assert len(dict(store.trails("7-1"))) == len(kept)
    store.keep_trails(trails_of(5), "11-1", 11)
    assert dict(store.trails("7-1")) == {}
    assert dict(store.trails("9-1")) == {}
    assert len(dict(store.trails("11-1"))) == 3
    assert store.needed() == {"monitor": 11}


def test_long_trails_go_in_small_calls(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A period of more than 65,535 steps, as of a day in seconds, can be kept; no call is large."""
    monkeypatch.setattr(store_module, "TRAIL_BYTES", 2_000_000)
    monkeypatch.setattr(references, "MIN_GROWTH", 4)
    depth = 70_000
    trails = Trails(3, depth)
    step = np.arange(depth + 5)
    trails.look_back(Observed(step * 0, step, step.astype(np.float64), step >= 0), np.array([1]))
    store = PartitionStore(client, "m", 0, "mine")
    store.take()
    store.keep_trails(trails, "7-1", 7)
    kept = dict(store.trails("7-1"))
    assert sorted(kept) == [0, 3]
    assert kept[0].known.tolist() == [depth, 0, 0]
    np.testing.assert_array_equal(kept[0].values[0], step[-1 : -depth - 1 : -1])


def test_a_need_can_be_let_go(client: Client) -> None:
    """None takes it away; others stay."""
    store = PartitionStore(client, "m", 0, "mine")
    store.take()
    store.need("monitor", 5)
    store.need("archive", 3)
    store.need("monitor", None)
    assert store.needed() == {"archive": 3}


def test_another_format_is_refused(client: Client) -> None:
    """Records, sums and trails each say which they have; nobody takes what he can't read."""
    store = PartitionStore(client, "m", 0, "mine")
    store.take()
    store.keep_trails(trails_of(1), "7-1", 7)
    name, data = next(iter(calling(client.hgetall, "killick:{m/0}:trails").items()))
    calling(client.hset, "killick:{m/0}:trails", name, b"\x63" + data[1:])
    with pytest.raises(LedgerError, match="trails have format 99, known is 1"):
        list(store.trails("7-1"))
    data = encode_sums(LEADS, sums_of(1))
    with pytest.raises(LedgerError, match="error sums have format 99 with 25 columns, known is 1"):
        decode_sums(b"\x63" + data[1:])
    with pytest.raises(LedgerError, match="format 1 with 26 columns"):
        decode_sums(data[:4] + b"\x1a" + data[5:])
    calling(client.hset, "killick:{m/0}:monitor", "format", "2")
    with pytest.raises(LedgerError, match="has format 2, known is 1: upgrade killick"):
        PartitionStore(client, "m", 0, "new").take()
    store.advance(first_advance())  # who took it before goes on


def test_one_leads_until_it_is_silent(client: Client) -> None:
    """The lease is renewed by its holder, refused to others, and free when it was released or ran out."""
    one, other = ModelStore(client, "m", "one"), ModelStore(client, "m", "other")
    assert not one.led()
    assert one.lease(LEASE_MS)
    assert one.lease(LEASE_MS)
    assert not other.lease(LEASE_MS)
    other.release()
    assert one.led()
    one.release()
    assert other.lease(LEASE_MS)
    calling(client.pexpire, "killick:{m}:lease", 0)
    assert one.lease(LEASE_MS)
    assert not other.lease(LEASE_MS)


def request(number: int) -> Request:
    """One of several."""
    return Request(id=str(number), trigger="drift", goal="restore", why="so", evidence={"x": [1]}, created_ms=number)


def test_drift_state_losses_and_requests_move_together_and_once(client: Client) -> None:
    """A revision is made by one call, however often it is asked for, by who leads or by nobody else."""
    deaf = Deaf(client)
    store = ModelStore(cast("Client", deaf), "m", "one")
    assert store.drift() == (0, b"")
    assert store.drift_losses() == []
    assert store.waiting() == (0, None)
    store.lease(LEASE_MS)
    store.change_drift(0, b"first", [1.0, 2.0, 3.5], 0, [])
    for loses in ("the call", "the answer"):
        deaf.loses = loses
        with pytest.raises(ServiceUnreachable):
            store.change_drift(1, b"second", [4.0], 2, [request(1), request(2)])
        store.change_drift(1, b"second", [4.0], 2, [request(1), request(2)])
    assert store.drift() == (2, b"second")
    assert store.drift_losses() == [3.5, 4.0]
    assert store.requests() == [request(1), request(2)]
    assert store.waiting() == (2, 1)
    with pytest.raises(OffsetConflict):
        store.change_drift(0, b"third", [5.0], 0, [])
    store.release()
    store.change_drift(2, b"third", [5.0], 3, [])  # the lease ran out, and nobody took it
    assert (store.drift(), store.drift_losses()) == ((3, b"third"), [])
    other = ModelStore(client, "m", "other")
    other.lease(LEASE_MS)
    with pytest.raises(FencedError):
        store.change_drift(3, b"fourth", [], 0, [request(3)])
    with pytest.raises(OffsetConflict):
        other.change_drift(2, b"fourth", [6.0], 0, [])
    assert (other.drift(), len(other.requests())) == ((3, b"third"), 2)


def about(number: int, version: int | None, trigger: str = "drift") -> Request:
    """A request because of a version's drift, or without one."""
    evidence = {} if version is None else {"version": version}
    return msgspec.structs.replace(request(number), trigger=trigger, evidence=evidence)


def test_another_version_ends_what_the_drift_of_those_before_asked_for(client: Client) -> None:
    """Their skill, too; for good, and for who is at work on it; what is about this version, or of people, stays."""
    store, key = ModelStore(client, "m", "one"), "killick:{m}:requests"
    asked = [
        about(1, 1),
        about(2, None, "operator"),
        about(3, 2),
        about(4, 1),
        about(5, 1, "http"),
        about(8, 1, "skill"),
    ]
    store.change_drift(0, b"first", [], 0, asked)
    calling(client.xgroup_create, key, "workers", "0")
    calling(client.xgroup_create, key, "others", "0")
    for group in ("workers", "others"):
        calling(client.xreadgroup, group, "someone", {key: ">"})
    store.change_drift(1, b"second", [], 0, [about(6, 1)])
    assert len(store.requests()) == 7
    store.change_drift(2, b"third", [], 0, [about(7, 2)], answers=2)
    assert [one.id for one in store.requests()] == ["2", "3", "5", "7"]
    for group in ("workers", "others"):
        assert calling(client.xpending, key, group)["pending"] == 3
        (_, entries), *_ = calling(client.xreadgroup, group, "someone", {key: "0"})
        assert all(fields for _, fields in entries)


@pytest.mark.parametrize("name", ["gate", "asking"])
def test_a_state_and_its_requests_move_together_and_once(client: Client, name: Literal["gate", "asking"]) -> None:
    """As the detectors' state: by who leads, or by nobody else, one revision after another."""
    deaf = Deaf(client)
    store = ModelStore(cast("Client", deaf), "m", "one")
    assert store.state(name) == (0, b"")
    for revision, loses in enumerate(("the call", "the answer")):
        deaf.loses = loses
        with pytest.raises(ServiceUnreachable):
            store.change(name, revision, b"%d" % revision, [request(revision)])
        for _ in range(2):
            store.change(name, revision, b"%d" % revision, [request(revision)])
    assert store.state(name) == (2, b"1")
    assert store.requests() == [request(0), request(1)]
    other = ModelStore(client, "m", "other")
    other.lease(LEASE_MS)
    with pytest.raises(FencedError):
        store.change(name, 2, b"mine", [request(2)])
    other.change(name, 2, b"theirs")
    other.release()
    with pytest.raises(OffsetConflict):
        store.change(name, 2, b"mine", [request(2)])
    assert store.state(name) == (3, b"theirs")
    assert len(store.requests()) == 2
