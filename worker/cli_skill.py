"""`killick skill`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from models.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from worker.session import Session
    from worker.settings import Settings
    from worker.skill_asked import Asked
    from worker.skill_report import Report


@click.command()
@click.option("--version", type=click.IntRange(min=1), metavar="V", help="Only this version.")
@click.option("--window", metavar="W", help="Only this window: 1h, 1d, 7d, 30d or life.")
@click.option("--lead", metavar="K", help="At this lead, in steps; without it all, which pools them.")
@click.option("--leads", "by_lead", is_flag=True, help="All leads of one window; without --window 7d.")
@click.option("--unscaled", is_flag=True, help="Errors in the target's unit; without it divided by the scale in force.")
@click.option("--series", metavar="S", help="Of one series, counted now from what is recorded.")
@click.option(
    "--worst", type=click.IntRange(min=0), metavar="N",
    help="The N worst series over a window (without --window 7d), and quantiles over all, counted now.",
)  # fmt: skip
@click.option(
    "--against", type=click.Choice(["persistence", "seasonal"]), help="What --worst goes by; without it persistence."
)
@click.option("--backfill", is_flag=True, help="Of --version, made again from what is recorded: it need not have run.")
@click.option("--since", metavar="TIME", help="With --backfill: count forecasts from this time on.")
@click.option("--until", metavar="TIME", help="With --backfill: and pairs before this one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with every figure.")
@click.option("--csv", "as_csv", is_flag=True, help="A line for every figure.")
@click.pass_obj
def skill(
    session: Session,
    /,
    *,
    series: str | None,
    worst: int | None,
    against: str | None,
    backfill: bool,
    since: str | None,
    until: str | None,
    unscaled: bool,
    **options: Any,
) -> None:
    """Show how good the forecasts are, by version and window: skill, errors, drift, what waits.

    Skill is 1 - MSE / MSE(reference): 1 is perfect, 0 as good as the reference, below 0 worse. The windows end with
    the last complete hour of event time. Reads what `killick monitor` keeps in Redis; none need run for that.

    \b
    killick skill --leads --window 30d               how skill falls with the lead
    killick skill --worst 10 --window 1d             which series are forecast badly
    killick skill --series JFK                       one of them, by window and day
    killick skill --backfill --version 3 --since 2013-06-01
    """  # noqa: D301 - click wants the control character itself
    from worker.skill_asked import Asked

    asked = Asked(scaling="unscaled" if unscaled else "scaled", **options)
    if (series is not None) + (worst is not None) + backfill > 1:
        raise ConfigError("--series, --worst and --backfill can't be had at once", "choose one")
    if against is not None and worst is None:
        raise ConfigError("--against says what --worst goes by", "add --worst N")
    if (since is not None or until is not None) and not backfill:
        raise ConfigError("--since and --until say what --backfill counts", "add --backfill, or choose a --window")
    settings = session.settings()
    if series is not None or worst is not None or backfill:
        from worker import skill_counted

        if series is not None:
            skill_counted.of_series(settings, asked, series)
        elif worst is not None:
            skill_counted.of_worst(settings, asked, worst, against or "persistence")
        else:
            from worker.cli_history import moment_ms

            bounds = [moment_ms(text) if text is not None else None for text in (since, until)]
            skill_counted.of_backfill(settings, asked, *bounds)
        return
    _show(settings, asked)


def _show(settings: Settings, asked: Asked) -> None:
    from worker import wiring
    from worker.skill_asked import terminal
    from worker.skill_report import read_report

    with closing(wiring.redis_client(settings)) as client:
        report = read_report(settings, client)
        versions = report.chosen(asked.version, wiring.registry(settings, client))
    if versions:
        asked.one_lead(sorted({lead for number in versions for lead in report.book.leads[number]}))
    windows = asked.windows()
    if asked.answer(
        report.as_json(versions, windows) if asked.as_json else {},
        {number: report.scores(number) for number in versions},
        windows,
    ):
        return
    console = terminal()
    _say_standing(console, report)
    for number in versions:
        if asked.lead is None or asked.lead in (*map(str, report.book.leads[number]), "all"):
            heading = f"version {number} {report.role(number)}".rstrip()
            asked.show(console, heading, report.scores(number), windows, report.trend_words(number))
    _show_drift(console, report)


def _say_standing(console: Console, report: Report) -> None:
    from worker.skill_view import head_lines

    for line in head_lines(report):
        console.print(line)
    if not report.partitions:
        console.print("nothing is recorded yet: start `killick consumer` and send observations")
    elif not report.ran:
        console.print("no monitor has counted here yet: start `killick monitor`, it counts what is recorded too")
    elif not report.book.versions:
        console.print(f"no pairs yet: none of {report.observations:,} observations had been forecast")


def _show_drift(console: Console, report: Report) -> None:
    from worker.skill_view import drift_table, newest_drifts, title, waiting

    told = report.told
    if told.statistics:
        console.print()
        console.print(title("drift", f"of version {told.version}"))
        console.print(drift_table(told))
    if told.found:
        console.print(newest_drifts(told))
    if report.requests:
        console.print()
        console.print(title("requests that wait", f"{len(report.requests)}"))
        console.print(waiting(report))
