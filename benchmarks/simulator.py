"""Runs many seeds of the simulator of faults, and prints how often every crash point and every fault was hit.

Ends with 1 if a seed fails, or a crash point or fault was never hit. One seed again, with what happened in it:
`--first SEED --seeds 1 --trace`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.boundaries import Tally
from tests.faults.points import FAULTS, KNOWN, POINTS
from tests.faults.server import simulator_server
from tests.services.redis import REDIS_MISSING, redis_binary
from worker.quiet import start_tensorflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.faults.boundaries import Point

SHARE = 50  # seeds that one process is given at a time
MOST_SHARES_AIMED = 8  # at a crash point that chance has left out


@dataclass
class Share:
    """What came of some seeds."""

    seeds: int = 0
    tally: Tally = field(default_factory=Tally)
    failures: dict[int, str] = field(default_factory=dict)

    def add(self, other: Share) -> None:
        """Count another share in."""
        self.seeds += other.seeds
        self.tally.add(other.tally)
        self.failures |= other.failures

    def never(self) -> list[str]:
        """Crash points and faults that were not hit; points that are passed and that nobody listed."""
        missed = [f"{point} was never crashed at" for point in POINTS if not self.tally.crashed[point]]
        missed += [f"{name!r} never happened" for name in FAULTS if not self.tally.faults[name]]
        unknown = [p for p in self.tally.passed if (p.phase, p.label) not in KNOWN]
        return missed + [f"{point} is not in the list of points" for point in sorted(unknown)]


def run_share(seeds: Sequence[int], *, trace: bool = False) -> Share:
    """Some seeds, on a server of their own."""
    from tests.faults.seeds import run_seed, simulated

    start_tensorflow(1)
    share = Share()
    with simulator_server() as client, simulated():
        for seed in seeds:
            verdict = run_seed(seed, client, trace=trace)
            share.seeds += 1
            share.tally.add(verdict.tally)
            if verdict.failure:
                share.failures[seed] = verdict.failure
            for line in verdict.trace or ():
                print(line)
    return share


def run_all(first: int, count: int, processes: int, *, trace: bool) -> Share:
    """All seeds, shared out among processes, with a line of progress after each share."""
    shares = [range(a, min(a + SHARE, first + count)) for a in range(first, first + count, SHARE)]
    total, began = Share(), time.monotonic()
    for share in _results(shares, processes, trace=trace):
        total.add(share)
        for seed, failure in share.failures.items():
            print(f"seed {seed}: {failure}", file=sys.stderr)
        rate = (time.monotonic() - began) / total.seeds
        left = (count - total.seeds) * rate / 60
        print(
            f"  {total.seeds:6} of {count} seeds, {len(total.failures)} failed, {rate:.3f} s each, {left:.0f} min left",
            file=sys.stderr,
        )
    return total


def aim_at_missed(total: Share, first: int) -> None:
    """More seeds, from `first` on, for each crash point that was not hit: a seed aims at the point of its number."""
    points = len(POINTS)
    for number, point in enumerate(POINTS):
        seed = first + (number - first) % points
        for _ in range(MOST_SHARES_AIMED):
            if total.tally.crashed[point]:
                break
            share = run_share(range(seed, seed + SHARE * points, points))
            seed += SHARE * points
            total.add(share)
            print(f"  {share.seeds} seeds more, aimed at {point}: {share.tally.crashed[point]} hits", file=sys.stderr)


def _results(shares: Sequence[Sequence[int]], processes: int, *, trace: bool) -> Iterator[Share]:
    if processes == 1:
        yield from (run_share(share, trace=trace) for share in shares)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run_share, shares)


def table(total: Share) -> str:
    """The crash points by phase and call, then the faults."""
    lines = [f"{'phase':<9} {'call':<28} {'before':>8} {'after':>8} {'passed':>9}"]
    calls: dict[tuple[str, str], Counter[str]] = {}
    for point in POINTS:
        calls.setdefault((point.phase, point.label), Counter())[point.when] = total.tally.crashed[point]
    for (phase, label), counts in sorted(calls.items()):
        passed = max((n for p, n in total.tally.passed.items() if p[:2] == (label, phase)), default=0)
        before = counts["at"] if "at" in counts else counts["before"]
        after = str(counts["after"]) if "after" in counts else ""
        lines.append(f"{phase:<9} {label:<28} {before:>8} {after:>8} {passed:>9}")
    lines += ["", *(f"{name:<28} {n:>8}" for name, n in sorted(total.tally.faults.items()))]
    return "\n".join(lines)


def rows(counts: Counter[Point]) -> dict[str, int]:
    """Counts by the point's text."""
    return {str(point): n for point, n in sorted(counts.items())}


def main() -> int:
    """Run the seeds; print the table, or with --json one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first one (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--trace", action="store_true", help="print what happens in each seed (one process)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    words = parser.parse_args()
    if not redis_binary():
        print(REDIS_MISSING, file=sys.stderr)
        return 3
    began = time.monotonic()
    total = run_all(words.first, words.seeds, 1 if words.trace else words.processes, trace=words.trace)
    if words.seeds >= len(POINTS):
        aim_at_missed(total, words.first + words.seeds)
    seconds = time.monotonic() - began
    never = total.never() if words.seeds >= len(POINTS) else []
    if words.json:
        row = {
            "seeds": total.seeds, "seconds": round(seconds, 1), "failures": total.failures,
            "crashed": rows(total.tally.crashed), "faults": dict(total.tally.faults), "never": never,
        }  # fmt: skip
        print(json.dumps({"rows": [row]}))
    else:
        print(table(total))
        crashes = sum(total.tally.crashed.values())
        print(f"\n{total.seeds} seeds, {crashes} crashes at {len(total.tally.crashed)} points, {seconds:.0f} s")
    for line in never:
        print(line, file=sys.stderr)
    return 1 if total.failures or never else 0


if __name__ == "__main__":
    sys.exit(main())
