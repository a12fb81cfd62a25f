"""One policy with one seed, from the first version to the end of the file. Event time is the clock.

    day of observations ─► fold ─┬─► forecasts ─► scored, written          (before any of their labels is folded)
                                 └─► counted ─► overseen ─► requests ─► retraining ─► registry ─► followed, next day

Counting, detectors, gate, guard, requests and retrainer are those of the service; what Redis keeps is kept in memory.
Training takes no event time: what a day asks for answers from the next one on.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.drift_inputs import inputs_of
from models.times import rfc3339
from models.weights import weights_to_bytes
from worker.backtest_policies import DAY_MS, Policy
from worker.backtest_stage import Stage, cut, pieces
from worker.backtest_told import Happening, Kind, PolicyRun
from worker.backtest_update import UpdateRules
from worker.counting import Counting
from worker.durations import Duration
from worker.memory import Memory, MemoryModelStore, MemoryRequests, MemoryVerdicts
from worker.memory_registry import MemoryRegistry
from worker.overseeing import Overseer
from worker.wiring_minds import minds
from worker.wiring_updating import training_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumers.stream import Folded
    from models.blocks import Block, Ints, Singles
    from worker.backtest_scores import Scores
    from worker.backtest_update import First, Material
    from worker.requests import Waiting
    from worker.settings import Settings

PIECE_CELLS = 1 << 20  # forecasts that a fold holds, where nothing happens in between
LEASE_MS = 1 << 40  # nobody else leads
SKILL_DROP = 0.2  # of on-skill, where retraining.skill_drop asks for nothing
OPERATOR = "operator"
KINDS: dict[str, Kind] = {"promote": "promote", "rollback": "rollback", "nominate": "nominate", "resume": "resume"}
RESUME_MS = 7 * DAY_MS  # after a rollback has paused promotions, so much later somebody has looked at it


@dataclass(frozen=True)
class Scene:
    """What all runs over a file have in common."""

    id: str  # of the file and the settings: what is prepared of it is kept by it
    settings: Settings
    block: Block  # the whole file, in the order of time
    names: tuple[str, ...]
    online_step: int  # what is before it, the first version is fitted on
    gate: bool

    @property
    def tick_steps(self) -> int:
        """Steps between two looks: a day."""
        return max(1, DAY_MS // self.settings.interval_ms)

    @property
    def rules(self) -> UpdateRules:
        """How a plain update is made."""
        update, interval_ms = self.settings.update, self.settings.interval_ms
        return UpdateRules(update.rate, update.steps, max(1, update.recent.ms // interval_ms), update.recent_share)

    def row(self, step: int) -> int:
        """The first observation of a step, or after it."""
        return int(np.searchsorted(self.block.step, step))


@dataclass
class Spent:
    """What updating took."""

    retrainings: int = 0
    seconds: float = 0.0
    gradient_steps: int = 0
    happened: list[Happening] = field(default_factory=list)


class Run:
    """One policy with one seed."""

    def __init__(self, scene: Scene, policy: Policy, first: First, material: Material | None, seed: int) -> None:
        """`material` may be None where the policy never updates."""
        self._scene = scene
        self._policy = policy
        self._first = first
        self._seed = seed
        settings = scene.settings
        self._form = settings.series_form()
        self._interval_ms = settings.interval_ms
        self._registry = MemoryRegistry(settings.model.name)
        memory = Memory(settings.model.name)
        self._verdicts = MemoryVerdicts(memory)
        self._requests = MemoryRequests(memory, "backtest")
        self._store = MemoryModelStore(memory, "backtest")
        self._store.lease(LEASE_MS)
        self._counting = Counting(self._form, settings.model.horizon)
        self._minds = minds(self._asking(settings), self._store, self._registry, self._verdicts)
        self._overseer = Overseer(self._registry, self._form, settings.ahead_steps, self._minds)
        self._stage = Stage(
            self._form,
            self._registry,
            depth_steps=settings.spin_up_steps,
            guard_steps=settings.guard_steps if scene.gate else 0,
        )
        self._material = material
        self._learning = replace(training_settings(settings), seed=seed)
        self._weights = first.weights
        self._spent = Spent()
        self._paused_ms: int | None = None
        self._answered: list[tuple[int, int]] = []

    def play(
        self,
        scores: Scores,
        write: Callable[[Ints, Ints, Singles, int], None],
        report: Callable[[int], None],
        leads: Sequence[int],
    ) -> PolicyRun:
        """All of it; `write` takes forecasts as they are issued, `report` how many observations are done.

        Raises:
            DataError: there is nothing to train an update on.
            VersionError: a version can't run here.
        """
        began = time.monotonic()
        scene = self._scene
        self._register_first()
        self._begin()
        done = scene.row(scene.online_step)
        for block in self._blocks():
            folded = self._stage.fold(block)
            answers = self._stage.partition.incumbent or 0
            forecasts = folded.forecasts[answers]
            scores.add(block.slot, block.step, forecasts)
            write(block.slot, block.step, forecasts, answers)
            if self._policy.updates:
                self._look(folded, int(block.step.max()))
            done += len(block)
            report(done)
        spent, counts = self._spent, Counter(entry.event for entry in self._registry.audit())
        return PolicyRun(
            policy=self._policy.name,
            seed=self._seed,
            observations=len(scene.block) - scene.row(scene.online_step),
            scores=scores.result(leads),
            retrainings=spent.retrainings,
            promotions=counts["promote"],
            rollbacks=counts["rollback"],
            training_s=spent.seconds,
            gradient_steps=spent.gradient_steps,
            seconds=time.monotonic() - began,
            versions=tuple(self._answered),
            happened=tuple(self._happened()),
        )

    def _asking(self, settings: Settings) -> Settings:
        """The settings with what the policy asks for, and nothing else."""
        drop = getattr(settings.retraining, "skill_drop", 0) or SKILL_DROP
        changes: dict[str, Any] = {
            "every": Duration(self._policy.every_ms),
            "pairs": 0,
            "skill_drop": drop if "skill" in self._policy.triggers else 0.0,
        }
        return settings.model_copy(update={"retraining": settings.retraining.model_copy(update=changes)})

    def _register_first(self) -> None:
        first, scene = self._first, self._scene
        self._registry.register(
            first.architecture,
            weights_to_bytes(first.weights, first.architecture),
            training={
                "kind": "fit",
                "data": self._data(0, scene.online_step),
                "inputs": self._inputs(scene.online_step),
            },
            parent=None,
            actor="backtest",
            reason="fit",
            now_ms=scene.online_step * self._interval_ms,
        )

    def _begin(self) -> None:
        """Bring series state to where the online span begins, and the first version's carried state with it."""
        scene, settings = self._scene, self._scene.settings
        online = scene.row(scene.online_step)
        behind = min(scene.row(scene.online_step - settings.spin_up_steps), online - 1)
        if behind:
            self._stage.pass_by(cut(scene.block, 0, behind))
        self._stage.fold(cut(scene.block, behind, online))
        self._follow(scene.online_step)
        if self._policy.updates:
            self._overseer.open()

    def _blocks(self) -> Iterator[Block]:
        """The online span: day by day, or in large pieces where nothing ever changes."""
        scene = self._scene
        begin, end = scene.row(scene.online_step), len(scene.block)
        if not self._policy.updates:
            yield from pieces(cut(scene.block, begin, end), max(1, PIECE_CELLS // scene.settings.model.horizon))
            return
        step, last = scene.online_step, int(scene.block.step[-1])
        while step <= last:
            first, until = scene.row(step), scene.row(step + scene.tick_steps)
            if until > first:
                yield cut(scene.block, first, until)
            step += scene.tick_steps

    def _look(self, folded: Folded, newest: int) -> None:
        """What the service would do after a day."""
        counting, now_ms = self._counting, newest * self._interval_ms
        counting.seats = self._stage.partition.roster
        counting.newest = max(newest, counting.newest or newest)
        fed, judged = self._minds.drifts.state.step, self._minds.judging.state.step
        counting.count([folded.block], counting.newest, fed, judged)
        self._overseer.watch_incumbent([counting])
        if "drift" in self._policy.triggers:
            self._overseer.feed([counting], counting.newest, now_ms)
        if self._scene.gate:
            self._overseer.judge([counting], counting.newest, now_ms)
        self._overseer.ask([counting], now_ms)
        wanted = self._wanted()
        if wanted:
            self._retrain(wanted, newest, now_ms)
        self._resume(now_ms)
        self._follow(newest + 1)

    def _wanted(self) -> list[Waiting]:
        """The requests that the policy takes up; all others are let go."""
        waiting = self._requests.waiting()
        other = [one.entry for one in waiting if one.request.trigger not in self._policy.triggers]
        if other:
            self._requests.answered(other)
        return [one for one in waiting if one.request.trigger in self._policy.triggers]

    def _retrain(self, wanted: Sequence[Waiting], newest: int, now_ms: int) -> None:
        """A plain update, live at once."""
        self._requests.answered([one.entry for one in wanted])
        scene, spent = self._scene, self._spent
        if self._material is None:
            raise RuntimeError("a policy that updates was given nothing to learn from")
        spent.retrainings += 1
        updated = self._material.update(
            self._first,
            self._weights,
            self._learning,
            scene.rules,
            step=newest + 1,
            number=spent.retrainings,
            old_end=scene.online_step if self._policy.on_old else None,
        )
        spent.seconds += updated.seconds
        spent.gradient_steps += updated.steps
        why = wanted[0].request.why
        if updated.wrong:
            spent.happened.append(Happening(step=newest, kind="update", words=f"{updated.wrong} ({why})"))
            return
        self._weights = updated.weights
        incumbent = self._registry.aliases().incumbent or 0
        version = self._registry.register(
            self._first.architecture,
            weights_to_bytes(updated.weights, self._first.architecture),
            training={
                "kind": "update",
                "data": self._data(newest + 1 - scene.rules.recent_steps, newest + 1),
                "inputs": self._inputs(newest + 1),
            },
            parent=incumbent,
            actor="backtest",
            reason=why,
            now_ms=now_ms,
        )
        self._registry.promote(version, expected=incumbent, actor="backtest", reason=why, now_ms=now_ms)

    def _resume(self, now_ms: int) -> None:
        """Let promotions go on, as somebody does who has looked at what was rolled back."""
        if not self._registry.aliases().paused:
            self._paused_ms = None
        elif self._paused_ms is None:
            self._paused_ms = now_ms
        elif now_ms - self._paused_ms >= RESUME_MS:
            reason = f"looked at, {RESUME_MS // DAY_MS} days later"
            self._registry.resume(actor=OPERATOR, reason=reason, now_ms=now_ms)

    def _follow(self, step: int) -> None:
        before = self._stage.partition.incumbent
        self._stage.follow()
        answers = self._stage.partition.incumbent
        if answers is not None and answers != before:
            self._answered.append((answers, step))

    def _data(self, begin: int, end: int) -> dict[str, Any]:
        return {
            "since": rfc3339(max(begin, int(self._scene.block.step[0])) * self._interval_ms),
            "until": rfc3339((end - 1) * self._interval_ms),
        }

    def _inputs(self, end: int) -> dict[str, Any]:
        """Histograms of the features that the detectors compare with what comes later."""
        scene, recent = self._scene, self._scene.settings.recent_steps
        rules = scene.rules
        begin = 0 if end == scene.online_step else scene.row(end - max(rules.recent_steps, recent))
        rows = slice(begin, scene.row(end))
        block = scene.block
        return inputs_of(
            self._form.features, block.values[rows], block.present[rows], block.step[rows], window_steps=recent
        )

    def _happened(self) -> Iterator[Happening]:
        """Everything that changed a version, in the order of event time."""
        found = list(self._spent.happened)
        for one in self._minds.drifts.state.found if self._policy.updates else ():
            at, words = one.time_ms // self._interval_ms, f"{one.drift.detector}: {one.drift.words}"
            found.append(Happening(step=at, kind="drift", version=one.version, words=words))
        for entry in self._registry.audit():
            kind = KINDS.get(entry.event)
            if kind is not None:
                at = entry.time_ms // self._interval_ms
                found.append(Happening(step=at, kind=kind, version=entry.version, words=entry.reason))
        yield from sorted(found, key=lambda one: one.step)
