"""Pairs a second that the monitor counts on one core, its memory and what it keeps in Redis; --json, --quick.

Ledger blocks in a real Redis, written as a consumer writes them, a portion at a time; the clock runs while the monitor
reads, scores and stores, and keeps its trails. A pair is an observation that meets a version's forecasts, H of them.
Then it is killed, and another one opens the partition at the worst moment: before trails are kept again.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from consumers.ledger import Commit, Ledger
from consumers.roster import Seat
from models.blocks import Block, empty_block
from models.scaling import SeriesForm
from models.server import connect
from models.times import HOUR_MS
from tests.services.redis import RedisServer, redis_binary
from worker.partition_monitor import PartitionMonitor
from worker.store import PartitionStore

if TYPE_CHECKING:
    from models.server import Client

FORM = SeriesForm(("v",), "v", HOUR_MS, 24, 168.0, 30, 6)
FIRST_STEP = 400_000
PORTION = 1 << 18  # observations that wait in Redis before the monitor looks
FED_BEHIND = 24  # steps that are not over yet: the losses of those before go, as if the detectors had them
QUICK = 20  # as many pairs are left out of each but one
MODEL = "bench"


@dataclass(frozen=True)
class Row:
    """One case: so many pairs of so many series in turn, in blocks of this size, H leads each."""

    pairs: int
    series: int
    block: int
    horizon: int


ROWS = (
    Row(10_000_000, 100_000, 4_096, 5),
    Row(2_000_000, 100_000, 4_096, 24),
    Row(2_000_000, 7, 4_096, 5),
    Row(500_000, 7, 7, 5),
    Row(500_000, 100_000, 64, 5),
)


class Writer:
    """Writes blocks into a ledger; the numbers of one portion are used again with other steps."""

    def __init__(self, client: Client, row: Row) -> None:
        rng = np.random.default_rng(0)
        self._row = row
        self._at = 0
        self._order = rng.permutation(row.series)
        self._values = rng.normal(size=(row.block, 1))
        self._pairs = (self._values + rng.normal(size=(row.block, row.horizon))).astype(np.float32)
        self._scale = np.ones(row.block, np.float32)
        self.ledger = Ledger(client, MODEL, 0, "consumer")
        self.ledger.take(start=0, form=FORM.digest(), topic_id="t", partitions=1, chunk_slots=64)
        self.ledger.commit(Commit(0, empty_block(0, 1), roster=[Seat(1, "incumbent", 0, 0)]))

    def write(self, observations: int) -> None:
        """Append blocks, and let those go that nobody needs."""
        size = self._row.block
        present = np.ones((size, 1), np.bool_)
        for begin in range(self._at, self._at + observations, size):
            offset = np.arange(begin, begin + size)
            slot, step = self._order[offset % self._row.series], FIRST_STEP + offset // self._row.series
            pairs = {1: self._pairs}
            block = Block(begin, begin + size, offset, slot, step, self._values, present, self._scale, pairs)
            self.ledger.commit(Commit(begin, block))
            self._at = begin + size
        self.ledger.set_mark(self._at)
        self.ledger.trim(self._at)


def main() -> None:
    """Print a table, or with --json one object."""
    quick = "--quick" in sys.argv
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[-1:])  # and Redis on the others
    rows = []
    for row in ROWS:
        with RedisServer(redis_binary(), "no") as server, closing(connect(server.url)) as client:
            os.sched_setaffinity(server.process.pid, cores[:-1] or cores)
            small = Row(row.pairs // (QUICK if quick else 1), row.series, row.block, row.horizon)
            rows.append(measure(client, small))
        print(_line(rows[-1]), file=sys.stderr)
    if "--json" in sys.argv:
        print(json.dumps({"rows": rows}))


def measure(client: Client, row: Row) -> dict[str, Any]:
    """Rates, memory and sizes of one case."""
    writer = Writer(client, row)
    writer.write(min(PORTION, row.pairs))
    monitor = _monitor(client, row)
    monitor.open()
    gc.collect()
    _reset_peak()
    before = _memory("VmRSS")
    wall = cpu = 0.0
    while monitor.observations < row.pairs:
        began, used = time.perf_counter(), time.process_time()
        while monitor.step(monitor.newest and monitor.newest - FED_BEHIND):
            monitor.keep_trails(began)
        wall += time.perf_counter() - began
        cpu += time.process_time() - used
        writer.write(PORTION)
    opened = _monitor(client, row)
    began = time.perf_counter()
    opened.open()
    return {
        **row.__dict__,
        "pairs_per_s": round(monitor.observations / wall),
        "pairs_per_cpu_s": round(monitor.observations / cpu),
        "forecasts_per_s": round(monitor.observations * row.horizon / wall),
        "memory_MiB": round(_memory("VmHWM") - before, 1),
        "restart_s": round(time.perf_counter() - began, 2),
        "redis_KiB": {name: round(_redis_bytes(client, name) / 1024, 1) for name in ("sums", "trails", "losses")},
    }


def _monitor(client: Client, row: Row) -> PartitionMonitor:
    store = PartitionStore(client, MODEL, 0, "monitor")
    return PartitionMonitor(Ledger(client, MODEL, 0), store, FORM, row.horizon)


def _redis_bytes(client: Client, name: str) -> int:
    return int(client.memory_usage(f"killick:{{{MODEL}/0}}:{name}", samples=0) or 0)


def _memory(name: str) -> float:
    """MiB of this process, as the kernel counts it."""
    with open("/proc/self/status", encoding="utf-8") as file:  # noqa: PTH123 - no file of ours
        return next(float(line.split()[1]) for line in file if line.startswith(name)) / 1024


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:  # noqa: PTH123 - as above
        file.write("5")


def _line(found: dict[str, Any]) -> str:
    kept = ", ".join(f"{name} {size:,.0f}" for name, size in found["redis_KiB"].items())
    size = f"{found['pairs']:>10,} pairs of {found['series']:,} series"
    case = f"{size}, blocks of {found['block']:,}, H={found['horizon']}"
    rates = f"{found['pairs_per_s']:>9,} pairs/s ({found['pairs_per_cpu_s']:,} a CPU second)"
    return f"{case}: {rates}, {found['memory_MiB']:.0f} MiB, restart {found['restart_s']:.2f} s, Redis KiB: {kept}"


if __name__ == "__main__":
    main()
