"""What a query of ours reads: its selectors, their matchers, ranges and the function around each.

This is no parser of PromQL (promtool is asked whether a query is valid); it relies on every selector having braces,
and `bare_names` finds those that have none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^{}]*)\}(?:\s*\[([^\]]+)\])?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_CALLER = re.compile(r"(\w+)\s*\(\s*(?:[\d.]+\s*,\s*)?$")
_LABELS = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_WORDS = {"and", "or", "unless", "offset", "bool", "inf", "nan"}


@dataclass(frozen=True)
class Selector:
    """One selector: its metric, (label, operator, value) of its matchers, its range and the function around it."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]
    range: str
    caller: str


def selectors(expr: str) -> list[Selector]:
    """The selectors of a query, in their order."""
    return [
        Selector(
            found[1],
            tuple((m[1], m[2], m[3]) for m in _MATCHER.finditer(found[2])),
            found[3] or "",
            caller[1] if (caller := _CALLER.search(expr[: found.start()])) else "",
        )
        for found in _SELECTOR.finditer(expr)
    ]


def grouped_labels(expr: str) -> set[str]:
    """The labels that a query groups or joins by."""
    return {label.strip() for found in _LABELS.finditer(expr) for label in found[2].split(",") if label.strip()}


def bare_names(expr: str) -> list[str]:
    """Metrics without braces: they would escape every look at selectors."""
    rest = _SELECTOR.sub(" ", expr)
    rest = _LABELS.sub(" ", rest)
    rest = re.sub(r"\boffset\s+\w+|\b\d[\w.]*", " ", rest)
    rest = re.sub(r"\b\w+\s*\(", "(", rest)
    return [word for word in re.findall(r"[a-zA-Z_:][\w:]*", rest) if word.lower() not in _WORDS]
