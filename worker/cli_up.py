"""`killick up`: all processes of killick on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from worker.session import Session

MOST_CONSUMERS = 256
MOST_RETRAINERS = 16


@click.command()
@click.option(
    "--consumers",
    type=click.IntRange(0, MOST_CONSUMERS),
    default=1,
    show_default=True,
    metavar="N",
    help="How many consumers; the first at http.port, each further one at the next port that none of them has.",
)
@click.option("--monitor/--no-monitor", default=True, help="With the drift monitor, at monitor.port, or without it.")
@click.option(
    "--retrainers",
    type=click.IntRange(0, MOST_RETRAINERS),
    default=1,
    show_default=True,
    metavar="N",
    help="How many retrainers, from retraining.port on: one is at work at a time.",
)
@click.option(
    "--api/--no-api",
    default=None,
    help="With the HTTP API, at api.port, or without it; if nothing is said, with it where it has a token.",
)
@click.option(
    "--targets",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write there where the metrics are, as Prometheus reads it (file_sd_configs): consumers.yml and its like.",
)
@click.pass_context
def up(
    ctx: click.Context, consumers: int, monitor: bool, retrainers: int, api: bool | None, targets: Path | None
) -> None:
    """Run the processes of killick here, until SIGTERM or Ctrl-C.

    Their lines come out together, each under the name of its process. One that crashes is started again, after 1 s,
    2 s, … 60 s; one that refuses its settings (exit code 2) ends them all. A second Ctrl-C does not wait for them.

    Exit code: 0 all ended in order, 1 one had to be killed, 2 one refused its settings.
    """
    from worker.up import serve

    session: Session = ctx.obj
    settings = session.settings()
    words = [sys.executable, "-m", "worker.cli"]
    words += ["--config", session.config] if session.config else []
    words += ["--log-level", session.log_level] if session.log_level else []
    served = bool(settings.api_token()) if api is None else api
    counts = {"api": int(served), "consumer": consumers, "monitor": int(monitor), "retrainer": retrainers}
    if not any(counts.values()):
        raise click.UsageError("nothing is left to run: choose at least one process")
    ctx.exit(0 if serve(settings, counts, words, targets) else 1)
