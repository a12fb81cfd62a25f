"""Where settings become collaborators: every process and command is put together here."""

from __future__ import annotations

import gc
import logging
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from models.registry import Registry
from models.server import Client, OnDisk, Promise, connect, promise

GC_THRESHOLDS = (10_000, 20, 50)
LOOKUP_S = 0.5
SWITCH_S = 0.0005

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from consumers.archive import Archive
    from consumers.archive_history import Histories
    from consumers.holding import Limits, Topics
    from consumers.kafka import Source
    from consumers.kafka_admin import Admin
    from consumers.kafka_sink import Sink
    from consumers.ledger import Ledger
    from consumers.loop import Consumer
    from consumers.observer import Observer
    from consumers.opening import Opener
    from consumers.stream import Version
    from consumers.versions import Versions
    from worker.monitoring import Monitor
    from worker.settings import Settings
    from worker.store import ModelStore


def redis_client(settings: Settings) -> Client:
    """The client of the server that holds ledger and registry."""
    redis = settings.redis
    return connect(
        redis.url,
        password=settings.redis_password(),
        timeout_s=redis.timeout.ms / 1000,
        cluster=redis.cluster,
    )


def registry(settings: Settings, client: Client) -> Registry:
    """The registry of the model."""
    return Registry(client, settings.model.name)


def ledgers(settings: Settings, client: Client) -> list[Ledger]:
    """The ledgers of the model's partitions, to be read."""
    from consumers.ledger import Ledger

    count = registry(settings, client).partitions()
    return [Ledger(client, settings.model.name, number) for number in range(count)]


def archive(settings: Settings) -> Archive | None:
    """The model's archive; None where none is kept.

    Raises:
        ConfigError: its path can't be used.
    """
    from consumers.archive import Archive

    return Archive(settings.archive.path, settings.model.name) if settings.archive.path else None


def histories(settings: Settings) -> Histories | None:
    """What the model's versions were fitted on; None where no archive is kept.

    Raises:
        ConfigError: the archive's path can't be used.
    """
    from consumers.archive_history import Histories

    return Histories(settings.archive.path, settings.model.name) if settings.archive.path else None


def admin(settings: Settings) -> Admin:
    """Kafka's administrator."""
    from consumers.kafka_admin import Admin

    return Admin(settings.kafka.bootstrap_servers, **settings.kafka_security())


def sink(settings: Settings) -> Sink:
    """The producer of forecasts and dead letters."""
    from consumers.kafka_sink import Sink

    kafka = settings.kafka
    return Sink(kafka.bootstrap_servers, letters=[kafka.dead_letters], **settings.kafka_security())


def source(settings: Settings) -> Source:
    """The observations' topic, by group or by hand."""
    from consumers.kafka import Source

    kafka = settings.kafka
    return Source(
        kafka.bootstrap_servers,
        kafka.observations,
        settings.kafka_group,
        instance=kafka.instance,
        session_timeout_ms=kafka.session_timeout.ms,
        max_poll_records=kafka.max_poll_records,
        manual=kafka.assignment == "manual",
        **settings.kafka_security(),
    )


def topics(settings: Settings) -> Topics:
    """The names of the topics, with the id and the partitions that the first one has now.

    Raises:
        NotReady: it is not there.
    """
    from consumers.holding import Topics
    from models.errors import NotReady

    kafka = settings.kafka
    administrator = admin(settings)
    try:
        for topic in (kafka.observations, kafka.predictions, kafka.dead_letters):
            if administrator.partitions(topic) is None:
                raise NotReady(f"Kafka has no topic {topic!r}", "create it: `killick doctor --create-topics`")
        partitions = administrator.partitions(kafka.observations) or 0
        topic_id = administrator.topic_id(kafka.observations) or ""
    finally:
        administrator.close()
    return Topics(kafka.observations, kafka.predictions, kafka.dead_letters, topic_id, partitions)


def limits(settings: Settings, *, accept_gap: bool = False) -> Limits:
    """What bounds a consumer."""
    from consumers.holding import Limits

    return Limits(
        max_series=settings.model.max_series,
        max_ahead_ms=settings.max_ahead_ms,
        snapshot_every=settings.ledger.snapshot_every,
        retention_steps=max(1, settings.ledger.retention.ms // settings.interval_ms),
        retention_blocks=settings.ledger.retention_blocks,
        accept_gap=accept_gap,
        spin_up_steps=settings.spin_up_steps,
        guard_steps=settings.guard_steps,
    )


def loader(settings: Settings, registered: Registry) -> Callable[[int], Version]:
    """A function that loads a version, checks it against the model and against this machine, and compiles it."""

    def load(number: int) -> Version:
        from consumers.stream import Version
        from models.forecaster import check_fit
        from worker.quiet import start_tensorflow

        start_tensorflow(settings.network.threads)
        from models.network import Network

        architecture, _, weights = registered.load(number)
        check_fit(architecture, settings.series_form())
        with giving_way():
            network = Network(architecture, weights)
            network.self_test()
            settle_memory()
        return Version(number, architecture, network)

    return load


@contextmanager
def giving_way() -> Iterator[None]:
    """Let other threads have the interpreter ten times as soon: tracing a network is a long stretch of Python."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def settle_memory() -> None:
    """Keep what was loaded so far out of every later collection: walking TensorFlow's objects halved the rate.

    What is garbage goes before the first time only: a collection stops all threads.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.set_threshold(*GC_THRESHOLDS)
    gc.freeze()


def lookup(settings: Settings) -> Callable[[], Topics]:
    """A function that looks the topics up, anew once in a while: one may be deleted and made again meanwhile."""
    found: list[tuple[float, Topics]] = []

    def look() -> Topics:
        now = time.monotonic()
        if not found or now - found[-1][0] > LOOKUP_S:
            found[:] = [(now, topics(settings))]
        return found[-1][1]

    return look


def disk(client: Client) -> Callable[[str], OnDisk | None]:
    """A function that waits for what was written to be on the disk of a key's server, where that needs waiting.

    What the server promises is found out meanwhile: that may take it two seconds.
    """

    def ask() -> Promise:
        promised = promise(client)
        if promised == "none":
            log.warning(
                "this Redis can't say what is on its disk: a change of version may be forgotten after a power cut "
                "(`killick doctor` says what to do)",
                extra={"action": "no-promise"},
            )
        return promised

    asking = ThreadPoolExecutor(1, "disk")
    answers = [asking.submit(ask)]
    asking.shutdown(wait=False)

    def waiting(key: str) -> OnDisk | None:
        if answers[0].exception() is not None:  # Redis was away
            answers[0] = Future()
            answers[0].set_result(ask())
        return OnDisk(client, key) if answers[0].result() == "on request" else None

    return waiting


def versions(settings: Settings, client: Client, executor: Executor) -> Versions:
    """The versions that a consumer can step, loaded by `executor`."""
    from consumers.versions import Versions

    return Versions(loader(settings, registry(settings, client)), executor)


def opener(
    settings: Settings, client: Client, known: Versions, sender: Sink, bounds: Limits, observer: Observer
) -> Opener:
    """Opens partitions."""
    from consumers.opening import Opener

    return Opener(
        client,
        settings.model.name,
        settings.series_form(),
        lookup(settings),
        bounds,
        registry=registry(settings, client),
        versions=known,
        sender=sender,
        observer=observer,
    )


def monitor(settings: Settings, client: Client) -> tuple[Monitor, ModelStore]:
    """A monitor of the model, and the store that it shares with others.

    Raises:
        ConfigError: the archive's path can't be used.
    """
    from consumers.ledger import Ledger
    from consumers.opening import new_token
    from worker.archiving import Archiver
    from worker.monitoring import Monitor, Times
    from worker.partition_monitor import PartitionMonitor
    from worker.store import ModelStore, PartitionStore
    from worker.verdicts import VerdictStore
    from worker.wiring_minds import minds

    form, name, token = settings.series_form(), settings.model.name, new_token()
    kept = archive(settings)
    after_steps = settings.archive.after.ms // settings.interval_ms

    def opens(partition: int) -> tuple[PartitionMonitor, Archiver | None]:
        ledger = Ledger(client, name, partition)
        store = PartitionStore(client, name, partition, token)
        monitor = PartitionMonitor(ledger, store, form, settings.model.horizon)
        if kept is None:
            return monitor, None
        return monitor, Archiver(kept, ledger, store, form, settings.archive.rows, after_steps)

    store, registered = ModelStore(client, name, token), registry(settings, client)
    judged_by = minds(settings, store, registered, VerdictStore(client, name))
    times = Times(settings.monitor.lease.ms, settings.ahead_steps)
    return Monitor(registered, form, store, judged_by, opens, times), store


class Monitored(NamedTuple):
    """Whether a monitor runs, and up to which offset each partition is counted."""

    runs: bool
    offsets: dict[int, int]
    behind: int  # records that are not counted, of all partitions
    kept: bool  # whether a ledger keeps them until they are


def monitored(settings: Settings, client: Client) -> Monitored:
    """What the monitors of the model have done."""
    from worker.store import ModelStore, PartitionStore, counted_to

    name = settings.model.name
    offsets, behind, kept = {}, 0, False
    for ledger in ledgers(settings, client):
        store = PartitionStore(client, name, ledger.partition)
        standing, head = store.standing(), ledger.head()
        offsets[ledger.partition] = standing.offset if head is None else counted_to(standing, ledger, head)
        behind += head.next - offsets[ledger.partition] if head is not None else 0
        kept |= "monitor" in store.needed()
    return Monitored(ModelStore(client, name).led(), offsets, behind, kept)


def leave_ledgers(settings: Settings, client: Client) -> int:
    """Let blocks go that no monitor has counted or archived yet; of how many partitions.

    Raises:
        ConfigError: a monitor is at work, which would ask for them again.
    """
    from consumers.opening import new_token
    from models.errors import ConfigError
    from worker.store import ModelStore, PartitionStore

    if ModelStore(client, settings.model.name).led():
        raise ConfigError(
            f"a monitor of model {settings.model.name!r} is at work",
            f"stop it first; one that was killed counts as at work for {settings.monitor.lease} (monitor.lease)",
        )
    numbers = range(registry(settings, client).partitions())
    for number in numbers:
        store = PartitionStore(client, settings.model.name, number, new_token())
        store.take()
        for name in ("monitor", "archive"):
            store.need(name, None)
    return len(numbers)


def consumer(
    settings: Settings, client: Client, executor: Executor, sender: Sink, bounds: Limits, observer: Observer
) -> Consumer:
    """A consumer of the model's observations; versions are loaded by `executor`."""
    from consumers.following import Follower
    from consumers.loop import Consumer

    known = versions(settings, client, executor)
    opens = opener(settings, client, known, sender, bounds, observer)
    poll_s = settings.swap.poll.ms / 1000
    follower = Follower(registry(settings, client), known, bounds, observer, disk(client), poll_s=poll_s)
    return Consumer(source(settings), opens, follower, known, bounds, observer)
