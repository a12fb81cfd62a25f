"""Where settings become a retrainer: as `worker/wiring.py`, for the processes that update."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import fields
from typing import TYPE_CHECKING

from models.decision import JudgementLimits
from worker import wiring
from worker.gate_told import GateTold, read_gate
from worker.requests import RequestStore
from worker.store import ModelStore, PartitionStore
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumers.past import Stretch
    from models.learning import TrainingSettings
    from models.server import Client
    from models.strategies import Grid
    from worker.lessons import Lessons, Sources
    from worker.retrainer import Plans, Retrainer, Rules
    from worker.settings import Settings
    from worker.updating_view import Updating

LEAST_FRESH_PERIODS = 28  # of data that fresh weights are trained on


def requests(settings: Settings, client: Client, worker: str = "") -> RequestStore:
    """The model's requests."""
    return RequestStore(client, settings.model.name, worker)


def verdicts(settings: Settings, client: Client) -> VerdictStore:
    """The model's verdicts."""
    return VerdictStore(client, settings.model.name)


def judgement_limits(settings: Settings) -> JudgementLimits:
    """What a candidate has to pass."""
    judgement, interval_ms = settings.judgement, settings.interval_ms
    return JudgementLimits(
        gate=judgement.gate,
        question=judgement.trial,
        screen=judgement.screen,
        alpha=judgement.alpha,
        budget=judgement.budget,
        harm_alpha=judgement.guard_alpha,
        harm_steps=max(1, judgement.harm.ms // interval_ms),
        deadline_steps=max(1, judgement.deadline.ms // interval_ms),
    )


def training_settings(settings: Settings) -> TrainingSettings:
    """How networks are trained."""
    from models.learning import TrainingSettings

    training = settings.training
    return TrainingSettings(**{field.name: getattr(training, field.name) for field in fields(TrainingSettings)})


def grid(settings: Settings) -> Grid:
    """What a retraining tries."""
    from models.strategies import Budget, Grid

    retraining, training = settings.retraining, settings.training
    recents = (None if r == "all" else max(1, r.ms // settings.interval_ms) for r in retraining.recents)
    return Grid(
        strategies=retraining.strategies,
        rates=retraining.rates,
        recents=tuple(recents),
        update=Budget(retraining.epochs, retraining.patience),
        fresh=Budget(training.epochs, training.patience, training.rate),
        seed=training.seed,
        least_fresh=LEAST_FRESH_PERIODS * settings.period_steps,
    )


def retrainer(settings: Settings, client: Client, stopping: Callable[[], bool]) -> Retrainer:
    """A worker of the model's requests, with a name of its own.

    Raises:
        ConfigError: the archive's path can't be used.
    """
    from worker.retrainer import Retrainer
    from worker.settling import Settler

    worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    queue, judged = requests(settings, client, worker), verdicts(settings, client)
    plans = plans_of(settings)
    settler = Settler(worker, queue, judged, wiring.registry(settings, client), plans.limits)
    return Retrainer(worker, queue, judged, settler, lessons_of(settings, _sources(settings, client)), plans, stopping)


def tried(settings: Settings, client: Client) -> int | None:
    """The version whose live trial is under way."""
    trial = _gate(settings, client).trial
    return trial.version if trial is not None else None


def _gate(settings: Settings, client: Client) -> GateTold:
    return read_gate(ModelStore(client, settings.model.name).state("gate")[1], GateTold)


def plans_of(settings: Settings, executor: str | None = None) -> Plans:
    """What all retrainings have in common; `executor` in place of the one in the settings."""
    from worker.retrainer import Plans
    from worker.verdict_making import Impact

    return Plans(
        model=settings.model.name,
        interval_ms=settings.interval_ms,
        grid=grid(settings),
        rules=_rules(settings, executor),
        limits=judgement_limits(settings),
        impact=Impact(settings.impact.cost_per_unit_error, settings.impact.unit),
    )


def _rules(settings: Settings, executor: str | None = None) -> Rules:
    from worker.retrainer import Rules

    retraining, interval_ms = settings.retraining, settings.interval_ms
    return Rules(
        cooldown_steps=retraining.cooldown.ms // interval_ms,
        new_steps=retraining.new_data.ms // interval_ms,
        executor=executor or retraining.executor,
        workers=retraining.workers,
        repeats=retraining.repeats,
        timeout_s=retraining.timeout.seconds,
    )


def lessons_of(settings: Settings, sources: Sources) -> Lessons:
    """What retrainings learn from."""
    from worker.lessons import Lessons, Shares

    retraining = settings.retraining
    shares = Shares(
        history_steps=retraining.history.ms // settings.interval_ms,
        series=retraining.series,
        validation=retraining.validation,
        evaluation=retraining.evaluation,
        recent_share=retraining.recent_share,
        recent_inputs_steps=settings.recent_steps,
    )
    return Lessons(sources, settings.series_form(), shares, training_settings(settings), retraining.threads)


def _sources(settings: Settings, client: Client) -> Sources:
    from consumers.past import recorded
    from worker.lessons import SERIES_SEED, Sources

    registered = wiring.registry(settings, client)

    def newest() -> int | None:
        stores = (PartitionStore(client, settings.model.name, n) for n in range(registered.partitions()))
        return max((s.newest for s in (store.standing() for store in stores) if s.newest is not None), default=None)

    archive = wiring.archive(settings)

    def stream(*, since_step: int, alive: Callable[[], None]) -> tuple[list[Stretch], int]:
        ledgers = wiring.ledgers(settings, client)
        return recorded(
            ledgers, archive, since_step=since_step, series=settings.retraining.series, seed=SERIES_SEED, alive=alive
        )

    return Sources(
        registry=registered,
        recorded=stream,
        histories=wiring.histories(settings),
        newest=newest,
        tried=lambda: tried(settings, client),
    )


def updating(settings: Settings, client: Client, count: int) -> Updating:
    """What is to see of updating now, with the newest `count` verdicts."""
    from worker.readiness import waits_for
    from worker.updating_view import Updating

    queue, judged = requests(settings, client), verdicts(settings, client)
    rules = _rules(settings)
    lessons, waiting, recent = lessons_of(settings, _sources(settings, client)), queue.waiting(), judged.recent(count)
    known = lessons.known(recent[0].newest_step if recent else None)
    limits = {"cooldown_steps": rules.cooldown_steps, "new_steps": rules.new_steps}
    return Updating(
        aliases=wiring.registry(settings, client).aliases(),
        waiting=waiting,
        waits_for=[waits_for(one.request, known, **limits) for one in waiting],
        progress=queue.progress(),
        gate=_gate(settings, client),
        verdicts=recent,
        spent=judged.spent(),
        budget=settings.judgement.budget,
    )
