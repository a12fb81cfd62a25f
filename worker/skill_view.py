"""How skill looks on a terminal: tables of figures, a sign for each day, detectors beside their thresholds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from models.times import HOUR_MS, day_text
from models.windows import POOLED
from worker.report_numbers import moment_words
from worker.skill_report import measures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console, RenderableType

    from models.windows import Figures, Scaling
    from worker.drift_told import Told
    from worker.skill_report import Report, Scores

SIGNS = "▁▂▃▄▅▆▇█"
MOST_DAYS = 60
NEWEST_DRIFTS = 5
BAR = 20  # signs
WIDEST = 1_000  # signs of a table
HEADINGS = {
    "skill_persistence": "against\npersistence",
    "skill_seasonal": "against\nseasonal",
    "mae": "MAE",
    "rmse": "RMSE",
    "bias": "bias",
    "mase": "MASE",
}
RATIOS = {"skill_persistence": "+.3f", "skill_seasonal": "+.3f", "mase": ".3f"}
SMALL, LARGE = 0.0005, 10_000.0  # errors that three decimals don't suit
HUGE = 1e9  # a number that nobody reads digit by digit: weights that explode make such


def head_lines(report: Report) -> list[Text]:
    """Who answers, up to when was counted, how far the monitor is behind, and what waits."""
    incumbent = report.aliases.incumbent
    answers = f"version {incumbent} answers" if incumbent else "no version answers"
    lines = [Text(f"model {report.model}: {answers}")]
    if report.book.sums:
        lines[0].append(f"; complete hours up to {moment_words(report.newest_hour * HOUR_MS)}")
    work = "a monitor is at work" if report.led else "no monitor is at work: `killick monitor`"
    behind = f"{report.lag:,} records behind" if report.lag else "nothing left to count"
    lines.append(Text(f"{work}; {behind}", style="" if report.led else "yellow"))
    return lines


def windows_table(scores: Scores, windows: Sequence[str], lead: str, scaling: Scaling) -> Table:
    """A row for each window, at one lead."""
    table = _table("window", "pairs")
    for name in windows:
        found = scores.figures(name, scaling)
        at = found.leads.index(lead)
        pairs = found.pairs if lead == POOLED else int(found.counts[at])
        table.add_row(f"  {name}", f"{pairs:,}", *_cells(found, at))
    return table


def leads_table(scores: Scores, window: str, scaling: Scaling) -> Table:
    """A row for each lead, of one window."""
    table = _table("lead", "forecasts")
    found = scores.figures(window, scaling)
    for at, lead in enumerate(found.leads):
        table.add_row(f"  {lead}", f"{found.counts[at]:,}", *_cells(found, at))
    return table


def worst_table(worst: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each series."""
    table = _table("series", "forecasts")
    for one in worst:
        table.add_row(f"  {one['series']}", f"{one['count']:,}", *(_cell(one[name], name) for name in HEADINGS))
    return table


def print_whole(console: Console, table: Table) -> None:
    """Print a table so wide that no number is cut, on a narrow terminal too."""
    width = console.width
    console.width = max(width, Measurement.get(console, console.options.update(width=WIDEST), table).maximum)
    console.print(table)
    console.width = width


def quantiles_line(quantiles: Mapping[str, float | None]) -> Text:
    """The quantiles of skill over the series."""
    line = Text("  ")
    for name, value in quantiles.items():
        line.append(f"{name} ", style="dim").append(f"{_cell(value, 'skill_persistence')}   ")
    return line


def daily_line(daily: Mapping[int, float], width: int) -> Text:
    """The skill of each of the newest days as a sign, with the first and the last day."""
    known = [day for day, skill in daily.items() if math.isfinite(skill)]
    if not known:
        return Text("  by day   no day is complete yet", style="dim")
    last = max(known)
    days = range(max(min(known), last - min(MOST_DAYS, width - 36) + 1), last + 1)
    line = Text("  by day   ", no_wrap=True, overflow="ellipsis").append(f"{day_text(days[0])} ", style="dim")
    line.append_text(sparkline([daily.get(day, math.nan) for day in days]))
    return line.append(f" {day_text(last)}", style="dim")


def sparkline(values: Sequence[float]) -> Text:
    """A sign for each skill between 0 and 1; one below 0, where the reference was better, is red."""
    line = Text()
    for value in values:
        if not math.isfinite(value):
            line.append(" ")
        elif value < 0:
            line.append(SIGNS[0], style="red")
        else:
            line.append(SIGNS[min(len(SIGNS) - 1, int(value * len(SIGNS)))], style="cyan")
    return line


def bar(share: float, room: int) -> str:
    """A bar from 0 to 1 in eighths of a sign; nothing where there is no number, or none above 0."""
    if not math.isfinite(share) or share <= 0:
        return ""
    whole, part = divmod(round(min(1.0, share) * room * 8), 8)
    return "█" * whole + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[part]


def drift_table(told: Told) -> Table:
    """A row for each detector: how near it is to its threshold, and how often it was there."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("  detector")
    for heading in ("statistic", "threshold", "drifts"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name, (value, limit) in told.statistics.items():
        share = value / limit if limit else math.nan
        table.add_row(
            f"  {name}",
            f"{value:.3g}",
            "learns" if limit is None else f"{limit:.3g}",
            f"{told.counts.get(name, 0)}",
            Text(bar(share, BAR), style="red" if share >= 1 else "cyan"),
        )
    return table


def newest_drifts(told: Told) -> Table:
    """The newest drifts, the newest first: when, by what, and the sentence."""
    return _told(
        (moment_words(one.time_ms), f"{one.drift.detector}, version {one.version}: {one.drift.words}")
        for one in reversed(told.found[-NEWEST_DRIFTS:])
    )


def waiting(report: Report) -> Table:
    """The requests that wait, oldest first: since when, what for, and why."""
    return _told(
        (moment_words(one.created_ms), f"{one.goal}, because of {one.trigger}: {one.why}") for one in report.requests
    )


def trend_line(words: str) -> Table:
    """How skill moves."""
    return _told([("trend  ", f"over 30d: {words}")])


def title(text: str, note: str = "") -> RenderableType:
    """A heading, and what is said beside it."""
    return Text.assemble((text, "bold"), (f"  {note}" if note else "", "dim"))


def _table(first: str, second: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(f"  {first}", vertical="bottom", no_wrap=True)
    for heading in (second, *HEADINGS.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _told(lines: Iterable[tuple[str, str]]) -> Table:
    """A line each; what does not fit goes on under where it began."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, words in lines:
        table.add_row(f"  {name}", Text(words))
    return table


def _cells(found: Figures, at: int) -> list[str]:
    values = measures(found, at)
    return [_cell(values[name], name) for name in HEADINGS]


def _cell(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    sign, size = "+" if name == "bias" or name.startswith("skill") else "", abs(value)
    if size >= HUGE:
        return f"{value:{sign}.1e}"
    if name in RATIOS:
        return f"{value:{RATIOS[name]}}"
    if size >= LARGE:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.3f}" if size >= SMALL or size == 0 else f"{value:{sign}.1e}"
