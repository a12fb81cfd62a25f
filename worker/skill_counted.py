"""`killick skill` where its figures are counted now: of one series, of the worst ones, of a version's past."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from models.errors import ConfigError, DataError
from models.tally import reported_leads
from models.times import HOUR_MS, rfc3339
from models.windows import LIFE, WINDOWS
from worker import wiring
from worker.progress import progress
from worker.skill_asked import NEEDED_WINDOW, terminal, write_csv, write_json
from worker.skill_recorded import Records, Span, backfilled_book, by_series, series_book
from worker.skill_report import MEASURES, Scores, read_report, scores_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from consumers.ledger import Ledger
    from models.server import Client
    from models.windows import Book
    from worker.settings import Settings
    from worker.skill_asked import Asked
    from worker.skill_recorded import BySeries

SERIES_WINDOWS = tuple(name for name in WINDOWS if name != LIFE)  # unless it is asked for: it reads everything


def of_series(settings: Settings, asked: Asked, name: str) -> None:
    """Show one series.

    Raises:
        DataError: it is not known, or has no pairs there.
        ConfigError: the lead has no figures.
        ArchiveError, ServiceUnreachable: what is recorded can't be read.
    """
    windows = asked.windows(SERIES_WINDOWS)
    with closing(wiring.redis_client(settings)) as client:
        records = Records(settings, client)
        ledger, slot = records.series(name)
        newest_hour = _newest_hour(settings, client, records)
        span = Span.of_window(windows[-1], newest_hour).whole_days()
        with _progress(records, [ledger], span):
            book = series_book(records, ledger, slot, span)
    versions = [number for number in book.versions if asked.version in (None, number)]
    if not versions:
        of = f" of version {asked.version}" if asked.version is not None else ""
        raise DataError(f"series {name!r} has no pairs{of} in {windows[-1]}", "ask for a longer --window, as life")
    scores = {number: _scores(book, number, newest_hour, windows) for number in versions}
    body = {
        "model": settings.model.name,
        "series": name,
        "partition": ledger.partition,
        "until": rfc3339(newest_hour * HOUR_MS),
        "versions": [{"version": number, **one.as_json(windows)} for number, one in scores.items()],
    }
    if asked.answer(body, scores, windows):
        return
    console = terminal()
    console.print(
        f"series {name} of model {settings.model.name}, in partition {ledger.partition}; {_until(newest_hour)}"
    )
    for number, one in scores.items():
        asked.show(console, f"version {number}", one, windows)


def of_worst(settings: Settings, asked: Asked, count: int, against: str) -> None:
    """Show the series with the least skill, and the quantiles over all.

    Raises:
        DataError: no series has pairs there.
        ConfigError: the lead has no figures.
        ArchiveError, ServiceUnreachable: what is recorded can't be read.
    """
    if asked.by_lead:
        raise ConfigError("--worst goes by one lead", "choose it with --lead")
    window = asked.window or NEEDED_WINDOW
    with closing(wiring.redis_client(settings)) as client:
        records = Records(settings, client)
        newest_hour = _newest_hour(settings, client, records)
        span = Span.of_window(window, newest_hour)
        known = wiring.ledgers(settings, client)
        lead = asked.one_lead(_leads(settings, client))
        with _progress(records, known, span):
            found = by_series(records, span, lead, asked.version)
    if not found:
        of = f" of version {asked.version}" if asked.version is not None else ""
        raise DataError(f"no series has pairs{of} at lead {lead} in {window}", "ask for a longer --window, as life")
    parts = {number: _part(one, count, against, asked) for number, one in sorted(found.items())}
    body = {
        "model": settings.model.name,
        "window": window,
        "until": rfc3339(newest_hour * HOUR_MS),
        "lead": lead,
        "scaling": asked.scaling,
        "against": against,
        "versions": [{"version": number, **part} for number, part in parts.items()],
    }
    if asked.as_json:
        write_json(body)
    elif asked.as_csv:
        names = ("series", *MEASURES)
        rows = ((number, *(one[name] for name in names)) for number, part in parts.items() for one in part["worst"])
        write_csv(("version", *names), rows)
    else:
        _show_worst(parts, f"window {window}, lead {lead}, {asked.scaling} errors", against, _until(newest_hour))


def of_backfill(settings: Settings, asked: Asked, since_ms: int | None, until_ms: int | None) -> None:
    """Show what a version would have been worth.

    Raises:
        ConfigError: no version or no time to begin at; or the lead has no figures.
        DataError: there are no pairs, or what is recorded does not go back far enough.
        VersionError, ArchiveError, ServiceUnreachable: version or records can't be read.
    """
    if asked.version is None or since_ms is None:
        raise ConfigError("--backfill makes the past of one version again", "add --version V and --since TIME")
    from worker.backfill import backfilled  # noqa: PLC0415 - the only one that steps a network

    with closing(wiring.redis_client(settings)) as client:
        records = Records(settings, client)
        wiring.registry(settings, client).load(asked.version)
        newest_hour = _newest_hour(settings, client, records)
        if until_ms is not None:
            newest_hour = min(newest_hour, until_ms // HOUR_MS)
        span = Span(since_ms // HOUR_MS, newest_hour)
        with _progress(records, records.ledgers, Span(None, newest_hour)):
            book = backfilled_book(records, backfilled(settings, client, asked.version, since_ms), span)
    if asked.version not in book.leads:
        raise DataError(
            f"version {asked.version} has no pairs between {rfc3339(since_ms)} and {rfc3339(newest_hour * HOUR_MS)}",
            "ask for an earlier --since or a later --until",
        )
    windows = asked.windows()
    scores = {asked.version: _scores(book, asked.version, newest_hour, windows)}
    body = {
        "model": settings.model.name,
        "version": asked.version,
        "regenerated": True,
        "since": rfc3339(since_ms),
        "until": rfc3339(newest_hour * HOUR_MS),
        **scores[asked.version].as_json(windows),
    }
    if asked.answer(body, scores, windows):
        return
    console = terminal()
    console.print(f"regenerated, not live: what version {asked.version} of model {settings.model.name} would have")
    console.print(f"forecast from {rfc3339(since_ms)} on; life is all of that; {_until(newest_hour)}")
    asked.show(console, f"version {asked.version}, regenerated", scores[asked.version], windows)


def _part(found: BySeries, count: int, against: str, asked: Asked) -> dict[str, Any]:
    return {
        "series": len(found.names),
        "quantiles": found.quantiles(against, asked.scaling),
        "worst": found.worst(count, against, asked.scaling),
    }


def _show_worst(parts: Mapping[int, Mapping[str, Any]], note: str, against: str, until: str) -> None:
    from worker.skill_view import print_whole, quantiles_line, title, worst_table  # noqa: PLC0415 - rich

    console = terminal()
    console.print(f"series by skill against {against}; {until}")
    for number, part in parts.items():
        console.print()
        console.print(title(f"version {number}", f"{part['series']:,} series, {note}"))
        console.print(quantiles_line(part["quantiles"]))
        if part["worst"]:
            print_whole(console, worst_table(part["worst"]))


def _scores(book: Book, version: int, newest_hour: int, windows: Sequence[str]) -> Scores:
    whole = scores_of(book, version, newest_hour)
    return Scores(whole.leads, {name: whole.windows[name] for name in windows}, whole.days)


def _newest_hour(settings: Settings, client: Client, records: Records) -> int:
    """The hour that windows end at: the monitor's, if one ever counted."""
    report = read_report(settings, client)
    newest = report.newest_hour if report.book.sums else records.newest_hour()
    if newest is None:
        raise DataError("nothing is recorded yet", "start `killick consumer` and send observations")
    return newest


def _leads(settings: Settings, client: Client) -> list[int]:
    """The leads that versions report."""
    known = read_report(settings, client).book.leads.values()
    return sorted({lead for leads in known for lead in leads} | set(reported_leads(settings.model.horizon)))


@contextmanager
def _progress(records: Records, ledgers: Sequence[Ledger], span: Span) -> Iterator[None]:
    """Progress of reading, on standard error; and what could not be read."""
    with progress("records read", records.total(ledgers, span), sys.stderr) as report:
        records.told = report
        yield
    for partition, hole in records.holes:
        if hole.after >= 0:
            sys.stderr.write(
                f"partition {partition}: what ended after offset {hole.after} and up to {hole.until} is neither in"
                " Redis nor in the archive\n"
            )


def _until(newest_hour: int) -> str:
    return f"complete hours up to {rfc3339(newest_hour * HOUR_MS)}"
