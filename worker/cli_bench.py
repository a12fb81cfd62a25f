"""The command `killick bench`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from worker.cli_accuracy import accuracy

if TYPE_CHECKING:
    from worker.session import Session

COLUMNS = {
    "client": "client", "series": "series", "forecasts_per_s": "forecasts/s", "ceiling_per_s": "ceiling/s",
    "ratio": "ratio", "p50_ms": "p50 ms", "p99_ms": "p99 ms", "redis_bytes_per_pair": "Redis B/pair",
    "bytes_per_series": "B/series", "peak_mb": "peak MB",
}  # fmt: skip


@click.group()
def bench() -> None:
    """Measure this installation."""


bench.add_command(accuracy)


@bench.command()
@click.option("--json", "as_json", is_flag=True, help='One JSON object: {"rows": [...]}.')
@click.option("--quick", is_flag=True, help="One small row, for a first look.")
@click.option("--repeats", type=click.IntRange(1, 20), default=3, show_default=True, help="Turns of each row.")
@click.pass_obj
def throughput(session: Session, as_json: bool, quick: bool, repeats: int) -> None:
    """Forecasts a second with the Kafka and Redis of the settings, beside the same loop without model and ledger.

    Makes topics and keys of its own, named bench-..., and removes them. Latencies are from poll to
    acknowledgement, at 2,000 observations a second.
    """
    from worker.bench import QUICK, ROWS
    from worker.bench import throughput as measure

    def say(line: str) -> None:
        click.echo(line, err=True)

    rows = measure(session.settings(), QUICK if quick else ROWS, repeats, say)
    click.echo(json.dumps({"rows": rows}) if as_json else _table(rows))


@bench.command("damped-sine")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: every turn, means, spreads and ratios.")
@click.option("--seeds", type=click.IntRange(1, 100), default=10, show_default=True, help="Trainings of each kind.")
@click.option(
    "--samples",
    type=click.IntRange(100, 10_000),
    default=10_000,
    show_default=True,
    help="Waves to train on, as published; fewer for a first look.",
)
@click.option(
    "--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads of Killick's training."
)
def damped_sine(as_json: bool, seeds: int, samples: int, threads: int) -> None:
    """The damped sine problem: the published recipe in plain Keras beside Killick's training.

    Stacked LSTM of 2 x 20; of a sine wave that dies away 50 steps are seen, the next 5 are forecast. Both train on
    the same samples and are tested on the same others, taking turns, each training in a process of its own. Takes
    about 20 seconds a seed.
    """
    from rich.console import Console

    from worker import damped_sine as problem
    from worker.progress import progress

    with progress("damped sine", 2 * seeds, sys.stderr) as report:
        compared = problem.compare(seeds, samples, threads, report)
    if as_json:
        click.echo(json.dumps(problem.as_object(compared)))
        return
    console = Console()
    console.print(problem.table_by_seed(compared))
    console.print(problem.table_of_both(compared))
    click.echo(problem.words(compared))


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["  ".join(f"{title:>12}" for title in COLUMNS.values())]
    lines += ["  ".join(f"{row[name]:>12,}" if isinstance(row[name], int) else f"{row[name]:>12}" for name in COLUMNS)
              for row in rows]  # fmt: skip
    return "\n".join(lines)
