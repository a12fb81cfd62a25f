"""The sections of a tuning's page on learning: which settings matter, and the curves with their diagnosis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.report_html import Html, number, section, table, tag
from worker.report_numbers import figure
from worker.report_tune_figures import by_value, color_of, curves, importance
from worker.report_tune_words import diagnoses
from worker.tune_space import text

if TYPE_CHECKING:
    from worker.report_html import Pictures
    from worker.tune_told import Tuned

MOST_SETTINGS = 6
MOST_SHOWN = 6  # configurations with curves


def settings(told: Tuned, pictures: Pictures) -> Html:
    """Which settings matter, and what each of their values came to."""
    keys = sorted(told.importance, key=lambda key: -told.importance[key])
    varied = keys or list(dict.fromkeys(key for one in told.trials for key in one.changed))
    parts = []
    for at, key in enumerate(varied[:MOST_SETTINGS]):
        drawn = by_value(told, key)
        if drawn is not None:
            alt = f"Error of every complete trial by the value of {key}; the table of trials has the numbers."
            parts.append(tag("div", tag("h3", key), pictures.place(f"value{at}", drawn, alt)))
    shares = importance(told)
    if not parts and shares is None:
        return Html()
    best = told.best
    rows = [
        [key, number(told.importance[key], f"{100 * told.importance[key]:.0f} %"),
         text(best.settings[key]) if best is not None and key in best.settings else ""]
        for key in keys
    ]  # fmt: skip
    words = (
        "How much each setting has to do with being among the best. Few trials tell little of many settings: take it "
        "as a hint where to look next."
    )
    return section(
        "Which settings matter",
        tag("p", words) if shares is not None else "",
        pictures.place("importance", shares, "Bars of the share of each setting in being among the best."),
        tag("p", "Below, the error (scaled MSE) of every complete trial by its value; others differ too. The "
            "worst tenth may lie above.")
        if parts else "",
        tag("div", *parts, class_="several") if parts else "",
        tag("details", tag("summary", "Table of shares"),
            table("Share in being among the best", ["setting", "share", "of the best"], rows)) if rows else "",
    )  # fmt: skip


def learning(told: Tuned, pictures: Pictures) -> Html:
    """Learning curves of the settings as they are and of the best, with what they were diagnosed as."""
    numbers = [*told.ranking[:1], 0, told.cheapest, *told.ranking[1:]]
    shown = [number for number in dict.fromkeys(numbers) if number is not None and told.trial(number) is not None]
    parts: list[str] = []
    rows: list[list[str]] = []
    for number_of in shown[:MOST_SHOWN]:
        one = told.trial(number_of)
        if one is None or not one.runs:
            continue
        name = f"trial {one.number}" + (", as they are" if one.number == 0 else "")
        name += ", the best" if told.ranking and one.number == told.ranking[0] else ""
        words = diagnoses(one.runs)
        parts.append(
            tag("div", tag("h3", name),
                pictures.place(f"curves{one.number}", curves(one.runs, color_of(told, one.number)),
                    f"Learning curves of {name}: training dotted, validation solid; {words}."),
                tag("p", f"{words}. {one.runs[0].words}", class_="soft"))
        )  # fmt: skip
        for run in one.runs:
            kept = run.curve[run.best_epoch - 1] if run.best_epoch else None
            losses = (None, None) if kept is None else (kept.train_loss, kept.validation_loss)
            rows.append([
                f"{one.number}", f"{run.split + 1}", number(run.seed, f"{run.seed}"), run.diagnosis,
                f"{run.best_epoch} of {len(run.curve)}", *(number(loss, figure(loss)) for loss in losses),
                number(run.mse, figure(run.mse)), number(run.steps, f"{run.steps:,}"),
            ])  # fmt: skip
    if not parts:
        return Html()
    headings = ["trial", "split", "seed", "diagnosis", "epoch kept", "training loss", "validation loss",
                "error (scaled MSE)", "gradient steps"]  # fmt: skip
    return section(
        "Learning curves",
        tag("p", "Solid: validation, dotted: training, from before the first epoch on (that may lie above); the dot is "
            "the epoch whose weights were kept; a line for each split and seed. Losses are in units of "
            "the gain and can't be compared between configurations with another loss or scale; the error can."),
        tag("div", *parts, class_="several"),
        tag("details", tag("summary", f"Table of these {len(rows)} trainings"),
            table("Trainings of these configurations", headings, rows), class_="long"),
    )  # fmt: skip
