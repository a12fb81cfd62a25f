"""How a panel's values are written and coloured: units, decimals, thresholds, words for values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.grafana.queries import Json

COLORS = {
    "red": "#d4372c", "dark-red": "#8f1d14", "orange": "#e57f0d", "yellow": "#c99700", "green": "#2f8f3c",
    "blue": "#2f6fc4", "text": "#6b7280", "transparent": "#9ca3af",
}  # fmt: skip
PALETTE = ("#2f6fc4", "#e57f0d", "#2f8f3c", "#a23bb5", "#d4372c", "#0f8f8f", "#8a6d1f", "#5b5bd6", "#c2307a", "#4d7c0f")
SCALES = {
    "short": ((1e9, "bn"), (1e6, "M"), (1e3, "k"), (1, "")),
    "cps": ((1e6, " M/s"), (1e3, " k/s"), (1, "/s")),
    "bytes": ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")),
    "s": ((86_400, " d"), (3_600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")),
}


def looked(panel: Json, name: str) -> Json:
    """The defaults of a panel's fields with the overrides for one of them."""
    config = panel["fieldConfig"]
    made = dict(config["defaults"])
    for one in config["overrides"]:
        if one["matcher"] == {"id": "byName", "options": name}:
            made |= {p["id"]: p["value"] for p in one["properties"] if not p["id"].startswith("custom.")}
    return made


def written(look: Json, value: float) -> str:
    """A value in its unit, or the word that stands for it."""
    for mapping in look.get("mappings", ()):
        if (word := mapping["options"].get(f"{value:g}")) is not None:
            return str(word["text"])
    unit, decimals = look["unit"], look.get("decimals")
    if unit == "dateTimeAsIso":
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    if unit == "percentunit":
        return f"{100 * value:.{decimals if decimals is not None else 1}f} %"
    if unit == "none":
        return f"{round(value, decimals) + 0.0:.{decimals}f}" if decimals is not None else f"{value:.3g}"
    return _scaled(value, SCALES.get(unit, ((1, ""),)), decimals)


def _scaled(value: float, scale: tuple[tuple[float, str], ...], decimals: int | None) -> str:
    size = abs(value)
    factor, suffix = next(((f, s) for f, s in scale if size >= f), scale[-1])
    if size == 0:
        factor, suffix = next((f, s) for f, s in scale if f == 1)
    number = value / factor
    places = 0 if factor == 1 and number == round(number) else 1 if abs(number) >= 10 or decimals == 1 else 2
    if factor == 1 and decimals == 0:
        places = 0
    return f"{number:.{places}f}{suffix}"


def color_of(look: Json, value: float) -> str:
    """The colour that a value has by its word or its thresholds."""
    for mapping in look.get("mappings", ()):
        if (word := mapping["options"].get(f"{value:g}")) is not None:
            return COLORS[word["color"]]
    passed = [step["color"] for step in look["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    return COLORS[passed[-1]]


def limits(look: Json) -> list[tuple[float, str]]:
    """The thresholds that have a value, with their colours."""
    return [(step["value"], COLORS[step["color"]]) for step in look["thresholds"]["steps"] if step["value"] is not None]


def palette(names: list[str]) -> dict[str, str]:
    """A colour for each name: the same one in every panel that shows the same names."""
    plain = sorted({name.removesuffix(" threshold") for name in names})
    return {name: PALETTE[plain.index(name.removesuffix(" threshold")) % len(PALETTE)] for name in names}
