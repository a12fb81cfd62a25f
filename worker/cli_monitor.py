"""`killick monitor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from worker.session import Session


@click.command()
@click.option(
    "--leave",
    is_flag=True,
    help="Run nothing: let blocks be trimmed that no monitor has counted or archived yet, as none will run.",
)
@click.pass_obj
def monitor(session: Session, leave: bool) -> None:
    """Watch skill and drift: count every pair, export it, ask for retraining, move old blocks to the archive.

    Start as many as you like: one leads, the others take over when it falls silent. Stops on SIGTERM or Ctrl-C.
    """
    settings = session.settings()
    if leave:
        from worker import wiring

        client = wiring.redis_client(settings)
        left = wiring.leave_ledgers(settings, client)
        client.close()
        click.echo(f"the ledgers of {left} partitions wait for no monitor now; the next one that starts asks again")
        return
    from worker.monitor import serve

    serve(settings)
