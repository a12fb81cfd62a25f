"""The settings as text: a commented file, what is in force and why, the table of the README."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from worker.durations import Duration
from worker.settings import SECRETS, sections
from worker.settings_reading import Loaded, masked, variable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.sections import Section

_HEAD = """\
# Settings of one killick model. Every setting can also be given in the environment, which wins:
# KILLICK_SECTION__NAME, for example KILLICK_MODEL__HORIZON=48.
# Lengths of time are text with a unit: "500ms", "45s", "15min", "1h", "7d".
"""


def toml_value(value: object) -> str:
    """One setting's value as TOML writes it; secrets and passwords inside URLs as ***."""
    if isinstance(value, SecretStr):
        return '"***"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, str | Duration):
        return json.dumps(masked(str(value)), ensure_ascii=False)
    return repr(value)


def fresh_file() -> str:
    """A killick.toml of the defaults, each setting with its line of documentation."""
    lines = [_HEAD]
    for section, kind in sections().items():
        lines.append(f"\n# {kind.about}\n[{section}]\n")
        for name, field in kind.model_fields.items():
            lines.append(f"# {field.description}\n")
            key = f"{section}.{name}"
            lines.append(f"# {variable(key)}=…\n" if key in SECRETS else f"{name} = {toml_value(field.default)}\n")
    return "".join(lines)


def in_force(loaded: Loaded) -> str:
    """The settings in force as TOML; each line ends with where its value came from."""
    lines: list[str] = []
    for section, name, value in _values(loaded):
        if not lines or f"[{section}]" not in lines:
            lines.append(f"[{section}]")
        origin = loaded.origins[f"{section}.{name}"]
        lines.append(f"{name} = {toml_value(value)}  # {origin}" if value is not None else f"# {name} is not set")
    settings = loaded.settings
    derived = (
        f"# derived: consumer group {settings.kafka_group}; a period of {settings.period_steps}, "
        f"gaps of up to {settings.max_gap_steps} bridged, {settings.ring_steps} kept for each series"
    )
    return "\n".join([*lines, derived])


def in_force_rows(loaded: Loaded) -> list[dict[str, Any]]:
    """The settings in force, one row each: setting, value, origin and variable."""
    rows = []
    for section, name, value in _values(loaded):
        key = f"{section}.{name}"
        rows.append({"setting": key, "value": _plain(value), "origin": loaded.origins[key], "variable": variable(key)})
    return rows


def _plain(value: object) -> object:
    """One setting's value as JSON has it; secrets and passwords inside URLs as ***."""
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return masked(str(value)) if isinstance(value, str | Duration) else value


def markdown_tables() -> str:
    """Every setting with its default and its meaning: one table for each section, as in the README."""
    parts = []
    for section, kind in sections().items():
        head = "| setting | default | meaning |\n|---|---|---|"
        parts.append(f"**`[{section}]`** {kind.about}\n\n{head}")
        for name, field in kind.model_fields.items():
            default = "" if field.default is None else f"`{toml_value(field.default)}`"
            parts[-1] += f"\n| `{name}` | {default} | {_cell(field.description or '')} |"
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _values(loaded: Loaded) -> Iterator[tuple[str, str, object]]:
    for section in sections():
        held: Section = getattr(loaded.settings, section)
        for name in type(held).model_fields:
            yield section, name, getattr(held, name)


def with_tables(text: str) -> str:
    """A document with the tables of all settings between its marks `settings: begin` and `settings: end`."""
    before, begin, rest = text.partition("<!-- settings: begin")
    mark, arrow, behind = rest.partition("-->\n")
    _, end, after = behind.partition("<!-- settings: end")
    return f"{before}{begin}{mark}{arrow}\n{markdown_tables()}\n\n{end}{after}"


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(with_tables(document.read_text(encoding="utf-8")), encoding="utf-8")
