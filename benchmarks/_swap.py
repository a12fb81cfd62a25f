"""What `benchmarks.swap` is made of: a steady load, changes of the version that answers, and latencies from the logs.

Both topics are stamped by the broker. A latency is the time between an observation's place in its log and its
forecast's place in the other: to the millisecond, with nobody looking while it is measured.
"""

from __future__ import annotations

import multiprocessing
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from consumers.roster import incumbent_of, shadows_of
from models.times import HOUR_MS
from tests.integration.harness import Stack, log_ends, reading, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from numpy.typing import NDArray

    from consumers.roster import Seat
    from models.architecture import Architecture

    Ints = NDArray[np.int64]

PARTITIONS = 4
START_STEP = 400_000
TICK_S = 0.002
LOOK_S = 0.01  # between two looks at the rosters
PATIENCE_S = 60.0
AFTER_S = 1.0  # the time after the last partition's commit that still counts as during
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"horizon": 5},
    "network": {"units": [64, 64], "lags": 24},
    "ledger": {"retention": "30d"},
    "kafka": {"session_timeout": "30s"},
}
SHALLOW: dict[str, dict[str, Any]] = {  # how deep a spin-up was is nothing to a version that is warm
    **SETTINGS,
    "ledger": {"retention": "30d", "snapshot_every": 2_000},
    "swap": {"spin_up_steps": 8, "spin_up": "8h"},
}


@dataclass(frozen=True)
class Load:
    """So many series, with so many steps of a past, then observations at an even pace."""

    series: int
    past: int
    rate: int


def feed(servers: str, topic: str, load: Load, pipe: Connection) -> None:
    """Send the past as fast as it goes, say so, then go on at the load's rate until something is heard."""
    rng = np.random.default_rng(1)
    keys = [b"s%d" % number for number in range(load.series)]
    values = rng.normal(size=1 << 16).round(3).tolist()
    producer = KafkaProducer(bootstrap_servers=servers, linger_ms=0, acks=1)
    sent = 0

    def send(until: int) -> int:
        for i in range(sent, until):
            step, series = divmod(i, load.series)
            time_ms = (START_STEP + step) * HOUR_MS
            value = b'{"time":%d,"values":{"value":%r}}' % (time_ms, values[i % len(values)])
            producer.send(topic, key=keys[series], value=value)
        return until

    sent = send(load.series * load.past)
    producer.flush()
    pipe.send(sent)
    pipe.recv()  # the past is read
    past, began = sent, time.monotonic()
    while not pipe.poll():
        sent = send(past + int((time.monotonic() - began) * load.rate))
        time.sleep(TICK_S)
    producer.flush()
    pipe.send(sent)
    producer.close()


class Feeding:
    """The process that sends; a context manager. It has sent the past when it is entered."""

    def __init__(self, stack: Stack, load: Load) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        words = (stack.servers, stack.settings.kafka.observations, load, theirs)
        self._process = context.Process(target=feed, args=words, daemon=True)
        self._stack = stack

    def __enter__(self) -> Self:
        self._process.start()
        self._hear()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def begin(self) -> None:
        """Go on at an even pace, once all that was sent is read."""
        self._stack.done(PATIENCE_S)
        self._pipe.send(None)

    def end(self) -> None:
        """Stop sending, and wait until everything has its forecast."""
        self._pipe.send(None)
        self._hear()
        self._stack.done(PATIENCE_S)

    def _hear(self) -> None:
        wait(self._pipe.poll, PATIENCE_S, "the feeding process")
        self._pipe.recv()


@dataclass(frozen=True)
class Change:
    """One command and when all partitions had followed it, seconds of the wall clock."""

    kind: str
    version: int
    command_s: float
    committed_s: float  # the last partition's roster commit was seen

    @property
    def seconds(self) -> float:
        """From the command to the last partition's roster commit."""
        return self.committed_s - self.command_s


class Operator:
    """Registers versions and changes aliases as the commands do, and waits until the rosters follow."""

    def __init__(self, stack: Stack, window_s: float) -> None:
        self._stack = stack
        self._window_s = window_s
        self._seed = 100
        self.incumbent = stack.register(1)
        self.changes: list[Change] = []

    def architecture(self, *units: int) -> Architecture:
        """That of the settings, with other layers."""
        ours = self._stack.settings.architecture((1.0,) * self._stack.settings.model.horizon)
        return msgspec.structs.replace(ours, units=units) if units else ours

    def register(self, architecture: Architecture) -> int:
        """A new version with random weights."""
        self._seed += 1
        return self._stack.register(self._seed, architecture)

    def promote(self, kind: str, version: int) -> None:
        """Let a version answer."""
        registry, before = self._stack.registry, self.incumbent
        self._change(
            kind,
            version,
            lambda: registry.promote(version, expected=before, **_by()),
            lambda r: incumbent_of(r) == version,
        )
        self.incumbent = version

    def rollback(self, kind: str, to: int) -> None:
        """Let the former version answer again."""
        registry, before = self._stack.registry, self.incumbent
        self._change(kind, to, lambda: registry.rollback(to, expected=before, **_by()), lambda r: incumbent_of(r) == to)
        self.incumbent = to

    def nominate(self, kind: str, version: int) -> None:
        """Let a version read along."""
        registry = self._stack.registry
        self._change(
            kind,
            version,
            lambda: registry.nominate(version, expected=None, **_by()),
            lambda r: version in shadows_of(r),
        )

    def _change(
        self, kind: str, version: int, command: Callable[[], object], follows: Callable[[tuple[Seat, ...]], bool]
    ) -> None:
        """One change with a quiet window before it and one after it."""
        time.sleep(self._window_s)
        waiting = {number: self._stack.ledger(number) for number in range(PARTITIONS)}
        began = time.time()
        command()

        def followed() -> bool:
            for number, ledger in list(waiting.items()):
                if follows(ledger.roster()):
                    del waiting[number]
            return not waiting

        wait(followed, PATIENCE_S, f"all partitions to follow: {kind}", LOOK_S)
        self.changes.append(Change(kind, version, began, time.time()))
        time.sleep(AFTER_S + self._window_s)
        self._stack.alive()


def _by() -> dict[str, Any]:
    return {"actor": "benchmark", "reason": "benchmark", "now_ms": int(time.time() * 1000)}


def create_topics(stack: Stack) -> None:
    """The stack's topics; the broker stamps what comes."""
    kafka = stack.settings.kafka
    stamped = {"message.timestamp.type": "LogAppendTime"}
    with closing(KafkaAdminClient(bootstrap_servers=stack.servers)) as admin:
        names = (kafka.observations, kafka.predictions, kafka.dead_letters)
        admin.create_topics([NewTopic(name, PARTITIONS, 1, topic_configs=stamped) for name in names])


class _Answer(msgspec.Struct):
    version: int


@dataclass(frozen=True)
class Logs:
    """What the broker's logs say: one row an observation."""

    came_ms: Ints  # (N,) when the observation was in its log
    answered_ms: Ints  # (N,) when its first forecast was; 0: never
    version: Ints  # (N,) that answered
    partition: Ints  # (N,)
    again: int  # forecasts that came more than once

    @property
    def latency_ms(self) -> Ints:
        """From one log to the other, `(N,)`."""
        return self.answered_ms - self.came_ms

    @property
    def lost(self) -> int:
        """Observations without a forecast."""
        return int((self.answered_ms == 0).sum())

    def within(self, begin_s: float, end_s: float) -> NDArray[np.bool_]:
        """The observations that came in a span of the wall clock."""
        found: NDArray[np.bool_] = (self.came_ms >= begin_s * 1000) & (self.came_ms < end_s * 1000)
        return found


def read_logs(stack: Stack) -> Logs:
    """Both logs from beginning to end."""
    kafka = stack.settings.kafka
    ends = log_ends(stack.servers, kafka.observations)
    came = [np.zeros(end, np.int64) for end in ends]
    for record in _records(stack.servers, kafka.observations):
        came[record.partition][record.offset] = record.timestamp
    answered, version = ([np.zeros(end, np.int64) for end in ends] for _ in range(2))
    decode = msgspec.json.Decoder(_Answer).decode
    again = 0
    for record in _records(stack.servers, kafka.predictions):
        headers = dict(record.headers)
        number, offset = int(headers["source-partition"]), int(headers["source-offset"])
        if answered[number][offset]:
            again += 1
            continue
        answered[number][offset] = record.timestamp
        version[number][offset] = decode(record.value).version
    partition = np.repeat(np.arange(len(ends)), ends)
    return Logs(np.concatenate(came), np.concatenate(answered), np.concatenate(version), partition, again)


def _records(servers: str, topic: str) -> Iterator[Any]:
    with reading(servers, topic) as (consumer, partitions):
        ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            for records in consumer.poll(timeout_ms=200).values():
                yield from records


def stack_on(servers: str, redis_url: str, folder: Path, settings: dict[str, dict[str, Any]]) -> Stack:
    """A stack whose topics the broker stamps."""
    stack = Stack(servers, redis_url, folder, partitions=PARTITIONS, settings=settings, create_topics=False)
    create_topics(stack)
    return stack


def spans(logs: Logs, changes: list[Change], window_s: float) -> dict[str, Ints]:
    """The latencies before, during and after changes, milliseconds, put together."""
    cuts = {
        "before": [(c.command_s - window_s, c.command_s) for c in changes],
        "during": [(c.command_s, c.committed_s + AFTER_S) for c in changes],
        "after": [(c.committed_s + AFTER_S, c.committed_s + AFTER_S + window_s) for c in changes],
    }
    return {
        name: np.concatenate([logs.latency_ms[logs.within(begin, end)] for begin, end in parts])
        for name, parts in cuts.items()
    }


def first_forecasts(logs: Logs, change: Change) -> float:
    """Seconds from the command to the first forecast of the new version in the partition that was last."""
    after = (logs.answered_ms >= change.command_s * 1000) & (logs.version == change.version)
    firsts = [
        int(logs.answered_ms[after & (logs.partition == number)].min(initial=np.iinfo(np.int64).max))
        for number in range(PARTITIONS)
    ]
    return max(firsts) / 1000 - change.command_s


def longest_silence(logs: Logs, change: Change) -> float:
    """The longest time without a forecast in any partition around a change, seconds."""
    found = 0.0
    inside = (logs.answered_ms >= change.command_s * 1000 - 500) & (
        logs.answered_ms < (change.committed_s + AFTER_S) * 1000
    )
    for number in range(PARTITIONS):
        times = np.sort(logs.answered_ms[inside & (logs.partition == number)])
        found = max(found, float(np.diff(times).max(initial=0)) / 1000)
    return found
