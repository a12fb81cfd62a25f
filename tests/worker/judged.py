"""What the tests of gate and guard stand on: a registry, a verdict, and duels as partitions would bring them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.duels import Duel
from models.registry import Registry
from models.verdict import Calibration, Trial, Verdict
from tests.models.versions import register
from tests.streams import architecture_of
from worker.gate import Limits
from worker.judging import Evidence, Judging
from worker.store import ModelStore
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.duels import Duels
    from models.server import Client
    from models.verdict import Mode

MODEL = "m"
HOUR_MS = 3_600_000
NOW_MS = 1_700_000_000_000
FIRST_STEP = 400_000
LIMITS = Limits(
    interval_ms=HOUR_MS, ahead_steps=24, approval=False, guard_alpha=0.02, breaker_ratio=4.0, breaker_steps=5
)
SIGNED_OFF = replace(LIMITS, approval=True)
CALIBRATION = Calibration(block_steps=2, scale=0.1, lag1=0.0, steps=500)


def trial_of(mode: Mode = "superiority", harm_steps: int = 24, deadline_steps: int = 200) -> Trial:
    """A trial at level .02: an e-value of 50 proves."""
    return Trial(mode=mode, alpha=0.02, calibration=CALIBRATION, harm_steps=harm_steps, deadline_steps=deadline_steps)


def verdict_of(version: int, incumbent: int, trial: Trial | None) -> Verdict:
    """A verdict that registered a version."""
    return Verdict(
        id=f"verdict {version}", requests=(), trigger="drift", goal="restore", why="so", model=MODEL,
        interval_ms=HOUR_MS, created_ms=NOW_MS, seconds=1.0, incumbent=incumbent, outcome="promote",
        sentence="it was better on recorded data", version=version, trial=trial,
    )  # fmt: skip


def noise(count: int, seed: int = 0, mean: float = 0.0) -> list[float]:
    """Differences of losses with a standard deviation that fits the calibration."""
    return [mean + float(x) for x in np.random.default_rng(seed).normal(scale=0.14, size=count)]


@dataclass
class World:
    """A model with version 1 answering, whose steps pass one by one."""

    client: Client
    limits: Limits = LIMITS
    step: int = FIRST_STEP
    running: frozenset[int] = frozenset({1, 2, 3})

    def __post_init__(self) -> None:
        self.registry = Registry(self.client, MODEL)
        self.versions = 0
        self.add(None)
        self.judging = self.opened()

    def add(self, parent: int | None, trial: Trial | None = None) -> int:
        """One more version, by a verdict where it has a trial."""
        self.versions += 1
        number = register(self.registry, architecture_of(), self.versions, parent)
        if trial is not None:
            verdict, store = verdict_of(number, parent or 0, trial), VerdictStore(self.client, MODEL)
            store.write(verdict, "worker", [], before=store.spent(), spends=0.001)
        return number

    def candidate(self, mode: Mode = "superiority", parent: int = 1, **changes: int) -> int:
        """One more version, nominated, with a verdict."""
        number = self.add(parent, trial_of(mode, **changes))
        self.registry.nominate(number, expected=None, actor="retrainer", reason="better", now_ms=NOW_MS)
        return number

    def promote(self, version: int) -> None:
        """As a person does."""
        answers = self.registry.aliases().incumbent or 0
        self.registry.promote(version, expected=answers, actor="ann", reason="by hand", now_ms=NOW_MS)

    def opened(self, client: Client | None = None, who: str = "one") -> Judging:
        """Gate and guard, by what is stored."""
        client = client or self.client
        store, registry = ModelStore(client, MODEL, who), Registry(client, MODEL)
        made = Judging(store, registry, VerdictStore(client, MODEL).of_version, self.limits)
        made.open()
        return made

    def reopen(self) -> None:
        """A restart of the monitor."""
        self.judging = self.opened()

    def look(self, duels: Duels | None = None, *, over: bool = True, clock: int | None = None) -> None:
        """One look at these duels, whose steps are over or not."""
        found = duels or {}
        steps = sorted({step for step, *_ in found}) if over else []
        self.judging.look(Evidence(found, steps, self.running, clock), NOW_MS)

    def pass_steps(self, differences: Iterable[float], first: int = 1, second: int = 2) -> None:
        """A step for each difference: the first one's loss less the second one's."""
        for difference in differences:
            self.step += 1
            self.look({(self.step, first, second): duel_of(1.0 + difference, 1.0)})

    def audited(self, event: str) -> list[tuple[str, str]]:
        """Actor and reason of the changes of one kind."""
        return [(entry.actor, entry.reason) for entry in self.registry.audit() if entry.event == event]


def duel_of(first: float, second: float, cells: int = 8) -> Duel:
    """A duel in which the mean squared errors were these; persistence's was 1."""
    return Duel(cells, first * cells, second * cells, cells, float(cells))
