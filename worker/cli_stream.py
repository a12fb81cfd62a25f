"""Commands on the running stream: `killick consumer`, `status`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from consumers.ledger import Ledger
    from worker.session import Session
    from worker.settings import Settings

LAG_S = 0.2  # how long Kafka has to say where its logs end


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
    """Who answers in each partition, how far it is, whether it follows the registry, and what was counted."""
    from worker.standing import Aside

    settings = session.settings()
    from consumers import kafka_admin  # noqa: F401 - imported before the time runs, as it takes a fifth of all

    log_ends = Aside(lambda: _log_ends(settings))
    from worker import wiring

    client = wiring.redis_client(settings)
    registry = wiring.registry(settings, client)
    aliases = registry.aliases()
    paused = str(registry.last("pause", "rollback") or "") if aliases.paused else ""
    partitions = [found for ledger in wiring.ledgers(settings, client) if (found := _look(ledger)) is not None]
    monitored = wiring.monitored(settings, client)
    client.close()
    ends = (log_ends.found(LAG_S) or {}) if partitions else {}
    for part in partitions:
        end = ends.get(part["partition"])
        part["lag"] = None if end is None else max(0, end - part["next_offset"])
        part["monitored"] = monitored.offsets[part["partition"]]
    body = {
        "model": settings.model.name,
        "incumbent": aliases.incumbent,
        "candidate": aliases.candidate,
        "previous": aliases.previous,
        "generation": aliases.generation,
        "paused": aliases.paused,
        "paused_why": paused,
        "monitor": monitored.runs,
        "partitions": partitions,
    }
    click.echo(json.dumps(body, indent=2) if as_json else _describe(body))


def _log_ends(settings: Settings) -> dict[int, int]:
    from worker import wiring

    admin = wiring.admin(settings)
    try:
        topic = settings.kafka.observations
        return admin.log_ends(topic, admin.partitions(topic) or 0, LAG_S)
    finally:
        admin.close()


def _look(ledger: Ledger) -> dict[str, Any] | None:
    from worker.standing import standing_of

    standing = standing_of(ledger)
    if standing is None:
        return None
    state, seat = standing.state, standing.incumbent
    return {
        "partition": standing.partition,
        "incumbent": seat.version if seat else None,
        "since_offset": seat.join_offset if seat else None,
        "shadows": standing.shadows,
        "generation": standing.generation,
        "state": state.kind if state else None,
        "state_version": state.version if state else None,
        "state_why": state.why if state else "",
        "next_offset": standing.head.next,
        "published": standing.head.mark,
        "series": ledger.series_count(),
        "counters": ledger.counters(),
    }


def _describe(body: dict[str, Any]) -> str:
    answers = f"version {body['incumbent']} answers" if body["incumbent"] else "no version answers yet"
    lines = [f"model {body['model']}: {answers}, generation {body['generation']}"]
    named = [f"{name} {body[name]}" for name in ("candidate", "previous") if body[name]]
    lines += [", ".join(named)] if named else []
    if body["paused"]:
        lines.append(f"automatic promotion is paused until `killick resume`: {body['paused_why']}")
    if not body["incumbent"]:
        lines.append("fit one: `killick fit FILE`")
    if not body["partitions"]:
        lines.append("no consumer has run yet: `killick consumer`")
        return "\n".join(lines)
    heads = ("partition", "version", "since", "next", "lag", "published", "series", "forecasts", "pairs", "refused",
             "generation", "shadows", "state")  # fmt: skip
    lines.append(_monitor(body))
    rows = [heads, *(_row(part, body["generation"]) for part in body["partitions"])]
    widths = [max(len(row[at]) for row in rows) for at in range(len(heads) - 1)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]]))
    return "\n".join(lines)


def _monitor(body: dict[str, Any]) -> str:
    counted = [part["next_offset"] - part["monitored"] for part in body["partitions"]]
    behind = f"{sum(counted):,} records are not counted yet" if any(counted) else "everything is counted"
    return f"a monitor runs, {behind}" if body["monitor"] else f"no monitor runs (`killick monitor`): {behind}"


def _row(part: dict[str, Any], generation: int) -> tuple[str, ...]:
    counters = part["counters"]
    refused = sum(amount for name, amount in counters.items() if name.startswith("refused."))
    behind = f" of {generation}" if part["generation"] != generation else ""
    state = part["state"] or "-"
    if part["state"] in ("spinning-up", "diverged"):
        state += f": version {part['state_version']}" if part["state_version"] else ""
        state += f" ({part['state_why']})" if part["state_why"] else ""
    return (
        str(part["partition"]),
        str(part["incumbent"] or "-"),
        str(part["since_offset"] or 0),
        str(part["next_offset"]),
        "?" if part["lag"] is None else str(part["lag"]),
        str(part["published"]),
        str(part["series"]),
        str(counters.get("forecasts", 0)),
        str(counters.get("pairs", 0)),
        str(refused),
        f"{part['generation']}{behind}",
        ",".join(map(str, part["shadows"])) or "-",
        state,
    )
