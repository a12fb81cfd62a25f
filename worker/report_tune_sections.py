"""The sections of a tuning's page on what was found: what to paste, the trials, the check, the spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.report_html import Html, joined, number, section, table, tag
from worker.report_numbers import NONE, clock_words, figure, less_words, moment_words, percent, skill_words
from worker.report_tune_figures import (
    MOST_BOXES,
    boxes,
    check_boxes,
    means_of_repeats,
    searched,
    shown_in_boxes,
    standard_error,
)
from worker.report_tune_words import (
    NOTHING,
    changes,
    diagnoses,
    range_words,
    states_words,
)
from worker.report_words import counted
from worker.tune_figures import mean_of
from worker.tune_space import text
from worker.tune_tables import ENDS

if TYPE_CHECKING:
    from worker.report_html import Pictures
    from worker.tune_told import Trial, Tuned

MOST_CHANGES, SHOWN_CHANGES = 4, 3  # of a trial: from more than four on, all but three are folded
MOST_ROWS = 20  # of the ranking; all trials follow at the end


def paste(told: Tuned) -> Html:
    """What the best changes, as TOML and beside the settings as they are."""
    best, first = told.best, told.trial(0)
    if best is None or first is None or not told.toml:
        return Html()
    cheap = told.trial(told.cheapest)
    others = [best] if cheap is None or cheap.number in (0, best.number) else [best, cheap]
    keys = dict.fromkeys(key for one in others for key in one.changed)
    rows = [
        [key, _value(first, key), *(joined([_value(one, key), "" if key in one.changed else " (the same)"])
         for one in others)]
        for key in keys
    ]  # fmt: skip
    names = [
        f"trial {one.number}, {kind}" for one, kind in zip(others, ("the best", "as good and cheaper"), strict=False)
    ]
    return section(
        "To paste into killick.toml",
        tag("pre", tag("code", *_lines(told.toml))),
        table("What it changes", ["setting", "as it is", *names], rows, texts=2 + len(others)),
    )


def _lines(toml: str) -> list[Html]:
    return [part for line in toml.strip().splitlines() for part in (tag("span", line), Html("\n"))]


def _value(one: Trial, key: str) -> str:
    return text(one.settings[key]) if key in one.settings else NONE


def ranking(told: Tuned, pictures: Pictures) -> Html:
    """The best trials with the luck of their seeds."""
    if not told.ranking:
        return section("Trials", tag("p", "No trial is complete: there is nothing to compare."))
    shown = [one for number in told.ranking if (one := told.trial(number))]
    kept = [one for at, one in enumerate(shown) if at < MOST_ROWS or one.number == 0]
    headings = ["trial", "what it changes", "error (scaled MSE)", "deviation", "less than as they are", "skill",
                "against seasonal", "a training", "weights"]  # fmt: skip
    rows = [_ranked(told, one) for one in kept]
    drawn = len(shown_in_boxes(told))
    picked = f"The best {MOST_BOXES}, and the settings as they are (trial 0). " if len(told.ranking) > drawn else ""
    colors = (
        "Blue: the best; teal: can't be told from it; orange: worse beyond luck; grey: the settings as they are. Box: "
        "25 to 75 %, line: median, dashed: mean, whiskers: 5 to 95 % of its runs (dots)."
    )
    return section(
        "Trials",
        tag("p", f"{states_words(told)}. Each is trained with {counted(told.repeats, 'seed')} on each of "
            f"{counted(len(told.splits), 'split')}; its error is the mean. ± is its standard error and the deviation "
            "that of single runs, both by the luck of the seeds; = can't be told from the best."),
        pictures.place("boxes", boxes(told), "Box plots of the runs of the best trials; the table has the means.",
            f"{picked}What a split adds to all trials is taken out. {colors}"),
        table("The best trials", headings, rows, texts=2, strong=0),
        tag("h3", "In the order they were tried"),
        pictures.place("searched", searched(told), "Error of each trial in the order they were tried, with the least "
            "so far as a line.", "Line: the least so far. Where it has been level for long, more trials will hardly "
            "help. Red crosses: given up early. The worst tenth may lie above this."),
    )  # fmt: skip


def _ranked(told: Tuned, one: Trial) -> list[str]:
    sign = " =" if one.number in told.tied else ""
    error = number(one.mse, figure(one.mse))
    if one.error is not None:
        error = joined([error, " ± ", number(one.error, f"{one.error:.2g}")])
    gain = number(one.gain, NONE if one.gain is None else percent(one.gain))
    if one.gain_interval is not None:
        ends = (percent(end).removesuffix(" %") for end in one.gain_interval)
        gain = joined([gain, tag("small", f" [{', '.join(ends)}]")])
    return [
        f"{one.number}{sign}",
        _changes(told, one),
        error,
        number(one.deviation, NONE if one.deviation is None else f"{one.deviation:.2g}"),
        gain,
        number(one.skill_persistence, skill_words(one.skill_persistence)),
        number(one.skill_seasonal, skill_words(one.skill_seasonal)),
        number(one.pace_s, clock_words(one.pace_s)),
        number(one.parameters, f"{one.parameters:,}"),
    ]


def _changes(told: Tuned, one: Trial) -> Html:
    """What a trial changes; what matters less is folded where it is much."""
    found = changes(told, one)
    if len(found) <= MOST_CHANGES:
        return joined([", ".join(found) or NOTHING])
    rest = tag("details", tag("summary", f"and {len(found) - SHOWN_CHANGES} more"), ", ".join(found[SHOWN_CHANGES:]))
    return joined([", ".join(found[:SHOWN_CHANGES]), rest])


def check(told: Tuned, pictures: Pictures) -> Html:
    """The best against the settings as they are, on what the search has not seen."""
    found, best = told.check, told.best
    if found is None or best is None:
        return Html()
    begin, end = moment_words(found.split.validation_ms), moment_words(found.split.end_ms)
    rows = [
        [name, number(len(runs), f"{len(runs)}"), number(mse, figure(mse)),
         number(deviation, NONE if deviation is None else f"{deviation:.2g}"), diagnoses(runs)]
        for name, runs, mse, deviation in (
            ("the settings as they are", found.first, found.first_mse, found.first_deviation),
            (f"trial {best.number}, the best", found.best, found.best_mse, found.best_deviation),
        )
    ]  # fmt: skip
    same = found.best == found.first
    words = "The best are the settings as they are." if same or found.gain is None else (
        f"Trial {best.number} makes {less_words(found.gain)} error"
        + (f" ({range_words(found.gain_interval)})." if found.gain_interval else ".")
    )  # fmt: skip
    seasonal = skill_words(found.skill_seasonal)
    return section(
        "Check on a span that the search has not seen",
        tag("p", f"{begin} to {end}, with new seeds, trained as killick fit does. {words} Its skill is "
            f"{skill_words(found.skill_persistence)} against persistence, {seasonal} against seasonal naive."),
        pictures.place("check", check_boxes(told), "Box plots of the runs of the check, as they are beside the best.",
            "Each dot is a training with a seed of its own."),
        table("Runs of the check", ["settings", "runs", "error (scaled MSE)", "deviation", "diagnosis"],
              rows[: 1 if same else 2]),
    )  # fmt: skip


def repeats(told: Tuned, pictures: Pictures) -> Html:
    """How the standard error falls with the number of repeats."""
    found = told.check
    if found is None or not found.standard_errors:
        return Html()
    last = found.standard_errors[-1]
    rows = [
        [f"{one.repeats}", number(one.error, f"{one.error:.3g}"), number(one.theory, f"{one.theory:.3g}"),
         number(one.interval[0], figure(one.interval[0])), number(one.interval[1], figure(one.interval[1]))]
        for one in found.standard_errors
    ]  # fmt: skip
    share = 100 * last.error / found.best_mse if found.best_mse else None
    words = f"A mean over {counted(last.repeats, 'repeat')} is known to ± {last.error:.2g}"
    words += f" ({share:.1f} % of it)." if share is not None else "."
    if found.needed is not None:
        words += (
            f" To tell the best from the settings as they are takes about {counted(found.needed, 'repeat')} of each"
        )
        words += " (power 80 %, level 5 %)."
    elif found.best != found.first:
        words += " No number of repeats that can be had tells the two apart."
    return section(
        "How many repeats it takes",
        tag("p", words),
        tag("div",
            tag("div", tag("h3", "Standard error"), pictures.place("standard_error", standard_error(told),
                "Standard error of the mean by number of repeats, by bootstrap and by theory.")),
            tag("div", tag("h3", "Where means lie"), pictures.place("means", means_of_repeats(told),
                "Band that holds 95 % of the means over so many repeats of the best.")), class_="several"),
        tag("details", tag("summary", "Table by number of repeats"),
            table("Standard error of the best one's mean in the check",
                  ["repeats", "bootstrap", "theory", "95 % from", "to"], rows), class_="long"),
    )  # fmt: skip


def spans(told: Tuned) -> Html:
    """Where each split is cut, and how hard it is."""
    first, best = told.trial(0), told.best
    rows = []
    for at, split in enumerate(told.splits):
        means = [
            mean_of(run for run in one.runs if run.split == at) if one is not None else None for one in (first, best)
        ]
        rows.append([
            f"{at + 1}", moment_words(split.train_ms), moment_words(split.validation_ms), moment_words(split.end_ms),
            number(split.pairs, f"{split.pairs:,}"),
            *(number(value, figure(value)) for value in (*means, split.persistence, split.seasonal)),
        ])  # fmt: skip
    headings = ["split", "trained before", "validated before", "evaluated before", "pairs", "as they are", "the best",
                "persistence", "seasonal naive"]  # fmt: skip
    return section(
        "Spans of data",
        tag("p", f"All from {moment_words(told.begin_ms)}: each split trains on what is before, stops by the "
            "validation span, and is scored on the evaluation span, which follows it."),
        table("Splits, with errors (scaled MSE)", headings, rows),
    ) if rows else Html()  # fmt: skip


def everything(told: Tuned) -> Html:
    """All trials, by number."""
    if not told.trials:
        return Html()
    headings = ["trial", "how it ended", "what it changes", "diagnosis", "error (scaled MSE)", "runs", "took"]
    rows = [
        [
            f"{one.number}", joined([ENDS[one.state], tag("small", one.words) if one.words else ""]),
            _changes(told, one), diagnoses(one.runs) or NONE, number(one.mse, figure(one.mse)),
            number(len(one.runs), f"{len(one.runs)}"), number(one.seconds, clock_words(one.seconds)),
        ]
        for one in told.trials
    ]  # fmt: skip
    return section(
        "All trials",
        tag("details", tag("summary", counted(len(rows), "trial")), table("Trials by number", headings, rows, texts=4)),
    )
