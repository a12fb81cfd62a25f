"""Histories in the archive: what a version was fitted on comes back as it was, or is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from consumers.archive_history import Histories
from consumers.history import History
from models.errors import ArchiveError
from worker.fit import digest

if TYPE_CHECKING:
    from pathlib import Path


def history_of(rows: int = 50) -> History:
    """Three series, of which one has no observation, and missing values."""
    rng = np.random.default_rng(rows)
    present = rng.random((rows, 2)) < 0.7
    return History(
        ("b", "unused", "a"),
        ("temp", "dewp"),
        rng.choice([0, 2], rows),
        np.sort(rng.integers(-(10**12), 10**12, rows)),
        np.where(present, rng.normal(size=(rows, 2)), 0.0),
        present,
    )


def test_a_history_comes_back_as_it_was(tmp_path: Path) -> None:
    """Its digest, over series, columns and order, is the same; written twice it is there once."""
    histories = Histories(str(tmp_path), "m")
    several = [history_of(50), history_of(70)]
    for history in [*several, several[0]]:
        histories.write(history, digest(history))
    for history in several:
        assert digest(histories.read(digest(history))) == digest(history)
    assert len(list((tmp_path / "m" / "history").iterdir())) == 2


def test_pandas_reads_a_history(tmp_path: Path) -> None:
    """One row per observation, null where a value is missing."""
    history = history_of()
    Histories(str(tmp_path), "m").write(history, digest(history))
    (file,) = (tmp_path / "m" / "history").iterdir()
    frame = pd.read_parquet(file)
    assert list(frame.columns) == ["series", "time", "value_temp", "value_dewp"]
    assert frame["series"].tolist() == [history.series[i] for i in history.series_index]
    assert (frame[["value_temp", "value_dewp"]].notna().to_numpy() == history.present).all()


def test_a_history_that_is_not_what_it_was_is_refused(tmp_path: Path) -> None:
    """One changed byte, or no such file: the error names it. Written again it is mended."""
    histories, history = Histories(str(tmp_path), "m"), history_of()
    histories.write(history, digest(history))
    (file,) = (tmp_path / "m" / "history").iterdir()
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ArchiveError, match=f"{file.name} in .* is damaged: its SHA-256 differs"):
        histories.read(digest(history))
    histories.write(history, digest(history))
    assert digest(histories.read(digest(history))) == digest(history)
    other = digest(replace(history, features=("temp", "other")))
    with pytest.raises(ArchiveError, match=f"history {other} is not in"):
        histories.read(other)
