"""What a retraining does in a child process: trainings that see what they should, and losses that are right."""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from consumers.roster import Seat
from consumers.stream import Partition, Version, fold
from models.architecture import Architecture, Inputs
from models.blocks import Block
from models.epochs import retrain
from models.errors import DataError
from models.learning import TrainingSettings
from models.network import Network
from models.scaling import SeriesForm
from models.strategies import CONTROL, Attempt, control, cuts
from models.training import SPIN_UP_STEPS
from models.verdict import Attempted
from models.weights import fresh_weights, weights_from_bytes, weights_to_bytes
from worker.retraining_tasks import Lesson, Result, _material, _prepared, attempt, judge

if TYPE_CHECKING:
    from models.sequences import Sequences
    from worker.losses import Losses

HOUR_MS = 3_600_000
HORIZON = 4
FORM = SeriesForm(
    features=("x",),
    target="x",
    interval_ms=HOUR_MS,
    period_steps=12,
    half_life_steps=100.0,
    ring_steps=16,
    max_gap_steps=3,
)
ARCHITECTURE = Architecture(
    horizon=HORIZON,
    features=("x",),
    target="x",
    gain=(0.5, 0.8, 1.0, 1.0),
    interval_ms=HOUR_MS,
    period_steps=12,
    units=(6,),
    inputs=Inputs(lags=4, calendar=False),
)
NAMES = (("a", "b", "c"),)
FIRST = 400_000  # step
TURN, END = 500, 900  # the world is another one from here on
SETTINGS = TrainingSettings(chunk=16, segments=4, closing_epochs=1)
CUTS = cuts(FIRST, FIRST + TURN, FIRST + END, horizon=HORIZON, validation=0.2, evaluation=0.3)
UPDATE = Attempt("update-on-new", 5e-3, None, epochs=6, patience=3, seed=1)
FRESH = Attempt("new-on-new", 1e-2, None, epochs=4, patience=3, seed=1)


def world(first: int = 0, seed: int = 0, series: int = 3) -> Block:
    """Waves in noise whose period turns; some values and some observations are missing, and one series pauses."""
    rng = np.random.default_rng(seed)
    time = np.arange(END)
    period = np.where(time < TURN, 12.0, 7.0)
    phase = np.cumsum(2 * np.pi / period)[:, None] + rng.uniform(0, 2 * np.pi, series)
    x = 3 * np.sin(phase) + 10 * np.arange(series) + rng.normal(scale=0.2, size=(END, series))
    there = rng.random((END, series)) < 0.99
    there[700:712, 1] = False
    there[:first] = False
    step, slot = np.nonzero(there)
    present = rng.random(len(step)) < 0.98
    values = np.where(present, x[step, slot], 0.0)[:, None]
    offset = 2 * np.arange(len(step)) + 5  # as a topic's that holds other records too
    return Block(5, int(offset[-1]) + 1, offset, slot, step + FIRST, values, present[:, None])


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    """A world that has turned, and an incumbent that was trained before."""
    before = cuts(FIRST, FIRST, FIRST + TURN, horizon=HORIZON, validation=0.2, evaluation=0.1)
    fresh = weights_to_bytes(fresh_weights(ARCHITECTURE, 1), ARCHITECTURE)
    first = Lesson("before", FORM, ARCHITECTURE.to_json(), fresh, (world(),), NAMES, before, SETTINGS, SETTINGS)
    fitted = attempt(first, replace(FRESH, epochs=25))
    assert fitted.weights is not None
    return Lesson("turned", FORM, fitted.architecture, fitted.weights, (world(),), NAMES, CUTS, SETTINGS, SETTINGS)


def made(result: Result) -> bytes:
    """The weights, which must be there."""
    assert result.weights is not None
    return result.weights


def contenders_of(lesson: Lesson, **results: Result) -> dict[str, tuple[bytes, bytes]]:
    """The incumbent and what else came of trainings."""
    return {"incumbent": (lesson.architecture, lesson.weights)} | {
        name: (result.architecture, made(result)) for name, result in results.items()
    }


def test_an_update_recovers_in_a_world_that_has_turned(lesson: Lesson) -> None:
    """On the evaluation span it errs by a fraction of the incumbent, and of the control that saw no new data."""
    update = attempt(lesson, replace(UPDATE, epochs=20))
    wanted = control(update.attempt, update.attempted.gradient_steps, CUTS, HORIZON)
    assert isinstance(wanted, Attempt)
    contenders = contenders_of(lesson, update=update, control=attempt(lesson, wanted))
    losses = judge(lesson, contenders, CUTS.evaluation_begin, CUTS.end)
    assert losses.mse["incumbent"] > 0.3 * losses.mse["persistence"]
    assert losses.mse["update"] < 0.5 * losses.mse["incumbent"]
    assert losses.mse["update"] < 0.5 * losses.mse["control"]
    assert update.attempted.diagnosis == "good fit"
    assert update.architecture == lesson.architecture  # its gains, too


def running_outputs(
    architecture: Architecture, weights: dict[str, np.ndarray], sequences: Sequences, steps: range
) -> np.ndarray:
    """The outputs `(S, T, H)` of a network that is stepped from zero, and zeroed where a series begins anew."""
    network = Network(architecture, weights)
    carried = np.zeros((8, architecture.carried_size), np.float32)
    count = len(sequences.active)
    found = []
    for step in steps:
        x, active = np.zeros((1, 8, architecture.input_size), np.float32), np.zeros((1, 8), np.bool_)
        x[0, :count], active[0, :count] = sequences.inputs[:, step], sequences.active[:, step]
        carried[:count][sequences.fresh[:, step]] = 0.0
        outputs, carried = network.scan(x, active, carried.copy())
        carried = carried.copy()
        found.append(outputs[0, :count])
    return np.stack(found, axis=1)


def test_the_validation_error_can_be_compared_between_attempts(lesson: Lesson) -> None:
    """It is the mean squared difference in scales, worked out from the network's own outputs, whatever the gains."""
    sequences = _prepared(lesson)
    first = sequences.first_step
    begin, end = CUTS.validation_begin - first, CUTS.validation_end - first
    for wanted in (UPDATE, FRESH):
        result = attempt(replace(lesson, update=replace(SETTINGS, closing_epochs=0)), wanted)
        assert (result.architecture == lesson.architecture) == wanted.updates
        settings = replace(SETTINGS, closing_epochs=0, rate=wanted.rate, epochs=wanted.epochs, patience=3, seed=1)
        architecture = Architecture.from_json(result.architecture)
        weights = weights_from_bytes(lesson.weights, architecture) if wanted.updates else None
        kept = retrain(architecture, sequences, _material(lesson, wanted, sequences, settings), settings, weights)
        outputs = running_outputs(architecture, kept.weights, sequences, range(begin - SPIN_UP_STEPS, end))
        found = outputs[:, SPIN_UP_STEPS:] * np.array(architecture.gain)
        issued = np.arange(begin, end)[None, :, None]
        inside = sequences.known[:, begin:end] & (issued + np.arange(1, HORIZON + 1) < end)
        expected = float(np.mean((found - sequences.targets[:, begin:end])[inside] ** 2))
        assert result.attempted.validation_mse == pytest.approx(expected, rel=1e-4)


STRATEGIES = ("update-on-new", "update-on-all", "new-on-new", "new-on-all", CONTROL)


def weights_after(lesson: Lesson, strategy: str, change: str) -> bytes:
    """What a strategy makes of a lesson in which something was changed behind the preparation."""
    other = replace(lesson, id=f"{strategy} {change}")
    sequences = _prepared(other)
    first, cut = sequences.first_step, lesson.cuts
    new, train_end = cut.new_begin - first, cut.train_end - first
    for k in range(1, HORIZON + 1):
        spans = {
            "old labels": slice(0, new),
            "new labels": slice(new - k, None),
            "labels between training and validation": slice(train_end - k, cut.validation_begin - first),
            "labels after validation": slice(cut.validation_end - first - k, None),
            "labels before all": slice(0, cut.begin - first),
            "": slice(0, 0),
        }
        sequences.targets[:, spans[change], k - 1] += 2.0
    if change == "new labels":
        sequences.inputs[:, new:] = 0.5
    wanted = replace(FRESH if strategy.startswith("new-") else UPDATE, strategy=strategy)
    steps = 9 if strategy == CONTROL else None
    return made(attempt(other, replace(wanted, epochs=2, gradient_steps=steps)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_learns_from_its_own_data_and_from_nothing_else(lesson: Lesson, strategy: str) -> None:
    """Other labels where it must not look leave every bit of its weights; other ones where it should do not."""
    late = replace(lesson, cuts=msgspec.structs.replace(CUTS, begin=FIRST + 150))
    open_ended = replace(late, update=replace(SETTINGS, closing_epochs=0), training=replace(SETTINGS, closing_epochs=0))
    plain = weights_after(late, strategy, "")
    on_old, on_new = not strategy.endswith("-on-new"), strategy != CONTROL
    assert (weights_after(late, strategy, "old labels") != plain) == on_old
    assert (weights_after(late, strategy, "new labels") != plain) == on_new
    assert weights_after(late, strategy, "labels after validation") == plain
    assert weights_after(late, strategy, "labels before all") == plain
    plain = weights_after(open_ended, strategy, "")
    assert weights_after(open_ended, strategy, "labels between training and validation") == plain


def test_what_counts_as_recent_is_the_end_of_the_new_data(lesson: Lesson) -> None:
    """With a shorter recent span an update on new data learns from that alone."""
    sequences = _prepared(lesson)
    recent_begin = CUTS.train_end - 60 - sequences.first_step
    results = []
    for name in ("plain", "changed"):
        other = replace(lesson, id=f"recent {name}")
        if name == "changed":
            _prepared(other).targets[:, :recent_begin] += 2.0
        results.append(made(attempt(other, replace(UPDATE, recent_steps=60))))
    assert results[0] == results[1]
    assert made(attempt(replace(lesson, id="recent all"), UPDATE)) != results[0]


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_the_control_takes_exactly_as_many_steps_as_it_should(lesson: Lesson, steps: int) -> None:
    """Whatever an epoch's length and patience are."""
    found = attempt(lesson, replace(UPDATE, strategy=CONTROL, gradient_steps=steps, epochs=1, patience=1))
    assert found.attempted.gradient_steps == steps
    assert found.attempted.strategy == CONTROL


def test_the_steps_that_are_told_are_those_that_the_weights_took(lesson: Lesson) -> None:
    """Epochs after the best one do not count, the closing ones do."""
    wanted = replace(UPDATE, rate=0.1, epochs=30, patience=2)
    found = attempt(lesson, wanted)
    plain = attempt(replace(lesson, id="unclosed", update=replace(SETTINGS, closing_epochs=0)), wanted)
    assert plain.attempted.best_epoch == len(plain.attempted.curve) - 2
    per_epoch, rest = divmod(plain.attempted.gradient_steps, plain.attempted.best_epoch)
    assert rest == 0
    assert found.attempted.gradient_steps == plain.attempted.gradient_steps + per_epoch


def test_trainings_repeat_bit_for_bit_and_differ_by_their_seed(lesson: Lesson) -> None:
    """Weights of the same seed are the same bytes, and the data is prepared once for all of a lesson."""
    first = attempt(lesson, UPDATE)
    before = _prepared.cache_info()
    assert made(attempt(lesson, UPDATE)) == first.weights
    assert made(attempt(lesson, replace(UPDATE, seed=2))) != first.weights
    after = _prepared.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 0)


def test_an_exploded_training_is_a_result(lesson: Lesson) -> None:
    """A rate of 1 ends in words and without weights; what is kept of it is JSON."""
    calm = cuts(FIRST, FIRST + 200, FIRST + TURN, horizon=HORIZON, validation=0.2, evaluation=0.3)
    exploded = attempt(replace(lesson, id="calm", cuts=calm), replace(UPDATE, rate=1.0))
    assert exploded.weights is None
    kept = msgspec.json.decode(msgspec.json.encode(exploded.attempted), type=Attempted)
    assert (kept.outcome, kept.diagnosis, kept.validation_mse) == ("exploded", "exploded", None)
    assert "more than 10 times the" in kept.words
    assert "rate 1," in kept.words
    wild = replace(lesson, id="wild", update=replace(SETTINGS, loss="mse"))
    _prepared(wild).targets[:] *= 1e25
    lost = attempt(wild, UPDATE).attempted
    assert re.fullmatch("exploded: the loss is (inf|nan) at step 1 with rate 0.005", lost.words)
    assert msgspec.json.decode(msgspec.json.encode(lost), type=Attempted).curve[0].train_loss is None


def test_too_little_data_is_said(lesson: Lesson) -> None:
    """Nothing at all, nothing to validate on, nothing to train on, nothing to judge on."""
    block = world()
    none = replace(lesson, id="none", segments=(block.take(np.zeros(len(block), np.bool_)),))
    with pytest.raises(DataError, match="no observation"):
        attempt(none, UPDATE)
    early = replace(lesson, id="early", segments=(block.take(block.step < CUTS.validation_begin),))
    with pytest.raises(DataError, match="validation span holds no label"):
        attempt(early, UPDATE)
    late = replace(lesson, id="late", segments=(block.take(block.step >= CUTS.train_end),))
    with pytest.raises(DataError, match="windows of recent and old data hold no label"):
        attempt(late, UPDATE)
    for nothing in (none, early):
        with pytest.raises(DataError, match="no observation in the 120 steps of the span"):
            judge(nothing, contenders_of(lesson), CUTS.evaluation_begin, CUTS.end)


def forecasts_of(
    series_form: SeriesForm, block: Block, architecture: bytes, weights: bytes, start_step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts `(N, H)` of a version that starts at a step, and the scale in force, `(N,)`."""
    form = Architecture.from_json(architecture)
    version = Version(1, form, Network(form, weights_from_bytes(weights, form)))
    partition = Partition(series_form)
    at = int(np.argmax(block.step >= start_step))
    before, after = block.take(np.arange(at)), block.take(np.arange(at, len(block)))
    (first,) = fold([(partition, before)], {})
    partition.seat([Seat(1, "shadow", 0, 0)], {1: version})
    (second,) = fold([(partition, after)], {1: version})
    nothing = np.full((at, HORIZON), np.nan)
    return np.concatenate([nothing, second.forecasts[1]]), np.concatenate([first.block.scale, second.block.scale])


Contenders = dict[str, tuple[bytes, bytes]]
Cells = dict[str, list[tuple[int, int, float, float]]]  # step, lead, scaled and unscaled error of every pair, by name


def filled(block: Block) -> dict[tuple[int, int], float]:
    """The value at each slot and step that a series takes: the last known one where there is none."""
    values: dict[tuple[int, int], float] = {}
    last: dict[int, int] = {}
    for i, (slot, step) in enumerate(zip(block.slot.tolist(), block.step.tolist(), strict=True)):
        goes_on = step - last.get(slot, step) - 1 <= FORM.max_gap_steps
        for taken in range(last.get(slot, step) + 1, step + 1) if goes_on else ():
            if (slot, taken - 1) in values:
                values[slot, taken] = values[slot, taken - 1]
        if block.present[i, 0]:
            values[slot, step] = float(block.values[i, 0])
        last[slot] = step
    return values


def plain_losses(form: SeriesForm, block: Block, contenders: Contenders, begin: int, end: int) -> Cells:
    """What counts of one segment, one cell after another."""
    found: Cells = {name: [] for name in (*contenders, "persistence", "seasonal")}
    runs = {name: forecasts_of(form, block, *data, begin - 64) for name, data in contenders.items()}
    values = filled(block)
    places = {place: i for i, place in enumerate(zip(block.slot.tolist(), block.step.tolist(), strict=True))}
    for (slot, step), i in places.items():
        settled = all((slot, t) in values for t in range(step - form.period_steps, step))
        if not block.present[i, 0] or not begin <= step < end or not settled:
            continue
        actual, scale = float(block.values[i, 0]), next(iter(runs.values()))[1][i]
        for lead in range(1, HORIZON + 1):
            at = places.get((slot, step - lead))
            if at is None or step - lead < begin:
                continue
            made_there = {name: forecasts[at, lead - 1] for name, (forecasts, _) in runs.items()}
            made_there["persistence"] = values[slot, step - lead]
            season = form.period_steps * -(-lead // form.period_steps)
            if all((slot, t) in values for t in range(step - season, step)):
                made_there["seasonal"] = values[slot, step - season]
            for name, forecast in made_there.items():
                found[name].append((step, lead, (forecast - actual) / scale, forecast - actual))
    return found


@pytest.mark.parametrize("period", [12, 3])
def test_losses_by_step_are_those_of_a_plain_loop_over_pairs(lesson: Lesson, period: int) -> None:
    """Two segments, gaps and missing values: losses by step, by lead and in all, of everybody, over the same pairs.

    Where the season is shorter than the horizon, seasonal naive lacks some of them.
    """
    begin, end = CUTS.evaluation_begin - 80, CUTS.end - 30  # over the pause
    form = msgspec.structs.replace(FORM, period_steps=period)
    two = (world(), world(first=300, seed=5, series=2))
    both = replace(lesson, id="both", form=form, segments=two, names=(*NAMES, ("b", "d")))
    contenders = contenders_of(lesson, update=attempt(lesson, UPDATE), anew=attempt(lesson, FRESH))
    losses = judge(both, contenders, begin, end)
    parts = [plain_losses(form, block, contenders, begin, end) for block in both.segments]
    cells = {name: [pair for part in parts for pair in part[name]] for name in parts[0]}
    assert losses.steps.tolist() == list(range(begin, end))
    assert losses.pairs == len(cells["incumbent"]) > 2_000
    assert losses.series == 5
    assert (len(cells["seasonal"]) < losses.pairs) == (period == 3)
    assert losses.leads == (1, 2, 3, 4)
    assert set(losses.loss) == set(cells) == set(losses.mse_by_lead)
    for name, found in cells.items():
        steps, leads, scaled, unscaled = (np.array(column) for column in zip(*found, strict=True))
        for step in range(begin, end):
            here = scaled[steps == step]
            expected = np.mean(here**2) if len(here) else np.nan
            assert losses.loss[name][step - begin] == pytest.approx(expected, rel=1e-5, nan_ok=True)
        for lead in (1, 2, 3, 4):
            assert losses.mse_by_lead[name][lead - 1] == pytest.approx(np.mean(scaled[leads == lead] ** 2), rel=1e-5)
        assert losses.mse[name] == pytest.approx(np.mean(scaled**2), rel=1e-5)
        assert losses.mae[name] == pytest.approx(np.mean(np.abs(unscaled)), rel=1e-5)
    assert np.isnan(losses.loss["incumbent"][0])  # nothing is issued before the span
    assert np.isfinite(losses.loss["incumbent"][1:]).all()


def test_pieces_of_a_replay_give_the_same_losses(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the stream is cut for memory's sake."""
    contenders = contenders_of(lesson, update=attempt(lesson, UPDATE))
    whole = judge(lesson, contenders, CUTS.evaluation_begin, CUTS.end)
    monkeypatch.setattr("worker.retraining_tasks.PIECE_CELLS", 100)
    monkeypatch.setattr("worker.retraining_tasks.LEAST_PIECE", 7)
    assert_same(judge(lesson, contenders, CUTS.evaluation_begin, CUTS.end), whole)


def assert_same(one: Losses, other: Losses) -> None:
    """Fail unless two have the same numbers."""
    assert (one.pairs, one.observations, one.series) == (other.pairs, other.observations, other.series)
    for name, loss in one.loss.items():
        np.testing.assert_allclose(loss, other.loss[name], rtol=1e-12)
    assert one.mse == pytest.approx(other.mse, rel=1e-12)


def test_both_run_in_a_child_process(lesson: Lesson) -> None:
    """What goes to a fresh process and comes back is what is worked out here, to the bit."""
    here = attempt(lesson, UPDATE)
    losses = judge(lesson, contenders_of(lesson, update=here), CUTS.evaluation_begin, CUTS.end)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = pool.submit(attempt, lesson, UPDATE).result(timeout=120)
        contenders = contenders_of(lesson, update=there)
        judged = pool.submit(judge, lesson, contenders, CUTS.evaluation_begin, CUTS.end).result(timeout=120)
    assert there.weights == here.weights
    assert replace_seconds(there.attempted) == replace_seconds(here.attempted)
    assert_same(judged, losses)


def replace_seconds(found: Attempted) -> Attempted:
    """The same, however long it took."""
    return msgspec.structs.replace(found, seconds=0.0)
