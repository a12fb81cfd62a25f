"""The sections of a backtest's page on errors: of each way to forecast, over time, by lead, by series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.skill import average
from worker.backtest_appraisal import FROZEN
from worker.report_backtest_figures import by_lead, by_series, over_seeds, skill_over_time, spared, window_days
from worker.report_backtest_words import made_words
from worker.report_html import Html, joined, number, section, table, tag
from worker.report_numbers import figure, length_words, skill_words
from worker.report_words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.backtest_appraisal import Appraisal
    from worker.backtest_told import LeadScore, SeriesScore
    from worker.report_drawing import Figure
    from worker.report_html import Pictures

MOST_ROWS = 500  # series in a table
SYMBOLS = {"triangle-down": "triangle: drift", "circle-open": "circle: retrained and judged", "x": "cross: rolled back"}


def accuracy(appraisal: Appraisal, pictures: Pictures) -> Html:
    """Every way to forecast, the least error first, with the spread over seeds."""
    shown = appraisal.standings
    headings = ["way to forecast", "error (scaled MSE)", "skill against persistence", "against seasonal naive", "MAE",
                "MAPE"]  # fmt: skip
    rows = [
        [
            named(one.name), with_deviation(one.mse, one.deviation),
            number(one.skill_persistence, skill_words(one.skill_persistence)),
            number(one.skill_seasonal, skill_words(one.skill_seasonal)), number(one.mae, figure(one.mae)),
            number(one.mape, f"{figure(one.mape)} %"),
        ]
        for one in shown
    ]  # fmt: skip
    strong = next((i for i, one in enumerate(shown) if one.name == appraisal.advised.chosen), None)
    several = appraisal.told.seeds > 1
    spread = "± is the standard deviation over seeds. " if several else ""
    alt = "Box plots of each policy's error over seeds, with the baselines as lines; the table has the numbers."
    return section(
        "How good each is",
        tag("p", f"The least error first. {spread}Leads 1 to {appraisal.told.horizon:,} count alike."),
        table("Errors over the online span", headings, rows, strong=strong),
        pictures.place("over_seeds", over_seeds(appraisal), alt,
            "Box: 25 to 75 %, line: median, dashed: mean, whiskers: 5 to 95 % of the seeds (dots). Lines: baselines."
            if several else "A dot for the one seed. Lines: baselines."),
    )  # fmt: skip


def over_time(appraisal: Appraisal, pictures: Pictures) -> Html:
    """Skill over time, with versions on the axis; what updating spared up to each day."""
    window = counted(window_days(appraisal), "day")
    drawn = skill_over_time(appraisal)
    return section(
        "Skill over time",
        tag("p", f"Each point is over the {window} up to it: 1 is perfect, 0 as good as persistence.") if drawn else "",
        pictures.place("skill_over_time", drawn,
            f"Lines of skill against persistence over event time, over {window} each, with marks for new versions.",
            "" if drawn is None else _marks_words(drawn)),
        _spared(appraisal, pictures),
    )  # fmt: skip


def _marks_words(drawn: Figure) -> str:
    """What the marks below the lines are; empty where there are none."""
    symbols = {one["marker"]["symbol"] for one in drawn["data"] if one.get("yaxis") == "y2"}
    signs = ", ".join(words for symbol, words in SYMBOLS.items() if symbol in symbols)
    told = "Below, for each policy that updates, the versions of its first seed where they began to answer"
    return f"{told}{f' ({signs})' if signs else ''}." if symbols else ""


def _spared(appraisal: Appraisal, pictures: Pictures) -> Html:
    drawn = spared(appraisal)
    if drawn is None:
        return Html()
    return joined([
        tag("h3", "When updating paid"),
        tag("p", "Squared error that each has made less than the frozen LSTM up to a day, in per cent of all that the "
            "frozen one makes over the span. Where a line rises, it is the better one; where it is level, nothing is "
            "gained."),
        pictures.place("spared", drawn, "Lines of the error spared against the frozen LSTM, summed up over event time, "
            f"of {', '.join(one.name for one in appraisal.standings if one.policy and one.name != FROZEN)}."),
    ])  # fmt: skip


def leads(appraisal: Appraisal, pictures: Pictures) -> Html:
    """Errors and skill by lead."""
    shown = appraisal.told.leads
    if not shown:
        return Html()
    step = length_words(1, appraisal.told.interval_ms)
    tables = [
        (f"Error at a lead; a lead is {step}", lambda one: one.mse, figure),
        ("Skill against persistence at a lead", lambda one: one.skill_persistence, skill_words),
        ("Skill against seasonal naive at a lead", lambda one: one.skill_seasonal, skill_words),
        ("MAE at a lead", lambda one: one.mae, figure),
        ("MAPE at a lead, %", lambda one: one.mape, figure),
    ]  # fmt: skip
    heading = "Error, mean over leads 1 to k (as the literature gives it)"
    upto = _by_lead(appraisal, lambda one: one.upto, figure, heading, "k = ")
    return section(
        "By lead",
        pictures.place("by_lead", by_lead(appraisal), "Lines of skill against persistence by lead; tables follow."),
        upto,
        tag("details", tag("summary", "Tables of each lead by itself"),
            *(_by_lead(appraisal, value, words, caption, "lead ") for caption, value, words in tables)),
    )  # fmt: skip


def _by_lead(
    appraisal: Appraisal,
    value: Callable[[LeadScore], float | None],
    words: Callable[[float | None], str],
    caption: str,
    before: str,
) -> Html:
    leads = appraisal.told.leads
    rows = []
    for one in appraisal.standings:
        sets = appraisal.scores(one.name)
        means = [average(value(scores.leads[at]) for scores in sets) for at in range(len(leads))]
        rows.append([one.name, *(number(mean, words(mean)) for mean in means)])
    return table(caption, ["way to forecast", *(f"{before}{lead}" for lead in leads)], rows)


def series(appraisal: Appraisal, pictures: Pictures) -> Html:
    """Errors by series, those that weigh most first."""
    shown = appraisal.loudest[:MOST_ROWS]
    if len(appraisal.loudest) < 2:
        return Html()
    drawn = by_series(appraisal)
    count = len(appraisal.loudest)
    picked = f"The first {len(shown)} of {count:,} are listed; --json has all. " if count > len(shown) else ""
    half = _half(appraisal)
    return section(
        "By series",
        tag("p", f"{half} what the mean says. {picked}".strip()),
        pictures.place("by_series", drawn,
            "Dots of skill against persistence of each series, by way to forecast; the tables have the numbers.",
            "Each series with every way to forecast; those with most of the error come first."),
        _by_series(appraisal, "Error (scaled MSE) by series; bold: the least", lambda one: one.mse, figure),
        tag("details", tag("summary", "Skill by series"),
            _by_series(appraisal, "Skill against persistence by series; bold: the most",
                       lambda one: one.skill_persistence, skill_words, most=True), class_="long"),
    )  # fmt: skip


def _half(appraisal: Appraisal) -> str:
    """How many series make half of the error."""
    total, count = 0.0, 0
    for _, share in appraisal.loudest:
        total, count = total + share, count + 1
        if total >= 0.5:
            break
    names = " and ".join(name for name, _ in appraisal.loudest[:count])
    told = names if count <= 2 else counted(count, "series", "series")
    of = f"{'alone, ' if count == 1 else ''}of {len(appraisal.loudest):,} series, {'makes' if count == 1 else 'make'}"
    return f"{told}, {of} {100 * total:.0f} % of all squared error: {'it decides' if count == 1 else 'they decide'}"


def _by_series(
    appraisal: Appraisal,
    caption: str,
    value: Callable[[SeriesScore], float | None],
    words: Callable[[float | None], str],
    *,
    most: bool = False,
) -> Html:
    columns = [(one.name, appraisal.by_series(one.name, value)) for one in appraisal.standings]
    best = max if most else min
    rows = []
    for name, share in appraisal.loudest[:MOST_ROWS]:
        values = [column.get(name) for _, column in columns]
        known = [found for found in values if found is not None]
        cells = [number(found, words(found)) for found in values]
        first = values.index(best(known)) if known else None
        rows.append([name, number(share, f"{100 * share:.0f} %"),
                     *(tag("b", cell) if at == first else cell for at, cell in enumerate(cells))])  # fmt: skip
    return table(caption, ["series", "of all error", *(name for name, _ in columns)], rows)


def named(name: str) -> Html:
    """The name with how its forecasts come about."""
    made = made_words(name)
    return joined([name, tag("small", made) if made else ""])


def with_deviation(value: float | None, deviation: float | None) -> Html:
    """A mean with its standard deviation over seeds."""
    told = number(value, figure(value))
    return told if deviation is None else joined([told, " ± ", number(deviation, f"{deviation:.2g}")])
