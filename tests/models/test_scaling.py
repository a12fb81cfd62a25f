"""Series state: level and scale as a plain loop computes them, and the layout of rows that all else stands on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ConfigError, DataError
from models.scaling import NO_STEP, Rows, SeriesForm, SeriesState
from tests.streams import FORM, MAX_GAP, Stream, cuts_of, stream_of, streams

if TYPE_CHECKING:
    import numpy.typing as npt

KEEP = 0.5 ** (1 / FORM.half_life_steps)
QUARTER = FORM.period_steps // 4


@dataclass
class PlainFeature:
    """Level and scale of one feature, one step after the other (RECIPE, "Series state").

    S = max(floor, 1.7·exp(EWmean log(|x_t - x_{t-p/4}| + floor))), level = EWmean x; a missing value moves
    neither. The floor is RECIPE's .02, in units of the mean absolute move of the series' life instead of the
    training span's z.
    """

    filled: list[float] = field(default_factory=list)  # x since the first value, gaps filled with the last
    level_sum: float = 0.0
    level_weight: float = 0.0
    moves: float = 0.0
    count: int = 0
    weight: float = 0.0
    logs: float = 0.0

    def step(self, x: float | None) -> None:
        """Take one step; None is missing."""
        if x is None:
            self.filled += self.filled[-1:]
            return
        self.level_sum = self.level_sum * KEEP + x
        self.level_weight = self.level_weight * KEEP + 1
        if self.filled:
            move = abs(x - self.filled[-min(QUARTER, len(self.filled))])
            self.moves += move
            self.count += 1
            self.weight = self.weight * KEEP + 1
            self.logs = self.logs * KEEP + math.log(move + self.floor)
        self.filled.append(x)

    @property
    def level(self) -> float:
        """The exponentially weighted mean."""
        return self.level_sum / self.level_weight if self.level_weight else 0.0

    @property
    def floor(self) -> float:
        """The least scale."""
        return (0.02 * self.moves / self.count if self.count else 0.0) + 1e-6 * abs(self.level) + 1e-12

    @property
    def scale(self) -> float:
        """The scale in force from here on; 0 before the first value."""
        if not self.filled:
            return 0.0
        return max(1.7 * math.exp(self.logs / self.weight), self.floor) if self.weight else self.floor


@dataclass
class PlainSeries:
    """One series: bridges gaps, starts anew after longer ones."""

    last: int | None = None
    age: int = -1
    features: list[PlainFeature] = field(default_factory=lambda: [PlainFeature(), PlainFeature()])

    def observe(self, step: int, values: list[float | None]) -> float:
        """Take an observation; the target's scale that was in force when it came."""
        if self.last is None or step - self.last > MAX_GAP + 1:
            self.features = [PlainFeature(), PlainFeature()]
            self.age = -1
        else:
            for _ in range(self.last + 1, step):
                self.take([None, None])
        before = self.features[0].scale
        self.take(values)
        self.last = step
        return before

    def take(self, values: list[float | None]) -> None:
        """Take one step."""
        self.age += 1
        for feature, value in zip(self.features, values, strict=True):
            feature.step(value)


def columns(stream: Stream) -> tuple[npt.NDArray[np.int64], ...]:
    """Slots by order of first appearance."""
    names = list(dict.fromkeys(stream.series))
    return (np.array([names.index(name) for name in stream.series], np.int64),)


def look(state: SeriesState, stream: Stream, begin: int = 0, end: int | None = None) -> Rows:
    """The rows of a span of the stream, taken over."""
    (slot,) = columns(stream)
    span = slice(begin, end)
    rows = state.look(slot[span], stream.step[span], stream.values[span], stream.present[span])
    state.absorb(rows)
    return rows


@settings(max_examples=150)
@given(streams(), st.lists(st.integers(0, 1_000), max_size=4))
def test_level_and_scale_equal_a_plain_loop(stream: Stream, points: list[int]) -> None:
    """After every observation, over gaps, missing values and new starts, within rounding."""
    state, plain = SeriesState(FORM), {name: PlainSeries() for name in stream.series}
    for begin, end in cuts_of(len(stream), points):
        rows = look(state, stream, begin, end)
        for i in range(begin, end):
            series = plain[stream.series[i]]
            cells = zip(stream.values[i].tolist(), stream.present[i].tolist(), strict=True)
            before = series.observe(int(stream.step[i]), [x if there else None for x, there in cells])
            row = rows.row_of[i - begin]
            assert rows.age[row] == series.age
            assert rows.scale_before[row, 0] == pytest.approx(before, rel=1e-9, abs=0)
            for f, feature in enumerate(series.features):
                largest = max(map(abs, feature.filled), default=0.0)
                assert rows.level[row, f] == pytest.approx(feature.level, rel=1e-9, abs=1e-12 * largest)
                assert rows.scale[row, f] == pytest.approx(feature.scale, rel=1e-9, abs=1e-12 * largest)
                assert rows.x[row, f] == (feature.filled[-1] if feature.filled else 0.0)
                assert rows.since[row, f] == len(feature.filled) - 1


@settings(max_examples=100)
@given(streams(), st.lists(st.integers(0, 1_000), max_size=4))
def test_lagged_values_equal_those_of_a_plain_list(stream: Stream, points: list[int]) -> None:
    """The x of k steps before, bridged and filled ones included, as far back as the series has had values."""
    state, plain = SeriesState(FORM), {name: PlainSeries() for name in stream.series}
    ks = range(1, FORM.ring_steps)
    for begin, end in cuts_of(len(stream), points):
        (slot,) = columns(stream)
        span = slice(begin, end)
        rows = state.look(slot[span], stream.step[span], stream.values[span], stream.present[span])
        found = [rows.lagged(ks, feature) for feature in range(2)]
        state.absorb(rows)
        for i in range(begin, end):
            series = plain[stream.series[i]]
            cells = zip(stream.values[i].tolist(), stream.present[i].tolist(), strict=True)
            series.observe(int(stream.step[i]), [x if there else None for x, there in cells])
            for (values, valid), feature in zip(found, series.features, strict=True):
                row = rows.row_of[i - begin]
                past = feature.filled[-2::-1][: len(ks)]
                assert valid[row].tolist() == [k < len(past) for k in range(len(ks))]
                assert values[row][valid[row]].tolist() == past


@settings(max_examples=100)
@given(streams())
def test_rows_are_a_packed_sequence(stream: Stream) -> None:
    """Wave after wave, longest lane first; every observation has one row, every other row is a bridged step."""
    state = SeriesState(FORM)
    rows = look(state, stream)
    assert (np.diff(rows.count) <= 0).all()
    assert rows.offsets[-1] == rows.count.sum() == len(rows.step)
    for wave in range(rows.waves):
        index = np.arange(rows.offsets[wave], rows.offsets[wave + 1])
        assert (rows.wave[index] == wave).all()
        assert rows.lane[index].tolist() == list(range(len(index))) == np.flatnonzero(rows.count > wave).tolist()
    assert (rows.source[rows.row_of] == np.arange(len(stream))).all()
    assert np.count_nonzero(rows.source < 0) == len(rows.step) - len(stream)
    assert (rows.step[rows.row_of] == stream.step).all()
    assert not rows.present[rows.source < 0].any()
    before = rows.past(1)
    inside = before >= 0
    assert (rows.step[inside] == rows.step[before[inside]] + 1).all()
    assert (rows.lane[inside] == rows.lane[before[inside]]).all()
    assert (rows.wave[~inside] == 0).all()


def test_looking_changes_nothing() -> None:
    """`look` may be called again; only `absorb` moves the state."""
    state = SeriesState(FORM)
    look(state, stream_of([("a", i, (float(i), 1.0)) for i in range(5)]))
    before = {name: array.copy() for name, array in state.arrays().items()}
    more = stream_of([("a", i, (9.0, None)) for i in range(7, 12)])
    (slot,) = columns(more)
    first = state.look(slot, more.step, more.values, more.present)
    again = state.look(slot, more.step, more.values, more.present)
    assert all(np.array_equal(array, state.arrays()[name]) for name, array in before.items())
    assert first.sums.tobytes() == again.sums.tobytes()


def test_what_the_ring_holds_can_be_asked_for() -> None:
    """`at` gives values and mask of the last steps, bridged ones as missing, and None beyond either end."""
    state = SeriesState(FORM)
    look(state, stream_of([("a", 100, (1.0, 2.0)), ("a", 101, (3.0, None)), ("a", 104, (5.0, 6.0))]))
    assert state.at(0, 99) is None
    assert state.at(0, 105) is None
    found = [state.at(0, step) for step in range(100, 105)]
    masks = [kept[1].tolist() for kept in found if kept]
    assert masks == [[True, True], [True, False], [False, False], [False, False], [True, True]]
    kept = state.at(0, 101)
    assert kept is not None
    assert kept[0][0] == 3.0
    look(state, stream_of([("a", 104 + FORM.ring_steps - MAX_GAP, (7.0, 8.0))]))
    assert state.at(0, 101) is None


def test_nothing_is_remembered_over_a_new_start() -> None:
    """After a gap that was too long, the steps before it can't be asked for, though the ring is not overwritten."""
    state = SeriesState(FORM)
    look(state, stream_of([("a", 0, (1.0, 1.0)), ("a", MAX_GAP + 2, (2.0, 2.0))]))
    assert state.at(0, 0) is None
    assert state.at(0, MAX_GAP + 2) is not None


def test_a_step_that_is_not_after_the_last_is_refused() -> None:
    """Admission should have kept it out: the error names slot and steps, within a batch and across two."""
    state = SeriesState(FORM)
    twice = stream_of([("a", 5, (1.0, 1.0)), ("b", 9, (1.0, 1.0)), ("a", 5, (2.0, 1.0))])
    with pytest.raises(DataError, match="slot 0 was given step 5, which is not after its last, 5"):
        look(state, twice)
    look(state, twice.take([0, 1]))
    with pytest.raises(DataError, match="slot 0 was given step 4"):
        look(state, stream_of([("a", 4, (1.0, 1.0))]))


def test_a_batch_of_nothing_is_no_rows() -> None:
    """An empty block may be folded."""
    state = SeriesState(FORM)
    none = np.empty(0, np.int64)
    rows = state.look(none, none, np.empty((0, 2)), np.empty((0, 2), np.bool_))
    state.absorb(rows)
    assert (rows.waves, len(rows.step), len(rows.slot)) == (0, 0, 0)


def test_room_is_made_in_chunks_and_new_rows_are_those_of_a_series_never_seen() -> None:
    """Growth does not touch what is there; many small growths make few copies."""
    state = SeriesState(FORM)
    look(state, stream_of([("a", 5, (1.0, 2.0))]))
    kept = {name: array[0].copy() for name, array in state.arrays().items()}
    sizes = set()
    for slots in range(1, 3_000):
        state.reserve(slots)
        assert len(state.last) >= slots
        sizes.add(len(state.last))
    assert len(sizes) <= 12
    assert all(np.array_equal(array[0], kept[name]) for name, array in state.arrays().items())
    assert {len(array) for array in state.arrays().values()} == {len(state.last)}
    assert (state.last[1:] == NO_STEP).all()
    assert (state.age[1:] == -1).all()
    assert (state.since[1:] == -1).all()


# — RECIPE: what the scale is for —


def walk(seed: int, moves: npt.NDArray[np.float64]) -> Rows:
    """One series of 24 steps a day, a half-life of a week."""
    form = SeriesForm(("x",), "x", 3_600_000, 24, 168.0, 30, 6)
    x = np.cumsum(moves)[:, None]
    steps = np.arange(len(x))
    return SeriesState(form).look(np.zeros(len(x), np.int64), steps, x, np.ones_like(x, np.bool_))


def test_the_scale_is_about_the_standard_deviation_of_moves_over_a_quarter_period() -> None:
    """Gaussian moves: S is within a fifth of the standard deviation of x_t - x_{t-p/4}."""
    moves = np.random.default_rng(0).normal(size=4_000)
    rows = walk(0, moves)
    x = np.cumsum(moves)
    assert np.median(rows.scale[1_000:, 0]) / np.std(x[6:] - x[:-6]) == pytest.approx(1.0, abs=0.2)


def test_the_scale_hardly_minds_an_event() -> None:
    """A day of moves ten times as large adds less than a third (a root mean square would triple)."""
    moves = np.random.default_rng(1).normal(size=2_000)
    calm = walk(1, moves).scale[-1, 0]
    moves[-24:] *= 10
    assert 1.0 < walk(1, moves).scale[-1, 0] / calm < 1.33
    assert np.sqrt(np.mean(moves[-168:] ** 2)) > 3


def test_the_scale_of_a_constant_is_small_but_not_zero() -> None:
    """A series that never moves has a scale of a millionth of its level: division is safe."""
    scale = walk(0, np.array([5.0] + [0.0] * 500)).scale[1:, 0]
    assert (scale > 0).all()
    assert (scale < 1e-4).all()


def test_scale_and_level_follow_the_unit() -> None:
    """The same series in a unit 2^20 times as small: scale and level are 2^20 times as large."""
    moves = np.random.default_rng(2).normal(size=300)
    small, large = walk(2, moves), walk(2, moves * 2**20)
    np.testing.assert_allclose(large.scale[1:], small.scale[1:] * 2**20, rtol=1e-9)
    np.testing.assert_allclose(large.level, small.level * 2**20, rtol=1e-12)


# — the form —


def test_a_form_that_cannot_be_kept_is_refused() -> None:
    """The target must be a feature, and the ring must reach back a quarter of a period."""
    with pytest.raises(ConfigError, match="target 'y' is not among the features"):
        SeriesForm(("x",), "y", 1, 24, 1.0, 30, 6)
    with pytest.raises(ConfigError, match="ring_steps 6 must be more than a quarter of period_steps 24"):
        SeriesForm(("x",), "x", 1, 24, 1.0, 6, 6)
    SeriesForm(("x",), "x", 1, 24, 1.0, 7, 6)


def test_the_digest_of_a_form_changes_with_every_field() -> None:
    """Two forms that differ anywhere have different digests, equal ones the same."""
    fields: dict[str, Any] = {
        "features": ("x", "y"),
        "target": "x",
        "interval_ms": 60_000,
        "period_steps": 24,
        "half_life_steps": 168.0,
        "ring_steps": 30,
        "max_gap_steps": 6,
    }
    changes: dict[str, Any] = {
        "features": ("x", "z"),
        "target": "y",
        "interval_ms": 60_001,
        "period_steps": 25,
        "half_life_steps": 168.5,
        "ring_steps": 31,
        "max_gap_steps": 7,
    }
    digest = SeriesForm(**fields).digest()
    assert SeriesForm(**fields).digest() == digest
    assert len({digest, *(SeriesForm(**fields | {name: x}).digest() for name, x in changes.items())}) == 8


def test_a_series_that_rests_for_weeks_keeps_its_measure() -> None:
    """After a month without a move the scale is no less than a fiftieth of what the series used to move."""
    moves = np.random.default_rng(3).normal(size=2_000)
    lively = walk(3, moves).scale[-1, 0]
    rested = walk(3, np.concatenate([moves, np.zeros(720)])).scale[-1, 0]
    assert lively / 100 < rested < lively
