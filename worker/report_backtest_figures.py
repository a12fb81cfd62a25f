"""The pictures of a backtest, as figures of plotly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.skill import average
from models.times import DAY_MS, day_text, rfc3339
from worker.backtest_appraisal import ALWAYS, CONTROL, FROZEN, ON_DRIFT, by_day
from worker.report_drawing import (
    FAR,
    HIGH,
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
from worker.report_numbers import figure, length_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.backtest_appraisal import Appraisal, Standing
    from worker.backtest_told import PolicyRun
    from worker.report_drawing import Figure

OTHERS = {FROZEN: "#7a8694", CONTROL: "#c0589b", "persistence": "#8a9a5b", "seasonal": "#b08d57", "rls": "#c94f4f"}
DASHES = {CONTROL: "dash", "persistence": "dot", "seasonal": "longdash", "rls": "dashdot"}
POLICIES = tuple(color for color in PALETTE if color not in OTHERS.values())
SHORT_DAYS, LONG_DAYS, LONG_SPAN = 7, 30, 180  # days of the window; the longer one from so many days on
ROW = 22  # px of a policy's row of marks
GAP = 36  # px between lines and marks
MOST_SERIES = 30  # of one picture
SIGNS: dict[str, tuple[str, str]] = {
    "drift": ("triangle-down", "drift"),
    "verdict": ("circle-open", "retrained"),
    "rollback": ("x", "rollback"),
}


def color_of(appraisal: Appraisal, name: str) -> str:
    """The colour of a way to forecast, the same in every picture."""
    if name in OTHERS:
        return OTHERS[name]
    names = [one for one in appraisal.told.policies if one not in OTHERS]
    return POLICIES[names.index(name) % len(POLICIES)] if name in names else PALETTE[0]


def window_days(appraisal: Appraisal) -> int:
    """How many days a point of the skill is over."""
    days = max(1, round((appraisal.told.end_ms - appraisal.told.online_ms) / DAY_MS))
    return LONG_DAYS if days >= LONG_SPAN else min(SHORT_DAYS, max(1, days // 4))


def skill_by_day(appraisal: Appraisal, name: str) -> tuple[list[int], list[float | None]]:
    """Days, and the skill against persistence over the window that ends with each; None: it can't be said."""
    window, known = window_days(appraisal), by_day(appraisal.scores(name))
    shown: list[int] = []
    skills: list[float | None] = []
    for day in known:
        within = [known[at] for at in range(day - window + 1, day + 1) if at in known]
        if day < min(known) + window - 1:
            continue
        pairs = [(count, mse, against) for count, mse, against in within if against is not None]
        least = sum(count * against for count, _, against in pairs)
        shown.append(day)
        skills.append(finite(1 - sum(count * mse for count, mse, _ in pairs) / least) if least > 0 else None)
    return shown, skills


def skill_over_time(appraisal: Appraisal) -> Figure | None:
    """Skill against persistence of everything but it, with a row of marks below for the versions of each policy."""
    shown = [one for one in appraisal.standings if one.name != "persistence"]
    lines = {one.name: skill_by_day(appraisal, one.name) for one in shown}
    lines = {name: found for name, found in lines.items() if any(value is not None for value in found[1])}
    if not lines:
        return None
    traces = [
        line([day_text(day) for day in days], skills, name, color_of(appraisal, name), DASHES.get(name, "solid"),
             width=2 if name in appraisal.told.baselines or name == FROZEN else 2.4, hover="%{x|%Y-%m-%d}: %{y:.3f}")
        for name, (days, skills) in lines.items()
    ]  # fmt: skip
    rows = [one for one in shown if one.policy and any(len(run.versions) > 1 for run in appraisal.runs(one.name))]
    height = HIGH + (GAP + ROW * len(rows) if rows else 0)
    near = [value for name, (_, skills) in lines.items() if name != "seasonal" for value in skills]
    found = framed(traces, height, x={"type": "date", "range": _ends(appraisal)}, y={
        "title": {"text": "skill against persistence"}, "zeroline": True, "zerolinewidth": 2, "range": span_of(near),
    })  # fmt: skip
    if rows:
        share = ROW * len(rows) / (HIGH + ROW * len(rows) - GAP)
        for at, one in enumerate(reversed(rows)):
            found["data"] += _row_of_marks(appraisal, appraisal.runs(one.name)[0], at)
        found["layout"]["yaxis"]["domain"] = [share + 0.06, 1]
        found["layout"]["xaxis"]["anchor"] = "y2"
        found["layout"]["yaxis2"] = {
            "domain": [0, share], "tickvals": [*range(len(rows))], "range": [-0.6, len(rows) - 0.4], "zeroline": False,
            "ticktext": [safe(one.name) for one in reversed(rows)], "fixedrange": True, "automargin": True,
        }  # fmt: skip
    return found


def _row_of_marks(appraisal: Appraisal, run: PolicyRun, at: int) -> list[Figure]:
    """The versions of a run where they began to answer, and what it suffered."""
    color, interval_ms = color_of(appraisal, run.policy), appraisal.told.interval_ms
    why = {one.version: one.words for one in run.happened if one.kind == "promote"}
    began = [(step, _said(f"version {version}", why.get(version, ""))) for version, step in run.versions]
    traces = [_signs(began, at, interval_ms, {"symbol": "line-ns", "size": 12, "line": {"color": color, "width": 1.6}})]
    for kind, (symbol, word) in SIGNS.items():
        found = [(one.step, _said(word, one.words)) for one in run.happened if one.kind == kind]
        if found and (kind != "drift" or run.policy == ON_DRIFT):
            marker = {"symbol": symbol, "size": 8, "color": color, "line": {"color": color, "width": 1}}
            traces.append(_signs(found, at + 0.36, interval_ms, marker))
    return traces


def _said(what: str, words: str) -> str:
    return f"{what}: {words}" if words else what


def _signs(found: Sequence[tuple[int, str]], at: float, interval_ms: int, marker: Figure) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "x": [_moment(step * interval_ms) for step, _ in found],
        "y": [at] * len(found), "text": [safe(words) for _, words in found], "marker": marker, "showlegend": False,
        "xaxis": "x", "yaxis": "y2", "hovertemplate": "%{text}<br>%{x|%Y-%m-%d %H:%M}<extra></extra>",
    }  # fmt: skip


def spared(appraisal: Appraisal) -> Figure | None:
    """The error that each has made less than the frozen LSTM up to a day, as a share of all that the latter makes."""
    against = by_day(appraisal.scores(FROZEN))
    whole = sum(count * mse for count, mse, _ in against.values())
    best = appraisal.advised.baseline
    shown = [one.name for one in appraisal.standings if (one.policy and one.name != FROZEN) or one.name == best]
    traces: list[Figure] = []
    near: list[float] = [0.0]
    for name in shown if whole > 0 else []:
        mine, total, y = by_day(appraisal.scores(name)), 0.0, []
        days = [day for day in against if day in mine]
        for day in days:
            total += against[day][0] * (against[day][1] - mine[day][1])
            y.append(100 * total / whole)
        color, dash = color_of(appraisal, name), DASHES.get(name, "solid")
        if name != best:
            near += y
        hover = "%{x|%Y-%m-%d}: %{y:.1f} %"
        traces.append(line([day_text(day) for day in days], y, name, color, dash, hover=hover))
    if len(near) < 2:
        return None
    reach = max(near) - min(near)
    near += [v for trace in traces for v in trace["y"] if min(near) - reach <= v <= max(near) + reach]
    return framed(traces, HIGH, x={"type": "date", "range": _ends(appraisal)}, y={
        "title": {"text": "error spared so far"}, "zeroline": True, "zerolinewidth": 2, "range": span_of(near),
        "ticksuffix": " %",
    })  # fmt: skip


def over_seeds(appraisal: Appraisal) -> Figure | None:
    """A box of every policy's error over seeds, the least first; baselines as lines. None of one run."""
    shown = [one for one in appraisal.standings if one.policy and one.by_seed]
    if sum(len(one.by_seed) for one in shown) < 2:
        return None
    traces: list[Figure] = []
    for at, one in enumerate(shown):
        color, found = color_of(appraisal, one.name), spread(one.by_seed)
        small: Figure = {"color": color, "size": 7, "opacity": 0.8}
        if found:
            traces.append(box(at, found, color, one.name))
        beside = at + 0.32 if found else at
        traces.append(marks([beside] * len(one.by_seed), listed(one.by_seed), small, f"{safe(one.name)}, a seed"))
    return _against_baselines(
        appraisal, traces, [value for one in shown for value in one.by_seed], (-0.6, len(shown) - 0.4),
        {"tickvals": [*range(len(shown))], "ticktext": [safe(one.name) for one in shown]},
    )  # fmt: skip


def by_cost(appraisal: Appraisal) -> Figure | None:
    """The error of each policy by what it trained; None where nothing was trained."""
    shown = [
        one for one in appraisal.standings if one.policy and one.mse is not None and one.gradient_steps is not None
    ]
    if not any(one.gradient_steps for one in shown):
        return None
    always = appraisal.standing(ALWAYS)
    shared = always is not None and bool(always.gradient_steps)
    costs = [_cost(one, shared=shared) for one in shown]
    traces: list[Figure] = []
    for at, (one, cost) in enumerate(zip(shown, costs, strict=True)):
        color, reach = color_of(appraisal, one.name), one.deviation or 0.0
        traces.append(
            {
                **marks([cost], [one.mse], {"color": color, "size": 11}, safe(one.name)), "mode": "markers+text",
                "text": [safe(one.name)], "textfont": {"color": color},
                "textposition": ("top center", "bottom center")[at % 2],
                "error_y": {"type": "data", "array": [reach], "color": faint(color, 0.6), "thickness": 1.5, "width": 5},
                "cliponaxis": False,
            }
        )  # fmt: skip
    values = [(one.mse or 0.0) + sign * (one.deviation or 0.0) for one in shown for sign in (-1, 1)]
    title = "training, share of always'" if shared else "training, gradient steps"
    span = span_of(costs)
    room = 0.1 * (span[1] - span[0])
    axis: Figure = {"title": {"text": title}, "ticksuffix": " %" if shared else ""}
    return _against_baselines(appraisal, traces, values, (span[0] - room, span[1] + room), axis)


def _cost(one: Standing, *, shared: bool) -> float:
    return 100 * (one.compute_share or 0.0) if shared else one.gradient_steps or 0.0


def _against_baselines(
    appraisal: Appraisal, traces: list[Figure], values: list[float], ends: tuple[float, float], x: Figure
) -> Figure:
    """The error of policies, with baselines as lines where they are near."""
    lines = [one for one in appraisal.standings if not one.policy and one.mse is not None]
    reach = max(FAR * (max(values) - min(values)), 0.1 * max(values))
    near = [one.mse or 0.0 for one in lines if min(values) - reach <= (one.mse or 0.0) <= max(values) + reach]
    span = span_of([*values, *near])
    for one in lines:
        name = one.name
        if not span[0] <= (one.mse or 0.0) <= span[1]:
            name = f"{name} {figure(one.mse)}, {'above' if (one.mse or 0.0) > span[1] else 'below'} this"
        dash, color = DASHES.get(one.name, "solid"), color_of(appraisal, one.name)
        traces.append(line(list(ends), [one.mse] * 2, name, color, dash, hover="%{y:.4g}"))
    return framed(
        traces, HIGH, x={**x, "range": list(ends)}, y={"title": {"text": "error (scaled MSE)"}, "range": span}
    )


def by_lead(appraisal: Appraisal) -> Figure | None:
    """Skill against persistence by lead; None of one lead."""
    leads = appraisal.told.leads
    lines = {}
    for one in appraisal.standings:
        sets = appraisal.scores(one.name)
        skills = [average([scores.leads[at].skill_persistence for scores in sets]) for at in range(len(leads))]
        if one.name != "persistence" and any(value is not None for value in skills):
            lines[one.name] = skills
    if len(leads) < 2 or not lines:
        return None
    traces = []
    for name, skills in lines.items():
        color, dash = color_of(appraisal, name), DASHES.get(name, "solid")
        trace = line(list(leads), listed(skills), name, color, dash, hover="lead %{x}: %{y:.3f}")
        traces.append({**trace, "mode": "lines+markers" if len(leads) <= 30 else "lines", "marker": {"size": 5}})
    near = [value for name, skills in lines.items() if name != "seasonal" for value in skills]
    x: Figure = {"title": {"text": f"lead, steps of {length_words(1, appraisal.told.interval_ms)}"}}
    if len(leads) <= 8:
        x["tickvals"] = list(leads)
    y = {"title": {"text": "skill against persistence"}, "zeroline": True, "zerolinewidth": 2}
    return framed(traces, HIGH, x=x, y={**y, "range": span_of(near)})


def by_series(appraisal: Appraisal) -> Figure | None:
    """Skill against persistence of each series, a dot for each way to forecast; None of one series."""
    shown = [name for name, _ in appraisal.loudest[:MOST_SERIES]]
    if len(shown) < 2:
        return None
    traces = []
    near: list[float | None] = []
    for one in appraisal.standings:
        skills = appraisal.by_series(one.name, lambda of: of.skill_persistence)
        x = [skills.get(name) for name in shown]
        if one.name == "persistence" or not any(value is not None for value in x):
            continue
        if one.name != "seasonal":
            near += x
        traces.append(
            {
                "type": "scatter", "mode": "markers", "x": listed(x), "y": [safe(name) for name in shown],
                "name": safe(one.name), "marker": {
                    "color": color_of(appraisal, one.name), "size": 10, "opacity": 0.85,
                    "symbol": "circle" if one.policy else "diamond-open",
                    **({} if one.policy else {"line": {"width": 2}}),
                },
                "hovertemplate": "%{fullData.name}, %{y}: %{x:.3f}<extra></extra>",
            }
        )  # fmt: skip
    if not traces:
        return None
    height = 110 + 24 * len(shown) + 40
    x_axis = {
        "title": {"text": "skill against persistence"},
        "zeroline": True,
        "zerolinewidth": 2,
        "range": span_of(near),
    }
    return framed(traces, max(HIGH // 2, height), x=x_axis, y={"type": "category", "autorange": "reversed"})


def _ends(appraisal: Appraisal) -> list[str]:
    return [_moment(appraisal.told.online_ms), _moment(appraisal.told.end_ms)]


def _moment(time_ms: int) -> str:
    return rfc3339(time_ms)[:19]
