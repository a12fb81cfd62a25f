"""One retraining on a world that has turned: chosen on the validation span, judged on what nothing was chosen by."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from models.errors import DataError, VersionError
from models.server import connect
from models.strategies import CONTROL
from tests.streams import FORM, AtOnce
from tests.worker.turning import END, GRID, LIMITS, NAMES, TURN, drift, filled, lessons, request
from worker.executors import Work
from worker.retraining import findings
from worker.verdict_making import Impact, Occasion, verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client
    from models.verdict import Attempted
    from tests.services.redis import RedisServer
    from worker.lessons import Gathered
    from worker.retraining import Findings

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def told() -> list[tuple[int, int, str]]:
    """What was told of the progress."""
    return []


@pytest.fixture(scope="module")
def gathered(redis_server: RedisServer) -> Iterator[tuple[Client, Gathered]]:
    """The lesson after the turn."""
    client = connect(redis_server.url)
    filled(client, "turned")
    yield client, lessons(client, "turned").gather([drift("a")])
    client.close()


@pytest.fixture(scope="module")
def found(gathered: tuple[Client, Gathered], told: list[tuple[int, int, str]]) -> Findings:
    """What came of it."""
    work = Work(AtOnce(), lambda done, total, note: told.append((done, total, note)), time.monotonic() + 600)
    return findings(gathered[1].lesson, GRID, 2, LIMITS, work)


def test_the_lesson_has_the_new_data_since_the_drift(gathered: tuple[Client, Gathered]) -> None:
    """Old data is what came before; the spans of the new data lie a horizon apart, in time order."""
    lesson = gathered[1].lesson
    cuts = lesson.cuts
    assert (cuts.begin, cuts.new_begin, cuts.end) == (TURN - 420, TURN, END)
    assert cuts.validation_begin - cuts.train_end == 4 == cuts.evaluation_begin - cuts.validation_end
    assert sum(map(len, lesson.segments)) == gathered[1].observations == 900 * len(NAMES)
    assert gathered[1].inputs["features"].keys() == set(FORM.features)


def test_what_has_learned_the_new_world_is_promoted(found: Findings) -> None:
    """Updates beat the incumbent by far, beyond chance; the control, trained as long on old data, does not."""
    by_name = {one.name: one for one in found.compared}
    assert found.decided.outcome == "promote"
    assert found.decided.chosen in {"update-on-new", "new-on-new"}
    assert found.chosen is not None
    chosen = by_name[found.decided.chosen]
    assert chosen.low > 0
    assert chosen.p_holm is not None
    assert chosen.p_holm < 0.01
    assert by_name[CONTROL].p_holm is None
    assert chosen.difference > by_name[CONTROL].difference
    assert "after Holm among 2 finalists" in found.decided.sentence


def test_the_numbers_are_those_of_the_losses(found: Findings) -> None:
    """Differences are means over steps of the incumbent's loss less the other's; skill is against persistence."""
    losses = found.losses
    for one in found.compared:
        difference = np.nanmean(losses.loss["incumbent"] - losses.loss[one.name])
        assert one.difference == pytest.approx(difference)
        assert one.low <= one.difference <= one.high
    judged = {one.name: one for one in found.judged}
    assert judged["persistence"].skill == 0
    assert judged["incumbent"].skill == pytest.approx(1 - losses.mse["incumbent"] / losses.mse["persistence"])
    assert [len(judged[name].repeats) for name in ("update-on-new", "new-on-new", CONTROL)] == [2, 2, 1]


def test_the_trial_is_calibrated_on_what_was_recorded(found: Findings) -> None:
    """Blocks and scale come from all that is recorded, as far as it goes back; the course from the evaluation span."""
    assert found.calibration is not None
    assert found.calibration.scale > 0
    assert 850 < found.calibration.steps <= 900
    assert found.over_time is not None
    steps = found.over_time.step
    assert found.losses.steps[0] <= steps[0] < steps[-1] <= found.losses.steps[-1]


def test_every_training_is_told_of(found: Findings, told: list[tuple[int, int, str]]) -> None:
    """2 + 1 attempts, each strategy's best once more, the control, the comparison, the calibration."""
    assert len(found.attempts) == 6
    assert told[-1] == (8, 8, "calibration")
    assert [one[0] for one in told] == sorted(one[0] for one in told)


def test_nothing_is_chosen_by_what_is_judged_on(gathered: tuple[Client, Gathered], found: Findings) -> None:
    """With other values in the evaluation span the very same weights are trained and chosen on the validation span."""
    lesson = gathered[1].lesson
    (block,) = lesson.segments
    late = block.step >= lesson.cuts.validation_end
    garbage = np.random.default_rng(1).normal(size=block.values.shape) * 9
    other = replace(
        lesson, id="garbage", segments=(replace(block, values=np.where(late[:, None], garbage, block.values)),)
    )
    again = findings(other, GRID, 2, LIMITS, Work(AtOnce(), lambda *_: None, time.monotonic() + 600))
    assert [timeless(one) for one in again.attempts] == [timeless(one) for one in found.attempts]
    assert again.losses.mse != found.losses.mse


def timeless(attempted: Attempted) -> Attempted:
    """All but how long it took."""
    return msgspec.structs.replace(attempted, seconds=0.0)


def test_the_verdict_holds_it_all(gathered: tuple[Client, Gathered], found: Findings) -> None:
    """What the gate and the report need, with the cost of what is saved, and what the registry keeps of the version."""
    occasion = Occasion("turned", FORM.interval_ms, [request("x"), drift("a")], 1, END - 1)
    impact = Impact(2.0, "EUR")
    verdict, made = verdict_of(occasion, gathered[1], found, LIMITS, impact, created_ms=5, seconds=1.5)
    assert (verdict.id, verdict.requests, verdict.trigger, verdict.why) == ("x", ("x", "a"), "drift", "x asks; a asks")
    assert verdict.trial is not None
    assert (verdict.trial.mode, verdict.trial.alpha) == ("harm", LIMITS.harm_alpha)
    assert made is not None
    assert made.training["strategy"] == verdict.chosen == found.decided.chosen
    assert made.training["inputs"] == gathered[1].inputs
    assert verdict.chosen is not None
    days = (verdict.cuts.end - verdict.cuts.evaluation_begin) / 24 if verdict.cuts else 0.0
    saved = found.losses.mae["incumbent"] - found.losses.mae[verdict.chosen]
    assert verdict.cost == pytest.approx(2.0 * saved * found.losses.pairs / days)


def test_too_little_new_data_is_said_with_its_numbers(gathered: tuple[Client, Gathered]) -> None:
    """A drift of yesterday leaves too little to train, choose and judge on."""
    late = request("late", "drift", version=1, drifts=[{"at_step": END - 20}])
    with pytest.raises(DataError, match="the new data has 20 steps"):
        lessons(gathered[0], "turned").gather([late])


def test_some_of_many_series_are_drawn(gathered: tuple[Client, Gathered]) -> None:
    """No more than the limit, always the same ones, and the notes say so."""
    few = [lessons(gathered[0], "turned", series=2).gather([drift("a")]) for _ in range(2)]
    assert {len(np.unique(one.lesson.segments[0].slot)) for one in few} == {2}
    assert few[0].notes[0] == "2 of 3 series were drawn (retraining.series)"
    np.testing.assert_array_equal(few[0].lesson.segments[0].values, few[1].lesson.segments[0].values)


def test_without_a_version_there_is_nothing_to_update(gathered: tuple[Client, Gathered]) -> None:
    """The message says what to do."""
    with pytest.raises(VersionError, match="no version answers yet, so there is nothing to update: fit one"):
        lessons(gathered[0], "empty").gather([request("a")])
