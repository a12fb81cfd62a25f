"""A tuning as one page: whether to paste what was found is said first; it loads nothing and opens anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.report_html import Html, Pictures, document, number, section, tag, tile, write
from worker.report_numbers import clock_words, figure, length_words, less_words, moment_words, skill_words
from worker.report_tune_learning import learning, settings
from worker.report_tune_sections import check, everything, paste, ranking, repeats, spans
from worker.report_tune_words import (
    cost_words,
    more_words,
    outcome,
    plain_words,
    range_words,
    states_words,
)
from worker.report_words import counted, name_of

if TYPE_CHECKING:
    from pathlib import Path

    from worker.tune_told import Tuned

ERRORS = (
    "Errors are in standard deviations of each series over the split's training span. A trial's error is the mean over "
    "series, leads, seeds and splits of the squared error (scaled MSE) of forecasts issued in the evaluation spans."
)
ORDER = (
    "Splits are in order of time: nothing is trained on what comes after it, and an evaluation span begins where the "
    "validation span that stops the training ends."
)
LUCK = (
    "Intervals and deviations are by the luck of the seeds, which decides where weights begin and what batches hold. "
    "They do not say whether another stretch of time would rank the trials alike: splits and the check do."
)
CHOICE = (
    "The best of many looks better than it is, because it was chosen for its figures. The check, on a span that took "
    "no part in the choice, does not have that flaw."
)


def write_page(path: str | Path, told: Tuned) -> None:
    """Write the page.

    Raises:
        DataError: the file can't be written.
    """
    write(path, page(told))


def page(told: Tuned) -> str:
    """The tuning as HTML."""
    pictures = Pictures()
    body = tag(
        "main",
        _head(told),
        _summary(told),
        paste(told),
        ranking(told, pictures),
        check(told, pictures),
        learning(told, pictures),
        settings(told, pictures),
        repeats(told, pictures),
        spans(told),
        everything(told),
        section("How this was measured", tag("ul", *(tag("li", words) for words in (ERRORS, ORDER, LUCK, CHOICE)))),
        _foot(told),
    )
    return document(f"Tuning on {name_of(told.file)}: {outcome(told).words}", body, pictures.figures)


def _head(told: Tuned) -> Html:
    begin, end = moment_words(told.begin_ms), moment_words(told.end_ms)
    facts = [
        (
            "Data",
            f"{begin} to {end}, every {length_words(1, told.interval_ms)}: {counted(told.observations, 'observation')}",
        ),
        ("Forecast is", f"{told.target} of {counted(told.series, 'series', 'series')}, {told.horizon:,} leads"),
        ("Trials", states_words(told)),
        ("Trained", cost_words(told)),
        ("Model", told.model),
        ("Study", told.study),
    ]
    found = outcome(told)
    return tag(
        "header",
        tag("p", found.words, class_="outcome"),
        tag("h1", f"Tuning on {name_of(told.file)}"),
        tag("p", plain_words(told), class_="sentence"),
        tag("ul", *(tag("li", words) for words in more_words(told))) if more_words(told) else "",
        tag("dl", *(part for name, words in facts for part in (tag("dt", name), tag("dd", words)))),
        class_=found.tone,
    )


def _summary(told: Tuned) -> Html:
    best, checked = told.best, told.check
    if best is None:
        return Html()
    mse = best.mse if checked is None else checked.best_mse
    where = "over the splits" if checked is None else "in the check"
    tiles = [tile(f"Error, trial {best.number}", number(mse, figure(mse)), f"scaled MSE, {where}")]
    gain, interval = (best.gain, best.gain_interval) if checked is None else (checked.gain, checked.gain_interval)
    if best.number and gain is not None:
        rests = range_words(interval) if interval is not None else "one repeat: luck is not known"
        tiles.append(tile("Against the settings as they are", number(gain, less_words(gain)), rests))
    skill = best.skill_persistence if checked is None else checked.skill_persistence
    if skill is not None:
        tiles.append(tile("Skill", number(skill, skill_words(skill)), "1 is perfect, 0 as good as persistence"))
    if best.best_share is not None:
        others = f"{counted(len(told.tied), 'other')} can't be told from it"
        tiles.append(tile("Chance to be the best", number(best.best_share, f"{100 * best.best_share:.0f} %"), others))
    words = clock_words(told.seconds)
    more = f"{counted(told.trainings, 'training')}; one of trial {best.number} takes {clock_words(best.pace_s)}"
    tiles.append(tile("Cost of the search", number(told.seconds, words), more))
    return tag("div", *tiles, class_="strip")


def _foot(told: Tuned) -> Html:
    return tag(
        "footer",
        tag("p", "This page loads nothing; the same as JSON: ", tag("code", "killick tune FILE --json"),
            ". The study goes on where it ended: ", tag("code", f"killick tune FILE --study {told.study} --trials N")),
        tag("noscript", "The pictures need JavaScript; every number is in the tables."),
    )  # fmt: skip
