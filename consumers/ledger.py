"""The ledger: a partition's record in Redis, changed only by the functions of `commit.lua`.

Keys, all under one hash tag per model and partition, so that a call stays on one node of a cluster:

    head       fence token, name of the last call, next offset, sequence, published mark, form, topic id, …
    blocks     stream of blocks, ids <next offset>-<sequence>
    history    stream of blocks of resent records: for training only
    names      list: slot → series
    refusals   stream: records that the dead-letter topic has not acknowledged yet
    counters   hash
    roster     JSON: every seat that there ever was
    series, carried    hashes of snapshots: <first slot of a chunk>@<offset> → series state; first slot → carried state
    snapshot_index     hash: first slot of a chunk → which snapshots there are of it (consumers.snapshots)
    needs      hash: who still reads → the offset up to which blocks may go
    synced     asks whether what came before it is on disk
    state      JSON: what the consumer at work says of the partition, for people
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from consumers.roster import Seat
from consumers.stream import Refusal
from models.blocks import Block, decode_block, encode_block
from models.errors import FencedError, LedgerError, OffsetConflict
from models.server import Client, call_function, calling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LIBRARY = "killick_v3"
CODE = resources.files("consumers").joinpath("commit.lua")
MAX_CALL_BYTES = 2_000_000
DIGEST_HEADER = "killick-too-big"
READ_BLOCKS = 32  # blocks in one read
READ_NAMES = 50_000
READ_CHUNKS = 64


class Head(msgspec.Struct, frozen=True):
    """The ledger's small hash."""

    next: int
    mark: int
    seq: int
    chunk_slots: int
    first: int = 0  # where the ledger began
    token: str = ""
    last: str = ""  # the name of the last call that changed the ledger
    doubt: int = 0  # up to here forecasts may have been published that Redis forgot when it was restarted
    form: str = ""
    topic_id: str = ""
    partitions: str = ""
    generation: int = 0
    trimmed: int = -1  # the newest end of the blocks that were let go; -1: none was


class PartitionState(msgspec.Struct, frozen=True):
    """How far a partition follows the registry, as its consumer said last."""

    kind: Literal["running", "spinning-up", "diverged"]
    generation: int  # of the registry
    version: int | None = None  # that is spun up, or can't be followed
    why: str = ""


class SnapshotWrite(NamedTuple):
    """One chunk's snapshot on its way; the two payloads are empty where nothing changed since the last."""

    first: int  # slot
    offset: int  # where it is true
    entry: bytes  # of the chunk in the index
    series: bytes
    carried: bytes
    forget: Sequence[int]  # offsets of older ones


class RawRecord(msgspec.Struct, frozen=True, array_like=True):
    """A Kafka record as it came: what a dead letter must give back unchanged."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int

    @property
    def is_digest(self) -> bool:
        """Only the digest and size of a record that was too big."""
        return any(name == DIGEST_HEADER for name, _ in self.headers)


@dataclass(frozen=True)
class Refused:
    """A refusal with the record that it is about."""

    refusal: Refusal
    record: RawRecord


@dataclass(frozen=True)
class Commit:
    """One change of a ledger, from offset `expected` to the block's end."""

    expected: int
    block: Block
    history: Block | None = None
    new_names: Sequence[str] = ()
    refused: Sequence[Refused] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    roster: Sequence[Seat] | None = None
    generation: int | None = None


class Ledger:
    """One partition's ledger, written under the fence token of whoever took it last."""

    def __init__(self, client: Client, model: str, partition: int, token: str = "") -> None:
        self._client = client
        self._tag = partition_tag(model, partition)
        self.partition = partition
        self.token = token
        self._last = token  # the last call of ours that was answered
        self._calls = 0
        self.taken = False  # by `take` of this object
        self._unanswered: tuple[str, str, Sequence[bytes | str | int]] | None = None  # its name, function, arguments

    @property
    def disk_key(self) -> str:
        """The key by which the disk of the ledger's server is asked."""
        return self._key("synced")

    def head(self) -> Head | None:
        """The head, or None where nothing was ever committed."""
        found = calling(self._client.hgetall, self._key("head"))
        if b"next" not in found:
            return None
        return msgspec.convert({k.decode(): v.decode() for k, v in found.items()}, Head, strict=False)

    def take(
        self,
        *,
        start: int,
        form: str,
        topic_id: str,
        partitions: int,
        chunk_slots: int,
        log_end: int = 0,
        published: bool = False,
    ) -> Head:
        """Take the partition: whoever held it before can write no more. An empty ledger begins at `start`.

        `log_end` is how far forecasts may have been published, whatever Redis remembers; of an empty ledger that
        counts where something is known to have been `published`.

        Raises:
            LedgerError: the ledger was made for another form, topic or number of partitions.
        """
        known = "1" if published else ""
        arguments: list[bytes | str | int] = [
            self.token, start, form, topic_id, partitions, chunk_slots, log_end, known,
        ]  # fmt: skip
        reply = self._call("take", ["head"], arguments)
        if reply[0] == b"differs":
            name, theirs, ours = (part.decode() for part in reply[1:])
            raise LedgerError(
                f"partition {self.partition}: the ledger was made for {name} {theirs}, now it is {ours}",
                _CURES[name],
            )
        head = self.head()
        if head is None:
            raise LedgerError(f"partition {self.partition}: the ledger vanished while it was being taken")
        self._last, self._unanswered, self.taken = self.token, None, True
        return head

    def check(self) -> str:
        """The name of the call that the ledger heard last, if it is as this owner left it.

        Raises:
            FencedError: another consumer took the partition.
            OffsetConflict: Redis came back without what was written last.
            ServiceUnreachable: Redis did not answer.
        """
        head = self.head()
        if head is not None and head.token != self.token:
            raise self._fenced()
        known = {self._last} if self._unanswered is None else {self._last, self._unanswered[0]}
        if head is None or head.last not in known:
            stands = head.next if head else 0
            raise OffsetConflict(f"partition {self.partition}: Redis lost its tail, at {stands}", next_offset=stands)
        return head.last

    def commit(self, change: Commit) -> None:
        """Make one change whole, or not at all. Where no answer came, call again with the same change.

        Raises:
            FencedError: another consumer took the partition.
            OffsetConflict: the ledger stands elsewhere.
            ServiceUnreachable: no answer; it may or may not have happened. Call again.
        """
        arguments = self._arguments(change)
        size = sum(len(a) for a in arguments if isinstance(a, bytes | str))
        if size > MAX_CALL_BYTES and len(change.block) > 1:
            raise LedgerError(f"a commit of {size} bytes, the limit is {MAX_CALL_BYTES}", "commit smaller blocks")
        keys = ["head", "blocks", "history", "names", "refusals", "counters", "roster"]
        self._change("commit", keys, arguments)

    def set_mark(self, mark: int) -> None:
        """Everything before `mark` has been published and acknowledged."""
        self._change("mark", ["head", "refusals"], [mark])

    def write_snapshots(self, writes: Sequence[SnapshotWrite], least: int) -> None:
        """Write snapshots; blocks that end after `least` are still needed by one of them."""
        arguments: list[bytes | str | int] = [least]
        for write in writes:
            field = _field(write.first, write.offset)
            forget = " ".join(_field(write.first, offset) for offset in write.forget)
            arguments += [write.first, write.offset, write.entry, field, write.series, write.carried, forget]
        self._change("snapshot", ["head", "series", "carried", "snapshot_index", "needs"], arguments)

    def note(self, state: PartitionState) -> None:
        """Say how far the partition follows the registry."""
        self._change("note", ["head", "state"], [msgspec.json.encode(state)])

    def state(self) -> PartitionState | None:
        """What was said last; None: nothing yet."""
        found = calling(self._client.get, self._key("state"))
        return msgspec.json.decode(found, type=PartitionState) if found else None

    def trim(self, offset: int) -> int:
        """Let blocks go that end at or before `offset`, and that nothing needs; how many went."""
        return int(self._change("trim", ["head", "blocks", "needs"], [offset])[1])

    def block_count(self) -> int:
        """How many blocks the ledger holds."""
        return int(calling(self._client.xlen, self._key("blocks")))

    def blocks(self, after: int = -1, until: int | None = None) -> Iterator[Block]:
        """Blocks that end after offset `after`, and not after `until`, oldest first."""
        yield from self._read("blocks", f"{after + 1}-0", "+" if until is None else str(until))

    def read_blocks(self, place: str, count: int, until: int) -> tuple[list[Block], str]:
        """At most `count` blocks after a place (at first `block_position`) up to `until`, and the new place."""
        entries = calling(self._client.xrange, self._key("blocks"), "(" + place, str(until), count=count)
        blocks = [decode_block(fields[b"b"], *_place(entry)) for entry, fields in entries]
        return blocks, entries[-1][0].decode() if entries else place

    def history(self) -> Iterator[Block]:
        """Resent records of the past, in the order in which they came."""
        yield from self._read("history", "-", "+")

    def first_blocks(self, count: int) -> list[Block]:
        """The oldest blocks, oldest first."""
        entries = calling(self._client.xrange, self._key("blocks"), count=count)
        return [decode_block(fields[b"b"], *_place(entry)) for entry, fields in entries]

    def series_count(self) -> int:
        """How many series there are."""
        return int(calling(self._client.llen, self._key("names")))

    def names(self, begin: int = 0) -> list[str]:
        """Series by slot, from slot `begin` on."""
        names: list[str] = []
        while True:
            first = begin + len(names)
            part = calling(self._client.lrange, self._key("names"), first, first + READ_NAMES - 1)
            names += [name.decode() for name in part]
            if len(part) < READ_NAMES:
                return names

    def roster(self) -> tuple[Seat, ...]:
        """Which versions run here, as what, since when."""
        found = calling(self._client.get, self._key("roster"))
        return msgspec.json.decode(found, type=tuple[Seat, ...]) if found else ()

    def counters(self) -> dict[str, int]:
        """What was counted since the ledger began."""
        found = calling(self._client.hgetall, self._key("counters"))
        return {name.decode(): int(amount) for name, amount in found.items()}

    def refusals(self) -> list[Refused]:
        """Records that the dead-letter topic has not acknowledged."""
        entries = calling(self._client.xrange, self._key("refusals"))
        return [
            Refused(
                Refusal(_place(entry)[0], fields[b"reason"].decode(), fields[b"error"].decode()),
                msgspec.msgpack.decode(fields[b"record"], type=RawRecord),
            )
            for entry, fields in entries
        ]

    def snapshot_index(self) -> dict[int, bytes]:
        """First slot of each chunk → its entry in the index."""
        found = calling(self._client.hgetall, self._key("snapshot_index"))
        return {int(first): entry for first, entry in found.items()}

    def series_snapshots(self, chunks: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes | None]]:
        """The series state of chunks, each (first slot, offset): by first slot."""
        yield from self._snapshots("series", [first for first, _ in chunks], [_field(*chunk) for chunk in chunks])

    def carried_snapshots(self, firsts: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        """The carried state of chunks where their newest snapshots stand: by first slot."""
        yield from self._snapshots("carried", firsts, firsts)

    def _snapshots(
        self, key: str, firsts: Sequence[int], fields: Sequence[str | int]
    ) -> Iterator[tuple[int, bytes | None]]:
        for at in range(0, len(firsts), READ_CHUNKS):
            found = calling(self._client.hmget, self._key(key), list(fields[at : at + READ_CHUNKS]))
            yield from zip(firsts[at : at + READ_CHUNKS], found, strict=True)

    def _read(self, name: str, first: str, last: str) -> Iterator[Block]:
        while True:
            entries = calling(self._client.xrange, self._key(name), first, last, count=READ_BLOCKS)
            for entry, fields in entries:
                yield decode_block(fields[b"b"], *_place(entry))
            if len(entries) < READ_BLOCKS:
                return
            first = "(" + entries[-1][0].decode()

    def _arguments(self, change: Commit) -> list[bytes | str | int]:
        block = encode_block(change.block) if len(change.block) or change.roster is not None else b""
        history = encode_block(change.history) if change.history is not None and len(change.history) else b""
        roster = msgspec.json.encode(change.roster) if change.roster is not None else b""
        rest: list[bytes | str | int] = [len(change.new_names), *change.new_names, len(change.refused)]
        for refused in change.refused:
            record = msgspec.msgpack.encode(refused.record)
            rest += [refused.refusal.offset, refused.refusal.reason, refused.refusal.error, record]
        rest += [len(change.counts)]
        for name, amount in change.counts.items():
            rest += [name, amount]
        generation = "" if change.generation is None else change.generation
        return [change.expected, change.block.end, block, history, roster, generation, *rest]

    def _change(self, function: str, keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> list[Any]:
        """The reply of a call that changes the ledger, after all those before it; see `guarded` in commit.lua.

        Raises:
            FencedError, OffsetConflict, ServiceUnreachable: as `commit`.
        """
        again = self._unanswered is not None and self._unanswered[1:] == (function, arguments)
        if self._unanswered is not None and not again:
            self._last, self._unanswered = self.check(), None  # nobody said whether that was done
        if again and self._unanswered is not None:
            name = self._unanswered[0]
        else:
            self._calls += 1
            name = f"{self.token}/{self._calls}"
        self._unanswered = (name, function, arguments)
        reply = self._call(function, keys, [self.token, self._last, name, *arguments])
        self._unanswered = None
        self._judge(reply)
        self._last = name
        return reply

    def _fenced(self) -> FencedError:
        return FencedError(f"partition {self.partition} was taken by another consumer", "wait to be assigned it again")

    def _judge(self, reply: list[Any]) -> None:
        kind = reply[0].decode()
        if kind == "fenced":
            raise self._fenced()
        if kind == "offset":
            stands = int(reply[1])
            raise OffsetConflict(f"partition {self.partition}: the ledger stands at {stands}", next_offset=stands)
        if kind == "behind":  # Redis came back without its tail
            stands = int(reply[1])
            raise OffsetConflict(f"partition {self.partition}: {reply[2].decode()}, at {stands}", next_offset=stands)
        if kind not in ("ok", "done"):
            raise LedgerError(f"partition {self.partition}: {reply[1].decode()}", "this is a defect of killick")

    def _call(self, function: str, keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> list[Any]:
        names = [self._key(key) for key in keys]
        return call_function(self._client, CODE, f"{LIBRARY}_{function}", names, arguments)

    def _key(self, name: str) -> str:
        return self._tag + name


_CURES = {
    "format": "an older killick wrote it: use another model name and `killick produce` the history again",
    "form": "[model] changed, or how far [network] looks back (model.ring): restore them, or use another model name",
    "topic_id": "the observations topic was deleted and made anew: use another model name",
    "partitions": "the same series would come to other partitions: use another model name and `killick produce` again",
}


def _field(first: int, offset: int) -> str:
    return f"{first}@{offset}"


def partition_tag(model: str, partition: int) -> str:
    """How the keys of a partition begin: on one node of a cluster."""
    return f"killick:{{{model}/{partition}}}:"


def block_position(after: int, sequence: int = (1 << 64) - 1) -> str:
    """Where `Ledger.read_blocks` begins with the blocks that end after this offset, or at it, but later in sequence."""
    return f"{after}-{sequence}" if after >= 0 else "0-0"


def _place(entry: bytes) -> tuple[int, int]:
    end, _, sequence = entry.partition(b"-")
    return int(end), int(sequence)
