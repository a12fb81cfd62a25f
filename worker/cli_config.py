"""`killick config init|check|show|schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumers.messages import KINDS, message_schema
from models.errors import ConfigError
from worker import settings_text
from worker.settings import Settings
from worker.settings_reading import DEFAULT_FILE

if TYPE_CHECKING:
    from worker.session import Session


@click.group()
def config() -> None:
    """Write, check and show the settings."""


@config.command()
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.pass_obj
def init(session: Session, force: bool) -> None:
    """Write a settings file of the defaults, every setting explained.

    It goes to ./killick.toml, or to the FILE of `killick --config FILE config init`.
    """
    path = Path(session.config or DEFAULT_FILE)
    if path.exists() and not force:
        raise ConfigError(f"{str(path)!r} is there already", "add --force to write over it")
    try:
        path.write_text(settings_text.fresh_file(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{str(path)!r} can't be written ({error.strerror})", "choose another with --config"
        ) from error
    click.echo(f"wrote {path}: set model.features, model.target and model.interval, then run `killick doctor`")


@config.command()
@click.pass_obj
def check(session: Session) -> None:
    """Say whether the settings can be used, and if not, everything that is wrong."""
    loaded = session.load()
    settings = loaded.settings
    settings.kafka_security()
    settings.redis_password()
    settings.architecture(gain=(1.0,) * settings.model.horizon)
    click.echo(f"OK: model {settings.model.name!r}, {loaded.path or 'no file: defaults and environment'}")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array of setting, value, origin, variable.")
@click.pass_obj
def show(session: Session, as_json: bool) -> None:
    """Show the settings in force, and whether each is a default, from the file or from the environment."""
    loaded = session.load()
    if as_json:
        click.echo(json.dumps(settings_text.in_force_rows(loaded), ensure_ascii=False, indent=2))
    else:
        click.echo(settings_text.in_force(loaded))


@config.command()
@click.argument("kind", type=click.Choice(["settings", *KINDS]), default="settings")
def schema(kind: str) -> None:
    """Print the JSON Schema of the settings or of a message."""
    body = Settings.model_json_schema() if kind == "settings" else message_schema(kind)
    click.echo(json.dumps(body, ensure_ascii=False, indent=2))
