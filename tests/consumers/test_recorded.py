"""Recorded blocks: from archive and ledger each once, in order, while a consumer and a monitor work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from consumers import recorded
from consumers.archive import Archive, Hole
from consumers.ledger import Commit, Ledger
from consumers.recorded import recorded_blocks
from consumers.recovery import merged
from models.blocks import Block, empty_block, encode_block
from models.errors import ArchiveError
from models.server import calling
from tests.streams import FORM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.consumers.conftest import Store

pytestmark = pytest.mark.services
NAMES = ["a", "b"]
ROWS = 3

_models = iter(f"recorded-{i}" for i in range(10**9))


@pytest.fixture(scope="module", autouse=True)
def _clean(redis_store: Store) -> Iterator[None]:
    yield
    for key in redis_store.client.scan_iter("killick:{recorded-*"):
        redis_store.client.delete(key)


class Busy(Ledger):
    """A ledger at which others are at work: before each read, and before each look at its head, one thing happens."""

    def __init__(self, store: Store, plan: list[str]) -> None:
        model = next(_models)
        super().__init__(store.client, model, 0, "mine")
        self.archive = Archive("a", model, fs._MockFileSystem())
        self.all: list[Block] = []
        self._at = 0
        self._plan = plan
        self.take(start=0, form="f", topic_id="t", partitions=1, chunk_slots=2)
        self._need(0)

    def add(self, blocks: int = 1) -> None:
        """So many blocks more, published."""
        for _ in range(blocks):
            rng = np.random.default_rng(self._at)
            offset = self._at + np.arange(ROWS)
            block = Block(
                self._at, self._at + ROWS, offset, offset % 2, offset, rng.normal(size=(ROWS, 2)),
                np.ones((ROWS, 2), np.bool_), rng.random(ROWS).astype(np.float32),
            )  # fmt: skip
            self.commit(Commit(self._at, block))
            self.all.append(block)
            self._at += ROWS
            if self._at % 4 == 0:
                self.commit(Commit(self._at, empty_block(self._at, 2), roster=[]))
                self.all.append(next(b for b in super().blocks(after=self._at - 1) if not len(b)))
        self.set_mark(self._at)

    def move(self, blocks: int = 2) -> None:
        """Archive some blocks more: all that stand at their ends."""
        waiting = [block for block in self.all if block.place > self.archive.place(0)]
        end = waiting[:blocks][-1].end if waiting else 0
        if end < self._at:
            self.archive.write(0, [block for block in waiting if block.end <= end], NAMES, FORM)
            self._need(max(self.archive.end(0), 0))

    def do(self, action: str) -> None:
        """One thing happens."""
        if action == "add":
            self.add()
        elif action == "move":
            self.move()
        elif action == "trim":
            self.trim(self._at)

    def read_blocks(self, place: str, count: int, until: int) -> tuple[list[Block], str]:
        """What the ledger gives."""
        self._work()
        return super().read_blocks(place, count, until)

    def head(self) -> Any:
        """What the ledger gives."""
        self._work()
        return super().head()

    def _need(self, offset: int) -> None:
        calling(self._client.hset, self._key("needs"), "archive", offset)

    def _work(self) -> None:
        plan, self._plan = self._plan, []
        if plan:
            action, *rest = plan
            self.do(action)
            self._plan = rest


def bits(blocks: Any) -> list[tuple[Any, ...]]:
    """Everything that a block is."""
    return [(block.start, block.end, block.sequence, encode_block(block)) for block in blocks]


@settings(max_examples=120)
@given(
    plan=st.lists(st.sampled_from(("add", "move", "move", "trim", "trim", "rest")), max_size=30),
    begun=st.lists(st.sampled_from(("move", "trim")), max_size=4),
    after=st.integers(-1, 40),
)
def test_every_block_comes_once_whatever_moves_meanwhile(
    redis_store: Store, plan: list[str], begun: list[str], after: int
) -> None:
    """Archived, let go and added between any two looks at archive and ledger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "READ_BLOCKS", 2)
        ledger = Busy(redis_store, [])
        ledger.add(10)
        for action in begun:
            ledger.do(action)
        ledger._plan = plan
        found = bits(recorded_blocks(ledger, ledger.archive, after))
        everything = bits(block for block in ledger.all if block.end > after)
        assert found == everything[: len(found)]
        assert len(found) >= len(bits(block for block in ledger.all[:10] if block.end > after))
        until = bits(recorded_blocks(ledger, ledger.archive, after, 20))
        assert until == [one for one in everything if one[1] <= 20]


def test_without_an_archive_what_was_let_go_is_a_hole(redis_store: Store) -> None:
    """It begins before all offsets: the record begins later; who has no list for holes is refused."""
    ledger = Busy(redis_store, [])
    ledger.add(10)
    ledger._need(12)
    ledger.trim(12)
    holes: list[Hole] = []
    assert bits(recorded_blocks(ledger, holes=holes)) == bits(block for block in ledger.all if block.end > 12)
    assert holes == [Hole(-1, 12)]
    with pytest.raises(ArchiveError, match="partition 0: the blocks that ended after offset -1 and up to 12 are gone"):
        list(recorded_blocks(ledger))
    assert bits(recorded_blocks(ledger, after=12)) == bits(block for block in ledger.all if block.end > 12)


def test_a_hole_between_archive_and_ledger_is_told(redis_store: Store) -> None:
    """Blocks that were let go without being archived are named, also where they go while they are read."""
    ledger = Busy(redis_store, [])
    ledger.add(10)
    ledger.move(2)
    ledger._need(30)
    ledger._plan = ["rest", "trim"]
    holes: list[Hole] = []
    found = bits(recorded_blocks(ledger, ledger.archive, holes=holes))
    end = ledger.archive.end(0)
    assert holes == [Hole(end, 30)]
    assert found == bits(block for block in ledger.all if block.end <= end or block.end > 30)


def test_only_the_blocks_that_went_count_as_gone(redis_store: Store) -> None:
    """The head remembers the newest of them, not what was asked for; where nothing went it says nothing."""
    ledger = Busy(redis_store, [])
    ledger.add(2)
    assert Ledger.head(ledger).trimmed == -1  # type: ignore[union-attr]
    ledger._need(5)
    ledger.trim(99)
    assert Ledger.head(ledger).trimmed == 3  # type: ignore[union-attr]
    ledger._need(2)
    ledger.trim(99)
    assert Ledger.head(ledger).trimmed == 3  # type: ignore[union-attr]
    ledger._need(-1)
    assert ledger.trim(99) == 0


def test_what_a_ledger_cut_anew_comes_once(redis_store: Store) -> None:
    """It came back without its tail after that was archived, and commits the same records in other blocks."""
    ledger, forgetful = Busy(redis_store, []), Busy(redis_store, [])
    ledger.add(4)
    ledger.move(2)
    assert ledger.archive.end(0) == 6
    forgetful.add(1)
    tail = [block for block in ledger.all if block.start >= 3 and len(block)]
    forgetful.commit(Commit(3, merged(tail)))
    found = list(recorded_blocks(forgetful, ledger.archive))
    assert np.concatenate([block.offset for block in found]).tolist() == list(range(12))
    assert [(block.start, block.end) for block in found] == [(0, 3), (3, 6), (6, 12)]
