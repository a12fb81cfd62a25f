"""One picture of a run of `benchmarks.story`: skill over time, with and without updating, and who answered, as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH, HEIGHT = 960, 470  # px
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 66, 118
BAND, BAND_HEIGHT = HEIGHT - 92, 18  # who answered
MARKS = HEIGHT - 54  # verdicts
INK, SOFT, RULE = "#1f2933", "#6b7280", "#e5e7eb"
OURS, FROZEN = "#1d4ed8", "#9a6b00"
VERSIONS = ("#cbd5e1", "#93c5fd", "#a7f3d0", "#fde68a", "#fbcfe8", "#c4b5fd")
OUTCOMES = {"promote": "#1a7f37", "reject": "#b91c1c", "inconclusive": "#9ca3af", "failed": "#111827"}
LOWEST = -1.0  # skill that is shown, at least


class Scale:
    """Where times and skills are, in pixels."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.begin, self.end = pd.Timestamp(found["since"]), pd.Timestamp(found["until"])
        skills = [week[who] for week in found["weeks"] for who in ("killick", "frozen") if week[who] == week[who]]
        self.low: float = max(LOWEST, min(0.0, *skills) - 0.05)
        self.high: float = max(0.1, *skills) + 0.05

    def x(self, time: str | pd.Timestamp) -> float:
        """Of a time; those outside are at the edge."""
        gone = (pd.Timestamp(time) - self.begin).total_seconds() / (self.end - self.begin).total_seconds()
        return float(LEFT + min(max(gone, 0.0), 1.0) * (WIDTH - LEFT - RIGHT))

    def y(self, skill: float) -> float:
        """Of a skill."""
        share = (max(skill, self.low) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def picture(found: dict[str, Any]) -> str:
    """The picture of one data set."""
    scale = Scale(found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="DejaVu Sans">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 24, found["title"], 15, INK),
        _text(LEFT, 44, "skill against persistence over the last four weeks, all leads", 11, SOFT),
        *_key(),
        *_grid(scale),
        *_promotions(found, scale),
        *_curves(found, scale),
        *_band(found, scale),
        *_verdicts(found, scale),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _key() -> Iterator[str]:
    x = WIDTH - RIGHT - 330
    for words, color, dash in (("with Killick", OURS, ""), ("version 1, never updated", FROZEN, "6 4")):
        yield _line(x, 40, x + 26, 40, color, dash, 2.5)
        yield _text(x + 32, 44, words, 12, INK)
        x += 140


def _grid(scale: Scale) -> Iterator[str]:
    tick = round(scale.low * 5) / 5
    while tick <= scale.high:
        if tick >= scale.low:
            color = SOFT if abs(tick) < 1e-9 else RULE
            yield _line(LEFT, scale.y(tick), WIDTH - RIGHT, scale.y(tick), color)
            yield _text(LEFT - 8, scale.y(tick) + 4, f"{tick:+.1f}" if abs(tick) > 1e-9 else "0", 11, SOFT, "end")
        tick += 0.2
    months = pd.date_range(scale.begin.normalize(), scale.end, freq="MS")
    every = max(1, -(-len(months) // 11))
    for month in months[::every]:
        yield _line(scale.x(month), TOP, scale.x(month), BAND + BAND_HEIGHT, RULE)
        yield _text(scale.x(month), BAND - 6, month.strftime("%b %Y"), 10, SOFT, "middle")


def _curves(found: dict[str, Any], scale: Scale) -> Iterator[str]:
    for who, color, style in (("killick", OURS, '2.5"'), ("frozen", FROZEN, '1.8" stroke-dasharray="6 4"')):
        known = [week for week in found["weeks"] if week[who] == week[who]]
        points = " ".join(f"{scale.x(week['time']):.1f},{scale.y(week[who]):.1f}" for week in known)
        yield f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{style}/>'


def _promotions(found: dict[str, Any], scale: Scale) -> Iterator[str]:
    for event in found["events"]:
        if event["kind"] in {"promote", "rollback"}:
            x = scale.x(event["time"])
            yield _line(x, TOP, x, BAND + BAND_HEIGHT, "#1a7f37" if event["kind"] == "promote" else "#b91c1c", "2 3")


def _band(found: dict[str, Any], scale: Scale) -> Iterator[str]:
    """Which version answered when."""
    yield _text(LEFT - 8, BAND + 13, "answers", 11, SOFT, "end")
    answered = found["answering"]
    for (begin, version), (end, _) in zip(answered, [*answered[1:], (found["until"], 0)], strict=True):
        x, width = scale.x(begin), scale.x(end) - scale.x(begin)
        color = VERSIONS[(version - 1) % len(VERSIONS)]
        yield f'<rect x="{x:.1f}" y="{BAND}" width="{max(width, 1):.1f}" height="{BAND_HEIGHT}" fill="{color}"/>'
        if width > 20:
            yield _text(x + width / 2, BAND + 13, f"v{version}", 11, INK, "middle")


def _verdicts(found: dict[str, Any], scale: Scale) -> Iterator[str]:
    yield _text(LEFT - 8, MARKS + 4, "verdicts", 11, SOFT, "end")
    for event in found["events"]:
        if event["kind"] == "verdict":
            color = OUTCOMES[event["words"].partition(":")[0]]
            x = scale.x(event["time"])
            title = f"<title>{_safe(event['words'])}</title>"
            yield f'<circle cx="{x:.1f}" cy="{MARKS}" r="5" fill="{color}">{title}</circle>'
    x = float(LEFT)
    for outcome, color in OUTCOMES.items():
        yield f'<circle cx="{x + 5:.1f}" cy="{HEIGHT - 20}" r="5" fill="{color}"/>'
        yield _text(x + 15, HEIGHT - 16, outcome, 11, SOFT)
        x += 105
    for words, color in (("promotion", "#1a7f37"), ("rollback", "#b91c1c")):
        yield _line(x + 4, HEIGHT - 28, x + 4, HEIGHT - 12, color, "2 3")
        yield _text(x + 13, HEIGHT - 16, words, 11, SOFT)
        x += 105


def _line(x: float, y: float, to_x: float, to_y: float, color: str, dash: str = "", width: float = 1.0) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    place = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"'
    return f'<line {place} stroke="{color}" stroke-width="{width:g}"{dashes}/>'


def _text(x: float, y: float, words: str, size: int, color: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}"'
    return f'<text {place} fill="{color}" text-anchor="{anchor}">{_safe(words)}</text>'


def _safe(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
