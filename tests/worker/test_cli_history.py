"""`killick fit` on the command line, and what the settings ask of it."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from consumers.archive_history import Histories
from models.registry import Registry
from models.server import connect
from models.times import rfc3339
from worker import cli, settings_reading
from worker.cli_history import plan_of
from worker.settings import sections

if TYPE_CHECKING:
    from pathlib import Path

HOUR_MS = 3_600_000
SETTINGS = """
[model]
name = "test"
features = ["temp", "wind"]
target = "temp"
horizon = 2
[network]
units = [4]
lags = 2
[training]
epochs = 2
chunk = 12
segments = 2
dropout = 0.25
validation = 0.2
seed = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in with its killick.toml and forty days of two series in weather.csv."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killick.toml").write_text(SETTINGS)
    with (tmp_path / "weather.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["station", "when", "temp", "wind"])
        for hour in range(40 * 24):
            for number, station in enumerate("AB"):
                temp = 10 + 5 * math.sin(hour / 24 * math.tau) + number + math.sin(hour * 0.7)
                rows.writerow([station, rfc3339(hour * HOUR_MS), f"{temp:.3f}", hour % 7 or "NA"])
    return tmp_path


def test_settings_become_the_plan_of_a_fit(folder: Path) -> None:
    """Every setting of [training] and [network] reaches the plan."""
    loaded = settings_reading.load(folder / "killick.toml").settings
    plan = plan_of(loaded)
    for name in sections()["training"].model_fields:
        held = plan if name in ("validation", "evaluation") else plan.training
        assert getattr(held, name) == getattr(loaded.training, name)
    assert (plan.training.dropout, plan.validation) == (0.25, 0.2)
    assert (plan.architecture.units, plan.architecture.inputs.lags, plan.form.target) == ((4,), 2, "temp")


def test_fit_registers_the_first_version(folder: Path, redis_url: str) -> None:
    """`killick fit FILE` trains on what is before --until, registers version 1 as the incumbent, archives its data."""
    words = [
        "fit",
        "weather.csv",
        "--time",
        "when",
        "--series",
        "station",
        "--until",
        "30d",
        "--actor",
        "tester",
    ]
    variables = {"KILLICK_REDIS__URL": redis_url, "KILLICK_ARCHIVE__PATH": "kept"}
    result = CliRunner().invoke(cli.killick, words, env=variables)
    assert result.exit_code == 0, result.output
    with connect(redis_url) as client:
        registry = Registry(client, "test")
        (version,) = registry.versions()
        assert registry.aliases().incumbent == 1
    assert version.actor == "tester"
    assert version.training["data"]["observations"] == 30 * 24 * 2
    assert "registered version 1" in result.output
    history = Histories(str(folder / "kept"), "test").read(version.training["data"]["sha256"])
    assert len(history) == 30 * 24 * 2
