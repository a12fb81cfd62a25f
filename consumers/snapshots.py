"""Snapshots: a partition's arrays in chunks of slots, each with the offset that it stands at.

    byte 0    format number
    4 bytes   length of the JSON that names the arrays: their types, shapes, and the series form's digest
    arrays    one after the other, little-endian, C order

Series do not touch each other, so each chunk may stand at an offset of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from models.errors import LedgerError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from consumers.stream import Partition
    from models.blocks import Block

FORMAT = 1
CHUNK_BYTES = 1_000_000  # what a chunk should not outgrow
MAX_CHUNK_SLOTS = 256
RECORDS_PER_SERIES = 2  # at least so many records a series between two snapshots of everything
MAX_AT_ONCE = 8  # chunks
DTYPES = {"int64": "<i8", "float64": "<f8", "float32": "<f4", "bool": "|b1"}


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    name: str
    dtype: str
    shape: tuple[int, ...]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    form: str
    entries: tuple[_Entry, ...]


def chunk_slots(partition: Partition) -> int:
    """How many series of this partition fit a chunk."""
    partition.series.reserve(1)
    for carried in partition.carried.values():
        carried.reserve(1)
    per_series = sum(array[:1].nbytes for array in _arrays(partition).values())
    return max(1, min(MAX_CHUNK_SLOTS, CHUNK_BYTES // per_series))


def encode_chunk(partition: Partition, first: int, slots: int) -> bytes:
    """The bytes of slots `first … first + slots - 1`, as far as there are series."""
    end = min(first + slots, len(partition.names))
    partition.series.reserve(end)
    for carried in partition.carried.values():
        carried.reserve(end)
    arrays = {name: np.ascontiguousarray(array[first:end]) for name, array in _arrays(partition).items()}
    entries = tuple(_Entry(name, str(array.dtype), array.shape) for name, array in arrays.items())
    header = msgspec.json.encode(_Header(partition.form.digest(), entries))
    parts = [bytes((FORMAT,)), len(header).to_bytes(4, "little"), header]
    parts += [array.astype(DTYPES[str(array.dtype)], copy=False).tobytes() for array in arrays.values()]
    return b"".join(parts)


def restore_chunk(partition: Partition, first: int, data: bytes | None) -> None:
    """Put a chunk's arrays back in their place; versions that no longer run are left out.

    Raises:
        LedgerError: another format, another series form, or bytes that are not those of a chunk.
    """
    subject = f"the snapshot of slots from {first}"
    if not data or data[0] != FORMAT:
        raise LedgerError(
            f"{subject} has format {data[0] if data else 'no bytes'}, known is {FORMAT}", "upgrade killick"
        )
    try:
        found = _decode_chunk(data, partition.form.digest())
        end = first + len(found["series.last"])
    except (ValueError, KeyError, msgspec.DecodeError) as error:
        raise LedgerError(f"{subject} is damaged ({error})", "restore Redis from a backup") from error
    partition.series.reserve(end)
    for carried in partition.carried.values():
        carried.reserve(end)
    for name, array in _arrays(partition).items():
        if name not in found and not name.startswith("series."):
            continue  # of a version that came later
        if name not in found or (found[name].dtype, found[name].shape[1:]) != (array.dtype, array.shape[1:]):
            raise LedgerError(f"{subject} does not hold {name} as it is here", "restore Redis from a backup")
        array[first:end] = found[name]


def _decode_chunk(data: bytes, form: str) -> dict[str, NDArray[np.generic]]:
    size = int.from_bytes(data[1:5], "little")
    header = msgspec.json.decode(data[5 : 5 + size], type=_Header)
    if header.form != form:
        raise ValueError(f"it was made for series form {header.form}, not {form}")
    found: dict[str, NDArray[np.generic]] = {}
    at = 5 + size
    for entry in header.entries:
        dtype = np.dtype(DTYPES[entry.dtype])
        count = math.prod(entry.shape)
        if min(entry.shape, default=-1) < 0 or at + count * dtype.itemsize > len(data):
            raise ValueError(f"{entry.name} of shape {entry.shape} does not fit {len(data)} bytes")
        found[entry.name] = np.frombuffer(data, dtype, count, at).reshape(entry.shape)
        at += count * dtype.itemsize
    if at != len(data):
        raise ValueError(f"{len(data)} bytes, its header says {at}")
    if len(slots := {len(array) for array in found.values()}) > 1:
        raise ValueError(f"its arrays have {sorted(slots)} slots")
    return found


def _arrays(partition: Partition) -> dict[str, NDArray[np.generic]]:
    arrays = {f"series.{name}": array for name, array in partition.series.arrays().items()}
    starts = {seat.version: seat.start_offset for seat in partition.roster if seat.leave_offset is None}
    for number, carried in partition.carried.items():  # who left and came back starts anew: not the same arrays
        arrays |= {f"{number}@{starts[number]}.{name}": array for name, array in carried.arrays().items()}
    return arrays


class SnapshotPlan:
    """Which chunks changed since their last snapshot, and whose turn it is.

    Work is in proportion to what changes: while `every` records pass, each changed chunk is written once,
    a few at a time, the one that waited longest first.
    """

    def __init__(self, slots: int, every: int, offsets: dict[int, int]) -> None:
        self.slots = slots
        self._every = every
        self._encoded = dict(offsets)  # first slot → offset of its newest snapshot
        self._stored = dict(offsets)  # the same, as far as the ledger has it
        self._born: dict[int, int] = {}  # first slot → offset from which there was anything in it
        self._dirty: dict[int, int] = {}  # first slot → offset from which it changed; longest waiting first
        self._credit = 0.0
        self._confirmed = max(offsets.values(), default=0)

    def note(self, block: Block) -> None:
        """A block was folded: its chunks have changed."""
        for chunk in np.unique(block.slot // self.slots).tolist():
            self._dirty.setdefault(chunk * self.slots, block.start)
            self._born.setdefault(chunk * self.slots, block.start)

    def turn(self, records: int, series: int) -> list[int]:
        """The chunks to encode now that `records` more have passed."""
        every = max(self._every, RECORDS_PER_SERIES * series)
        self._credit = min(self._credit + len(self._dirty) * records / every, MAX_AT_ONCE)
        count = int(self._credit)
        self._credit -= count
        return list(self._dirty)[:count]

    def taken(self, first: int, offset: int) -> None:
        """A chunk was encoded at `offset`; what comes after is a new change."""
        self._dirty.pop(first, None)
        self._encoded[first] = offset

    def unchanged(self, offset: int) -> list[int]:
        """Chunks that did not change up to `offset`, named once in a while: their snapshots are true there too."""
        if offset - self._confirmed < self._every:
            return []
        self._confirmed = offset
        still = [first for first, at in self._encoded.items() if first not in self._dirty and at < offset]
        for first in still:
            self._encoded[first] = offset
        return still

    def stored(self, first: int, offset: int) -> None:
        """The ledger has a chunk's snapshot of `offset`."""
        self._stored[first] = offset

    def least(self) -> int:
        """The offset from which recovery would have to replay."""
        unstored = [since for first, since in self._born.items() if first not in self._stored]
        return min([*self._stored.values(), *unstored], default=0)
