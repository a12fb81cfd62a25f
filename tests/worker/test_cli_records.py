"""`killick pairs` at its edges: versions of several horizons, and words that can't be used."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from consumers.ledger import Commit, Ledger
from models.blocks import Block
from models.registry import Registry
from models.server import connect
from worker import cli

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def model(redis_url: str) -> str:
    """A model whose ledger holds one observation with the pairs of version 1 (2 leads) and of version 2 (3 leads)."""
    name = "pairs-of-two-horizons"
    client = connect(redis_url)
    ledger = Ledger(client, name, 0, "mine")
    ledger.take(start=0, form="f", topic_id="t", partitions=1, chunk_slots=2)
    one = np.ones((1, 1))
    pairs = {1: np.array([[1, 2]], np.float32), 2: np.array([[3, 4, 5]], np.float32)}
    at = np.zeros(1, np.int64)
    block = Block(0, 1, at, at, at + 380_000, one, one > 0, np.ones(1, np.float32), pairs, {1: 0, 2: 0})
    ledger.commit(Commit(0, block, new_names=["a"]))
    Registry(client, name).set_partitions(1)
    client.close()
    return name


def pairs(redis_url: str, model: str, horizon: int, *words: str) -> Result:
    """What `killick pairs` says with this horizon in its settings."""
    variables = {
        "KILLICK_REDIS__URL": redis_url,
        "KILLICK_MODEL__NAME": model,
        "KILLICK_MODEL__HORIZON": str(horizon),
    }
    return CliRunner().invoke(cli.killick, ["pairs", *words], env=variables)


def test_versions_of_several_horizons_share_one_header(redis_url: str, model: str, tmp_path: Path) -> None:
    """Every row has the header's columns: leads that a version does not have are empty."""
    found = pd.read_csv(io.StringIO(pairs(redis_url, model, 3).stdout))
    assert found[["lead_1", "lead_2", "lead_3"]].fillna(-1).to_numpy().tolist() == [[1, 2, -1], [3, 4, 5]]
    file = tmp_path / "pairs.parquet"
    assert pairs(redis_url, model, 3, "--format", "parquet", "--out", str(file)).exit_code == 0
    assert pd.read_parquet(file)["lead_3"].fillna(-1).tolist() == [-1, 5]


def test_a_version_with_more_leads_than_the_settings_is_refused(redis_url: str, model: str) -> None:
    """No row goes out with columns that the header does not name; the cure is."""
    error = pairs(redis_url, model, 2).exception
    assert str(error).startswith("version 2 has 3 leads, model.horizon is 2: set model.horizon to the longest")
    assert pairs(redis_url, model, 2, "--version", "1").exit_code == 0


def test_a_time_that_is_none_is_said_before_anything_is_written(redis_url: str, model: str, tmp_path: Path) -> None:
    """A wrong --since leaves no half-written file and prints no header."""
    file = tmp_path / "pairs.csv"
    result = pairs(redis_url, model, 3, "--since", "rubbish", "--out", str(file))
    assert "'rubbish' is not a time" in str(result.exception)
    assert not file.exists()
    assert pairs(redis_url, model, 3, "--since", "rubbish").stdout == ""


def test_what_is_neither_in_redis_nor_in_the_archive_is_said(redis_url: str, model: str, tmp_path: Path) -> None:
    """Beside the pairs that there are, on standard error; without an archive nobody expects them."""
    client = connect(redis_url)
    ledger = Ledger(client, model, 0, "again")
    ledger.take(start=0, form="f", topic_id="t", partitions=1, chunk_slots=2)
    ledger.set_mark(1)
    client.hset(ledger._key("needs"), "archive", 1)
    assert ledger.trim(1) == 1
    client.close()
    said = "partition 0: what ended after offset 0 and up to 1 is neither in Redis nor in the archive\n"
    assert said not in pairs(redis_url, model, 3).stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KILLICK_ARCHIVE__PATH", str(tmp_path))
        assert said in pairs(redis_url, model, 3).stderr
