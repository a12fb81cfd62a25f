"""A verdict's words and numbers, from what a retraining found."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from models.decision import trial_of
from models.times import DAY_MS
from models.verdict import Verdict
from worker.retraining import INCUMBENT
from worker.settling import Made

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.decision import JudgementLimits
    from models.errors import KillickError
    from worker.lessons import Gathered
    from worker.retraining import Findings
    from worker.store import Request

URGENCY = ("restore", "improve", "investigate")


class Impact(NamedTuple):
    """What an error costs."""

    cost_per_unit_error: float  # of one forecast's absolute error; 0: not known
    unit: str


class Occasion(NamedTuple):
    """Why there was a retraining, and of what."""

    model: str
    interval_ms: int
    requests: Sequence[Request]  # that it answers; not empty
    incumbent: int
    newest_step: int | None

    @property
    def trigger(self) -> str:
        """Who asked: after a drift another test decides than without one."""
        triggers = [request.trigger for request in self.requests]
        return "drift" if "drift" in triggers else triggers[0]

    def verdict(self, **words: Any) -> Verdict:
        """The verdict on it."""
        goals = [request.goal for request in self.requests]
        return Verdict(
            id=self.requests[0].id,
            requests=tuple(request.id for request in self.requests),
            trigger=self.trigger,
            goal=next((goal for goal in URGENCY if goal in goals), goals[0]),
            why="; ".join(dict.fromkeys(request.why for request in self.requests)),
            model=self.model,
            interval_ms=self.interval_ms,
            incumbent=self.incumbent,
            newest_step=self.newest_step,
            **words,
        )


def failed(occasion: Occasion, error: KillickError, *, created_ms: int, seconds: float) -> Verdict:
    """The verdict on a retraining that came to nothing."""
    return occasion.verdict(outcome="failed", sentence=str(error), created_ms=created_ms, seconds=seconds)


def verdict_of(
    occasion: Occasion,
    gathered: Gathered,
    found: Findings,
    limits: JudgementLimits,
    impact: Impact,
    *,
    created_ms: int,
    seconds: float,
) -> tuple[Verdict, Made | None]:
    """The verdict, and the network that it chose."""
    trial = None
    if found.calibration is not None:
        trial, _ = trial_of(
            occasion.trigger, found.calibration, limits, spent=0.0
        )  # its level is set when it is written
    losses = found.losses
    verdict = occasion.verdict(
        outcome=found.decided.outcome,
        sentence=found.decided.sentence,
        created_ms=created_ms,
        seconds=seconds,
        chosen=found.decided.chosen,
        cuts=gathered.lesson.cuts,
        series=gathered.series,
        observations=gathered.observations,
        steps=int(np.isfinite(losses.loss[INCUMBENT]).sum()),
        leads=losses.leads,
        attempts=found.attempts,
        judged=found.judged,
        compared=found.compared,
        over_time=found.over_time,
        trial=trial,
        cost=_saved_a_day(gathered, found, impact),
        unit=impact.unit,
        notes=(*gathered.notes, *found.notes),
    )
    return verdict, _made(gathered, found, verdict)


def _saved_a_day(gathered: Gathered, found: Findings, impact: Impact) -> float | None:
    """What the chosen one's smaller errors save in a day, over all series; None: nobody knows what an error costs."""
    name, losses = found.decided.chosen, found.losses
    if name is None or not impact.cost_per_unit_error:
        return None
    cuts = gathered.lesson.cuts
    days = (cuts.end - cuts.evaluation_begin) * gathered.lesson.form.interval_ms / DAY_MS
    forecasts = losses.pairs / days * gathered.all_series / gathered.series
    return (losses.mae[INCUMBENT] - losses.mae[name]) * forecasts * impact.cost_per_unit_error


def _made(gathered: Gathered, found: Findings, verdict: Verdict) -> Made | None:
    chosen = found.chosen
    if chosen is None or chosen.weights is None:
        return None
    attempted: dict[str, Any] = msgspec.to_builtins(chosen.attempted)
    training = {
        "kind": "retraining",
        "strategy": attempted.pop("strategy"),
        "data": gathered.data,
        "spans": msgspec.to_builtins(verdict.cuts),
        "settings": {**asdict(gathered.lesson.training), "rate": attempted["rate"], "seed": attempted["seed"]},
        "curve": attempted.pop("curve"),
        "best_epoch": attempted["best_epoch"],
        "diagnosis": attempted["words"],
        "seconds": round(attempted["seconds"], 2),
        "recent_steps": attempted["recent_steps"],
        "inputs": gathered.inputs,
    }
    return Made(chosen.architecture, chosen.weights, training)
