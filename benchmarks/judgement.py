"""The gate's promise by simulation: false promotions, power, delay, lifetime, harm, the screen; A/A on real data.

All with the code that runs. `--write` puts the tables into docs/judgement.md, `--picture` draws a trial's evidence.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import _judgement_gate as gates
from benchmarks._judgement_page import tables
from benchmarks._judgement_picture import picture
from benchmarks._judgement_real import real
from worker.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parents[1] / "docs"
DOC = DOCS / "judgement.md"
PICTURE = DOCS / "pictures" / "judgement.svg"
BEGIN, END = "<!-- judgement: begin -->", "<!-- judgement: end -->"
SEEDS, QUICK_SEEDS = 3, 2  # of the versions on real data

Rows = list[dict[str, Any]]


class Part(NamedTuple):
    """One table: how it is made, from how many streams, and from how many where it is to be quick."""

    make: Callable[[int], Rows]
    streams: int
    quick: int


PARTS = {
    "false": Part(gates.false_promotions, 2_000, 50),
    "power": Part(gates.power, 400, 40),
    "disasters": Part(gates.disasters, 400, 40),
    "seasons": Part(gates.seasons, 400, 40),
    "lifetime": Part(gates.lifetime, 200, 5),
    "harm": Part(gates.harm, 200, 20),
    "screen": Part(gates.screen, 1_000, 50),
}


def made(name: str, *, quick: bool, data: Path) -> Rows:
    """The rows of one part."""
    if name == "real":
        return real(data, QUICK_SEEDS, ("weather",)) if quick else real(data, SEEDS)
    part = PARTS[name]
    return part.make(part.quick if quick else part.streams)


def measured(names: list[str], words: argparse.Namespace) -> dict[str, Rows]:
    """The rows of these parts, as many at a time as there are processes."""
    found: dict[str, Rows] = {}
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(words.processes, mp_context=context) as pool,
        progress("parts", len(names), sys.stderr) as report,
    ):
        waiting = {pool.submit(made, name, quick=words.quick, data=Path(words.data)): name for name in names}
        for done, future in enumerate(as_completed(waiting), 1):
            found[waiting[future]] = future.result()
            report(done, waiting[future])
    return found


def write(lines: list[str]) -> None:
    """Put the tables between their marks in the page."""
    before, rest = DOC.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    DOC.write_text(f"{before}{BEGIN}\n{chr(10).join(lines).rstrip()}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Run it; print the tables, write them into the page, or print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judgement", description=__doc__)
    parser.add_argument("--data", default="../shared/data", help="folder of the ETT files (default: %(default)s)")
    parser.add_argument("--only", default=",".join([*PARTS, "real"]), help="parts (default: %(default)s)")
    parser.add_argument("--found", type=Path, help="what --json printed before: parts that are not made anew")
    parser.add_argument("--quick", action="store_true", help="few streams, and one real data set: a minute")
    parser.add_argument("--processes", type=int, default=2, help="parts side by side (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the tables")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{DOC.name}")
    parser.add_argument("--picture", action="store_true", help=f"draw docs/pictures/{PICTURE.name}, and no more")
    words = parser.parse_args()
    if words.picture:
        PICTURE.write_text(picture(), encoding="utf-8")
        return 0
    names = [name for name in words.only.split(",") if name]
    lacking = sorted({*names} - {*PARTS, "real"})
    if "real" in names and not words.quick and not (Path(words.data) / "ETTh1.csv").exists():
        lacking.append(f"{words.data}/ETTh1.csv")
    if lacking:
        print(f"not there: {', '.join(lacking)}; see --only and --data in --help", file=sys.stderr)
        return 2
    began = time.monotonic()
    before = json.loads(words.found.read_text(encoding="utf-8")) if words.found else {}
    found = {**before, **measured(names, words)}
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if words.json:
        print(json.dumps(found))
        return 0
    missing = sorted({*PARTS, "real"} - {*found})
    if missing:
        print(f"no tables without {', '.join(missing)}: see --only and --found in --help", file=sys.stderr)
        return 2
    lines = list(tables(found))
    if words.write:
        write(lines)
    else:
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
