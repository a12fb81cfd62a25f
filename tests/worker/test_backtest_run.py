"""Runs of a backtest: nothing of the future shows, and what answers is what would have answered in the service."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from consumers.roster import Seat
from consumers.stream import Partition, Version, fold
from models.blocks import Block, part_of
from models.errors import DataError
from models.network import Network
from models.times import DAY_MS
from worker.backtest_policies import Policy, parse_policy
from worker.backtest_run import Run
from worker.backtest_scene import First, Scene
from worker.backtest_scores import Scores, Truth
from worker.backtest_told import PolicyRun
from worker.backtest_update import Material
from worker.quiet import start_tensorflow
from worker.settings import Settings
from worker.wiring_updating import training_settings

start_tensorflow(1)  # as a process of a backtest does, before the first operation

SERIES, DAYS, ONLINE_DAYS, TURN_DAYS = 3, 70, 30, 40
BEGIN = 1_600_000_000_000 // DAY_MS * 24  # step
HORIZON = 4
SETTINGS = Settings.model_validate(
    {
        "model": {"horizon": HORIZON},
        "network": {"units": [4], "lags": 4},
        "training": {"epochs": 6, "rate": 5e-3, "validation": 0.2, "chunk": 24},
        "retraining": {
            "strategies": ["update-on-all"],
            "rates": [2e-3],
            "recents": ["all"],
            "epochs": 1,
            "repeats": 1,
            "new_data": "6d",
            "cooldown": "1d",
        },
        "judgement": {"screen": 0.49, "gate": "offline"},
        "update": {"passes": 2, "rate": 2e-3, "recent": "7d"},
    }
)


class Issued(NamedTuple):
    """Forecasts as they were issued, in their order."""

    step: np.ndarray
    slot: np.ndarray
    forecasts: np.ndarray
    version: np.ndarray


def block_of(values: np.ndarray, present: np.ndarray) -> Block:
    """Hourly observations `(T, S)` as a block."""
    steps, series = values.shape
    count = steps * series
    return Block(
        0,
        count,
        np.arange(count),
        np.tile(np.arange(series), steps),
        BEGIN + np.repeat(np.arange(steps), series),
        np.where(present, values, 0.0).reshape(-1, 1),
        present.reshape(-1, 1),
    )


def world(seed: int = 0) -> np.ndarray:
    """Series with a day's cycle, `(T, S)`, which is one of ten hours from some day on."""
    rng = np.random.default_rng(seed)
    hours = np.arange(24 * DAYS)[:, None]
    period = np.where(hours < 24 * TURN_DAYS, 24.0, 10.0)
    cycle = np.sin(2 * np.pi * (hours / period + np.arange(SERIES) / SERIES))
    return 10.0 + cycle + 0.1 * rng.normal(size=(len(hours), SERIES))


def scene_of(block: Block, *, gate: bool = False, settings: Settings = SETTINGS) -> Scene:
    """A scene of three series, of which thirty days are fitted on."""
    names = tuple(f"s{i}" for i in range(SERIES))
    return Scene("test", settings, block, names, BEGIN + 24 * ONLINE_DAYS, gate)


def first_of(scene: Scene) -> First:
    """The first version of a scene."""
    material = Material(scene.block, scene.names, SETTINGS.series_form(), scene.architecture)
    return material.fit(scene.architecture, training_settings(SETTINGS), scene.online_step, 0.2)


def play(scene: Scene, policy: Policy, first: First | None = None, seed: int = 1) -> tuple[PolicyRun, Issued]:
    """A run, and everything that was issued."""
    form = SETTINGS.series_form()
    material = Material(scene.block, scene.names, form, scene.architecture)
    truth = Truth.of(scene.block, scene.names, form, BEGIN + 24 * 24)
    issued: list[tuple[np.ndarray, ...]] = []

    def write(slot: np.ndarray, step: np.ndarray, forecasts: np.ndarray, version: int) -> None:
        issued.append((step, slot, forecasts, np.full(len(step), version)))

    run = Run(scene, policy, first or first_of(scene), None if scene.gate else material, seed)
    told = run.play(Scores(truth, HORIZON, scene.online_step), write, lambda _: None, (1, HORIZON))
    return told, Issued(*(np.concatenate(column) for column in zip(*issued, strict=True)))


def everywhere() -> np.ndarray:
    """A mask of observations that are all there."""
    return np.ones((24 * DAYS, SERIES), np.bool_)


@pytest.mark.parametrize(
    ("name", "gate"),
    [("never", False), ("periodic:7d", False), ("on-drift", False), ("on-skill", False), ("control", False),
     ("periodic:7d", True), ("on-drift", True)],
)  # fmt: skip
def test_no_forecast_knows_what_comes_after_it(name: str, *, gate: bool) -> None:
    """Garbage and holes in all that comes later change no bit of what was issued before."""
    values, known = world(), 24 * 55 + 7  # not at the end of a day
    rng = np.random.default_rng(9)
    garbage, holes = values.copy(), everywhere()
    garbage[known:] = rng.normal(scale=1e6, size=garbage[known:].shape)
    holes[known:] = rng.random(holes[known:].shape) < 0.5
    told, real = play(scene_of(block_of(values, everywhere()), gate=gate), parse_policy(name))
    _, other = play(scene_of(block_of(garbage, holes), gate=gate), parse_policy(name))
    before = real.step < BEGIN + known
    same = other.step < BEGIN + known
    assert before.sum() == same.sum() > 1_000
    for one, another in zip(real, other, strict=True):
        assert np.array_equal(one[before], another[same], equal_nan=True)
    assert name == "never" or told.retrainings > 0  # else nothing was at stake


def test_whoever_answers_forecasts_as_if_it_had_run_alone_since_its_spin_up() -> None:
    """The first version is folded from its spin-up on, exactly."""
    scene = scene_of(block_of(world(), everywhere()))
    first = first_of(scene)
    told, issued = play(scene, parse_policy("never"), first)
    form = SETTINGS.series_form()
    alone = Partition(form)
    online = scene.row(scene.online_step)
    start = scene.row(scene.online_step - SETTINGS.spin_up_steps)
    fold([(alone, part_of(scene.block, 0, start))], {})
    version = Version(1, first.architecture, Network(first.architecture, first.weights))
    alone.seat([Seat(1, "incumbent", start, start)], {1: version})
    (folded,) = fold([(alone, part_of(scene.block, start, len(scene.block)))], {1: version})
    assert np.array_equal(issued.forecasts, folded.forecasts[1][online - start :])
    assert told.versions == ((1, scene.online_step),)


def test_plain_updates_are_live_from_the_next_day_on_and_are_counted() -> None:
    """Each week has an update, whose version answers from the next day on."""
    scene = scene_of(block_of(world(), everywhere()))
    told, issued = play(scene, parse_policy("periodic:7d"))
    weeks = (DAYS - ONLINE_DAYS) // 7
    assert told.retrainings == told.promotions == weeks
    assert told.gradient_steps >= weeks * SETTINGS.update.passes
    assert [version for version, _ in told.versions] == list(range(1, weeks + 2))
    for version, step in told.versions:
        assert issued.step[issued.version == version].min() == step
    assert told.observations == len(issued.step) == SERIES * 24 * (DAYS - ONLINE_DAYS)
    assert told.scores.mse is not None


def test_updates_pay_where_the_world_has_turned_and_the_control_does_not() -> None:
    """Updates learn the world as it is now; equally many on old data do not."""
    scene = scene_of(block_of(world(), everywhere()))
    first = first_of(scene)
    found = {name: play(scene, parse_policy(name), first)[0].scores.mse for name in ("never", "always", "control")}
    mse = {name: np.nan if value is None else value for name, value in found.items()}
    assert mse["always"] < 0.97 * mse["never"]
    assert mse["always"] < mse["control"]


def test_the_gate_judges_candidates_before_they_answer() -> None:
    """Each retraining ends in a verdict, and who answers was promoted."""
    told, issued = play(scene_of(block_of(world(), everywhere()), gate=True), parse_policy("periodic:7d"))
    verdicts = [one for one in told.happened if one.kind == "verdict"]
    assert len(verdicts) == told.retrainings > 0
    assert all(one.words.split(":")[0] in {"promote", "reject", "inconclusive", "failed"} for one in verdicts)
    assert not [one.words for one in verdicts if one.words.startswith("failed")]
    assert told.promotions == len({*issued.version.tolist()}) - 1 + told.rollbacks


@pytest.mark.parametrize(("trial", "promotes"), [("by-trigger", False), ("superiority", False), ("harm", True)])
def test_a_candidate_of_the_clock_answers_without_proof_only_where_that_is_set(trial: str, *, promotes: bool) -> None:
    """Three days without harm are enough for it, or no number of days is that holds no proof."""
    judgement = SETTINGS.judgement.model_copy(update={"gate": "shadow", "trial": trial})
    settings = SETTINGS.model_copy(update={"judgement": judgement})
    told, _ = play(scene_of(block_of(world(), everywhere()), gate=True, settings=settings), parse_policy("periodic:7d"))
    assert any(one.words.startswith("promote") for one in told.happened if one.kind == "verdict")
    assert bool(told.promotions) == promotes
    won = [one.words for one in told.happened if one.kind == "promote"]
    assert len(won) == told.promotions
    assert all("was not proved worse than version" in words for words in won)


def test_a_run_of_the_same_seed_is_the_same_run() -> None:
    """A seed says all there is to say about chance."""
    scene = scene_of(block_of(world(), everywhere()))
    one, another = (play(scene, parse_policy("periodic:14d"))[1] for _ in range(2))
    assert np.array_equal(one.forecasts, another.forecasts)
    _, other = play(scene, parse_policy("periodic:14d"), seed=2)
    assert not np.array_equal(one.forecasts, other.forecasts)


def test_series_that_come_and_go_are_followed() -> None:
    """A series that comes later, and one that ends, are forecast as long as they are there."""
    present = everywhere()
    block = block_of(world(), present)
    rows = ~((block.slot == 2) & (block.step < BEGIN + 24 * 45)) & ~((block.slot == 1) & (block.step > BEGIN + 24 * 50))
    scene = scene_of(replace(block.take(rows)))
    _, issued = play(scene, parse_policy("periodic:7d"))
    assert issued.step[issued.slot == 2].min() == BEGIN + 24 * 45
    assert np.isfinite(issued.forecasts[issued.slot == 2][48:]).all()


def test_a_gap_that_leaves_nothing_to_learn_from_ends_no_run() -> None:
    """Where no label lies in the recent data there is no update that day, and it says so; later there are some."""
    block, back = block_of(world(), everywhere()), BEGIN + 24 * 55
    block = block.take((block.step < BEGIN + 24 * 40) | (block.step >= back))
    told, issued = play(scene_of(block), parse_policy("always"))
    (missed,) = [one for one in told.happened if one.kind == "update"]
    assert back <= missed.step < back + 24
    assert "no label to train on" in missed.words
    days = len({*((issued.step - BEGIN) // 24).tolist()})
    assert told.retrainings == told.promotions == days - 1
    assert not [step for _, step in told.versions if back < step <= back + 24]


def test_a_file_that_holds_nothing_to_learn_from_is_refused() -> None:
    """A training span of some hours is an error."""
    block = block_of(world(), everywhere())
    scene = replace(scene_of(block), online_step=BEGIN + 8)
    with pytest.raises(DataError, match="span"):
        first_of(scene)


def test_what_a_fit_hands_over_is_read_without_tensorflow() -> None:
    """The process that waits for fits and runs does not load TensorFlow to read what they found."""
    modules = sorted({kind.__module__ for kind in (First, PolicyRun, Scene)})
    program = f"import sys, worker.backtest, {', '.join(modules)}; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
