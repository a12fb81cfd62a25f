"""`killick backtest` on the command line: what it writes, what it leaves, and what it says of wrong words."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from models.times import rfc3339
from worker import cli
from worker.backtest_policies import parse_policy

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
SETTINGS = """
[model]
features = ["temp", "wind"]
target = "temp"
horizon = 3
[network]
units = [4]
lags = 2
series = true
[training]
epochs = 2
chunk = 12
segments = 2
validation = 0.2
[update]
passes = 1
recent = "7d"
"""
DAYS = 40
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in with its killick.toml and forty days of two series in weather.csv."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killick.toml").write_text(SETTINGS)
    with (tmp_path / "weather.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["station", "when", "temp", "wind"])
        for hour in range(DAYS * 24):
            for number, station in enumerate("AB"):
                temp = 10 + 5 * math.sin(hour / 24 * math.tau) + number + math.sin(hour * 0.7)
                rows.writerow([station, rfc3339(hour * HOUR_MS), f"{temp:.3f}", hour % 7 or "NA"])
    return tmp_path


def run(*words: str) -> Result:
    """The command on weather.csv."""
    columns = ("--time", "when", "--series", "station")
    return CliRunner().invoke(cli.killick, ["backtest", "weather.csv", *columns, "--workers", "2", *words])


def test_everything_that_is_asked_for_is_written(folder: Path) -> None:
    """Two policies with two seeds: JSON, a page, and every forecast, from which the errors can be had again."""
    words = ("--policy", "never", "--policy", "periodic:7d", "--gate", "off", "--seeds", "2", "--leads", "1,3")
    done = run(*words, "--train-until", "20d", "--json", "--report", "out.html", "--forecasts", "out.parquet")
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    by_name = {policy["policy"]: policy for policy in told["policies"]}
    assert set(by_name) == {"never", "periodic:7d"}
    for policy in by_name.values():
        wanted = {"policy", "observations", "mse", "mae", "mape", "skill", "retrainings", "promotions", "training_s"}
        assert wanted | {"seconds", "per_series"} <= set(policy)
        assert policy["observations"] == 2 * 24 * (DAYS - 20)
    assert by_name["never"]["retrainings"] == 0
    assert by_name["periodic:7d"]["retrainings"] == by_name["periodic:7d"]["promotions"] == 2
    assert "<html" in (folder / "out.html").read_text()
    frame = pd.read_parquet(folder / "out.parquet")
    assert list(frame.columns) == [
        "policy", "series", "issued_at", "valid_at", "lead", "forecast", "version", "seed",
    ]  # fmt: skip
    assert len(frame) == 2 * 2 * 3 * 2 * 24 * (DAYS - 20)
    assert (frame["valid_at"] - frame["issued_at"] == pd.to_timedelta(frame["lead"], unit="h")).all()
    assert frame["issued_at"].min() == pd.Timestamp(20 * DAY_MS, unit="ms", tz="UTC")
    observed = pd.read_csv(folder / "weather.csv", parse_dates=["when"])
    unit = observed[observed["when"] < pd.Timestamp(16 * DAY_MS, unit="ms", tz="UTC")].groupby("station")["temp"]
    observed["unit"] = observed["station"].map(unit.std(ddof=0))
    joined = frame.merge(observed, left_on=["series", "valid_at"], right_on=["station", "when"])
    joined["squared"] = ((joined["forecast"] - joined["temp"]) / joined["unit"]) ** 2
    by_lead = joined[joined["policy"] == "never"].groupby(["seed", "lead"])["squared"].mean()
    assert by_name["never"]["mse"] == pytest.approx(by_lead.groupby("seed").mean().mean(), rel=1e-6)
    assert sorted(path.name for path in folder.iterdir()) == [
        "killick.toml", "out.html", "out.parquet", "weather.csv",
    ]  # fmt: skip


def test_tables_and_a_sentence_for_people(folder: Path) -> None:
    """With the horizon of the command line; a third of the file is fitted on where nothing is said."""
    done = run("--policy", "never", "--horizon", "2")
    assert done.exit_code == 0, done.output
    assert "persistence" in done.stdout
    assert "never" in done.stdout
    assert "13 days to learn from, then 27 days" in done.stdout.replace("\n", " ")
    assert folder.exists()


def test_what_came_out_is_told_where_the_disk_takes_no_forecasts(folder: Path) -> None:
    """Hours of work are not lost to a file that can't be written."""
    (folder / ".out.parquet.writing").mkdir()
    done = run("--policy", "never", "--train-until", "20d", "--forecasts", "out.parquet", "--json")
    assert done.exit_code != 0
    assert "forecasts can't be written to 'out.parquet'" in str(done.exception)
    assert json.loads(done.stdout)["policies"][0]["policy"] == "never"


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_signals_leave_neither_processes_nor_files(folder: Path) -> None:
    """SIGTERM leaves nothing, as Ctrl-C does; SIGKILL a folder, which the next backtest removes."""
    scratch = folder / "scratch"
    scratch.mkdir()
    end_by(signal.SIGKILL, scratch)
    (left,) = scratch.iterdir()
    assert end_by(signal.SIGTERM, scratch) == 128 + signal.SIGTERM
    assert not left.exists()
    assert list(scratch.iterdir()) == []
    assert not (folder / "out.parquet").exists()


def end_by(number: signal.Signals, scratch: Path) -> int:
    """Send a signal to a backtest that has a folder in `scratch`, and wait: its exit code."""
    words = ("backtest", "weather.csv", "--time", "when", "--series", "station", "--forecasts", "out.parquet")
    before = set(scratch.iterdir())
    with subprocess.Popen(
        [sys.executable, "-m", "worker.cli", *words],
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 60
        while not (made := set(scratch.iterdir()) - before) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [path.name.startswith("killick-scratch-backtest-") for path in made] == [True]
        time.sleep(1)  # its processes are starting
        process.send_signal(number)
        return process.wait(30)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--policy", "sometimes"), "there is no policy 'sometimes': use one of never, periodic:7d"),
        (("--policy", "periodic:1h"), "updates more often than once a day: name a length from 1d on"),
        (("--policy", "control"), "the policy control is made by plain updates: add --gate off"),
        (("--leads", "1,4"), "'4' is no lead: they go from 1 to 3 (model.horizon)"),
        (("--train-until", "2030-01-01"), "--train-until is 2030-01-01T00:00:00Z, the file goes from 1970-01-01"),
        (("--train-until", "39d23h"), "is not a time"),
        (("--train-until", "40d"), "name a time in between"),
        (("--train-until", "6h"), "horizons"),
        (("--forecasts", "./weather.csv"), "--forecasts './weather.csv' is the file of history: name another file"),
        (
            ("--report", "a.html", "--forecasts", "./a.html"),
            "--report and --forecasts are both 'a.html': name two files",
        ),
        (("--train-until", "9" * 17), "is no time between the years 1 and 9999"),
    ],
)
def test_wrong_words_are_answered_with_their_cure(folder: Path, words: tuple[str, ...], said: str) -> None:
    """Before anything long begins."""
    done = run(*words)
    assert done.exit_code != 0
    assert said in (done.output + str(done.exception))
    assert sorted(path.name for path in folder.iterdir()) == ["killick.toml", "weather.csv"]


def test_policies_have_one_name_each() -> None:
    """However their length is written."""
    assert parse_policy("periodic:1w") == parse_policy("periodic:7d")
    assert parse_policy("always").every_ms == DAY_MS
    assert not parse_policy("never").updates
    assert np.all([parse_policy(name).updates for name in ("on-drift", "on-skill", "control")])
