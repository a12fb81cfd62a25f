"""Commands on versions: `killick versions`, `promote`, `rollback`, `pause`, `resume`, `audit`."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import DataError, ServiceUnreachable, StaleCommand, VersionError
from worker.actor import this_actor
from worker.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models.registry import Aliases, Registry
    from models.server import Client
    from worker.session import Session
    from worker.settings import Settings
    from worker.standing import Following

SHORT = 12  # characters of a digest
NO_CONSUMER = "no consumer is running: the partitions will follow when one starts (`killick consumer`)"


def of_change(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that say who changes something, and why."""
    command = click.option("--actor", metavar="NAME", help="Who asks for it; without it user@host.")(command)
    return click.option("--reason", metavar="TEXT", required=True, help="Why; it goes into the audit.")(command)


def of_swap(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options of a change of the incumbent."""
    for option in (
        click.option("--timeout", metavar="TIME", default="60s", show_default=True, help="Longest wait."),
        click.option("--no-wait", is_flag=True, help="Don't wait until the partitions follow."),
        click.option(
            "--expected",
            metavar="V",
            type=click.IntRange(min=1),
            help="The version that answers now, as you believe; another one is refused. Without it whoever does.",
        ),
    ):
        command = option(command)
    return of_change(command)


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@of_swap
@click.pass_obj
def promote(session: Session, /, version: int, reason: str, actor: str | None, **options: Any) -> int:
    """Let VERSION answer, in place of the version that answers now.

    Each partition spins it up beside the running one and changes over; the former version stays on as a shadow
    for the guard period, so that `killick rollback` is immediate.
    """
    return _swap(
        session,
        lambda registry, expected, by: registry.promote(version, expected=expected or 0, **by),
        _by(actor, reason),
        "version {} is the previous one",
        **options,
    )


@click.command()
@click.option("--to", metavar="V", type=click.IntRange(min=1), help="Version to go back to; without it the previous.")
@of_swap
@click.pass_obj
def rollback(session: Session, /, to: int | None, reason: str, actor: str | None, **options: Any) -> int:
    """Let the previous version answer again, and withdraw the one that answers now.

    Automatic promotion is paused until `killick resume`.
    """

    def change(registry: Registry, expected: int | None, by: dict[str, Any]) -> Aliases:
        if expected is None:
            raise VersionError(
                f"model {session.settings().model.name!r} has no version to roll back", "fit one: `killick fit FILE`"
            )
        return registry.rollback(to, expected=expected, **by)

    return _swap(session, change, _by(actor, reason), "version {} is withdrawn", **options)


@click.command()
@of_change
@click.pass_obj
def pause(session: Session, reason: str, actor: str | None) -> None:
    """Stop automatic promotion; people can promote all the same."""
    with opened(session) as (_, _, registry):
        registry.pause(**_by(actor, reason))
    click.echo("automatic promotion is paused until `killick resume`")


@click.command()
@of_change
@click.pass_obj
def resume(session: Session, reason: str, actor: str | None) -> None:
    """Let automatic promotion go on."""
    with opened(session) as (_, _, registry):
        registry.resume(**_by(actor, reason))
    click.echo("automatic promotion may go on")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per entry.")
@click.option("-n", "count", metavar="N", type=click.IntRange(min=1), help="The newest N only.")
@click.pass_obj
def audit(session: Session, as_json: bool, count: int | None) -> None:
    """Show who changed what, when, why, and from which version to which; oldest first."""
    from models.times import rfc3339
    from worker.version_report import entry_as_json

    with opened(session) as (settings, _, registry):
        found = registry.audit(count)
    if not found and not as_json:
        click.echo(f"nothing has happened to model {settings.model.name!r}: fit a version with `killick fit FILE`")
    for entry in found:
        if as_json:
            click.echo(json.dumps(entry_as_json(entry)))
            continue
        moved = f"{entry.before or 'none'} → {entry.after or 'none'}" if entry.before or entry.after else ""
        what = moved or (f"version {entry.version}" if entry.version else "")
        click.echo(f"{rfc3339(entry.time_ms):<24}  {entry.event:<9}  {what:<11}  {entry.actor}: {entry.reason}")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per version.")
@click.pass_context
def versions(ctx: click.Context, as_json: bool) -> None:
    """List the versions of the model; `export` writes one to files, `retire` bars one for good."""
    if ctx.invoked_subcommand is not None:
        return
    from models.times import rfc3339
    from worker.version_report import versions_as_json

    with opened(ctx.obj) as (settings, _, registry):
        found = versions_as_json(registry)
    if not found and not as_json:
        click.echo(f"model {settings.model.name!r} has no version: fit one with `killick fit FILE`")
    for info in found:
        if as_json:
            click.echo(json.dumps(info))
        else:
            parent = f"(from version {info['parent']})" if info["parent"] else ""
            role, made = info["role"] or info["status"], rfc3339(info["created_ms"])
            line = f"{info['version']:>4}  {role:<9}  {made:<24}  {info['weights_sha256'][:SHORT]}  "
            click.echo(line + f"{info['actor']}: {info['reason']} {parent}".rstrip())


@versions.command()
@click.argument("version", type=click.IntRange(min=1))
@click.option("--out", "folder", type=click.Path(), required=True, help="Folder to write to; made if it is not there.")
@click.pass_obj
def export(session: Session, version: int, folder: str) -> None:
    """Write architecture.json and weights.safetensors of VERSION."""
    with opened(session) as (_, _, registry):
        architecture, weights, _ = registry.load(version)
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / "architecture.json").write_bytes(architecture.to_json())
        (target / "weights.safetensors").write_bytes(weights)
    except OSError as error:
        raise DataError(
            f"version {version} can't be written to {folder!r} ({error})", "choose another --out"
        ) from error
    click.echo(f"version {version} is in {target}: architecture.json, weights.safetensors")


@versions.command()
@click.argument("version", type=click.IntRange(min=1))
@of_change
@click.pass_obj
def retire(session: Session, version: int, reason: str, actor: str | None) -> None:
    """Bar VERSION from ever being promoted; it stays in the registry, and can be exported."""
    with opened(session) as (_, _, registry):
        registry.retire(version, **_by(actor, reason))
    click.echo(f"version {version} is retired")


@contextmanager
def opened(session: Session) -> Iterator[tuple[Settings, Client, Registry]]:
    """The settings, a client, and the registry on it; the client is closed at the end."""
    from worker import wiring

    settings = session.settings()
    client = wiring.redis_client(settings)
    try:
        yield settings, client, wiring.registry(settings, client)
    finally:
        client.close()


def _by(actor: str | None, reason: str) -> dict[str, Any]:
    from worker.changes import by

    return by(actor or this_actor(), reason)


def _swap(
    session: Session,
    change: Callable[[Registry, int | None, dict[str, Any]], Aliases],
    by: dict[str, Any],
    done: str,
    *,
    expected: int | None,
    no_wait: bool,
    timeout: str,
) -> int:
    """The exit code: 0 when all partitions follow, or will when a consumer runs; 1 when one can't, or time ran out."""
    timeout_s = parse_duration(timeout).seconds
    with opened(session) as (settings, client, registry):
        former = expected if expected is not None else registry.aliases().incumbent
        try:
            aliases = change(registry, former, by)
        except ServiceUnreachable as error:
            cure = f"{error.cure}; `killick audit` says whether the change was made"
            raise ServiceUnreachable(error.message, cure) from error
        click.echo(
            f"version {aliases.incumbent} is the incumbent of model {settings.model.name!r}; {done.format(former)} "
            f"(generation {aliases.generation})"
        )
        if aliases.paused:
            click.echo("automatic promotion is paused until `killick resume`")
        _say_durable(client, registry)
        return 0 if no_wait else _wait(settings, client, registry, aliases, timeout_s)


def _say_durable(client: Client, registry: Registry) -> None:
    """Wait until the change is on the server's disk; a line where that can't be had."""
    from worker.changes import DISK_MS, Disk

    there = Disk(client, registry).reached()
    if there is None:
        click.echo(
            "this Redis can't say what is on its disk: a power cut may undo the change (`killick doctor`)", err=True
        )
    elif not there:
        click.echo(f"the change is not on Redis' disk after {DISK_MS / 1000:.0f} s: see its log", err=True)


def _wait(settings: Settings, client: Client, registry: Registry, aliases: Aliases, timeout_s: float) -> int:
    from worker import wiring
    from worker.progress import progress
    from worker.standing import Aside, following, wait_until_settled

    version = aliases.incumbent or 0
    ledgers = wiring.ledgers(settings, client)

    def look() -> Following:
        now = registry.aliases()
        if now.incumbent != version:
            raise StaleCommand(
                f"version {now.incumbent} answers by now, before all partitions had followed to {version}",
                "see `killick audit`",
            )
        return following(version, aliases.generation, ledgers)

    if not ledgers:
        click.echo(NO_CONSUMER)
        return 0
    began = time.monotonic()
    members = Aside(lambda: _members(settings))
    with progress("partitions that follow", len(ledgers), sys.stderr) as report:
        found = wait_until_settled(look, report, timeout_s=timeout_s, give_up=lambda: members.found() == 0)
    if not found.settled and members.found() == 0:
        click.echo(NO_CONSUMER)
        return 0
    for line in found.lines():
        click.echo(line)
    if found.diverged:
        click.echo("where it diverged the former version goes on answering: `killick rollback`, or repair what is said")
    elif not found.settled:
        click.echo(
            f"gave up waiting after {time.monotonic() - began:.0f} s; the change stands, and they follow as they come: "
            "`killick status` shows it"
        )
    return 0 if len(found.follow) == len(ledgers) else 1


def _members(settings: Settings) -> int | None:
    """How many consumers the model's group has; None where that can't be known."""
    from worker import wiring

    if settings.kafka.assignment == "manual":
        return None
    admin = wiring.admin(settings)
    try:
        return admin.members(settings.kafka_group)
    finally:
        admin.close()
