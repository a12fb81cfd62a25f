"""The damped sine problem: its waves, two honest trainings, and what `killick bench damped-sine` makes of them."""

from __future__ import annotations

import io
import json
import random
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from worker import cli, damped_keras, damped_training
from worker.cli_bench import bench
from worker.damped_sine import Compared, Pair, Turn, as_object, table_by_seed, table_of_both, words
from worker.damped_waves import (
    HORIZON,
    PUBLISHED_MAE,
    SAMPLES,
    SEEN,
    Trained,
    draw_waves,
    mean_absolute_error,
    samples_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models.architecture import Float32

TRAININGS = (damped_keras.train_by_recipe, damped_training.train_as_killick)


def test_waves_are_damped_sines_of_the_published_periods_and_decays() -> None:
    """Each wave obeys the recurrence of a damped sine, whose two numbers give back its period and decay."""
    waves = draw_waves(3, 0, 600).astype(np.float64) - 0.5
    assert waves.shape == (600, 55)
    periods, decays = [], []
    for y in waves:
        (a, b), *_ = np.linalg.lstsq(np.stack([y[1:-1], y[:-2]], axis=1), y[2:], rcond=None)
        decays.append(-np.log(-b) / 2.0)
        periods.append(2.0 * np.pi / np.arccos(a / (2.0 * np.sqrt(-b))))
    assert np.allclose(periods, np.round(periods), atol=0.01)
    assert set(np.round(periods).astype(int).tolist()) == set(range(10, 21))
    assert min(decays) > 0.0099
    assert max(decays) < 0.1001
    assert np.mean(decays) == pytest.approx(0.055, abs=0.005)
    assert np.allclose(waves[:, 0], 0.0)


def test_no_wave_is_both_trained_on_and_tested() -> None:
    """Samples of a seed are drawn apart; the same seed draws the same again, another seed others."""
    training, test = samples_of(1, 2_000)
    assert (len(training), len(test)) == (2_000, 1_000)
    assert not set(map(bytes, training)) & set(map(bytes, test))
    again, other = samples_of(1, 2_000)[0], samples_of(2, 2_000)[0]
    assert np.array_equal(training, again)
    assert not np.array_equal(training, other)


def test_labels_are_the_last_five_values_of_the_wave() -> None:
    """As in the recipe: of the last step seen, and of no other."""
    waves = draw_waves(1, 0, 7)
    sequences = damped_training.sequences_of_waves(waves, 0.25, 2.0)
    level = np.float32(0.25)
    for wave in range(7):
        for step in range(SEEN):
            assert sequences.inputs[wave, step, 0] == (waves[wave, step] - level) / 2.0
        for lead in range(1, HORIZON + 1):
            assert sequences.targets[wave, SEEN - 1, lead - 1] == (waves[wave, SEEN - 1 + lead] - level) / 2.0
    assert sequences.known[:, SEEN - 1].all()
    assert not sequences.known[:, : SEEN - 1].any()


@pytest.fixture
def busy_generator() -> Iterator[None]:
    """Another thread of the process draws from Python's generator all the time, as a client of Kafka does."""
    ended = threading.Event()

    def draw() -> None:
        while not ended.wait(0.001):
            random.random()

    other = threading.Thread(target=draw)
    other.start()
    yield
    ended.set()
    other.join()


@pytest.mark.usefixtures("busy_generator")
@pytest.mark.parametrize("train", TRAININGS)
def test_trainings_don_t_look_at_the_test_samples(train: Callable[[Float32, Float32, int], Trained]) -> None:
    """With other labels, and other waves beside it, a test sample's forecast is the same, bit for bit."""
    samples, test = draw_waves(1, 0, 192), draw_waves(1, 1, 64)
    garbled = np.where(np.arange(64)[:, None] < 8, test, np.float32(7.0))
    garbled[:, SEEN:] = -3.0
    first, second = train(samples, test, 5), train(samples, garbled, 5)
    assert np.array_equal(first.forecasts[:8], second.forecasts[:8])
    assert not np.array_equal(first.forecasts[8:], second.forecasts[8:])


@pytest.mark.parametrize("train", TRAININGS)
def test_trainings_see_each_sample_once_with_the_same_network(
    train: Callable[[Float32, Float32, int], Trained],
) -> None:
    """The parameters are those of LSTM(20), LSTM(20), Dense(5) on one input; the clocks went on meanwhile."""
    trained = train(draw_waves(1, 0, 192), draw_waves(1, 1, 8), 1)
    lstm = 4 * 20 * (1 + 20 + 1) + 4 * 20 * (20 + 20 + 1)
    assert trained.parameters == lstm + 20 * 5 + 5
    assert trained.steps == (20 if train is damped_keras.train_by_recipe else 3)
    assert 0.0 < trained.steady_s < trained.seconds
    assert trained.cpu_s > 0.0


def test_our_training_passes_over_every_wave_once() -> None:
    """All waves, each in one batch of at most 64; never another one."""
    parts = damped_training.parts_of(1_000, seed=4)
    batches = [batch for part in parts for batch in part]
    assert max(map(len, batches)) <= damped_training.BATCH
    assert sorted(np.concatenate(batches).tolist()) == list(range(1_000))


def test_our_training_reaches_less_than_half_of_the_published_error() -> None:
    """One pass over the 10,000 samples is enough, on a seed that no setting was chosen by."""
    training, test = samples_of(11, SAMPLES)
    trained = damped_training.train_as_killick(training, test, 11)
    assert trained.steps == 157
    assert mean_absolute_error(trained.forecasts, test) < PUBLISHED_MAE / 2


def test_the_command_takes_turns_and_gives_all_figures_as_json() -> None:
    """Both trainings run in processes of their own, on a few samples; progress goes to standard error."""
    done = CliRunner().invoke(bench, ["damped-sine", "--seeds", "1", "--samples", "200", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["samples"], told["test_samples"], told["published_mae"]) == (200, 1_000, 0.0217)
    assert (told["recipe"]["steps"], told["killick"]["steps"]) == (20, 4)
    assert told["recipe"]["parameters"] == told["killick"]["parameters"] == 5_145
    (seed,) = told["seeds"]
    assert told["ratio"] == pytest.approx(seed["killick"]["seconds"] / seed["recipe"]["seconds"])
    assert 0.0 < seed["killick"]["mae"] < 0.5
    assert 0.0 < seed["recipe"]["mae"] < 0.5
    assert "seed 1, recipe: MAE" in done.stderr
    assert "seed 1, killick: MAE" in done.stderr


@pytest.mark.parametrize("words_given", [("--samples", "10001"), ("--seeds", "0"), ("--threads", "0")])
def test_wrong_numbers_are_refused(words_given: tuple[str, str]) -> None:
    """More samples than the problem has, no seed, or no thread: wrong usage."""
    errors = io.StringIO()
    assert cli.run(["bench", "damped-sine", *words_given], errors) == 2
    assert words_given[0] in errors.getvalue()


def _compared(*errors: tuple[float, float], samples: int = 10_000) -> Compared:
    pairs = [
        Pair(seed, Turn(theirs, 10.0, 8.0, 12.0, 1_000, 5_145), Turn(ours, 2.0 * seed, 1.0 * seed, 3.0, 157, 5_145))
        for seed, (theirs, ours) in enumerate(errors, 1)
    ]
    return Compared(tuple(pairs), samples, 1)


def test_means_spreads_and_ratios_are_those_of_the_turns() -> None:
    """Means and deviations of errors, medians of seconds, the median and the worst of the ratios."""
    told = as_object(_compared((0.02, 0.002), (0.03, 0.004), (0.04, 0.006)))
    assert told["recipe"]["mae"] == pytest.approx(0.03)
    assert told["recipe"]["mae_sd"] == pytest.approx(0.01)
    assert told["killick"]["mae"] == pytest.approx(0.004)
    assert told["killick"]["mae_worst"] == pytest.approx(0.006)
    assert told["killick"]["share_of_published"] == pytest.approx(0.004 / 0.0217)
    assert told["killick"]["seconds"] == 4.0
    assert (told["ratio"], told["ratio_worst"]) == (pytest.approx(0.4), pytest.approx(0.6))
    assert told["ratio_steady"] == pytest.approx(0.25)
    assert told["ratio_cpu"] == pytest.approx(0.25)


def test_words_and_tables_say_what_falls_short() -> None:
    """An error above half of the published one, more time, one seed without spread, and too few samples are told."""
    good, bad = _compared((0.02, 0.002), (0.03, 0.004)), _compared(*[(0.02, 0.02)] * 6, samples=500)
    assert "(less than half) and takes no longer" in words(good)
    assert "a first look" not in words(good)
    assert "(not less than half) and takes longer" in words(_compared(*[(0.02, 0.011)] * 12))
    assert "On 500 of 10,000 samples: a first look." in words(bad)
    page = io.StringIO()
    console = Console(file=page, width=100)
    console.print(table_by_seed(good))
    console.print(table_of_both(good))
    lines = [line.split() for line in page.getvalue().replace("│", " ").splitlines()]
    assert ["1", "0.0200", "0.0020", "10.00", "2.00", "0.20"] in lines
    assert ["MAE,", "mean", "over", "seeds", "0.0250", "0.0030", "0.12"] in lines
    assert ["of", "the", "published", "MAE", "115%", "14%"] in lines
    single = io.StringIO()
    Console(file=single, width=100).print(table_of_both(_compared((0.02, 0.002))))
    assert "±" in single.getvalue()
    assert as_object(_compared((0.02, 0.002)))["recipe"]["mae_sd"] is None
