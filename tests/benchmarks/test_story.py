"""The figures of the story on real data, its page, its settings and its pace; the run itself is the benchmark's."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from benchmarks._story_figures import (
    Checked,
    answered,
    answering,
    by_version,
    cells,
    figures,
    gain,
    measures,
    sums,
    total,
)
from benchmarks._story_kept import observed
from benchmarks._story_page import DOC, put, tables
from benchmarks._story_picture import picture
from benchmarks._story_sets import SETS, SETTINGS
from benchmarks._story_stream import days, settings_of
from consumers.history import History
from tests.integration.figures import references
from worker import settings_reading
from worker.settings_text import toml_value

if TYPE_CHECKING:
    from pathlib import Path

HOUR = pd.Timedelta("1h")
BEGIN = pd.Timestamp("2020-01-01T00:00:00Z")
HORIZON = 2
STEPS = 24 * 40


def wide(version: int, off_by: float, steps: int = STEPS) -> pd.DataFrame:
    """What `killick pairs` says of one series whose forecasts are off by so much; its scale is 2."""
    time = BEGIN + HOUR * np.arange(steps)
    value = np.arange(steps, dtype=np.float64) % 7
    leads = {f"lead_{k}": (value + off_by).astype(np.float32) for k in (1, 2)}
    found = pd.DataFrame({"series": "a", "time": time, "value": value, "scale": 2.0, "version": version, **leads})
    found.loc[0, ["lead_1", "lead_2"]] = np.nan
    found.loc[1, "lead_2"] = np.nan
    return found


def past(frame: pd.DataFrame) -> pd.DataFrame:
    """What persistence and seasonal naive would have said; the period is a day."""
    return references(frame[["series", "time", "value"]], HOUR, 6, 24, HORIZON)


def answers(steps: int = STEPS) -> pd.DataFrame:
    """The predictions topic of two versions that follow each other in the middle: off by 1, then exact."""
    issued = BEGIN + HOUR * np.arange(steps)
    version = np.where(np.arange(steps) < steps // 2, 1, 2)
    off_by = np.where(version == 1, 1.0, 0.0)
    leads = {f"lead_{k}": ((np.arange(steps) + k) % 7 + off_by).astype(np.float32) for k in (1, 2)}
    return pd.DataFrame({"series": "a", "time": issued, "version": version, **leads})


def test_errors_of_known_forecasts() -> None:
    """Off by 1 at a scale of 2: MAE 1, scaled 1/2, bias 1; a scale counts after a period."""
    table = cells(wide(1, 1.0), past(wide(1, 1.0)), HORIZON)
    row = total(sums(table, ["lead"]))
    unscaled, scaled = measures(row, "unscaled"), measures(row, "scaled")
    assert unscaled["count"] == (STEPS - 1) + (STEPS - 2)
    assert scaled["count"] == 2 * (STEPS - 24)
    assert (unscaled["mae"], unscaled["bias"], unscaled["rmse"]) == (1.0, 1.0, 1.0)
    assert (scaled["mae"], scaled["rmse"]) == (0.5, 0.5)


def test_skill_of_known_forecasts() -> None:
    """1 less the ratio of mean squares, by a loop over the steps."""
    frame = wide(1, 0.5)
    value = frame["value"].to_numpy()
    theirs = [(value[t - 1] - value[t]) ** 2 for t in range(1, STEPS)]
    row = total(sums(cells(frame, past(frame), HORIZON), ["lead"]).loc[[1]])
    assert measures(row, "unscaled")["skill_persistence"] == pytest.approx(1 - 0.25 / np.mean(theirs), abs=1e-12)


def told(table: pd.DataFrame) -> dict[str, Any]:
    """What a `killick skill --json` that agrees would say."""
    by_lead = sums(table, ["lead"])
    rows = {"1": total(by_lead.loc[[1]]), "2": total(by_lead.loc[[2]]), "all": total(by_lead)}
    return {scaling: {lead: measures(row, scaling) for lead, row in rows.items()} for scaling in ("scaled", "unscaled")}


def test_a_figure_that_differs_is_not_let_pass() -> None:
    """Equal to 1e-9 of its size, or the benchmark ends."""
    table = cells(wide(1, 1.0), past(wide(1, 1.0)), HORIZON)
    said = told(table)
    checked = Checked()
    checked.compare("version 1", table, said, HORIZON)
    assert checked.compared == 2 * 3 * 6
    said["scaled"]["2"]["skill_seasonal"] += 1e-7
    with pytest.raises(ArithmeticError, match="version 1, scaled, lead 2: skill_seasonal"):
        checked.compare("version 1", table, said, HORIZON)


def test_an_answer_is_set_beside_the_observation_that_it_was_for() -> None:
    """lead_k was issued k steps earlier, by the version that answered then."""
    found = answered(answers(), wide(1, 1.0), HORIZON, HOUR)
    assert found["lead_1"].isna().tolist()[:2] == [True, False]
    middle = STEPS // 2
    at = found.loc[middle + 1]
    assert (at["version_1"], at["version_2"]) == (2, 1)
    assert (at["lead_1"], at["lead_2"]) == ((middle + 1) % 7, (middle + 1) % 7 + 1)


def test_what_is_saved_is_known() -> None:
    """Version 1 is off by 1 all the time, the other one exact from the middle on: half the loss, then all of it."""
    frame = wide(1, 1.0)
    ours = cells(answered(answers(), frame, HORIZON, HOUR), past(frame), HORIZON)
    theirs = cells(frame, past(frame), HORIZON)
    both = (ours["error"].notna() & theirs["error"].notna()).to_numpy()
    found = gain(ours[both], theirs[both])
    assert found["whole"]["frozen"] == 0.25
    assert found["whole"]["percent"] == pytest.approx(100 * (STEPS / 2 - 1.5) / (STEPS - 24), abs=1e-9)
    assert found["whole"]["low"] < found["whole"]["percent"] < found["whole"]["high"]
    assert found["since_promotion"]["percent"] == pytest.approx(100, abs=0.2)
    first, second = by_version(ours[both], theirs[both])
    assert (first["version"], first["killick"]["mse"], first["frozen"]["mse"]) == (1, 0.25, 0.25)
    assert (second["version"], second["killick"]["mse"], second["frozen"]["mse"]) == (2, 0.0, 0.25)
    assert second["killick"]["persistence"] == 1.0


def test_who_answered_when() -> None:
    """A row for each time that another version begins to answer."""
    assert answering(answers()) == [(str(BEGIN), 1), (str(BEGIN + HOUR * (STEPS // 2)), 2)]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder as a run leaves it, with two versions and a few events."""
    frame = wide(1, 1.0)
    frame[["series", "time", "value"]].to_parquet(tmp_path / "observed.parquet")
    frame.to_parquet(tmp_path / "pairs.parquet")
    frame.to_parquet(tmp_path / "frozen.parquet")
    answers().to_parquet(tmp_path / "answers.parquet")
    until = BEGIN + HOUR * (STEPS - 1)
    event = {"version": None, "seconds": 0.0, "trainings": 0, "trigger": ""}
    verdict = {"seconds": 60.0, "trainings": 13, "trigger": "schedule", "words": "promote: a < b | c"}
    events = [
        {**event, "time": "2020-01-05T00:00:00Z", "kind": "drift", "words": "ks: an input has changed"},
        {**event, "time": "2020-01-20T00:00:00Z", "kind": "verdict", **verdict},
        {**event, "time": "2020-01-21T00:00:00Z", "kind": "trial", "words": "version 2 promoted: better"},
        {**event, "time": "2020-01-21T00:00:00Z", "kind": "promote", "words": "1 → 2, by gate: better"},
    ]
    ended = frame[frame["time"] < until]
    story = {
        "name": "weather", "title": "Weather & more", "horizon": HORIZON, "period_steps": 24, "max_gap_steps": 6,
        "interval_ms": 3_600_000, "events": events, "records": STEPS, "refused": 0, "fit_s": 3.0, "stream_s": 5.0,
        "waited_s": 60.0,
        "skill": {"versions": [{"version": 1, "windows": {"life": told(cells(frame, past(frame), HORIZON))}}]},
        "skill_again": {"until": str(until), "windows": {"life": told(cells(ended, past(frame), HORIZON))}},
    }  # fmt: skip
    (tmp_path / "story.json").write_text(json.dumps(story), encoding="utf-8")
    return tmp_path


def test_the_page_says_what_was_found(kept: Path) -> None:
    """What is saved, each version beside version 1, each verdict with its sentence; and nothing twice."""
    found = figures(kept)
    lines = list(tables(found))
    text = "\n".join(lines)
    assert "51.1 % less loss" in text
    assert "72 figures of `killick skill --json` equal pandas'" in text
    assert "1 promote. Promotions: 1, rollbacks: 0. 13 trainings in 60 s" in text
    assert "Drifts: 1 ks." in text
    row = next(line for line in lines if line.startswith("| 2 |"))
    assert row.endswith("| 0.0000 | 0.2500 | 0.000 | 1.000 |")
    assert "| all | 2020-01-01 … 2020-02-09 | 1,917 | " in text
    assert "By series" not in text  # there is one
    told_of = [line for line in lines if line.startswith("| 2020-01-2")]
    assert told_of == [
        "| 2020-01-20 | verdict (schedule, 13 trainings, 60 s) | promote: a < b \\| c |",
        "| 2020-01-21 | promote | 1 → 2, by gate: better |",
    ]


def test_a_data_set_has_its_own_place_in_the_page(kept: Path, tmp_path: Path) -> None:
    """What stands between its marks is replaced, everything else stays."""
    doc = tmp_path / "docs" / "story.md"
    (doc.parent / "pictures").mkdir(parents=True)
    marks = "\n".join(f"<!-- story {name}: begin -->\nold {name}\n<!-- story {name}: end -->" for name in "ab")
    doc.write_text(f"head\n{marks}\ntail\n", encoding="utf-8")
    put("a", ["new"], picture(figures(kept)), doc)
    put("a", ["newer"], picture(figures(kept)), doc)
    text = doc.read_text(encoding="utf-8")
    assert text == f"head\n{marks.replace('old a', 'newer')}\ntail\n"
    assert (tmp_path / "docs" / "pictures" / "story-a.svg").read_text(encoding="utf-8").startswith("<svg ")


def test_the_picture_is_svg_with_both_curves(kept: Path) -> None:
    """Two curves, a bar for each version, the verdict's mark with its sentence, the promotion's line."""
    root = ET.fromstring(picture(figures(kept)))  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}polyline")) == 2
    words = {text.text for text in root.iter(f"{space}text")}
    assert {"Weather & more", "v1", "v2"} <= words
    assert [title.text for title in root.iter(f"{space}title")] == ["promote: a < b | c"]


@pytest.mark.parametrize("chosen", SETS, ids=lambda one: one.name)
def test_the_committed_settings_are_killicks(chosen: Any, tmp_path: Path) -> None:
    """Each file is read without complaint; its archive is where the run says."""
    lines = []
    for section, values in settings_of(chosen, tmp_path).items():
        lines += [f"[{section}]", *(f"{name} = {toml_value(value)}" for name, value in values.items())]
    (tmp_path / "killick.toml").write_text("\n".join(lines), encoding="utf-8")
    settings = settings_reading.load(tmp_path / "killick.toml", environment=False).settings
    assert settings.archive.path == str(tmp_path / "archive")
    assert settings.retraining.every.ms > 0
    assert f"<!-- story {chosen.name}: begin -->" in DOC.read_text(encoding="utf-8")
    assert tomllib.loads((SETTINGS / f"{chosen.name}.toml").read_text(encoding="utf-8"))["model"]["horizon"] == 24


def test_the_stream_comes_a_day_at_a_time() -> None:
    """Each day with its end; a day without observations is none. The target is told as it was sent."""
    time_ms = np.array([0, 1, 2 * 86_400_000, 2 * 86_400_000 + 5])
    values, present = np.arange(8.0).reshape(4, 2), np.array([[True, True], [True, False], [True, True], [True, True]])
    history = History(("a",), ("x", "y"), np.zeros(4, np.int64), time_ms, values, present)
    found = list(days(history))
    assert [(end, len(part)) for end, part in found] == [(86_400_000, 2), (3 * 86_400_000, 2)]
    table = observed(history, "y")
    assert table["value"].fillna(-1).tolist() == [1.0, -1.0, 5.0, 7.0]
    assert table["time"].iloc[2] == pd.Timestamp("1970-01-03T00:00:00Z")
