"""`killick report`: the verdict that is asked for, as a page or as JSON; what is not there is said with its cure."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner

from models.errors import ConfigError, KillickError, VersionError
from models.registry import Registry
from models.server import connect
from models.verdict import Verdict
from tests.models.versions import register
from tests.streams import architecture_of
from tests.worker import verdict_samples as samples
from worker import cli
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from models.server import Client

pytestmark = pytest.mark.services
CONFIG = '[model]\nname = "m"\nfeatures = ["v"]\ntarget = "v"\ninterval = "1h"\nhorizon = 4\n'
OLDER = "0b9e4ff0d0f34ec8a9b07b3f0f6ad3c1"
NEWER = "12345678901234567890123456789012"  # an id may look like a number


class Desk:
    """Who types commands, in a folder with a configuration."""

    def __init__(self, client: Client, folder: Path, redis_url: str) -> None:
        self.client = client
        self.folder = folder
        self.config = folder / "killick.toml"
        self.config.write_text(f'{CONFIG}[redis]\nurl = "{redis_url}"\n')
        self.registry = Registry(client, "m")

    def words(self, *words: str) -> list[str]:
        """The command line."""
        return ["--config", str(self.config), "report", *words]

    def said(self, *words: str) -> str:
        """What it prints."""
        done = CliRunner().invoke(cli.killick, self.words(*words), catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    def error(self, *words: str) -> KillickError:
        """What it fails with."""
        with pytest.raises(KillickError) as caught:
            self.said(*words)
        return caught.value

    def write(self, verdict: Verdict) -> Verdict:
        """Keep a verdict in the store."""
        VerdictStore(self.client, "m").write(verdict, "w", [], before=0.0, spends=0.0)
        return verdict


@pytest.fixture
def desk(redis_url: str, tmp_path: Path) -> Iterator[Desk]:
    """A desk before a model with nothing."""
    client = connect(redis_url)
    yield Desk(client, tmp_path, redis_url)
    client.close()


@pytest.fixture
def judged(desk: Desk) -> Desk:
    """Version 1 was fitted; version 2 came of a verdict, and a newer verdict came to nothing."""
    fitted = register(desk.registry, architecture_of(), 0)
    made = register(desk.registry, architecture_of(), 1, parent=fitted)
    desk.registry.nominate(made, expected=None, actor="retrainer", reason="<b>better</b>", now_ms=5)
    verdict = samples.promoted()
    desk.write(msgspec.structs.replace(verdict, id=OLDER, version=made, incumbent=fitted, model="m"))
    desk.write(msgspec.structs.replace(samples.failed(), id=NEWER, model="m", created_ms=verdict.created_ms + 1))
    return desk


def test_a_page_is_written_of_what_is_asked_for(judged: Desk) -> None:
    """By version, by id, and the newest without either; with the audit of its version in it."""
    path = judged.folder / "verdict.html"
    assert judged.said("2", "--out", str(path)) == f"verdict {OLDER} is in {path}: promote\n"
    text = path.read_text(encoding="utf-8")
    assert "Verdict on version 2 of model m" in text
    assert "&lt;b&gt;better&lt;/b&gt;" in text
    assert "was made the candidate" in text
    assert judged.said(OLDER, "--out", str(path)).startswith(f"verdict {OLDER} ")
    assert path.read_text(encoding="utf-8") == text
    assert judged.said("--out", str(path)) == f"verdict {NEWER} is in {path}: failed\n"
    assert "Verdict of model m: no new version" in path.read_text(encoding="utf-8")
    assert judged.said(NEWER, "--out", str(path)).startswith(f"verdict {NEWER} ")


def test_without_a_file_it_is_told_in_short(judged: Desk) -> None:
    """The decision, the finalists, what happens next, for a terminal."""
    said = " ".join(judged.said("2").split())
    stored = VerdictStore(judged.client, "m").of_version(2)
    assert stored is not None
    assert " ".join(stored.sentence.split()) in said
    assert {one.name for one in stored.compared if one.p_holm is not None} <= set(said.split())


def test_the_beginning_of_an_id_is_enough(judged: Desk) -> None:
    """Where it is the only one that begins so, also of digits alone; else those that do are named."""
    for start in (OLDER[:8], NEWER[:8], OLDER[:4]):
        assert json.loads(judged.said(start, "--json"))["id"].startswith(start)
    assert judged.error(OLDER[:3], "--json").message == f"model 'm' has no verdict {OLDER[:3]!r}"
    twin = judged.write(msgspec.structs.replace(samples.failed(), id=OLDER[:6] + "twin", model="m", created_ms=1))
    found = judged.error(OLDER[:6], "--json")
    assert found.message == f"2 verdicts of model 'm' begin with {OLDER[:6]!r}"
    assert found.cure == f"choose one: {OLDER} (version 2), {twin.id}"


def test_json_is_the_verdict_again(judged: Desk) -> None:
    """To standard output, alone; to a file with --out, the same bytes."""
    stored = VerdictStore(judged.client, "m").of_version(2)
    printed = judged.said("2", "--json")
    assert msgspec.json.decode(printed, type=Verdict) == stored
    path = judged.folder / "verdict.json"
    assert judged.said("2", "--json", "--out", str(path)) == f"verdict {OLDER} is in {path}: promote\n"
    assert path.read_text(encoding="utf-8") == printed
    assert json.loads(judged.said("--json"))["id"] == NEWER


def test_a_model_without_a_verdict_says_how_to_get_one(desk: Desk) -> None:
    """Nothing is written; the cure is a request."""
    found = desk.error("--out", str(desk.folder / "verdict.html"))
    assert isinstance(found, VersionError)
    assert found.message == "model 'm' has no verdict yet"
    assert "killick retrain" in found.cure
    assert not (desk.folder / "verdict.html").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("7", "model 'm' has no version 7"),
        ("1", "version 1 of model 'm' has no verdict: ann registered it (seed 0)"),
        ("nosuch", "model 'm' has no verdict 'nosuch'"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(judged: Desk, asked: str, message: str) -> None:
    """No such version, a version that was fitted, no such id: each has its own words, and names the newest verdicts."""
    found = judged.error(asked, "--json")
    assert isinstance(found, VersionError)
    assert found.message == message
    assert f"{NEWER}, {OLDER} (version 2)" in found.cure


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--out", "verdict.json"], "add --json"),
        (["--out", "verdict.html", "--json"], "leave --json out"),
        (["--out", "verdict.pdf"], "name it so: --out verdict.html"),
        (["--out", "verdict", "--json"], "name it so: --out verdict.json"),
    ],
)
def test_a_file_has_the_suffix_of_what_is_in_it(judged: Desk, words: list[str], cure: str) -> None:
    """A page is no JSON and no terminal's; it is said before anything is read or written."""
    found = judged.error("2", *words)
    assert isinstance(found, ConfigError)
    assert found.cure == cure


def test_a_file_that_cant_be_written_is_named(judged: Desk) -> None:
    """A folder that is not there: the path and the reason are said."""
    path = judged.folder / "no" / "verdict.html"
    found = judged.error("2", "--out", str(path))
    assert isinstance(found, ConfigError)
    assert found.message == f"--out '{path}' can't be written (there is no folder '{path.parent}')"
    assert found.cure == "make it, or name another place"


def test_exit_codes_are_those_of_every_command(judged: Desk) -> None:
    """0 done, 1 not there, 2 wrong words or a place that is not there, 3 no Redis."""
    page = str(judged.folder / "verdict.html")

    def code(*words: str) -> int:
        return cli.run(judged.words(*words), io.StringIO())

    assert code("2", "--out", page) == 0
    assert code("7", "--out", page) == 1
    assert code("2", "--out", str(judged.folder / "no" / "verdict.html")) == 2
    assert code("2", "--out", str(judged.folder / "verdict.pdf")) == 2
    assert code("2", "3", "--out", page) == 2
    judged.config.write_text(f'{CONFIG}[redis]\nurl = "redis://127.0.0.1:1"\n')
    assert code("2", "--out", page) == 3
