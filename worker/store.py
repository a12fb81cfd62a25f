"""What the monitor keeps in Redis, changed only by the functions of `store.lua`.

Of each partition, under the hash tag of its ledger, so that one call moves cursor and sums (and a cluster holds them
on one node):

    monitor    hash: token, place (the last block that was counted), newest step, observations, which trails count
    sums       hash: hour/<version>/<hour>, day/…, life/… → sums; inputs/<version>/<hour> → counts of inputs
    losses     hash: <step>/<version> → number and sum of losses that the detectors were not fed yet
    duels      hash: <step>/<answering version>/<other version> → sums that gate and guard were not fed yet
    trails     hash: <set>/<first slot> → the last values of series
    needs      the ledger's: `monitor` and `archive` say which blocks are still read

Of the model: lease (who leads), drift, gate, asking (hashes: revision, state), drift_losses (list), requests (stream).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from consumers.ledger import block_position, partition_tag
from models.duels import Duel
from models.errors import FencedError, LedgerError, OffsetConflict
from models.references import Recent
from models.registry import model_tag
from models.server import Client, call_function, calling
from models.tally import COLUMNS, reported_leads
from models.windows import KINDS, Book, Key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from consumers.ledger import Head, Ledger
    from models.blocks import Ints
    from models.duels import Duels
    from models.references import Trails

LIBRARY = "killick_monitor_v3"
CODE = resources.files("worker").joinpath("store.lua")
FORMAT = 1  # of the bytes of sums and trails
TRAIL_SLOTS = 2_048  # in one call, at most
TRAIL_BYTES = 1_000_000  # in one call, about
START = block_position(-1)
Record = Literal["gate", "asking"]

DUEL = struct.Struct(f"<{len(Duel._fields)}d")

Losses = dict[tuple[int, int], tuple[int, float]]  # (step, version) → number, sum


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of whoever retrains, with the evidence."""

    id: str
    trigger: str
    goal: str  # restore, improve or investigate
    why: str
    evidence: dict[str, Any]
    created_ms: int


@dataclass
class Standing:
    """Where a partition's monitor stands."""

    place: str = START
    newest: int | None = None  # step
    observations: int = 0
    trails: str = ""  # the set that counts, and its place
    trails_place: str = START

    @property
    def offset(self) -> int:
        """Up to where everything is counted."""
        return offset_of(self.place)


@dataclass
class Advance:
    """What a stretch of blocks changed: absolute values, so that doing it twice is doing it once."""

    expected: str
    place: str
    newest: int
    observations: int
    sums: dict[str, bytes] = field(default_factory=dict)
    forget_sums: Sequence[str] = ()
    losses: Losses = field(default_factory=dict)
    forget_losses: Sequence[tuple[int, int]] = ()
    duels: Duels = field(default_factory=dict)
    forget_duels: Sequence[tuple[int, int, int]] = ()


class PartitionStore:
    """One partition's records; written under the token of whoever took it last."""

    def __init__(self, client: Client, model: str, partition: int, token: str = "") -> None:
        self._client = client
        self._tag = partition_tag(model, partition)
        self._token = token
        self.partition = partition

    def take(self) -> Standing:
        """Where it stands; nobody else writes from now on.

        Raises:
            LedgerError: another format.
            ServiceUnreachable: Redis did not answer.
        """
        self._call("take", ["monitor"], [])
        return self.standing()

    def standing(self) -> Standing:
        """Where it stands."""
        found = calling(self._client.hgetall, self._tag + "monitor")
        words = {name.decode(): value.decode() for name, value in found.items()}
        known = {"place", "newest", "observations", "trails", "trails_place"}
        return msgspec.convert({k: v for k, v in words.items() if k in known}, Standing, strict=False)

    def sums(self) -> tuple[Book, dict[tuple[int, int], Ints]]:
        """All sums; and counts of inputs by (version, hour), `(F, bins)` as one row."""
        book = Book()
        inputs: dict[tuple[int, int], Ints] = {}
        for name, data in calling(self._client.hgetall, self._tag + "sums").items():
            kind, version, at = name.decode().split("/")
            if kind in KINDS:
                horizon, book.sums[Key(kind, int(version), int(at))] = decode_sums(data)
                book.leads[int(version)] = reported_leads(horizon)
            else:
                inputs[int(version), int(at)] = np.frombuffer(data, "<i8").copy()
        return book, inputs

    def losses(self) -> Losses:
        """Losses that the detectors may not have been fed."""
        found: Losses = {}
        for name, data in calling(self._client.hgetall, self._tag + "losses").items():
            step, version = map(int, name.decode().split("/"))
            found[step, version] = struct.unpack("<qd", data)
        return found

    def duels(self) -> Duels:
        """Duels that gate and guard may not have been fed."""
        found: Duels = {}
        for name, data in calling(self._client.hgetall, self._tag + "duels").items():
            step, first, second = map(int, name.decode().split("/"))
            found[step, first, second] = Duel(*DUEL.unpack(data))
        return found

    def advance(self, change: Advance) -> None:
        """Move cursor and sums. Where no answer came, call again with the same change.

        Raises:
            FencedError: another monitor took the partition.
            OffsetConflict: Redis stands elsewhere: it lost its tail.
            ServiceUnreachable: Redis did not answer.
        """
        arguments: list[bytes | str | int] = [change.expected, change.place, change.newest, change.observations]
        losses = {_slashed(key): struct.pack("<qd", *loss) for key, loss in change.losses.items()}
        gone = [_slashed(key) for key in change.forget_losses]
        arguments += [len(change.sums), *_flat(change.sums), len(change.forget_sums), *change.forget_sums]
        arguments += [len(losses), *_flat(losses), len(gone), *gone]
        duels = {_slashed(key): DUEL.pack(*duel) for key, duel in change.duels.items()}
        gone = [_slashed(key) for key in change.forget_duels]
        arguments += [len(duels), *_flat(duels), len(gone), *gone]
        self._call("advance", ["monitor", "sums", "losses", "duels"], arguments)

    def keep_trails(self, trails: Trails, place: str, offset: int) -> None:
        """Keep the trails as they are at `place`; blocks that end at or before `offset` are no longer needed.

        Raises:
            FencedError, ServiceUnreachable: as `advance`.
        """
        name = place
        slots = max(1, min(TRAIL_SLOTS, TRAIL_BYTES // (8 * trails.depth)))
        for first in range(0, len(trails), slots):
            recent = trails.recent(first, min(slots, len(trails) - first))
            self._call("trail", ["monitor", "trails", "needs"], [name, first, _encode_recent(recent)])
        self._call("keep", ["monitor", "trails", "needs"], [name, place, offset])

    def trails(self, name: str) -> Iterator[tuple[int, Recent]]:
        """The trails of a set: first slot and what was kept."""
        for entry, data in calling(self._client.hgetall, self._tag + "trails").items():
            of, _, first = entry.decode().rpartition("/")
            if of == name:
                yield int(first), _decode_recent(data)

    def need(self, name: str, offset: int | None) -> None:
        """Say up to where blocks are no longer needed; None: none are.

        Raises:
            FencedError, ServiceUnreachable: as `advance`.
        """
        self._call("need", ["monitor", "needs"], [name, "" if offset is None else offset])

    def needed(self) -> dict[str, int]:
        """Who needs the blocks after which offset."""
        found = calling(self._client.hgetall, self._tag + "needs")
        return {name.decode(): int(offset) for name, offset in found.items()}

    def _call(self, function: str, keys: Sequence[str], arguments: Iterable[bytes | str | int]) -> None:
        names = [self._tag + key for key in keys]
        reply = call_function(self._client, CODE, f"{LIBRARY}_{function}", names, [self._token, *arguments])
        judge(reply, f"the monitor's record of partition {self.partition}")


class ModelStore:
    """What the monitors of a model share: who leads, the detectors' state, the requests."""

    def __init__(self, client: Client, model: str, token: str = "") -> None:
        self._client = client
        self._tag = model_tag(model)
        self._token = token

    def lease(self, milliseconds: int) -> bool:
        """Whether this monitor leads, for so long."""
        arguments: list[bytes | str | int] = [self._token, milliseconds]
        return bool(self._function("lease", ["lease"], arguments)[0] == b"ok")

    def release(self) -> None:
        """Lead no longer."""
        self._function("release", ["lease"], [self._token])

    def led(self) -> bool:
        """Whether anybody leads."""
        return bool(calling(self._client.exists, self._tag + "lease"))

    def drift(self) -> tuple[int, bytes]:
        """Revision and state of the detectors; empty where there is none yet."""
        revision, state = calling(self._client.hmget, self._tag + "drift", ["revision", "state"])
        return int(revision or 0), state or b""

    def drift_losses(self) -> list[float]:
        """The losses that the detectors were fed and still need, oldest first."""
        found = calling(self._client.lrange, self._tag + "drift_losses", 0, -1)
        return [struct.unpack("<d", loss)[0] for loss in found]

    def change_drift(
        self,
        revision: int,
        state: bytes,
        losses: Sequence[float],
        forget: int,
        requests: Sequence[Request],
        answers: int | None = None,
    ) -> None:
        """Put down the detectors' state after `losses` more, of all of which the oldest are let go; and ask.

        Where another version `answers` by now, what was asked for because of the drift, or the skill, of one before is
        let go, also if somebody is at work on it. Where no answer came, call again with the same words.

        Raises:
            FencedError: another monitor leads.
            OffsetConflict: Redis stands elsewhere: it lost its tail.
            ServiceUnreachable: Redis did not answer.
        """
        arguments: list[bytes | str | int] = [self._token, revision, state, len(losses)]
        arguments += [struct.pack("<d", loss) for loss in losses]
        arguments += [forget, "" if answers is None else answers]
        arguments += [msgspec.json.encode(request) for request in requests]
        reply = self._function("drift", ["lease", "drift", "drift_losses", "requests"], arguments)
        judge(reply, "the detectors' state")

    def state(self, name: Record) -> tuple[int, bytes]:
        """Revision and state of gate and guard, or of what was asked for; empty where there is none yet."""
        revision, state = calling(self._client.hmget, self._tag + name, ["revision", "state"])
        return int(revision or 0), state or b""

    def change(self, name: Record, revision: int, state: bytes, requests: Sequence[Request] = ()) -> None:
        """Put down such a state, and ask. Where no answer came, call again with the same words.

        Raises:
            FencedError, OffsetConflict, ServiceUnreachable: as `change_drift`.
        """
        arguments: list[bytes | str | int] = [self._token, revision, state]
        arguments += [msgspec.json.encode(request) for request in requests]
        judge(self._function("change", ["lease", name, "requests"], arguments), f"the state {name!r}")

    def waiting(self) -> tuple[int, int | None]:
        """How many requests wait, and when the oldest was made, in milliseconds since 1970."""
        key = self._tag + "requests"
        oldest = calling(self._client.xrange, key, count=1)
        made = [msgspec.json.decode(fields[b"request"], type=Request).created_ms for _, fields in oldest]
        return int(calling(self._client.xlen, key)), made[0] if made else None

    def requests(self) -> list[Request]:
        """What waits to be worked off, oldest first."""
        entries = calling(self._client.xrange, self._tag + "requests")
        return [msgspec.json.decode(fields[b"request"], type=Request) for _, fields in entries]

    def _function(self, name: str, keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> list[Any]:
        return call_function(self._client, CODE, f"{LIBRARY}_{name}", [self._tag + key for key in keys], arguments)


def counted_to(standing: Standing, ledger: Ledger, head: Head) -> int:
    """Up to which offset everything is counted: records after the last block that were refused are, too."""
    waits, _ = ledger.read_blocks(standing.place, 1, head.next)
    return standing.offset if waits else head.next


def offset_of(place: str) -> int:
    """The end of the block that stands at a place."""
    return int(place.partition("-")[0])


def encode_sums(leads: tuple[int, ...], sums: np.ndarray) -> bytes:
    """Sums `(leads + 1, COLUMNS)` as bytes; the last of the leads is the horizon."""
    return struct.pack("<HHH", FORMAT, leads[-1], sums.shape[1]) + sums.astype("<f8").tobytes()


def decode_sums(data: bytes) -> tuple[int, np.ndarray]:
    """Horizon and sums.

    Raises:
        LedgerError: bytes of another format.
    """
    number, horizon, columns = struct.unpack_from("<HHH", data)
    if number != FORMAT or columns != len(COLUMNS):
        raise LedgerError(
            f"error sums have format {number} with {columns} columns, known is {FORMAT}", "upgrade killick"
        )
    return horizon, np.frombuffer(data, "<f8", offset=6).reshape(-1, columns).copy()


def sums_field(key: Key) -> str:
    """The field that holds an entry of the book."""
    return f"{key.kind}/{key.version}/{key.at}"


def _encode_recent(recent: Recent) -> bytes:
    slots, depth = recent.values.shape
    head = struct.pack("<HII", FORMAT, slots, depth)
    return (
        head
        + recent.last.astype("<i8").tobytes()
        + recent.known.astype("<u4").tobytes()
        + recent.values.astype("<f8").tobytes()
    )


def _decode_recent(data: bytes) -> Recent:
    number, slots, depth = struct.unpack_from("<HII", data)
    if number != FORMAT:
        raise LedgerError(f"trails have format {number}, known is {FORMAT}", "upgrade killick")
    at = 10
    last = np.frombuffer(data, "<i8", slots, at).astype(np.int64)
    known = np.frombuffer(data, "<u4", slots, at + 8 * slots).astype(np.int64)
    values = np.frombuffer(data, "<f8", slots * depth, at + 12 * slots).reshape(slots, depth).astype(np.float64)
    return Recent(last, known, values)


def judge(reply: Sequence[Any], what: str) -> None:
    """Refuse what the monitor's functions refused; `what` names the record.

    Raises:
        FencedError, OffsetConflict, LedgerError: it is so.
    """
    kind = reply[0]
    if kind == b"fenced":
        raise FencedError(f"{what} was taken by another monitor", "one leads, the others stand by")
    if kind == b"moved":
        raise OffsetConflict(f"{what} stands elsewhere: Redis lost its tail", next_offset=0)
    if kind == b"differs":
        theirs, ours = (word.decode() for word in reply[1:])
        raise LedgerError(f"{what} has format {theirs}, known is {ours}", "upgrade killick")


def _slashed(key: Iterable[int]) -> str:
    return "/".join(map(str, key))


def _flat(words: Mapping[str, bytes]) -> Iterator[bytes | str]:
    for name, value in words.items():
        yield name
        yield value
