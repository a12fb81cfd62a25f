"""`killick tune` on the command line: what it prints, what it refuses, and that kill -9 costs it nothing."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner

from tests.worker.tuning import SETTINGS, as_csv, timeless, waves
from worker import cli
from worker.tune_study import FILE
from worker.tune_told import Tuned

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = ("--trials", "3", "--splits", "2", "--repeats", "2", "--check", "2", "--workers", "2")
VARY = ("--vary", "training.rate", "--vary", "network.units=[4],[6]")
RUNS = 3 * 4 + 4  # at most
PATIENCE_S = 300.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with settings and a history."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killick.toml").write_text(SETTINGS.replace("rate = 0.01", "rate = 0.00001"))  # all others are better
    (tmp_path / "waves.csv").write_text(as_csv(waves()))
    return tmp_path


def command(*words: str) -> list[str]:
    """The words of a call of `killick tune`."""
    return [sys.executable, "-m", "worker.cli", "tune", "waves.csv", *SMALL, *VARY, "--no-prune", "--json", *words]


def called(folder: Path, *words: str) -> Tuned:
    """What a call in a process of its own came to."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command(*words), cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=Tuned)


def kept(folder: Path) -> list[str]:
    """The trainings that a study has kept, each by trial, split and seed, as often as it was written."""
    path = folder / "killick-tune" / FILE
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    found = []
    for line in map(json.loads, lines):
        names = [name for name in line.get("user_attr", {}) if name.startswith(("run.", "check."))]
        found += [f"{line.get('trial_id', 'check')}.{name}" for name in names]
    return found


def children(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from children(child)


def gone(pid: int) -> bool:
    """Whether a process is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_tuning_killed_twice_loses_and_doubles_nothing(folder: Path) -> None:
    """After kill -9 no process is left; called again it trains what is missing, and ends as one never killed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for enough in (3, 10):
        process = subprocess.Popen(
            command(), cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + PATIENCE_S
        while len(kept(folder)) < enough:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        workers = list(children(process.pid))
        assert len(workers) >= 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        while not all(map(gone, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert enough <= len(kept(folder)) < RUNS
    found = called(folder)
    trained = kept(folder)
    assert len(trained) == len(set(trained)) == sum(len(one.runs) for one in found.trials) + 4
    assert [one.number for one in found.trials] == [0, 1, 2]
    assert {one.state for one in found.trials} == {"complete"}
    assert timeless(called(folder, "--study", "elsewhere")) == timeless(found)


def test_the_ranking_and_what_to_paste_are_printed(folder: Path) -> None:
    """Called again without --json on an ended study: a table, sentences, and TOML that `config check` takes."""
    told = called(folder)
    assert "rate = " in told.toml
    shown = CliRunner().invoke(cli.killick, ["tune", "waves.csv", *SMALL, *VARY, "--no-prune", "--report", "page.html"])
    assert shown.exit_code == 0, shown.output
    for said in ("best       trial", "sure?", "check", "cost       16 trainings", "3 trials are kept from before"):
        assert said in shown.output
    assert told.toml in shown.output
    page = (folder / "page.html").read_text()
    assert page.lower().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["none.csv"], 1, "none.csv"),
        (["waves.csv", "--trials", "0"], 2, "--trials"),
        (["waves.csv", "--vary", "training.rates"], 2, "did you mean training.rate"),
        (["waves.csv", "--vary", "network.lags=5..9"], 2, "give values"),
        (["waves.csv", "--keep", "training.nothing"], 2, "is not a setting"),
        (["waves.csv", "--until", "2d"], 1, "at least 9 (3 horizons) are needed"),
        (["waves.csv", "--splits", "20", "--until", "6d"], 1, "fewer --splits"),
        (["waves.csv", "--time-limit", "soon"], 2, "soon"),
        (["waves.csv", "--study", "waves.csv"], 1, "can't be written"),
        (["waves.csv", "--time", "when"], 2, "when"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_trained(
    folder: Path, words: list[str], code: int, said: str
) -> None:
    """A wrong file, a wrong setting, too short a span, an impossible page: one line, and no study is left."""
    errors = io.StringIO()
    assert cli.run(["tune", *words], errors) == code
    assert said in errors.getvalue()
    assert "Traceback" not in errors.getvalue()
    assert not (folder / "killick-tune").exists()
