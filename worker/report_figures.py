"""The pictures of a verdict, as figures of plotly: plain data, so that making them needs no plotly.

Colours of text, axes and grid are the page's, which follows dark and light; those of lines are seen on both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from models.strategies import CONTROL
from models.times import rfc3339
from worker.report_drawing import (
    FAR,
    HIGH,
    LOW,
    PALETTE,
    box,
    faint,
    finite,
    framed,
    line,
    listed,
    marks,
    safe,
    span_of,
    spread,
)
from worker.report_numbers import NONE, figure, length_words, percent, rate_words
from worker.report_picked import INCUMBENT, best, finalist, finalists, foremost, grid, judged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.verdict import Attempted, Judged, Series, Verdict
    from worker.report_drawing import Figure

OTHERS = {INCUMBENT: "#7a8694", CONTROL: "#c0589b", "persistence": "#8a9a5b", "seasonal": "#b08d57"}
DASHES = {INCUMBENT: "solid", CONTROL: "dash", "persistence": "dot", "seasonal": "dashdot"}
SCALE = [[0, "#1d5fbf"], [0.5, "#7fb0ea"], [1, "#e6eef8"]]  # low error is strong
LIGHT, DARK, STRONG = "#ffffff", "#10151a", "#c94f4f"  # of what stands in cells; where there is none
TURN = 0.17  # of the scale: from here on dark letters are read better
MOST_FAINT = 40  # lines of other attempts in one picture
MOST_TEXTS = 5  # columns of a map whose cells have room for their numbers


def color_of(verdict: Verdict, name: str) -> str:
    """The colour of a contender, the same in every picture."""
    if name in OTHERS:
        return OTHERS[name]
    names = [one.name for one in finalists(verdict)]
    names += [one.strategy for one in verdict.attempts if one.strategy != CONTROL]
    known = list(dict.fromkeys([*names, name]))
    return PALETTE[known.index(name) % len(PALETTE)]


def boxes(verdict: Verdict) -> Figure | None:
    """Box plots of each finalist's repeats; incumbent, control and references as lines. None without repeats."""
    shown = finalists(verdict)
    if not any(spread(one.repeats) for one in shown):
        return None
    traces: list[Figure] = []
    for at, one in enumerate(shown):
        traces += _box(one, at, color_of(verdict, one.name))
    values = [value for one in shown for value in (one.mse, *one.repeats)]
    lines = [one for one in verdict.judged if one.name in OTHERS]
    values += [one.mse for one in lines if one.name in (INCUMBENT, CONTROL)]
    reach = FAR * (max(values) - min(values))
    values += [one.mse for one in lines if min(values) - reach <= one.mse <= max(values) + reach]
    span = span_of(values)
    ends = [-0.6, len(shown) - 0.4]
    for one in lines:
        near = span[0] <= one.mse <= span[1]
        name = _label(one.name)
        if not near:
            name = f"{name} {figure(one.mse)}, {'above' if one.mse > span[1] else 'below'} this"
        traces.append(line(ends, [one.mse] * 2, name, OTHERS[one.name], DASHES[one.name], hover="%{y:.4g}"))
    ticks = {"tickvals": [*range(len(shown))], "ticktext": [safe(one.name) for one in shown], "range": ends}
    return framed(traces, HIGH, x=ticks, y={"title": {"text": "error (scaled MSE)"}, "range": span})


def _box(one: Judged, at: int, color: str) -> list[Figure]:
    traces: list[Figure] = []
    found = spread(one.repeats)
    small = {"color": color, "size": 6, "opacity": 0.75}
    if found:
        traces.append(box(at, found, color, one.name))
        traces.append(marks([at + 0.32] * len(one.repeats), listed(one.repeats), small, "a repeat"))
    traces.append(marks([at], [one.mse], {"color": color, "size": 11, "symbol": "diamond"}, "the finalist itself"))
    return traces


def curves(verdict: Verdict, strategy: str) -> Figure | None:
    """Learning curves of one strategy: all attempts faint, the finalist strong. None where no epoch was finished."""
    chosen, color = finalist(verdict, strategy), color_of(verdict, strategy)
    attempts = [one for one in verdict.attempts if one.strategy == strategy and one.curve]
    if not attempts:
        return None
    traces = []
    others = _some([one for one in attempts if one is not chosen])
    for part, dash in (("validation_loss", "solid"), ("train_loss", "dot")):
        name = part.removesuffix("_loss")
        if others:
            traces.append(line(*_joined(others, part), f"others: {name}", faint(color, 0.3), dash, width=1.2))
        if chosen is not None and chosen.curve:
            x, y = [one.epoch for one in chosen.curve], [finite(getattr(one, part)) for one in chosen.curve]
            traces.append(line(x, y, f"finalist: {name}", color, dash, width=2.6))
    if chosen is not None and chosen.curve:
        kept = [one for one in chosen.curve if one.epoch == chosen.best_epoch]
        x, y = [one.epoch for one in kept], [finite(one.validation_loss) for one in kept]
        traces.append(marks(x, y, {"color": color, "size": 10, "symbol": "circle"}, "weights kept"))
    trained = [one for one in attempts if one.outcome == "trained"] or attempts
    values = [value for one in trained for at in one.curve for value in (at.train_loss, at.validation_loss)]
    most = max(one.curve[-1].epoch for one in attempts)
    ticks = {"title": {"text": "epoch"}, "range": [0.5, most + 0.5], "dtick": max(1, math.ceil(most / 8)), "tick0": 1}
    return framed(traces, LOW, x=ticks, y={"range": span_of(values)}, legend=False)


def over_time(verdict: Verdict, series: Series) -> Figure:
    """The loss difference over event time with its interval, and a line at zero."""
    x = [rfc3339(step * verdict.interval_ms)[:19] for step in series.step]
    name = foremost(verdict)
    color = PALETTE[0] if name is None else color_of(verdict, name)
    edge = {"type": "scatter", "mode": "lines", "x": x, "line": {"width": 0}, "hoverinfo": "skip"}
    traces: list[Figure] = [
        {**edge, "y": listed(series.low), "showlegend": False},
        {**edge, "y": listed(series.high), "fill": "tonexty", "fillcolor": faint(color, 0.22), "name": "95 % interval"},
        line(x, listed(series.difference), "difference", color, "solid", width=2, hover="%{x}: %{y:.4g}"),
    ]
    differences = {
        "title": {"text": "loss difference"}, "zeroline": True, "zerolinewidth": 2,
        "range": span_of([*series.low, *series.high, 0.0]),
    }  # fmt: skip
    return framed(traces, HIGH, x={"type": "date", "title": {"text": "event time, UTC"}}, y=differences)


def skills(verdict: Verdict, one: Judged) -> list[float | None]:
    """Skill at each of the verdict's leads, against persistence; None where it can't be said."""
    against = judged(verdict, "persistence")
    if against is None:
        return [None] * len(one.by_lead)
    pairs = zip(one.by_lead, against.by_lead, strict=False)
    return [finite(1 - mse / of) if mse is not None and of else None for mse, of in pairs]


def by_lead(verdict: Verdict) -> Figure | None:
    """Skill by lead, persistence being zero; the error by lead where persistence was not judged."""
    shown = [one for one in verdict.judged if one.by_lead]
    if not shown or not verdict.leads:
        return None
    with_skill = judged(verdict, "persistence") is not None
    far = {_label(name) for name in ("persistence", "seasonal")}
    traces = []
    for one in shown:
        if with_skill and one.name == "persistence":
            continue
        y = skills(verdict, one) if with_skill else listed(one.by_lead)
        color, dash = color_of(verdict, one.name), DASHES.get(one.name, "solid")
        trace = line(list(verdict.leads), y, _label(one.name), color, dash, hover="lead %{x}: %{y:.3f}")
        mode = "lines+markers" if len(verdict.leads) <= 30 else "lines"
        traces.append({**trace, "mode": mode, "marker": {"size": 4}})
    title = "skill against persistence" if with_skill else "error (scaled MSE)"
    x = {"title": {"text": f"lead, steps of {length_words(1, verdict.interval_ms)}"}}
    y_axis: Figure = {"title": {"text": title}, "zeroline": True, "zerolinewidth": 2}
    near = [v for trace in traces if trace["name"] not in far for v in trace["y"] if v is not None]
    if near:  # a reference that is far off would press all others into one line
        pad = 0.1 * (max(near) - min(near)) + 0.02
        y_axis["range"] = [min(near) - pad, max(near) + pad]
    return framed(traces, HIGH, x=x, y=y_axis)


def sensitivity(verdict: Verdict, strategy: str) -> Figure | None:
    """A map of the validation error: amount of recent data by learning rate. None where there is but one cell."""
    attempts = grid(verdict, strategy)
    rates = sorted({one.rate for one in attempts})
    recents = sorted({one.recent_steps for one in attempts}, key=lambda steps: math.inf if steps is None else steps)
    if len(rates) * len(recents) < 2:
        return None
    chosen = best(verdict, strategy)
    cells = {(one.recent_steps, one.rate): one for one in attempts}
    z = [[_cell(cells.get((recent, rate))) for rate in rates] for recent in recents]
    text = [[_cell_words(cells.get((recent, rate)), chosen) for rate in rates] for recent in recents]
    known = [one.validation_mse for name in _grids(verdict) for one in grid(verdict, name) if _cell(one) is not None]
    low, high = np.percentile([value for value in known if value is not None] or [0.0], [0, 90]).tolist()
    names = ["all" if recent is None else length_words(recent, verdict.interval_ms) for recent in recents]
    columns = [rate_words(rate) for rate in rates]
    trace = {
        "type": "heatmap", "z": z, "x": columns, "y": names, "text": text, "xgap": 2, "ygap": 2,
        "zmin": low, "zmax": max(high, low * 1.001 + 1e-12), "colorscale": SCALE, "showscale": False,
        "hovertemplate": "rate %{x}, recent %{y}: %{text}<extra></extra>",
    }  # fmt: skip
    axis = {"type": "category", "showgrid": False}
    return framed(
        [trace, _cell_texts(z, text, columns, names, (trace["zmin"], trace["zmax"]))][
            : 2 if len(rates) <= MOST_TEXTS else 1
        ],
        LOW,
        x={**axis, "title": {"text": "learning rate"}},
        y={**axis, "title": {"text": "recent data"}},
        legend=False,
    )


def change(before: float, after: float) -> str:
    """How much a figure changed, as a percentage."""
    return percent(after / before - 1) if before else NONE


def _label(name: str) -> str:
    return "control" if name == CONTROL else name


def _grids(verdict: Verdict) -> list[str]:
    return [name for name in dict.fromkeys(one.strategy for one in verdict.attempts) if name != CONTROL]


def _cell_texts(
    z: list[list[float | None]], text: list[list[str]], columns: list[str], names: list[str], span: tuple[float, float]
) -> Figure:
    """What stands in the cells, light on strong ones."""
    colors = [
        STRONG if value is None else LIGHT if (value - span[0]) / (span[1] - span[0]) < TURN else DARK
        for row in z
        for value in row
    ]
    return {
        "type": "scatter", "mode": "text", "x": columns * len(names), "y": [n for n in names for _ in columns],
        "text": [word for row in text for word in row], "textfont": {"size": 12, "color": colors}, "hoverinfo": "skip",
        "showlegend": False,
    }  # fmt: skip


def _cell(one: Attempted | None) -> float | None:
    return None if one is None or one.outcome != "trained" else finite(one.validation_mse)


def _cell_words(one: Attempted | None, chosen: Attempted | None) -> str:
    if one is None:
        return ""
    if one.outcome == "exploded":
        return "exploded"
    return f"{figure(one.validation_mse)}{' ★' if one is chosen else ''}"


def _some(attempts: list[Attempted]) -> list[Attempted]:
    """At most `MOST_FAINT` of them, from first to last."""
    return attempts[:: max(1, math.ceil(len(attempts) / MOST_FAINT))]


def _joined(attempts: Iterable[Attempted], part: str) -> tuple[list[float | None], list[float | None]]:
    """The curves one after the other, with a gap between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    for one in attempts:
        x += [*(at.epoch for at in one.curve), None]
        y += [*(finite(getattr(at, part)) for at in one.curve), None]
    return x, y
