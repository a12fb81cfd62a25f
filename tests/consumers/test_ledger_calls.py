"""Calls that change a ledger follow each other: none is done twice, and none on a ledger that lost its tail."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis

from consumers.ledger import Commit, Ledger, PartitionState
from models.errors import FencedError, OffsetConflict, ServiceUnreachable
from models.server import calling
from tests.consumers.test_ledger import TAKEN, contents, everything, taken
from tests.consumers.test_ledger_keeping import block_of, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.server import Client
    from tests.consumers.conftest import Store

pytestmark = pytest.mark.services


class Deaf:
    """A client of a real server that loses a call, or its answer, once it is told to."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.loses = ""

    def fcall(self, *words: Any) -> Any:
        """The reply, if nothing is lost."""
        loses, self.loses = self.loses, ""
        reply = None if loses == "the call" else self._client.fcall(*words)
        if loses:
            raise redis.exceptions.ConnectionError(loses)
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_change_whose_answer_was_lost_is_made_once(store: Store, model: str) -> None:
    """The call is made again, or nothing is known of it but that it was done: nothing is there twice."""
    client = Deaf(store.client)
    ledger = Ledger(cast("Client", client), model, 3, "mine")
    ledger.take(start=0, **TAKEN)
    for done in (True, False):
        start = 0 if done else 4
        writes: list[Callable[[], object]] = [
            partial(ledger.commit, everything(start, start + 4)),
            partial(ledger.set_mark, start + 2),
            partial(ledger.write_snapshots, [snapshot_of(0, start, b"x")], 0),
        ]
        for write in writes:
            client.loses = "the answer" if done else "the call"
            with pytest.raises(ServiceUnreachable):
                write()
            before = contents(ledger)
            write()
            assert (contents(ledger) == before) is done
    assert ledger.counters() == {"observations": 8, "pairs": 2}
    assert len(ledger.names()) == 4


def test_after_a_lost_answer_another_change_goes_on_from_what_was_done(store: Store, model: str) -> None:
    """Whether the first was done is looked up: either way the second follows what is there."""
    for done in (True, False):
        client = Deaf(store.client)
        ledger = Ledger(cast("Client", client), model, 3, f"mine {done}")
        head = ledger.take(start=0, **TAKEN)
        client.loses = "the answer" if done else "the call"
        with pytest.raises(ServiceUnreachable):
            ledger.commit(Commit(head.next, block_of(head.next, head.next + 4)))
        ledger.note(PartitionState("running", 7))
        ledger.check()
        again = ledger.head()
        assert again is not None
        assert again.next == head.next + (4 if done else 0)


def test_a_ledger_that_lost_its_tail_takes_no_change(store: Store, model: str) -> None:
    """The token is still known, what was written last is gone: OffsetConflict, and the owner begins anew."""
    ledger = taken(store, model)
    ledger.commit(Commit(0, block_of(0, 4)))
    key = ledger._key("head")
    tail = calling(store.client.hgetall, key)
    ledger.note(PartitionState("running", 7))
    calling(store.client.hset, key, mapping=tail)
    changes: list[Callable[[], object]] = [
        ledger.check,
        partial(ledger.commit, Commit(4, block_of(4, 8))),
        partial(ledger.set_mark, 4),
        partial(ledger.trim, 4),
    ]
    for change in changes:
        with pytest.raises(OffsetConflict):
            change()
    assert ledger.block_count() == 1
    ledger.take(start=0, **TAKEN)
    ledger.check()
    ledger.commit(Commit(4, block_of(4, 8)))


def test_who_was_fenced_finds_out_by_looking(store: Store, model: str) -> None:
    """`check` tells another's ledger from one that went back."""
    ledger = taken(store, model)
    ledger.check()
    taken(store, model, who="theirs")
    with pytest.raises(FencedError):
        ledger.check()
