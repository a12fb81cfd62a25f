"""`killick demo`."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import click

from worker.cli_history import Speed

if TYPE_CHECKING:
    from types import FrameType

    from worker.session import Session

LEAST_WIDTH, LEAST_HEIGHT = 72, 24  # of a terminal for the live view
TERMINATED = 128 + signal.SIGTERM


@click.command()
@click.option(
    "--speed",
    type=Speed(),
    metavar="X",
    default="604800",
    help="Multiple of the weather's own pace, or max: as fast as it goes. Without it 604800, a week a second.",
)
@click.option("--headless", is_flag=True, help="Plain lines instead of the live view, on a terminal too.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Headless, with the lines on standard error and one line of JSON at the end on standard output.",
)
@click.pass_obj
def demo(session: Session, speed: float | None, headless: bool, as_json: bool) -> None:
    """Weather at three New York airports: fit, stream, drift, retrain, promote, roll back. About two minutes.

    Starts a broker (Tansu) and a store (Valkey) that keep nothing, fits a first version on the first eight weeks of
    2013, and streams the rest of the year through the real producer and consumer. When the season turns, drift asks
    for an update: candidates are trained and judged, the better one proves itself beside the first version and is
    promoted; near the end it is rolled back by hand. On the way four bad records are sent and the consumer is killed
    once. While candidates are trained the producer waits: a year passes in a minute here. Leaves nothing behind.

    Network and settings were chosen with a look at this very year: the skill shows that the parts work together. Where
    the evidence does not justify a promotion, the demo says so.
    Neither a settings file nor KILLICK_ variables are read: it can't touch services of yours.
    """
    from rich.console import Console

    from worker import logs
    from worker.demo import run
    from worker.demo_view import WIDE, LiveView, PlainView, summary

    logs.configure(session.log_level or "ERROR", "text", sys.stderr)
    console = Console()
    roomy = console.width >= LEAST_WIDTH and console.height >= LEAST_HEIGHT and not console.is_dumb_terminal
    live = sys.stdout.isatty() and roomy and not headless and not as_json
    _end_in_order()
    view = LiveView(console) if live else PlainView(sys.stderr if as_json else sys.stdout)
    scene, seconds = run(view, speed)
    if as_json:
        click.echo(json.dumps(scene.result(seconds)))
    else:
        click.echo(summary(scene, seconds, console.width if sys.stdout.isatty() else WIDE))


def _end_in_order() -> None:
    """Let the first SIGINT or SIGTERM end this process by an exception, and nothing disturb its cleaning up."""

    def end(number: int, _frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(TERMINATED)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
