"""The rows of the benchmark of faults, and the page that is made of them."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.oracle import Comparison
from tests.services.kafka import LIBS
from tests.services.redis import redis_binary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.faults import Run


@dataclass
class Row:
    """All runs of one kind of fault."""

    name: str
    title: str
    clock: str  # from when the seconds to recover are counted
    seeds: list[int] = field(default_factory=list)
    faults: int = 0
    commands: int = 0  # promotions and rollbacks
    records: int = 0
    lost: int = 0
    duplicated: int = 0
    mismatches: int = 0
    rewinds: int = 0
    recovered_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # of streams that did not begin, so that nothing was done to them

    def add(self, done: Run) -> None:
        """Add one run."""
        self.faults += done.faults
        self.commands += done.commands
        self.records += done.records
        self.duplicated += done.duplicated
        self.rewinds += done.rewinds
        self.seconds += done.seconds
        self.recovered_s.append(round(done.recovered_s, 3))
        self._judge(done.seed, done.outcome)

    def fail(self, seed: int, error: BaseException) -> None:
        """Add one run that did not come to its end."""
        self._judge(seed, Comparison(mismatches=[f"{type(error).__name__}: {error}"]))

    def _judge(self, seed: int, outcome: Comparison) -> None:
        self.seeds.append(seed)
        self.lost += outcome.lost
        self.mismatches += len(outcome.mismatches)
        if not outcome.exact:
            self.failures.append(f"{self.name}, seed {seed}: lost {outcome.lost}, {outcome.mismatches[:5]}")


def table(rows: Sequence[Row]) -> str:
    """The figures as a table of Markdown."""
    heads = (
        "fault", "runs", "faults", "swaps", "records", "lost", "duplicated", "mismatches", "rewinds",
        "seconds to recover: median", "most", "failures a run, at most", "seeds",
    )  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in [*rows, *([_total(rows)] if len(rows) > 1 else [])]:
        runs = len(row.seeds)
        times = row.recovered_s
        cells = (
            row.title, runs, row.faults, row.commands, f"{row.records:,}", row.lost, f"{row.duplicated:,}",
            row.mismatches, row.rewinds,
            f"{statistics.median(times):.2f}" if times else "", f"{max(times):.2f}" if times else "",
            f"{min(1, 3 / runs):.1%}" if not row.failures else f"{len(row.failures)} seen",
            f"{min(row.seeds)}…{max(row.seeds)}" if row.name else "",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _total(rows: Sequence[Row]) -> Row:
    total = Row("", "**all**", "")
    for row in rows:
        total.seeds += row.seeds
        total.failures += row.failures
        for name in ("faults", "commands", "records", "lost", "duplicated", "mismatches", "rewinds"):
            setattr(total, name, getattr(total, name) + getattr(row, name))
    return total


def page(rows: Sequence[Row]) -> str:
    """The page `docs/faults.md`."""
    clocks = "\n".join(f"- {row.title}: {row.clock}" for row in rows if not row.commands)
    failures = "\n".join(f"- {failure}" for row in rows for failure in row.failures) or "None."
    notes = [note for row in rows for note in row.notes]
    if notes:
        failures += "\n\nStreams that did not begin, before any fault, and were begun anew:\n\n"
        failures += "\n".join(f"- {note}" for note in notes)
    return PAGE.format(table=table(rows), clocks=clocks, failures=failures, machine=machine())


def machine() -> str:
    """What this was measured on, in words."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    redis = subprocess.run([redis_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    kafka = next(path.stem.rpartition("-")[2] for path in Path(LIBS).glob("kafka-server-[0-9]*.jar"))
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, with consumers, Redis {_word(redis, 'v=')}, "
        f"Apache Kafka {kafka} and the oracle all on it; Python {platform.python_version()}"
    )


def _word(text: str, mark: str) -> str:
    return next(word.removeprefix(mark) for word in text.split() if word.startswith(mark))


PAGE = """\
# Real faults

Made by `python -m benchmarks.faults --write docs/faults.md`; do not edit.

A stream of 60 series flows through Kafka at 400 records a second, with everything in it that goes wrong: gaps,
missing values, repeats, contradictions, late and unreadable records. `killick consumer` processes read it, with a
Redis behind them. At a random moment something is broken, for a random time, then mended. When all records are
through, the outcome is compared with one uninterrupted run over the same records and rosters in one process, without
Kafka and Redis: SHA-256 of series state, of every running version's carried state, of observations and pairs; the
counters; every forecast with its version and its bits; every dead letter.

{table}

- *… and swaps*: at random moments around the fault a version is promoted, mostly rolled back after it, among twelve
  with four architectures. The command is given again until it is answered. The run ends when all partitions follow.
- *lost*: forecasts and dead letters that never came.
- *duplicated*: forecasts that came again with equal bytes, as the guarantee allows.
- *mismatches*: everything else that is not as in the uninterrupted run, copies with other bytes or of another version
  among it; and runs that did not come to their end.
- *rewinds*: how often a partition's ledger was found behind, because Redis had lost its tail, and was caught up.
- *failures a run, at most*: none was seen in n runs, so with 95 % confidence their rate is below 3/n.

Some runs in a row are done to one stream: what one fault left behind meets the next one, and each comparison is of the
whole stream so far.

## From when the seconds to recover are counted

To the moment at which every partition that was hit has published beyond where it was. With swaps, that includes the
wait until a new roster is on the disk.

{clocks}

## Failures

{failures}

## How to repeat it

On {machine}, with other work on it at times.

Needs what `make test` needs, and a C compiler. `python -m benchmarks.faults --only zombie,cut+swaps --runs 5
--seed 100` runs some; `--results FILE` keeps rows from call to call, and those above came from several.

What *cut* and *power cut* do: the server is killed, then its append-only file is made shorter, to a random byte, or
to the length that it had at its last `fsync`, which a library between the server and the kernel notes
(`tests/services/disk.c`). A kill alone loses nothing that was handed over to the kernel.

What is not tried, as nobody promises it: with `appendfsync everysec`, Redis 7.0 and Valkey 9.1 can't say what is on
their disk, so after a power cut they may have forgotten a version that has answered already (`killick doctor` warns,
and so does the consumer). In the rows *… and swaps*, what is cut off therefore lies after the last change of a roster.
With `appendfsync always`, or a `WAITAOF` that waits, nothing is published that can be forgotten.

A file that breaks off is repaired with `redis-check-aof --fix` before Redis starts. Left to `aof-load-truncated yes`,
Redis 7.0 was seen to lose or halve commits at the start *after* the next: where the file breaks off within the writes
of one function call, the first start keeps their beginning in the file without the end of the transaction, and the
second one takes it for a part of what was written after it. Valkey 9.1.2 removes it, as
[valkey#4342](https://github.com/valkey-io/valkey/pull/4342) does for the rest. So, on a server that does not:
`aof-load-truncated no`, and the repair by hand; `killick doctor` says where.

## Updating

The rows above swap versions by hand. What gates, guards and retrainers do when things break is tested elsewhere, by
every `make test`:

- `tests/integration/test_updating.py`, on real servers and processes, while the stream goes on and every forecast is
  compared as above: a drift is answered and a broken version undone without anybody's help; retrainers are told to stop
  and killed in training and after the verdict; Redis and the monitor are killed at the verdict, in the trial and at the
  promotion; a candidate's weights are corrupted; two operators, or an operator and the guard, act at once.
- The simulator (`tests/faults`): in about a third of its seeds gates and retrainers work beside consumers and
  operators, and are killed, stalled, doubled and delayed at every call to Redis, which loses its tail meanwhile. After
  each of their steps the audit, carried out entry by entry, must give what the registry says: one incumbent, nobody
  promoted who is not the candidate, was made from another version or while promotion is paused, no decision carried out
  twice, one verdict on a request, one nomination by a verdict. `python -m benchmarks.simulator` runs more seeds.
"""
