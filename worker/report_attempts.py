"""The sections of a verdict's page that tell of trainings: learning curves, sensitivity, every attempt."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from models.strategies import CONTROL
from worker.report_figures import curves, sensitivity
from worker.report_html import Html, joined, number, section, table, tag
from worker.report_numbers import clock_words, figure, rate_words, recent_words
from worker.report_picked import best, finalist, grid, strategies
from worker.report_words import counted

if TYPE_CHECKING:
    from models.verdict import Attempted, Verdict
    from worker.report_html import Pictures


def learning(verdict: Verdict, pictures: Pictures) -> Html:
    """The learning curves of each strategy, with what they were diagnosed as."""
    if not verdict.attempts:
        return Html()
    parts: list[str] = []
    rows: list[list[str]] = []
    for at, strategy in enumerate(strategies(verdict)):
        of_strategy = [one for one in verdict.attempts if one.strategy == strategy]
        chosen = finalist(verdict, strategy)
        words = ", ".join(f"{name} {count}" for name, count in Counter(one.diagnosis for one in of_strategy).items())
        alt = f"Learning curves of {strategy}: training dotted, validation solid; {words}."
        parts.append(
            tag(
                "div",
                tag("h3", strategy, " (control)" if strategy == CONTROL else ""),
                pictures.place(f"curves{at}", curves(verdict, strategy), alt),
                tag("p", f"{len(of_strategy)} tried: {words}.", class_="soft"),
            )
        )
        if chosen is not None:
            rows.append(_best_row(verdict, chosen))
    headings = ["finalist", "diagnosis", "rate", "recent data", "epoch kept", "training loss", "validation loss",
                "validation error"]  # fmt: skip
    return section(
        "Learning curves",
        tag("p", "Solid: validation, dotted: training. Strong: the finalist, which had the least error on the "
            "validation span; faint: others, some forty at most. The dot is the epoch whose weights were kept. Losses "
            "are in units of the gain and can't be compared between strategies; the validation error can."),
        tag("div", *parts, class_="several"),
        table("The finalist of each strategy", headings, rows, texts=2) if rows else "",
    )  # fmt: skip


def _best_row(verdict: Verdict, one: Attempted) -> list[str]:
    kept = next((epoch for epoch in one.curve if epoch.epoch == one.best_epoch), None)
    losses = (None, None) if kept is None else (kept.train_loss, kept.validation_loss)
    return [
        one.strategy,
        one.words,
        number(one.rate, rate_words(one.rate)),
        recent_words(one.recent_steps, verdict.interval_ms),
        f"{one.best_epoch} of {len(one.curve)}",
        *(number(loss, figure(loss)) for loss in losses),
        number(one.validation_mse, figure(one.validation_mse)),
    ]


def amounts(verdict: Verdict, pictures: Pictures) -> Html:
    """The validation error by amount of recent data and learning rate."""
    parts, rows = [], []
    for at, strategy in enumerate(name for name in strategies(verdict) if name != CONTROL):
        shown = sensitivity(verdict, strategy)
        if shown is not None:
            alt = f"Map of the validation error of {strategy} by learning rate and amount of recent data."
            parts.append(tag("div", tag("h3", strategy), pictures.place(f"amounts{at}", shown, alt)))
            rows += _amounts(verdict, strategy)
    if not parts:
        return Html()
    return section(
        "Sensitivity to recent data and learning rate",
        tag("p", "Error (scaled MSE) on the validation span, which chose among the attempts. Stronger is better; ★ the "
            "best of its strategy."),
        tag("div", *parts, class_="several"),
        tag("details", tag("summary", "Table of these attempts"),
            table("Validation error by recent data and learning rate",
                  ["strategy", "recent data", "rate", "validation error"], rows)),
    )  # fmt: skip


def _amounts(verdict: Verdict, strategy: str) -> list[list[str]]:
    chosen = best(verdict, strategy)
    return [
        [
            strategy,
            recent_words(one.recent_steps, verdict.interval_ms),
            number(one.rate, rate_words(one.rate)),
            _validation(one, "★ " if one is chosen else ""),
        ]
        for one in grid(verdict, strategy)
    ]


def everything(verdict: Verdict) -> Html:
    """All attempts."""
    if not verdict.attempts:
        return Html()
    headings = ["strategy", "outcome", "diagnosis", "rate", "recent data", "seed", "validation error", "epoch kept",
                "gradient steps", "took"]  # fmt: skip
    chosen = [finalist(verdict, name) for name in strategies(verdict)]
    rows = [
        [
            one.strategy,
            one.outcome,
            f"{one.diagnosis}{' ★' if any(one is other for other in chosen) else ''}",
            number(one.rate, rate_words(one.rate)),
            recent_words(one.recent_steps, verdict.interval_ms),
            number(one.seed, f"{one.seed}"),
            _validation(one),
            f"{one.best_epoch} of {len(one.curve)}",
            number(one.gradient_steps, f"{one.gradient_steps:,}"),
            number(one.seconds, clock_words(one.seconds)),
        ]
        for one in verdict.attempts
    ]
    return section(
        "All attempts",
        table(f"{counted(len(rows), 'training')}; ★ the finalist of its strategy", headings, rows, texts=3),
    )


def _validation(one: Attempted, before: str = "") -> Html:
    if one.outcome == "exploded":
        return Html("exploded")
    return joined([before, number(one.validation_mse, figure(one.validation_mse))])
