"""Those who update the model in the simulator, beside consumers and operators: gates with their guards, retrainers.

The production code judges and settles; training is a wait during which the world goes on, and what versions that run
side by side did in a step of event time is drawn by chance, once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from consumers.roster import incumbent_of
from models.decision import JudgementLimits
from models.duels import Duel
from models.errors import FencedError, OffsetConflict, ServiceUnreachable
from models.registry import Registry
from models.verdict import Calibration, Trial, Verdict
from tests.faults.clock import CLOCK
from tests.faults.versions import NUMBERS, architecture, weights_bytes
from tests.streams import FORM
from worker.gate import Limits
from worker.judging import Evidence, Judging
from worker.lessons import Lessons, Sources
from worker.requests import RequestStore
from worker.retrainer import Plans, Retrainer, Rules
from worker.settling import Made, Settler
from worker.store import ModelStore, Request
from worker.verdict_making import Impact, Occasion
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumers.past import Stretch
    from consumers.roster import Seat
    from tests.faults.store import Store

LEASE_MS = 3_600_000  # it runs out when the world says so
# A version's squared error, of persistence's: of those that are there from the beginning, and of trained ones.
OLD, TRAINED = (1.0, 1.1, 1.2, 9.0), (0.2, 0.3, 0.5, 1.1, 9.0)
CALIBRATION = Calibration(block_steps=2, scale=0.3, lag1=0.0, steps=500)
JUDGED = JudgementLimits(
    gate="both", screen=0.05, alpha=0.02, budget=0.2, harm_alpha=0.02, harm_steps=6, deadline_steps=80
)
CELLS = 8


@dataclass
class History:
    """What versions did beside each other, by step of event time; as the partitions' monitors would have it."""

    seed: int
    duels: list[dict[tuple[int, int, int], Duel]] = field(default_factory=list)
    _on_disk: int = 0

    def go_on(self, rosters: Sequence[Sequence[Seat]], steps: int) -> None:
        """So many steps pass, with these versions at work."""
        for _ in range(steps):
            step = len(self.duels)
            found: dict[tuple[int, int, int], Duel] = {}
            for number, roster in enumerate(rosters):
                answers = incumbent_of(roster)
                for seat in roster:
                    if answers is not None and seat.leave_offset is None and seat.version != answers:
                        duel = self._duel(number, step, answers, seat.version)
                        key = (step, answers, seat.version)
                        found[key] = found[key].plus(duel) if key in found else duel
            self.duels.append(found)

    def _duel(self, partition: int, step: int, first: int, second: int) -> Duel:
        rng = random.Random(f"{self.seed} {partition} {step} {first} {second}")
        one, other = (CELLS * max(0.0, self._quality(version) + rng.gauss(0, 0.2)) for version in (first, second))
        return Duel(CELLS, one, other, CELLS, CELLS)

    def _quality(self, version: int) -> float:
        return random.Random(f"{self.seed} {version}").choice(OLD if version in NUMBERS else TRAINED)

    def sync(self) -> None:
        """What is on the disk now comes back after a cut."""
        self._on_disk = len(self.duels)

    def cut(self) -> None:
        """The server came back with what was on its disk."""
        del self.duels[self._on_disk :]

    def since(self, step: int | None, running: frozenset[int]) -> Evidence:
        """The evidence of the steps after one."""
        first = 0 if step is None else step + 1
        duels = {key: duel for found in self.duels[first:] for key, duel in found.items()}
        clock = len(self.duels) - 1 if self.duels else None
        return Evidence(duels, range(first, len(self.duels)), running, clock)


class Gate:
    """A monitor's part that judges: it leads while it has the lease, and opens anew after whatever went wrong."""

    def __init__(
        self,
        name: str,
        store: Store,
        model: str,
        evidence: Callable[[int | None], Evidence],
        *,
        approval: bool,
    ) -> None:
        client = cast("Any", store)
        self._store = ModelStore(client, model, name)
        limits = Limits(
            interval_ms=3_600_000,
            ahead_steps=0,
            approval=approval,
            guard_alpha=0.02,
            breaker_ratio=4.0,
            breaker_steps=3,
        )
        self.judging = Judging(self._store, Registry(client, model), VerdictStore(client, model).of_version, limits)
        self._evidence = evidence
        self._leads = False

    def step(self) -> None:
        """Look once."""
        try:
            if not self._store.lease(LEASE_MS):
                self._leads = False
                return
            if not self._leads:
                self.judging.open()
                self._leads = True
            self.judging.look(self._evidence(self.judging.state.step), int(CLOCK.now * 1000))
        except (FencedError, OffsetConflict, ServiceUnreachable):
            self._leads = False


class Impatient(RequestStore):
    """Requests whose worker counts as dead when the world says so."""

    dead: Callable[[str], bool]

    def claim(self, entries: Sequence[str], silent_ms: int) -> list[str]:
        """As `RequestStore.claim`."""
        others = {one.worker for one in self.waiting() if one.worker}
        return super().claim(entries, 0 if any(map(self.dead, others)) else silent_ms)


def lessons_of(registry: Registry) -> Lessons:
    """Who answers; nothing waits for data or for the end of a trial here, and nothing is learned."""

    def nothing(*, since_step: int, alive: Callable[[], None]) -> tuple[list[Stretch], int]:
        raise AssertionError(f"nobody reads what is recorded since {since_step}: {alive}")

    sources = Sources(registry, nothing, None, newest=lambda: None, tried=lambda: None)
    return Lessons(sources, FORM, cast("Any", None), cast("Any", None), 1)


class Trainee(Retrainer):
    """A retrainer whose training is a wait, and whose comparison is a throw of dice."""

    rng: random.Random
    training: Callable[[], None]

    def _judged(
        self, occasion: Occasion, entries: Sequence[str], now_ms: int, began: float
    ) -> tuple[Verdict, Made | None]:
        del began
        for done in range(self.rng.choice((1, 2, 4))):
            self._pulse(occasion, entries, now_ms)(done, 4, "training")
            self.training()
        created_ms = int(CLOCK.now * 1000)
        outcome = self.rng.choice(("promote", "promote", "promote", "reject", "inconclusive"))
        words: dict[str, Any] = {"created_ms": created_ms, "seconds": 1.0, "outcome": outcome, "sentence": "by dice"}
        if outcome != "promote":
            return occasion.verdict(**words), None
        trial = Trial(mode="harm", alpha=0.0, calibration=CALIBRATION, harm_steps=0, deadline_steps=0)
        made = Made(architecture(1).to_json(), weights_bytes(1), {"chance": self.rng.random()})
        return occasion.verdict(**words, chosen="update-on-new", trial=trial), made


def retrainer(
    name: str, store: Store, model: str, rng: random.Random, training: Callable[[], None], dead: Callable[[str], bool]
) -> Trainee:
    """A worker of the model's requests."""
    client = cast("Any", store)
    requests, verdicts, registry = Impatient(client, model, name), VerdictStore(client, model), Registry(client, model)
    requests.dead = dead
    rules = Rules(cooldown_steps=0, new_steps=0, executor="processes", workers=1, repeats=1, timeout_s=1e9)
    plans = Plans(model, 3_600_000, cast("Any", None), rules, JUDGED, Impact(0.0, ""))
    settler = Settler(name, requests, verdicts, registry, JUDGED)
    made = Trainee(name, requests, verdicts, settler, lessons_of(registry), plans, lambda: False)
    made.rng, made.training = rng, training
    return made


def request(number: int, rng: random.Random) -> Request:
    """The request of that number."""
    trigger = rng.choice(("operator", "drift", "schedule"))
    evidence = {"look": 3} if trigger == "drift" else {}  # the last look: no other one is asked for
    return Request(
        id=f"r{number}", trigger=trigger, goal="improve", why="by chance", evidence=evidence, created_ms=number
    )


def unsettled(registry: Registry, judging: Judging) -> str:
    """What gate and guard should have seen by now and did not; "" where they follow the registry."""
    aliases, trial, watch = registry.aliases(), judging.state.trial, judging.state.guard
    if trial is not None and trial.version != aliases.candidate:
        return f"a trial of {trial.version}: {aliases}"
    if (trial is not None and trial.decision is not None) or (watch is not None and watch.decision is not None):
        return f"a decision is not carried out: {judging.state}"
    if watch is not None and (watch.version, watch.previous) != (aliases.incumbent, aliases.previous):
        return f"a guard of {watch.version}: {aliases}"
    return ""
