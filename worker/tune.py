"""The search of `killick tune`: which configuration is tried next, on which split, with which seed, and when it ends.

    settings, space ──suggest──► trial ──a round: one training a split──► pruned, or another round … ──► complete
                                                                                                            │
                     trial 0 and the best, on the span that `killick fit` holds out  ◄──check──  the best of all

All trainings run in other processes; this one alone decides and writes. What a trial is, and whether it is given up,
depends only on trials that had ended when it was begun, which are always the same: so the same call gives the same
study, however many processes there are and however often it was killed. Trial 0 is the settings as they are.
"""

from __future__ import annotations

import math
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from models.errors import DataError, VersionError
from models.learning import EXPLODED
from worker.executors import TrainingError
from worker.tune_figures import deviation_of, mean_of
from worker.tune_space import applied, possible, present
from worker.tune_task import learn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor, Future
    from contextlib import AbstractContextManager

    from models.blocks import Block
    from models.sequences import Spans
    from worker.fit import FitPlan
    from worker.settings import Settings
    from worker.tune_space import Dimension, Params
    from worker.tune_study import Kept, Study
    from worker.tune_told import Run, State

OPEN = 6  # trials that are under way together
DRAWS = 200  # until one is new and possible; none is: all have been tried
HOPELESS = 3.0  # standard errors above the best so far: given up
SEEDS = 1 << 31
TICK_S = 0.5
CHECK = -1  # in place of a split


@dataclass(frozen=True)
class Wanted:
    """How much is asked for."""

    trials: int  # with trial 0
    splits: int
    repeats: int
    check: int  # repeats of trial 0 and of the best at the end
    prune: bool
    seed: int


@dataclass(frozen=True)
class Ground:
    """What is trained on, and where it is cut: `splits` for the search, `held` as `killick fit` would."""

    block: Block
    settings: Settings
    dimensions: tuple[Dimension, ...]
    plan_of: Callable[[Settings], FitPlan]
    splits: tuple[Spans, ...]
    held: Spans

    def plan(self, params: Params) -> FitPlan:
        """What a fit with a choice of the space is asked for."""
        return self.plan_of(applied(self.settings, self.dimensions, params))


class Job(NamedTuple):
    """One training; `split` is `CHECK` for one of the check."""

    trial: int
    split: int
    seed: int


class Search:
    """Takes a study from where it stands to its end."""

    def __init__(
        self,
        study: Study,
        ground: Ground,
        wanted: Wanted,
        *,
        enough: Callable[[], bool] = lambda: False,
        tell: Callable[[int, str], None] = lambda _done, _note: None,
    ) -> None:
        """`enough` says when no more trials shall begin; `tell` is told how many trainings are done, and a note."""
        self._study, self._ground, self._wanted = study, ground, wanted
        self._enough, self._tell = enough, tell
        self._refused: dict[Job, str] = {}
        self._broken: set[Job] = set()  # were under way when a process died: each must run alone
        self.exhausted = False

    def run(self, pool: Callable[[], AbstractContextManager[Executor]], workers: int) -> None:
        """Bring all trials and the check to their ends.

        Raises:
            DataError, VersionError: the settings as they are can't be trained on this data.
            TrainingError: a process died that trained them.
        """
        while True:
            with pool() as executor:
                try:
                    self._work(executor, workers)
                except BrokenExecutor:  # its jobs are marked; a new pool takes them, one by one
                    continue
                return

    def _work(self, executor: Executor, workers: int) -> None:
        under_way: dict[Future[Run], Job] = {}
        while True:
            self._decide()
            self._begin()
            self._report()
            room = (1 if self._broken else workers) - len(under_way)
            for job in islice(self._jobs(set(under_way.values())), max(0, room)):
                try:
                    under_way[executor.submit(learn, self._ground.block, *self._order(job))] = job
                except BrokenExecutor:
                    self._lost({job, *under_way.values()})
                    raise
            if not under_way:
                return
            done, _ = wait(under_way, timeout=TICK_S, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    self._take(under_way[future], future)
                except BrokenExecutor:
                    self._lost(set(under_way.values()))
                    raise
                del under_way[future]

    def best(self) -> Kept | None:
        """The complete trial with the least error so far."""
        complete = [one for one in self._study.trials if one.state == "complete" and one.value is not None]
        return min(complete, key=lambda one: (one.value or 0.0, one.number), default=None)

    def _seeds(self, count: int) -> list[int]:
        """The seeds of a configuration's trainings: those of the settings first."""
        first = self._ground.settings.training.seed
        return [(first + i) % SEEDS for i in range(count)]

    def _open(self) -> list[Kept]:
        return [one for one in self._study.trials if one.state is None]

    def _begin(self) -> None:
        """Begin trials while some are left to begin and what they build on has ended."""
        trials = self._study.trials
        while len(trials) < self._wanted.trials and not self.exhausted and not self._enough():
            number = len(trials)
            known, begun = trials[: max(0, number - OPEN + 1)], trials[max(0, number - OPEN + 1) :]
            if any(one.state is None for one in known):
                return
            params = self._next(number, known, begun)
            if params is None:
                self.exhausted = True
                return
            self._study.add(params)

    def _next(self, number: int, known: Sequence[Kept], begun: Sequence[Kept]) -> Params | None:
        """What the next trial tries; None: everything has been tried."""
        ground = self._ground
        if number == 0:
            return present(ground.settings, ground.dimensions)
        tried = [one.params for one in self._study.trials]
        for draw in range(DRAWS):
            params = self._study.suggest(known, begun, (self._wanted.seed, number, draw))
            if params not in tried and possible(ground.settings, ground.dimensions, params):
                return params
        return None

    def _decide(self) -> None:
        """End the trials whose last round says so."""
        for trial in self._open():
            for rounds, seed in enumerate(self._seeds(self._wanted.repeats), 1):
                jobs = [Job(trial.number, split, seed) for split in range(self._wanted.splits)]
                if not all(self._done(job) for job in jobs):
                    break
                found = self._verdict(trial, jobs, rounds)
                if found is not None:
                    self._study.end(trial, *found)
                    break

    def _verdict(self, trial: Kept, jobs: Sequence[Job], rounds: int) -> tuple[State, float | None, str] | None:
        """How a trial ends after so many rounds, what it came to and why; None: it goes on."""
        refused = next((self._refused[job] for job in jobs if job in self._refused), None)
        if refused is not None:
            return "refused", None, refused
        for job in jobs:
            run = trial.runs[job.split, job.seed]
            if run.mse is None:
                said = f"with seed {job.seed} on split {job.split + 1}: {run.words}"
                return ("exploded" if run.diagnosis == EXPLODED else "refused"), None, said
        runs = [run for run in trial.runs.values() if run.seed in self._seeds(rounds)]
        value = mean_of(runs)
        if rounds == self._wanted.repeats:
            return "complete", value, ""
        words = self._hopeless(trial.number, runs, rounds) if self._wanted.prune else ""
        return ("pruned", value, words) if words else None

    def _hopeless(self, number: int, runs: Sequence[Run], rounds: int) -> str:
        """Why a trial is given up after some rounds; "": it is not.

        Its mean is so far above that of the best trial before it that the luck of the seeds does not explain it.
        """
        before = [one for one in self._study.trials[: max(0, number - OPEN + 1)] if one.state == "complete"]
        if not before:
            return ""
        best = min(before, key=lambda one: (one.value or 0.0, one.number))
        deviation = deviation_of([list(one.runs.values()) for one in before])
        mean, least = mean_of(runs), best.value
        if deviation is None or mean is None or least is None:
            return ""
        luck = deviation * math.sqrt((1 / rounds + 1 / self._wanted.repeats) / self._wanted.splits)
        if mean - least <= HOPELESS * luck:
            return ""
        above = f"{(mean - least) / least:.1%} above trial {best.number}" if least else f"above trial {best.number}"
        return f"given up after {rounds} of {self._wanted.repeats} repeats: {above}"

    def _done(self, job: Job) -> bool:
        if job in self._refused:
            return True
        if job.split == CHECK:
            return (job.trial, job.seed) in self._study.checks
        return (job.split, job.seed) in self._study.trials[job.trial].runs

    def _jobs(self, busy: set[Job]) -> Iterator[Job]:
        """What can be trained now, the oldest trial's first; after the last trial, the check."""
        if self._broken:
            yield from () if busy else sorted(self._broken)[:1]
            return
        trials = self._open()
        for trial in trials:
            for seed in self._seeds(self._wanted.repeats):
                jobs = [Job(trial.number, split, seed) for split in range(self._wanted.splits)]
                left = [job for job in jobs if not self._done(job)]
                if left:
                    yield from (job for job in left if job not in busy)
                    break
        if not trials:
            best = self.best()
            numbers = dict.fromkeys((0, best.number)) if best is not None else ()
            jobs = [Job(number, CHECK, seed) for seed in self._seeds(self._wanted.check) for number in numbers]
            yield from (job for job in jobs if job not in busy and not self._done(job))

    def _order(self, job: Job) -> tuple[FitPlan, Spans, int]:
        """What `learn` is asked for a job, beside the block."""
        plan = self._ground.plan(self._study.trials[job.trial].params)
        plan = replace(plan, training=replace(plan.training, seed=job.seed))
        return (plan, self._ground.held, 0) if job.split == CHECK else (plan, self._ground.splits[job.split], job.split)

    def _take(self, job: Job, future: Future[Run]) -> None:
        """Keep what a job came to."""
        try:
            run = future.result()
        except (DataError, VersionError) as error:
            if job.trial == 0 or job.split == CHECK:
                raise
            self._refused[job] = str(error)
        else:
            if job.split == CHECK:
                self._study.keep_check(job.trial, run)
            else:
                self._study.keep_run(self._study.trials[job.trial], run)
        self._broken.discard(job)

    def _lost(self, jobs: set[Job]) -> None:
        """A process died while these were under way: the one that was alone is to blame."""
        if len(jobs) > 1 or not self._broken:
            self._broken |= jobs
            return
        (job,) = jobs
        self._broken.discard(job)
        if job.trial == 0 or job.split == CHECK:
            raise TrainingError(
                f"the process that trained trial {job.trial} died: was there too little memory?",
                "take a shorter span or fewer series",
            )
        self._refused[job] = "the process that trained it died: was there too little memory?"

    def _report(self) -> None:
        each = self._wanted.splits * self._wanted.repeats
        total = self._wanted.trials * each + 2 * self._wanted.check
        done = sum(len(one.runs) if one.state is None else each for one in self._study.trials)
        best = self.best()
        note = ""
        if best is not None and best.value is not None:
            first = self._study.trials[0].value
            note = f"best: trial {best.number}, MSE {best.value:.4g}"
            if best.number and first:
                note += f", {1 - best.value / first:.1%} below the settings as they are"
        self._tell(min(total, done + len(self._study.checks)), note)
