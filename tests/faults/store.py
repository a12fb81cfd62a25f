"""A consumer's way to the real Redis, where calls are lost, doubled, late; and the disk that Redis comes back from."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import redis
from redis import exceptions as redis_errors

from models.blocks import FORMAT, decode_block
from models.errors import ServiceUnreachable

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from models.blocks import Block
    from tests.faults.boundaries import Boundaries
    from tests.faults.updaters import History

LIVE, DISK = "killick:", "disk:"
COPY = """
for _, key in ipairs(redis.call('KEYS', ARGV[2] .. '*')) do redis.call('DEL', key) end
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  redis.call('COPY', key, ARGV[2] .. string.sub(key, #ARGV[1] + 1))
end
"""
WRITES = {"fcall", "hset", "set"}
UPDATING = ("killick_registry_", "killick_monitor_", "killick_updating_")
ROSTER, BLOCK = b"[", bytes((FORMAT,))  # what these begin with among the arguments of a commit
RUN = "simulator:run"  # the key that holds what the server says of itself: another run id after each restart


@dataclass
class Server:
    """The one real Redis of a run, its disk, calls that are still on their way, and blocks that were let go."""

    client: redis.Redis
    history: History
    writes: int = 0
    synced: int = 0  # writes that are on disk
    restarts: int = 0
    late: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    trimmed: dict[int, dict[tuple[int, int], bytes]] = field(default_factory=dict)  # partition → block's id → bytes
    _trimmed_on_disk: dict[int, dict[tuple[int, int], bytes]] = field(default_factory=dict)

    def sync(self) -> None:
        """All that was written is on disk."""
        self.client.eval(COPY, 0, LIVE, DISK)
        self.synced = self.writes
        self._trimmed_on_disk = {p: dict(blocks) for p, blocks in self.trimmed.items()}
        self.history.sync()

    def cut(self) -> bool:
        """Redis comes back with what was on disk; whether anything is gone."""
        self.client.eval(COPY, 0, DISK, LIVE)
        lost = self.writes > self.synced
        self.writes = self.synced
        self.restarts += 1
        self.client.set(RUN, f"run_id:{self.restarts:x}")
        self.trimmed = {p: dict(blocks) for p, blocks in self._trimmed_on_disk.items()}
        self.history.cut()
        return lost

    def arrive(self) -> None:
        """A call that was believed lost is done now, and nobody hears the answer."""
        name, words = self.late.pop(0)
        with suppress(redis.ResponseError):
            self.ask(name, words, {})

    def ask(self, name: str, words: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The reply of a call; blocks that it may let go are remembered."""
        if label_of(name, words) == "trim":
            self._keep_blocks(words)
        self.writes += name in WRITES
        return getattr(self.client, name)(*words, **options)

    def _keep_blocks(self, words: tuple[Any, ...]) -> None:
        key = words[2].removesuffix("head") + "blocks"
        kept = self.trimmed.setdefault(int(key.partition("/")[2].partition("}")[0]), {})
        entries: Any = self.client.xrange(key)
        for entry, fields in entries:
            end, _, sequence = entry.partition(b"-")
            kept[int(end), int(sequence)] = fields[b"b"]

    def blocks(self, partition: int, kept: list[Block]) -> list[Block]:
        """All blocks that there ever were: those that were let go, then those that are `kept`."""
        gone = self.trimmed.get(partition, {})
        first = min((block.end for block in kept), default=1 << 60)
        return [decode_block(data, end) for (end, _), data in sorted(gone.items()) if end < first] + kept


def label_of(name: str, words: tuple[Any, ...]) -> str:
    """What a call is about."""
    if name == "fcall":
        function = str(words[0]).rpartition("_")[2]
        arguments = words[2 + int(words[1]) :]
        if str(words[0]).startswith(UPDATING):
            return str(words[0]).removeprefix("killick_").replace("_v2_", ".").replace("_v3_", ".").replace("_v1_", ".")
        if function == "commit":
            kinds = {argument[:1] for argument in arguments if isinstance(argument, bytes)}
            return "commit.roster" if ROSTER in kinds else "commit" if BLOCK in kinds else "commit.empty"
        return function
    key = str(words[0]) if words else ""
    tag, _, kind = key.rpartition("}:")
    return f"{name}.{'' if '/' in tag else 'registry.'}{kind}" if tag else name


@dataclass(frozen=True)
class Rates:
    """How often a call meets which fault."""

    unreachable: float = 0.0
    lost_answer: float = 0.0
    doubled: float = 0.0
    late: float = 0.0


class Store:
    """One consumer's client of the server."""

    def __init__(self, server: Server, rng: random.Random, boundaries: Boundaries, rates: Rates) -> None:
        self._server = server
        self._rng = rng
        self._boundaries = boundaries
        self._rates = rates
        self._restarts = server.restarts
        self._away = 0
        self._written = 0  # the newest write over the present connection
        self.tells_restarts = True  # else the client connects anew before anyone notices
        self.tells_now = False
        self.meanwhile: Callable[[], None] = lambda: None  # what others do while a call is on its way

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, name)

    def _call(self, name: str, *words: Any, **options: Any) -> Any:
        label = label_of(name, words)
        boundaries = self._boundaries
        if boundaries.quiet:
            self._restarts = self._server.restarts
            boundaries.cross(label, "before")
            reply = self._ask(name, words, options)
            boundaries.cross(label, "after")
            return reply
        boundaries.cross(label, "before")
        self.meanwhile()
        self._connection()
        fault = self._rng.random()
        rates = self._rates
        if fault < rates.unreachable:
            self._away = self._rng.choice((0, 0, 1, 3))
            self._fail("unreachable")
        fault -= rates.unreachable
        if name == "fcall" and 0 <= fault < rates.late:
            self._server.late.append((name, words))
            self._fail("late call")
        fault -= rates.late
        reply = self._ask(name, words, options)
        if 0 <= fault < rates.lost_answer:
            self._fail("lost answer")
        fault -= rates.lost_answer
        if name == "fcall" and 0 <= fault < rates.doubled:
            boundaries.fault("doubled call")
            reply = self._ask(name, words, options)
        boundaries.cross(label, "after")
        return reply

    def _ask(self, name: str, words: tuple[Any, ...], options: dict[str, Any]) -> Any:
        reply = self._server.ask(name, words, options)
        self._written = self._server.writes
        return reply

    def _connection(self) -> None:
        if self._away:
            self._away -= 1
            raise redis_errors.ConnectionError("refused (simulated)")
        if self._restarts != self._server.restarts:
            self._restarts = self._server.restarts
            self._written = 0
            if self.tells_restarts or self.tells_now:
                self.tells_now = False
                self._boundaries.fault("restart noticed")
                raise redis_errors.ConnectionError("closed (simulated)")
            self._boundaries.fault("restart not noticed")

    def _fail(self, fault: str) -> None:
        self._boundaries.fault(fault)
        raise redis_errors.ConnectionError(f"{fault} (simulated)")


class Waiting:
    """What is on its way to the disk (as models.server.OnDisk): what was written before this, over one connection."""

    def __init__(self, server: Server, boundaries: Boundaries) -> None:
        self._server = server
        self._boundaries = boundaries
        self._restarts = server.restarts
        self._since = server.writes

    def reached(self) -> bool:
        """Whether it is on the disk.

        Raises:
            ServiceUnreachable: the connection is gone; asked again, a new one knows nothing of what was before.
        """
        self._boundaries.cross("disk", "before")
        if self._restarts != self._server.restarts:
            self._restarts, self._since = self._server.restarts, self._server.writes
            raise ServiceUnreachable("Redis closed the connection (simulated)")
        if self._boundaries.quiet:
            self._server.sync()
        found = self._server.synced >= self._since
        self._boundaries.cross("disk", "after")
        return found
