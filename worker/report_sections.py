"""The sections of a verdict's page, each a picture with the table of its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.report_drawing import PERCENTILES, spread
from worker.report_figures import boxes, by_lead, change, over_time, skills
from worker.report_html import Html, joined, number, section, table, tag, tile
from worker.report_numbers import (
    NONE,
    figure,
    length_words,
    p_words,
    signed,
    skill_words,
    step_words,
)
from worker.report_picked import (
    INCUMBENT,
    compared,
    finalists,
    foremost,
    judged,
)
from worker.report_words import MADE, control_words, counted, interval_words

if TYPE_CHECKING:
    from models.verdict import Judged, Verdict
    from worker.report_html import Pictures

LOSS = (
    "Losses are squared errors in units of the series' scale, as the mean over series and leads of an event-time step."
)


def contenders(verdict: Verdict, pictures: Pictures) -> Html:
    """How good each contender was over the evaluation span, and the spread over repeats."""
    if not verdict.judged:
        return Html()
    headings = ["contender", "skill", "error (scaled MSE)", "MAE, target's unit", "difference, 95 % interval",
                "DM statistic", "p", "p after Holm"]  # fmt: skip
    rows = [[_named(one.name), *_figures(verdict, one)] for one in verdict.judged]
    strong = next((i for i, one in enumerate(verdict.judged) if one.name == foremost(verdict)), None)
    control = control_words(verdict)
    alt = "Box plots of the finalists' errors over repeats, with incumbent, control and references as lines; "
    return section(
        "Comparison on data that nobody had seen",
        tag("p", f"All over the same {verdict.steps:,} steps, by replay with carried state. {LOSS} "
            "A difference is the incumbent's loss less the contender's: above zero the contender was better. p is "
            "Diebold and Mariano's; the decision rests on Holm's over the larger of that and a test that keeps its "
            "level where losses are alike for long."),
        table("Contenders over the evaluation span", headings, rows, strong=strong),
        tag("p", control, class_="soft") if control else "",
        pictures.place("boxes", boxes(verdict), f"{alt}the table of repeats has the numbers.",
            "Box: 25 to 75 %, line: median, dashed: mean, whiskers: 5 to 95 % of the same training with several seeds "
            "and chunk phases (dots). Diamond: the finalist, the one of them that did best on the validation span."),
        _repeats(verdict),
    )  # fmt: skip


def _named(name: str) -> Html:
    made = MADE.get(name)
    return joined([name, tag("small", made) if made else ""])


def _figures(verdict: Verdict, one: Judged) -> list[str]:
    found = compared(verdict, one.name)
    cells = [_skill(one.skill), number(one.mse, figure(one.mse)), number(one.mae, figure(one.mae))]
    if found is None:
        return [*cells, *[Html("")] * 4]
    ends = joined([number(found.low, signed(found.low)), ", ",
                   number(found.high, signed(found.high))])  # fmt: skip
    return [
        *cells,
        joined([number(found.difference, signed(found.difference)), " [", ends, "]"]),
        number(found.statistic, signed(found.statistic)),
        number(found.p_value, p_words(found.p_value)),
        number(found.p_holm, p_words(found.p_holm)),
    ]


def _repeats(verdict: Verdict) -> Html:
    shown = [one for one in finalists(verdict) if spread(one.repeats)]
    if not shown:
        return (
            tag("p", "Nothing was trained with more than one seed: luck can't be told from skill.", class_="soft")
            if finalists(verdict)
            else Html()
        )
    headings = ["strategy", "trainings", "mean", *(f"{at} %" if at != 50 else "median" for at in PERCENTILES)]
    rows = [
        [one.name, number(len(one.repeats), f"{len(one.repeats)}"),
         *(number(value, figure(value)) for value in spread(one.repeats).values())]
        for one in shown
    ]  # fmt: skip
    return table("Error (scaled MSE) of the same training with several seeds and chunk phases", headings, rows)


def difference(verdict: Verdict, pictures: Pictures) -> Html:
    """The loss difference of the foremost finalist over event time."""
    series, name = verdict.over_time, foremost(verdict)
    if series is None or not series.step:
        return Html()
    rows = [
        [step_words(step, verdict.interval_ms), *(number(value, signed(value)) for value in values)]
        for step, *values in zip(series.step, series.difference, series.low, series.high, strict=True)
    ]
    who = name or "the finalist"
    first, last = (step_words(series.step[at], verdict.interval_ms) for at in (0, -1))
    better = sum(value > 0 for value in series.difference)
    words = f"Above zero {who} was better: at {better} of {len(series.step)} points, {first} to {last}."
    whole = compared(verdict, name)
    if whole is not None:
        words += f" Over all steps {interval_words(whole)}."
    return section(
        "Loss difference over time",
        tag("p", words),
        pictures.place("over_time", over_time(verdict, series),
                       f"Loss difference of incumbent and {who} over event time with its 95 % interval. {words}",
                       "Smoothed; the band is the 95 % interval at each point."),
        tag("details", tag("summary", f"Table of these {len(rows)} points"),
            table("Loss difference over time", ["time, UTC", "difference", "low", "high"], rows), class_="long"),
    )  # fmt: skip


def leads(verdict: Verdict, pictures: Pictures) -> Html:
    """Skill of every contender by lead."""
    figure_of = by_lead(verdict)
    if figure_of is None:
        return Html()
    with_skill = judged(verdict, "persistence") is not None
    shown = [one for one in verdict.judged if one.by_lead and not (with_skill and one.name == "persistence")]
    columns = [skills(verdict, one) if with_skill else list(one.by_lead) for one in shown]
    rows = [
        [
            f"{lead}",
            *(_skill(column[at]) if with_skill else number(column[at], figure(column[at])) for column in columns),
        ]
        for at, lead in enumerate(verdict.leads)
    ]
    what = "skill against persistence" if with_skill else "error (scaled MSE)"
    caption = f"{what[0].upper()}{what[1:]} by lead; a lead is a step of {length_words(1, verdict.interval_ms)}"
    return section(
        "Skill by lead" if with_skill else "Error by lead",
        tag("p", "1 is perfect, 0 as good as persistence, below 0 worse." if with_skill else "Less is better."),
        pictures.place("by_lead", figure_of, f"Lines of {what} by lead of {', '.join(one.name for one in shown)}."),
        tag("details", tag("summary", "Table by lead"), table(caption, ["lead", *(one.name for one in shown)], rows)),
    )


def impact(verdict: Verdict) -> Html:
    """What the change is worth in the user's own terms."""
    before, after = judged(verdict, INCUMBENT), judged(verdict, foremost(verdict))
    if before is None or after is None:
        return Html()
    rows = [
        [one.name, number(one.mae, figure(one.mae)), change(before.mae, one.mae) if one is not before else Html(NONE)]
        for one in verdict.judged
    ]
    if verdict.cost is None:
        words = "What an error costs is not known: set [impact] cost_per_unit_error and unit, and reports say it."
    else:
        made = "would save" if verdict.cost >= 0 else "would lose"
        words = (
            f"{after.name} in place of the incumbent {made} {figure(abs(verdict.cost))} {verdict.unit} a day "
            "over all series, at the cost of an error that is set ([impact] cost_per_unit_error)."
        )
    return section(
        "In your own terms",
        tag("p", words),
        table("Mean absolute error, in the target's unit", ["contender", "MAE", "against the incumbent"], rows),
    )


def spans(verdict: Verdict) -> Html:
    """The spans of data, as dates."""
    cuts = verdict.cuts
    if cuts is None:
        return Html()
    found = [
        ("old data", cuts.begin, cuts.new_begin, "trains what is made from all data, and the control", "#7a8694"),
        ("training", cuts.new_begin, cuts.train_end, "new data that candidates are trained on", "#3b7dd8"),
        ("validation", cuts.validation_begin, cuts.validation_end, "chooses among attempts", "#2f8f65"),
        ("evaluation", cuts.evaluation_begin, cuts.end, "is what the verdict rests on, used once", "#b8641a"),
    ]
    found = [one for one in found if one[2] > one[1]]
    rows = [
        [name, what, step_words(begin, verdict.interval_ms), step_words(end, verdict.interval_ms),
         number(end - begin, f"{end - begin:,}"), length_words(end - begin, verdict.interval_ms)]
        for name, begin, end, what, _ in found
    ]  # fmt: skip
    new = cuts.end - cuts.new_begin
    shares = [
        tag("div", name, style=f"flex:{0.2 if name == 'old data' else (end - begin) / new:.4f};background:{color}")
        for name, begin, end, _, color in found
    ]
    headings = ["span", "what for", "from, UTC", "before, UTC", "steps", "length"]
    return section(
        "Spans of data",
        tag("div", *shares, class_="spans", aria_hidden="true"),
        tag("p", "New data to scale; old data is not. A horizon lies between spans, so that no target is seen twice.",
            class_="key"),
        table("Spans, in event time", headings, rows, texts=2),
    )  # fmt: skip


def summary(verdict: Verdict) -> Html:
    """The few numbers that matter."""
    before, name = judged(verdict, INCUMBENT), foremost(verdict)
    after, found = judged(verdict, name), compared(verdict, name)
    tiles: list[Html] = []
    if before is not None and after is not None:
        known = before.skill is not None and after.skill is not None
        errors = [number(one.mse, figure(one.mse)) for one in (before, after)]
        shown = [_skill(before.skill), _skill(after.skill)] if known else errors
        tiles.append(
            tile(
                f"{'Skill' if known else 'Error'}, before → after",
                joined([shown[0], " → ", shown[1]]),
                f"{after.name} over the evaluation span",
            )
        )
    if found is not None:
        low, high = signed(found.low), signed(found.high)
        ends = joined([number(found.low, low), " to ", number(found.high, high), " (95 %)"])
        tiles.append(tile("Loss difference", number(found.difference, signed(found.difference)), ends))
        tiles.append(
            tile(
                "p, that it is no better",
                number(found.p_holm, p_words(found.p_holm)),
                f"after Holm over {counted(sum(one.p_holm is not None for one in verdict.compared), 'finalist')}",
            )
        )
    if tiles and verdict.cost is not None:
        words = f"{figure(abs(verdict.cost))} {verdict.unit}".rstrip()
        tiles.append(tile("Effect", number(verdict.cost, words), "saved a day" if verdict.cost >= 0 else "lost a day"))
    elif before is not None and after is not None:
        maes = joined([number(before.mae, figure(before.mae)), " → ", number(after.mae, figure(after.mae))])
        tiles.append(tile("MAE, target's unit", maes, f"{change(before.mae, after.mae)}; what it costs is not known"))
    return tag("div", *tiles, class_="strip") if tiles else Html()


def _skill(value: float | None) -> Html:
    return number(value, skill_words(value))
