"""The door to Redis: what can go wrong is said once, and without passwords."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

import pytest

from models.errors import ConfigError, ServiceUnreachable
from models.server import OnDisk, connect, promise
from tests.consumers.conftest import new_store

if TYPE_CHECKING:
    from tests.consumers.conftest import Store


@pytest.mark.parametrize("url", ["redis://:hu/sh@127.0.0.1:6379/0", "redis://:hush@127.0.0.1:port/0", "redis://[::1/0"])
def test_a_url_that_is_none_is_a_wrong_setting_and_not_shown(url: str) -> None:
    """Waiting does not mend a URL, and a part of its password may be what could not be read."""
    with pytest.raises(ConfigError, match=r"redis\.url .* set KILLICK_REDIS__PASSWORD") as caught:
        connect(url)
    assert "hu" not in str(caught.value)


# — what is on the disk —


@pytest.fixture(params=["redis", "valkey", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of server in turn."""
    return str(request.param)


def one_node(store: Store) -> Any:
    """The cluster's only node."""
    return store.client.get_redis_connection(store.client.get_primaries()[0])  # type: ignore[union-attr]


@pytest.mark.services
def test_a_server_that_writes_always_promises_without_being_asked(kind: str) -> None:
    """What it acknowledged is on disk: there is nothing to wait for."""
    with ExitStack() as resources:
        assert promise(new_store(kind, resources, fsync="always").client) == "always"


@pytest.mark.services
def test_a_server_that_can_not_have_written_yet_is_not_believed(kind: str) -> None:
    """Redis 7.0 can't be asked; Valkey 9.1 has many writes in a row on a disk that it forces once a second."""
    with ExitStack() as resources:
        store = new_store(kind, resources, fsync="everysec")
        if kind == "valkey":  # the reason: should a later one wait, it may promise
            ask: Any = store.client.execute_command
            said = []
            for number in range(5):
                ask("SET", "a", number)
                said.append(ask("WAITAOF", 1, 0, 3_000))
            assert said == [[1, 0]] * 5
        began = time.monotonic()
        assert promise(store.client) == "none"
        assert time.monotonic() - began < 1.0


@pytest.mark.services
@pytest.mark.parametrize("setting", [("appendonly", "no"), ("appendfsync", "no")])
def test_a_server_that_leaves_the_disk_to_chance_promises_nothing(kind: str, setting: tuple[str, str]) -> None:
    """Without an append-only file, or with one that is never forced to the disk, waiting would be in vain."""
    with ExitStack() as resources:
        store = new_store(kind, resources, fsync="everysec")
        node: Any = one_node(store) if store.cluster else store.client
        node.config_set(*setting)
        assert promise(store.client) == "none"


@pytest.mark.services
@pytest.mark.parametrize("fsync", ["everysec", "no"])
def test_a_host_that_hides_its_settings_is_tried(fsync: Literal["everysec", "no"]) -> None:
    """`CONFIG` is not allowed to this user: who answers `WAITAOF` at once, or never, promises nothing."""
    with ExitStack() as resources:
        store = new_store("valkey", resources)
        store.client.config_set("appendfsync", fsync)
        store.client.acl_setuser(
            "guest", enabled=True, nopass=True, categories=["+@all"], commands=["-config"], keys=["*"]
        )
        guest = connect(store.server.url.replace("redis://", "redis://guest:any@"))
        resources.callback(guest.close)
        assert promise(guest) == "none"


@pytest.mark.services
def test_what_was_written_is_reached_on_disk() -> None:
    """Within about a second of a server that writes every second; a later write is asked for anew."""
    with ExitStack() as resources:
        store = new_store("valkey", resources, fsync="everysec")
        for number in range(2):
            store.client.set("{m}:roster", f"version {number}")
            waiting = OnDisk(store.client, "{m}:synced")
            deadline = time.monotonic() + 10
            while not waiting.reached(timeout_ms=500 * number):  # at once, then with patience
                assert time.monotonic() < deadline
            store.server.kill()
            store.server.restart()
            assert store.client.get("{m}:roster") == f"version {number}".encode()


@pytest.mark.services
def test_what_can_not_reach_the_disk_is_not_said_to_be_there() -> None:
    """While the server holds its fsync back, the answer is no, and comes at once."""
    with ExitStack() as resources:
        store = new_store("valkey", resources, fsync="everysec")
        store.client.config_set("appendfsync", "no")  # nothing forces it to the disk any more
        store.client.set("{m}:roster", "x")
        waiting = OnDisk(store.client, "{m}:synced")
        began = time.monotonic()
        assert [waiting.reached() for _ in range(20)] == [False] * 20
        assert time.monotonic() - began < 0.5, "a consumer asks for many partitions between two polls"
        waiting.close()


@pytest.mark.services
def test_a_server_that_went_away_while_it_was_asked_is_asked_again() -> None:
    """ServiceUnreachable, and nothing is held of the old connection: it must be written and asked anew."""
    with ExitStack() as resources:
        store = new_store("valkey", resources, fsync="everysec")
        waiting = OnDisk(store.client, "{m}:synced")
        waiting.reached()
        store.server.kill()
        with pytest.raises(ServiceUnreachable):
            waiting.reached()
        store.server.restart()
        deadline = time.monotonic() + 10
        while not waiting.reached():
            assert time.monotonic() < deadline
        assert store.client.get("{m}:synced") == b"1"
