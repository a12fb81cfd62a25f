"""Sequences for training: labels against a plain loop, spans, segments and chunks."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from scipy import stats

from models import sequences as module
from models.architecture import Architecture, Inputs
from models.choices import FORMS, Form, TransformName
from models.errors import DataError
from models.forecaster import forecasts, inputs
from models.scaling import Rows, SeriesForm, SeriesState
from models.sequences import Sequences, Spans, Walk, gains, sequences_of

FORM = SeriesForm(
    features=("x", "y"),
    target="x",
    interval_ms=3_600_000,
    period_steps=8,
    half_life_steps=20.0,
    ring_steps=16,
    max_gap_steps=2,
)
HORIZON = 4
ARCHITECTURE = Architecture(
    horizon=HORIZON,
    features=("x", "y"),
    target="x",
    gain=(1.0,) * HORIZON,
    interval_ms=3_600_000,
    period_steps=8,
    units=(4,),
    inputs=Inputs(lags=3),
)


def sample_rows(steps: int = 120, seed: int = 0) -> Rows:
    """Three series with missing values, short gaps that are bridged, long ones that are not, and a late start."""
    rng = np.random.default_rng(seed)
    slots, times, values, present = [], [], [], []
    for step in range(steps):
        for slot in range(3):
            late = slot == 2 and step < 15
            short_gap = slot == 0 and step in (40, 41)
            long_gap = slot == 1 and 60 <= step < 66
            if late or short_gap or long_gap:
                continue
            slots.append(slot)
            times.append(1000 + step)
            values.append(rng.normal(10 * slot, 1 + slot, 2))
            present.append(rng.random(2) < 0.9)
    mask = np.array(present)
    return SeriesState(FORM).look(np.array(slots), np.array(times), np.where(mask, np.array(values), 0.0), mask)


def by_row(rows: Rows) -> dict[tuple[int, int], int]:
    """(slot, step) → row."""
    return {(int(rows.slot[rows.lane[r]]), int(rows.step[r])): r for r in range(len(rows.step))}


SEEN = [("none", 0.5), ("log", 0.5), ("yeo-johnson", 0.3)]


def seen_by(name: str, power: float, value: float, scale: float) -> float:
    """What a transform makes of one value, by SciPy and `math`."""
    if name == "yeo-johnson":
        return float(stats.yeojohnson(np.array([value / scale, 0.0]), power)[0])
    return math.copysign(math.log1p(abs(value / scale)), value) if name == "log" else value / scale


@pytest.mark.parametrize(("transform", "power"), SEEN)
@pytest.mark.parametrize("form", FORMS)
def test_labels_equal_those_of_a_plain_loop(form: Form, transform: TransformName, power: float) -> None:
    """A label is there where a forecast is issued and later paired, and is the scaled difference."""
    rows = sample_rows()
    architecture = msgspec.structs.replace(ARCHITECTURE, form=form, transform=transform, transform_lambda=power)
    sequences = sequences_of(architecture, FORM, rows)
    at = by_row(rows)
    labels = back_in_season = 0
    for slot in range(3):
        for t in range(sequences.steps):
            row = at.get((slot, sequences.first_step + t))
            for k in range(1, HORIZON + 1):
                then = at.get((slot, sequences.first_step + t + k))
                known = (
                    row is not None
                    and then is not None
                    and rows.source[row] >= 0
                    and rows.age[row] >= FORM.period_steps
                    and bool(rows.present[then, 0])
                    and rows.age[then] - rows.age[row] == k
                )
                assert sequences.known[slot, t, k - 1] == known
                if known and row is not None and then is not None:
                    base = rows.level[row, 0] if form == "plain" else rows.x[row, 0]
                    if form == "season" and rows.since[row, 0] >= FORM.period_steps - k:
                        base = rows.x[at[slot, sequences.first_step + t + k - FORM.period_steps], 0]
                        back_in_season += 1
                    apart = FORM.period_steps if form == "season" else k
                    bound = np.inf if form == "plain" else 8 * max(1, apart / 2) ** 0.5
                    scale, level = float(rows.scale[row, 0]), float(rows.level[row, 0])
                    moved = seen_by(transform, power, rows.x[then, 0], scale) - seen_by(transform, power, base, scale)
                    tiny = 1e-6 * scale
                    slope = seen_by(transform, power, level + tiny, scale) - seen_by(transform, power, level, scale)
                    expected = np.clip(moved / (slope / 1e-6), -bound, bound)
                    assert sequences.targets[slot, t, k - 1] == pytest.approx(expected, rel=1e-4, abs=1e-5)
                    labels += 1
                else:
                    assert sequences.targets[slot, t, k - 1] == 0
    assert labels > 500
    assert labels == sequences.usable(0, sequences.steps)
    assert back_in_season == (0 if form != "season" else labels)


@pytest.mark.parametrize(("transform", "power"), SEEN)
@pytest.mark.parametrize("form", FORMS)
def test_a_network_that_answers_with_the_labels_forecasts_the_truth(
    form: Form, transform: TransformName, power: float
) -> None:
    """What the running service makes of the targets, over their gain, are the values that came."""
    rows = sample_rows()
    architecture = msgspec.structs.replace(
        ARCHITECTURE, form=form, transform=transform, transform_lambda=power, gain=(0.5, 1.0, 1.5, 2.0)
    )
    sequences = sequences_of(architecture, FORM, rows)
    slot, t = rows.slot[rows.lane], rows.step - sequences.first_step
    gain = np.array(architecture.gain) if architecture.has_gain else np.ones(HORIZON)
    outputs = (sequences.targets[slot, t] / gain).astype(np.float32)
    found = forecasts(architecture, FORM, rows, outputs)
    bound = 8.0 if architecture.has_gain else np.inf
    checked = 0
    at = by_row(rows)
    for row, k in np.argwhere(sequences.known[slot, t] & (np.abs(sequences.targets[slot, t]) < bound)):
        then = at[int(slot[row]), int(rows.step[row]) + int(k) + 1]
        assert found[row, k] == pytest.approx(rows.x[then, 0], rel=1e-4, abs=1e-4)
        checked += 1
    assert checked > 500
    wanted = inputs(architecture, FORM, rows)
    np.testing.assert_array_equal(sequences.inputs[slot, t], wanted)


def test_inputs_and_marks_lie_at_their_series_and_step() -> None:
    """Inputs are those of the running service; fresh and active follow starts, bridges and new starts."""
    rows = sample_rows()
    sequences = sequences_of(ARCHITECTURE, FORM, rows)
    wanted = inputs(ARCHITECTURE, FORM, rows)
    for (slot, step), row in by_row(rows).items():
        np.testing.assert_array_equal(sequences.inputs[slot, step - sequences.first_step], wanted[row])
    assert np.argwhere(sequences.fresh).tolist() == [[0, 0], [1, 0], [1, 66], [2, 15]]
    assert sequences.active[0].all()
    assert np.flatnonzero(~sequences.active[1]).tolist() == list(range(60, 66))
    assert np.flatnonzero(~sequences.active[2]).tolist() == list(range(15))


def test_gains_are_the_root_mean_square_over_the_training_span_alone() -> None:
    """Labels whose time lies at or after the end of the span move no gain."""
    sequences = sequences_of(ARCHITECTURE, FORM, sample_rows())
    end = 80
    found = gains(sequences, end)
    for k in range(1, HORIZON + 1):
        mask = sequences.known[:, : end - k, k - 1]
        values = sequences.targets[:, : end - k, k - 1][mask]
        assert found[k - 1] == pytest.approx(float(np.sqrt(np.mean(values.astype(float) ** 2))), rel=1e-6)
    for k in range(1, HORIZON + 1):
        sequences.targets[:, end - k :, k - 1] = 1e6
    assert gains(sequences, end) == found


def test_a_series_that_stood_still_does_not_set_the_gain() -> None:
    """After long rest a move of thousands of scales is bounded."""
    count = 400
    values = np.zeros((count, 2))
    values[:60] = np.random.default_rng(0).normal(size=(60, 2))
    values[300:, 0] = 5.0
    rows = SeriesState(FORM).look(np.zeros(count, np.int64), np.arange(count), values, np.ones((count, 2), np.bool_))
    sequences = sequences_of(ARCHITECTURE, FORM, rows)
    at = by_row(rows)[0, 299]
    assert 5.0 / rows.scale[at, 0] > 100
    assert np.abs(sequences.targets).max() == pytest.approx(8 * 2**0.5, rel=1e-6)
    season = sequences_of(msgspec.structs.replace(ARCHITECTURE, form="season"), FORM, rows)
    assert np.abs(season.targets).max(axis=(0, 1)) == pytest.approx([16.0] * 4, rel=1e-6)  # a period apart: 8·√(8/2)


def test_a_target_that_comes_late_has_the_last_value_for_its_season() -> None:
    """Where no value was seen a period before, the label stands on the last value, as the forecast does."""
    values = np.random.default_rng(0).normal(5.0, 1.0, (60, 2))
    present = np.ones((60, 2), np.bool_)
    present[:20, 0] = False
    architecture = msgspec.structs.replace(ARCHITECTURE, form="season")
    rows = SeriesState(FORM).look(np.zeros(60, np.int64), np.arange(60), np.where(present, values, 0.0), present)
    sequences = sequences_of(architecture, FORM, rows)
    for t, k in [(22, 1), (22, 4), (26, 1), (27, 1), (24, 4), (23, 4)]:
        back = t + k - 8
        moved = values[t + k, 0] - values[back if back >= 20 else t, 0]
        assert sequences.known[0, t, k - 1]
        assert sequences.targets[0, t, k - 1] == pytest.approx(moved / rows.scale[t, 0], rel=1e-5)
    found = forecasts(architecture, FORM, rows, sequences.targets[0])
    known = sequences.known[0, :, 0] & (np.abs(sequences.targets[0, :, 0]) < 16)
    np.testing.assert_allclose(found[:-1, 0][known[:-1]], values[1:, 0][known[:-1]], rtol=1e-5)


def test_sequences_too_large_for_memory_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """One observation of a wrong year asks for a long clock; the message names steps and bytes."""
    rows = SeriesState(FORM).look(
        np.array([0, 1]), np.array([0, 500_000_000]), np.zeros((2, 2)), np.ones((2, 2), np.bool_)
    )
    with pytest.raises(DataError, match=r"2 series over 500,000,001 steps .* need 1\d\d\.\d GB"):
        sequences_of(ARCHITECTURE, FORM, rows)
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="limit"):
        sequences_of(ARCHITECTURE, FORM, sample_rows())


def test_spans_follow_each_other_and_are_refused_when_too_short() -> None:
    """Shares become three spans; each must hold three horizons."""
    spans = Spans.by_share(1000, validation=0.2, tail=0.1, horizon=10)
    assert (spans.train_end, spans.validation_end, spans.end) == (700, 900, 1000)
    with pytest.raises(DataError, match="100 make the held-out span"):
        Spans.by_share(1000, validation=0.2, tail=0.1, horizon=34)
    assert Spans.by_share(100, validation=0.2, tail=0.0, horizon=5).validation_end == 100


def long_sequences(steps: int = 1000, series: int = 3) -> Sequences:
    """Sequences whose inputs say where they stand; series s starts at step 100·s."""
    active = np.ones((series, steps), np.bool_)
    for s in range(series):
        active[s, : 100 * s] = False
    position = np.broadcast_to(np.arange(steps, dtype=np.float32), (series, steps))
    return Sequences(
        inputs=np.stack([position, np.repeat(np.arange(series, dtype=np.float32)[:, None], steps, 1)], axis=2),
        targets=np.zeros((series, steps, HORIZON), np.float32),
        known=np.repeat(active[:, :, None], HORIZON, axis=2),
        active=active,
        fresh=np.zeros_like(active),
        first_step=0,
    )


def test_an_epoch_walks_every_step_of_every_series_once_and_in_order() -> None:
    """Whatever the phase, each lane's chunks follow each other and together cover the span."""
    walk = Walk(long_sequences(), end=900, chunk=10, segments=8)
    rng = np.random.default_rng(3)
    firsts = set()
    for _ in range(5):
        bounds = walk.boundaries(rng)
        firsts.add(bounds[0][1])
        seen: dict[int, list[tuple[int, int]]] = {lane: [] for lane in range(walk.lanes)}
        for begin, end in bounds:
            for batch in walk.batches(begin, end, 3, rng):
                for column, lane in enumerate(batch.lanes.tolist()):
                    taken = batch.inputs[batch.active[:, column], column]
                    seen[lane] += [(int(s), int(t)) for t, s in taken]
        walked = [place for lane in range(walk.lanes) for place in seen[lane]]
        assert walked == [(s, t) for s in range(3) for t in range(100 * s, 900)]
    assert len(firsts) > 1


def test_no_label_from_beyond_the_end_is_given_out() -> None:
    """In a walk up to a step, known labels have their own time before it, and all of these are given."""
    sequences = long_sequences()
    walk = Walk(sequences, end=200, chunk=16, segments=4)
    given = 0.0
    for begin, end in walk.boundaries(np.random.default_rng(0)):
        batch = walk.batch(np.arange(walk.lanes), begin, end)
        time = batch.inputs[:, :, 0]
        for k in range(1, HORIZON + 1):
            assert (time[batch.known[:, :, k - 1] > 0] + k < 200).all()
        given += batch.known.sum()
    assert given == sequences.usable(0, 200) > 0


def test_state_is_handed_on_within_a_series_only() -> None:
    """A segment starts from the state at the end of the one before it, a series' first one from zero."""
    walk = Walk(long_sequences(), end=900, chunk=10, segments=4)
    carried = np.arange(1, walk.lanes + 1, dtype=np.float32)[:, None]
    expected = np.where(np.arange(walk.lanes) % 4 == 0, 0, np.arange(walk.lanes))
    np.testing.assert_array_equal(walk.handed_on(carried)[:, 0], expected)
    for lane in range(1, walk.lanes):
        if walk.before[lane] >= 0:
            assert walk.start[lane] == walk.stop[walk.before[lane]]


def test_short_series_are_cut_into_fewer_segments() -> None:
    """A segment holds at least six chunks, unless the series is shorter."""
    assert Walk(long_sequences(series=1), end=1000, chunk=10, segments=8).lanes == 8
    assert Walk(long_sequences(series=1), end=1000, chunk=48, segments=8).lanes == 3
    assert Walk(long_sequences(series=1), end=100, chunk=48, segments=8).lanes == 1
    assert Walk(long_sequences(series=3), end=150, chunk=48, segments=8).lanes == 2


def later(rows_from: int, steps: int, seed: int) -> Rows:
    """The rows of one series that begins at a step."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(steps, 2))
    time = np.arange(rows_from, rows_from + steps)
    return SeriesState(FORM).look(np.zeros(steps, np.int64), time, values, np.ones((steps, 2), np.bool_))


def test_stretches_lie_side_by_side_and_behind_each_other_where_they_can() -> None:
    """Inputs, labels and marks are those that each stretch has alone; what begins later needs no series more."""
    parts = [later(1150, 60, 1), sample_rows(), later(1119, 20, 2), later(990, 9, 3)]  # sample_rows: 1000…1119
    joined = sequences_of(ARCHITECTURE, FORM, *parts)
    assert joined.first_step == 990
    assert joined.steps == 1210 - 990
    places = {0: 0, 1: 0, 2: 3, 3: 0}
    assert len(joined.active) == 4
    taken = np.zeros_like(joined.active)
    for part, series in places.items():
        alone = sequences_of(ARCHITECTURE, FORM, parts[part])
        first = alone.first_step - joined.first_step
        at = (slice(series, series + len(alone.active)), slice(first, first + alone.steps))
        for name in ("inputs", "targets", "known", "active", "fresh"):
            np.testing.assert_array_equal(getattr(joined, name)[at], getattr(alone, name), err_msg=f"{part} {name}")
        taken[at] = True
    assert not joined.active[~taken].any()
    assert not joined.known[~taken].any()


def test_gains_may_be_those_of_a_span_that_begins_later() -> None:
    """Labels of forecasts that were issued before it move no gain."""
    sequences = sequences_of(ARCHITECTURE, FORM, sample_rows())
    before = gains(sequences, 100, 60)
    sequences.targets[:, :60] = 1e6
    assert gains(sequences, 100, 60) == before
    assert gains(sequences, 100, 59) != before
    assert gains(sequences, 60, 60) == (1.0,) * HORIZON
