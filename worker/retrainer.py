"""The retrainer, one step at a time: takes requests up, has candidates trained and judged, settles the verdict.

    requests ─► ready? (cool-down, enough new data) ─► claimed, together ─► lesson ─► findings ─► verdict ─► settled

One worker of a model is at work at a time; what the others are for is to take over from one that died.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from models.errors import FencedError, KillickError, ServiceUnreachable
from worker.executors import Ended, TrainingError, Work, trainings
from worker.patience import patiently
from worker.readiness import DRIFT, look_of, waits_for
from worker.requests import Progress, TakenBack
from worker.retraining import findings
from worker.verdict_making import Occasion, failed, verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.decision import JudgementLimits
    from models.strategies import Grid
    from models.verdict import Verdict
    from worker.desks import RequestDesk, VerdictDesk
    from worker.lessons import Lessons
    from worker.requests import Waiting
    from worker.settling import Made, Settler
    from worker.store import Request
    from worker.verdict_making import Impact

KEEP_S = 2.0  # between two signs of life
SILENT_MS = 20_000  # after which a worker counts as dead
MOST_TAKEN = 3  # times that a request is taken up by workers that die of it
MOST_LOOKS = 4  # at what came since a drift: each at half the level of the one before, on twice the data
PATIENCE_S = 600.0  # how long Redis may be away when a training has ended

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """When a request is ready, where it is trained on, and how long that may take."""

    cooldown_steps: int
    new_steps: int  # of new data that a request waits for
    executor: str
    workers: int
    repeats: int
    timeout_s: float


class Stopped(Ended):
    """The process is told to stop."""


@dataclass(frozen=True)
class Plans:
    """What all retrainings of a model have in common."""

    model: str
    interval_ms: int
    grid: Grid
    rules: Rules
    limits: JudgementLimits
    impact: Impact


class Retrainer:
    """One worker of a model's requests."""

    def __init__(
        self,
        worker: str,
        requests: RequestDesk,
        verdicts: VerdictDesk,
        settler: Settler,
        lessons: Lessons,
        plans: Plans,
        stopping: Callable[[], bool],
    ) -> None:
        self._worker = worker
        self._requests = requests
        self._verdicts = verdicts
        self._settler = settler
        self._lessons = lessons
        self._plans = plans
        self._stopping = stopping
        self.progress: Progress | None = None  # of what is under way

    def step(self, now_ms: int) -> Verdict | None:
        """The verdict of a retraining, if there was a request that was ready.

        Raises:
            ServiceUnreachable: Redis did not answer; nothing is lost.
            Stopped: told to stop; the requests wait for another worker.
        """
        chosen = self._ready()
        entries = self._requests.claim([one.entry for one in chosen], SILENT_MS) if chosen else []
        claimed = [one for one in chosen if one.entry in entries]
        if not claimed:
            return None
        try:
            return self._settler.resume(claimed) or self._retrain(claimed, now_ms)
        except FencedError as error:
            log.warning("given up: %s", error, extra={"action": "fenced"})
        except (Stopped, ServiceUnreachable) as error:
            with suppress(ServiceUnreachable):  # else others wait until this worker counts as dead
                self._requests.leave(entries)
                if self.progress is not None and not isinstance(error, Stopped):
                    waits = msgspec.structs.replace(self.progress, note=f"waits: {error}")
                    self._requests.tell(waits, SILENT_MS)
            raise
        except (Ended, TakenBack) as error:
            log.warning("given up: %s", error, extra={"action": "ended"})
            self._requests.leave(entries)
        finally:
            self.progress = None
        return None

    def _ready(self) -> list[Waiting]:
        """The requests that need not wait any longer; with one because of a drift all others that are, last."""
        waiting = self._requests.waiting()
        if not waiting:
            return []
        last = next((v.newest_step for v in self._verdicts.recent(1)), None)
        known = self._lessons.known(last)
        rules = self._plans.rules
        limits = {"cooldown_steps": rules.cooldown_steps, "new_steps": rules.new_steps}
        ready = [one for one in waiting if not waits_for(one.request, known, **limits)]
        drifted = any(one.request.trigger == DRIFT for one in ready)
        return ready + [one for one in waiting if drifted and one.request.trigger == DRIFT and one not in ready]

    def _retrain(self, claimed: Sequence[Waiting], now_ms: int) -> Verdict:
        """The verdict, settled."""
        began = time.monotonic()
        requests = [one.request for one in claimed]
        entries = [one.entry for one in claimed]
        incumbent = self._lessons.incumbent()
        plans = self._plans
        occasion = Occasion(
            plans.model, plans.interval_ms, requests, incumbent.version if incumbent else 0, self._lessons.newest_step()
        )
        made: Made | None = None
        try:
            if max(one.taken for one in claimed) >= MOST_TAKEN:
                raise TrainingError(f"{MOST_TAKEN} workers died of this request", "see their logs, and memory")
            verdict, made = self._judged(occasion, entries, now_ms, began)
        except (FencedError, Ended, TakenBack, ServiceUnreachable):
            raise
        except KillickError as error:
            seconds = time.monotonic() - began
            verdict = failed(occasion, error, created_ms=now_ms + round(1000 * seconds), seconds=seconds)
        return patiently(lambda: self._settle(verdict, made, requests, entries), PATIENCE_S)

    def _judged(
        self, occasion: Occasion, entries: Sequence[str], now_ms: int, began: float
    ) -> tuple[Verdict, Made | None]:
        plans, rules = self._plans, self._plans.rules
        log.info(
            "retraining: %s", "; ".join(request.why for request in occasion.requests), extra={"action": "retraining"}
        )
        pulse = self._pulse(occasion, entries, now_ms)
        gathered = self._lessons.gather(occasion.requests, lambda: pulse(0, 1, "reading what is recorded"))
        limits = plans.limits
        if occasion.trigger == DRIFT:
            look = max(look_of(request) for request in occasion.requests)
            limits = limits._replace(screen=limits.screen / 2 ** (look + 1))
        with trainings(rules.executor, rules.workers) as executor:
            work = Work(executor, pulse, began + rules.timeout_s)
            found = findings(gathered.lesson, plans.grid, rules.repeats, limits, work)
        seconds = time.monotonic() - began
        return verdict_of(
            occasion, gathered, found, limits, plans.impact, created_ms=now_ms + round(1000 * seconds), seconds=seconds
        )

    def _pulse(self, occasion: Occasion, entries: Sequence[str], now_ms: int) -> Callable[[int, int, str], None]:
        """What says that we are alive, and how far; raises `Ended` or `TakenBack` when it is not wanted any more."""
        said_at, silent = float("-inf"), False  # and whether Redis is

        def pulse(done: int, total: int, note: str) -> None:
            nonlocal said_at, silent
            if self._stopping():
                raise Stopped("the retraining was stopped", "another retrainer takes its requests up")
            ids = tuple(request.id for request in occasion.requests)
            self.progress = Progress(
                worker=self._worker, requests=ids, began_ms=now_ms, done=done, total=total, note=note
            )
            if time.monotonic() - said_at < KEEP_S:
                return
            said_at = time.monotonic()
            try:
                wanted = self._requests.keep(entries, self.progress, SILENT_MS)
            except ServiceUnreachable as error:
                if not silent:
                    log.warning("waiting: %s", error, extra={"action": "waiting"})
                silent = True
                return
            if silent:
                log.info("Redis answers again: the retraining goes on", extra={"action": "going-on"})
                silent = False
            if not wanted:
                raise TakenBack("the requests were taken back", "nothing is to be done")

        return pulse

    def _settle(
        self, verdict: Verdict, made: Made | None, requests: Sequence[Request], entries: Sequence[str]
    ) -> Verdict:
        """Ask for another look first, where a drift has brought too little data yet to tell."""
        looks = [request for request in requests if request.trigger == DRIFT]
        look = max((look_of(request) for request in looks), default=MOST_LOOKS) + 1
        if verdict.outcome in {"reject", "inconclusive"} and look < MOST_LOOKS:
            first = looks[0]
            self._requests.ask(
                msgspec.structs.replace(
                    first, id=f"{first.id.split('.')[0]}.{look}", evidence={**first.evidence, "look": look}
                )
            )
        return self._settler.settle(verdict, made, entries)
