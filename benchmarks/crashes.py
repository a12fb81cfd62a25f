"""Kills the consumer at random moments, and compares the outcome with one uninterrupted run, bit for bit.

On real Kafka and Redis. `--kills` are spread over several rounds of other shapes; ends with 1 if any bit differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.harness import Stack
from tests.services.kafka import KafkaBroker, missing
from tests.services.redis import REDIS_MISSING, RedisServer, redis_binary

if TYPE_CHECKING:
    from tests.integration.crashes import Kill

# series, steps, layers of the network, most records in one block
SHAPES = ((600, 40, [8], 40), (7, 1_500, [12, 6], 15), (2_000, 12, [8], 200), (60, 200, [16], 1))


@dataclass(frozen=True)
class Round:
    """One stream with its kills."""

    series: int
    records: int
    kills: int
    early: int  # kills before the consumer had committed anything
    republished: int  # forecasts that came twice, with equal bytes
    refused: int
    snapshots: int  # chunks that the ledger has one of
    seconds: float
    equal: bool


def run_round(servers: str, redis_url: str, number: int, kills: int, seed: int) -> Round:
    """Send, kill, recover, compare."""
    from tests.integration.crashes import TROUBLED, run_with_kills
    from tests.integration.oracle import check

    series, steps, units, block = SHAPES[number % len(SHAPES)]
    settings: dict[str, dict[str, Any]] = {
        **TROUBLED,
        "kafka": {**TROUBLED["kafka"], "max_poll_records": block},
        "network": {"units": units, "lags": 6},
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Stack(servers, redis_url, Path(folder), settings=settings) as stack:
        stack.register(seed=seed)
        done = run_with_kills(stack, kills=kills, seed=seed, series=series, steps=steps, report=show)
        try:
            wanted = check(stack)
            equal = True
        except AssertionError as difference:
            print(difference, file=sys.stderr)
            wanted, equal = [], False
        forecasts = sum(len(want.forecasts) for want in wanted)
        return Round(
            series=series,
            records=sum(len(part) for part in stack.records()),
            kills=len(done),
            early=sum(
                kill.committed == before for kill, before in zip(done, [0, *(k.committed for k in done)], strict=False)
            ),
            republished=len(stack.predictions()) - forecasts if equal else 0,
            refused=sum(len(want.refusals) for want in wanted),
            snapshots=sum(len(stack.ledger(n).snapshot_index()) for n in range(stack.partitions)),
            seconds=round(time.monotonic() - began, 1),
            equal=equal,
        )


def show(kill: Kill) -> None:
    """One line a kill."""
    print(
        f"  killed after {kill.after_s:5.2f} s: {kill.committed:6} of {kill.sent:6} committed, "
        f"{kill.committed - kill.published:5} of them not known to be published",
        file=sys.stderr,
    )


def main() -> int:
    """Run the rounds; print the table, or with --json one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=32, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    words = parser.parse_args()
    lacking = missing() or ("" if redis_binary() else REDIS_MISSING)
    if lacking:
        print(lacking, file=sys.stderr)
        return 3
    shares = [words.kills // len(SHAPES) + (i < words.kills % len(SHAPES)) for i in range(len(SHAPES))]
    with KafkaBroker() as kafka, RedisServer(redis_binary()) as redis:
        rounds = [
            run_round(kafka.bootstrap_servers, redis.url, number, kills, words.seed + number)
            for number, kills in enumerate(shares)
            if kills
        ]
    if words.json:
        print(json.dumps({"rows": [asdict(one) for one in rounds]}))
    else:
        names = list(asdict(rounds[0]))
        print(" ".join(f"{name:>11}" for name in names))
        for one in rounds:
            print(" ".join(f"{value!s:>11}" for value in asdict(one).values()))
    return 0 if all(one.equal for one in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
