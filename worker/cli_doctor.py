"""`killick doctor`: asks the settings, Kafka, Redis and this machine, and says what to repair."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from models.errors import KillickError
from worker import doctor as examine
from worker.doctor import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.session import Session
    from worker.settings import Settings
    from worker.settings_reading import Loaded

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: exit_code and findings.")
@click.option("--create-topics", is_flag=True, help="Create the topics that are missing.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    default=6,
    show_default=True,
    help="Of the topics to create.",
)
@click.option(
    "--series",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="How many to do the memory sum for.",
)
@click.option("--skip-network-test", is_flag=True, help="Leave TensorFlow and the test of its bits out (about 3 s).")
@click.pass_context
def doctor(
    ctx: click.Context,
    as_json: bool,
    create_topics: bool,
    partitions: int,
    series: int,
    skip_network_test: bool,
) -> None:
    """Check settings, services and this machine; each finding comes with its cure.

    Exit code: 0 nothing failed, 1 something did, 3 a service can't be reached.
    """
    session: Session = ctx.obj
    loaded = session.load()
    findings: list[Finding] = []
    for finding in _examine(loaded, partitions if create_topics else None, series, skip_network_test):
        findings.append(finding)
        if not as_json:
            _print(finding)
    code = examine.exit_code(findings)
    if as_json:
        body = {"exit_code": code, "findings": [asdict(finding) for finding in findings]}
        click.echo(json.dumps(body, ensure_ascii=False, indent=2))
    ctx.exit(code)


def _print(finding: Finding) -> None:
    mark = click.style(f"{finding.status:4}", fg=_COLOURS[finding.status])
    cure = f": {finding.cure}" if finding.cure else ""
    click.echo(f"{mark}  {finding.subject}: {finding.message}{cure}")


def _examine(loaded: Loaded, partitions: int | None, series: int, skip_network_test: bool) -> Iterator[Finding]:
    settings = loaded.settings
    yield Finding("ok", "settings", f"model {settings.model.name!r}, {loaded.path or 'defaults and environment'}")
    yield from guarded("kafka", _kafka(settings, partitions))
    facts: dict[str, Any] = {}
    yield from guarded("redis", _redis(settings, facts))
    yield from guarded("archive", _archive(settings))
    yield from guarded("retraining", of_retraining(settings))
    yield from guarded("api token", of_token(settings))
    yield from guarded("memory", examine.of_sizing(_load(settings, series), examine.memory_limit(facts)))
    if not skip_network_test:
        yield from guarded("network", _network(settings))


def guarded(subject: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings; an error on the way is the last one."""
    try:
        yield from findings
    except KillickError as error:
        yield examine.failure(subject, error)


def _kafka(settings: Settings, partitions: int | None) -> Iterator[Finding]:
    from worker import wiring

    kafka = settings.kafka
    admin = wiring.admin(settings)
    try:
        yield Finding("ok", "kafka", f"{kafka.bootstrap_servers} answers")
        topics = {
            "observations": kafka.observations,
            "predictions": kafka.predictions,
            "dead_letters": kafka.dead_letters,
        }
        yield from examine.of_topics(admin, topics, kafka.dead_letters, create=partitions)
    finally:
        admin.close()


def _redis(settings: Settings, facts: dict[str, Any]) -> Iterator[Finding]:
    """Findings on the server, whose facts are put into `facts` for the memory sum."""
    from models.server import calling, promise, server_facts
    from worker import wiring

    client = wiring.redis_client(settings)
    try:
        facts |= server_facts(client)
        promised = promise(client)
        before_s = time.time()
        seconds, microseconds = calling(client.time)
        now_ms = int((before_s + time.time()) * 500)
        yield from examine.of_redis(facts, promised, now_ms, seconds * 1_000 + microseconds // 1_000)
        calling(client.function_list)
        yield Finding("ok", "redis functions", "the ledger's functions can be loaded")
        monitored = wiring.monitored(settings, client)
        yield examine.of_monitor(runs=monitored.runs, behind=monitored.behind, kept=monitored.kept)
    finally:
        client.close()


def _archive(settings: Settings) -> Iterator[Finding]:
    path = settings.archive.path
    if not path:
        yield Finding("ok", "archive", "none is kept: what Redis lets go is gone")
        return
    from consumers.archive_store import Folder

    Folder(path).probe(settings.model.name)
    yield Finding("ok", "archive", f"{path!r} can be written")


def of_retraining(settings: Settings) -> Iterator[Finding]:
    """Where candidates are trained; of a cluster, whether something listens there.

    Raises:
        ConfigError, ServiceUnreachable: as `knock`.
    """
    from worker.executors import PROCESSES, knock

    where = settings.retraining.executor
    if where == PROCESSES:
        yield Finding("ok", "retraining", "trains in processes of the retrainer's machine")
        return
    knock(where)
    yield Finding("ok", "retraining", f"{where} listens; its workers are asked when training begins")


def of_token(settings: Settings) -> Iterator[Finding]:
    """Whether the HTTP API could start with its token, where it has one.

    Raises:
        ConfigError: it could not.
    """
    token = settings.api_token()
    if not token and not settings.api.token_file:
        yield Finding("ok", "api token", "none is set: `killick api` does not start, which nothing else needs")
        return
    from worker.api_token import check_token

    yield Finding("ok", "api token", f"{len(check_token(token))} characters")


def _load(settings: Settings, series: int) -> examine.Load:
    from models.forecaster import Carried
    from models.scaling import SeriesState

    state = SeriesState(settings.series_form())
    state.reserve(1)
    horizon = settings.model.horizon
    carried = Carried(settings.architecture(gain=(1.0,) * horizon).carried_size, horizon)
    carried.reserve(1)
    return examine.Load(
        features=len(settings.model.features),
        horizon=horizon,
        series=series,
        interval_ms=settings.interval_ms,
        retention_ms=settings.ledger.retention.ms,
        series_state_bytes=_bytes_a_slot(state.arrays()),
        carried_bytes=_bytes_a_slot(carried.arrays()),
    )


def _bytes_a_slot(arrays: dict[str, Any]) -> int:
    return sum(int(array.nbytes) // len(array) for array in arrays.values())


def _network(settings: Settings) -> Iterator[Finding]:
    """The self-test of the bits, for the architecture of the settings with fresh weights."""
    from worker.quiet import start_tensorflow

    start_tensorflow(settings.network.threads)
    from models.network import Network
    from models.weights import fresh_weights

    architecture = settings.architecture(gain=(1.0,) * settings.model.horizon)
    Network(architecture, fresh_weights(architecture, seed=settings.training.seed)).self_test()
    yield Finding("ok", "network", "equal bits in tiles of 8 to 1,024: a replay on this machine repeats exactly")
