"""`killick bench accuracy`: its protocol, its figures, and what it says of them."""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from consumers.observations import Columns
from models.errors import ConfigError, DataError
from models.times import rfc3339
from tests.worker import backtest_samples as samples
from worker import accuracy, accuracy_sets, cli
from worker.accuracy_sets import GOAL, LEADS, REACH, SETS, BenchSet, chosen
from worker.fit import with_series

if TYPE_CHECKING:
    from pathlib import Path

    from worker.backtest_told import Backtested, ScoreSet

HOUR_MS = 3_600_000
DAYS = 24


@pytest.fixture
def leads(monkeypatch: pytest.MonkeyPatch) -> tuple[int, ...]:
    """The leads of the samples in place of those of the literature."""
    monkeypatch.setattr(accuracy, "LEADS", samples.LEADS)
    return samples.LEADS


def told(**factors: float) -> Backtested:
    """The samples with a third baseline, the means over leads of each way to forecast so many times as large."""
    found = samples.told()
    baselines = {"persistence": "persistence", "seasonal": "seasonal", "rls": "seasonal"}
    return msgspec.structs.replace(
        found,
        baselines={name: grown(found.baselines[of], factors.get(name, 1.0)) for name, of in baselines.items()},
        runs=tuple(
            msgspec.structs.replace(one, scores=grown(one.scores, factors.get(one.policy.split(":")[0], 1.0)))
            for one in found.runs
        ),
    )


def grown(scores: ScoreSet, factor: float) -> ScoreSet:
    """The scores with means over leads so many times as large."""
    each = tuple(msgspec.structs.replace(one, upto=(one.upto or 0.0) * factor) for one in scores.leads)
    return msgspec.structs.replace(scores, leads=each)


def bench_set(**published: tuple[float, float, float]) -> BenchSet:
    """A set without a file."""
    return BenchSet(
        "waves",
        "waves.csv",
        Columns(time=("date",)),
        {},
        1,
        published={k.replace("_", " "): v for k, v in published.items()},
    )


def test_figures_are_means_and_deviations_over_seeds(leads: tuple[int, ...]) -> None:
    """Of the mean over leads 1 to H, for each policy; a baseline has no seeds, what was published stands apart."""
    found = {row.name: row for row in accuracy.rows(told(), bench_set(to_reach=(1.0, 2.0, 3.0)))}
    assert list(found) == [
        "persistence", "seasonal naive", "online RLS", *(f"LSTM, {name}" for name in samples.POLICIES),
        "to reach",
    ]  # fmt: skip
    step = samples.issued()
    unit = samples.waves()[:, : samples.TRAIN_DAYS * samples.DAY].std(axis=1)[:, None, None]
    squared = ((samples.labels(step) - samples.reference("persistence")) / unit) ** 2
    assert found["persistence"].mean == pytest.approx([squared[:, :, :lead].mean() for lead in leads])
    assert found["persistence"].deviation is None
    by_seed = np.array(
        [[one.upto for one in samples.run("always", seed).scores.leads] for seed in range(1, samples.SEEDS + 1)]
    )
    assert found["LSTM, always"].mean == pytest.approx(by_seed.mean(axis=0))
    assert found["LSTM, always"].deviation == pytest.approx(np.sqrt(by_seed.var(axis=0) * 3 / 2))
    assert found["to reach"].mean == (1.0, 2.0, 3.0)
    assert found["to reach"].published


def test_sentences_say_what_is_missed_and_by_how_much(leads: tuple[int, ...]) -> None:
    """Figures that fall short, baselines that win, and whether updating is worse than none beyond the seeds' noise."""
    found = told(rls=0.2, always=8.0)
    mean = accuracy.by_seed_of(found, "always").mean(axis=0)
    one = bench_set(**{REACH.replace(" ", "_"): (9e9, float(mean[1]) * 0.9, 9e9), GOAL: (9e9, 9e9, 9e9)})
    words = accuracy.sentences(found, one)
    assert f"LSTM, always: to reach: H = {leads[1]}: {mean[1]:.4g} > {0.9 * mean[1]:g}" in words
    assert "LSTM, always: goal: at every horizon" in words
    assert not [line for line in words if line.startswith("LSTM, never: ")]
    frozen = accuracy.by_seed_of(found, "never").mean(axis=0)
    rls = np.array([one.upto for one in found.baselines["rls"].leads])
    (lost,) = [line for line in words if line.startswith("online RLS does better than LSTM, never")]
    assert re.findall(r"by ([\d.]+)%", lost) == [f"{100 * share:.1f}" for share in frozen / rls - 1 if share > 0]
    (worse,) = [line for line in words if line.startswith("LSTM, always against itself frozen")]
    assert re.findall(r"[+-][\d.]+%", worse) == [f"{100 * share:+.1f}%" for share in mean / frozen - 1]
    assert "noise" not in worse


def test_what_seeds_do_not_tell_is_called_noise(leads: tuple[int, ...]) -> None:
    """A difference whose sign changes from seed to seed, and one of a single seed, are not told as sure."""
    found = samples.only(("never", "always"))
    flat = tuple(
        msgspec.structs.replace(one, scores=grown(samples.run("never", one.seed).scores, 1 + 0.1 * (one.seed - 2)))
        for one in found.runs
        if one.policy == "always"
    )
    frozen = tuple(one for one in found.runs if one.policy == "never")
    several = msgspec.structs.replace(told(), runs=(*frozen, *flat))
    assert accuracy.sentences(several, bench_set())[-1].count("(within the noise of the seeds)") == len(leads)
    single = msgspec.structs.replace(told(), runs=(frozen[0], flat[0]), seeds=1)
    assert accuracy.sentences(single, bench_set())[-1].count("(one seed)") == len(leads)


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_every_set_has_settings_that_fit_together(one: BenchSet) -> None:
    """What is fitted on holds the means that the inputs take, and the leads go up to the last that is compared."""
    settings = one.read_settings()
    assert settings.model.horizon == LEADS[-1]
    network = with_series(settings.architecture((1.0,) * LEADS[-1]), ("a", "b"))
    assert network.ring_steps_needed < settings.ring_steps
    assert 2 * network.ring_steps_needed * settings.interval_ms < one.learned_days * 86_400_000
    assert all(len(figures) == len(LEADS) for figures in one.published.values())


def test_ett_is_cut_as_the_literature_does(tmp_path: Path) -> None:
    """Of the hourly file the first 14,400 rows: four months to train on, one to validate on, fifteen online."""
    (one,) = chosen(("ETTh2",))
    names = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    with (tmp_path / one.file).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["date", *names])
        for hour in range(14_500):
            rows.writerow([rfc3339(1_467_331_200_000 + hour * HOUR_MS).replace("T", " ")[:19], *range(7)])
    history = one.history(tmp_path)
    assert sorted(history.series) == sorted(names)
    assert len(history) == 7 * 14_400
    assert one.learned_days * (1 - one.read_settings().training.validation) == pytest.approx(120)
    assert one.learned_days == 150


def test_what_is_not_there_is_refused_before_hours_of_work(tmp_path: Path) -> None:
    """A name that is no set's, and a folder without its file."""
    assert chosen(()) == SETS
    with pytest.raises(ConfigError, match="there is no data set 'ETTh3': use one of ETTh2, ETTm1"):
        chosen(("ETTh3",))
    with pytest.raises(ConfigError, match=r"ETTm1: ETTm1\.csv\.gz is not there: name its folder with --data"):
        chosen(("ETTm1",))[0].history(tmp_path)


def test_the_command_streams_a_set_and_writes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file to one JSON object a set: every way to forecast, every seed."""
    with (tmp_path / "tiny.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["date", "a", "b"])
        noise = np.random.default_rng(1).normal(scale=0.3, size=(24 * DAYS, 2))
        for hour, (a, b) in enumerate(noise.tolist()):
            rows.writerow([rfc3339(hour * HOUR_MS), np.sin(hour / 24 * 2 * np.pi) + a, np.cos(hour / 12) + b])
    settings: dict[str, Any] = {
        "model": {"horizon": 4, "interval": "1h"},
        "network": {"units": [4], "series": True, "season_mean": 2},
        "training": {"validation": 0.2, "epochs": 2, "chunk": 12, "segments": 2},
        "update": {"passes": 1, "recent": "3d"},
    }
    tiny = BenchSet("tiny", "tiny.csv", Columns(time=("date",), series_from_columns=True), settings, 12, 20)
    monkeypatch.setattr(accuracy_sets, "SETS", (tiny,))
    monkeypatch.setattr(accuracy, "LEADS", (1, 4))
    words = ["bench", "accuracy", "--data", str(tmp_path), "--seeds", "1", "--policy", "periodic:2d", "--workers", "1"]
    done = CliRunner().invoke(cli.killick, [*words, "--json", "--report", str(tmp_path / "pages")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [row["name"] for row in found["rows"]] == [
        "persistence", "seasonal naive", "online RLS", "LSTM, never", "LSTM, periodic:2d"
    ]  # fmt: skip
    assert [(run["policy"], run["seed"], run["retrainings"]) for run in found["runs"]] == [
        ("never", 1, 0), ("periodic:2d", 1, 4)
    ]  # fmt: skip
    assert all(len(row["mse"]) == 2 and min(row["mse"]) > 0 for row in found["rows"])
    assert {len(upto) for run in found["runs"] for upto in run["series"].values()} == {2}
    assert (tmp_path / "pages" / "tiny.html").stat().st_size > 10_000


@pytest.mark.parametrize("days", [0, 30])
def test_a_file_that_is_cut_off_is_not_set_beside_what_was_published(tmp_path: Path, days: int) -> None:
    """Figures over another span say nothing beside those of the protocol."""
    with (tmp_path / "ETTh2.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["date", "HUFL", "OT"])
        rows.writerows([rfc3339(hour * HOUR_MS), hour % 24, hour % 7] for hour in range(24 * days))
    with pytest.raises(DataError, match=f"ETTh2.csv has {days} days, and 600 are compared: take the whole file"):
        chosen(("ETTh2",))[0].history(tmp_path)
