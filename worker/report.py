"""A verdict as one page: it loads nothing, opens anywhere, and says the decision first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from models.strategies import CONTROL
from worker.report_attempts import amounts, everything, learning
from worker.report_html import Html, Pictures, document, joined, number, section, table, tag
from worker.report_numbers import clock_words, figure, length_words, moment_words, p_words, skill_words, step_words
from worker.report_picked import INCUMBENT, compared, finalists, foremost, judged
from worker.report_sections import (
    contenders,
    difference,
    impact,
    leads,
    spans,
    summary,
)
from worker.report_words import (
    OUTCOMES,
    concerned,
    counted,
    happened_words,
    interval_words,
    next_steps,
    plain_words,
    since_words,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.audit import AuditEntry
    from models.verdict import Verdict


def page(verdict: Verdict, entries: Sequence[AuditEntry] = ()) -> str:
    """The verdict as HTML; `entries` are the audit's, of which those that concern its version are shown."""
    pictures = Pictures()
    body = tag(
        "main",
        _head(verdict, entries),
        summary(verdict),
        _next(verdict, entries),
        _steps(verdict, entries),
        contenders(verdict, pictures),
        difference(verdict, pictures),
        leads(verdict, pictures),
        impact(verdict),
        learning(verdict, pictures),
        amounts(verdict, pictures),
        spans(verdict),
        everything(verdict),
        _audit(verdict, entries),
        _foot(verdict),
    )
    return document(f"{title(verdict)}: {OUTCOMES[verdict.outcome]}", body, pictures.figures)


def encoded(verdict: Verdict) -> bytes:
    """The verdict as JSON."""
    return msgspec.json.format(msgspec.json.encode(verdict))


def _head(verdict: Verdict, entries: Sequence[AuditEntry]) -> Html:
    since = since_words(verdict, entries)
    asked = f"{verdict.trigger}, to {verdict.goal}: {verdict.why}"
    facts = [
        ("Written", f"{moment_words(verdict.created_ms)}, after {clock_words(verdict.seconds)} of work"),
        ("Asked for by", asked),
        ("Request", ", ".join(verdict.requests) or verdict.id),
        ("Parent", f"version {verdict.incumbent}, the incumbent then"),
        ("Since then", since),
    ]
    told = [part for name, words in facts if words for part in (tag("dt", name), tag("dd", words))]
    notes = tag("ul", *(tag("li", note) for note in verdict.notes)) if verdict.notes else ""
    return tag(
        "header",
        tag("p", OUTCOMES[verdict.outcome], class_="outcome"),
        tag("h1", title(verdict)),
        tag("p", plain_words(verdict), class_="sentence"),
        tag("p", verdict.sentence),
        tag("dl", *told),
        joined([tag("h3", "Notes"), notes]) if notes else "",
        class_=verdict.outcome,
    )


def _next(verdict: Verdict, entries: Sequence[AuditEntry]) -> Html:
    title = "What was to happen next" if since_words(verdict, entries) else "What happens next"
    return section(title, tag("ul", *(tag("li", words) for words in next_steps(verdict))))


def _steps(verdict: Verdict, entries: Sequence[AuditEntry]) -> Html:
    rows = [
        ["1. Collect new data", _collected(verdict)],
        ["2. Evaluate the existing model", _evaluated(verdict)],
        ["3. Develop updated models", _developed(verdict)],
        ["4. Compare", _compared(verdict)],
        ["5. Replace", _replaced(verdict, entries)],
    ]
    return section(
        "The five steps",
        table("What each step of updating did here", ["step", "what came of it"], rows, texts=2, stacks=True),
    )


def _collected(verdict: Verdict) -> str:
    if verdict.cuts is None:
        return "No spans were cut."
    begin, end = (step_words(step, verdict.interval_ms) for step in (verdict.cuts.new_begin, verdict.cuts.end))
    return (
        f"{counted(verdict.observations, 'observation')} of {verdict.series:,} series; new data of "
        f"{length_words(verdict.cuts.end - verdict.cuts.new_begin, verdict.interval_ms)}, {begin} to {end} UTC"
    )


def _evaluated(verdict: Verdict) -> Html:
    found = judged(verdict, INCUMBENT)
    if found is None:
        return Html("Not done.")
    return joined(
        [f"Version {verdict.incumbent} over {verdict.steps:,} steps: error ", number(found.mse, figure(found.mse)),
         ", skill ", number(found.skill, skill_words(found.skill)), ", MAE ", number(found.mae, figure(found.mae))]
    )  # fmt: skip


def _developed(verdict: Verdict) -> str:
    if not verdict.attempts:
        return "Nothing was trained."
    names = dict.fromkeys(one.strategy for one in verdict.attempts if one.strategy != CONTROL)
    exploded = sum(one.outcome == "exploded" for one in verdict.attempts)
    control = any(one.strategy == CONTROL for one in verdict.attempts)
    return (
        f"{counted(len(verdict.attempts), 'training')} by {counted(len(names), 'strategy', 'strategies')}"
        f"{' and the control' if control else ''}: {clock_words(sum(one.seconds for one in verdict.attempts))}, "
        f"{counted(sum(one.gradient_steps for one in verdict.attempts), 'gradient step')}"
        + (f"; {exploded} exploded" if exploded else "")
    )


def _compared(verdict: Verdict) -> str:
    name = foremost(verdict)
    found = compared(verdict, name)
    count = len(finalists(verdict))
    if found is None:
        return "There was no finalist." if not count else f"{count} judged, none compared."
    return (
        f"{counted(count, 'finalist')}; {name}: difference {interval_words(found)}, "
        f"p after Holm {p_words(found.p_holm)}"
    )


def _replaced(verdict: Verdict, entries: Sequence[AuditEntry]) -> str:
    since = since_words(verdict, entries)
    return since or next_steps(verdict)[0]


def _audit(verdict: Verdict, entries: Sequence[AuditEntry]) -> Html:
    found = concerned(verdict, entries)
    if verdict.version is None or not found:
        return Html()
    rows = [
        [moment_words(one.time_ms), happened_words(verdict.version, one).strip(","), one.actor, one.reason]
        for one in reversed(found)
    ]
    return section(
        "Audit",
        table(f"What was done with version {verdict.version}", ["time", "it", "by", "why"], rows, texts=4, stacks=True),
    )


def _foot(verdict: Verdict) -> Html:
    words = f"Verdict {verdict.id} of model {verdict.model}. This page loads nothing; the same as JSON: "
    return tag("footer", tag("p", words, tag("code", f"killick report {verdict.id} --json")), tag("noscript",
        "The pictures need JavaScript; every number is in the tables."))  # fmt: skip
