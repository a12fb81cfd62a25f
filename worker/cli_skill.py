"""`killick skill`."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from models.errors import ConfigError, VersionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from models.windows import Scaling
    from worker.session import Session
    from worker.skill_report import Report

LEADS_WINDOW = "7d"  # where no window is asked for, but one is needed


@click.command()
@click.option("--version", type=click.IntRange(min=1), metavar="V", help="Only this version.")
@click.option("--window", metavar="W", help="Only this window: 1h, 1d, 7d, 30d or life.")
@click.option("--lead", metavar="K", help="At this lead, in steps; without it all, which pools them.")
@click.option("--leads", "by_lead", is_flag=True, help=f"All leads of one window; without --window {LEADS_WINDOW}.")
@click.option("--unscaled", is_flag=True, help="Errors in the target's unit; without it divided by the scale in force.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with every figure.")
@click.option("--csv", "as_csv", is_flag=True, help="A line for every figure: version, window, lead, scaling, measure.")
@click.pass_obj
def skill(
    session: Session,
    *,
    version: int | None,
    window: str | None,
    lead: str | None,
    by_lead: bool,
    unscaled: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show how good the forecasts are, by version and window: skill, errors, drift, what waits.

    Skill is 1 - MSE / MSE(reference): 1 is perfect, 0 as good as the reference, below 0 worse. The windows end with
    the last complete hour of event time. Reads what `killick monitor` keeps in Redis; none need run for that.
    """
    if as_json and as_csv:
        raise ConfigError("--json and --csv can't be had at once", "choose one")
    from models.windows import POOLED, WINDOWS
    from worker import wiring
    from worker.skill_report import CSV_HEAD, read_report

    chosen_windows = [one_of("window", window, WINDOWS)] if window is not None else list(WINDOWS)
    settings = session.settings()
    with closing(wiring.redis_client(settings)) as client:
        report = read_report(settings, client)
        versions = chosen_versions(report, version)
        if version is not None and not versions:
            known = {info.version for info in wiring.registry(settings, client).versions()}
            raise no_pairs_of(report, version, registered=version in known)
    leads = [*dict.fromkeys(str(k) for v in versions for k in report.book.leads[v]), POOLED] if versions else []
    chosen_lead = one_of("lead", lead, leads) if lead is not None and leads else POOLED
    if as_json:
        click.echo(json.dumps(report.as_json(versions, chosen_windows), ensure_ascii=False))
    elif as_csv:
        write_csv(CSV_HEAD, (row for v in versions for row in report.scores(v).rows(v, chosen_windows)))
    else:
        scaling: Scaling = "unscaled" if unscaled else "scaled"
        console = terminal()
        _say_standing(console, report)
        for number in versions:
            if by_lead:
                _show_leads(console, report, number, window or LEADS_WINDOW, scaling)
            elif str(chosen_lead) in (*map(str, report.book.leads[number]), POOLED):
                _show_windows(console, report, number, chosen_windows, chosen_lead, scaling)
        _show_drift(console, report)


def chosen_versions(report: Report, version: int | None) -> list[int]:
    """The versions that have pairs, the one that answers first; of these the one that is asked for."""
    ordered = sorted(report.book.versions, key=lambda v: (v != report.aliases.incumbent, -v))
    return [number for number in ordered if version in (None, number)]


def no_pairs_of(report: Report, version: int, *, registered: bool) -> VersionError:
    """The error that there is nothing of a version."""
    having = ", ".join(map(str, report.book.versions)) or "none"
    what = "has no pairs yet" if registered else "does not exist"
    return VersionError(f"version {version} of model {report.model!r} {what}", f"versions with pairs: {having}")


def one_of(what: str, word: str, known: Sequence[str]) -> str:
    """The word.

    Raises:
        ConfigError: it is none of those that are known.
    """
    if word in known:
        return word
    near = ""
    if word.isdecimal():
        numbers = [one for one in known if one.isdecimal()]
        near = min(numbers, key=lambda one: abs(int(one) - int(word)), default="")
    nearest = f"; the nearest is {near}" if near else ""
    raise ConfigError(f"{what} {word!r} has no figures", f"known are {', '.join(known)}{nearest}")


def write_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows to standard output; what is None is left empty."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)


def terminal() -> Console:
    """Standard output, for rich."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def _say_standing(console: Console, report: Report) -> None:
    from worker.skill_view import head_lines

    for line in head_lines(report):
        console.print(line)
    if not report.partitions:
        console.print("nothing is recorded yet: start `killick consumer` and send observations")
    elif not report.ran:
        console.print("no monitor has ever counted here: start `killick monitor`, it counts what is recorded too")
    elif not report.book.versions:
        console.print(f"no pairs yet: none of {report.observations:,} observations had been forecast")


def _show_windows(
    console: Console, report: Report, version: int, windows: Sequence[str], lead: str, scaling: Scaling
) -> None:
    from worker.skill_view import daily_line, title, trend_line, windows_table

    scores = report.scores(version)
    console.print()
    console.print(title(f"version {version} {report.role(version)}".rstrip(), f"lead {lead}, {scaling} errors"))
    console.print(windows_table(scores, windows, lead, scaling))
    console.print(daily_line(scores.daily(), console.width))
    words = report.trend_words(version)
    if words:
        console.print(trend_line(words))


def _show_leads(console: Console, report: Report, version: int, window: str, scaling: Scaling) -> None:
    from worker.skill_view import leads_table, title

    console.print()
    console.print(title(f"version {version} {report.role(version)}".rstrip(), f"window {window}, {scaling} errors"))
    console.print(leads_table(report.scores(version), window, scaling))


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
