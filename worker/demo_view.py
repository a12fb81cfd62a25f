"""How the demo looks: a live view on a terminal, plain lines elsewhere, and what is said at its end."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from models.times import rfc3339
from worker.demo_scene import Event, Scene, shown_leads
from worker.skill_view import bar, sparkline

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType

STATUS_EVERY_S = 5.0
FIT_EVERY = 10  # epochs between two lines
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


class View(Protocol):
    """Shows scenes as they come."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, scene: Scene) -> None:
        """Show what is new."""


class PlainView:
    """A line for each event, and one now and then on how it stands."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._events = self._fit = 0
        self._stage = ""
        self._said_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, scene: Scene) -> None:
        """Print what is new."""
        now_s = time.monotonic()
        if scene.stage != self._stage:
            self._stage = scene.stage
            self._print(scene, STAGES[scene.stage])
        for line in scene.fit_lines[self._fit :]:
            if _worth_a_line(line):
                print(f"  fit | {line}", file=self._stream, flush=True)
        self._fit = len(scene.fit_lines)
        for event in scene.events[self._events :]:
            self._print(scene, f"{event.at}  {event.text}" if event.at else event.text)
        self._events = len(scene.events)
        if scene.stage == "streaming" and now_s - self._said_s > STATUS_EVERY_S:
            self._said_s = now_s
            self._print(scene, _status(scene, now_s))

    def _print(self, scene: Scene, text: str) -> None:
        print(f"{time.monotonic() - scene.began_s:5.1f} s  {text}", file=self._stream, flush=True)


def _worth_a_line(line: str) -> bool:
    epoch = line.removeprefix("training: ").split(" ", 1)[0]
    return not line.startswith("training: ") or (epoch.isdigit() and int(epoch) % FIT_EVERY == 0)


def _status(scene: Scene, now_s: float) -> str:
    return (
        f"{_day(scene)}: {scene.sent:,} of {scene.total:,} sent, {scene.count('forecasts'):,} forecast "
        f"({scene.rate(now_s):,.0f}/s), lag {scene.lag:,}, of the monitor {scene.behind:,}, "
        f"skill {_signed(scene.skill())}"
    )


class LiveView:
    """A page that is drawn anew a few times a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, scene: Scene) -> None:
        """Draw the page."""
        now_s = time.monotonic()
        self._live.update(page(scene, now_s, self._console.width, self._console.height - 1), refresh=True)


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
    heading = "skill against persistence: so far, 30 days" if width >= SIDE_BY_SIDE else "skill: so far, 30 days"
    skill = _panel(heading, _skill(scene, width))
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
        parts.append(beside)
    else:
        parts += [forecasts, _drift_line(scene)]
        rows += 1
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
        Text.assemble(("killick demo", "bold"), f"  {STAGES[scene.stage]}"),
        ProgressBar(total=1.0, completed=scene.share, width=None if width > 60 else 10),
        f"{_day(scene)}  {now_s - scene.began_s:4.0f} s",
    )
    return line


def _numbers(scene: Scene, now_s: float) -> RenderableType:
    refused = sum(scene.refused.values())
    version = f"version {scene.versions[-1]}" if scene.versions else "no version"
    rows = [
        ("sent", f"{scene.sent:,} of {scene.total:,}"),
        ("forecast", f"{scene.count('forecasts'):,} by {version}"),
        ("rate", f"{scene.rate(now_s):,.0f} a second"),
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


def _running(scene: Scene) -> str:
    return f"runs; killed once, {scene.again:,} sent again" if scene.kills else "runs"


def _skill(scene: Scene, width: int) -> RenderableType:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(style="dim", no_wrap=True, justify="right")
    table.add_column(no_wrap=True, ratio=1)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(style="dim", no_wrap=True, justify="right")
    room = max(8, width // 2 - 26)
    for lead in (*shown_leads(scene.horizon), None):
        value, newest = scene.skill(lead=lead), scene.skill(lead=lead, window="30d")
        name, style = (f"{lead} h", "") if lead is not None else ("all", "bold")
        table.add_row(name, Text(bar(value, room), style="cyan"), Text(_signed(value), style=style), _signed(newest))
    seasonal = [_signed(scene.skill("seasonal", window=window)) for window in ("life", "30d")]
    table.add_row("", Text("against seasonal", style="dim"), *seasonal)
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


def _day(scene: Scene) -> str:
    return rfc3339(max(scene.now_ms, scene.first_ms))[:10] if scene.first_ms else ""


def _signed(value: float) -> str:
    return f"{value:+.2f}" if math.isfinite(value) else "-"


def summary(scene: Scene, seconds: float) -> str:
    """What happened, in a few lines, and what to do next."""
    accepted, repeated, refused = scene.count("observations"), scene.count("duplicates"), sum(scene.refused.values())
    same = f"{scene.differing:,} WITH OTHER BYTES" if scene.differing else "all with the same bytes"
    facts = {
        "nothing lost": f"{scene.sent:,} sent = {accepted:,} accepted + {repeated} duplicate + {refused} refused",
        "nothing twice": f"{scene.read:,} forecasts published; after the kill {scene.again:,} came again, {same}",
        "gaps": f"{scene.count('gaps_bridged')} bridged; {scene.count('series_resets')} too long: a series began anew",
    }
    if scene.scores is not None:
        leads = ", ".join(f"{k} h {_signed(scene.skill(lead=k))}" for k in shown_leads(scene.horizon))
        against, seasonal = (_signed(scene.skill(reference)) for reference in ("persistence", "seasonal"))
        facts["skill"] = f"{against} against persistence, {seasonal} against seasonal naive"
        facts["by lead"] = leads
    if scene.report is not None:
        told = scene.report.told
        found = ", ".join(f"{name} {count}" for name, count in told.counts.items() if count) or "none found"
        facts["drift"] = f"{found}; {told.trends['30d'].words}" if "30d" in told.trends else found
    head = (
        f"{accepted:,} observations at {scene.series} airports, each answered with a forecast "
        f"of {scene.horizon} hours, in {seconds:.0f} s"
    )
    lines = ["", head, *(f"  {name:<13}  {fact}" for name, fact in facts.items())]
    return "\n".join([*lines, "", *NEXT])


NEXT = (
    "Next, with a Kafka and a Redis of your own:",
    "  killick config init             write killick.toml: name features, target, interval",
    "  killick doctor --create-topics  check settings, services and this machine",
    "  killick fit FILE                train the first version on your history",
    "  killick consumer                forecast, as long as it runs",
    "  killick monitor                 watch skill and drift, beside it",
    "  killick skill                   look at them",
    "  killick produce FILE            send recorded observations to try it",
)
