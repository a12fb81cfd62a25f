"""What a model has seen, as stretches: each observation once, in the order of the stream, of the series drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pyarrow import fs

from consumers.archive import Archive
from consumers.history import History
from consumers.ledger import Ledger
from consumers.past import Stretch, newest_step, of_history, recorded
from models.scaling import SeriesState
from models.server import connect
from tests.streams import FORM, stream_of
from tests.worker.following import live, walks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client
    from tests.consumers.living import Live

pytestmark = pytest.mark.services
SERIES, RECORDS = 4, 160


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    """An empty Redis."""
    made = connect(redis_url)
    yield made
    made.close()


def taken(client: Client, partition: int = 0, seed: int = 5) -> Live:
    """A ledger of some blocks."""
    consumer = live(client, "m", partition)
    stream = walks(RECORDS, seed=seed, series=SERIES)
    for begin in range(0, RECORDS, 50):
        consumer.take(stream, begin, min(begin + 50, RECORDS))
        consumer.publish()
    return consumer


def nothing() -> None:
    """Is done while blocks are read."""


def rows(stretch: Stretch) -> list[tuple[object, ...]]:
    """Series, step and values in order."""
    block = stretch.block
    names = [stretch.names[slot] for slot in block.slot.tolist()]
    return list(zip(names, block.step.tolist(), map(tuple, block.values.tolist()), strict=True))


def test_a_ledger_is_read_whole(client: Client) -> None:
    """Series state that is folded over it is that of the consumer, bit for bit."""
    consumer = taken(client)
    (found,), series = recorded([Ledger(client, "m", 0)], None, since_step=0, series=99, seed=1, alive=nothing)
    assert (series, found.whole, found.names) == (SERIES, True, tuple(consumer.partition.names))
    state = SeriesState(FORM)
    block = found.block
    state.absorb(state.look(block.slot, block.step, block.values, block.present))
    for name, array in consumer.partition.series.arrays().items():
        np.testing.assert_array_equal(state.arrays()[name][:SERIES], array[:SERIES], err_msg=name)


def test_archive_and_ledger_are_one(client: Client) -> None:
    """What the ledger has let go is read from the archive; without one the stretch is not whole, and says so."""
    consumer = taken(client)
    ledger = consumer.ledger
    (whole,), _ = recorded([ledger], None, since_step=0, series=99, seed=1, alive=nothing)
    archive = Archive("a", "m", fs._MockFileSystem())
    blocks = list(ledger.blocks())
    archive.write(0, blocks[:3], consumer.partition.names, FORM)
    consumer.snapshot([0, 2])
    ledger.trim(blocks[2].end)
    assert ledger.block_count() < len(blocks)
    (both,), _ = recorded([ledger], archive, since_step=0, series=99, seed=1, alive=nothing)
    assert (rows(both), both.whole) == (rows(whole), True)
    (rest,), _ = recorded([ledger], None, since_step=0, series=99, seed=1, alive=nothing)
    assert rows(rest) == rows(whole)[-len(rest.block) :]
    assert not rest.whole


def test_some_series_are_drawn_over_all_partitions(client: Client) -> None:
    """Each with all its observations; another seed draws others."""
    ledgers = [taken(client, partition, seed=partition).ledger for partition in range(3)]
    everything, _ = recorded(ledgers, None, since_step=0, series=99, seed=1, alive=nothing)
    drawn = set()
    for seed in range(9):
        found, series = recorded(ledgers, None, since_step=0, series=5, seed=seed, alive=nothing)
        assert (series, sum(len(one.names) for one in found)) == (3 * SERIES, 5)
        for one in found:
            at = next(i for i, whole in enumerate(everything) if set(rows(one)) <= set(rows(whole)))
            assert rows(one) == [row for row in rows(everything[at]) if row[0] in one.names]
            drawn |= {(at, name) for name in one.names}
    assert len(drawn) > 8


def test_what_is_too_long_ago_is_left_out(client: Client) -> None:
    """The stretch begins at the step, and is not whole."""
    ledger = taken(client).ledger
    (whole,), _ = recorded([ledger], None, since_step=0, series=99, seed=1, alive=nothing)
    since = int(np.median(whole.block.step))
    (found,), _ = recorded([ledger], None, since_step=since, series=99, seed=1, alive=nothing)
    assert rows(found) == [row for row in rows(whole) if row[1] >= since]  # type: ignore[operator]
    assert not found.whole


def test_one_clock_that_runs_ahead_is_not_the_newest_step() -> None:
    """The newest step is one that half of the series have reached; what lies beyond can be left out."""
    stream = stream_of([("a", 10, (1.0, 0.0)), ("b", 11, (1.0, 0.0)), ("c", 9_000, (1.0, 0.0))])
    arrivals = stream.arrivals(0, 3)
    history = History(
        ("a", "b", "c"),
        FORM.features,
        np.arange(3),
        arrivals.step * FORM.interval_ms,
        arrivals.values,
        arrivals.present,
    )
    found = of_history(history, FORM, series=9, seed=1)
    assert found is not None
    assert newest_step([found]) == 11
    assert found.until(12).block.step.tolist() == [10, 11]


def test_a_history_is_judged_as_the_service_judges(client: Client) -> None:
    """Duplicates and contradictions are left out; of many series some are drawn."""
    del client
    step = np.array([5, 5, 6, 6, 5, 6])
    history = History(
        ("a", "b", "c"), FORM.features, np.array([0, 1, 0, 0, 2, 2]), step * FORM.interval_ms,
        np.array([[1.0, 0], [2, 0], [3, 0], [4, 0], [5, 0], [6, 0]]), np.ones((6, 2), np.bool_),
    )  # fmt: skip
    found = of_history(history, FORM, series=9, seed=1)
    assert found is not None
    assert rows(found) == [
        ("a", 5, (1.0, 0.0)), ("b", 5, (2.0, 0.0)), ("a", 6, (3.0, 0.0)), ("c", 5, (5.0, 0.0)), ("c", 6, (6.0, 0.0)),
    ]  # fmt: skip
    few = of_history(history, FORM, series=1, seed=1)
    assert few is not None
    assert rows(few) == [row for row in rows(found) if row[0] in few.names]
