"""The file of all forecasts, read by pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from models.errors import DataError
from worker import backtest_forecasts
from worker.backtest_forecasts import ForecastWriter, merge

if TYPE_CHECKING:
    from pathlib import Path

HOUR_MS = 3_600_000
NAMES = ("b", "a [red]", "ü")
COLUMNS = ["policy", "series", "issued_at", "valid_at", "lead", "forecast", "version", "seed"]


def rows(policy: str, seed: int, slot: list[int], step: list[int], values: np.ndarray, version: int) -> pd.DataFrame:
    """What is to be read, by a plain loop."""
    found = []
    for at, (s, t) in enumerate(zip(slot, step, strict=True)):
        for lead, value in enumerate(values[at], 1):
            if not np.isnan(value):
                issued, valid = (pd.Timestamp(n * HOUR_MS, unit="ms", tz="UTC") for n in (t, t + lead))
                found.append((policy, NAMES[s], issued, valid, lead, value, version, seed))
    frame = pd.DataFrame(found, columns=COLUMNS)
    return frame.astype({"forecast": "float32", "lead": "int32", "version": "int32", "seed": "int32"})


def written(path: Path, policy: str, seed: int) -> pd.DataFrame:
    """Write two pieces of forecasts, one of which lacks some; what is to be read."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=(3, 3))
    second[1, 1:] = np.nan
    with ForecastWriter(path, NAMES, HOUR_MS) as writer:
        writer.add(policy, seed, np.array([0, 2]), np.array([400_000, 400_000]), first, 1)
        writer.add(policy, seed, np.array([0, 1, 2]), np.array([400_001] * 3), second, 2)
        assert not path.exists()
    parts = [
        rows(policy, seed, [0, 2], [400_000] * 2, first, 1),
        rows(policy, seed, [0, 1, 2], [400_001] * 3, second, 2),
    ]
    return pd.concat(parts, ignore_index=True)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Whether both hold the same rows in the same order, text as text."""
    assert list(found.columns) == COLUMNS
    assert found["policy"].dtype == found["series"].dtype == pd.Series(["text"]).dtype
    for column in ("issued_at", "valid_at"):
        np.testing.assert_array_equal(found[column].to_numpy(), expected[column].to_numpy())
        assert str(found[column].dt.tz) == "UTC"
    rest = [column for column in COLUMNS if not column.endswith("_at")]
    pd.testing.assert_frame_equal(found[rest], expected[rest])


def test_every_forecast_is_a_row(tmp_path: Path) -> None:
    """What was issued when, for when, by which version; a lead without a forecast has none."""
    expected = written(tmp_path / "out.parquet", "never", 3)
    same(pd.read_parquet(tmp_path / "out.parquet"), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_rows_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some rows a group is written, and nothing is lost or moved by it."""
    monkeypatch.setattr(backtest_forecasts, "GROUP_ROWS", 5)
    expected = written(tmp_path / "out.parquet", "always", 1)
    same(pd.read_parquet(tmp_path / "out.parquet"), expected)
    assert parquet.ParquetFile(tmp_path / "out.parquet").num_row_groups == 2


def test_versions_may_differ_by_row(tmp_path: Path) -> None:
    """A version for each observation is that of all its leads."""
    with ForecastWriter(tmp_path / "out.parquet", NAMES, HOUR_MS) as writer:
        writer.add("always", 1, np.array([0, 1]), np.array([7, 7]), np.ones((2, 2)), np.array([4, 5]))
    assert pd.read_parquet(tmp_path / "out.parquet")["version"].tolist() == [4, 4, 5, 5]


def test_parts_of_several_processes_become_one_file(tmp_path: Path) -> None:
    """In the order of the parts, which are gone afterwards; also a part without a row."""
    parts = [tmp_path / f"{number}.parquet" for number in range(3)]
    expected = [written(parts[0], "never", 1), written(parts[2], "periodic:7d", 2)]
    with ForecastWriter(parts[1], NAMES, HOUR_MS):
        pass
    merge(parts, tmp_path / "out.parquet")
    same(pd.read_parquet(tmp_path / "out.parquet"), pd.concat(expected, ignore_index=True))
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_nothing_half_is_left_behind(tmp_path: Path) -> None:
    """Neither by a writer that failed, nor by a merge of what can't be read; what was there before stays."""
    (tmp_path / "out.parquet").write_text("before")
    with pytest.raises(ZeroDivisionError), ForecastWriter(tmp_path / "out.parquet", NAMES, HOUR_MS):
        raise ZeroDivisionError
    (tmp_path / "part").write_text("no parquet")
    with pytest.raises(DataError, match="part can't be read"):
        merge([tmp_path / "part"], tmp_path / "out.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "part"]
    assert (tmp_path / "out.parquet").read_text() == "before"


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    """A folder that does not exist is told before anything is computed."""
    with pytest.raises(DataError, match=r"missing/out.parquet' \(No such file or directory\)"):
        ForecastWriter(tmp_path / "missing" / "out.parquet", NAMES, HOUR_MS)
