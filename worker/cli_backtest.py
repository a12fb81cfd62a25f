"""The command `killick backtest`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import ConfigError
from worker.cli_history import moment_ms, of_history, read
from worker.outputs import PAGE, check_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.backtest_told import Backtested
    from worker.session import Session
    from worker.settings import Settings

FITTED_SHARE = 3  # of a file, where nothing else is said: a third is fitted on


@click.command()
@of_history
@click.option(
    "--train-until",
    metavar="TIME",
    help="The first version is fitted on what is before; what follows is streamed. As --until; without it a third.",
)
@click.option("--horizon", type=click.IntRange(1, 1_024), metavar="STEPS", help="Leads, in place of model.horizon.")
@click.option("--leads", metavar="K[,K…]", help="Leads to show; the mean over 1…K is shown too.")
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="First versions, each with another seed."
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    help="never, periodic:7d (or another length), on-drift, on-skill, always, control; may be repeated. "
    "Without it the first five.",
)
@click.option(
    "--gate",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="on: candidates are searched for, compared and tried as the service does. off: the plain update of [update], "
    "live at once.",
)
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Processes side by side; else all cores.")
@click.option("--report", metavar="FILE", help="Write a page with pictures: backtest.html.")
@click.option("--forecasts", metavar="FILE", help="Write every forecast, as issued (Parquet).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of the tables.")
@click.pass_obj
def backtest(
    session: Session,
    /,
    file: str,
    *,
    train_until: str | None,
    horizon: int | None,
    leads: str | None,
    seeds: int,
    policies: Sequence[str],
    gate: str,
    workers: int | None,
    report: str | None,
    forecasts: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Stream FILE through the service in event time, and say which update policy would have paid.

    Needs neither Kafka nor Redis. The first version is fitted as `killick fit` does; then every forecast is
    issued before its label is read. Errors are in standard deviations of each series over the training span.

    \b
    killick backtest weather.csv --time time_hour --series origin --train-until 56d
    killick backtest ETTh2.csv --time date --series-from-columns --train-until 150d --gate off \\
        --policy never --policy periodic:7d --seeds 5 --report out.html
    """  # noqa: D301 - click wants the control character itself
    _check_outputs(report, forecasts, file)
    from rich.console import Console

    from worker.backtest import Wishes
    from worker.backtest import backtest as play
    from worker.backtest_policies import DEFAULT, parse_policy
    from worker.backtest_scene import scene_of
    from worker.backtest_tables import as_json as told_json
    from worker.backtest_tables import print_tables

    chosen = tuple(dict.fromkeys(parse_policy(name) for name in (policies or DEFAULT)))
    settings = session.settings()
    if horizon is not None:
        settings = with_horizon(settings, horizon)
    history = read(settings, file, **options)
    first_ms, last_ms = int(history.time_ms[0]), int(history.time_ms[-1])
    online_ms = first_ms + (last_ms - first_ms) // FITTED_SHARE
    if train_until is not None:
        online_ms = moment_ms(train_until, first_ms)
    scene = scene_of(settings, history, online_ms, gate=gate == "on", console=Console(stderr=True))
    if scene.gate and any(policy.on_old for policy in chosen):
        raise click.UsageError("the policy control is made by plain updates: add --gate off")
    wishes = Wishes(
        file=Path(file).name,
        policies=chosen,
        seeds=tuple(settings.training.seed + i for i in range(seeds)),
        leads=leads_of(leads, settings.model.horizon),
        workers=workers or os.cpu_count() or 1,
        forecasts=None if forecasts is None else Path(forecasts),
    )

    def tell(told: Backtested) -> None:
        if as_json:
            click.echo(told_json(told))
        else:
            print_tables(told, Console())
        if report is not None:
            from worker.report_backtest import write_page

            write_page(report, told)
            click.echo(f"report: {report}", err=True)

    play(scene, wishes, sys.stderr, tell)
    if forecasts is not None:
        click.echo(f"forecasts: {forecasts}", err=True)


def _check_outputs(report: str | None, forecasts: str | None, source: str) -> None:
    """Refuse files that can't be written, or that are read, before hours of work.

    Raises:
        ConfigError: as `check_file`; or both are the same.
    """
    if report is not None:
        check_file("--report", report, PAGE, source)
    if forecasts is not None:
        check_file("--forecasts", forecasts, source=source)
    if report is not None and forecasts is not None and Path(report).resolve() == Path(forecasts).resolve():
        raise ConfigError(f"--report and --forecasts are both {report!r}", "name two files")


def with_horizon(settings: Settings, horizon: int) -> Settings:
    """The settings with another horizon, which may not fit the rest of them.

    Raises:
        ConfigError: it does not.
    """
    changed = settings.model_copy(update={"model": settings.model.model_copy(update={"horizon": horizon})})
    changed.architecture(gain=(1.0,) * horizon)
    return changed


def leads_of(text: str | None, horizon: int) -> tuple[int, ...]:
    """The leads to show, in order; those that matter most where none are named.

    Raises:
        UsageError: one is no lead.
    """
    from models.tally import reported_leads

    if text is None:
        return reported_leads(horizon)
    found = [word.strip() for word in text.split(",")]
    for word in found:
        if not word.isdigit() or not 1 <= int(word) <= horizon:
            raise click.UsageError(f"--leads: {word!r} is no lead: they go from 1 to {horizon} (model.horizon)")
    return tuple(sorted({int(word) for word in found}))
