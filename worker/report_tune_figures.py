"""The pictures of a tuning, as figures of plotly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from models.skill import average
from worker.report_drawing import (
    FAR,
    HIGH,
    LOW,
    PALETTE,
    box,
    faint,
    framed,
    line,
    listed,
    marks,
    safe,
    span_of,
    spread,
)
from worker.report_numbers import figure
from worker.tune_figures import by_split
from worker.tune_space import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker.report_drawing import Figure
    from worker.tune_told import Run, Tuned

FIRST, BEST, TIED, WORSE, ENDED = "#7a8694", PALETTE[0], PALETTE[5], PALETTE[1], PALETTE[4]
REFERENCES = {"persistence": ("#8a9a5b", "dot"), "seasonal naive": ("#b08d57", "longdash")}
MOST_BOXES = 12
MOST_CURVES = 40  # in one picture
MOST_LABEL = 14  # letters of a value on an axis


def color_of(told: Tuned, number: int) -> str:
    """The settings as they are, the best, what can't be told from it, and the rest."""
    if told.ranking and number == told.ranking[0]:
        return BEST
    return FIRST if number == 0 else TIED if number in told.tied else WORSE


def shown_in_boxes(told: Tuned) -> list[int]:
    """The best trials, and the settings as they are."""
    shown = list(told.ranking[:MOST_BOXES])
    return [*shown, 0] if 0 in told.ranking and 0 not in shown else shown


def levelled(told: Tuned) -> dict[int, list[float]]:
    """The error of every run of complete trials without what its split adds: their mean is the trial's own."""
    complete = {number: by_split(trial.runs) for number in told.ranking if (trial := told.trial(number))}
    splits = sorted({split for of in complete.values() for split in of})
    levels = {split: average(average(of[split]) for of in complete.values() if split in of) or 0.0 for split in splits}
    whole = average(levels.values()) or 0.0
    return {
        number: [value - levels[split] + whole for split, values in of.items() for value in values]
        for number, of in complete.items()
    }


def boxes(told: Tuned) -> Figure | None:
    """A box of each of the best trials' runs, the best first, with the references as lines."""
    shown, values = shown_in_boxes(told), levelled(told)
    if not any(values.get(number) for number in shown):
        return None
    traces: list[Figure] = []
    for at, number in enumerate(shown):
        color, found = color_of(told, number), spread(values[number])
        name = f"trial {number}"
        if found:
            traces.append(box(at, found, color, name))
        small: Figure = {"color": color, "size": 6, "opacity": 0.75}
        beside = [at + 0.32 if found else at] * len(values[number])
        traces.append(marks(beside, listed(values[number]), small, f"{name}, a run"))
    x = {"tickvals": [*range(len(shown))], "ticktext": [f"{number}" for number in shown], "title": {"text": "trial"}}
    near = [value for number in shown for value in values[number]]
    return _with_references(told, traces, near, (-0.6, len(shown) - 0.4), x)


def searched(told: Tuned) -> Figure | None:
    """The error of each trial in the order they were tried, with the best so far."""
    scored = [(one, one.mse) for one in told.trials if one.mse is not None]
    if len(scored) < 2:
        return None
    traces: list[Figure] = []
    groups = {
        "complete": [(one, mse) for one, mse in scored if one.state == "complete"],
        "given up early": [(one, mse) for one, mse in scored if one.state != "complete"],
    }
    for name, of in groups.items():
        colors = [color_of(told, one.number) if name == "complete" else ENDED for one, _ in of]
        marker: Figure = {"color": colors, "size": 8, "symbol": "circle" if name == "complete" else "x"}
        drawn = marks([one.number for one, _ in of], [mse for _, mse in of], marker, "trial %{x}")
        drawn["error_y"] = {
            "type": "data", "array": [one.error or 0.0 for one, _ in of], "color": faint(FIRST, 0.6), "thickness": 1,
            "width": 0,
        }  # fmt: skip
        if of:
            traces.append(drawn)
    least, x, y = math.inf, [], []
    for one, mse in groups["complete"]:
        least = min(least, mse)
        x.append(one.number)
        y.append(least)
    traces.insert(0, {**line(x, y, "the best so far", BEST, "solid", width=1.5), "showlegend": True})
    traces[0]["line"]["shape"] = "hv"
    good = sorted(mse for _, mse in groups["complete"])
    near = good[: max(1, math.ceil(0.9 * len(good)))] if good else [mse for _, mse in scored]
    ends = (-0.8, max(one.number for one, _ in scored) + 0.8)
    return _with_references(told, traces, near, ends, {"title": {"text": "trial, in the order they were tried"}})


def curves(runs: Sequence[Run], color: str) -> Figure | None:
    """Learning curves of a configuration: validation solid, training dotted, a dot for the weights kept."""
    shown = [run for run in runs if run.curve][:MOST_CURVES]
    if not shown:
        return None
    width = 2.2 if len(shown) == 1 else 1.3
    paint = color if len(shown) == 1 else faint(color, 0.75)
    traces = [
        line(*_joined(shown, part), name, paint, dash, width=width)
        for part, name, dash in (("validation_loss", "validation", "solid"), ("train_loss", "training", "dot"))
    ]
    kept = [(run.best_epoch, run.curve[run.best_epoch - 1].validation_loss) for run in shown if run.best_epoch]
    marker: Figure = {"color": color, "size": 7}
    traces.append(marks([at for at, _ in kept], listed(loss for _, loss in kept), marker, "weights kept"))
    losses = [loss for run in shown for one in run.curve for loss in (one.train_loss, one.validation_loss)]
    most = max(len(run.curve) for run in shown)
    ticks = {"title": {"text": "epoch"}, "range": [-0.3, most + 0.5], "dtick": max(1, math.ceil(most / 8)), "tick0": 0}
    return framed(traces, LOW, x=ticks, y={"title": {"text": "loss"}, "range": span_of(losses)}, legend=False)


def by_value(told: Tuned, key: str) -> Figure | None:
    """The error of every complete trial by what a setting was; None where it was always the same."""
    trials = [one for number in told.ranking if (one := told.trial(number)) and key in one.settings]
    known = [(one.settings[key], one) for one in trials if one.mse is not None]
    if len({text(value) for value, _ in known}) < 2:
        return None
    numbers = [value for value, _ in known if isinstance(value, float)]
    ranged = len(numbers) == len(known) and len(set(numbers)) > 8
    names = sorted({text(value) for value, _ in known}, key=_order)
    x = [value if ranged else names.index(text(value)) for value, _ in known]
    colors = [color_of(told, one.number) for _, one in known]
    hover = [f"{safe(text(value))}, trial {one.number}" for value, one in known]
    dots: Figure = {
        **marks(x, [one.mse for _, one in known], {"color": colors, "size": 8, "opacity": 0.8}, "%{text}"),
        "text": hover,
    }  # fmt: skip
    axis: Figure = {"tickvals": [*range(len(names))], "ticktext": [safe(_short(name)) for name in names],
                    "range": [-0.5, len(names) - 0.5]}  # fmt: skip
    if ranged:
        log = min(numbers) > 0 and max(numbers) / min(numbers) >= 10
        axis = {"type": "log" if log else "linear", **({"dtick": 1} if log else {})}
    good = sorted(one.mse for _, one in known if one.mse is not None)
    near = good[: max(2, math.ceil(0.9 * len(good)))]
    return framed([dots], LOW, x=axis, y={"range": span_of(near)}, legend=False)


def importance(told: Tuned) -> Figure | None:
    """A bar for each setting's share in being among the best."""
    shown = sorted(told.importance.items(), key=lambda one: one[1])[-15:]
    if not shown:
        return None
    bars: Figure = {
        "type": "bar", "orientation": "h", "x": [100 * share for _, share in shown],
        "y": [safe(name) for name, _ in shown], "marker": {"color": BEST}, "showlegend": False,
        "hovertemplate": "%{y}: %{x:.0f} %<extra></extra>",
    }  # fmt: skip
    height = 60 + 24 * len(shown)
    return framed([bars], height, x={"ticksuffix": " %", "rangemode": "tozero"}, y={"type": "category"}, legend=False)


def standard_error(told: Tuned) -> Figure | None:
    """How the standard error of a mean falls with the number of repeats: by bootstrap, and by theory."""
    found = () if told.check is None else told.check.standard_errors
    if not found:
        return None
    x = [one.repeats for one in found]
    hover = "%{x} repeats: %{y:.3g}"
    drawn = {**line(x, [one.error for one in found], "bootstrap", BEST, "solid", hover=hover), "mode": "lines+markers"}
    theory = line(x, [one.theory for one in found], "deviation / √repeats", WORSE, "dash", hover=hover)
    y = {"title": {"text": "standard error of the mean"}, "rangemode": "tozero"}
    ticks = {"title": {"text": "repeats"}, "dtick": max(1, math.ceil(len(found) / 10)), "tick0": 1}
    return framed([drawn, theory], LOW + 50, x=ticks, y=y)


def means_of_repeats(told: Tuned) -> Figure | None:
    """Where 95 % of the means over so many repeats lie, with the mean of the settings as they are."""
    check = told.check
    if check is None or not check.standard_errors or check.best_mse is None:
        return None
    found = check.standard_errors
    x = [one.repeats for one in found]
    edge = {"type": "scatter", "mode": "lines", "x": x, "line": {"width": 0}, "hoverinfo": "skip"}
    traces: list[Figure] = [
        {**edge, "y": [one.interval[0] for one in found], "showlegend": False},
        {**edge, "y": [one.interval[1] for one in found], "fill": "tonexty", "fillcolor": faint(BEST, 0.22),
         "name": "95 % of means of the best"},
        line(x, [check.best_mse] * len(x), "the best", BEST, "solid"),
    ]  # fmt: skip
    if check.best != check.first and check.first_mse is not None:
        traces.append(line(x, [check.first_mse] * len(x), "as they are", FIRST, "dash"))
    ticks = {"title": {"text": "repeats"}, "dtick": max(1, math.ceil(len(found) / 10)), "tick0": 1}
    return framed(traces, LOW + 50, x=ticks, y={"title": {"text": "error (scaled MSE)"}})


def check_boxes(told: Tuned) -> Figure | None:
    """The runs of the check: the settings as they are beside the best."""
    check = told.check
    if check is None:
        return None
    groups = [("as they are", FIRST, check.first)]
    best = told.best
    if check.best != check.first:
        groups.append((f"trial {best.number}" if best else "the best", BEST, check.best))
    traces: list[Figure] = []
    near: list[float] = []
    for at, (name, color, runs) in enumerate(groups):
        values = [run.mse for run in runs if run.mse is not None]
        near += values
        found = spread(values)
        if found:
            traces.append(box(at, found, color, name))
        small: Figure = {"color": color, "size": 7, "opacity": 0.75}
        traces.append(marks([at + 0.32 if found else at] * len(values), values, small, f"{name}, a run"))
    if not near:
        return None
    x = {"tickvals": [*range(len(groups))], "ticktext": [name for name, _, _ in groups]}
    references = {"persistence": check.split.persistence, "seasonal naive": check.split.seasonal}
    return _against(references, traces, near, (-0.6, len(groups) - 0.4), x)


def _with_references(
    told: Tuned, traces: list[Figure], near: list[float], ends: tuple[float, float], x: Figure
) -> Figure:
    references = {
        "persistence": average(split.persistence for split in told.splits),
        "seasonal naive": average(split.seasonal for split in told.splits),
    }
    return _against(references, traces, near, ends, x)


def _against(
    references: dict[str, float | None], traces: list[Figure], near: list[float], ends: tuple[float, float], x: Figure
) -> Figure:
    """Errors with the references as lines where they are near."""
    reach = FAR * (max(near) - min(near)) or 0.1 * max(near)
    known = {name: value for name, value in references.items() if value is not None}
    close = [value for value in known.values() if min(near) - reach <= value <= max(near) + reach]
    span = span_of([*near, *close])
    for name, value in known.items():
        color, dash = REFERENCES[name]
        side = "above" if value > span[1] else "below"
        label = name if span[0] <= value <= span[1] else f"{name} {figure(value)}, {side} this"
        traces.append(line(list(ends), [value] * 2, label, color, dash))
    y = {"title": {"text": "error (scaled MSE)"}, "range": span}
    return framed(traces, HIGH, x={**x, "range": list(ends)}, y=y)


def _joined(runs: Iterable[Run], part: str) -> tuple[list[float | None], list[float | None]]:
    """The curves one after the other, from before the first epoch on, with a gap between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    for run in runs:
        points = (run.untrained, *run.curve)
        x += [*range(len(points)), None]
        y += [*listed(getattr(one, part) for one in points), None]
    return x, y


def _order(value: str) -> tuple[int, float, str]:
    """Numbers by size, lists by length, words by their letters."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, float(len(value)), value


def _short(name: str) -> str:
    name = name.strip('"')
    return name if len(name) <= MOST_LABEL else f"{name[: MOST_LABEL - 1]}…"
