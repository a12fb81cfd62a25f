"""The command `killick tune`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from worker.cli_history import of_history, plan_of, read
from worker.durations import parse_duration
from worker.outputs import PAGE, check_file

if TYPE_CHECKING:
    from consumers.history import History
    from worker.session import Session
    from worker.settings import Settings
    from worker.tune import Ground, Wanted
    from worker.tune_space import Dimension
    from worker.tune_told import Tuned

MOST_WORKERS = 8  # without --workers: each needs about 1 GB
FOLDER = "killick-tune"


@click.command()
@of_history
@click.option(
    "--trials",
    type=click.IntRange(1, 10_000),
    metavar="N",
    default=30,
    show_default=True,
    help="Configurations to try; the first is the settings as they are.",
)
@click.option(
    "--splits",
    type=click.IntRange(1, 20),
    metavar="K",
    default=3,
    show_default=True,
    help="Spans one after the other; each is forecast by what was trained on all before it.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 100),
    metavar="R",
    default=3,
    show_default=True,
    help="Trainings of a configuration on each split, with seeds of their own.",
)
@click.option(
    "--check",
    type=click.IntRange(0, 1_000),
    metavar="N",
    default=10,
    show_default=True,
    help="Trainings of the best, and of the settings as they are, on the end that the search has not seen.",
)
@click.option(
    "--vary",
    multiple=True,
    metavar="KEY[=V,…|=LOW..HIGH]",
    help="Search this setting only (repeatable), over these values: training.rate=0.0001..0.01.",
)
@click.option("--keep", multiple=True, metavar="KEY", help="Leave this setting as it is (repeatable).")
@click.option(
    "--prune/--no-prune",
    default=True,
    show_default=True,
    help="Give a configuration up after a repeat that is worse than luck explains.",
)
@click.option(
    "--study",
    metavar="DIR",
    default=FOLDER,
    show_default=True,
    help="Folder of what was tried; the same command goes on from there.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1_024),
    metavar="N",
    help=f"Trainings at a time; without it one a processor, at most {MOST_WORKERS}.",
)
@click.option("--time-limit", metavar="LENGTH", help="Begin no new configuration after this time: 2h.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    metavar="N",
    default=1,
    show_default=True,
    help="Of the search; the trainings' are training.seed and those after it.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object with every trial, training and curve.")
@click.option("--report", metavar="FILE", help="Write one HTML page: tuning.html.")
@click.pass_obj
def tune(session: Session, /, file: str, as_json: bool, report: str | None, **options: Any) -> None:
    """Search for settings of [network] and [training] that forecast FILE better than those in force.

    The end of FILE that `killick fit` holds out is held out of the search too. Before it, each configuration is
    trained as `killick fit` would, several times, on all that lies before each of a few spans, and forecasts them.
    At the end the best is checked against the settings as they are on the span held out. Nothing is registered:
    what is printed is for killick.toml.

    \b
    killick tune ETTh2.csv --time date --series-from-columns --until 300d
    killick tune weather.csv --time time_hour --series origin --values temp,dewp --trials 60 --report tuning.html
    killick tune pm25.csv --time year,month,day,hour --vary training.rate --vary network.units=[32],[64],[64,64]
    """  # noqa: D301 - click wants the control character itself
    if report is not None:
        check_file("--report", report, PAGE, file)
    from rich.console import Console

    from worker.tune import Wanted
    from worker.tune_space import space
    from worker.tune_tables import show

    settings = session.settings()
    wanted = Wanted(**{name: options.pop(name) for name in ("trials", "splits", "repeats", "check", "prune", "seed")})
    dimensions = space(settings, options.pop("vary"), options.pop("keep"))
    limit = options.pop("time_limit")
    bounds = _Bounds(
        Path(options.pop("study")),
        options.pop("workers") or _workers(settings),
        parse_duration(limit).seconds if limit is not None else None,
    )
    told = _tuned(settings, dimensions, wanted, bounds, read(settings, file, **options), file)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(told).decode())
    else:
        show(told, Console())
    if report is not None:  # last: a disk that is full by now costs no more than the page
        from worker.report_tune import write_page

        write_page(report, told)


class _Bounds(NamedTuple):
    """Where a study is kept, how many trainings run side by side, and when no trial begins any more."""

    folder: Path
    workers: int
    limit_s: float | None


def _tuned(
    settings: Settings,
    dimensions: tuple[Dimension, ...],
    wanted: Wanted,
    bounds: _Bounds,
    history: History,
    file: str,
) -> Tuned:
    """The search, from where its study stands to its end."""
    from worker.executors import PROCESSES, trainings
    from worker.progress import progress
    from worker.tune import Search
    from worker.tune_ground import ground_of, identity
    from worker.tune_study import opened
    from worker.tune_summary import About, tuned

    folder, workers, limit_s = bounds
    ground = ground_of(history, settings, dimensions, plan_of, wanted.splits)
    began = time.monotonic()
    with opened(folder, identity(history, ground, wanted), dimensions) as study:
        _say_what(wanted, ground, len(study.trials), workers)
        total = wanted.trials * wanted.splits * wanted.repeats + 2 * wanted.check
        try:
            with progress("tuning", total, sys.stderr) as tell:
                search = Search(
                    study,
                    ground,
                    wanted,
                    enough=lambda: limit_s is not None and time.monotonic() - began > limit_s,
                    tell=tell,
                )
                search.run(lambda: trainings(PROCESSES, workers), workers)
        except KeyboardInterrupt:
            ended = sum(one.state is not None for one in study.trials)
            click.echo(
                f"interrupted: {ended} of {wanted.trials} trials have ended, {folder} keeps all that was trained: "
                "the same command goes on from there",
                err=True,
            )
            raise
        if search.exhausted:
            click.echo(f"there is no more to try: {len(study.trials)} configurations make the whole space", err=True)
        return tuned(study, ground, wanted, About(file, workers, str(folder)))


def _workers(settings: Settings) -> int:
    """One training for each processor that we may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, usable // settings.network.threads))


def _say_what(wanted: Wanted, ground: Ground, kept: int, workers: int) -> None:
    each = wanted.splits * wanted.repeats
    click.echo(
        f"tuning {len(ground.dimensions)} settings: {wanted.trials} trials of {wanted.splits} splits with "
        f"{wanted.repeats} repeats, at most {wanted.trials * each + 2 * wanted.check:,} trainings, {workers} at a time"
        + (f"; {kept} trials are kept from before" if kept else ""),
        err=True,
    )
