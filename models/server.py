"""The one door to a Redis server (or Valkey, or a cluster of them): connecting, calling, and what can go wrong.

Waiting and retrying are left to the caller: a call either answers, or says that it did not.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import redis
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from models.errors import ConfigError, LedgerError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.resources.abc import Traversable

SILENT = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ClusterError,  # no node of the cluster could be asked
    redis_errors.RedisClusterException,
    OSError,
)
PASSING = (
    redis_errors.ReadOnlyError,
    redis_errors.OutOfMemoryError,
    redis_errors.ClusterDownError,
    redis_errors.TryAgainError,
)
TRANSIENT = (
    "LOADING",
    "READONLY",
    "MISCONF",
    "OOM",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MASTERDOWN",
    "NOREPLICAS",
    "BUSY",
)

PROBE_KEY = "killick:probe"
PROBE_KEPT_S = 60
PROBE_MS = 2_000
LEAST_DISK_S = 0.2

Client = redis.Redis | RedisCluster
Promise = Literal["always", "on request", "none"]


def connect(url: str, *, password: str = "", timeout_s: float = 5.0, cluster: bool = False) -> Client:
    """A client that answers in bytes, and leaves waiting and retrying to its caller.

    Raises:
        ConfigError: the URL can't be read.
        ServiceUnreachable: no node of the cluster answered.
    """
    options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    if password:
        options["password"] = password
    try:
        if cluster:
            return RedisCluster.from_url(url, **options)
        return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
    except ValueError:  # its words may hold a part of the password
        raise ConfigError(
            "redis.url can't be read: host, port or database is not one",
            "write redis://host:port/0, and set KILLICK_REDIS__PASSWORD where there is a password",
        ) from None
    except (redis.RedisError, redis_errors.RedisClusterException, OSError) as error:
        raise _unreachable(error) from error


def calling(command: Callable[..., Any], *arguments: object, **options: object) -> Any:
    """The reply of a client's command; whoever asks knows its type.

    Raises:
        ServiceUnreachable: Redis did not answer, or can't take writes at present.
        LedgerError: it refused for good.
    """
    try:
        return command(*arguments, **options)
    except (redis_errors.AuthenticationError, redis_errors.AuthorizationError) as error:
        raise ConfigError(f"Redis refused this user ({error})", "see redis.password in the settings") from error
    except redis.ResponseError as error:
        if isinstance(error, PASSING) or str(error).startswith(TRANSIENT):
            raise ServiceUnreachable(
                f"Redis can't take commands now ({error})", "see its log, its memory and its disk"
            ) from error
        raise LedgerError(f"Redis refused a command ({error})", "see `killick doctor`") from error
    except SILENT as error:
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> ServiceUnreachable:
    return ServiceUnreachable(
        f"Redis did not answer ({type(error).__name__}: {error})",
        "is it running? see redis.url in the settings",
    )


def load_functions(client: Client, code: Traversable) -> None:
    """Load a library of functions into the server; its text is the same at every start."""
    calling(client.function_load, code.read_text(), replace=True)  # in a cluster, on every primary


def call_function(
    client: Client, code: Traversable, name: str, keys: Sequence[str], arguments: Sequence[bytes | str | int]
) -> list[Any]:
    """The reply of one function call; its library is loaded where the server does not know it yet.

    Raises:
        ServiceUnreachable, LedgerError: as `calling`.
    """
    words = (name, len(keys), *keys, *arguments)
    try:
        return list(calling(client.fcall, *words))
    except LedgerError as error:
        if "Function not found" not in str(error):
            raise
    load_functions(client, code)
    return list(calling(client.fcall, *words))


def server_facts(client: Client) -> dict[str, Any]:
    """What the server says of itself: `INFO` server, memory, persistence and stats, and the settings that matter."""
    facts: dict[str, Any] = {}
    for section in ("server", "memory", "persistence", "stats"):
        facts |= calling(client.info, section)
    for name in ("appendonly", "appendfsync", "aof-load-truncated", "maxmemory", "maxmemory-policy"):
        facts |= calling(client.config_get, name)
    return facts


def memory(client: Client) -> tuple[int, int]:
    """The bytes that the server (in a cluster: one of them) uses, and its limit, 0 where it has none."""
    facts = calling(client.info, "memory")
    return int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))


def promise(client: Client) -> Promise:
    """Whether what the server acknowledged survives a power cut: always, on request (`WAITAOF`), or nobody knows.

    Takes up to two seconds of a server that writes its disk once a second.

    Raises:
        ServiceUnreachable: it did not answer.
    """
    node = _node_of(client, PROBE_KEY)
    try:
        found = calling(node.config_get, "append*")
    except (LedgerError, ConfigError):  # some hosts keep their settings to themselves
        found = {}
    settings = {_text(name): _text(value) for name, value in found.items()}
    if settings.get("appendonly", "yes") != "yes" or settings.get("appendfsync") == "no":
        return "none"  # with appendfsync no, WAITAOF is known and never answers that it is done
    if settings.get("appendfsync") == "always":
        return "always"
    try:
        return "on request" if _waits_for_disk(node) else "none"
    except LedgerError:  # Redis before 7.2 does not know it
        return "none"


def _waits_for_disk(node: redis.Redis) -> bool:
    """Whether `WAITAOF` waits: a disk that is written once a second can't have two writes in a row at once.

    Valkey 9.1 says of both within a tenth of a millisecond that they are there; nothing is promised by that.
    """
    pool: Any = redis.Redis
    connection = calling(pool, connection_pool=node.connection_pool, single_connection_client=True)
    try:
        took_s, there = 0.0, True
        for _ in range(2):
            calling(connection.set, PROBE_KEY, "1", ex=PROBE_KEPT_S)
            began = time.monotonic()
            there &= calling(connection.execute_command, "WAITAOF", 1, 0, PROBE_MS)[0] == 1
            took_s = time.monotonic() - began
    finally:
        connection.close()
    return there and took_s >= LEAST_DISK_S


class OnDisk:
    """Asks whether all that was written up to now, where `key` lives, is on the server's disk.

    The server is asked on one connection: its answer is about what came before on it.
    """

    def __init__(self, client: Client, key: str) -> None:
        self._node = _node_of(client, key)
        self._key = key
        self._connection: redis.Redis | None = None

    def reached(self, timeout_ms: int = 0) -> bool:
        """Whether it is there, after waiting for so long at most, or some hundredths of a second longer; 0: at once.

        Raises:
            ServiceUnreachable: the server did not answer; ask again.
        """
        try:
            if self._connection is None:
                pool = self._node.connection_pool
                one: Any = redis.Redis  # it connects at once
                self._connection = calling(one, connection_pool=pool, single_connection_client=True)
                calling(self._connection.set, self._key, "1")
            local = _on_disk(self._connection, timeout_ms)
        except (ServiceUnreachable, LedgerError):
            self.close()
            raise
        if local:
            self.close()
        return bool(local)

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _on_disk(connection: redis.Redis, timeout_ms: int) -> int:
    """1 where all that was written on this connection is on the disk, else 0."""
    ask = connection.execute_command
    if timeout_ms:
        return int(calling(ask, "WAITAOF", 1, 0, timeout_ms)[0])
    calling(
        ask, "MULTI"
    )  # in a transaction no command waits; outside, the shortest wait is a server's tenth of a second
    calling(ask, "WAITAOF", 1, 0, 0)
    return int(calling(ask, "EXEC")[0][0])


def _node_of(client: Client, key: str) -> redis.Redis:
    """The client of the one server that holds a key."""
    if isinstance(client, RedisCluster):
        owner: Any = client.get_node_from_key  # redis-py gives it no types
        return client.get_redis_connection(owner(key))
    return client


def _text(found: object) -> str:
    return found.decode() if isinstance(found, bytes) else str(found)
