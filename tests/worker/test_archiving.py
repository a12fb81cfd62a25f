"""Counted blocks go to the archive before the ledger lets them go: each once, and none is lost on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumers.archive import Archive
from consumers.recorded import recorded_blocks
from models.blocks import encode_block
from models.errors import FencedError
from models.server import connect
from tests.streams import FORM
from tests.worker.following import count_all, follower, live, walks
from worker.archiving import RETRY_S, Archiver
from worker.store import PartitionStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from models.blocks import Block
    from models.server import Client
    from tests.consumers.living import Live

pytestmark = pytest.mark.services
MODEL = "m"
ROWS = 50


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    """Redis."""
    made = connect(redis_url)
    yield made
    made.close()


class Running:
    """A partition's monitor with its archiver; a new one is a restart."""

    def __init__(self, client: Client, path: Path, after_steps: int = 10_000) -> None:
        self.monitor = follower(client, MODEL)
        store = PartitionStore(client, MODEL, 0, "mine")
        self.archive = Archive(str(path), MODEL)
        self.archiver = Archiver(self.archive, self.monitor._ledger, store, FORM, ROWS, after_steps)
        self.archiver.open(self.monitor.offset, self.monitor.observations)

    def step(self, now: float = 100.0) -> None:
        """Count what there is, and archive what is due."""
        count_all(self.monitor)
        assert self.monitor.newest is not None
        self.archiver.step(self.monitor.newest, self.monitor.offset, self.monitor.observations, now)


def bytes_of(blocks: Iterator[Block]) -> list[tuple[int, bytes]]:
    """The blocks, for comparing."""
    return [(block.end, encode_block(block)) for block in blocks]


def feed(consumer: Live, count: int) -> None:
    """So many records more, ten to a block."""
    stream = walks(1_000)
    for begin in range(consumer.read, consumer.read + count, 10):
        consumer.take(stream, begin, begin + 10)
    consumer.publish()


def test_files_are_written_when_they_are_full(client: Client, tmp_path: Path) -> None:
    """Not before; what is archived may be trimmed then, and archive and ledger together hold every block as it was."""
    consumer, running = live(client, MODEL), Running(client, tmp_path)
    feed(consumer, 40)
    whole = bytes_of(consumer.ledger.blocks())
    running.step()
    running.monitor.keep_trails(None)
    assert (running.archiver.archived, running.archive.end(0)) == (0, -1)
    assert consumer.ledger.trim(40) == 1  # the roster's, at offset 0
    for _ in range(6):
        feed(consumer, 30)
        running.step()
    whole = bytes_of(consumer.ledger.blocks())
    running.monitor.keep_trails(None)
    end = running.archive.end(0)
    assert 150 <= end < 220
    assert (running.archiver.archived, running.archiver.lag(running.monitor.offset)) == (end, 220 - end)
    assert consumer.ledger.trim(220) == end // 10
    found = bytes_of(recorded_blocks(consumer.ledger, running.archive))
    assert found[-len(whole) :] == whole


def test_old_blocks_go_in_files_that_are_not_full(client: Client, tmp_path: Path) -> None:
    """By event time: a slow stream does not keep its blocks in Redis for ever."""
    consumer, running = live(client, MODEL), Running(client, tmp_path, after_steps=3)
    feed(consumer, 40)
    running.step()
    assert running.archiver.archived == 30  # the last one stays: a roster may come at its end


def test_a_restart_goes_on_after_what_is_archived(client: Client, tmp_path: Path) -> None:
    """Killed after the file and before the ledger was told, or at any other time: no observation is there twice."""
    consumer = live(client, MODEL)
    for number in range(8):
        running = Running(client, tmp_path)
        feed(consumer, 40)
        running.step()
        if number % 2:
            running.archiver._store.need("archive", 0)  # as if killed before it was told
    whole = bytes_of(consumer.ledger.blocks())
    again = Running(client, tmp_path)
    end = again.archive.end(0)
    assert end > 200
    assert bytes_of(again.archive.blocks(0)) == [one for one in whole if one[0] <= end]
    assert again.monitor._store.needed()["archive"] == end


def test_an_archive_that_takes_nothing_keeps_the_blocks_in_redis(client: Client, tmp_path: Path) -> None:
    """Each failure is counted, and tried again after a while; when it works, nothing is missing."""
    place = tmp_path / "archive"
    place.mkdir()
    (place / MODEL).write_text("no folder")
    consumer, running = live(client, MODEL), Running(client, place)
    feed(consumer, 100)
    for now in (100.0, 101.0, 100.0 + RETRY_S):
        running.step(now)
    running.monitor.keep_trails(None)
    assert (running.archiver.failures, running.archiver.archived) == (3, 0)
    assert consumer.ledger.trim(100) == 1
    (place / MODEL).unlink()
    running.step(101.0 + RETRY_S)
    assert running.archiver.archived == 0
    running.step(100.0 + 2 * RETRY_S)
    assert running.archiver.archived == 50
    assert running.archive.end(0) == 50


def test_who_was_taken_over_from_moves_nothing(client: Client, tmp_path: Path) -> None:
    """The other one's place counts; files that both wrote are read once."""
    consumer, one = live(client, MODEL), Running(client, tmp_path)
    feed(consumer, 60)
    count_all(one.monitor)
    other = follower(client, MODEL, who="other")
    assert one.monitor.newest is not None
    with pytest.raises(FencedError):
        one.archiver.step(one.monitor.newest, one.monitor.offset, 60, 100.0)
    assert other._store.needed()["archive"] == 0
    again = Running(client, tmp_path)
    feed(consumer, 60)
    again.step()
    ends = [end for end, _ in bytes_of(again.archive.blocks(0))]
    assert ends == sorted(set(ends))
    assert ends[-1] == 100
