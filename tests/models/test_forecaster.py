"""Inputs, forecasts and tiles: every input as its name says, every lane scanned once, whatever the tile."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.architecture import Inputs
from models.choices import FORMS, TRANSFORMS, Form, TransformName
from models.errors import VersionError
from models.forecaster import (
    MAX_TILE,
    MIN_TILE,
    Carried,
    Task,
    _tiles,
    base_and_unit,
    calendar,
    check_fit,
    forecasts,
    inputs,
    scan_tasks,
)
from models.scaling import Rows, SeriesForm, SeriesState
from tests.streams import FORM, NumpyScanner, Stream, architecture_of, cuts_of, stream_of, streams


def rows_of(stream: Stream, state: SeriesState | None = None) -> Rows:
    """The rows of a stream, slots by first appearance, after an empty state."""
    names = list(dict.fromkeys(stream.series))
    slot = np.array([names.index(name) for name in stream.series], np.int64)
    return (state or SeriesState(FORM)).look(slot, stream.step, stream.values, stream.present)


# — inputs —

ALL = architecture_of(inputs=Inputs(lags=4, season_lags=(1, 3), squash=2.5))
LOG = architecture_of(inputs=Inputs(lags=4, season_lags=(1, 3), squash=2.5), transform="log")


def plain_inputs(rows: Rows, row: int, *, log: bool = False) -> dict[str, float]:
    """Every input of one row by name, from the columns of its lane (source: RECIPE)."""
    lane = np.flatnonzero(rows.lane == rows.lane[row])
    lane = lane[np.argsort(rows.wave[lane])]
    at = int(rows.wave[row])
    x = rows.x[lane]

    def seen(value: float, feature: int) -> float:
        """The value, or the logarithm that the target is seen by."""
        if not log or feature:
            return float(value)
        return math.copysign(math.log1p(abs(value) * per[0]), value)

    def difference(k: int, feature: int) -> float:
        """What x was k steps ago, less x now; 0 where the feature had no value yet."""
        if rows.since[row, feature] < k:
            return 0.0
        return seen(x[at - k, feature], feature) - seen(x[at, feature], feature)

    def squashed(z: float) -> float:
        return 2.5 * math.tanh(z / 2.5)

    found = {}
    scale = [float(rows.scale[row, f]) for f in (0, 1)]
    per = [1 / s if s > 0 else 0.0 for s in scale]
    unit = [*per]
    if log and per[0]:
        unit[0] = 1.0 + abs(float(rows.level[row, 0])) * per[0]
    for f, name in enumerate(FORM.features):
        found[f"level.{name}"] = squashed((seen(x[at, f], f) - seen(rows.level[row, f], f)) * unit[f])
        found[f"delta.{name}"] = squashed(-2 * difference(1, f) * unit[f])
        found[f"missing.{name}"] = 0.0 if rows.present[row, f] else 1.0
    for k in range(1, 5):
        found[f"lag.{k}"] = squashed(difference(k, 0) * unit[0])
    for k in (1, 3):
        found[f"season.{k}"] = squashed(difference(FORM.period_steps - k, 0) * unit[0])
    moment = datetime.fromtimestamp(int(rows.step[row]) * FORM.interval_ms // 1000, UTC)
    hour = 2 * math.pi * moment.hour / 24
    week = 2 * math.pi * (moment.weekday() * 24 + moment.hour) / 168
    found |= {"hour.sin": math.sin(hour), "hour.cos": math.cos(hour)}
    return found | {"weekday.sin": math.sin(week), "weekday.cos": math.cos(week)}


@settings(max_examples=100)
@given(streams(most=30), st.booleans())
def test_inputs_are_what_their_names_say(stream: Stream, log: bool) -> None:  # noqa: FBT001 - drawn
    """Name by name equal to a plain calculation, over gaps, missing values and new starts; finite and bounded."""
    rows = rows_of(stream)
    found = inputs(LOG if log else ALL, FORM, rows)
    assert found.dtype == np.float32
    assert found.shape == (len(rows.step), ALL.input_size)
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 2.5
    for row in range(len(rows.step)):
        expected = plain_inputs(rows, row, log=log)
        assert found[row] == pytest.approx([expected[name] for name in ALL.input_names()], abs=2e-6, rel=2e-6)


@pytest.mark.parametrize("off", ["level", "delta", "lags", "season_lags", "calendar", "missing"])
def test_an_input_that_is_switched_off_leaves_the_others_as_they_are(off: str) -> None:
    """The columns are those of the full set, without the ones whose names are gone."""
    rows = rows_of(stream_of([("a", i, (float(i * i % 5), None if i == 3 else 1.0)) for i in range(12)]))
    values = {"level": True, "delta": True, "lags": 4, "season_lags": (1, 3), "calendar": True, "missing": True}
    values[off] = () if off == "season_lags" else 0 if off == "lags" else False
    some = architecture_of(inputs=Inputs(**values, squash=2.5))  # type: ignore[arg-type]
    kept = [ALL.input_names().index(name) for name in some.input_names()]
    assert 0 < len(kept) < ALL.input_size
    assert np.array_equal(inputs(some, FORM, rows), inputs(ALL, FORM, rows)[:, kept])


@settings(max_examples=60)
@given(streams(most=60), st.integers(1, 59), st.sampled_from(["none", "log"]))
def test_the_mean_over_periods_is_that_of_the_values_at_that_time(stream: Stream, cut: int, transform: str) -> None:
    """As far back as the series goes, by plain loops; and the same bits however the stream is cut."""
    periods, leads = 2, (0, 1, 3)
    wide = msgspec.structs.replace(FORM, ring_steps=1 + periods * FORM.period_steps)
    chosen = Inputs(level=False, delta=False, lags=0, season_lags=leads[1:], calendar=False, missing=False, squash=2.5)
    version = architecture_of(inputs=chosen, season_mean=periods, transform=transform)
    assert version.input_names()[2:] == ("season_mean.0", "season_mean.1", "season_mean.3")
    rows = rows_of(stream, SeriesState(wide))
    found = inputs(version, wide, rows)[:, 2:]
    for row in range(len(rows.step)):
        lane = np.flatnonzero(rows.lane == rows.lane[row])
        x = rows.x[lane[np.argsort(rows.wave[lane])], 0]
        at, scale = int(rows.wave[row]), float(rows.scale[row, 0])

        def seen(value: float, scale: float = scale) -> float:
            return math.copysign(math.log1p(abs(value) / scale), value) if transform == "log" else value

        unit = 1 / scale if scale > 0 else 0.0
        if transform == "log" and scale > 0:
            unit = 1.0 + abs(float(rows.level[row, 0])) / scale
        for column, lead in enumerate(leads):
            back = [p * FORM.period_steps - lead for p in range(1, periods + 1)]
            known = [seen(x[at - k]) for k in back if k <= rows.since[row, 0]] if scale > 0 else []
            mean = sum(known) / len(known) - seen(x[at]) if known else 0.0
            assert found[row, column] == pytest.approx(2.5 * math.tanh(mean * unit / 2.5), abs=2e-6, rel=2e-6)
    names = list(dict.fromkeys(stream.series))
    slot = np.array([names.index(name) for name in stream.series], np.int64)
    state, parts = SeriesState(wide), []
    for piece in (slice(0, cut), slice(cut, None)):
        looked = state.look(slot[piece], stream.step[piece], stream.values[piece], stream.present[piece])
        parts.append(inputs(version, wide, looked)[looked.row_of, 2:])
        state.absorb(looked)
    assert np.concatenate(parts).tobytes() == found[rows.row_of].tobytes()


@given(streams(most=30), st.permutations(["a", "b", "d", "e", "of no stream", "A"]))
def test_a_series_has_its_own_input_wherever_its_slot_is(stream: Stream, series: list[str]) -> None:
    """1 in the column of its name and 0 in all others, at bridged steps too; one of no such name has none."""
    rows = rows_of(stream)
    names = list(dict.fromkeys(stream.series))  # by slot
    known = architecture_of(inputs=Inputs(lags=4, season_lags=(1, 3), squash=2.5), series=tuple(series))
    assert known.input_names() == (*ALL.input_names(), *(f"series.{name}" for name in series))
    found = inputs(known, FORM, rows, [*names, "more that come later"])
    assert found.dtype == np.float32
    assert found.shape == (len(rows.step), known.input_size)
    assert found[:, : ALL.input_size].tobytes() == inputs(ALL, FORM, rows).tobytes()
    for row in range(len(rows.step)):
        name = names[int(rows.slot[rows.lane[row]])]
        assert found[row, ALL.input_size :].tolist() == [float(name == column) for column in series]


def test_inputs_do_not_see_the_future() -> None:
    """The inputs of an observation are the same bits whether or not others follow it in the batch."""
    stream = stream_of([(name, i, (math.sin(i) * i, float(i % 3))) for i in range(20) for name in "ab"])
    whole = rows_of(stream)
    first = rows_of(stream.take(range(18)))
    mine, theirs = inputs(ALL, FORM, whole)[whole.row_of[:18]], inputs(ALL, FORM, first)[first.row_of]
    assert mine.tobytes() == theirs.tobytes()


@given(st.lists(st.integers(-11_000_000_000_000, 13_000_000_000_000), min_size=1, max_size=5))
def test_the_calendar_is_that_of_the_standard_library(moments: list[int]) -> None:
    """Hour of the day and time of the week in UTC, a Monday at 0:00 being (0, 1, 0, 1)."""
    found = calendar(np.array(moments, np.int64))
    for row, ms in zip(found, moments, strict=True):
        moment = datetime.fromtimestamp(ms // 1000, UTC)
        hours = moment.hour + moment.minute / 60 + (moment.second + ms % 1000 / 1000) / 3600
        day, week = 2 * math.pi * hours / 24, 2 * math.pi * (moment.weekday() * 24 + hours) / 168
        expected = [math.sin(day), math.cos(day), math.sin(week), math.cos(week)]
        assert row == pytest.approx(expected, abs=1e-5)
    assert calendar(np.array([4 * 86_400_000])).tolist() == [[0.0, 1.0, 0.0, 1.0]]


# — what a forecast stands on —


def test_base_and_unit_of_all_forms() -> None:
    """Correction: the last value, and scale times gain; season: a period before; plain: the level, and the scale."""
    missing: list[float | None] = [None, 3.0, None, 7.0]
    stream = stream_of([("a", i, (v, 1.0)) for i, v in enumerate([*missing, *map(float, range(20, 32))])])
    rows = rows_of(stream)
    scale = rows.scale[:, 0]
    base, unit = base_and_unit(architecture_of(), FORM, rows)
    assert base[1:5, 0].tolist() == [3.0, 3.0, 7.0, 20.0]
    np.testing.assert_allclose(unit, scale[:, None] * np.array([0.5, 0.75, 1.0, 1.25]))
    base, unit = base_and_unit(architecture_of(form="plain"), FORM, rows)
    np.testing.assert_array_equal(base[1:, 0], rows.level[1:, 0])
    np.testing.assert_array_equal(unit[:, 0], scale)
    base, unit = base_and_unit(architecture_of(form="season"), FORM, rows)
    assert base[15].tolist() == [24.0, 25.0, 26.0, 27.0]  # lead k at step 15 + k: a period of 8 before
    assert base[7].tolist() == [23.0, 3.0, 3.0, 7.0]  # of step 0 no value was seen
    np.testing.assert_allclose(unit, scale[:, None] * np.array([0.5, 0.75, 1.0, 1.25]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_network_that_says_nothing_gives_the_reference(form: Form, transform: TransformName) -> None:
    """Persistence, seasonal naive or the level, whatever the target is seen by; NaN before any value and in bridges."""
    stream = stream_of([("a", i, (None if i < 2 else 5.0 + i * i % 7, 1.0)) for i in range(30) if i not in {10, 11}])
    rows = rows_of(stream)
    architecture = architecture_of(form=form, transform=transform, horizon=10)
    found = forecasts(architecture, FORM, rows, np.zeros((len(rows.step), 10), np.float32))
    assert np.isnan(found).all(axis=1).tolist() == [step in {0, 1, 10, 11} for step in rows.step.tolist()]
    row = int(np.flatnonzero(rows.step == 29)[0])
    wanted = {
        "correction": [5.0 + 29 * 29 % 7] * 10,
        "plain": [rows.level[row, 0]] * 10,
        "season": [5.0 + step * step % 7 for step in (*range(22, 30), 22, 23)],
    }[form]
    np.testing.assert_allclose(found[row], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": ("v", "u")}, "features"),
        ({"target": "w"}, "target"),
        ({"interval_ms": 60_000}, "interval_ms"),
        ({"period_steps": 7}, "period_steps"),
        ({"inputs": Inputs(lags=FORM.ring_steps)}, "looks 10 steps back, the series state keeps 10"),
    ],
)
def test_a_version_that_needs_another_state_is_refused(changes: dict[str, object], words: str) -> None:
    """The message names what differs and the cure; one that needs as much as there is fits."""
    with pytest.raises(VersionError, match=words) as refused:
        check_fit(architecture_of(**changes), FORM)
    assert refused.value.cure
    check_fit(architecture_of(inputs=Inputs(lags=FORM.ring_steps - 1)), FORM)


# — tiles —


@given(st.lists(st.integers(1, 3_000), max_size=60), st.integers(0, 5_000))
def test_tiles_hold_every_lane_once_and_idle_little(counts: list[int], short: int) -> None:
    """Tiles follow each other without hole; of one above the least width no lane idles for more than half of it."""
    count = -np.sort(-np.array([*counts, *[1] * short], np.int64))
    tiles = _tiles(count)
    edges = [0, *(end for _, end in tiles)]
    assert tiles == list(pairwise(edges))
    assert edges[-1] == len(count)
    for begin, end in tiles:
        assert end - begin <= MAX_TILE
        if end - begin > MIN_TILE:
            assert count[end - 1] * 2 >= count[begin]


def one_by_one(rows: Rows, task: Task, scanner: NumpyScanner) -> tuple[np.ndarray, np.ndarray]:
    """Each lane scanned in a tile of its own."""
    outputs = np.empty((len(rows.step), 4), np.float32)
    state = np.empty_like(task.network)
    for lane in range(len(rows.count)):
        mine = rows.offsets[: rows.count[lane]] + lane
        x = np.zeros((len(mine), MIN_TILE, task.x.shape[1]), np.float32)
        active = np.zeros((len(mine), MIN_TILE), np.bool_)
        carried = np.zeros((MIN_TILE, task.network.shape[1]), np.float32)
        x[:, 5], active[:, 5], carried[5] = task.x[mine], True, task.network[lane]
        found, after = scanner.scan(x, active, carried)
        outputs[mine], state[lane] = found[:, 5], after[5]
    return outputs, state


@settings(max_examples=60)
@given(st.lists(streams(most=30), min_size=1, max_size=3))
def test_every_lane_is_scanned_once_with_its_own_state(parts: list[Stream]) -> None:
    """Several partitions side by side give what each lane gives alone."""
    architecture = architecture_of()
    scanner = NumpyScanner(architecture)
    rng = np.random.default_rng(0)
    tasks = []
    for stream in parts:
        rows = rows_of(stream)
        state = rng.normal(size=(len(rows.count), architecture.carried_size)).astype(np.float32)
        tasks.append(Task(rows, inputs(architecture, FORM, rows), state))
    for task, (outputs, state) in zip(tasks, scan_tasks(scanner, 4, tasks), strict=True):
        expected, after = one_by_one(task.rows, task, scanner)
        assert outputs.tobytes() == expected.tobytes()
        assert state.tobytes() == after.tobytes()


def test_many_lanes_of_many_lengths_take_few_calls() -> None:
    """2,500 series with 1 to 40 steps each: some tens of calls, not one a wave or a lane."""

    class Counting(NumpyScanner):
        calls = 0
        cells = 0

        def scan(self, x: np.ndarray, active: np.ndarray, carried: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.calls += 1
            self.cells += active.size
            return super().scan(x, active, carried)

    rng = np.random.default_rng(0)
    rows = rows_of(
        stream_of([(f"s{i}", step, (1.0, 1.0)) for i in range(2_500) for step in range(rng.integers(1, 41))])
    )
    architecture = architecture_of()
    scanner = Counting(architecture)
    state = np.zeros((2_500, architecture.carried_size), np.float32)
    scan_tasks(scanner, 4, [Task(rows, inputs(architecture, FORM, rows), state)])
    assert scanner.calls <= 12
    assert scanner.cells <= 2 * len(rows.step) + MIN_TILE * 40


# — carried state —


def test_room_for_new_series_holds_nothing_pending() -> None:
    """Growth keeps what is there; a new row's network state is zero and no forecast is pending."""
    carried = Carried(size=3, horizon=2)
    carried.reserve(1)
    carried.network[0] = 5.0
    carried.pending[0] = 6.0
    carried.reserve(1_000)
    assert carried.network[0].tolist() == [5.0] * 3
    assert (carried.pending[0] == 6.0).all()
    assert not carried.network[1:].any()
    assert np.isnan(carried.pending[1:]).all()
    assert len(carried.network) == len(carried.pending) >= 1_000


@settings(max_examples=50)
@given(streams(), st.lists(st.integers(0, 1_000), max_size=4))
def test_pending_forecasts_are_the_last_ones_issued(stream: Stream, points: list[int]) -> None:
    """After any cut, what is pending for a step is what was issued for it; bridged steps leave nothing pending."""
    horizon = 4
    state, carried = SeriesState(FORM), Carried(2, horizon)
    names = list(dict.fromkeys(stream.series))
    slot = np.array([names.index(name) for name in stream.series], np.int64)
    for begin, end in cuts_of(len(stream), points):
        span = slice(begin, end)
        rows = state.look(slot[span], stream.step[span], stream.values[span], stream.present[span])
        carried.reserve(len(state.last))
        issued = np.full((len(rows.step), horizon), np.nan, np.float32)
        issued[rows.row_of] = stream.step[span, None] * 10 + np.arange(1, horizon + 1)
        carried.pair(rows, issued, 0)
        carried.absorb(rows, issued, np.zeros((len(rows.count), 2), np.float32))
        state.absorb(rows)
    for at, name in enumerate(names):
        taken = {int(step) for step, series in zip(stream.step, stream.series, strict=True) if series == name}
        last, age = int(state.last[at]), int(state.age[at])
        for step in range(last - min(age, horizon - 1), last + 1):
            expected = [step * 10 + k for k in range(1, horizon + 1)] if step in taken else [np.nan] * horizon
            np.testing.assert_array_equal(carried.pending[at, step % horizon], np.array(expected, np.float32))


def test_forms_and_rows_agree_on_the_target() -> None:
    """A target that is not the first feature is forecast from its own column."""
    form = SeriesForm(("v", "w"), "w", 3_600_000, 8, 12.0, 10, 3)
    architecture = architecture_of(target="w")
    state = SeriesState(form)
    stream = stream_of([("a", i, (100.0, float(i))) for i in range(5)])
    rows = state.look(np.zeros(5, np.int64), stream.step, stream.values, stream.present)
    base, _ = base_and_unit(architecture, form, rows)
    assert base[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    lag = architecture.input_names().index("lag.1")
    assert (inputs(architecture, form, rows)[1:, lag] < 0).all()
