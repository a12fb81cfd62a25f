"""What is asked for, trained, tried and was decided: read together, as lines for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from models.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.registry import Aliases
    from models.verdict import Verdict
    from worker.gate_told import GateTold
    from worker.requests import Progress, Waiting

SHORT = 8  # characters of an id
SHOWN_ENDS = 3


@dataclass(frozen=True)
class Updating:
    """All there is to see of updating at one moment."""

    aliases: Aliases
    waiting: Sequence[Waiting]
    waits_for: Sequence[str]  # each of them; "" where it is ready
    progress: Progress | None
    gate: GateTold
    verdicts: Sequence[Verdict]  # newest first
    spent: float  # of the budget of live trials
    budget: float


def updating_json(view: Updating) -> dict[str, Any]:
    """The same as JSON values; of each verdict all that it holds."""
    return {
        "candidate": view.aliases.candidate,
        "approved": view.aliases.approved,
        "paused": view.aliases.paused,
        "requests": [
            {**msgspec.to_builtins(one.request), "worker": one.worker or None, "taken": one.taken, "waits_for": why}
            for one, why in zip(view.waiting, view.waits_for, strict=True)
        ],
        "progress": msgspec.to_builtins(view.progress),
        "trial": msgspec.to_builtins(view.gate.trial),
        "guard": msgspec.to_builtins(view.gate.guard),
        "ended": msgspec.to_builtins(view.gate.ended),
        "alpha_spent": view.spent,
        "alpha_budget": view.budget,
        "verdicts": [msgspec.to_builtins(verdict) for verdict in view.verdicts],
    }


def lines(view: Updating) -> Iterator[str]:
    """The same in lines: what is under way first, then the verdicts."""
    yield from _under_way(view)
    if not view.verdicts:
        yield "no verdict yet: a drift asks for one, and `killick retrain --reason TEXT`; a `killick retrainer` answers"
    for verdict in view.verdicts:
        version = f"version {verdict.version}" if verdict.version else ""
        yield (
            f"{rfc3339(verdict.created_ms // 1000 * 1000)}  {short(verdict.id):<{SHORT + 2}}  {verdict.outcome:<12}  "
            f"{version:<10}  {verdict.trigger}: {verdict.sentence}"
        )


def short(name: str) -> str:
    """The beginning of an id, with the number of the look that it is about, if there is one."""
    base, dot, look = name.partition(".")
    return base[:SHORT] + dot + look


def _under_way(view: Updating) -> Iterator[str]:
    now = view.progress
    for one, why in zip(view.waiting, view.waits_for, strict=True):
        state = f"waits for {why or 'a retrainer'}"
        if now is not None and one.request.id in now.requests:
            state = f"{now.done} of {now.total} trainings, {now.note}"
        yield f"request {short(one.request.id)}  {one.request.trigger}: {one.request.why}\n    {state}"
    trial, guard = view.gate.trial, view.gate.guard
    if trial is not None:
        signed = "approved; " if view.aliases.approved == trial.version else ""
        evidence = f"evidence {trial.e_value:.3g} of {trial.needed:.3g} over {trial.steps:,} steps"
        who = f"trial of version {trial.version} beside {trial.against}"
        yield f"{who}  {signed}{trial.state}: {evidence}  {trial.words}".rstrip()
    elif view.aliases.candidate is not None:
        decides = "nothing but a person decides on it"
        if view.gate.watched != view.aliases.candidate:
            decides = "its trial begins when a `killick monitor` sees it"
        yield f"version {view.aliases.candidate} is the candidate; {decides}"
    if guard is not None:
        evidence = f"evidence {guard.e_value:.3g} of {guard.needed:.3g} over {guard.steps:,} steps"
        what = f"that version {guard.previous} was better"
        yield f"guard over version {guard.version}  {guard.state}: {evidence} {what}  {guard.words}".rstrip()
    for end in view.gate.ended[-SHOWN_ENDS:]:
        yield f"{rfc3339(end.time_ms // 1000 * 1000)}  version {end.version} {end.outcome}: {end.sentence}"
    if view.spent:
        yield f"live trials have spent {view.spent:.3g} of their budget of {view.budget:g} (judgement.budget)"
    if view.aliases.paused:
        yield "automatic promotion is paused until `killick resume`"
