"""A version with an input for each series: from the fit on, whoever prepares its inputs goes by names, not by slots."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from rich.console import Console

from consumers.history import History
from consumers.roster import Seat
from consumers.stream import Arrivals, Partition, Version, admit, fold
from models.errors import VersionError
from models.forecaster import inputs
from models.network import Network
from models.scaling import SeriesState
from models.sequences import Spans
from models.times import rfc3339
from models.weights import fresh_weights, weights_from_bytes, weights_to_bytes
from tests.worker import test_backtest_run as backtested
from tests.worker import test_retraining_tasks as retraining
from tests.worker.test_fit import FORM, HORIZON, HOUR_MS, PLAN
from tests.worker.tuning import searched, settings_of, wanted_of
from worker import cli
from worker.backtest_policies import parse_policy
from worker.cli_history import plan_of
from worker.fit import Fitted, fit, observations, prepared
from worker.retraining_tasks import Lesson, _prepared, judge
from worker.tail import _run
from worker.tune_ground import ground_of
from worker.tune_space import space

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.architecture import Architecture
    from models.blocks import Block

PARTS = (("C", "A"), ("B",))  # how a service might spread the series over its partitions
LATE = 50  # step at which the first series of the history begins, so that its slot is the last


def history(days: int = 20) -> History:
    """Three series by the hour that go each its own way; the one that is named first begins last."""
    rng = np.random.default_rng(3)
    step, index = (one.ravel() for one in np.meshgrid(np.arange(24 * days), np.arange(3), indexing="ij"))
    there = (index > 0) | (step >= LATE)
    step, index = step[there], index[there]
    values = np.stack([np.sin(2 * np.pi * step / (6 + 6 * index)) * (1 + index) + 10 * index, index + 0.0 * step])
    return History(
        series=("C", "A", "B"),
        features=("temp", "dewp"),
        series_index=index,
        time_ms=step * HOUR_MS,
        values=values.T + rng.normal(scale=0.1, size=(len(step), 2)),
        present=np.ones((len(step), 2), np.bool_),
    )


def quiet() -> Console:
    """A console that nobody sees."""
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """A fit whose version knows its series."""
    return fit(history(), replace(PLAN, series_inputs=True), quiet(), io.StringIO())


def arrivals(names: Sequence[str], begin: int, end: int) -> Arrivals:
    """What a partition of these series gets from one step to another; within a step in this order of the series."""
    of = history()
    step = of.time_ms // HOUR_MS
    wanted = [of.series.index(name) for name in names]
    rows = np.flatnonzero((step >= begin) & (step < end) & np.isin(of.series_index, wanted))
    place = np.array([wanted.index(i) for i in of.series_index[rows].tolist()])
    rows = rows[np.lexsort((place, step[rows]))]
    return Arrivals(
        0,
        len(rows),
        np.arange(len(rows)),
        [of.series[i] for i in of.series_index[rows].tolist()],
        step[rows],
        of.values[rows],
        of.present[rows],
        np.zeros(len(rows), np.bool_),
    )


def version_of(found: Fitted) -> Version:
    """The version that was fitted, as a service loads it."""
    return Version(
        1, found.architecture, Network(found.architecture, weights_from_bytes(found.weights, found.architecture))
    )


def served(version: Version, parts: Sequence[Sequence[str]]) -> dict[tuple[str, int], bytes]:
    """The pairs at each series and step where the series are spread over partitions so, a day in each block."""
    partitions = [Partition(FORM) for _ in parts]
    for partition in partitions:
        partition.seat((Seat(1, "incumbent", 0, 0),), {1: version})
    found = {}
    for day in range(20):
        work = []
        for partition, names in zip(partitions, parts, strict=True):
            admitted = admit(partition, arrivals(names, 24 * day, 24 * day + 24), max_series=9)
            assert not admitted.refusals
            work.append((partition, admitted.block))
        for (partition, block), folded in zip(work, fold(work, {1: version}), strict=True):
            for slot, step, pairs in zip(block.slot.tolist(), block.step.tolist(), folded.block.pairs[1], strict=True):
                found[partition.names[slot], step] = pairs.tobytes()
    return found


def test_the_tail_of_a_fit_has_the_pairs_of_a_service_however_its_series_are_spread(fitted: Fitted) -> None:
    """Bit for bit, over partitions whose slots are in another order; under other names they differ."""
    version = version_of(fitted)
    assert version.architecture.series == ("A", "B", "C")
    _, block = observations(history(), FORM, quiet())
    steps = 24 * 20
    dense = _run(version, Partition(FORM, version.architecture.series), block, 0, steps)
    tail = {
        (name, step): dense.pairs[slot, step].tobytes()
        for slot, name in enumerate(("A", "B", "C"))
        for step in range(LATE if name == "C" else 0, steps)
    }
    for parts in (PARTS, (("B", "C"), ("A",)), (("C", "B", "A"),)):
        assert served(version, parts) == tail
    assert np.isfinite(dense.pairs[2, LATE + HORIZON :]).all()
    swapped = msgspec.structs.replace(version.architecture, series=("B", "A", "C"))
    other = served(replace(version, architecture=swapped), PARTS)
    steady = {at for at, pairs in other.items() if pairs == tail[at]}
    assert {name for name, step in steady if step >= LATE + HORIZON} == {"C"}


def test_the_inputs_of_training_are_those_of_the_stream(fitted: Fitted) -> None:
    """Row by row, whatever partition a series is in and whatever its slot there."""
    partition, block = observations(history(), FORM, quiet())
    rows = partition.series.look(block.slot, block.step, block.values, block.present)
    spans = Spans(200, 300, 480)
    _, sequences = prepared(fitted.architecture, FORM, rows, spans)
    assert sequences.inputs.shape[2] == PLAN.architecture.input_size + 3
    for names in PARTS:
        own = Partition(FORM)
        some = admit(own, arrivals(names, 0, 480), max_series=9).block
        here = own.series.look(some.slot, some.step, some.values, some.present)
        theirs = np.array([partition.slots[name] for name in own.names])[here.slot[here.lane]]
        found = inputs(fitted.architecture, FORM, here, own.names)
        assert found.tobytes() == sequences.inputs[theirs, here.step].tobytes()
        assert (found[:, -3:].argmax(axis=1) == theirs).all()


# — retraining —

SERIES = ("c", "nobody", "a")
SEGMENT_NAMES = (("a", "b", "c"), ("c", "a"))


def lesson_of(architecture: Architecture, id_: str, segments: tuple[Block, ...], names: object) -> Lesson:
    """A lesson about two stretches of the same series."""
    weights = weights_to_bytes(
        {
            name: (array + np.random.default_rng(1).normal(scale=0.2, size=array.shape)).astype(np.float32)
            for name, array in fresh_weights(architecture, 1).items()
        },
        architecture,
    )
    json, cuts, settings = architecture.to_json(), retraining.CUTS, retraining.SETTINGS
    return Lesson(id_, retraining.FORM, json, weights, segments, names, cuts, settings, settings)  # type: ignore[arg-type]


def test_stretches_whose_slots_differ_have_the_right_inputs_and_losses() -> None:
    """The second stretch has its series in another order: columns and judgement go by their names."""
    architecture = msgspec.structs.replace(retraining.ARCHITECTURE, series=SERIES)
    one, two = retraining.world(), retraining.world(first=300, seed=5, series=2)
    lesson = lesson_of(architecture, "two", (one, two), SEGMENT_NAMES)
    sequences = _prepared(lesson)
    assert len(sequences.active) == 5
    for lane, name in enumerate(name for names in SEGMENT_NAMES for name in names):
        wanted = np.array([name == known for known in SERIES], np.float32)
        columns = sequences.inputs[lane, :, -3:]
        assert (columns[sequences.active[lane]] == wanted).all()
        assert not columns[~sequences.active[lane]].any()
    contenders = {"incumbent": (lesson.architecture, lesson.weights)}
    begin, end = retraining.CUTS.evaluation_begin, retraining.CUTS.end
    losses = judge(lesson, contenders, begin, end)
    turned = replace(two, slot=1 - two.slot)
    swapped = lesson_of(architecture, "swapped", (one, turned), (("a", "b", "c"), ("a", "c")))
    retraining.assert_same(judge(swapped, contenders, begin, end), losses)
    wrong = lesson_of(architecture, "wrong", (one, turned), SEGMENT_NAMES)
    assert judge(wrong, contenders, begin, end).mse["incumbent"] != pytest.approx(losses.mse["incumbent"], rel=1e-3)
    assert len(_prepared(swapped).active) == 5
    rows = SeriesState(retraining.FORM).look(two.slot, two.step, two.values, two.present)
    alone = inputs(architecture, retraining.FORM, rows, ("c", "a"))
    assert alone[:, -3:].sum() == len(alone)


# — a backtest —


def test_a_backtest_issues_the_same_forecasts_whatever_the_slots_of_its_series() -> None:
    """Renumbered, the same series get the same bits; who comes after the fit has no input of its own."""
    network = backtested.SETTINGS.network.model_copy(update={"series": True})
    settings = backtested.SETTINGS.model_copy(update={"network": network})
    there = backtested.everywhere()
    there[: 24 * (backtested.ONLINE_DAYS + 3), 1] = False
    block = backtested.block_of(backtested.world(), there)
    block = block.take(np.flatnonzero(block.present[:, 0]))
    scene = replace(backtested.scene_of(block), settings=settings)
    assert scene.architecture.series == ("s0", "s2")
    first = backtested.first_of(scene)
    turned = replace(scene, id="turned", block=replace(block, slot=2 - block.slot), names=("s2", "s1", "s0"))
    assert turned.architecture.series == ("s2", "s0")
    issued = []
    for one in (scene, turned):
        _, found = backtested.play(one, parse_policy("never"), first)
        rows = zip(found.step.tolist(), found.slot.tolist(), found.forecasts, strict=True)
        issued.append({(one.names[slot], step): forecasts.tobytes() for step, slot, forecasts in rows})
    assert issued[0] == issued[1]
    assert {name for name, _ in issued[0]} == {"s0", "s1", "s2"}


# — the commands —

MANY = """
[model]
name = "test"
horizon = 2
[network]
series = true
units = [4]
lags = 2
"""


def test_a_fit_on_more_series_than_can_have_an_input_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`killick fit` with network.series on 300 series: how many there are, the limit, the cure; nothing is trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killick.toml").write_text(MANY)
    with (tmp_path / "many.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "time", "value"])
        rows.writerows([i, rfc3339(hour * HOUR_MS), hour % 7 + i] for hour in range(48) for i in range(300))
    words = ["fit", "many.csv", "--time", "time", "--series", "id"]
    monkeypatch.setenv("KILLICK_REDIS__URL", redis_url)
    said = io.StringIO()
    assert cli.run(words, said) == 1
    assert "300 series would have an input each, the limit is 256" in said.getvalue()
    assert "fit fewer series, or set network.series = false" in said.getvalue()
    assert "preflight" not in capsys.readouterr().out


TUNED = """
[model]
features = ["temp", "dewp"]
target = "temp"
horizon = 3
[network]
units = [4]
lags = 3
series = true
[training]
epochs = 2
chunk = 24
closing_epochs = 1
rate = 0.01
"""


def test_a_search_trains_with_the_series_as_a_fit_does(tmp_path: Path) -> None:
    """Its check of the settings as they are reports the error that `killick fit` does; without them it is another."""
    settings = settings_of(tmp_path, TUNED)
    wanted = wanted_of(trials=2, splits=1, repeats=1, check=1)
    found = searched(tmp_path / "study", settings, wanted, ("network.series=true,false",), history(30))
    assert [one.changed for one in found.trials] == [{}, {"network.series": False}]
    assert found.trials[0].mse != found.trials[1].mse
    assert found.check is not None
    plan = plan_of(settings)
    assert plan.series_inputs
    skill = fit(history(30), plan, quiet(), io.StringIO()).skill
    assert tuple(skill.version.mse.tolist()) == found.check.first[0].leads


@pytest.mark.parametrize(
    ("content", "vary"), [(TUNED, ()), (TUNED.replace("true", "false"), ("network.series=true,false",))]
)
def test_a_search_on_too_many_series_is_refused_before_it_begins(
    tmp_path: Path, content: str, vary: tuple[str, ...]
) -> None:
    """Whether the settings ask for their inputs, or some trial would."""
    of = history()
    names = tuple(str(i) for i in range(257))
    many = replace(
        of,
        series=names,
        series_index=np.tile(np.arange(257), 10),
        time_ms=np.repeat(np.arange(10), 257) * HOUR_MS * 48,
        values=np.zeros((2570, 2)),
        present=np.ones((2570, 2), np.bool_),
    )
    settings = settings_of(tmp_path, content)
    with pytest.raises(VersionError, match="257 series would have an input each"):
        ground_of(many, settings, space(settings, (*vary, "training.rate=0.1,0.2"), ()), plan_of, 2)
