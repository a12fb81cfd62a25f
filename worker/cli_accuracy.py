"""The command `killick bench accuracy`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.outputs import check_folder

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False),
    default=".",
    show_default=True,
    help="Folder of the files.",
)
@click.option("--set", "sets", multiple=True, metavar="NAME", help="A data set; may be repeated. Without it all.")
@click.option("--seeds", type=click.IntRange(1, 100), default=5, show_default=True, help="Networks of each kind.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    help="As of `killick backtest`; may be repeated. Without it never and periodic:7d.",
)
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Processes side by side; else all cores.")
@click.option("--report", metavar="DIR", help="Write a page for each data set there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a data set in place of the tables.")
def accuracy(
    data: str,
    sets: Sequence[str],
    seeds: int,
    policies: Sequence[str],
    workers: int | None,
    report: str | None,
    as_json: bool,
) -> None:
    """The LSTM, frozen and updated, on real streams, beside baselines and what others have published.

    Each stream is played by `killick backtest --gate off`; settings were chosen on ETTh2 and ETTm1 alone. ETT is
    free (CC BY-ND) but not part of Killick: put ETTh1.csv, ETTh2.csv, ETTm1.csv.gz and beijing_pm25.csv into a folder.
    """
    if report is not None:
        check_folder("--report", report)
    from rich.console import Console

    from worker import accuracy as figures
    from worker.accuracy_sets import chosen

    console = Console()
    names = tuple(dict.fromkeys((figures.FROZEN, *(policies or ("periodic:7d",)))))
    wanted = chosen(tuple(sets))
    for one in wanted:  # before anything takes hours
        one.history(Path(data))
    for one in wanted:
        told = figures.measure(one, Path(data), names, seeds, workers or os.cpu_count() or 1, sys.stderr)
        if as_json:
            click.echo(json.dumps(figures.as_object(told, one)))
        else:
            for table in figures.tables(told, one):
                console.print(table)
                console.print()
            for sentence in figures.sentences(told, one):
                click.echo(sentence)
            click.echo()
        if report is not None:
            from worker.report_backtest import write_page

            Path(report).mkdir(parents=True, exist_ok=True)
            write_page(Path(report) / f"{one.name}.html", told)
