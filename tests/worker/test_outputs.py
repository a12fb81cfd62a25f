"""What can't be written is refused by every command at once, in the same words."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from models.errors import ConfigError
from worker import cli
from worker.outputs import PAGE, check_file, check_folder

if TYPE_CHECKING:
    from pathlib import Path

MISSING = "--report 'nowhere/a.html' can't be written (there is no folder '{here}/nowhere'): make it, or name another"
WRONG = [
    ("", "--report is empty: name a file: --report out.html"),
    ("nowhere/a.html", MISSING),
    ("there/a.html/b.html", "'{here}/there/a.html' is no folder"),
    ("there", "--report 'there' is a folder: name a file in it: --report there/out.html"),
    ("a.pdf", "--report 'a.pdf' does not end in .html: name it so: --report a.html"),
    ("there/b", "--report 'there/b' does not end in .html: name it so: --report there/b.html"),
    ("pipe.html", "--report 'pipe.html' is no plain file, and would be replaced by one: name another file"),
    ("a" * 300 + ".html", "can't be written (File name too long): make it, or name another place"),
    ("/proc/a.html", "can't be written ('/proc' takes no files: "),
]
COMMANDS = [
    ["backtest", "none.csv", "--report"],
    ["tune", "none.csv", "--report"],
    ["report", "--out"],
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a folder, a file and a pipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.html").write_text("kept")
    os.mkfifo(tmp_path / "pipe.html")
    return tmp_path


def files(folder: Path) -> list[str]:
    """All that is in the folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(("path", "said"), WRONG)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_commands_refuse_a_page_in_the_same_words(here: Path, command: list[str], path: str, said: str) -> None:
    """Before they look at the file of history, which is not there, or for a server; and nothing is left."""
    before, errors = files(here), io.StringIO()
    assert cli.run([*command, path], errors) == ConfigError.exit_code
    assert said.format(here=here).replace("--report", command[-1]) in errors.getvalue()
    assert len(errors.getvalue().splitlines()) == 1
    assert files(here) == before


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "--report is empty: name a folder: --report pages"),
        ("there/a.html", "--report 'there/a.html' is no folder: name a folder: --report pages"),
        ("there/a.html/b/c", "'{here}/there/a.html' is no folder): make it, or name another place"),
        ("/proc/a/b", "--report '/proc/a/b' can't be written ('/proc' takes no files: "),
    ],
)
def test_a_folder_of_pages_is_refused_likewise(here: Path, path: str, said: str) -> None:
    """Before the data sets are looked for."""
    before, errors = files(here), io.StringIO()
    assert cli.run(["bench", "accuracy", "--report", path], errors) == ConfigError.exit_code
    assert said.format(here=here) in errors.getvalue()
    assert files(here) == before


@pytest.mark.parametrize("path", ["", "nowhere/a.parquet", "there", "pipe.html", "/proc/a.parquet"])
def test_a_file_of_forecasts_is_refused_likewise(here: Path, path: str) -> None:
    """It may have any suffix."""
    before, errors = files(here), io.StringIO()
    assert cli.run(["backtest", "none.csv", "--forecasts", path], errors) == ConfigError.exit_code
    assert errors.getvalue().startswith("killick: --forecasts ")
    assert files(here) == before


def test_what_can_be_written_is_let_through(here: Path) -> None:
    """A new file, one that is there, a dangling link; a folder that is there or can be made. Nothing is touched."""
    (here / "link.html").symlink_to(here / "not-there.html")
    before = files(here)
    for path in ("new.html", "there/a.html", "there/A.HTM", "link.html", str(here / "new.html")):
        check_file("--report", path, PAGE)
    check_file("--forecasts", "there/forecasts", source="none.csv")
    for folder in ("there", "pages", "pages/of/a/year", "."):
        check_folder("--report", folder)
    assert files(here) == before
    assert (here / "there" / "a.html").read_text() == "kept"


def test_the_history_is_never_written_over(here: Path) -> None:
    """However its name is written."""
    with pytest.raises(ConfigError, match=r"is the file of history: name another file"):
        check_file("--forecasts", "there/../there/a.html", source=str(here / "there" / "a.html"))
    for command in COMMANDS[:2]:
        errors = io.StringIO()
        assert cli.run([command[0], "there/a.html", "--report", "./there/a.html"], errors) == ConfigError.exit_code
        assert "--report './there/a.html' is the file of history: name another file" in errors.getvalue()
