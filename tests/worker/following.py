"""What the monitor's tests stand on: ledgers that the stream core fills, and a Redis that can lose its tail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from consumers.ledger import Ledger
from models.server import calling
from models.tally import Scorer
from models.times import HOUR_MS
from models.windows import Book
from tests.consumers.living import Live
from tests.streams import FORM, MAX_GAP, Stream, stream_of
from worker.partition_monitor import PartitionMonitor
from worker.store import PartitionStore

if TYPE_CHECKING:
    from models.server import Client

HORIZON = 4


def walks(records: int, seed: int = 5, series: int = 4) -> Stream:
    """Series of very different loudness, with gaps, new starts and missing values."""
    rng = np.random.default_rng(seed)
    now = rng.integers(400_000, 400_010, series)
    level = np.zeros(series)
    rows = []
    for i in rng.integers(0, series, records).tolist():
        now[i] += rng.choice([1, 1, 1, 1, 1, 2, MAX_GAP + 1, MAX_GAP + 2])
        level[i] += rng.normal()
        value = float(10.0 ** (i % 4) * level[i])
        rows.append((f"s{i}", int(now[i]), (value if rng.random() < 0.85 else None, float(rng.normal()))))
    return stream_of(rows)


def live(client: Client, model: str, partition: int = 0) -> Live:
    """A ledger that has just begun, with version 1 answering."""
    begun = Live(Ledger(client, model, partition, f"consumer {partition}"))
    begun.begin()
    return begun


def follower(
    client: Client, model: str, partition: int = 0, who: str = "mine", horizon: int = HORIZON
) -> PartitionMonitor:
    """A partition's monitor, opened."""
    store = PartitionStore(client, model, partition, who)
    monitor = PartitionMonitor(Ledger(client, model, partition), store, FORM, horizon)
    monitor.open()
    return monitor


def count_all(monitor: PartitionMonitor, fed: int | None = None) -> int:
    """Let it count what there is; how many observations that are by now."""
    while monitor.step(fed):
        pass
    return monitor.observations


def book_of(ledger: Ledger) -> Book:
    """The sums of all blocks of a ledger, counted in one go."""
    book = Book()
    for scored in Scorer(FORM, HORIZON).score([block for block in ledger.blocks() if len(block)]):
        for version, one in scored.items():
            named, group = np.unique(one.step * FORM.interval_ms // HOUR_MS, return_inverse=True)
            book.add(version, one.leads, named, one.sums(group, len(named)))
    return book


def assert_same(found: Book, wanted: Book) -> None:
    """Two books have the same sums, but for the order in which they were added up."""
    assert found.leads == wanted.leads
    assert found.sums.keys() == wanted.sums.keys()
    for key, sums in wanted.sums.items():
        np.testing.assert_allclose(found.sums[key], sums, rtol=1e-11, atol=1e-9, err_msg=str(key))


class Tail:
    """What Redis holds of a model at one moment, so that what comes later can be lost."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._pattern = f"killick:{{{model}*"
        self._kept = {key: calling(client.dump, key) for key in calling(client.keys, self._pattern)}

    def lose(self) -> None:
        """Go back to that moment."""
        for key in calling(self._client.keys, self._pattern):
            calling(self._client.delete, key)
        for key, held in self._kept.items():
            calling(self._client.restore, key, 0, held)
