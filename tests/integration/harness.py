"""A whole killick for tests and benchmarks: topics, settings, versions and `killick` processes on real servers.

Stack ── send ──► Kafka ──► ConsumerProcess (as many as are started) ──► predictions, dead letters, ledger
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic

from consumers.ledger import Head, Ledger
from models.registry import Registry
from models.server import connect
from models.weights import fresh_weights, weights_to_bytes
from worker.child import Child, free_port
from worker.settings_reading import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from models.architecture import Architecture, Weights

ROOT = Path(__file__).parents[2]
START_S = 30.0
DONE_S = 120.0
POLL_S = 0.02
HEAD_SPREAD = 0.3  # of the random last layer: forecasts differ from persistence by about one scale
DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {"horizon": 4},
    "kafka": {"session_timeout": "2s"},
    "ledger": {"retention": "36500d"},
    "network": {"units": [8], "lags": 6},
    "log": {"format": "json"},
}


class Message(NamedTuple):
    """A record to be sent."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None


class ConsumerProcess:
    """One `killick consumer`, started when it is made; with a log of its own."""

    def __init__(self, stack: Stack, number: int, words: Sequence[str], variables: Mapping[str, str]) -> None:
        self.port = free_port()
        self.log = stack.directory / f"{stack.model}-consumer-{number}.log"
        given = {"KILLICK_HTTP__PORT": str(self.port), **variables}
        command = [
            shutil.which("env") or "env",
            *(f"{name}={value}" for name, value in given.items()),
            *stack.words("consumer", *words),
        ]
        self.told_to_end = False
        self._child = Child(f"consumer {number}", command, self.log, ROOT)
        self._child.start(lambda: self._child.logged('"action":"serving"') or not self.running, START_S)

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child.running()

    def kill(self) -> None:
        """SIGKILL."""
        self.told_to_end = True
        self._child.kill()

    def stop(self, patience_s: float = 20.0) -> int:
        """SIGTERM; the exit code."""
        self.told_to_end = True
        self._child.stop(patience_s)
        return self.exit_code

    def pause(self) -> None:
        """SIGSTOP."""
        self._child.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._child.resume()

    def ended(self, timeout_s: float = START_S) -> int:
        """The exit code of a process that ends by itself."""
        self.told_to_end = True
        wait(lambda: not self.running, timeout_s, f"{self._child.name} to end")
        return self.exit_code

    @property
    def exit_code(self) -> int:
        """The exit code; minus 9 after a kill."""
        process = self._child._process
        assert process is not None
        code = process.poll()
        assert code is not None, "the process still runs"
        return code

    def lines(self, action: str | None = None) -> list[dict[str, Any]]:
        """The log's lines; only those with this action."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                entry = json.loads(line)
                if action is None or entry.get("action") == action:
                    found.append(entry)
        return found

    def page(self, path: str) -> tuple[int, str]:
        """Status and body of one of the process's pages; 0 where nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> None:
        """Wait until the process is at work."""
        wait(lambda: self.page("/readyz")[0] == 200, START_S, lambda: f"/readyz: {self.page('/readyz')}")

    def waiting_for(self) -> str:
        """What /readyz says it waits for; empty where it is ready."""
        status, body = self.page("/readyz")
        assert status in (0, 200, 503), (status, body)
        reason = str(json.loads(body)["waiting_for"]) if status else "no answer"
        assert bool(reason) == (status != 200), (status, body)
        return reason

    def held(self) -> set[int]:
        """The partitions that are at work here."""
        status, body = self.page("/readyz")
        return {int(number) for number in json.loads(body).get("partitions", {})} if status else set()

    def metric(self, name: str, labels: str = "") -> float:
        """The value of one series of /metrics; 0 where there is none."""
        for line in self.page("/metrics")[1].splitlines():
            found, _, value = line.rpartition(" ")
            if found.partition("{")[0] == name and labels in found:
                return float(value)
        return 0.0


class Stack:
    """Topics, settings and versions of one model, and the processes that serve it; a context manager."""

    def __init__(
        self,
        servers: str,
        redis_url: str,
        directory: Path,
        *,
        partitions: int = 2,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        create_topics: bool = True,
    ) -> None:
        self.servers = servers
        self.directory = directory
        self.partitions = partitions
        self.model = f"m{uuid.uuid4().hex[:10]}"
        self.config = directory / f"{self.model}.toml"
        content = {name: dict(values) for name, values in DEFAULTS.items()}
        names = {name: f"{self.model}.{name}" for name in ("observations", "predictions", "dead_letters")}
        own = {
            "model": {"name": self.model},
            "kafka": {"bootstrap_servers": servers, **names},
            "redis": {"url": redis_url},
        }
        for given in (own, settings or {}):
            for section, values in given.items():
                content.setdefault(section, {}).update(values)
        # JSON's texts, numbers and lists are TOML too
        lines = [
            f"[{section}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
            for section, values in content.items()
        ]
        self.config.write_text("\n".join(lines), encoding="utf-8")
        self.settings = load(self.config).settings
        self.form = self.settings.series_form()
        self.redis = connect(redis_url)
        self.registry = Registry(self.redis, self.model)
        self.processes: list[ConsumerProcess] = []
        self._producer: Any = None
        if create_topics:
            self.create_topics()

    def create_topics(self) -> None:
        """Create the three topics."""
        kafka = self.settings.kafka
        admin = KafkaAdminClient(bootstrap_servers=self.servers)
        admin.create_topics(
            [
                NewTopic(kafka.observations, self.partitions, 1),
                NewTopic(kafka.predictions, self.partitions, 1),
                NewTopic(kafka.dead_letters, 1, 1),
            ]
        )
        admin.close()

    def configure_dead_letters(self, **limits: int) -> None:
        """Set what the dead-letter topic refuses, as `max_message_bytes`."""
        admin = KafkaAdminClient(bootstrap_servers=self.servers)
        config = {name.replace("_", "."): str(limit) for name, limit in limits.items()}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.settings.kafka.dead_letters, config)])
        admin.close()

    def register(self, seed: int = 0, architecture: Architecture | None = None) -> int:
        """A new version with random weights, its last layer's too."""
        architecture = architecture or self.settings.architecture((1.0,) * self.settings.model.horizon)
        return self.registry.register(
            architecture,
            weights_to_bytes(random_weights(architecture, seed), architecture),
            training={},
            parent=None,
            actor="test",
            reason="test",
            now_ms=1_700_000_000_000,
        )

    def words(self, *words: str) -> list[str]:
        """The command line of a `killick` command on these settings."""
        return [sys.executable, "-m", "worker.cli", "--config", str(self.config), *words]

    def run(self, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """A `killick` command that ends by itself."""
        return subprocess.run(self.words(*words), cwd=ROOT, input=given, capture_output=True, timeout=120, check=False)

    def output(self, *words: str, given: bytes = b"") -> str:
        """What a command printed that must succeed."""
        done = self.run(*words, given=given)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def consumer(self, *words: str, **variables: str) -> ConsumerProcess:
        """Start one more `killick consumer`, with more words, or settings such as `KILLICK_KAFKA__INSTANCE`."""
        self.processes.append(ConsumerProcess(self, len(self.processes), words, variables))
        return self.processes[-1]

    def send(self, messages: Iterable[Message], topic: str | None = None) -> int:
        """Send records and return when the broker has them; how many."""
        if self._producer is None:
            self._producer = KafkaProducer(
                bootstrap_servers=self.servers,
                linger_ms=5,
                max_request_size=2_000_000,
                reconnect_backoff_max_ms=500,
            )
        topic = topic or self.settings.kafka.observations
        sent = [self._hand_over(topic, message) for message in messages]
        self._producer.flush()
        for future in sent:
            future.get(timeout=DONE_S)
        return len(sent)

    def _hand_over(self, topic: str, message: Message) -> Any:
        key, value, headers, timestamp_ms = message
        if (key, value) != (None, None) and all(content is not None for _, content in headers):
            return self._producer.send(topic, value=value, key=key, headers=list(headers), timestamp_ms=timestamp_ms)
        # other clients send records without key and value, and headers without one: past the checks of this one
        self._producer.partitions_for(topic)
        place = TopicPartition(topic, zlib.crc32(repr(message).encode()) % self.partitions)
        future, *_ = self._producer._accumulator.append(place, timestamp_ms, key, value, _Unmeasured(headers))
        self._producer._sender.wakeup()
        return future

    def records(self, topic: str | None = None) -> list[list[Any]]:
        """All records of a topic (the observations), by partition."""
        return read_topic(self.servers, topic or self.settings.kafka.observations)

    def predictions(self) -> list[Any]:
        """All records of the predictions topic, partition by partition."""
        return [record for part in self.records(self.settings.kafka.predictions) for record in part]

    def dead_letters(self) -> list[Any]:
        """All records of the dead-letter topic."""
        return [record for part in self.records(self.settings.kafka.dead_letters) for record in part]

    def delete_records(self, number: int, before: int) -> None:
        """Let the log of a partition of observations begin at an offset, as retention would."""
        admin = KafkaAdminClient(bootstrap_servers=self.servers)
        admin.delete_records({TopicPartition(self.settings.kafka.observations, number): before})
        admin.close()

    def ledger(self, number: int) -> Ledger:
        """A partition's ledger, to be read."""
        return Ledger(self.redis, self.model, number)

    def heads(self) -> list[Head | None]:
        """The heads of all ledgers."""
        return [self.ledger(number).head() for number in range(self.partitions)]

    def progress(self) -> int:
        """How many records were committed, over all partitions."""
        return sum(head.next if head else 0 for head in self.heads())

    def done(self, timeout_s: float = DONE_S) -> None:
        """Wait until everything that was sent is committed and published."""
        ends = log_ends(self.servers, self.settings.kafka.observations)

        def reached() -> bool:
            self.alive()
            heads = self.heads()
            return all((head.mark if head else 0) >= end for head, end in zip(heads, ends, strict=True))

        wait(reached, timeout_s, lambda: f"all marks to reach {ends}: {self.heads()}")

    def reach(self, records: int, timeout_s: float = DONE_S) -> None:
        """Wait until so many records are committed, over all partitions."""
        wait(lambda: self.progress() >= records, timeout_s, lambda: f"{records}, now {self.progress()}", 0.003)

    def alive(self) -> None:
        """Fail if a consumer has ended by itself."""
        for process in self.processes:
            if not process.told_to_end and not process.running:
                tail = "\n".join(process.log.read_text(errors="replace").splitlines()[-5:])
                raise AssertionError(f"a consumer ended with {process.exit_code}:\n{tail}")

    def logs(self, lines: int = 15) -> str:
        """The ends of the processes' logs."""
        return "".join(
            f"-- {process.log.name}\n" + "\n".join(process.log.read_text(errors="replace").splitlines()[-lines:]) + "\n"
            for process in self.processes
        )

    def close(self) -> None:
        """Kill the processes, let the connections go."""
        for process in self.processes:
            process.kill()
        if self._producer is not None:
            self._producer.close(timeout=0)
        self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            sys.stdout.write(self.logs())  # pytest shows it
        self.close()


class _Unmeasured(list[tuple[str, bytes | None]]):
    """Headers that look like none to who adds up their sizes, and are written all the same."""

    def __bool__(self) -> bool:
        return False


def random_weights(architecture: Architecture, seed: int) -> Weights:
    """Weights of which none is zero, so that every part of the network shows in the forecasts."""
    rng = np.random.default_rng(seed)
    weights = fresh_weights(architecture, seed)
    for name, tensor in weights.items():
        spread = HEAD_SPREAD if name == "head.kernel" else 0.1
        weights[name] = (tensor + rng.normal(scale=spread, size=tensor.shape)).astype(np.float32)
    return weights


def wait(ready: Callable[[], bool], timeout_s: float, what: str | Callable[[], str], poll_s: float = POLL_S) -> float:
    """Return when `ready` says so; the seconds that it took.

    Raises:
        AssertionError: not in this time.
    """
    began = time.monotonic()
    while not ready():
        if time.monotonic() > began + timeout_s:
            raise AssertionError(f"waited {timeout_s:g} s for {what if isinstance(what, str) else what()}")
        time.sleep(poll_s)
    return time.monotonic() - began


@contextmanager
def reading(servers: str, topic: str) -> Iterator[tuple[Any, list[TopicPartition]]]:
    """A plain client with all partitions of a topic."""
    consumer = KafkaConsumer(
        bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest", max_poll_records=5000
    )
    try:
        numbers = sorted(consumer.partitions_for_topic(topic) or ())
        partitions = [TopicPartition(topic, number) for number in numbers]
        consumer.assign(partitions)
        yield consumer, partitions
    finally:
        consumer.close()


def log_ends(servers: str, topic: str) -> list[int]:
    """The offset after the last record, by partition."""
    with reading(servers, topic) as (consumer, partitions):
        ends = consumer.end_offsets(partitions)
        return [int(ends[tp]) for tp in partitions]


def read_topic(servers: str, topic: str, timeout_s: float = DONE_S) -> list[list[Any]]:
    """All records of a topic that are there now, by partition."""
    with reading(servers, topic) as (consumer, partitions):
        ends = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        found: list[list[Any]] = [[] for _ in partitions]

        def read() -> bool:
            for tp, records in consumer.poll(timeout_ms=100).items():
                found[tp.partition] += records
            return all(consumer.position(tp) >= ends[tp] for tp in partitions)

        wait(read, timeout_s, f"the end of {topic}", 0.0)
        return found
