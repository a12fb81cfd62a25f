"""Real faults, done to a killick under load: what is broken, for how long, and when the stream has moved on.

A scene is one stream with its servers and consumers; a strike breaks something in it, mends it, and gives back the
seconds until every partition that was hit has published more than before.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import msgspec

from consumers.roster import incumbent_of
from tests.integration.feeding import feeding
from tests.integration.harness import ConsumerProcess, Stack, wait
from tests.integration.operator import LATEST_S, commanding
from tests.integration.oracle import Comparison, compare
from tests.integration.shares import share
from tests.integration.streams import troubled
from tests.services.disk import Disk
from tests.services.proxy import WAYS
from tests.services.redis import RedisServer, redis_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager

    from models.registry import Aliases
    from tests.services.kafka import KafkaBroker
    from tests.services.proxy import Proxy

Fsync = Literal["always", "everysec"]

RATE = 400  # records a second
SERIES, STEPS = 60, 5_000
SESSION_S = 2.0
RECOVERED_S = 30.0
TOLD_S = 0.4  # by then the ledger knows the mark of what was acknowledged before
SETTINGS: dict[str, dict[str, object]] = {
    "model": {"features": ["value", "load"], "max_gap": "5h"},
    "kafka": {"max_poll_records": 100, "session_timeout": f"{SESSION_S * 1000:.0f}ms"},
    "redis": {"timeout": "500ms"},
    "ledger": {"snapshot_every": 400},
}


VERSIONS = 12
EXEC = b"\r\nEXEC\r\n"  # the end of a transaction in an append-only file
ARCHITECTURES: tuple[dict[str, Any], ...] = ({}, {"cell": "gru"}, {"units": (6, 4)}, {"form": "plain"})


class Servers(NamedTuple):
    """A broker, and the line to its second listener."""

    broker: KafkaBroker
    proxy: Proxy

    def mend(self) -> None:
        """Both work again, whatever was done to them."""
        self.proxy.open(broken=True)
        self.broker.start()


class Scene:
    """One stream, its servers and its consumers; a context manager. A Redis of its own, as it may lose its tail."""

    def __init__(self, kind: Kind, servers: Servers, folder: Path, seed: int) -> None:
        self._resources = ExitStack()
        self.kind, self.broker, self.proxy = kind, servers.broker, servers.proxy
        self.disk = self._resources.enter_context(Disk()) if kind.on_disk else None
        environment = self.disk.environment if self.disk else None
        self.redis = self._resources.enter_context(RedisServer(redis_binary(), kind.fsync, environment=environment))
        self.stack = self._resources.enter_context(
            Stack(self.broker.bootstrap_servers, self.redis.url, folder, partitions=kind.partitions, settings=SETTINGS)
        )
        self._register(seed)
        self.messages = troubled(seed, SERIES, STEPS, features=("value", "load"))
        self.faults = 0  # that were done
        self.so_far = Comparison()
        self.consumers: list[ConsumerProcess] = []
        try:
            self._begin()
        except BaseException:
            sys.stderr.write(self.stack.logs())
            self.close()
            raise
        self.floor = self.redis.log.stat().st_size  # what the append-only file keeps in every fault

    def _begin(self) -> None:
        """Start the consumers, and wait until every partition has published something."""
        for _ in range(self.kind.consumers):
            self.start()
        with self.load():
            share(self.consumers, self.kind.partitions)
            wait(lambda: all(mark > 0 for mark in self.marks()), RECOVERED_S, "the first marks")

    def _register(self, seed: int) -> None:
        """The first version; where versions change, also those that may follow, of several architectures."""
        self.stack.register(seed=seed)
        first = self.stack.settings.architecture((1.0,) * self.stack.settings.model.horizon)
        for number in range(VERSIONS if self.kind.swaps else 0):
            self.stack.register(
                seed + number, msgspec.structs.replace(first, **ARCHITECTURES[number % len(ARCHITECTURES)])
            )

    def kept(self) -> int:
        """How much of the append-only file no fault takes: the beginning, and all up to the last change of a roster.

        A version's forecasts are published on the server's word that its roster is on the disk. Where the server gives
        no such word (Redis 7.0 and Valkey 9.1, unless they sync always), a power cut may make it forget a version
        that has answered; `killick doctor` says so, and it is not what is tested here.
        """
        content = self.redis.log.read_bytes()
        roster = content.rfind(b":roster\r\n")
        return max(self.floor, content.find(EXEC, roster) + len(EXEC) if roster >= 0 else 0)

    def start(self) -> ConsumerProcess:
        """One more consumer; the first of a scene with a proxy goes through it."""
        given = {}
        if self.kind.proxied and not self.consumers:
            given["KILLICK_KAFKA__BOOTSTRAP_SERVERS"] = self.proxy.address
        self.consumers.append(self.stack.consumer(**given))
        return self.consumers[-1]

    def load(self) -> AbstractContextManager[object]:
        """The stream goes on as long as the block runs."""
        return feeding(self.stack, self.messages, RATE)

    def marks(self) -> list[int]:
        """Up to where forecasts are known to be published, by partition."""
        return [head.mark if head else 0 for head in self.stack.heads()]

    def reach(self, records: int) -> None:
        """Wait until so many records more are committed, over all partitions."""
        wanted = self.stack.progress() + records
        wait(lambda: self.stack.progress() >= wanted, RECOVERED_S, f"{wanted} records")

    def recovered(self, since: float, before: Sequence[int], numbers: Collection[int] | None = None) -> float:
        """Wait until these partitions (all) have published more than before; the seconds since then."""
        wanted = range(len(before)) if numbers is None else numbers

        def moved() -> bool:
            self.stack.alive()
            marks = self.marks()
            return all(marks[number] > before[number] for number in wanted)

        wait(moved, RECOVERED_S, lambda: f"marks beyond {list(before)}: {self.marks()}")
        return time.monotonic() - since

    def followed(self, told: Aliases | None) -> None:
        """Wait until every partition is answered by the version that the registry names: what an operator was told.

        Where Redis lost its tail, the command may be forgotten; the partitions follow what is left.
        """

        def reached() -> bool:
            self.stack.alive()
            answer = self.stack.registry.aliases().incumbent
            return all(incumbent_of(self.stack.ledger(n).roster()) == answer for n in range(self.kind.partitions))

        wait(reached, RECOVERED_S, lambda: f"{self.stack.registry.aliases()}: {self._states()}")
        if told is not None and not self.kind.forgets:
            assert self.stack.registry.aliases().incumbent == told.incumbent, f"the registry forgot {told}"

    def _states(self) -> list[object]:
        ledgers = [self.stack.ledger(number) for number in range(self.kind.partitions)]
        return [(ledger.state(), incumbent_of(ledger.roster())) for ledger in ledgers]

    def rewinds(self) -> int:
        """How often a consumer noticed that Redis had lost its tail."""
        lines = [line for process in self.stack.processes for line in process.lines()]
        return sum("Redis lost its tail" in line["message"] for line in lines)

    def close(self) -> None:
        """End everything that is this scene's alone."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Kind:
    """One kind of fault, and what a scene for it needs."""

    title: str
    strike: Callable[[Scene, random.Random], float]
    clock: str  # from when the seconds to recover are counted
    consumers: int = 1
    partitions: int = 2
    fsync: Fsync = "everysec"
    on_disk: bool = False
    proxied: bool = False
    forgets: bool = False  # Redis may lose its tail
    swaps: bool = False  # versions are promoted and rolled back meanwhile

    @property
    def with_swaps(self) -> Kind:
        """The same, while versions are promoted and rolled back.

        A swap that Redis forgets is answered for by no one: see `kept`. A kill may cost a Redis that does not sync
        always what it has not handed over to the kernel.
        """
        fsync: Fsync = "always" if self.strike is kill_redis else self.fsync
        return replace(self, title=f"… and swaps: {self.title}", swaps=True, fsync=fsync)


@dataclass
class Run:
    """What came of one fault; what is compared at its end is the whole stream so far."""

    seed: int
    faults: int
    commands: int  # promotions and rollbacks
    records: int
    duplicated: int
    rewinds: int
    recovered_s: float
    seconds: float
    outcome: Comparison


def run(scene: Scene, seed: int) -> Run:
    """Load, one fault at a moment by chance, recovery; then everything is compared with one uninterrupted run."""
    rng = random.Random(seed)
    began, faults, rewinds, so_far = time.monotonic(), scene.faults, scene.rewinds(), scene.so_far
    with scene.load():
        scene.reach(rng.randint(50, 400))
        time.sleep(rng.uniform(0, 0.05))
        scene.faults += 1
        with commanding(scene.stack, rng) if scene.kind.swaps else nullcontext() as operator:
            time.sleep(rng.uniform(0, LATEST_S) if scene.kind.swaps else 0)
            recovered_s = scene.kind.strike(scene, rng)
        scene.followed(operator.told if operator else None)
        scene.reach(rng.randint(50, 100))
    scene.stack.done()
    found = scene.so_far = compare(scene.stack)
    return Run(
        seed,
        scene.faults - faults,
        operator.commands if operator else 0,
        found.records - so_far.records,
        found.duplicated - so_far.duplicated,
        scene.rewinds() - rewinds,
        recovered_s,
        time.monotonic() - began,
        found,
    )


def kill_consumer(scene: Scene, rng: random.Random) -> float:
    """SIGKILL; the next one starts at once, and now and then is killed too, wherever it is then."""
    scene.consumers.pop().kill()
    if rng.random() < 0.15:
        scene.start()
        time.sleep(rng.uniform(0, 5))
        scene.consumers.pop().kill()
        scene.faults += 1
    before, began = scene.marks(), time.monotonic()
    scene.start()
    return scene.recovered(began, before)


def zombie(scene: Scene, rng: random.Random) -> float:
    """One of two hangs until the other has taken its partitions and gone on, then wakes in the midst of the stream."""
    victim = rng.choice(scene.consumers)
    held, began = victim.held(), time.monotonic()
    victim.pause()
    seconds = scene.recovered(began, scene.marks(), held)
    time.sleep(rng.uniform(0, 0.7))
    victim.resume()
    share(scene.consumers, scene.kind.partitions)
    return seconds


def three_and_back(scene: Scene, rng: random.Random) -> float:
    """Two more consumers join; then two of the three leave, one in order and one killed."""
    scene.start()
    scene.start()
    share(scene.consumers, scene.kind.partitions)
    time.sleep(rng.uniform(0, 0.5))
    scene.faults += 3  # beside the one that each run counts
    seconds = []
    rng.shuffle(scene.consumers)
    for in_order in rng.sample((True, False), 2):
        leaver = scene.consumers.pop()
        held, began = leaver.held(), time.monotonic()
        if in_order:
            leaver.stop()
        else:
            leaver.kill()
        seconds.append(scene.recovered(began, scene.marks(), held))
    return max(seconds)


def kill_redis(scene: Scene, rng: random.Random) -> float:
    """SIGKILL, and back a while later with all that it had written."""
    before = scene.marks()
    scene.redis.kill()
    return _redis_back(scene, rng, before)


def cut_log(scene: Scene, rng: random.Random) -> float:
    """The append-only file ends at a random byte; it is repaired before the server is started.

    A Redis that loads a file which breaks off within a function's writes leaves their beginning in it, and takes it
    for whole at the start after next: half a commit. `redis-check-aof --fix` removes it.
    """
    before = scene.marks()
    scene.redis.kill()
    log = scene.redis.log
    os.truncate(log, rng.randint(scene.kept(), log.stat().st_size))
    repair(log)
    return _redis_back(scene, rng, before)


def lose_unsynced(scene: Scene, rng: random.Random) -> float:
    """A power cut: of the append-only file only what was synced is left."""
    assert scene.disk is not None
    before = scene.marks()
    scene.redis.kill()
    scene.disk.lose_unsynced(scene.redis.log, scene.kept())
    return _redis_back(scene, rng, before)


def fill_disk(scene: Scene, rng: random.Random) -> float:
    """Nothing more can be appended: Redis refuses, or ends; now and then it is killed so. Then there is room again."""
    assert scene.disk is not None
    before = scene.marks()
    scene.disk.fill()
    if scene.kind.fsync == "always":
        wait(lambda: not scene.redis.process.running(), RECOVERED_S, "Redis to end")
    else:
        process = scene.consumers[0]
        wait(lambda: "Redis" in process.waiting_for(), RECOVERED_S, lambda: f"/readyz: {process.page('/readyz')}")
    time.sleep(rng.uniform(0, 1))
    if scene.redis.process.running() and not scene.kind.swaps and rng.random() < 0.4:  # else it may forget a swap
        scene.redis.kill()
        scene.faults += 1
    scene.disk.free()
    if not scene.redis.process.running():
        return _redis_back(scene, rng, before)
    return scene.recovered(time.monotonic(), scene.marks())


def restart_broker(scene: Scene, rng: random.Random) -> float:
    """The broker ends, killed or now and then in order, and starts again."""
    if rng.random() < 0.75:
        scene.broker.kill()
    scene.broker.stop()
    time.sleep(TOLD_S)
    before = scene.marks()
    scene.broker.start()
    return scene.recovered(time.monotonic(), before)


def part(scene: Scene, rng: random.Random) -> float:
    """The only consumer's line to Kafka is silent, or says nothing back, or is cut; then it is mended."""
    _break(scene.proxy, rng)
    time.sleep(rng.uniform(TOLD_S, 2 * SESSION_S))
    before = scene.marks()
    scene.proxy.open(broken=rng.random() < 0.5)
    return scene.recovered(time.monotonic(), before)


def part_one_of_two(scene: Scene, rng: random.Random) -> float:
    """As `part`, but another consumer takes over, while the one that is cut off can still reach Redis."""
    held, began = scene.consumers[0].held(), time.monotonic()
    _break(scene.proxy, rng)
    time.sleep(TOLD_S)
    seconds = scene.recovered(began, scene.marks(), held)
    time.sleep(rng.uniform(0, 0.7))
    scene.proxy.open(broken=rng.random() < 0.5)
    share(scene.consumers, scene.kind.partitions)
    return seconds


def repair(log: Path) -> None:
    """What an operator does with an append-only file that is broken off."""
    words = [redis_check(), "--fix", str(log.with_name("appendonly.aof.manifest"))]
    subprocess.run(words, input=b"y\n", check=True, capture_output=True)


def redis_check() -> str:
    """The `redis-check-aof` that came with the server."""
    return str(Path(redis_binary()).with_name("redis-check-aof"))


def _break(proxy: Proxy, rng: random.Random) -> None:
    how = rng.choice(("silent", "unanswered", "cut"))
    if how == "cut":
        proxy.cut()
    else:
        proxy.silence(*(WAYS if how == "silent" else WAYS[1:]))


def _redis_back(scene: Scene, rng: random.Random, before: Sequence[int]) -> float:
    """Start Redis again; the stream is back where it was when it has passed both what is known and what was."""
    time.sleep(rng.uniform(0, 1))
    scene.redis.start()
    began = time.monotonic()
    return scene.recovered(began, [max(marks) for marks in zip(before, scene.marks(), strict=True)])


_BACK = "Redis answers again"
KINDS = {
    "kill": Kind("`kill -9` of the consumer", kill_consumer, "the next consumer is started"),
    "zombie": Kind("zombie: SIGSTOP beyond the session, then SIGCONT", zombie, "SIGSTOP", consumers=2),
    "groups": Kind("consumers 1 → 3 → 1", three_and_back, "a consumer leaves", partitions=3),
    "redis": Kind("`kill -9` of Redis", kill_redis, _BACK),
    "broker": Kind("the broker restarts", restart_broker, "Kafka serves again"),
    "cut": Kind("append-only file cut at a random byte", cut_log, _BACK, forgets=True),
    "always": Kind("power cut, `appendfsync always`", lose_unsynced, _BACK, fsync="always", on_disk=True),
    "everysec": Kind("power cut, `appendfsync everysec`", lose_unsynced, _BACK, on_disk=True, forgets=True),
    "full-always": Kind("disk full, `appendfsync always`", fill_disk, "there is room", fsync="always", on_disk=True),
    "full-everysec": Kind("disk full, `appendfsync everysec`", fill_disk, "there is room", on_disk=True, forgets=True),
    "parted": Kind("Kafka parted from the only consumer", part, "the line is mended", proxied=True),
    "parted-one": Kind("Kafka parted from one of two", part_one_of_two, "the line breaks", consumers=2, proxied=True),
}
SWAPPED = {f"{name}+swaps": kind.with_swaps for name, kind in KINDS.items()}
