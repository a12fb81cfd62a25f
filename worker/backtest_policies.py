"""Policies: on which occasions a backtest updates the version that answers."""

from __future__ import annotations

from typing import NamedTuple

from models.errors import ConfigError
from models.times import DAY_MS, WEEK_MS
from worker.durations import parse_duration

FORMS = "never, periodic:7d (or another length), on-drift, on-skill, always, control"
DEFAULT = ("never", "periodic:7d", "on-drift", "on-skill", "always")


class Policy(NamedTuple):
    """A policy by its name, and what it comes to."""

    name: str
    triggers: frozenset[str] = frozenset()  # whose requests are taken up; none: the first version answers for good
    every_ms: int = 0  # a request so often; 0: none because of time
    on_old: bool = False  # its updates look at nothing but what the first version was fitted on

    @property
    def updates(self) -> bool:
        """Whether anything is ever trained."""
        return bool(self.triggers)


def parse_policy(text: str) -> Policy:
    """The policy that somebody named; `always` is once a day, `control` once a week on old data alone.

    Raises:
        ConfigError: there is none of that name.
    """
    name, _, length = text.strip().partition(":")
    if name == "periodic" and length:
        every = parse_duration(length)
        if every.ms < DAY_MS:
            raise ConfigError(f"policy {text!r} updates more often than once a day", "name a length from 1d on")
        return Policy(f"periodic:{every}", frozenset({"schedule"}), every.ms)
    found = {
        "never": Policy("never"),
        "on-drift": Policy("on-drift", frozenset({"drift"})),
        "on-skill": Policy("on-skill", frozenset({"skill"})),
        "always": Policy("always", frozenset({"schedule"}), DAY_MS),
        "control": Policy("control", frozenset({"schedule"}), WEEK_MS, on_old=True),
    }.get(text.strip())
    if found is None:
        raise ConfigError(f"there is no policy {text!r}", f"use one of {FORMS}")
    return found
