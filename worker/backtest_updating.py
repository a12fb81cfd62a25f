"""How a backtest answers requests: by the plain update, live at once; or as the service does, by its own retrainer.

gate off: request ─► plain update ─► registered, promoted
gate on:  request ─► Retrainer (waits, grid, comparison, verdict) ─► candidate ─► its live trial, by the gate
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from consumers.past import drawn
from models.drift_inputs import inputs_of
from models.errors import DataError
from models.times import rfc3339
from models.weights import weights_to_bytes
from worker.backtest_told import Happening
from worker.executors import INLINE
from worker.lessons import SERIES_SEED, Sources
from worker.retrainer import Retrainer
from worker.settling import Settler
from worker.wiring_updating import lessons_of, plans_of, training_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumers.past import Stretch
    from worker.backtest_scene import First, Scene
    from worker.backtest_update import Material
    from worker.memory import MemoryRequests, MemoryVerdicts
    from worker.memory_registry import MemoryRegistry
    from worker.settings import Settings

ACTOR = "backtest"


@dataclass
class Spent:
    """What updating took."""

    retrainings: int = 0
    seconds: float = 0.0
    gradient_steps: int = 0
    happened: list[Happening] = field(default_factory=list)


@dataclass(frozen=True)
class Desks:
    """What is kept of a run in memory."""

    registry: MemoryRegistry
    requests: MemoryRequests
    verdicts: MemoryVerdicts


class Updating(Protocol):
    """Answers the requests that wait."""

    spent: Spent

    def step(self, newest: int, now_ms: int) -> None:
        """Do what there is to do; `newest` is the last step that is known."""


class Plain:
    """The plain update of [update]."""

    def __init__(self, scene: Scene, desks: Desks, first: First, material: Material, seed: int) -> None:
        self._scene = scene
        self._desks = desks
        self._first = first
        self._material = material
        self._learning = replace(training_settings(scene.settings), seed=seed)
        self._weights = first.weights
        self._old_end: int | None = None
        self.spent = Spent()

    def on_old(self) -> Plain:
        """The control: it learns from nothing but what the first version was fitted on."""
        self._old_end = self._scene.online_step
        return self

    def step(self, newest: int, now_ms: int) -> None:
        """Update once, whatever number of requests there are; not at all where nothing can be learned from."""
        waiting = self._desks.requests.waiting()
        if not waiting:
            return
        self._desks.requests.answered([one.entry for one in waiting])
        spent, rules, why = self.spent, self._scene.rules, waiting[0].request.why
        try:
            updated = self._material.update(
                self._first,
                self._weights,
                self._learning,
                rules,
                step=newest + 1,
                number=spent.retrainings + 1,
                old_end=self._old_end,
            )
        except DataError as error:  # after a long gap there may be no label yet
            spent.happened.append(Happening(step=newest, kind="update", words=f"{error} ({why})"))
            return
        spent.retrainings += 1
        spent.seconds += updated.seconds
        spent.gradient_steps += updated.steps
        if updated.wrong:
            spent.happened.append(Happening(step=newest, kind="update", words=f"{updated.wrong} ({why})"))
            return
        self._weights = updated.weights
        incumbent = self._desks.registry.aliases().incumbent or 0
        version = self._desks.registry.register(
            self._first.architecture,
            weights_to_bytes(updated.weights, self._first.architecture),
            training=trained_on(self._scene, "update", newest + 1 - rules.recent_steps, newest + 1),
            parent=incumbent,
            actor=ACTOR,
            reason=why,
            now_ms=now_ms,
        )
        self._desks.registry.promote(version, expected=incumbent, actor=ACTOR, reason=why, now_ms=now_ms)


class Gated:
    """The service's retrainer, whose candidates have to pass the gate."""

    def __init__(
        self, scene: Scene, desks: Desks, seed: int, newest: Callable[[], int | None], tried: Callable[[], int | None]
    ) -> None:
        """`newest` step that was counted, `tried`: the version whose live trial is under way."""
        settings = _seeded(scene.settings, seed)
        self._scene = scene
        self._newest = newest
        sources = Sources(desks.registry, self._recorded, None, newest, tried)
        plans = plans_of(settings, INLINE)
        self._retrainer = Retrainer(
            ACTOR,
            desks.requests,
            desks.verdicts,
            Settler(ACTOR, desks.requests, desks.verdicts, desks.registry, plans.limits),
            lessons_of(settings, sources),
            plans,
            lambda: False,
        )
        self.spent = Spent()

    def step(self, newest: int, now_ms: int) -> None:
        """Let the retrainer take up what is ready."""
        verdict = self._retrainer.step(now_ms)
        if verdict is None:
            return
        spent = self.spent
        spent.retrainings += 1
        spent.seconds += verdict.seconds
        spent.gradient_steps += sum(one.gradient_steps for one in verdict.attempts)
        words = f"{verdict.outcome}: {verdict.sentence}"
        spent.happened.append(Happening(step=newest, kind="verdict", version=verdict.version, words=words))

    def _recorded(self, *, since_step: int, alive: Callable[[], None]) -> tuple[list[Stretch], int]:
        """The file up to now, as the ledger would hold it."""
        del since_step, alive
        scene, series = self._scene, self._scene.settings.retraining.series
        known = scene.block.take(np.arange(scene.row((self._newest() or 0) + 1)))
        names = scene.names[: int(known.slot.max()) + 1]  # slots are given as series come
        return [drawn(known, names, series=series, seed=SERIES_SEED)], len(names)


def trained_on(scene: Scene, kind: str, begin: int, end: int) -> dict[str, Any]:
    """What the registry keeps of a training on the steps `begin…end`."""
    form, recent = scene.settings.series_form(), scene.settings.recent_steps
    rows = slice(scene.row(min(begin, end - recent)), scene.row(end))
    block, interval_ms = scene.block, form.interval_ms
    return {
        "kind": kind,
        "data": {
            "since": rfc3339(max(begin, int(block.step[0])) * interval_ms),
            "until": rfc3339((end - 1) * interval_ms),
        },
        "inputs": inputs_of(
            form.features, block.values[rows], block.present[rows], block.step[rows], window_steps=recent
        ),
    }


def _seeded(settings: Settings, seed: int) -> Settings:
    """The settings with this seed, and no threads but those that TensorFlow runs with here."""
    training = settings.training.model_copy(update={"seed": seed})
    retraining = settings.retraining.model_copy(update={"threads": settings.network.threads})
    return settings.model_copy(update={"training": training, "retraining": retraining})
