"""Snapshots: a partition's arrays in chunks of slots, each with the offset that it stands at.

    byte 0    format number
    4 bytes   length of the JSON that names the arrays: their types, shapes, and the series form's digest
    arrays    one after the other, little-endian, C order

Series do not touch each other, so each chunk may stand at an offset of its own. Series state and the carried
state of the versions are kept apart: of series state older snapshots stay, for versions that start in the past.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from models.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    from consumers.stream import Partition

FORMAT = 2
CHUNK_BYTES = 400_000  # what a chunk should not outgrow with one version; shadows come on top
MAX_CHUNK_SLOTS = 256
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
    arrays = _series_arrays(partition) | _carried_arrays(partition)
    return max(1, min(MAX_CHUNK_SLOTS, CHUNK_BYTES // sum(array[:1].nbytes for array in arrays.values())))


def holds(partition: Partition) -> frozenset[str]:
    """The versions whose carried state a snapshot taken now has: `version@start_offset` each."""
    return frozenset(held_name(number, partition.spans[number].start) for number in partition.carried)


def held_name(version: int, start_offset: int) -> str:
    """What a version's carried state is called in snapshots: who left and came back may have started anew."""
    return f"{version}@{start_offset}"


def encode_chunk(partition: Partition, first: int, slots: int) -> tuple[bytes, bytes]:
    """The bytes of slots `first … first + slots - 1`, as far as there are series: series state, carried state."""
    end = min(first + slots, len(partition.names))
    partition.series.reserve(end)
    for carried in partition.carried.values():
        carried.reserve(end)
    form = partition.form.digest()
    return (
        _encode({name: array[first:end] for name, array in _series_arrays(partition).items()}, form),
        _encode({name: array[first:end] for name, array in _carried_arrays(partition).items()}, form),
    )


def restore_series(partition: Partition, first: int, data: bytes | None) -> None:
    """Put a chunk's series state back in its place.

    Raises:
        LedgerError: another format, another series form, or bytes that are not those of a chunk.
    """
    _restore(partition, first, data, _series_arrays)


def restore_carried(partition: Partition, first: int, data: bytes | None, versions: Collection[int]) -> None:
    """Put a chunk's carried state of these versions back in its place.

    Raises:
        LedgerError: another format, or bytes that are not those of a chunk.
    """
    prefixes = tuple(f"{held_name(n, partition.spans[n].start)}." for n in versions)
    _restore(
        partition,
        first,
        data,
        lambda p: {name: array for name, array in _carried_arrays(p).items() if name.startswith(prefixes)},
    )


def _encode(arrays: Mapping[str, NDArray[np.generic]], form: str) -> bytes:
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    entries = tuple(_Entry(name, str(array.dtype), array.shape) for name, array in whole.items())
    header = msgspec.json.encode(_Header(form, entries))
    parts = [bytes((FORMAT,)), len(header).to_bytes(4, "little"), header]
    parts += [array.astype(DTYPES[str(array.dtype)], copy=False).tobytes() for array in whole.values()]
    return b"".join(parts)


def _restore(
    partition: Partition,
    first: int,
    data: bytes | None,
    wanted: Callable[[Partition], Mapping[str, NDArray[np.generic]]],
) -> None:
    subject = f"the snapshot of slots from {first}"
    if not data or data[0] != FORMAT:
        raise LedgerError(
            f"{subject} has format {data[0] if data else 'no bytes'}, known is {FORMAT}", "restore Redis from a backup"
        )
    try:
        found = _decode_chunk(data, partition.form.digest())
        end = first + max((len(array) for array in found.values()), default=0)
    except (ValueError, KeyError, msgspec.DecodeError) as error:
        raise LedgerError(f"{subject} is damaged ({error})", "restore Redis from a backup") from error
    partition.series.reserve(end)
    for carried in partition.carried.values():
        carried.reserve(end)
    for name, array in wanted(partition).items():
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


def _series_arrays(partition: Partition) -> dict[str, NDArray[np.generic]]:
    return partition.series.arrays()


def _carried_arrays(partition: Partition) -> dict[str, NDArray[np.generic]]:
    return {
        f"{held_name(number, partition.spans[number].start)}.{name}": array
        for number, carried in partition.carried.items()
        if number in partition.spans  # one that is spun up later in a recovery is in no snapshot
        for name, array in carried.arrays().items()
    }
