"""How the demo looks: a live view on a terminal, plain lines elsewhere, and what is said at its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from rich.live import Live

from worker.demo_page import STAGES, day_of, page, signed
from worker.demo_scene import shown_leads
from worker.demo_story import PAUSED, outcome

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from models.audit import AuditEntry
    from worker.demo_scene import Scene

STATUS_EVERY_S = 5.0
FIT_EVERY = 10  # epochs between two lines
WIDE = 10_000  # columns of what is no terminal


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
        self._trained = ""
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
        self._show_training(scene)
        if scene.stage == "streaming" and not self._trained and now_s - self._said_s > STATUS_EVERY_S:
            self._said_s = now_s
            self._print(scene, _status(scene, now_s))

    def _show_training(self, scene: Scene) -> None:
        now = scene.updating.progress if scene.updating is not None else None
        line = f"{now.done} of {now.total}: {now.note}" if now is not None else ""
        if line and line != self._trained:
            print(f"  retrainer | {line}", file=self._stream, flush=True)
        self._trained = line

    def _print(self, scene: Scene, text: str) -> None:
        print(f"{time.monotonic() - scene.began_s:5.1f} s  {text}", file=self._stream, flush=True)


def _worth_a_line(line: str) -> bool:
    epoch = line.removeprefix("training: ").split(" ", 1)[0]
    return not line.startswith("training: ") or (epoch.isdigit() and int(epoch) % FIT_EVERY == 0)


def _status(scene: Scene, now_s: float) -> str:
    return (
        f"{day_of(scene)}: {scene.sent:,} of {scene.total:,} sent, {scene.count('forecasts'):,} forecast "
        f"({scene.rate(now_s):,.0f}/s), lag {scene.lag:,}, of the monitor {scene.behind:,}, "
        f"skill {signed(scene.skill())}"
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


def summary(scene: Scene, seconds: float, width: int = WIDE) -> str:
    """What happened, in a few lines of a width, and what to do next."""
    accepted, repeated, refused = scene.count("observations"), scene.count("duplicates"), sum(scene.refused.values())
    same = f"{scene.differing:,} WITH OTHER BYTES" if scene.differing else "all with the same bytes"
    facts = {
        "nothing lost": f"{scene.sent:,} sent = {accepted:,} accepted + {repeated} duplicate + {refused} refused",
        "nothing twice": f"{scene.read:,} forecasts published; after the kill {scene.again:,} came again, {same}",
        "gaps": f"{scene.count('gaps_bridged')} bridged; {scene.count('series_resets')} too long: a series began anew",
    }
    if scene.scores is not None:
        leads = ", ".join(f"{k} h {signed(scene.skill(lead=k))}" for k in shown_leads(scene.horizon))
        against, seasonal = (signed(scene.skill(reference)) for reference in ("persistence", "seasonal"))
        facts["skill"] = f"{against} against persistence, {seasonal} against seasonal naive"
        facts["by lead"] = leads
    if scene.report is not None:
        told = scene.report.told
        found = ", ".join(f"{name} {count}" for name, count in told.counts.items() if count) or "none found"
        facts["drift"] = f"{found}; {told.trends['30d'].words}" if "30d" in told.trends else found
    verdicts = scene.updating.verdicts if scene.updating is not None else ()
    for verdict in reversed(verdicts):
        facts["verdict"] = f"{verdict.outcome}, after {len(verdict.attempts)} trainings in {verdict.seconds:.0f} s"
    facts["updating"] = outcome(scene)
    head = (
        f"{accepted:,} observations at {scene.series} airports, each answered with a forecast "
        f"of {scene.horizon} hours, in {seconds:.0f} s"
    )
    lines = ["", head, *(f"  {name:<13}  {fact}" for name, fact in facts.items()), "", "The audit:"]
    lines += [_cut(f"  {one.event:<9}  {_moved(one):<11}  {one.actor}: {one.reason}", width) for one in scene.audit]
    if scene.updating is not None and scene.updating.aliases.paused:
        lines.append(f"  {PAUSED}: so it is after a rollback")
    return "\n".join([*lines, "", *NEXT])


def _moved(entry: AuditEntry) -> str:
    """From which version to which, or which one it is about."""
    if entry.before or entry.after:
        return f"{entry.before or 'none'} → {entry.after or 'none'}"
    return f"version {entry.version}" if entry.version else ""


def _cut(line: str, width: int) -> str:
    """The line, cut with a mark where it is longer."""
    return line if len(line) <= width else f"{line[: width - 1]}…"


NEXT = (
    "Next, with a Kafka and a Redis of your own:",
    "  killick config init             write killick.toml: name features, target",
    "  killick doctor --create-topics  check settings, services and this machine",
    "  killick fit FILE                train the first version on your history",
    "  killick consumer                forecast, as long as it runs",
    "  killick monitor                 watch skill and drift, judge candidates live",
    "  killick retrainer               train candidates when a drift asks for them",
    "  killick skill                   look at skill; killick verdicts: at updates",
    "  killick produce FILE            send recorded observations to try it",
)
