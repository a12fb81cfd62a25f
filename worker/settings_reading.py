"""The reading of settings: once, from killick.toml and the environment, refused when unknown or impossible.

The environment (`KILLICK_SECTION__NAME`) wins over the file, the file over the defaults. This is the
only module that reads the environment.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import ValidationError

from models.errors import ConfigError
from worker import contradictions
from worker.settings import SECRETS, Settings, keys, sections

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_FILE = "killick.toml"
PREFIX = "KILLICK_"
OTHER_VARIABLES = ("KILLICK_CONFIG", "KILLICK_REQUIRE_SERVICES")

Origin = Literal["default", "file", "environment"]


@dataclass(frozen=True)
class Loaded:
    """Settings with where each came from: `origins["model.horizon"]` is default, file or environment."""

    settings: Settings
    origins: Mapping[str, Origin]
    path: Path | None


def variable(key: str) -> str:
    """The environment's name of the setting "section.name"."""
    return PREFIX + key.replace(".", "__").upper()


def environment_without_settings() -> dict[str, str]:
    """The environment for a process of ours that must see no setting but those of its file."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}


def environment_with(values: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process of ours that is given some settings, by "section.name", besides."""
    return {**os.environ, **{variable(key): value for key, value in values.items()}}


def load(path: str | Path | None = None, *, environment: bool = True) -> Loaded:
    """The settings of the file and the environment (of the file alone, if `environment` is false).

    `path` None means ./killick.toml if it is there, else the defaults.

    Raises:
        ConfigError: no such file, not TOML, a key that is not known, or a value that can't be.
    """
    chosen = _choose(path)
    content = _read_toml(chosen) if chosen else {}
    from_environment = {
        name.upper(): value for name, value in os.environ.items() if environment and name.upper().startswith(PREFIX)
    }
    problems = [*_unknown_in_file(content), *_secrets_in_file(content), *_unknown_variables(from_environment)]
    _refuse(problems, chosen)
    origins = {key: _origin(key, content, from_environment) for key in keys()}
    try:
        settings = Settings.model_validate(_merged(content, from_environment))
    except ValidationError as error:
        _refuse(_impossible(error, origins), chosen)
        raise
    _refuse(list(_contradictions(settings)), chosen)
    return Loaded(settings, origins, chosen)


def _choose(path: str | Path | None) -> Path | None:
    if path is not None:
        return Path(path)
    here = Path(DEFAULT_FILE)
    return here if here.exists() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"settings file {str(path)!r} can't be read ({error.strerror})",
            "`killick config init` writes one",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"settings file {str(path)!r} is not TOML: {error}", "text stands in double quotes"
        ) from error


def _refuse(problems: list[str], path: Path | None) -> None:
    """Raises one ConfigError that lists the problems, if there are any."""
    if not problems:
        return
    where = f"settings ({path} and environment)" if path else "settings (environment; no file)"
    listed = "".join(f"\n  {problem}" for problem in problems)
    raise ConfigError(f"{where} can't be used, {len(problems)} to repair:{listed}")


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _unknown_in_file(content: Mapping[str, Any]) -> Iterator[str]:
    known = sections()
    for section, entries in content.items():
        if section not in known:
            owners = [key for key in keys() if key.endswith(f".{section}")]
            cure = f"it belongs under a heading: {' or '.join(owners)}" if owners else _nearest(section, tuple(known))
            yield f"{section!r} is not a section: {cure}"
        elif not isinstance(entries, dict):
            yield f"{section!r} is a section, not a value: write [{section}] on a line and its settings below"
        else:
            for name in set(entries) - set(known[section].model_fields):
                nearest = _nearest(f"{section}.{name}", tuple(key for key in keys() if key.startswith(f"{section}.")))
                yield f"{section}.{name} is not a setting: {nearest}"


def _secrets_in_file(content: Mapping[str, Any]) -> Iterator[str]:
    for key in SECRETS:
        if _lookup(content, key) is not None:
            yield f"{key} stands in the file: set {variable(key)} or {key}_file instead"
    url = _lookup(content, "redis.url")
    if isinstance(url, str) and password_of(url):
        yield f"redis.url holds a password in the file: set {variable('redis.password')} instead"


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    known = (*(variable(key) for key in keys()), *OTHER_VARIABLES)
    for name in environment:
        if name not in known:
            yield f"environment variable {name} is not a setting: {_nearest(name, known)}"


def _merged(content: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What the file gives, by section, with what the environment gives in its place."""
    merged = {section: dict(entries) for section, entries in content.items()}
    for key in keys():
        if variable(key) in environment:
            section, name = key.split(".")
            merged.setdefault(section, {})[name] = environment[variable(key)]
    return merged


def _lookup(content: Mapping[str, Any], key: str) -> object:
    section, name = key.split(".")
    entries = content.get(section)
    return entries.get(name) if isinstance(entries, dict) else None


def _origin(key: str, content: Mapping[str, Any], environment: Mapping[str, str]) -> Origin:
    if variable(key) in environment:
        return "environment"
    return "default" if _lookup(content, key) is None else "file"


def _impossible(error: ValidationError, origins: Mapping[str, Origin]) -> list[str]:
    """One line for each value that can't be: subject, value, limit and what the setting is."""
    lines = []
    problems = error.errors(include_url=False)
    inside = {problem["loc"][:2] for problem in problems if len(problem["loc"]) > 2}
    for problem in problems:
        if problem["type"] == "too_short" and problem["loc"] in inside:
            continue  # what is wrong inside of it is said already
        key = ".".join(str(part) for part in problem["loc"][:2])
        section, _, name = key.partition(".")
        about = sections()[section].model_fields[name].description if name else ""
        value = "***" if key in SECRETS else masked(repr(problem["input"]))
        named = variable(key) if origins.get(key) == "environment" else key
        limit = (
            problem["msg"].removeprefix("Value error, ").replace("Input should", "should").replace("Tuple", "the list")
        )
        lines.append(f"{named} = {value}: {limit} ({about})")
    return list(dict.fromkeys(lines))


def _contradictions(settings: Settings) -> Iterator[str]:
    """Values that are possible alone and not together."""
    yield from contradictions.of_model(settings.model)
    yield from contradictions.of_network(
        settings.network, settings.period_steps, settings.ring_steps, settings.ring_steps_needed
    )
    yield from contradictions.of_services(settings.kafka, settings.redis)
    yield from contradictions.of_monitor(settings.monitor)
    yield from contradictions.of_training(settings.training)
    yield from contradictions.of_updating(settings.retraining, settings.judgement, settings.api)


def password_of(url: str) -> str | None:
    """The password inside a URL, None if there is none."""
    try:
        return urlsplit(url).password
    except ValueError:
        return None


def masked(text: str) -> str:
    """`text` with the password of a URL in it, if there is one, as ***."""
    return re.sub(r"(://[^/\s:@]*:)[^/\s]*@", r"\1***@", text)
