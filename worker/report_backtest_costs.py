"""The sections of a backtest's page on updating: what it cost, what happened, every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.backtest_appraisal import ALWAYS, FROZEN
from worker.report_backtest_figures import by_cost
from worker.report_backtest_scores import named, with_deviation
from worker.report_html import Html, number, section, table, tag
from worker.report_numbers import MINUS, NONE, clock_words, count_words, figure, step_words
from worker.report_words import counted

if TYPE_CHECKING:
    from worker.backtest_appraisal import Appraisal, Standing
    from worker.report_html import Pictures

MOST_ROWS = 300  # things that happened to one policy


def costs(appraisal: Appraisal, pictures: Pictures) -> Html:
    """What each policy trained, and for what gain."""
    shown = [one for one in appraisal.standings if one.policy]
    if not any(one.retrainings for one in shown):
        return Html()
    headings = ["policy", "error (scaled MSE)", "of always' gain", "of always' training", "retrainings", "promotions",
                "rollbacks", "gradient steps", "training", "whole run"]  # fmt: skip
    rows = [_costs(one) for one in shown]
    strong = next((i for i, one in enumerate(shown) if one.name == appraisal.advised.chosen), None)
    return section(
        "What updating costs",
        tag("p", _gain_words(appraisal)),
        pictures.place("by_cost", by_cost(appraisal),
            "Each policy's error by how much it trained, with the baselines as lines; the table has the numbers.",
            "Low and left is good: little error for little training. Bars: the standard deviation over seeds."),
        table("Gain and cost of each policy, means over seeds, without the first fit", headings, rows, strong=strong),
    )  # fmt: skip


def _costs(one: Standing) -> list[str]:
    counts = (one.retrainings, one.promotions, one.rollbacks)
    return [
        named(one.name),
        with_deviation(one.mse, one.deviation),
        number(one.gain_share, _share(one.gain_share)),
        number(one.compute_share, _share(one.compute_share)),
        *(number(count, count_words(count)) for count in counts),
        number(one.gradient_steps, f"{one.gradient_steps or 0:,.0f}"),
        number(one.training_s, clock_words(one.training_s or 0.0)),
        number(one.seconds, clock_words(one.seconds or 0.0)),
    ]


def _gain_words(appraisal: Appraisal) -> str:
    if appraisal.standing(FROZEN) is None:
        return "Against what updating gains can't be told: never was not run."
    if appraisal.standing(ALWAYS) is None:
        return "always was not run, so that there is no most to compare with."
    faced = appraisal.faced(ALWAYS, FROZEN)
    told = "The gain of always is its error below that of never."
    if faced is None or faced.share <= 0:
        return f"{told} Here it gains nothing, so that nothing can have a share of it."
    return told if faced.clear else f"{told} Here that may be luck: read shares of it with care."


def happened(appraisal: Appraisal) -> Html:
    """What happened to the versions of each policy, of its first seed."""
    parts = []
    for one in appraisal.standings:
        runs = appraisal.runs(one.name)
        if not runs or not runs[0].happened:
            continue
        found = runs[0].happened
        rows = [
            [step_words(event.step, appraisal.told.interval_ms), event.kind,
             NONE if event.version is None else f"{event.version}", event.words]
            for event in found[:MOST_ROWS]
        ]  # fmt: skip
        told = f"{one.name}: {counted(len(found), 'event')}"
        told += f", the first {MOST_ROWS} of them" if len(found) > MOST_ROWS else ""
        caption = f"What happened to {one.name}, seed {runs[0].seed}"
        parts.append(tag("details", tag("summary", told),
            table(caption, ["time, UTC", "it", "version", "words"], rows, texts=4), class_="long"))  # fmt: skip
    return section("What happened", *parts)


def runs(appraisal: Appraisal) -> Html:
    """Every run by itself."""
    found = [run for one in appraisal.standings for run in appraisal.runs(one.name)]
    if not found:
        return Html()
    rows = [
        [
            run.policy, number(run.seed, f"{run.seed}"), number(run.scores.mse, figure(run.scores.mse)),
            number(run.scores.mae, figure(run.scores.mae)), number(run.retrainings, f"{run.retrainings:,}"),
            number(run.promotions, f"{run.promotions:,}"), number(run.rollbacks, f"{run.rollbacks:,}"),
            number(run.gradient_steps, f"{run.gradient_steps:,}"), number(run.training_s, clock_words(run.training_s)),
            number(run.observations / run.seconds if run.seconds > 0 else None,
                   f"{run.observations / run.seconds:,.0f}" if run.seconds > 0 else NONE),
        ]
        for run in found
    ]  # fmt: skip
    headings = ["policy", "seed", "error (scaled MSE)", "MAE", "retrainings", "promotions", "rollbacks",
                "gradient steps", "training", "observations/s"]  # fmt: skip
    return section(
        "Every run",
        tag("details", tag("summary", counted(len(rows), "run")), table("Runs by policy and seed", headings, rows)),
    )


def _share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.0f} %".replace("-", MINUS)
