"""What a study keeps: nothing lost, nothing doubled, nothing mixed; what it suggests, and by what."""

from __future__ import annotations

import json
import multiprocessing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.errors import DataError
from tests.worker.tune_runs import run_of
from worker.tune_space import Dimension
from worker.tune_study import FILE, LEAST_FOR_IMPORTANCE, STARTUP, Study, opened

if TYPE_CHECKING:
    from pathlib import Path

    from worker.tune_study import Kept

SPACE = (
    Dimension("training.rate", low=1e-4, high=1e-2, log=True),
    Dimension("training.loss", ('"huber"', '"mae"')),
    Dimension("training.momentum", ("0.5", "0.9"), when=("training.loss", ('"mae"',)), idle="0.0"),
)
PLAN = {"splits": 2, "network": {"units": (32,), "cell": "lstm"}}


def filled(study: Study, trials: int) -> None:
    """So many ended trials; the error is that of the rate, least at 1e-3, and of the loss."""
    for number in range(trials):
        kept = study.add(study.suggest(study.trials, [], (1, number)))
        value = abs(np.log10(float(kept.params["training.rate"])) + 3) + (kept.params["training.loss"] == '"mae"')
        study.keep_run(kept, run_of(float(value)))
        study.end(kept, "complete", float(value), "")


def as_told(study: Study) -> list[Kept]:
    """The trials as they are."""
    return list(study.trials)


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Trials, runs with their curves, ends and checks come back equal; an unfinished trial is still open."""
    with opened(tmp_path, PLAN, SPACE) as study:
        filled(study, 3)
        gone = study.add({"training.rate": 0.01, "training.loss": '"huber"'})
        study.keep_run(gone, run_of(None, 0, 1))
        study.end(gone, "exploded", None, "exploded: the loss is nan")
        pruned = study.add({"training.rate": 0.002, "training.loss": '"mae"', "training.momentum": "0.9"})
        study.keep_run(pruned, run_of(0.25, 1, 2))
        study.end(pruned, "pruned", 0.25, "given up")
        half = study.add({"training.rate": 0.0001, "training.loss": '"huber"'})
        study.keep_run(half, run_of(0.123456789012345, 1, 2))
        study.keep_check(0, run_of(0.5, 0, 7))
        before = as_told(study), study.checks
    with opened(tmp_path, PLAN, SPACE) as study:
        assert (as_told(study), study.checks) == before
        assert [one.state for one in study.trials[3:]] == ["exploded", "pruned", None]


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_line_that_was_not_written_to_its_end_is_dropped(tmp_path: Path, cut: int) -> None:
    """Killed while it wrote, a study lacks what was being written and goes on; nothing is glued to the torn line."""
    with opened(tmp_path, PLAN, SPACE) as study:
        filled(study, 2)
        study.add({"training.rate": 0.001, "training.loss": '"huber"'})
        before = as_told(study)
    path = tmp_path / FILE
    whole = path.read_bytes()
    with opened(tmp_path, PLAN, SPACE) as study:
        study.keep_run(study.trials[2], run_of(0.7))
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(path.read_bytes()) > len(whole)
    with opened(tmp_path, PLAN, SPACE) as study:
        assert as_told(study) == before
        study.keep_run(study.trials[2], run_of(0.7))
        after = as_told(study)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    with opened(tmp_path, PLAN, SPACE) as study:
        assert as_told(study) == after


def test_a_lock_that_a_killed_process_left_holds_nobody_up(tmp_path: Path) -> None:
    """Optuna's own lock of a writer that is gone is taken away: nobody else can be in there."""
    with opened(tmp_path, PLAN, SPACE) as study:
        filled(study, 1)
    (tmp_path / f"{FILE}.lock").symlink_to(tmp_path / FILE)
    with opened(tmp_path, PLAN, SPACE) as study:
        filled(study, 1)
        assert len(study.trials) == 2


def test_two_can_not_work_on_one_study(tmp_path: Path) -> None:
    """Another process is refused while one works on it, and let in afterwards."""
    with opened(tmp_path, PLAN, SPACE):
        with multiprocessing.get_context("spawn").Pool(1) as other:
            assert "another process works on the study" in other.apply(_try, (tmp_path,))
        with pytest.raises(DataError, match="another process"), opened(tmp_path, PLAN, SPACE):
            pass
    with opened(tmp_path, PLAN, SPACE):
        pass


def _try(folder: Path) -> str:
    """What opening a study comes to."""
    try:
        with opened(folder, PLAN, SPACE):
            return "opened"
    except DataError as error:
        return str(error)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (PLAN | {"splits": 3}, "begun with splits 2, now it is 3"),
        (PLAN | {"network": {"units": (64,), "cell": "lstm"}}, r"begun with network.units = \[32\], now it is \[64\]"),
        (PLAN | {"format": 99}, "has format 1, this killick reads 99"),
    ],
)
def test_what_can_not_be_compared_is_not_mixed(tmp_path: Path, plan: dict[str, object], said: str) -> None:
    """Another plan is refused, with what differs."""
    with opened(tmp_path, PLAN, SPACE) as study:
        filled(study, 1)
    with pytest.raises(DataError, match=said), opened(tmp_path, plan, SPACE):
        pass


@pytest.mark.parametrize("content", [b"not json\n", b'{"op_code": 99}\n', b"[]\n", b'{"op_code":4,"trial_id":7}\n'])
def test_a_file_that_is_no_study_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is named, and not written to."""
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DataError, match="can't be read"), opened(tmp_path, PLAN, SPACE):
        pass
    assert (tmp_path / FILE).read_bytes() == content


def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    """A file stands in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"), opened(tmp_path / "file", PLAN, SPACE):
        pass


def test_a_suggestion_depends_on_what_it_may_know_and_on_nothing_else(tmp_path: Path) -> None:
    """The same for the same past and seed, also when later trials are there already; another for another seed."""
    with opened(tmp_path, PLAN, SPACE) as study:
        filled(study, STARTUP + 5)
        known, begun = study.trials[: STARTUP + 1], study.trials[STARTUP + 1 : STARTUP + 3]
        first = study.suggest(known, begun, (3, 4))
        filled(study, 3)
        assert study.suggest(known, begun, (3, 4)) == first
        assert study.suggest(known, begun, (3, 5)) != first
        assert study.suggest(known, [], (3, 4)) != first
    with opened(tmp_path, PLAN, SPACE) as study:
        assert study.suggest(study.trials[: STARTUP + 1], study.trials[STARTUP + 1 : STARTUP + 3], (3, 4)) == first


def test_the_search_learns(tmp_path: Path) -> None:
    """After the random start, what is tried is nearer to the best there is."""
    with opened(tmp_path, PLAN, SPACE) as study:
        filled(study, 4 * STARTUP)
        values = [one.value or 0.0 for one in study.trials]
        assert np.median(values[-STARTUP:]) < 0.5 * np.median(values[:STARTUP])
        assert min(values) < 0.1


def test_importance_names_what_matters(tmp_path: Path) -> None:
    """Too few trials say nothing; then there are shares, the greatest first, that sum to one."""
    with opened(tmp_path, PLAN, SPACE) as study:
        filled(study, LEAST_FOR_IMPORTANCE - 1)
        assert study.importance() == {}
        filled(study, 10)
        found = study.importance()
    assert {"training.rate", "training.loss"} <= set(found)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1.0)
    assert min(found.values()) >= 0
