"""Seconds from an empty process to a partition that is open again, at 20,000 and 200,000 series.

Each row streams observations through the real consumer, lets it go, and opens its partitions from the ledger:
names, snapshots, and the blocks after them folded again. TensorFlow's own start (about 3 s) is told apart.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from tests.services.kafka import KafkaBroker
from tests.services.redis import RedisServer, redis_binary
from worker import bench, wiring
from worker.settings_reading import load

SERIES = (20_000, 200_000)
OBSERVATIONS_PER_SERIES = 4


class _Pipe:
    """Takes what the loop of the benchmark reports, and lets it end."""

    def __init__(self) -> None:
        self.rate = 0.0

    def send(self, answer: dict[str, Any]) -> None:
        """Keep the rate."""
        self.rate = answer["rate"]

    def poll(self) -> bool:
        """There is always an answer."""
        return True

    def recv(self) -> None:
        """No observations at an even pace."""


def main() -> None:
    """Print a table, or with --json one object."""
    rows = []
    with KafkaBroker(heap="1g") as broker, RedisServer(redis_binary()) as store:
        settings = load(environment=False).settings
        settings = settings.model_copy(
            update={
                "kafka": settings.kafka.model_copy(update={"bootstrap_servers": broker.bootstrap_servers}),
                "redis": settings.redis.model_copy(update={"url": store.url}),
            }
        )
        for series in SERIES:
            row = bench.Row(series, series * OBSERVATIONS_PER_SERIES, 0)
            with bench.prepared(settings, row, lambda line: print(line, file=sys.stderr)) as own:
                pipe = _Pipe()
                bench.run_service(own, row, pipe)
                rows.append({"series": series, "forecasts_per_s": round(pipe.rate), **_open(own)})
    if "--json" in sys.argv:
        print(json.dumps({"rows": rows}))
        return
    for found in rows:
        print("  ".join(f"{name} {value:,}" for name, value in found.items()))


def _open(own: Any) -> dict[str, Any]:
    with (
        closing(wiring.redis_client(own)) as client,
        closing(wiring.sink(own)) as sink,
        ThreadPoolExecutor(1) as loading,
    ):
        began = time.perf_counter()
        versions = wiring.versions(own, client, loading)
        opener = wiring.opener(own, client, versions, sink, wiring.limits(own), bench.Timings())
        series = 0
        for number in range(bench.PARTITIONS):
            holding = list(opener.open(number, (0, 1 << 62), None))[-1]
            series += len(holding.partition.names) if holding is not None else 0
        return {"restored_series": series, "open_s": round(time.perf_counter() - began, 2)}


if __name__ == "__main__":
    main()
