"""A command's folder goes with it, or with the next one's, and never while its process lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models.errors import ConfigError
from tests.services.processes import alive, gone
from worker.scratch import PREFIX, scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HOLDS = """
import subprocess, sys, time
from worker.scratch import scratch
with scratch("held") as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "part").write_text("of hours of work")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    print(folder, child.pid, flush=True)
    time.sleep(60)
"""
MAKES_MANY = """
from worker.scratch import scratch
for number in range(300):
    with scratch("many") as folder:
        (folder / "mine").write_text(str(number))
        assert (folder / "mine").read_text() == str(number)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders are made meanwhile, here and in the processes that are started."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@contextmanager
def holder() -> Iterator[tuple[subprocess.Popen[str], Path, int]]:
    """A process that holds a folder: the process, the folder, and a child of its own."""
    words = [sys.executable, "-c", HOLDS]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder, child = process.stdout.readline().split()
        try:
            yield process, Path(folder), int(child)
        finally:
            process.kill()
            os.kill(int(child), signal.SIGKILL)


def test_a_killed_process_leaves_its_folder_to_the_next(root: Path) -> None:
    """It stays while the process lives, and goes afterwards, though a child that it started lives on."""
    with holder() as (process, folder, child):
        with scratch("second") as second:
            assert (folder / "deep" / "part").exists()
            assert set(root.iterdir()) == {folder, second}
        process.kill()
        process.wait()
        assert list(root.iterdir()) == [folder]
        with scratch("third") as third:
            assert alive(child)
            assert list(root.iterdir()) == [third]
    assert list(root.iterdir()) == []
    assert gone([child])


def test_two_of_one_process_live_side_by_side(root: Path) -> None:
    """As those of the demo do."""
    with scratch("one") as one, scratch("two") as two:
        assert set(root.iterdir()) == {one, two}
        assert one.stat().st_mode & 0o777 == 0o700
    assert list(root.iterdir()) == []


def test_what_is_not_ours_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of other names or of other users, links, and files."""
    (root / "elsewhere").mkdir()
    (root / f"{PREFIX}link").symlink_to(root / "elsewhere")
    (root / f"{PREFIX}file").touch()
    (root / f"{PREFIX}theirs").mkdir()
    user = os.geteuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: user + 1)
        with scratch("mine"):
            pass
    assert (root / f"{PREFIX}theirs").exists()
    with scratch("mine"):
        pass
    assert sorted(path.name for path in root.iterdir()) == ["elsewhere", f"{PREFIX}file", f"{PREFIX}link"]


def test_many_at_once_take_nothing_from_each_other(root: Path) -> None:
    """Also in the moment between a folder and its lock."""
    words = [sys.executable, "-W", "error", "-c", MAKES_MANY]
    processes = [subprocess.Popen(words, cwd=ROOT) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("nowhere", [None, "/proc", "/nowhere/at/all"])
def test_where_no_folder_can_be_made_the_cure_is_named(monkeypatch: pytest.MonkeyPatch, nowhere: str | None) -> None:
    """As in a container whose file system is read-only: that is no defect."""
    monkeypatch.setattr(tempfile, "tempdir", nowhere)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])  # what None looks through
    with pytest.raises(ConfigError, match=r"no folder can be made .*: set TMPDIR to a folder"), scratch("mine"):
        pass
