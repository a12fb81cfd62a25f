"""Swap under load: latency before, during and after promotions and rollbacks at 2,000 observations a second.

On a real Kafka, with Redis (appendfsync always) and with Valkey (everysec, asked by WAITAOF); one consumer process,
1,000 series in 4 partitions, an LSTM of 2 x 64 units. Latencies are from the broker's own stamps in both topics.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmarks._swap import (
    SETTINGS,
    SHALLOW,
    Change,
    Feeding,
    Load,
    Logs,
    Operator,
    first_forecasts,
    longest_silence,
    read_logs,
    spans,
    stack_on,
)
from tests.services.kafka import KafkaBroker, missing
from tests.services.redis import REDIS_MISSING, VALKEY_MISSING, RedisServer, redis_binary, valkey_binary
from worker.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL_RATIO, GOAL_ROLLBACK_S = 1.25, 1.0
COLD, OTHER, READS, WARM, BACK = (
    "promote, cold",
    "promote, another architecture",
    "nominate",
    "promote, warm",
    "rollback",
)
KINDS = (COLD, OTHER, READS, WARM, BACK)
Fsync = Literal["always", "everysec"]


def cold(operator: Operator, count: int, report: Callable[[int], None]) -> None:
    """Cold promotions at the default depth of spin-up, each taken back; every other of another architecture."""
    first = operator.incumbent
    for number in range(count):
        if number % 2:  # layers that no version had before: nothing of them is compiled
            operator.promote(OTHER, operator.register(operator.architecture(32 + 4 * number, 48)))
        else:
            operator.promote(COLD, operator.register(operator.architecture()))
        operator.rollback(BACK, first)
        report(number + 1)


def warm(operator: Operator, count: int, report: Callable[[int], None]) -> None:
    """Candidates that read along already, promoted and taken back."""
    first = operator.incumbent
    for number in range(count):
        candidate = operator.register(operator.architecture())
        operator.nominate(READS, candidate)
        operator.promote(WARM, candidate)
        operator.rollback(BACK, first)
        report(number + 1)


Run = tuple["Logs", list[Change]]


def measure(server: RedisServer, words: argparse.Namespace) -> list[Run]:
    """The logs and the changes of both runs: cold promotions, and warm ones."""
    runs: list[Run] = []
    plan = ((SETTINGS, cold, words.cold, "cold"), (SHALLOW, warm, words.warm, "warm"))
    with KafkaBroker(heap="1g") as kafka, tempfile.TemporaryDirectory() as folder:
        for settings, work, count, label in plan:
            if not count:
                continue
            with stack_on(kafka.bootstrap_servers, server.url, Path(folder), settings) as stack:
                operator = Operator(stack, words.window)
                load = Load(words.series, words.past, words.rate)
                with Feeding(stack, load) as feeding, progress(label, count, sys.stderr) as report:
                    process = stack.consumer()
                    feeding.begin()
                    work(operator, count, report)
                    feeding.end()
                    if process.stop():
                        raise RuntimeError(f"the consumer ended with {process.exit_code}")
                    if words.keep:
                        Path(f"{words.keep}.{label}").write_bytes(process.log.read_bytes())
                runs.append((read_logs(stack), operator.changes))
    return runs


def rows(runs: list[Run], window_s: float) -> list[dict[str, Any]]:
    """One row a kind of change."""
    found = []
    for kind in KINDS:
        parts = [(logs, [change for change in changes if change.kind == kind]) for logs, changes in runs]
        mine = [(logs, change) for logs, changes in parts for change in changes]
        if not mine:
            continue
        seconds = np.array([change.seconds for _, change in mine])
        row: dict[str, Any] = {
            "change": kind,
            "repeats": len(mine),
            "commit_s": {"p50": _round(np.median(seconds)), "p99": _p99(seconds), "max": _round(seconds.max())},
        }
        if kind != READS:
            published = np.array([first_forecasts(logs, change) for logs, change in mine])
            row["published_s"] = {"p50": _round(np.median(published)), "max": _round(published.max())}
        cut = [spans(logs, changes, window_s) for logs, changes in parts if changes]
        for name in cut[0]:
            latencies = np.concatenate([one[name] for one in cut])
            row[name] = {
                "forecasts": len(latencies),
                "p50_ms": _quantile(latencies, 0.5),
                "p99_ms": _quantile(latencies, 0.99),
                "max_ms": int(latencies.max()),
            }
        row["ratio"] = _round(row["during"]["p99_ms"] / row["before"]["p99_ms"])
        row["longest_silence_s"] = _round(max(longest_silence(logs, change) for logs, change in mine))
        found.append(row)
    return found


def _round(value: float) -> float:
    return round(float(value), 3)


def _p99(values: Any) -> float:
    return _round(np.quantile(values, 0.99, method="higher"))


def _quantile(values: Any, q: float) -> float:
    return round(float(np.quantile(values, q)), 1)


def show(name: str, found: list[dict[str, Any]]) -> None:
    """The table of one server."""
    print(f"\n{name}")
    print(
        f"{'change':<31}{'n':>4}{'commit s: p50':>15}{'p99':>7}{'published p50':>15}"
        f"{'p99 ms before':>15}{'during':>9}{'after':>8}{'ratio':>7}{'max ms during':>15}"
    )
    for row in found:
        published = row.get("published_s", {}).get("p50", "-")
        print(
            f"{row['change']:<31}{row['repeats']:>4}{row['commit_s']['p50']:>15}{row['commit_s']['p99']:>7}"
            f"{published:>15}{row['before']['p99_ms']:>15}{row['during']['p99_ms']:>9}{row['after']['p99_ms']:>8}"
            f"{row['ratio']:>7}{row['during']['max_ms']:>15}"
        )


def main() -> int:
    """Run both servers; print tables, or with --json one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cold", type=int, default=8, help="cold promotions (default: %(default)s)")
    parser.add_argument("--warm", type=int, default=30, help="warm promotions (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=2_000, help="observations a second (default: %(default)s)")
    parser.add_argument("--series", type=int, default=1_000, help="(default: %(default)s)")
    parser.add_argument("--past", type=int, default=100, help="steps of a series before (default: %(default)s)")
    parser.add_argument("--window", type=float, default=1.0, help="seconds before and after (default: %(default)s)")
    parser.add_argument("--only", choices=("always", "everysec"), help="one of the servers")
    parser.add_argument("--keep", default="", help="where to put the consumers' logs")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the tables")
    words = parser.parse_args()
    servers: dict[Fsync, tuple[str, str, str]] = {
        "always": ("Redis, appendfsync always", redis_binary(), REDIS_MISSING),
        "everysec": ("Valkey, appendfsync everysec, WAITAOF", valkey_binary(), VALKEY_MISSING),
    }
    chosen = {fsync: server for fsync, server in servers.items() if words.only in (None, fsync)}
    lacking = missing() or next((why for _, binary, why in chosen.values() if not binary), "")
    if lacking:
        print(lacking, file=sys.stderr)
        return 3
    answer = []
    for fsync, (name, binary, _) in chosen.items():
        print(name, file=sys.stderr)
        with RedisServer(binary, fsync) as server:
            runs = measure(server, words)
        found = rows(runs, words.window)
        lost, again = sum(logs.lost for logs, _ in runs), sum(logs.again for logs, _ in runs)
        total = sum(len(logs.came_ms) for logs, _ in runs)
        answer.append({"server": name, "observations": total, "lost": lost, "again": again, "rows": found})
        if not words.json:
            show(f"{name}: {total:,} observations, {lost} without a forecast, {again} twice", found)
    if words.json:
        print(json.dumps({"rate": words.rate, "series": words.series, "servers": answer}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
