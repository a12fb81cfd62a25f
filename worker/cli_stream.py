"""Commands on the running stream: `killick consumer`, `status`."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from worker.session import Session


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
    settings = session.settings()
    from consumers import kafka_admin  # noqa: F401 - imported before the time runs, as it takes a fifth of all
    from worker import wiring
    from worker.status_report import LogEnds, read_status

    log_ends = LogEnds(settings).ask()
    with closing(wiring.redis_client(settings)) as client:
        body = read_status(settings, client, log_ends)
    click.echo(json.dumps(body, indent=2) if as_json else _describe(body))


def _describe(body: dict[str, Any]) -> str:
    answers = f"version {body['incumbent']} answers" if body["incumbent"] else "no version answers yet"
    lines = [f"model {body['model']}: {answers}, generation {body['generation']}"]
    named = [f"{name} {body[name]}" for name in ("candidate", "previous") if body[name]]
    lines += [", ".join(named)] if named else []
    if body["paused"]:
        lines.append(f"automatic promotion is paused until `killick resume`: {body['paused_why']}")
    if body["requests"]:
        lines.append(
            f"requests for retraining: {body['requests']}; {body['retraining'] or '`killick verdicts` says more'}"
        )
    lines += [f"{name}: {body[name]}" for name in ("trial", "guard") if body[name]]
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
