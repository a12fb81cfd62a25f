"""What a PromQL expression of our rules and runbooks reads, and by which labels.

No parser: promtool says whether an expression is valid. This takes a valid one apart into names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_SPANS = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NUMBERS = re.compile(r"(?<![\w:])[\d.]+(?:[eE][+-]?\d+)?\b")
_FUNCTIONS = re.compile(r"\b\w+\s*(?=\()")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?")
_WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}


@dataclass
class Read:
    """The metrics of an expression with the labels of their matchers, and the labels that it groups or joins by."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def read(expr: str) -> Read:
    """What an expression reads."""
    rest = _SPANS.sub(" ", _TEXT.sub('""', re.sub(r"#.*", "", expr)))
    found = Read(grouped={label for part in _LISTS.findall(rest) for label in re.findall(r"\w+", part)})
    rest = _FUNCTIONS.sub(" ", _NUMBERS.sub(" ", _LISTS.sub(" ", rest)))
    for name, matchers in _SELECTOR.findall(rest):
        if name not in _WORDS:
            found.metrics.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]", matchers))
    return found


def unknown(expr: str, known: dict[str, frozenset[str]]) -> list[str]:
    """Metrics and labels of an expression that nobody exports: what they are, in words."""
    found = read(expr)
    labels: set[str] = set().union(*(known.get(name, frozenset()) for name in found.metrics))
    return [
        *(f"metric {name}" for name in found.metrics if name not in known),
        *(
            f"label {label} of {name}"
            for name, asked in found.metrics.items()
            for label in sorted(asked - known.get(name, frozenset(asked)))
        ),
        *(f"label {label}" for label in sorted(found.grouped - labels)),
    ]
