"""`killick api`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from worker.session import Session


@click.command()
@click.option("--openapi", is_flag=True, help="Serve nothing: print the OpenAPI document of this model's API.")
@click.pass_obj
def api(session: Session, openapi: bool) -> None:
    """Serve the HTTP API of the model, at http.host and api.port, to who bears the token.

    The token comes from KILLICK_API__TOKEN, or the file that api.token_file names; without one it does not start.
    Stops on SIGTERM or Ctrl-C, once what was asked is answered.
    """
    settings = session.settings()
    from worker.api import described, serve

    if openapi:
        click.echo(json.dumps(described(settings).openapi(), indent=2))
        return
    serve(settings)
