"""Commands on the running stream: `killick consumer`, `status`, `versions`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import DataError

if TYPE_CHECKING:
    from models.registry import VersionInfo
    from worker.session import Session

SHORT = 12  # characters of a digest


@click.command()
@click.option(
    "--accept-gap",
    is_flag=True,
    help="Go on although Redis lost everything: from the group's offset, state from zero.",
)
@click.pass_obj
def consumer(session: Session, accept_gap: bool) -> None:
    """Read observations, answer each with a forecast, keep the pairs. Stops on SIGTERM or Ctrl-C."""
    from worker.consumer import serve

    serve(session.settings(), accept_gap=accept_gap)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def status(session: Session, as_json: bool) -> None:
    """Who answers in each partition, how far it is, and what was counted."""
    from worker import wiring

    settings = session.settings()
    client = wiring.redis_client(settings)
    aliases = wiring.registry(settings, client).aliases()
    partitions = []
    for ledger in wiring.ledgers(settings, client):
        head = ledger.head()
        if head is not None:
            running = [seat for seat in ledger.roster() if seat.leave_offset is None]
            partitions.append(
                {
                    "partition": ledger.partition,
                    "incumbent": next((seat.version for seat in running if seat.role == "incumbent"), None),
                    "since_offset": next((seat.join_offset for seat in running if seat.role == "incumbent"), None),
                    "shadows": [seat.version for seat in running if seat.role == "shadow"],
                    "next_offset": head.next,
                    "published": head.mark,
                    "series": ledger.series_count(),
                    "counters": ledger.counters(),
                }
            )
    client.close()
    body = {"model": settings.model.name, "incumbent": aliases.incumbent, "candidate": aliases.candidate,
            "previous": aliases.previous, "generation": aliases.generation, "partitions": partitions}  # fmt: skip
    click.echo(json.dumps(body, indent=2) if as_json else _describe(body))


def _describe(body: dict[str, Any]) -> str:
    lines = [
        f"model {body['model']}: " + (f"version {body['incumbent']} answers" if body["incumbent"] else "no version")
    ]
    if not body["incumbent"]:
        lines.append("fit one: `killick fit FILE`")
    if not body["partitions"]:
        lines.append("no consumer has run yet: `killick consumer`")
    else:
        lines.append(f"{'partition':>9} {'version':>7} {'since':>10} {'next':>10} {'published':>10} {'series':>8} "
                     f"{'forecasts':>10} {'pairs':>10} {'refused':>8}")  # fmt: skip
    for part in body["partitions"]:
        counters = part["counters"]
        refused = sum(amount for name, amount in counters.items() if name.startswith("refused."))
        lines.append(
            f"{part['partition']:>9} {part['incumbent'] or '-':>7} {part['since_offset'] or 0:>10} "
            f"{part['next_offset']:>10} {part['published']:>10} {part['series']:>8} "
            f"{counters.get('forecasts', 0):>10} {counters.get('pairs', 0):>10} {refused:>8}"
        )
    return "\n".join(lines)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per version.")
@click.pass_context
def versions(ctx: click.Context, as_json: bool) -> None:
    """List the versions of the model; `export` writes one to files."""
    if ctx.invoked_subcommand is not None:
        return
    from models.times import rfc3339
    from worker import wiring

    settings = ctx.obj.settings()
    client = wiring.redis_client(settings)
    registry = wiring.registry(settings, client)
    aliases, found = registry.aliases(), registry.versions()
    client.close()
    roles = {aliases.incumbent: "incumbent", aliases.candidate: "candidate", aliases.previous: "previous"}
    if not found and not as_json:
        click.echo(f"model {settings.model.name!r} has no version: fit one with `killick fit FILE`")
    for info in found:
        role = roles.get(info.version, "")
        if as_json:
            click.echo(json.dumps(_as_json(info, role)))
        else:
            parent = f"from {info.parent}" if info.parent else ""
            click.echo(f"{info.version:>4}  {role:<10} {rfc3339(info.created_ms)}  {info.weights_sha256[:SHORT]}  "
                       f"{info.actor}: {info.reason} {parent}".rstrip())  # fmt: skip


def _as_json(info: VersionInfo, role: str) -> dict[str, Any]:
    import msgspec

    return {**msgspec.to_builtins(info), "role": role}


@versions.command()
@click.argument("version", type=int)
@click.option("--out", "folder", type=click.Path(), required=True, help="Folder to write to; made if it is not there.")
@click.pass_obj
def export(session: Session, version: int, folder: str) -> None:
    """Write architecture.json and weights.safetensors of VERSION."""
    from worker import wiring

    settings = session.settings()
    client = wiring.redis_client(settings)
    architecture, weights, _ = wiring.registry(settings, client).load(version)
    client.close()
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
