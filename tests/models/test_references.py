"""The last values of series: as a plain loop remembers them, and as the series state of the stream core does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import references
from models.errors import DataError
from models.references import Observed, Recent, Trails, seasonal_lags
from models.scaling import SeriesState
from tests.streams import FORM, MAX_GAP, cuts_of, stream_of, streams

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.streams import Bools, Floats, Ints, Stream

DEPTH = 9
LAGS = np.arange(1, DEPTH + 1)
cuts = st.lists(st.integers(0, 1_000), max_size=4)


def observed(stream: Stream, begin: int = 0, end: int | None = None) -> Observed:
    """The target of these records; slots are given in the order in which series appear."""
    known = {name: slot for slot, name in enumerate(dict.fromkeys(stream.series))}
    rows = slice(begin, end)
    slot = np.array([known[name] for name in stream.series[rows]], np.int64)
    return Observed(slot, stream.step[rows], stream.values[rows, 0], stream.present[rows, 0])


def remembered(stream: Stream, lags: Ints = LAGS) -> tuple[Floats, Bools]:
    """What a loop over the records remembers: values `lags` steps before each, `(K, N)`, and which there are."""
    all_of = observed(stream)
    last: dict[int, int] = {}
    values: dict[int, list[float | None]] = {}
    found = np.full((len(lags), len(stream)), np.nan)
    for i, (slot, step, value, present) in enumerate(zip(*(column.tolist() for column in all_of), strict=True)):
        gap = step - last.get(slot, step - MAX_GAP - 2)
        if gap > MAX_GAP + 1:
            values[slot] = []
        else:
            values[slot] += [values[slot][-1]] * (gap - 1)
        before = values[slot][-1] if values[slot] else None
        values[slot].append(value if present else before)
        last[slot] = step
        for row, lag in enumerate(lags.tolist()):
            if lag < len(values[slot]):
                past = values[slot][-1 - lag]
                found[row, i] = np.nan if past is None else past
    return found, ~np.isnan(found)


def looked_back(trails: Trails, parts: Iterable[Observed], lags: Ints = LAGS) -> tuple[Floats, Bools]:
    """What the trails say of one part after the other, NaN where nothing is known."""
    found = [trails.look_back(part, lags) for part in parts]
    values, known = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
    return np.where(known, values, np.nan), known


@given(streams(), cuts, st.sampled_from((1, 40, references.CELLS)))
def test_values_equal_those_of_a_loop(stream: Stream, points: list[int], cells: int) -> None:
    """However the stream is cut, and however small the pieces: gaps, new starts, missing values, repeated series."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "CELLS", cells)
        patch.setattr(references, "MIN_GROWTH", 1)
        trails = Trails(MAX_GAP, DEPTH)
        found, known = looked_back(trails, [observed(stream, *cut) for cut in cuts_of(len(stream), points)])
    wanted, there = remembered(stream)
    np.testing.assert_array_equal(known, there)
    np.testing.assert_array_equal(found, wanted)


@given(streams(), cuts)
def test_values_equal_those_of_the_series_state(stream: Stream, points: list[int]) -> None:
    """The references see the past as the network's inputs do."""
    state, trails = SeriesState(FORM), Trails(MAX_GAP, DEPTH)
    for begin, end in cuts_of(len(stream), points):
        part = observed(stream, begin, end)
        rows = state.look(part.slot, part.step, stream.values[begin:end], stream.present[begin:end])
        values, there = rows.lagged(LAGS.tolist(), 0)
        found, known = trails.look_back(part, LAGS)
        np.testing.assert_array_equal(known, there[rows.row_of].T)
        np.testing.assert_array_equal(found[known], values[rows.row_of].T[known])
        state.absorb(rows)


@given(streams(), st.integers(0, 40), st.sampled_from((1, 2, 64)))
def test_trails_that_were_kept_go_on_as_the_others(stream: Stream, at: int, slots: int) -> None:
    """What `recent` gives, in parts of any number of slots, is enough; depth and numbering of places do not matter."""
    at = min(at, len(stream) - 1)
    first, second = observed(stream, 0, at), observed(stream, at)
    one, other = Trails(MAX_GAP, DEPTH), Trails(MAX_GAP, 2)
    one.look_back(first, LAGS)
    for begin in range(0, len(one), slots):
        other.restore(begin, one.recent(begin, min(slots, len(one) - begin)))
    assert other.depth == (DEPTH if at else 2)
    other.deepen(DEPTH)
    wanted, found = looked_back(one, [second]), looked_back(other, [second])
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])


def test_trails_of_less_depth_know_less() -> None:
    """What was not kept is unknown at first, and comes with new observations."""
    short, long = Trails(MAX_GAP, 2), Trails(MAX_GAP, 4)
    count = np.arange(6)
    short.look_back(Observed(count * 0, count, count.astype(np.float64), count >= 0), np.array([1]))
    long.restore(0, short.recent(0, 1))
    next_ones = np.arange(6, 9)
    _, known = long.look_back(
        Observed(next_ones * 0, next_ones, next_ones.astype(np.float64), next_ones > 0), np.arange(1, 5)
    )
    assert known.T.tolist() == [[True, True, False, False], [True, True, True, False], [True, True, True, True]]


def test_what_is_kept_of_series_never_seen_is_nothing() -> None:
    """Rows of the arrays that no series has yet can be kept and restored."""
    trails = Trails(MAX_GAP, 2)
    trails.look_back(Observed(np.array([1]), np.array([5]), np.array([7.0]), np.array([True])), np.array([1]))
    kept = trails.recent(0, 3)
    assert kept.known.tolist() == [0, 1, 0]
    assert kept.values[1].tolist()[0] == 7.0
    again = Trails(MAX_GAP, 2)
    again.restore(0, Recent(kept.last, kept.known, kept.values))
    seen = Observed(np.array([0, 1]), np.array([6, 6]), np.array([1.0, 8.0]), np.array([True, True]))
    values, known = again.look_back(seen, np.array([1]))
    assert known.tolist() == [[False, True]]
    assert values[0, 1] == 7.0


def test_one_series_that_takes_many_steps_widens_nothing_for_those_that_come_later() -> None:
    """The room for a hundred thousand observations of one series at once is let go when other series come."""
    trails = Trails(MAX_GAP, DEPTH)
    many = np.arange(100_000)
    values, known = trails.look_back(Observed(many * 0, many, many.astype(np.float64), many >= 0), LAGS)
    assert known[:, DEPTH:].all()
    np.testing.assert_array_equal(values[:, DEPTH:], many[DEPTH:] - LAGS[:, None])
    assert trails._ring.nbytes <= 8 * references.CELLS
    crowd = np.arange(50_000)
    trails.look_back(Observed(crowd, crowd * 0 + 100_000, crowd.astype(np.float64), crowd >= 0), LAGS)
    assert trails._ring.nbytes <= 8 * 2 * (DEPTH + 2 + MAX_GAP) * len(trails)
    values, known = trails.look_back(Observed(crowd[:1], many[:1] + 100_001, np.zeros(1), many[:1] == 0), LAGS)
    assert values[:, 0].tolist() == [0.0, *many[-1:-DEPTH:-1].tolist()]


def test_a_step_that_is_not_after_the_last_is_refused() -> None:
    """The stream core accepts none: blocks that hold one do not follow what came before."""
    stream = stream_of([("a", 5, (1.0, 0.0)), ("a", 5, (2.0, 0.0))])
    with pytest.raises(DataError, match="slot 0 was given step 5, which is not after its last"):
        Trails(MAX_GAP, DEPTH).look_back(observed(stream), LAGS)


def test_seasonal_naive_looks_back_whole_periods() -> None:
    """The least number of periods that reaches the time of issue."""
    assert seasonal_lags(5, 2).tolist() == [2, 2, 4, 4, 6]
    assert seasonal_lags(3, 24).tolist() == [24, 24, 24]
    assert seasonal_lags(3, 1).tolist() == [1, 2, 3]
