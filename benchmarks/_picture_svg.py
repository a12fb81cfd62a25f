"""Panels as SVG: hand-made, to look like what a dashboard shows; it is not Grafana's rendering."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks._picture_words import COLORS, color_of, limits, looked, palette, written

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks._picture_data import Asked, Series, Span
    from tests.grafana.queries import Json

COLUMN, LINE, GAP, HEAD = 62, 36, 8, 88  # px: of the grid, between panels, above them
WIDTH = 24 * COLUMN + 2 * GAP
LETTER = 6.3  # px, about, of a character in the small type
INK, SOFT, RULE, FACE = "#1f2933", "#6b7280", "#e5e7eb", "#ffffff"


@dataclass(frozen=True)
class Box:
    """A rectangle, px."""

    x: float
    y: float
    w: float
    h: float


def drawn(asked: Asked) -> tuple[str, int]:
    """The whole dashboard as SVG, and its height, px."""
    page = asked.page
    marks = asked.marks()
    height = HEAD + GAP + LINE * max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in page["panels"])
    shown = {name: value for name, value in asked.variables.items() if name not in {"datasource", "job", "instance"}}
    chosen = " · ".join(f"{name} {'all' if value == '.+' else value}" for name, value in shown.items())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="DejaVu Sans">',
        f'<rect width="{WIDTH}" height="{height}" fill="#f3f4f6"/>',
        _text(16, 32, page["title"], 20, weight="bold"),
        _text(16, 56, f"{chosen} · {_moment(asked.span.start)} to {_moment(asked.span.end)} UTC", 12, SOFT),
        _text(
            WIDTH - 16, 32, "drawn by benchmarks/pictures.py from Prometheus, not by Grafana", 11, SOFT, anchor="end"
        ),
        *_key(marks),
    ]
    for panel in page["panels"]:
        at = panel["gridPos"]
        box = Box(GAP + at["x"] * COLUMN, HEAD + at["y"] * LINE, at["w"] * COLUMN - GAP, at["h"] * LINE - GAP)
        if panel["type"] == "row":
            parts.append(_text(box.x + 4, box.y + 20, f"▾ {panel['title']}", 14, weight="bold"))
            continue
        frame = f'<rect x="{box.x}" y="{box.y}" width="{box.w}" height="{box.h}" rx="4" fill="{FACE}" stroke="{RULE}"/>'
        inner = Box(box.x + 12, box.y + 30, box.w - 24, box.h - 40)
        parts += [frame, _text(box.x + 12, box.y + 20, panel["title"], 13, weight="bold")]
        parts += _contents(panel, inner, asked, marks)
    return "\n".join([*parts, "</svg>"]), height


def _key(marks: list[tuple[float, str, str]]) -> list[str]:
    """What the dashed upright lines are, under the title, as far as there is room."""
    parts, x = [], 16.0
    for color, words in dict.fromkeys((color, words) for _, color, words in marks):
        width = LETTER * (len(words) + 5)
        if x + width < WIDTH:
            parts.append(_text(x, 76, f"┆ {words}", 11, COLORS[color]))
        x += width
    return parts


def _contents(panel: Json, box: Box, asked: Asked, marks: list[tuple[float, str, str]]) -> list[str]:
    match panel["type"]:
        case "alertlist":
            return _alerts(asked.alerts(), box)
        case "table":
            return _table(panel, box, *asked.rows(panel))
    series = asked.series(panel)
    shown = {
        "stat": lambda: _stats(panel, box, series),
        "bargauge": lambda: _bar_gauge(panel, box, series),
        "state-timeline": lambda: _states(panel, box, series, asked.span),
        "timeseries": lambda: _lines(panel, box, series, asked.span, marks),
    }
    none = panel["fieldConfig"]["defaults"].get("noValue", "No data")
    return shown[panel["type"]]() if series else _nothing(box, none)


def _nothing(box: Box, words: str) -> list[str]:
    return [_text(box.x + box.w / 2, box.y + box.h / 2, words, 15, SOFT, anchor="middle")]


def _stats(panel: Json, box: Box, series: list[Series]) -> list[str]:
    parts, width = [], box.w / len(series)
    for index, one in enumerate(series):
        look, middle = looked(panel, one.name), box.x + width * (index + 0.5)
        name_only = panel["options"]["textMode"] == "name"
        value = one.name if name_only else written(look, one.last)
        if panel["options"]["graphMode"] == "area" and len(one.points) > 1:
            parts.append(_spark(one, Box(box.x + width * index, box.y + box.h * 0.62, width, box.h * 0.38), look))
        size = min(34.0, width / (0.66 * max(3, len(value))), box.h * 0.5)
        label = not name_only and (len(series) > 1 or "{{" in panel["targets"][0]["legendFormat"])
        parts.append(
            _text(middle, box.y + box.h * 0.48 + size * 0.2, value, size, color_of(look, one.last), "middle", "bold")
        )
        if label:
            parts.append(_text(middle, box.y + box.h * 0.48 + size * 0.2 + 18, one.name, 11, SOFT, "middle"))
    return parts


def _spark(one: Series, box: Box, look: Json) -> str:
    low, high = min(v for _, v in one.points), max(v for _, v in one.points)
    first, last = one.points[0][0], one.points[-1][0]
    at = [
        (box.x + (t - first) / (last - first) * box.w, box.y + box.h - (v - low) / ((high - low) or 1) * box.h * 0.9)
        for t, v in one.points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    shape = f"{box.x},{box.y + box.h} {line} {box.x + box.w},{box.y + box.h}"
    return f'<polygon points="{shape}" fill="{color_of(look, one.last)}" fill-opacity=".13"/>'


def _bar_gauge(panel: Json, box: Box, series: list[Series]) -> list[str]:
    parts, look = [], looked(panel, "")
    most = max([one.last for one in series] + [0.0]) or 1.0
    named = min(180.0, LETTER * max(len(one.name) for one in series) + 12)
    height = min(44.0, box.h / len(series))
    for index, one in enumerate(series):
        y = box.y + index * height
        room = box.w - named - 80
        parts += [
            _text(box.x, y + height * 0.6, one.name, 12),
            _rect(Box(box.x + named, y + height * 0.15, room, height * 0.7), RULE, 0.5),
            _rect(
                Box(box.x + named, y + height * 0.15, room * max(0.0, one.last) / most, height * 0.7),
                color_of(look, one.last),
                0.8,
            ),
            _text(
                box.x + box.w, y + height * 0.6, written(look, one.last), 13, color_of(look, one.last), "end", "bold"
            ),
        ]
    return parts


def _table(panel: Json, box: Box, headings: list[str], rows: list[list[str | float | None]]) -> list[str]:
    if not rows:
        return _nothing(box, "No data")
    colored = panel["fieldConfig"]["defaults"]["custom"]["cellOptions"]["type"] == "color-text"
    width, height = box.w / len(headings), min(26.0, box.h / (len(rows) + 1))
    parts = [
        _text(box.x + width * i + 4, box.y + height * 0.7, name, 12, SOFT, weight="bold")
        for i, name in enumerate(headings)
    ]
    for index, row in enumerate(rows):
        y = box.y + height * (index + 1)
        parts.append(_line(box.x, y, box.x + box.w, y, RULE))
        for column, value in enumerate(row):
            look = looked(panel, headings[column])
            words = value if isinstance(value, str) else "" if value is None else written(look, value)
            color = color_of(look, value) if colored and isinstance(value, float) else INK
            parts.append(_text(box.x + width * column + 4, y + height * 0.7, words, 12, color))
    return parts


def _alerts(alerts: list[Json], box: Box) -> list[str]:
    if not alerts:
        return _nothing(box, "No alerts")
    parts = []
    for index, one in enumerate(alerts[: int(box.h // 42)]):
        y = box.y + 42 * index
        color = COLORS["red" if one["state"] == "firing" else "yellow"]
        parts += [
            _rect(Box(box.x, y, 4, 34), color, 1),
            _text(box.x + 12, y + 14, f"{one['labels']['alertname']} · {one['state']}", 12, color, weight="bold"),
            _text(box.x + 12, y + 30, one["annotations"].get("summary", "")[: int(box.w / LETTER) - 2], 11, SOFT),
        ]
    return parts


def _states(panel: Json, box: Box, series: list[Series], span: Span) -> list[str]:
    look = looked(panel, "")
    named = min(box.w * 0.34, LETTER * max(len(one.name) for one in series) + 14)
    plot = Box(box.x + named, box.y, box.w - named, box.h - 20)
    height = min(46.0, plot.h / len(series))
    parts = _time_axis(plot, span)
    for index, one in enumerate(series):
        y = plot.y + height * index
        parts.append(_text(box.x, y + height * 0.6, one.name, 11))
        for begun, ended, value in _stretches(one, span):
            x, end = (plot.x + (t - span.start) / (span.end - span.start) * plot.w for t in (begun, ended))
            parts.append(_rect(Box(x, y + height * 0.12, end - x, height * 0.76), color_of(look, value), 0.75))
            words = written(look, value)
            if end - x > LETTER * len(words) + 8:
                parts.append(_text(x + 6, y + height * 0.6, words, 11, FACE))
    return parts


def _stretches(one: Series, span: Span) -> list[tuple[float, float, float]]:
    """The stretches of one value: from, to, value; points too far apart have a gap between them."""
    found: list[tuple[float, float, float]] = []
    for at, value in one.points:
        if found and found[-1][2] == value and at - found[-1][1] <= 0.5 * span.step:
            found[-1] = (found[-1][0], at + span.step, value)
        else:
            found.append((at, at + span.step, value))
    return [(begun, min(ended, span.end), value) for begun, ended, value in found]


@dataclass(frozen=True)
class Scale:
    """Where times and values lie in a plot."""

    plot: Box
    span: Span
    low: float
    high: float

    def x(self, at: float) -> float:
        """The place of a time."""
        return self.plot.x + (at - self.span.start) / (self.span.end - self.span.start) * self.plot.w

    def y(self, value: float) -> float:
        """The place of a value."""
        return self.plot.y + self.plot.h - (value - self.low) / (self.high - self.low) * self.plot.h


def _lines(panel: Json, box: Box, series: list[Series], span: Span, marks: list[tuple[float, str, str]]) -> list[str]:
    custom, look = panel["fieldConfig"]["defaults"]["custom"], looked(panel, "")
    colors = palette([one.name for one in series])
    legend, lines = _legend(panel, box, colors)
    plot = Box(box.x + 58, box.y + 4, box.w - 62, box.h - 26 - 18 * lines)
    stacked = custom["stacking"]["mode"] == "normal"
    levels = _stacked(series) if stacked else [[(t, 0.0, v) for t, v in one.points] for one in series]
    shown_limits = limits(look) if custom["thresholdsStyle"]["mode"] != "off" else []
    values = [v for level in levels for _, _, v in level] + [v for v, _ in shown_limits]
    floor = [0.0] if custom["drawStyle"] == "bars" or look.get("min") == 0 else []
    low, high, ticks = _axis([*values, *floor])
    at = Scale(plot, span, low, high)
    parts = _time_axis(plot, span)
    for tick in ticks:
        parts.append(_line(plot.x, at.y(tick), plot.x + plot.w, at.y(tick), RULE))
        parts.append(_text(plot.x - 6, at.y(tick) + 4, written({**look, "decimals": None}, tick), 11, SOFT, "end"))
    for moment, color, _ in marks:
        parts.append(_line(at.x(moment), plot.y, at.x(moment), plot.y + plot.h, COLORS[color], "3 3"))
    for value, color in shown_limits:
        parts.append(_line(plot.x, at.y(value), plot.x + plot.w, at.y(value), color, "8 6"))
    for one, level in zip(series, levels, strict=True):
        color, dash = colors[one.name], "8 6" if _is_dashed(panel, one.name) else ""
        if custom["drawStyle"] == "bars":
            parts += _bars(level, at, color)
        else:
            parts += _curve(level, at, color, dash, filled=bool(custom["fillOpacity"]))
    return parts + legend


def _bars(level: list[tuple[float, float, float]], at: Scale, color: str) -> list[str]:
    width = max(2.0, at.plot.w * at.span.step / (at.span.end - at.span.start) * 0.8)
    return [
        _rect(Box(at.x(t) - width, at.y(top), width, at.y(base) - at.y(top)), color, 0.7)
        for t, base, top in level
        if top > base
    ]


def _curve(level: list[tuple[float, float, float]], at: Scale, color: str, dash: str, *, filled: bool) -> list[str]:
    parts = []
    for stretch in _unbroken(level, at.span.step):
        path = " ".join(f"{at.x(t):.1f},{at.y(top):.1f}" for t, _, top in stretch)
        if filled:
            floor = " ".join(f"{at.x(t):.1f},{at.y(base):.1f}" for t, base, _ in reversed(stretch))
            parts.append(f'<polygon points="{path} {floor}" fill="{color}" fill-opacity=".2"/>')
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"{dashes}/>')
    return parts


def _is_dashed(panel: Json, name: str) -> bool:
    return any(
        one["matcher"]["id"] == "byRegexp" and re.fullmatch(one["matcher"]["options"], name)
        for one in panel["fieldConfig"]["overrides"]
    )


def _stacked(series: list[Series]) -> list[list[tuple[float, float, float]]]:
    """Each series upon those before it: (time, floor, top)."""
    tops: dict[float, float] = {}
    levels = []
    for one in series:
        level = [(t, tops.get(t, 0.0), tops.get(t, 0.0) + v) for t, v in one.points]
        tops |= {t: top for t, _, top in level}
        levels.append(level)
    return levels


def _unbroken(level: list[tuple[float, float, float]], step: float) -> list[list[tuple[float, float, float]]]:
    parts = [level[:1]] if level else []
    for before, point in pairwise(level):
        if point[0] - before[0] > 1.5 * step:
            parts.append([])
        parts[-1].append(point)
    return parts


def _axis(values: Iterable[float]) -> tuple[float, float, list[float]]:
    """The least and most of an axis, and its round ticks."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = min(0.0, low), max(high, low + 1.0)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return low, high, [low + i * step for i in range(round((high - low) / step) + 1)]


def _time_axis(plot: Box, span: Span) -> list[str]:
    count = max(2, int(plot.w // 110))
    parts = []
    for index in range(count):
        at = span.start + (span.end - span.start) * (index + 0.5) / count
        x = plot.x + (at - span.start) / (span.end - span.start) * plot.w
        parts.append(_line(x, plot.y, x, plot.y + plot.h, RULE))
        parts.append(_text(x, plot.y + plot.h + 15, _clock(at, span), 11, SOFT, "middle"))
    return parts


def _clock(at: float, span: Span) -> str:
    length = span.end - span.start
    form = "%H:%M:%S" if length < 1_800 else "%H:%M" if length < 2 * 86_400 else "%m-%d"
    return datetime.fromtimestamp(at, UTC).strftime(form)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _legend(panel: Json, box: Box, colors: dict[str, str]) -> tuple[list[str], int]:
    """The legend's marks and names at the foot of a panel, and how many lines they take."""
    places, x, line = [], 0.0, 0
    for name in colors:
        width = LETTER * len(name) + 30
        if x and x + width > box.w:
            x, line = 0.0, line + 1
        places.append((name, x, line))
        x += width
    parts = []
    for name, left, at in places:
        y = box.y + box.h - 18 * (line - at) - 2
        if _is_dashed(panel, name):
            parts.append(_line(box.x + left, y - 4, box.x + left + 14, y - 4, colors[name], "4 3"))
        else:
            parts.append(_rect(Box(box.x + left, y - 6, 14, 4), colors[name], 1))
        parts.append(_text(box.x + left + 19, y, name, 11))
    return parts, line + 1


def _rect(box: Box, color: str, opacity: float) -> str:
    size = f'width="{max(0.0, box.w):.1f}" height="{max(0.0, box.h):.1f}"'
    return f'<rect x="{box.x:.1f}" y="{box.y:.1f}" {size} fill="{color}" fill-opacity="{opacity}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, dash: str = "") -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    dashes = f' stroke-width="1.4" stroke-dasharray="{dash}"' if dash else ""
    return f'<line {place} stroke="{color}"{dashes}/>'


def _text(
    x: float, y: float, words: str, size: float, color: str = INK, anchor: str = "start", weight: str = "normal"
) -> str:
    place = (
        f'x="{x:.1f}" y="{y:.1f}" font-size="{size:.0f}" fill="{color}" text-anchor="{anchor}" font-weight="{weight}"'
    )
    return f"<text {place}>{escape(words)}</text>"
