"""A backtest as one page: what pays is said first; it loads nothing and opens anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.times import DAY_MS
from worker.backtest_appraisal import ALWAYS, Appraisal
from worker.report_backtest_costs import costs, happened, runs
from worker.report_backtest_scores import accuracy, leads, over_time, series
from worker.report_backtest_words import (
    fit_words,
    interval_words,
    more_words,
    outcome_words,
    plain_words,
    span_words,
    tone,
)
from worker.report_html import Html, Pictures, document, number, section, tag, tile, write
from worker.report_numbers import clock_words, figure, length_words, less_words, moment_words, share_words
from worker.report_words import counted, name_of

if TYPE_CHECKING:
    from pathlib import Path

    from worker.backtest_appraisal import Faced
    from worker.backtest_told import Backtested

REPLAY = (
    "The file was replayed as a live stream, by the same code that answers in production: each forecast was recorded "
    "before its label was known, and nothing was trained on a label before its time had passed."
)
UNITS = (
    "Errors are in standard deviations of each series over the training span, so that series can be averaged. The "
    "error is the mean over series and over leads of the squared error (scaled MSE); MAE is in the same unit, MAPE in "
    "per cent of the target's values that are not zero."
)
SKILL = "Skill is 1 \N{MINUS SIGN} error / error of the reference, over the pairs that both have."
COST = (
    "The cost is counted in gradient steps, which a busy machine does not change; times of the clock are shown beside "
    "them. Neither has the first fit in it."
)


def write_page(path: str | Path, told: Backtested) -> None:
    """Write the page.

    Raises:
        DataError: the file can't be written.
    """
    write(path, page(told))


def page(told: Backtested) -> str:
    """The backtest as HTML."""
    appraisal, pictures = Appraisal(told), Pictures()
    body = tag(
        "main",
        _head(appraisal),
        _summary(appraisal),
        accuracy(appraisal, pictures),
        costs(appraisal, pictures),
        over_time(appraisal, pictures),
        leads(appraisal, pictures),
        series(appraisal, pictures),
        happened(appraisal),
        runs(appraisal),
        _method(told),
        _foot(),
    )
    return document(f"Backtest of {name_of(told.file)}: {outcome_words(appraisal)}", body, pictures.figures)


def _head(appraisal: Appraisal) -> Html:
    told = appraisal.told
    begin, online, end = (moment_words(at) for at in (told.begin_ms, told.online_ms, told.end_ms))
    facts = [
        ("Data", f"{begin} to {end}, every {length_words(1, told.interval_ms)}"),
        ("Forecast is", f"{told.target} of {counted(told.series, 'series', 'series')}"),
        ("Replayed", f"{span_words(told)}, from {online}: {counted(told.observations, 'observation')}"),
        ("Forecasts", f"{told.horizon:,} leads, up to {length_words(told.horizon, told.interval_ms)} ahead"),
        ("Updates", "judged by the gate before they answer" if told.gate else "plain ones, live at once: no gate"),
        ("Seeds", f"{told.seeds:,}" + (f"; the first fit took {fit_words(told)}" if told.fit_s else "")),
        ("Model", told.model),
    ]  # fmt: skip
    return tag(
        "header",
        tag("p", outcome_words(appraisal), class_="outcome"),
        tag("h1", f"Backtest of {name_of(told.file)}"),
        tag("p", plain_words(appraisal), class_="sentence"),
        tag("ul", *(tag("li", words) for words in more_words(appraisal))),
        tag("dl", *(part for name, words in facts for part in (tag("dt", name), tag("dd", words)))),
        class_=tone(appraisal),
    )


def _summary(appraisal: Appraisal) -> Html:
    advised = appraisal.advised
    one, other = appraisal.standing(advised.lstm), appraisal.standing(advised.baseline)
    tiles: list[Html] = []
    if one is not None:
        spread = "" if one.deviation is None else f" ± {one.deviation:.2g} over seeds"
        tiles.append(tile(f"Error, {one.name}", number(one.mse, figure(one.mse)), f"scaled MSE{spread}"))
    elif other is not None:
        tiles.append(tile(f"Error, {other.name}", number(other.mse, figure(other.mse)), "scaled MSE, best baseline"))
    if advised.against_frozen is not None:
        tiles.append(_faced(advised.against_frozen))
    if advised.against_baseline is not None:
        tiles.append(_faced(advised.against_baseline))
    if one is not None and one.retrainings:
        share = (
            "" if one.compute_share is None or one.name == ALWAYS else f", {share_words(one.compute_share)} of always'"
        )
        words = counted(round(one.retrainings), "retraining")
        took = f"{clock_words(one.training_s or 0.0)} of training{share}"
        tiles.append(tile(f"Cost, {one.name}", number(one.retrainings, words), took))
    return tag("div", *tiles, class_="strip") if tiles else Html()


def _faced(faced: Faced) -> Html:
    rests = [interval_words(faced), "" if faced.clear else "may be luck"]
    value = number(faced.share, less_words(faced.share))
    return tile(f"Error, {faced.name} against {faced.other}", value, ", ".join(filter(None, rests)))


def _method(told: Backtested) -> Html:
    days = (told.end_ms - told.online_ms) / DAY_MS
    luck = (
        f"“Beyond luck” means that the 95 % interval over the {days:,.0f} days, from a bootstrap of blocks of days, "
        "and that over the seeds leave zero out. It says what luck does on a span like this one, not what the next "
        "year brings; where errors are alike for months it is somewhat too narrow."
    )
    lines = [REPLAY, UNITS, SKILL, luck, COST]
    return section("How this was measured", tag("ul", *(tag("li", words) for words in lines)))


def _foot() -> Html:
    return tag(
        "footer",
        tag("p", "This page loads nothing; the same as JSON: ", tag("code", "killick backtest FILE --json"),
            "; every forecast, to be scored by anyone: ", tag("code", "--forecasts out.parquet")),
        tag("noscript", "The pictures need JavaScript; every number is in the tables."),
    )  # fmt: skip
