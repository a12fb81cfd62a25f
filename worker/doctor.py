"""What `killick doctor` looks at: each finding with its cure. Clients and facts are passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from models.errors import KillickError, ServiceUnreachable
from worker.durations import Duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from models.server import Promise

REPAIRING_VALKEY = (9, 1)
MIN_REDIS = (7, 0)
SKEW_LIMIT_MS = 2_000
GIB = 1 << 30
DEAD_LETTER_PARTITIONS = 1
BLOCK_BYTES = 250  # a block's own cost in a stream: id, header and Redis' bookkeeping
SLOT_BYTES = 10  # slot, step and scale of one observation

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    status: Status
    subject: str
    message: str
    cure: str = ""
    unreachable: bool = False


class Topics(Protocol):
    """What looking at topics needs of a `consumers.kafka_admin.Admin`."""

    def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has; None: it is not there."""

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> bool:
        """Whether the topic was created."""


def exit_code(findings: list[Finding]) -> int:
    """0 without a failure, 3 if a service can't be reached, else 1."""
    if any(finding.unreachable for finding in findings):
        return ServiceUnreachable.exit_code
    return 1 if any(finding.status == "fail" for finding in findings) else 0


def failure(subject: str, error: KillickError) -> Finding:
    """An error as a finding."""
    return Finding("fail", subject, error.message, error.cure, unreachable=isinstance(error, ServiceUnreachable))


def of_topics(admin: Topics, names: Mapping[str, str], dead_letters: str, *, create: int | None) -> Iterator[Finding]:
    """One finding for each topic of {setting: topic}; `create`: partitions of those to make."""
    for setting, topic in names.items():
        wanted = DEAD_LETTER_PARTITIONS if topic == dead_letters else create
        held = admin.partitions(topic)
        if held is not None:
            yield Finding("ok", f"topic {topic}", f"{held} partitions")
        elif create is not None and wanted is not None:
            made = admin.create_topic(topic, wanted)
            yield Finding("ok", f"topic {topic}", f"created with {wanted} partitions" if made else "is there by now")
        else:
            yield Finding(
                "fail",
                f"topic {topic}",
                "is not there",
                f"`killick doctor --create-topics` creates it; or set kafka.{setting}",
            )


def of_redis(facts: Mapping[str, Any], promised: Promise, now_ms: int, server_ms: int) -> Iterator[Finding]:
    """What the server's facts promise and what they don't; `promised`: what survives a power cut."""
    name, version = server_version(facts)
    shown = ".".join(str(part) for part in version)
    if name == "Redis" and version < MIN_REDIS:
        yield Finding("fail", "redis version", f"Redis {shown} has no functions", "run Redis 7 or later, or Valkey")
    else:
        yield Finding("ok", "redis version", f"{name} {shown}")
    yield _eviction(_text(facts, "maxmemory-policy") or _text(facts, "maxmemory_policy"))
    yield _durability(_text(facts, "appendonly"), _text(facts, "appendfsync"), promised)
    yield _broken_tail(name, version, _text(facts, "appendonly"), _text(facts, "aof-load-truncated"))
    skew_ms = abs(server_ms - now_ms)
    if skew_ms > SKEW_LIMIT_MS:
        yield Finding(
            "warn",
            "clocks",
            f"Redis' clock and this machine's differ by {skew_ms:,} ms, the limit is {SKEW_LIMIT_MS:,}",
            "run NTP on both",
        )
    else:
        yield Finding("ok", "clocks", f"Redis' clock and this machine's differ by {skew_ms} ms")


def server_version(facts: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """Name and version of the server; a Valkey calls itself Redis 7.2 too, for old clients."""
    valkey = _text(facts, "valkey_version")
    text = valkey or _text(facts, "redis_version")
    numbers = tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
    return ("Valkey" if valkey else "Redis"), numbers


def _eviction(policy: str) -> Finding:
    if policy in ("noeviction", ""):
        return Finding("ok", "redis eviction", "noeviction: nothing is thrown away when memory is full")
    return Finding(
        "fail",
        "redis eviction",
        f"maxmemory-policy is {policy}: a full server would throw parts of the ledger away",
        "set maxmemory-policy noeviction",
    )


def _durability(appendonly: str, appendfsync: str, promised: Promise) -> Finding:
    """What a power cut can cost; a crash of the server alone costs nothing with an append-only file."""
    subject = "redis durability"
    if appendonly == "no":
        return Finding(
            "warn",
            subject,
            "appendonly is off: ledger and versions are gone when the server stops",
            "set appendonly yes, and appendfsync everysec or always",
        )
    if promised == "always":
        return Finding("ok", subject, "appendfsync always: commits and swaps are on disk when they are acknowledged")
    if promised == "on request":
        return Finding(
            "ok",
            subject,
            f"appendfsync {appendfsync or 'unknown'}, WAITAOF: a power cut may cost a second of commits, which is read "
            "again; a new version publishes nothing before its swap is on disk",
        )
    return Finding(
        "warn",
        subject,
        f"appendfsync {appendfsync or 'unknown'}, and no WAITAOF that waits for the disk: a power cut may cost "
        "commits, which are read again, and may forget a swap whose forecasts are published already",
        "set appendfsync always; or run a Redis whose WAITAOF waits, 7.4 or later (that of Valkey 9.1 does not)",
    )


def _broken_tail(name: str, version: tuple[int, ...], appendonly: str, load_truncated: str) -> Finding:
    """What becomes of an append-only file that breaks off within a commit, as a power cut may leave it.

    Redis 7.0 lets go of the commit, but leaves its beginning in the file; at the start after that one, it becomes a
    part of what was written next. Valkey 9.1 takes it out (https://github.com/valkey-io/valkey/pull/4342).
    """
    subject = "redis repair"
    if appendonly == "no" or load_truncated == "no":
        return Finding("ok", subject, "no append-only file that breaks off is loaded without a repair")
    if name == "Valkey" and version >= REPAIRING_VALKEY:
        return Finding("ok", subject, "of an append-only file that breaks off, half a commit is taken out")
    return Finding(
        "warn",
        subject,
        "aof-load-truncated is yes: where a power cut breaks the append-only file off, this server may put half a "
        "commit into the ledger, not at the next start but at the one after it",
        "set aof-load-truncated no, and repair such a file with `redis-check-aof --fix` before the server starts",
    )


def of_monitor(*, runs: bool, behind: int, kept: bool) -> Finding:
    """What a monitor that stopped costs; `behind`: records that none counted, `kept`: the ledger keeps them for one."""
    if not runs and kept and behind:
        return Finding(
            "warn",
            "monitor",
            f"none runs, and {behind:,} records wait for one: Redis keeps their blocks until it is full",
            "start `killick monitor`; if none is to run any more, `killick monitor --leave`",
        )
    work = "runs" if runs else "none runs: nobody watches skill and drift"
    return Finding("ok", "monitor", f"{work}; {behind:,} records are not counted")


@dataclass(frozen=True)
class Load:
    """The numbers that memory follows from."""

    features: int
    horizon: int
    series: int
    interval_ms: int
    retention_ms: int
    series_state_bytes: int
    carried_bytes: int

    @property
    def observations_per_s(self) -> float:
        """The rate of all series together."""
        return self.series * 1_000 / self.interval_ms

    @property
    def bytes_per_observation(self) -> int:
        """Redis' bytes for an observation and its pairs: F values, H forecasts, and what names them."""
        return 8 * self.features + 4 * self.horizon + SLOT_BYTES

    @property
    def retained_bytes(self) -> int:
        """Redis' bytes for what retention keeps."""
        steps = math.ceil(self.retention_ms / self.interval_ms)
        return self.series * steps * self.bytes_per_observation + steps * BLOCK_BYTES

    @property
    def snapshot_bytes(self) -> int:
        """Redis' bytes for the newest snapshot, at most."""
        return self.series * (self.series_state_bytes + self.carried_bytes)


def of_sizing(load: Load, limit_bytes: int) -> Iterator[Finding]:
    """The sum for the user: what Redis holds when retention is reached, and when it is full otherwise."""
    needed = load.retained_bytes + load.snapshot_bytes
    rate = load.observations_per_s
    about = (
        f"{load.series:,} series every {Duration(load.interval_ms)}, each observation "
        f"{load.bytes_per_observation} bytes with its pairs: {_size(needed)} at the end of retention"
    )
    if limit_bytes <= 0:
        yield Finding("ok", "redis memory", about)
    elif needed <= 0.75 * limit_bytes:
        yield Finding("ok", "redis memory", f"{about}, of {_size(limit_bytes)}")
    else:
        full_s = max(0.0, limit_bytes - load.snapshot_bytes) / (rate * load.bytes_per_observation)
        yield Finding(
            "warn",
            "redis memory",
            f"{about}; {_size(limit_bytes)} are full after {_span(full_s)}",
            "shorten ledger.retention, or give Redis more memory",
        )
    per_series = load.series_state_bytes + load.carried_bytes
    yield Finding(
        "ok",
        "consumer memory",
        f"{per_series:,} bytes a series, {_size(load.series * per_series)} for {load.series:,} (one version)",
    )


def _size(count: int) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _text(facts: Mapping[Any, Any], name: str) -> str:
    """A fact as text: `CONFIG GET` answers in bytes, `INFO` in text."""
    found = facts.get(name, facts.get(name.encode(), ""))
    return found.decode() if isinstance(found, bytes) else str(found)


def memory_limit(facts: Mapping[str, Any]) -> int:
    """Bytes that the server may use: its own limit, else the machine's memory; 0 if neither is known."""
    for name in ("maxmemory", "total_system_memory"):
        text = _text(facts, name)
        if text.isdigit() and int(text) > 0:
            return int(text)
    return 0
