"""The README says what is there."""

from __future__ import annotations

import re
from pathlib import Path

from worker import cli, settings_text
from worker.settings import keys

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    """Every setting stands in the README with its default and its meaning, as the code has them."""
    assert settings_text.with_tables(README) == README, "run `python -m worker.settings_text README.md`"
    for key in keys():
        assert f"| `{key.partition('.')[2]}` |" in README


def test_every_command_is_named_and_no_other() -> None:
    """The table of commands has a line for each command there is, and for no other."""
    named = set(re.findall(r"^\| `killick (\w+)", README, flags=re.MULTILINE))
    assert named == set(cli.COMMANDS)


def test_links_lead_somewhere() -> None:
    """Every link to a file of the repository leads to one."""
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
