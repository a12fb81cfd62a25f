"""The demo's page on a terminal: the stream, skill, forecasts, drift, updating, events."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from models.times import rfc3339
from worker.demo_scene import Event, Scene, shown_leads
from worker.demo_story import on_trial, steps
from worker.skill_view import bar, sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType

TOP_ROWS = 9
SMALL_ROWS = 2  # lines that are kept for small gaps
SIDE_BY_SIDE = 98  # columns in which forecasts and drift fit beside each other
DETECTORS = ("adwin", "page_hinkley", "ks", "psi")
TRENDS = {-1: "skill falls", 0: "skill steady", 1: "skill rises"}
STYLES = {"plain": "", "good": "green", "bad": "yellow"}
STAGES = {
    "starting": "starting the servers",
    "fitting": "fitting the first version",
    "streaming": "streaming",
    "closing": "closing",
    "done": "done",
}


def page(scene: Scene, now_s: float, width: int, height: int) -> RenderableType:
    """The whole page, `height` lines of it."""
    parts: list[RenderableType] = [_title(scene, now_s, width)]
    if scene.stage in ("starting", "fitting"):
        waiting = [f"producer  {scene.feed_note or 'not started'}", f"consumer  {scene.consumer_note or 'starting'}"]
        parts.append(_panel("who waits", waiting))
        rows = height - 1 - len(waiting) - 2 - 2
        lines = _calm(scene.fit_lines)[-rows:]
        parts.append(_panel("killick fit, on the first eight weeks", lines + [""] * (rows - len(lines))))
        return Group(*parts)
    top = Table.grid(expand=True)
    top.add_column(ratio=10)
    top.add_column(ratio=11)
    skill = _panel(_skill_heading(scene, width), _skill(scene, width))
    top.add_row(_panel("the stream", _numbers(scene, now_s)), skill)
    forecasts = _panel("newest forecasts, °F", _forecasts(scene))
    rows = len(scene.latest) + 3
    parts += [top, _weeks(scene, width)]
    if width >= SIDE_BY_SIDE:
        rows = max(rows, len(DETECTORS) + 3)
        beside = Table.grid(expand=True)
        beside.add_column()
        beside.add_column(ratio=1)
        forecasts.height = rows
        beside.add_row(forecasts, _panel("drift", _drift(scene)))
        parts += [beside, _updating(scene, width)]
        rows += len(steps(scene)) + 2
    else:
        told = scene.updating is not None and (scene.updating.waiting or scene.updating.verdicts)
        parts += [_updating(scene, width) if told else forecasts, _drift_line(scene)]
        rows = (len(steps(scene)) + 2 if told else rows) + 1
    room = height - 1 - (TOP_ROWS + 2) - 1 - rows - 2
    if room > 0:
        events = [
            Text(f"{event.at}  {event.text}" if event.at else event.text, style=STYLES[event.mood])
            for event in _notable(scene.events, room)
        ]
        parts.append(_panel("events", events + [Text("")] * (room - len(events))))
    return Group(*parts)


def _notable(events: list[Event], room: int) -> list[Event]:
    """The newest events for `room` lines; small gaps only take the lines that are left, or the last ones."""
    small = [i for i, event in enumerate(events) if event.at and event.mood == "plain"]
    others = sorted(set(range(len(events))) - set(small))[-max(1, room - SMALL_ROWS) :]
    left = room - len(others)
    return [events[i] for i in sorted([*small[len(small) - min(left, len(small)) :], *others])]


def _calm(lines: list[str]) -> list[str]:
    """The lines of a fit with only the newest line of its progress."""
    progress = [i for i, line in enumerate(lines) if line.startswith("training: ")]
    dropped = set(progress[:-1])
    return [line for i, line in enumerate(lines) if i not in dropped]


def _panel(title: str, lines: RenderableType | list[Any]) -> Panel:
    if isinstance(lines, list):
        texts = [line if isinstance(line, Text) else Text(line) for line in lines]
        for text in texts:
            text.no_wrap, text.overflow = True, "ellipsis"
        lines = Group(*texts)
    return Panel(lines, title=title, title_align="left", border_style="dim", padding=(0, 1))


def _title(scene: Scene, now_s: float, width: int) -> RenderableType:
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(
        Text.assemble(("killick demo", "bold"), f"  {_doing(scene)}"),
        ProgressBar(total=1.0, completed=scene.share, width=None if width > 60 else 10),
        f"{day_of(scene)}  {now_s - scene.began_s:4.0f} s",
    )
    return line


def _doing(scene: Scene) -> str:
    if scene.stage == "streaming" and scene.feed_note:
        return f"waits: {scene.feed_note}"
    return STAGES[scene.stage]


def _numbers(scene: Scene, now_s: float) -> RenderableType:
    refused = sum(scene.refused.values())
    rows = [
        ("sent", f"{scene.sent:,} of {scene.total:,}"),
        ("forecast", f"{scene.count('forecasts'):,} by {_answering(scene)}"),
        ("producer", _producer(scene, now_s)),
        ("lag", f"{scene.lag:,}; of the monitor {scene.behind:,}"),
        ("pairs", f"{scene.count('pairs'):,}"),
        ("gaps", f"{scene.count('gaps_bridged'):,} bridged, {scene.count('series_resets'):,} resets"),
        ("duplicates", f"{scene.count('duplicates'):,} dropped"),
        ("refused", f"{refused:,}; {scene.letters:,} dead letters"),
        ("consumer", scene.consumer_note or _running(scene)),
    ]
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        table.add_row(*row)
    return table


def _producer(scene: Scene, now_s: float) -> str:
    if scene.feed_note and scene.stage == "streaming":
        return "waits"
    return f"{scene.rate(now_s):,.0f} a second{', slower for the trial' if on_trial(scene) else ''}"


def _answering(scene: Scene) -> str:
    """Who answers now, and who reads along."""
    versions = sorted(set(scene.answering)) or scene.versions
    return ", ".join(
        [f"version {' and '.join(map(str, versions))}", *(f"shadow {version}" for version in sorted(scene.shadows))]
    )


def _running(scene: Scene) -> str:
    return f"runs; killed once, {scene.again:,} sent again" if scene.kills else "runs"


def _skill_heading(scene: Scene, width: int) -> str:
    found = scene.beside()
    against = "skill against persistence" if width >= SIDE_BY_SIDE else "skill"
    if found is None:
        return f"{against}: so far, 30 days"
    return f"{against}: version {found.before}, {found.after}"


def _skill(scene: Scene, width: int) -> RenderableType:
    """Skill so far and of 30 days; once two versions ran side by side, that of both on the same pairs."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(style="dim", no_wrap=True, justify="right")
    table.add_column(no_wrap=True, ratio=1)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, justify="right")
    room, found = max(8, width // 2 - 26), scene.beside()
    for lead in (*shown_leads(scene.horizon), None):
        name, style = (f"{lead} h", "") if lead is not None else ("all", "bold")
        if found is None:
            length, other = scene.skill(lead=lead), scene.skill(lead=lead, window="30d")
            columns = Text(signed(length), style=style), Text(signed(other), style="dim")
        else:
            former, length = found.skill(lead)
            columns = Text(signed(former), style="dim"), Text(signed(length), style=style)
        table.add_row(name, Text(bar(length, room), style="cyan"), *columns)
    if found is None:
        seasonal = [signed(scene.skill("seasonal", window=window)) for window in ("life", "30d")]
        table.add_row("", Text("against seasonal", style="dim"), *seasonal)
    else:
        table.add_row("", Text(f"both on {found.days} days", style="dim"), "", "")
    return table


def _weeks(scene: Scene, width: int) -> Text:
    """One sign a week; a week in which persistence was the better one is red."""
    line = Text(" skill by week ", style="dim", no_wrap=True, overflow="ellipsis")
    return line.append_text(sparkline(scene.weeks()[-(width - 24) :]))


def _drift(scene: Scene) -> RenderableType:
    """How near each detector is to its threshold, how often it was there, and where skill is going."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, ratio=1)
    table.add_column(no_wrap=True, justify="right")
    for name in DETECTORS:
        share, found = _nearness(scene, name)
        state = f"{found} drift{'s' * (found != 1)}" if found else "quiet" if math.isfinite(share) else "learns"
        table.add_row(name, Text(bar(share, 10), style="red" if share >= 1 else "cyan"), state)
    table.add_row("30 days", *_trend(scene))
    return table


def _nearness(scene: Scene, name: str) -> tuple[float, int]:
    """A detector's statistic over its threshold, NaN where one is not known yet; and how many drifts it found."""
    if scene.report is None:
        return math.nan, 0
    value, limit = scene.report.told.statistics.get(name, (math.nan, None))
    return value / limit if limit else math.nan, scene.report.told.counts.get(name, 0)


def _trend(scene: Scene) -> tuple[str, str]:
    """Where the skill of the last 30 days is going, and by how much a day."""
    trend = scene.report.told.trends.get("30d") if scene.report is not None else None
    if trend is None or not math.isfinite(trend.slope):
        return "-", ""
    return TRENDS[trend.direction], f"{trend.slope:+.3f}/d"


def _drift_line(scene: Scene) -> Text:
    """The same on one line."""
    line = Text(" drift ", style="dim", no_wrap=True, overflow="ellipsis")
    for name in DETECTORS:
        share, found = _nearness(scene, name)
        line.append(f"{name} ", style="dim").append_text(sparkline([share])).append(f" {found}   ")
    return line.append(_trend(scene)[0], style="dim")


def _updating(scene: Scene, width: int) -> Panel:
    """The steps of updating, a line each; the bar is how much of the training is done."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    progress = scene.updating.progress if scene.updating is not None else None
    for name, words in steps(scene):
        line = Text(words, no_wrap=True, overflow="ellipsis")
        if name == "training" and progress is not None:
            room = min(30, width // 4)
            line = Text(f"{bar(progress.done / max(1, progress.total), room):<{room}} ", style="cyan").append_text(line)
        table.add_row(name, line)
    return _panel("updating", table)


def _forecasts(scene: Scene) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    leads = [k for k in (1, 3, 6, 12, 24) if k <= scene.horizon]
    for heading in ("", "issued at", "now", *(f"+{k} h" for k in leads)):
        table.add_column(heading, justify="right" if heading not in ("", "issued at") else "left", no_wrap=True)
    table.add_row("", *(Text(str(column.header), style="dim") for column in table.columns[1:]))
    for series, latest in sorted(scene.latest.items()):
        values = [latest.values[k - 1] for k in leads]
        table.add_row(
            series,
            latest.issued_at[:16],
            f"{scene.values.get(series, math.nan):.0f}",
            *(f"{value:.0f}" if value is not None else "-" for value in values),
        )
    return table


def day_of(scene: Scene) -> str:
    """The day of the newest observation that was forecast."""
    return rfc3339(max(scene.now_ms, scene.first_ms))[:10] if scene.first_ms else ""


def signed(value: float) -> str:
    """A skill with its sign; a dash where there is none."""
    return f"{value:+.2f}" if math.isfinite(value) else "-"
