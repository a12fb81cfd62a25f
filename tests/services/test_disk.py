"""The disk of the tests loses what was not synced, and nothing else; it is full when it is told to be."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import pytest
import redis as redis_client

from tests.conftest import require
from tests.integration.harness import wait
from tests.services.disk import COMPILER_MISSING, Disk, compiler
from tests.services.redis import REDIS_MISSING, RedisServer, redis_binary
from worker.child import listens

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.services


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk for this test alone."""
    require("" if redis_binary() else REDIS_MISSING)
    require("" if compiler() else COMPILER_MISSING)
    with Disk() as disk:
        yield disk


def server(disk: Disk, fsync: Literal["always", "everysec", "no"]) -> RedisServer:
    """A server whose append-only file lies on the disk."""
    return RedisServer(redis_binary(), fsync, environment=disk.environment)


def numbers(redis: RedisServer) -> list[int]:
    """What the server has in its list."""
    with redis_client.Redis.from_url(redis.url) as client:
        found: list[bytes] = client.lrange("numbers", 0, -1)
        return [int(number) for number in found]


def push(redis: RedisServer, count: int) -> None:
    """Append numbers, one call each."""
    with redis_client.Redis.from_url(redis.url) as client:
        for number in range(count):
            client.rpush("numbers", number)


def taken(client: redis_client.Redis) -> bool:
    """Whether the server takes a write; it looks once a second whether there is room again."""
    with suppress(redis_client.ResponseError):
        return bool(client.set("other", 2))
    return False


def test_what_was_synced_survives_a_power_cut(disk: Disk) -> None:
    """With `appendfsync always` every acknowledged write is on the disk."""
    with server(disk, "always") as redis:
        push(redis, 50)
        redis.kill()
        assert disk.lose_unsynced(redis.log) == 0
        redis.start()
        assert numbers(redis) == list(range(50))


def test_what_was_not_synced_is_lost_in_a_power_cut(disk: Disk) -> None:
    """With `appendfsync no` a kill alone loses nothing, and a power cut all that came after the start."""
    with server(disk, "no") as redis:
        push(redis, 50)
        redis.kill()
        redis.start()
        assert numbers(redis) == list(range(50))
        redis.kill()
        assert disk.lose_unsynced(redis.log) > 0
        redis.start()
        assert numbers(redis) == []


def test_full_disk_makes_the_server_refuse_until_there_is_room(disk: Disk) -> None:
    """With `everysec` the write that did not fit is kept in memory, others are refused, and later all is written."""
    with server(disk, "everysec") as redis, redis_client.Redis.from_url(redis.url) as client:
        push(redis, 5)
        disk.fill()
        client.rpush("numbers", 5)
        wait(lambda: not taken(client), 30, "a refusal")
        disk.free()
        wait(lambda: taken(client), 30, "room to be noticed")
        assert numbers(redis) == [0, 1, 2, 3, 4, 5]
        redis.kill()
        redis.start()
        assert numbers(redis) == [0, 1, 2, 3, 4, 5]


def test_full_disk_ends_a_server_that_must_sync_always(disk: Disk) -> None:
    """With `always` the server ends rather than break its word, and has what it acknowledged when it is back."""
    with server(disk, "always") as redis:
        push(redis, 5)
        disk.fill()
        with (
            redis_client.Redis.from_url(redis.url, retry=None) as client,
            pytest.raises(redis_client.ConnectionError),
        ):
            client.rpush("numbers", 5)
        redis.process.stop()
        assert not listens(redis.port)
        disk.free()
        redis.start()
        assert numbers(redis) == [0, 1, 2, 3, 4]
