"""The benchmarks of speed on a small file: both sides run, compute the same, and are told side by side."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from benchmarks import backtest, finetune
from benchmarks._ettm1 import FILE, history_of

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 700


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three random walks of 700 quarters of an hour."""
    path = tmp_path_factory.mktemp("speed") / FILE
    walks = np.cumsum(np.random.default_rng(0).normal(size=(ROWS, 3)), axis=0)
    frame = pd.DataFrame(walks, columns=["a", "b", "c"])
    frame.insert(0, "date", pd.date_range("2016-07-01", periods=ROWS, freq="15min").astype(str))
    frame.to_csv(path, index=False)
    return path


def test_the_first_rows_are_read(source: Path) -> None:
    """As many as were asked for, of every series; all, where there are no more."""
    assert len(history_of(source, 100)) == 300
    assert len(history_of(source, 10 * ROWS)) == 3 * ROWS


def test_a_backtest_is_told_beside_keras(source: Path) -> None:
    """Keras gives the network's outputs, else the benchmark refuses; rates and their ratio fit together."""
    words = argparse.Namespace(rows=ROWS, units=[8], horizon=4, threads=1, turns=1, keras_steps=20)
    told = backtest.measured(source, words)
    assert (told["series"], told["observations"]) == (3, 3 * ROWS)
    assert told["ratio"] == pytest.approx(
        told["backtest"]["per_s"] / told["keras, a call a step"]["per_s"], rel=0.05, abs=0.1
    )


def test_an_epoch_is_told_beside_that_of_keras(source: Path) -> None:
    """Both train on the days' labels, and both end with a lower loss."""
    words = argparse.Namespace(days=4, units=[8], horizon=4, chunk=48, threads=1, turns=1)
    told = finetune.measured(source, words)
    labels = 4 * 96 * 3 * 4
    assert told["keras"]["labels"] == labels
    assert 0.95 * labels < told["killick"]["labels"] <= labels
    assert told["keras"]["steps"] == 8
    assert max(told["keras"]["loss"], told["killick"]["loss"]) < told["loss_before"]
