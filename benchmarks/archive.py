"""Observations a second that the archive takes and gives back, and its bytes beside the ledger's.

One core; blocks of a random walk's pairs, as a version of `H` leads makes them, on the local disk. The ledger's
bytes are those of the same blocks as Redis has them, without what Redis itself adds.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from consumers.archive import Archive
from models.blocks import Block, encode_block
from models.scaling import SeriesForm
from models.times import HOUR_MS

ROWS = 250_000
SERIES = 20_000
FEATURES = 2
CASES = ((5, 1, 1_000), (24, 1, 1_000), (24, 2, 1_000), (24, 1, 50), (24, 1, 1))  # leads, versions, rows of a block
FORM = SeriesForm(("temp", "dewp"), "temp", HOUR_MS, 24, 168.0, 32, 6)


def blocks_of(leads: int, versions: int, size: int, rows: int = ROWS) -> list[Block]:
    """Blocks of `size` observations: series in turn, values with one decimal, forecasts near them."""
    rng = np.random.default_rng(0)
    slot = np.arange(rows) % SERIES
    step = 380_000 + np.arange(rows) // SERIES
    walk = np.cumsum(rng.normal(size=(-(-rows // SERIES), SERIES)), axis=0).ravel()[:rows]
    values = np.round(20 + np.stack([walk, walk - 5 + rng.normal(size=rows)], axis=1), 1)
    present = np.ones((rows, FEATURES), np.bool_)
    scale = rng.random(rows).astype(np.float32)
    pairs = {
        version: (values[:, :1] + rng.normal(size=(rows, leads))).astype(np.float32)
        for version in range(1, versions + 1)
    }
    found = []
    for begin in range(0, rows, size):
        cut = slice(begin, min(begin + size, rows))
        own = {version: p[cut] for version, p in pairs.items()}
        found.append(
            Block(
                begin, cut.stop, np.arange(begin, cut.stop), slot[cut], step[cut],
                values[cut], present[cut], scale[cut], own, dict.fromkeys(own, 7),
            )
        )  # fmt: skip
    return found


def measured(leads: int, versions: int, size: int) -> dict[str, Any]:
    """One row of the table: the best of three."""
    blocks = blocks_of(leads, versions, size)
    names = [f"series-{i}" for i in range(SERIES)]
    ledger = sum(len(encode_block(block)) for block in blocks)
    write, read, stored = [], [], 0
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            archive = Archive(folder, "benchmark")
            began = time.perf_counter()
            archive.write(0, blocks, names, FORM)
            write.append(time.perf_counter() - began)
            stored = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
            began = time.perf_counter()
            count = sum(len(block) for block in archive.blocks(0))
            read.append(time.perf_counter() - began)
            assert count == ROWS, "every observation comes back"  # noqa: S101 - a benchmark of the wrong thing is none
    return {
        "leads": leads,
        "versions": versions,
        "block": size,
        "written_per_s": round(ROWS / min(write)),
        "read_per_s": round(ROWS / min(read)),
        "archive_bytes": round(stored / ROWS, 1),
        "ledger_bytes": round(ledger / ROWS, 1),
    }


def main() -> None:
    """Print a table, or with --json one object."""
    rows = [measured(*case) for case in CASES]
    if "--json" in sys.argv:
        print(json.dumps({"observations": ROWS, "rows": rows}))
        return
    for row in rows:
        print("  ".join(f"{name} {value:,}" for name, value in row.items()))


if __name__ == "__main__":
    main()
