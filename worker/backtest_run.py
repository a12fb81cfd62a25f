"""One policy with one seed, from the first version to the end of the file. Event time is the clock.

    day of observations ─► fold ─┬─► forecasts ─► scored, written          (before any of their labels is folded)
                                 └─► counted ─► overseen ─► requests ─► retraining ─► registry ─► followed, next day

Counting, detectors, gate, guard, requests and retrainer are those of the service; what Redis keeps is kept in memory.
Training takes no event time: what a day asks for answers from the next one on.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from models.blocks import part_of
from models.times import DAY_MS
from models.weights import weights_to_bytes
from worker.backtest_stage import Stage, pieces
from worker.backtest_told import Happening, Kind, PolicyRun
from worker.backtest_updating import ACTOR, Desks, Gated, Plain, Spent, trained_on
from worker.counting import Counting
from worker.durations import Duration
from worker.judging import FED_AT_ONCE
from worker.memory import Memory, MemoryModelStore, MemoryRequests, MemoryVerdicts
from worker.memory_registry import MemoryRegistry
from worker.overseeing import Overseer
from worker.wiring_minds import minds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumers.stream import Folded
    from models.blocks import Block, Ints, Singles
    from worker.backtest_policies import Policy
    from worker.backtest_scene import First, Scene
    from worker.backtest_scores import Scores
    from worker.backtest_update import Material
    from worker.backtest_updating import Updating
    from worker.drift_told import Found
    from worker.settings import Settings

PIECE_CELLS = 1 << 20  # forecasts that a fold holds, where nothing happens in between
LEASE_MS = 1 << 40  # nobody else leads
SKILL_DROP = 0.2  # of on-skill, where retraining.skill_drop asks for nothing
OPERATOR = "operator"
KINDS: dict[str, Kind] = {"promote": "promote", "rollback": "rollback", "nominate": "nominate", "resume": "resume"}
RESUME_MS = 7 * DAY_MS  # after a rollback has paused promotions, so much later somebody has looked at it


class Run:
    """One policy with one seed."""

    def __init__(self, scene: Scene, policy: Policy, first: First, material: Material | None, seed: int) -> None:
        """`material` is what plain updates learn from; None where there are none."""
        self._scene = scene
        self._policy = policy
        self._first = first
        self._seed = seed
        settings = scene.settings
        self._form = settings.series_form()
        self._interval_ms = settings.interval_ms
        memory = Memory(settings.model.name)
        self._store = MemoryModelStore(memory, ACTOR)
        self._store.lease(LEASE_MS)
        self._desks = Desks(MemoryRegistry(settings.model.name), MemoryRequests(memory, ACTOR), MemoryVerdicts(memory))
        self._registry = self._desks.registry
        self._counting = Counting(self._form, settings.model.horizon)
        self._minds = minds(self._asking(settings), self._store, self._registry, self._desks.verdicts)
        self._overseer = Overseer(self._registry, self._form, settings.ahead_steps, self._minds)
        self._stage = Stage(
            self._form,
            scene.names,
            self._registry,
            depth_steps=settings.spin_up_steps,
            guard_steps=settings.guard_steps if scene.gate else 0,
        )
        self._updating = self._how(material)
        self._paused_ms: int | None = None
        self._answered: list[tuple[int, int]] = []
        self._drifts: list[Found] = []  # the detectors' state remembers the last ones alone

    def play(
        self,
        scores: Scores,
        write: Callable[[Ints, Ints, Singles, int], None],
        report: Callable[[int], None],
        leads: Sequence[int],
    ) -> PolicyRun:
        """All of it; `write` takes forecasts as they are issued, `report` how many observations are done.

        Raises:
            DataError: a lead is to be shown that was not forecast.
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
        spent = self._updating.spent if self._updating is not None else Spent()
        counts = Counter(entry.event for entry in self._registry.audit())
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
            happened=tuple(self._happened(spent)),
        )

    def _asking(self, settings: Settings) -> Settings:
        """The settings with what the policy asks for, and nothing else."""
        drop = settings.retraining.skill_drop or SKILL_DROP
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
            training=trained_on(scene, "fit", 0, scene.online_step),
            parent=None,
            actor=ACTOR,
            reason="fit",
            now_ms=scene.online_step * self._interval_ms,
        )

    def _begin(self) -> None:
        """Bring series state to where the online span begins, and the first version's carried state with it."""
        scene, settings = self._scene, self._scene.settings
        online = scene.row(scene.online_step)
        behind = min(scene.row(scene.online_step - settings.spin_up_steps), online - 1)
        if behind:
            self._stage.pass_by(part_of(scene.block, 0, behind))
        self._stage.fold(part_of(scene.block, behind, online))
        self._follow(scene.online_step)
        if self._policy.updates:
            self._overseer.open()

    def _blocks(self) -> Iterator[Block]:
        """The online span: day by day, or in large pieces where nothing ever changes."""
        scene = self._scene
        begin, end = scene.row(scene.online_step), len(scene.block)
        if not self._policy.updates:
            yield from pieces(part_of(scene.block, begin, end), max(1, PIECE_CELLS // scene.settings.model.horizon))
            return
        step, last = scene.online_step, int(scene.block.step[-1])
        while step <= last:
            first, until = scene.row(step), scene.row(step + scene.tick_steps)
            if until > first:
                yield part_of(scene.block, first, until)
            step += scene.tick_steps

    def _look(self, folded: Folded, newest: int) -> None:
        """What the service would do after a day."""
        counting, now_ms = self._counting, newest * self._interval_ms
        counting.seats = self._stage.partition.roster
        counting.newest = max(newest, counting.newest or newest)
        self._overseer.watch_incumbent([counting])
        fed, judged = self._minds.drifts.state.step, self._minds.judging.state.step
        counting.count([folded.block], counting.newest, fed, judged)
        if "drift" in self._policy.triggers:
            self._overseer.feed([counting], counting.newest, now_ms)
            drifts = self._minds.drifts.state
            self._drifts += drifts.found[len(drifts.found) - sum(drifts.counts.values()) + len(self._drifts) :]
        if self._scene.gate:
            for _ in range(1 + self._scene.tick_steps // FED_AT_ONCE):  # the service would look again at once
                self._overseer.judge([counting], counting.newest, now_ms)
        self._overseer.ask([counting], now_ms)
        self._let_go()
        if self._updating is not None:
            self._updating.step(newest, now_ms)
        self._resume(now_ms)
        self._follow(newest + 1)

    def _how(self, material: Material | None) -> Updating | None:
        """How requests are answered; None where none are."""
        scene, policy = self._scene, self._policy
        if not policy.updates:
            return None
        if scene.gate:
            return Gated(scene, self._desks, self._seed, lambda: self._counting.newest, self._tried)
        if material is None:
            raise ValueError("plain updates need something to learn from")
        plain = Plain(scene, self._desks, self._first, material, self._seed)
        return plain.on_old() if policy.on_old else plain

    def _tried(self) -> int | None:
        trial = self._minds.judging.state.trial
        return None if trial is None else trial.version

    def _let_go(self) -> None:
        """Let the requests go that the policy does not take up."""
        requests = self._desks.requests
        other = [one.entry for one in requests.waiting() if one.request.trigger not in self._policy.triggers]
        if other:
            requests.answered(other)

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

    def _happened(self, spent: Spent) -> Iterator[Happening]:
        """Everything that changed a version, in the order of event time."""
        found = list(spent.happened)
        for one in self._drifts:
            at, words = one.time_ms // self._interval_ms, f"{one.drift.detector}: {one.drift.words}"
            found.append(Happening(step=at, kind="drift", version=one.version, words=words))
        for entry in self._registry.audit():
            kind = KINDS.get(entry.event)
            if kind is not None:
                at = entry.time_ms // self._interval_ms
                found.append(Happening(step=at, kind=kind, version=entry.version, words=entry.reason))
        yield from sorted(found, key=lambda one: one.step)
