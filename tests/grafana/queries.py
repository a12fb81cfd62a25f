"""Every query of the dashboards, with its variables replaced: what Grafana would send to Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"
BUILT_IN = {"__rate_interval": "1m", "__interval": "15s", "__range": "1h"}
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_LABEL_VALUES = re.compile(r"label_values\((.+),\s*(\w+)\)")


class Located(NamedTuple):
    """A query and where it stands: file, panel, variable or annotation."""

    where: str
    expr: str


def dashboards() -> dict[str, Json]:
    """The committed dashboards by the name of their file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def all_queries(values: Mapping[str, str] | None = None) -> list[Located]:
    """Every query of every dashboard, over panels, variables (their selector) and annotations.

    Variables have their first value, `All` is its regular expression; `values` gives others, and the model's name.
    """
    return [
        Located(f"{name}: {where}", expr)
        for name, page in dashboards().items()
        for where, expr in queries_of(page, values or {})
    ]


def queries_of(page: Json, values: Mapping[str, str]) -> Iterator[Located]:
    """The queries of one dashboard."""
    chosen = BUILT_IN | {v["name"]: first_value(v) for v in page["templating"]["list"]} | dict(values)
    for where, expr in written_queries(page):
        asked = _LABEL_VALUES.fullmatch(expr)
        yield Located(where, replaced(asked[1] if asked else expr, chosen))


def written_queries(page: Json) -> Iterator[Located]:
    """The queries as the file has them, variables and all."""
    for panel in panels_of(page):
        for target in panel.get("targets", ()):
            yield Located(f"panel {panel['title']!r} {target['refId']}", target["expr"])
    for variable in page["templating"]["list"]:
        if variable["type"] == "query":
            yield Located(f"variable {variable['name']}", variable["query"]["query"])
    for mark in page["annotations"]["list"]:
        if not mark.get("builtIn"):
            yield Located(f"annotation {mark['name']!r}", mark["target"]["expr"])


def panels_of(page: Json) -> list[Json]:
    """The panels without the headings of rows."""
    return [panel for panel in page["panels"] if panel["type"] != "row"]


def first_value(variable: Json) -> str:
    """What a variable stands for when the dashboard opens; `demo` for the model, which Grafana asks for."""
    value = variable.get("current", {}).get("value", "demo")
    return str(variable["allValue"] if value == ["$__all"] else value)


def replaced(text: str, values: Mapping[str, str]) -> str:
    """The text with its variables replaced.

    Raises:
        KeyError: a variable that the dashboard does not have.
    """
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], text)
