"""A verdict in words: numbers and times as people read them, what happens next, and a view for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from models.audit import printable
from models.strategies import CONTROL
from worker.report_numbers import figure, length_words, moment_words, p_words, percent, signed, skill_words
from worker.report_picked import INCUMBENT, compared, foremost, judged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from models.audit import AuditEntry
    from models.verdict import Compared, Outcome, Trial, Verdict

OUTCOMES: dict[Outcome, str] = {
    "promote": "promote",
    "reject": "reject",
    "inconclusive": "inconclusive",
    "failed": "failed",
}
COLORS: dict[Outcome, str] = {"promote": "green", "reject": "yellow", "inconclusive": "yellow", "failed": "red"}
MADE = {
    INCUMBENT: "the version that answers",
    "update-on-new": "the incumbent's weights, trained on new data",
    "update-on-all": "the incumbent's weights, trained on old and new data",
    "new-on-new": "fresh weights, trained on new data",
    "new-on-all": "fresh weights, trained on old and new data",
    CONTROL: "the control: the incumbent, trained equally longer on old data",
    "persistence": "the last observation goes on",
    "seasonal": "what was observed a period ago",
}


def title(verdict: Verdict) -> str:
    """What the verdict is on."""
    if verdict.version is None:
        return f"Verdict of model {verdict.model}: no new version"
    return f"Verdict on version {verdict.version} of model {verdict.model}"


def plain_words(verdict: Verdict) -> str:
    """The decision for who reads one line."""
    stays = f"Version {verdict.incumbent} stays"
    if verdict.outcome == "promote" and verdict.version is not None:
        tried = verdict.trial is not None and verdict.trial.mode != "none"
        return (
            f"Version {verdict.version} is to {'be tried live' if tried else 'answer'}: over {verdict.steps:,} steps "
            f"that no training had seen it forecast better than version {verdict.incumbent}."
        )
    if verdict.outcome == "failed":
        return f"{stays}: the retraining failed."
    if foremost(verdict) is None:
        return f"{stays}: there was no candidate to compare it with."
    if verdict.outcome == "reject":
        return f"{stays}: no candidate was better."
    return f"{stays}: a candidate looked better, but that may be luck."


def counted(count: int, noun: str, plural: str = "") -> str:
    """So many of something."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def name_of(file: str) -> str:
    """A file's name without its folders, of whatever system they are."""
    return file.replace("\\", "/").rsplit("/", 1)[-1] or file


def interval_words(one: Compared) -> str:
    """A difference with its interval."""
    low, high = signed(one.low), signed(one.high)
    return f"{signed(one.difference)} [{low}, {high}]"


def next_steps(verdict: Verdict) -> list[str]:
    """What happens after the verdict, a sentence each."""
    if verdict.outcome != "promote" or verdict.version is None:
        return _unchanged(verdict)
    version, incumbent = f"version {verdict.version}", f"version {verdict.incumbent}"
    if verdict.trial is None or verdict.trial.mode == "none":
        found = [f"There is no live trial: {version} may answer at once, in place of {incumbent}."]
    else:
        found = _trial(verdict.trial, version, incumbent, verdict.interval_ms)
    return [
        *found,
        f"Where approval is required, a person signs it off first: killick approve {verdict.version} --reason TEXT.",
        (
            f"After a promotion {incumbent} runs on as a shadow. If it proves better, or {version} breaks, the guard "
            "rolls back by itself; a person does with killick rollback --reason TEXT."
        ),
    ]


def _unchanged(verdict: Verdict) -> list[str]:
    goes_on = f"Nothing changes: version {verdict.incumbent} goes on answering."
    if verdict.outcome == "inconclusive":
        return [goes_on, "The data did not decide. A later request has more of it."]
    if verdict.outcome == "failed":
        return [goes_on, "When what failed is repaired, ask again: killick retrain --reason TEXT."]
    return [goes_on, "The next request starts anew."]


def _trial(trial: Trial, version: str, incumbent: str, interval_ms: int) -> list[str]:
    needed = f"e-value of {1 / trial.alpha:,.0f} (1 / alpha, alpha = {trial.alpha:g})"
    blocks = trial.calibration
    counted = (
        f"Loss differences are counted in blocks of {blocks.block_steps:,} steps, whose means have a lag-1 "
        f"autocorrelation of {blocks.lag1:.2f} and a standard deviation of {figure(blocks.scale)} (found on "
        f"{blocks.steps:,} steps)."
    )
    runs = f"Live trial: {version} is the candidate. It reads the stream beside {incumbent}, and is not published."
    if trial.mode == "superiority":
        deadline = length_words(trial.deadline_steps, interval_ms)
        told = (
            f"It is promoted once it is proved better: an {needed} and a mean difference above zero. Undecided for "
            f"{trial.deadline_steps:,} steps ({deadline}) the trial ends, and {incumbent} goes on answering."
        )
    else:
        harm = length_words(trial.harm_steps, interval_ms)
        told = (
            f"It must not prove worse. Without harm for {trial.harm_steps:,} steps ({harm}) it is promoted; harm, an "
            f"{needed} that it is worse, ends the trial, and {incumbent} goes on answering."
        )
    return [runs, told, counted]


def since_words(verdict: Verdict, entries: Sequence[AuditEntry]) -> str:
    """What became of the version since, by the audit; empty where nothing did."""
    last = next((one for one in concerned(verdict, entries) if one.event != "register"), None)
    if last is None or verdict.version is None:
        return ""
    happened = happened_words(verdict.version, last)
    return f"Version {verdict.version} {happened} by {last.actor} at {moment_words(last.time_ms)}: {last.reason}"


def happened_words(version: int, entry: AuditEntry) -> str:
    """What a change of the registry meant for a version."""
    lost = entry.before == version and entry.after != version
    other = "no version" if entry.after is None else f"version {entry.after}"
    words = {
        ("register", False): "was registered",
        ("nominate", False): "was made the candidate",
        ("nominate", True): f"stopped being the candidate, {other} is,",
        ("approve", False): "was signed off",
        ("promote", False): "was promoted",
        ("promote", True): f"was followed by {other}, promoted",
        ("incumbent", False): "was made the incumbent",
        ("rollback", False): "was made to answer again",
        ("rollback", True): f"was rolled back to {other}",
        ("retire", False): "was retired",
    }
    return words.get((entry.event, lost), printable(entry.event))


def concerned(verdict: Verdict, entries: Sequence[AuditEntry]) -> list[AuditEntry]:
    """The entries of the audit that concern the verdict's version, the newest first."""
    if verdict.version is None:
        return []
    found = [one for one in entries if verdict.version in (one.version, one.before, one.after)]
    return sorted(found, key=lambda one: one.time_ms, reverse=True)


def control_words(verdict: Verdict) -> str:
    """What the control says about the gain."""
    incumbent, control = judged(verdict, INCUMBENT), judged(verdict, CONTROL)
    meaning = (
        "The control is the incumbent trained for as many gradient steps on old data only: what it gains comes from "
        "mere further training, what a finalist gains beyond it from the new data."
    )
    if control is None or incumbent is None or not incumbent.mse:
        return ""
    best = judged(verdict, foremost(verdict))
    here = f" Its error is {percent(control.mse / incumbent.mse - 1)} against the incumbent's"
    if best is not None:
        here += f", that of {best.name} {percent(best.mse / incumbent.mse - 1)}"
    return f"{meaning}{here}."


def verdict_lines(verdict: Verdict) -> RenderableType:
    """The verdict for a terminal: the decision, the finalists, what happens next."""
    head = Text.assemble(
        (OUTCOMES[verdict.outcome], f"bold {COLORS[verdict.outcome]}"),
        (f"  {moment_words(verdict.created_ms)}  {verdict.id}  because of {printable(verdict.trigger)}", "dim"),
    )
    told = (plain_words(verdict), verdict.sentence)
    lines: list[RenderableType] = [head, *(Text(f"  {printable(words)}") for words in told)]
    if verdict.judged:
        lines.append(_judged_table(verdict))
    lines += [Text(f"  {sentence}", style="dim") for sentence in next_steps(verdict)[:1]]
    return Group(*lines)


def _judged_table(verdict: Verdict) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("  contender", no_wrap=True)
    for heading in ("skill", "error", "difference", "95 % interval", "p (Holm)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in verdict.judged:
        found = compared(verdict, one.name)
        held = [""] * 3
        if found is not None:
            low, high = signed(found.low), signed(found.high)
            held = [signed(found.difference), f"{low} … {high}", p_words(found.p_holm)]
        chosen = one.name == verdict.chosen
        table.add_row(
            f"{'▸' if chosen else ' '} {printable(one.name)}", skill_words(one.skill), figure(one.mse), *held,
            style="bold" if chosen else "dim" if one.name == CONTROL else "",
        )  # fmt: skip
    return table
