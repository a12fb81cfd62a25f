"""The stores that every contract of the ledger must hold on: Redis, Valkey, and Redis as a cluster."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest
import redis as redis_client

from models.server import connect
from tests.conftest import require
from tests.services import redis as redis_service
from tests.services.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client

KINDS = ("redis", "valkey", "cluster")
CLUSTER_S = 10.0


@dataclass(frozen=True)
class Store:
    """A server and a client of it."""

    server: RedisServer
    client: Client
    cluster: bool

    def another_client(self, timeout_s: float = 5.0) -> Client:
        """A client of its own."""
        return connect(self.server.url, timeout_s=timeout_s, cluster=self.cluster)


def new_store(kind: str, resources: ExitStack, fsync: Literal["always", "everysec"] = "everysec") -> Store:
    """Start a server of this kind that ends with `resources`."""
    valkey = kind == "valkey"
    binary = redis_service.valkey_binary() if valkey else redis_service.redis_binary()
    require("" if binary else redis_service.VALKEY_MISSING if valkey else redis_service.REDIS_MISSING)
    cluster = kind == "cluster"
    settings = {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf"} if cluster else None
    server = resources.enter_context(RedisServer(binary, fsync, settings))
    if cluster:
        _give_all_slots(server)
    client = connect(server.url, cluster=cluster)
    resources.callback(client.close)
    return Store(server, client, cluster)


def _give_all_slots(server: RedisServer) -> None:
    """Make the one node a whole cluster."""
    with closing(redis_client.Redis.from_url(server.url)) as node:
        command: Any = node.execute_command
        command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        deadline = time.monotonic() + CLUSTER_S
        while "cluster_state:ok" not in str(command("CLUSTER", "INFO")):
            assert time.monotonic() < deadline, "the cluster did not form"
            time.sleep(0.02)


@pytest.fixture(scope="session")
def _stores() -> Iterator[dict[str, Store]]:
    with ExitStack() as resources:
        stores: dict[str, Store] = {}

        class OnDemand(dict[str, Store]):
            def __missing__(self, kind: str) -> Store:
                self[kind] = new_store(kind, resources)
                return self[kind]

        stores = OnDemand()
        yield stores


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, _stores: dict[str, Store]) -> Store:
    """Redis, Valkey and a cluster in turn, shared by all tests: use a model name of your own."""
    return _stores[request.param]


@pytest.fixture(scope="session")
def redis_store(_stores: dict[str, Store]) -> Store:
    """The shared Redis."""
    return _stores["redis"]


@pytest.fixture(params=KINDS)
def mortal_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each kind in turn, started for this test alone, which may kill it; what it acknowledged is on disk."""
    with ExitStack() as resources:
        yield new_store(request.param, resources, fsync="always")


@pytest.fixture
def model() -> str:
    """The name of a model that no other test uses."""
    return f"m-{uuid.uuid4().hex[:12]}"
