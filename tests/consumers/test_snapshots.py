"""Snapshots: chunks come back bit for bit, and are planned in proportion to what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.snapshots import (
    CHUNK_BYTES,
    MAX_AT_ONCE,
    MAX_CHUNK_SLOTS,
    RECORDS_PER_SERIES,
    SnapshotPlan,
    chunk_slots,
    encode_chunk,
    restore_chunk,
)
from consumers.roster import Seat
from consumers.stream import Partition, Version
from models.blocks import Block
from models.errors import LedgerError
from models.scaling import SeriesForm
from tests.streams import FORM, NumpyScanner, Stream, architecture_of, run, streams

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
    from tests.streams import stream_of

    return run(stream_of(rows), [(0, len(rows))], VERSIONS)[0]


# — bytes —


@settings(max_examples=60)
@given(streams(), st.integers(1, 6))
def test_chunks_give_back_the_partition(stream: Stream, slots: int) -> None:
    """All chunks in any size, restored in any order: the same digest."""
    partition, _ = run(stream, [(0, len(stream))], VERSIONS)
    other = empty_like(partition)
    for first in reversed(range(0, len(partition.names), slots)):
        restore_chunk(other, first, encode_chunk(partition, first, slots))
    assert other.digest() == partition.digest()


def test_a_missing_chunk_is_noticed_by_the_digest() -> None:
    """The comparison above can fail."""
    partition = a_partition()
    other = empty_like(partition)
    for first in (0, 2, 6):
        restore_chunk(other, first, encode_chunk(partition, first, 2))
    assert other.digest() != partition.digest()
    restore_chunk(other, 4, encode_chunk(partition, 4, 2))
    assert other.digest() == partition.digest()


def test_a_chunk_touches_no_other_slot() -> None:
    """What was there beside it stays."""
    partition = a_partition()
    other = a_partition()
    restore_chunk(other, 2, encode_chunk(partition, 2, 3))
    assert other.digest() == partition.digest()


def test_encoding_does_not_keep_a_view() -> None:
    """Bytes that wait for the mark do not change when the partition goes on."""
    partition = a_partition()
    data = encode_chunk(partition, 0, 7)
    kept = bytes(data)
    partition.series.sums += 1
    partition.carried[1].network += 1
    assert data == kept
    assert encode_chunk(partition, 0, 7) != kept


def test_versions_that_left_are_passed_over_and_new_ones_start_from_zero() -> None:
    """A chunk holds the versions of its time; who is in the roster now takes what is there."""
    partition = a_partition()
    data = encode_chunk(partition, 0, 7)
    other = empty_like(partition)
    other.seat([Seat(2, "incumbent", 0, 0)], VERSIONS)
    restore_chunk(other, 0, data)
    assert other.carried[2].network[:7].tobytes() == partition.carried[2].network[:7].tobytes()
    later = {**VERSIONS, 3: VERSIONS[1]}
    third = empty_like(partition)
    third.seat([Seat(2, "incumbent", 0, 0), Seat(3, "shadow", 42, 42)], later)
    restore_chunk(third, 0, data)
    assert not third.carried[3].network.any()
    assert np.isnan(third.carried[3].pending).all()


def test_a_chunk_of_another_form_or_format_is_refused() -> None:
    """Another series form, another format, no bytes: LedgerError says which."""
    partition = a_partition()
    data = encode_chunk(partition, 0, 7)
    other = Partition(SeriesForm(("v", "w"), "v", FORM.interval_ms, 8, 12.0, 11, 3))
    with pytest.raises(LedgerError, match="made for series form"):
        restore_chunk(other, 0, data)
    with pytest.raises(LedgerError, match="slots from 64 has format 2, known is 1"):
        restore_chunk(empty_like(partition), 64, b"\x02" + data[1:])
    for nothing in (None, b""):
        with pytest.raises(LedgerError, match="no bytes"):
            restore_chunk(empty_like(partition), 0, nothing)


@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes_are_refused_or_arrays(data: st.DataObject) -> None:
    """Cut anywhere, or with bytes changed in the header: LedgerError, or arrays of the right shape; no crash."""
    partition = a_partition(3)
    chunk = bytearray(encode_chunk(partition, 0, 3))
    header_end = 5 + int.from_bytes(chunk[1:5], "little")
    if data.draw(st.booleans()):
        del chunk[data.draw(st.integers(0, len(chunk) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if chunk:
            at = data.draw(st.integers(0, min(header_end, len(chunk)) - 1))
            chunk[at] = data.draw(st.sampled_from(b'0123456789-,[]{}"x\0\xff') | st.integers(0, 255))
    other = empty_like(partition)
    try:
        restore_chunk(other, 0, bytes(chunk))
    except LedgerError:
        return
    assert len(other.series.last) < 10_000
    assert {len(array) for array in other.series.arrays().values()} == {len(other.series.last)}


def _header(change: Callable[[dict[str, list[list[object]]]], object]) -> bytes:
    """A chunk of three series with its header changed."""
    chunk = encode_chunk(a_partition(3), 0, 3)
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
        restore_chunk(empty_like(a_partition(3)), 0, _header(change))


def test_chunks_stay_below_their_size() -> None:
    """As many series as fit a megabyte, at most 256; a chunk of so many is that large."""
    assert chunk_slots(a_partition()) == MAX_CHUNK_SLOTS
    form = SeriesForm(("x",), "x", 1, 2_000, 1.0, 2_100, 6)
    partition = Partition(form)
    slots = chunk_slots(partition)
    assert 1 < slots < MAX_CHUNK_SLOTS
    for i in range(slots):
        partition.add_name(f"s{i}")
    assert 0.9 * CHUNK_BYTES < len(encode_chunk(partition, 0, slots)) < 1.01 * CHUNK_BYTES


# — the plan —


def touched(start: int, slots: list[int]) -> Block:
    """A block that changed these slots."""
    n = len(slots)
    columns = (np.arange(start, start + n), np.array(slots), np.zeros(n, np.int64))
    return Block(start, start + n, *columns, np.zeros((n, 1)), np.ones((n, 1), np.bool_))


def write(plan: SnapshotPlan, records: int, offset: int, series: int = 1) -> list[int]:
    """Encode and store whose turn it is."""
    chunks = plan.turn(records, series)
    for first in chunks:
        plan.taken(first, offset)
        plan.stored(first, offset)
    return chunks


def test_each_changed_chunk_is_written_once_while_every_passes() -> None:
    """Ten of a thousand chunks change all the time: ten are written in `every` records, the longest waiting first."""
    plan = SnapshotPlan(4, 1_000, {})
    written: list[int] = []
    for start in range(0, 2_000, 10):
        plan.note(touched(start, [4 * (i % 10) for i in range(10)]))
        written += write(plan, 10, start + 10)
    assert 18 <= len(written) <= 22
    assert written[:10] == [4 * i for i in range(10)]
    assert written[10:18] == written[:8]


def test_more_series_than_records_stretch_the_round() -> None:
    """With many series a round takes at least two records a series, so that snapshots cost a bounded share."""
    plan = SnapshotPlan(1, 10, {})
    written = 0
    for start in range(0, 4_000, 10):
        plan.note(touched(start, [slot % 1_000 for slot in range(start, start + 10)]))
        written += len(write(plan, 10, start + 10, series=1_000))
    assert written <= 4_000 / RECORDS_PER_SERIES + MAX_AT_ONCE


def test_few_are_written_at_once() -> None:
    """After a huge block no more than `MAX_AT_ONCE` chunks, the rest in later turns."""
    plan = SnapshotPlan(1, 10, {})
    plan.note(touched(0, list(range(100))))
    assert len(plan.turn(10_000, 1)) == MAX_AT_ONCE


def test_nothing_that_did_not_change_is_written() -> None:
    """An idle chunk is encoded once, then only confirmed."""
    plan = SnapshotPlan(4, 10, {})
    plan.note(touched(0, [0, 5]))
    assert sorted(write(plan, 10, 10)) == [0, 4]
    for offset in range(20, 100, 10):
        plan.note(touched(offset - 10, [0]))
        assert write(plan, 10, offset) == [0]


def test_idle_chunks_are_confirmed_so_that_old_blocks_may_go() -> None:
    """Once in `every` records an unchanged chunk's snapshot is said to be true here too; a changed one's is not."""
    plan = SnapshotPlan(4, 100, {0: 50, 4: 50, 8: 50})
    assert plan.unchanged(120) == []
    plan.note(touched(120, [5]))
    assert plan.unchanged(160) == [0, 8]
    assert plan.unchanged(161) == []
    assert plan.least() == 50
    plan.stored(0, 160)
    plan.stored(8, 160)
    assert plan.least() == 50
    plan.taken(4, 170)
    assert plan.least() == 50
    plan.stored(4, 170)
    assert plan.least() == 160


def test_a_chunk_without_a_snapshot_holds_back_what_it_needs() -> None:
    """New series: replay would have to begin where their first observation was."""
    plan = SnapshotPlan(4, 100, {0: 50})
    plan.note(touched(70, [4]))
    plan.note(touched(90, [4]))
    plan.stored(0, 95)
    assert plan.least() == 70
    plan.taken(4, 95)
    plan.stored(4, 95)
    assert plan.least() == 95


def test_an_empty_plan_needs_everything() -> None:
    """Nothing is known yet: nothing may go."""
    assert SnapshotPlan(4, 100, {}).least() == 0
