"""What the pictures of all pages are made of: lines, marks, boxes and frames of plotly, as plain data.

Colours of text, axes and grid are the page's, which follows dark and light; those given here are seen on both.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from models.audit import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Figure = dict[str, Any]

PALETTE = ("#3b7dd8", "#d9822b", "#2f9e6e", "#9a63c9", "#c94f4f", "#3aa6b9")
HIGH, LOW = 380, 250  # px
FAR = 0.4  # a line so many spans of the rest away from it is not drawn
PERCENTILES = (5, 25, 50, 75, 95)


def line(
    x: Sequence[object], y: Sequence[object], name: str, color: str, dash: str, *, width: float = 2, hover: str = ""
) -> Figure:
    """A line with its name in the legend; `hover` is what a point says, its y otherwise."""
    shown = hover or "%{y:.4g}"
    return {
        "type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "name": safe(name),
        "line": {"color": color, "width": width, "dash": dash},
        "hovertemplate": f"%{{fullData.name}}<br>{shown}<extra></extra>",
    }  # fmt: skip


def marks(x: Sequence[object], y: Sequence[object], marker: Figure, words: str) -> Figure:
    """Marks without a line and without a place in the legend."""
    return {
        "type": "scatter", "mode": "markers", "x": list(x), "y": list(y), "marker": marker, "showlegend": False,
        "hovertemplate": f"{words}: %{{y:.4g}}<extra></extra>",
    }  # fmt: skip


def spread(values: Iterable[float]) -> dict[str, float]:
    """Mean and percentiles of what several seeds came to; empty where there was but one."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 2:
        return {}
    found = dict(zip(PERCENTILES, np.percentile(known, PERCENTILES).tolist(), strict=True))
    return {"mean": float(np.mean(known)), **{f"p{at}": value for at, value in found.items()}}


def box(at: float, found: Mapping[str, float], color: str, name: str) -> Figure:
    """The box plot of a `spread`."""
    stats = {"lowerfence": "p5", "q1": "p25", "median": "p50", "q3": "p75", "upperfence": "p95", "mean": "mean"}
    return {
        "type": "box", "x": [at], **{key: [found[name]] for key, name in stats.items()}, "width": 0.45,
        "boxmean": True, "name": safe(name), "showlegend": False, "line": {"color": color, "width": 1.5},
        "fillcolor": faint(color, 0.2), "hoverinfo": "y+name",
    }  # fmt: skip


def framed(traces: list[Figure], height: int, *, x: Figure, y: Figure, legend: bool = True) -> Figure:
    """A whole figure, `height` px high."""
    axis = {"automargin": True, "zeroline": False, "fixedrange": True}
    layout = {
        "height": height, "autosize": True, "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"size": 12}, "dragmode": False,
        "xaxis": {**axis, **x}, "yaxis": {**axis, **y}, "showlegend": legend,
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def span_of(values: Iterable[float | None]) -> list[float]:
    """The ends of an axis that shows all values with some room."""
    known = [value for value in values if value is not None and math.isfinite(value)] or [0.0, 1.0]
    room = 0.08 * (max(known) - min(known)) or abs(known[0]) * 0.05 or 1.0
    return [min(known) - room, max(known) + room]


def faint(color: str, share: float) -> str:
    """The colour, so much of it."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"


def safe(text: str) -> str:
    """A name that plotly, which reads some HTML, shows as it is."""
    return html.escape(printable(text))


def finite(value: float | None) -> float | None:
    """The number; None where it is none."""
    return value if value is not None and math.isfinite(value) else None


def listed(values: Iterable[float | None]) -> list[float | None]:
    """The numbers, with None where there is none."""
    return [finite(value) for value in values]
