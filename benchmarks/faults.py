"""Breaks consumers, Redis, Kafka, the line and the disk, and compares the outcome with one uninterrupted run.

On real Kafka and Redis, bit for bit. Every run has a seed; some runs in a row share the life of one stream.
Ends with 1 if anything was lost or differs. `--write` makes docs/faults.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks._faults_page import Row, page, table
from tests.integration.faults import KINDS, SWAPPED, Kind, Scene, Servers, run
from tests.services.disk import COMPILER_MISSING, compiler
from tests.services.kafka import KafkaBroker, missing
from tests.services.proxy import Proxy
from tests.services.redis import REDIS_MISSING, redis_binary

RUNS_A_LIFE = 6
ALL = KINDS | SWAPPED


def measure(row: Row, kind: Kind, servers: Servers, seeds: range) -> None:
    """Run one kind of fault with each seed, some in one life of a stream; a failure ends that life."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as life:
        scene: Scene | None = None
        for seed in seeds:
            try:
                if scene is None:
                    scene = life.enter_context(begin(row, kind, servers, Path(folder), seed))
                done = run(scene, seed)
                row.add(done)
                show(f"{row.name:14} seed {seed:3}  recovered in {done.recovered_s:6.2f} s of {done.seconds:5.1f} s")
                ends = not done.outcome.exact or (seed - seeds.start) % RUNS_A_LIFE == RUNS_A_LIFE - 1
            except Exception as error:  # noqa: BLE001 - a run that fails is a figure of the table
                traceback.print_exc()
                row.fail(seed, error)
                ends = True
            if ends:
                if row.failures and f"seed {seed}:" in row.failures[-1]:
                    show(row.failures[-1] + ("\n" + scene.stack.logs() if scene else ""))
                life.pop_all().close()
                servers.mend()
                scene = None


def begin(row: Row, kind: Kind, servers: Servers, folder: Path, seed: int) -> Scene:
    """A scene; where it does not begin (on a busy machine another may take a port), once more, and noted."""
    try:
        return Scene(kind, servers, folder, seed)
    except Exception as error:  # noqa: BLE001 - noted; the next attempt raises it
        row.notes.append(f"{row.name}, seed {seed}: {type(error).__name__}: {error}")
        show(row.notes[-1])
        return Scene(kind, servers, folder, seed)


def show(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def read(path: Path | None) -> dict[str, Row]:
    """The rows of an earlier call, which was perhaps broken off."""
    if path is None or not path.exists():
        return {}
    return {found["name"]: Row(**found) for found in json.loads(path.read_text(encoding="utf-8"))["rows"]}


def main() -> int:
    """Break everything in turn; print the table, or with --json one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run of each kind (default: %(default)s)")
    parser.add_argument(
        "--only", default="", help=f"kinds, with commas between them, of {', '.join(KINDS)}, each also as NAME+swaps"
    )
    parser.add_argument(
        "--results", type=Path, help="a file that keeps the rows; kinds that are in it are not run again"
    )
    parser.add_argument("--write", type=Path, help="where the page goes: docs/faults.md")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    words = parser.parse_args()
    if lacking := missing() or ("" if redis_binary() else REDIS_MISSING) or ("" if compiler() else COMPILER_MISSING):
        print(lacking, file=sys.stderr)
        return 3
    names = words.only.split(",") if words.only else list(ALL)
    rows = read(words.results)
    began = time.monotonic()
    with Proxy() as proxy, KafkaBroker(proxied=proxy.port) as broker:
        proxy.target = broker.behind
        for name in names:
            if name in rows:
                continue
            row = Row(name, ALL[name].title, ALL[name].clock)
            measure(row, ALL[name], Servers(broker, proxy), range(words.seed, words.seed + words.runs))
            rows[name] = row
            if words.results:
                words.results.write_text(json.dumps({"rows": [asdict(r) for r in rows.values()]}), encoding="utf-8")
    show(f"{time.monotonic() - began:.0f} s")
    found = [rows[name] for name in ALL if name in rows]
    print(json.dumps({"rows": [asdict(row) for row in found]}) if words.json else table(found))
    if words.write:
        words.write.write_text(page(found), encoding="utf-8")
    return 1 if any(row.failures for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
