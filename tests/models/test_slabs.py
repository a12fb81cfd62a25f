"""Slabs: every row in one rectangle, and what slides over them is what a plain loop finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from models.slabs import histories, running, slabs_of, windows

counts = st.lists(st.integers(1, 12), max_size=8).map(lambda found: np.array(sorted(found, reverse=True), np.int64))


def offsets_of(count: np.ndarray) -> np.ndarray:
    """Where each wave's rows begin, of lanes with so many rows, longest first; and the end."""
    widths = [int((count > wave).sum()) for wave in range(count.max(initial=0))]
    return np.cumsum([0, *widths])


@given(counts)
def test_slabs_hold_every_row_once_and_are_as_large_as_can_be(count: np.ndarray) -> None:
    """They follow each other without hole, wave by wave; no two neighbours are equally wide."""
    offsets = offsets_of(count)
    slabs = slabs_of(offsets)
    rows = np.arange(offsets[-1])
    assert np.concatenate([rows[:0], *(rows[slab.rows] for slab in slabs)]).tolist() == rows.tolist()
    assert sum(slab.waves for slab in slabs) == len(offsets) - 1
    assert [slab.width for slab in slabs] == sorted({int(w) for w in np.diff(offsets)}, reverse=True)
    wave = 0
    for slab in slabs:
        for row in slab.of(rows):
            assert row.tolist() == rows[offsets[wave] : offsets[wave + 1]].tolist()
            wave += 1


@given(counts, st.integers(1, 20))
def test_a_history_holds_the_waves_before(count: np.ndarray, depth: int) -> None:
    """Each row's window is its lane's last values, those from before the batch where the lane is short of them."""
    offsets = offsets_of(count)
    rng = np.random.default_rng(0)
    column, before = rng.normal(size=(offsets[-1], 2)), rng.normal(size=(depth, len(count), 2))
    wave = 0
    for slab, history in histories(slabs_of(offsets), column, before):
        seen = windows(history, depth + 1)
        assert seen.tobytes() == sliding_window_view(history, depth + 1, axis=0).tobytes()
        for i in range(slab.waves):
            for lane in range(slab.width):
                line = [*before[:, lane], *(column[offsets[w] + lane] for w in range(wave + 1))]
                assert seen[i, lane].T.tolist() == [cell.tolist() for cell in line[-depth - 1 :]]
            wave += 1


@given(counts)
def test_running_sums_equal_a_plain_loop(count: np.ndarray) -> None:
    """State · decay + add, one lane after the other, bit for bit; what it starts from is left alone."""
    offsets = offsets_of(count)
    rng = np.random.default_rng(1)
    decay, add = rng.random((offsets[-1], 3, 2)), rng.normal(size=(offsets[-1], 3, 2))
    start = rng.normal(size=(len(count), 3, 2))
    kept = start.copy()
    found = running(slabs_of(offsets), start, decay, add)
    assert start.tobytes() == kept.tobytes()
    for lane in range(len(count)):
        state = start[lane]
        for wave in range(int(count[lane])):
            row = offsets[wave] + lane
            state = state * decay[row] + add[row]
            assert found[row].tobytes() == state.tobytes()
