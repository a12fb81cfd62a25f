"""Snapshots: chunks of series state and of carried state come back bit for bit, or are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.roster import Seat
from consumers.snapshots import (
    CHUNK_BYTES,
    MAX_CHUNK_SLOTS,
    chunk_slots,
    encode_chunk,
    held_name,
    holds,
    restore_carried,
    restore_series,
)
from consumers.stream import Partition, Version
from models.errors import LedgerError
from models.scaling import SeriesForm
from tests.streams import FORM, NumpyScanner, Stream, architecture_of, run, stream_of, streams

if TYPE_CHECKING:
    from collections.abc import Callable

_ONE = architecture_of()
_TWO = architecture_of(cell="gru", horizon=2, units=(4, 2))
VERSIONS = {1: Version(1, _ONE, NumpyScanner(_ONE)), 2: Version(2, _TWO, NumpyScanner(_TWO))}


def empty_like(partition: Partition, form: SeriesForm = FORM) -> Partition:
    """A partition with the same names and roster, and no state."""
    other = Partition(form)
    for name in partition.names:
        other.add_name(name)
    other.seat(partition.roster, VERSIONS)
    return other


def a_partition(series: int = 7) -> Partition:
    """Several series after a few observations, two versions."""
    rows = [(f"s{i}", step, (float(i * step % 5), None)) for step in range(6) for i in range(series)]
    return run(stream_of(rows), [(0, len(rows))], VERSIONS)[0]


def restore(partition: Partition, first: int, chunk: tuple[bytes, bytes]) -> None:
    """Put series state and the carried state of all versions back."""
    series, carried = chunk
    restore_series(partition, first, series)
    restore_carried(partition, first, carried, partition.spans)


# — bytes —


@settings(max_examples=60)
@given(streams(), st.integers(1, 6))
def test_chunks_give_back_the_partition(stream: Stream, slots: int) -> None:
    """All chunks in any size, restored in any order: the same digest."""
    partition, _ = run(stream, [(0, len(stream))], VERSIONS)
    other = empty_like(partition)
    for first in reversed(range(0, len(partition.names), slots)):
        restore(other, first, encode_chunk(partition, first, slots))
    assert other.digest() == partition.digest()


def test_a_missing_chunk_is_noticed_by_the_digest() -> None:
    """The comparison above can fail, for series state and for carried state."""
    partition = a_partition()
    other = empty_like(partition)
    for first in (0, 2, 6):
        restore(other, first, encode_chunk(partition, first, 2))
    assert other.digest() != partition.digest()
    series, carried = encode_chunk(partition, 4, 2)
    restore_series(other, 4, series)
    assert other.digest() != partition.digest()
    restore_carried(other, 4, carried, [1])
    assert other.digest() != partition.digest()
    restore_carried(other, 4, carried, [2])
    assert other.digest() == partition.digest()


def test_a_chunk_touches_no_other_slot() -> None:
    """What was there beside it stays."""
    partition = a_partition()
    other = a_partition()
    restore(other, 2, encode_chunk(partition, 2, 3))
    assert other.digest() == partition.digest()


def test_series_state_alone_leaves_the_versions_as_they_are() -> None:
    """A spin-up takes series state from the past: the carried state in the chunk's other half is not looked at."""
    partition = a_partition()
    other = empty_like(partition)
    restore_series(other, 0, encode_chunk(partition, 0, 7)[0])
    assert other.series.sums[:7].tobytes() == partition.series.sums[:7].tobytes()
    assert not any(carried.network.any() for carried in other.carried.values())


def test_encoding_does_not_keep_a_view() -> None:
    """Bytes that wait for the mark do not change when the partition goes on."""
    partition = a_partition()
    data = encode_chunk(partition, 0, 7)
    kept = tuple(map(bytes, data))
    partition.series.sums += 1
    partition.carried[1].network += 1
    assert data == kept
    assert [now != then for now, then in zip(encode_chunk(partition, 0, 7), kept, strict=True)] == [True, True]


def test_a_chunk_holds_versions_by_their_start() -> None:
    """Who left is passed over; a version is taken only as it began where it begins now."""
    partition = a_partition()
    assert holds(partition) == {held_name(1, 0), held_name(2, 0)} == {"1@0", "2@0"}
    series, carried = encode_chunk(partition, 0, 7)
    other = empty_like(partition)
    other.seat([Seat(2, "incumbent", 0, 0)], VERSIONS)
    restore(other, 0, (series, carried))
    assert other.carried[2].network[:7].tobytes() == partition.carried[2].network[:7].tobytes()
    began_later = empty_like(partition)
    began_later.seat([Seat(2, "incumbent", 0, 0), Seat(1, "shadow", 42, 42)], VERSIONS)
    restore_carried(began_later, 0, carried, [2])
    assert not began_later.carried[1].network.any()
    assert np.isnan(began_later.carried[1].pending).all()
    with pytest.raises(LedgerError, match="does not hold 1@42"):
        restore_carried(began_later, 0, carried, [1])


def test_version_numbers_that_begin_alike_are_told_apart() -> None:
    """Version 1 is not version 11, nor is an offset that another one begins with."""
    versions = {1: VERSIONS[1], 11: VERSIONS[1]}
    rows = [(f"s{i}", step, (float(i * step % 5), None)) for step in range(6) for i in range(3)]
    partition = run(stream_of(rows), [(0, len(rows))], versions)[0]
    partition.carried[11].network += 1
    other = Partition(FORM)
    other.seat(partition.roster, versions)
    restore_carried(other, 0, encode_chunk(partition, 0, 3)[1], [1])
    assert other.carried[1].network[:3].tobytes() == partition.carried[1].network[:3].tobytes()
    assert not other.carried[11].network.any()


def test_a_chunk_of_another_form_or_format_is_refused() -> None:
    """Another series form, another format, no bytes: LedgerError says which."""
    series, carried = encode_chunk(a_partition(), 0, 7)
    other = Partition(SeriesForm(("v", "w"), "v", FORM.interval_ms, 8, 12.0, 11, 3))
    other.seat([Seat(1, "incumbent", 0, 0)], VERSIONS)
    with pytest.raises(LedgerError, match="made for series form"):
        restore_series(other, 0, series)
    with pytest.raises(LedgerError, match="made for series form"):
        restore_carried(other, 0, carried, [1])
    like = empty_like(a_partition())
    with pytest.raises(LedgerError, match="slots from 64 has format 1, known is 2"):
        restore_series(like, 64, b"\x01" + series[1:])
    for nothing in (None, b""):
        with pytest.raises(LedgerError, match="no bytes"):
            restore_series(like, 0, nothing)
        with pytest.raises(LedgerError, match="no bytes"):
            restore_carried(like, 0, nothing, [1])


@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes_are_refused_or_arrays(data: st.DataObject) -> None:
    """Cut anywhere, or with bytes changed in the header: LedgerError, or arrays of the right shape; no crash."""
    partition = a_partition(3)
    half = data.draw(st.sampled_from((0, 1)))
    chunk = bytearray(encode_chunk(partition, 0, 3)[half])
    header_end = 5 + int.from_bytes(chunk[1:5], "little")
    if data.draw(st.booleans()):
        del chunk[data.draw(st.integers(0, len(chunk) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if chunk:
            at = data.draw(st.integers(0, min(header_end, len(chunk)) - 1))
            chunk[at] = data.draw(st.sampled_from(b'0123456789-,[]{}"x\0\xff') | st.integers(0, 255))
    other = empty_like(partition)
    try:
        restore_carried(other, 0, bytes(chunk), [1, 2]) if half else restore_series(other, 0, bytes(chunk))
    except LedgerError:
        return
    assert len(other.series.last) < 10_000
    assert {len(array) for array in other.series.arrays().values()} == {len(other.series.last)}


def _header(change: Callable[[dict[str, list[list[object]]]], object]) -> bytes:
    """The series state of three series with its header changed."""
    chunk = encode_chunk(a_partition(3), 0, 3)[0]
    size = int.from_bytes(chunk[1:5], "little")
    header = msgspec.json.decode(chunk[5 : 5 + size])
    change(header)
    text = msgspec.json.encode(header)
    return chunk[:1] + len(text).to_bytes(4, "little") + text + chunk[5 + size :]


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["entries"].pop(0),
        lambda header: header["entries"][0].__setitem__(2, [2]),
        lambda header: header["entries"][0].__setitem__(2, [-3]),
        lambda header: header["entries"][0].__setitem__(2, []),
        lambda header: header["entries"][0].__setitem__(2, [2**70]),
        lambda header: header["entries"][0].__setitem__(1, "float64"),
        lambda header: header["entries"][0].__setitem__(1, "object"),
        lambda header: header["entries"][0].__setitem__(0, "series.lost"),
        lambda header: header["entries"][2].__setitem__(2, [2, 3]),
        lambda header: header["entries"].clear(),
    ],
)
def test_a_header_that_does_not_describe_the_arrays_is_refused(
    change: Callable[[dict[str, list[list[object]]]], object],
) -> None:
    """Missing and foreign arrays, other types, and shapes that don't fit the bytes or the state."""
    with pytest.raises(LedgerError):
        restore_series(empty_like(a_partition(3)), 0, _header(change))


def test_chunks_stay_below_their_size() -> None:
    """As many series as fit, at most 256; a chunk of so many is that large."""
    assert chunk_slots(a_partition()) == MAX_CHUNK_SLOTS
    form = SeriesForm(("x",), "x", 1, 2_000, 1.0, 2_100, 6)
    partition = Partition(form)
    slots = chunk_slots(partition)
    assert 1 < slots < MAX_CHUNK_SLOTS
    for i in range(slots):
        partition.add_name(f"s{i}")
    assert 0.9 * CHUNK_BYTES < sum(map(len, encode_chunk(partition, 0, slots))) < 1.01 * CHUNK_BYTES
