"""`killick backtest`: what every policy would have come to on a file of history.

    Scene ─┬─ fit, once a seed ─► First ─┬─ run (policy, seed) ─► PolicyRun ─┐
           └─ baselines ─────────────────┴───────────────────────────────────┴─► Backtested

Fits and runs go side by side in processes, each of which loads TensorFlow for itself.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from models.errors import DataError
from models.times import rfc3339
from worker.backtest_forecasts import ForecastWriter, merge
from worker.backtest_scores import Scores, Truth, baselines
from worker.backtest_told import Backtested
from worker.executors import PROCESSES, Work, trainings
from worker.progress import progress
from worker.quiet import start_tensorflow
from worker.scratch import scratch
from worker.wiring_updating import training_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import TextIO

    from models.blocks import Ints, Singles
    from models.learning import EpochReport
    from worker.backtest_policies import Policy
    from worker.backtest_scene import First, Scene
    from worker.backtest_told import PolicyRun, ScoreSet
    from worker.backtest_update import Material

PULSE_SHARE = 0.01  # of a run, between two signs of progress
FIT_SHARE = 0.2  # of a run: what a fit counts for in the progress shown


@dataclass(frozen=True)
class Wishes:
    """What a backtest is asked for."""

    file: str
    policies: tuple[Policy, ...]
    seeds: tuple[int, ...]
    leads: tuple[int, ...]
    workers: int
    forecasts: Path | None = None  # where every forecast is written to


def backtest(
    scene: Scene, wishes: Wishes, stream: TextIO, tell: Callable[[Backtested], None] = lambda _: None
) -> Backtested:
    """All policies with all seeds, and the baselines; progress goes to `stream`.

    `tell` is told what came out before anything is written: a disk that is full then costs no more than a file.

    Raises:
        DataError: the file holds too little, or forecasts can't be written.
        VersionError: a training exploded.
        TrainingError: a process ended by force.
    """
    _check(scene)
    runs = [(seed, policy) for policy in _longest_first(wishes.policies) for seed in wishes.seeds]
    with ExitStack() as stack:
        stack.enter_context(_ends_on_sigterm())
        folder = stack.enter_context(scratch("backtest"))
        parts = {(seed, policy): _part(folder, wishes, policy, seed) for seed, policy in runs}
        total = FIT_SHARE * len(wishes.seeds) + len(runs)

        def pulse(_done: int, _total: int, note: str) -> None:
            done = sum(_read(path) for path in folder.glob("*.done"))
            report(math.floor(100 * done / total), note)

        with (
            progress("backtest", 100, stream) as report,
            trainings(PROCESSES, wishes.workers) as executor,
        ):
            work = Work(executor, pulse, math.inf, when_short="fewer --workers, a shorter file or fewer series")
            signs = iter(folder / f"{number}.done" for number in range(len(wishes.seeds) + len(runs)))
            found = work.run("fitting", fit_one, [(scene, seed, next(signs)) for seed in wishes.seeds])
            first = dict(zip(wishes.seeds, found, strict=True))
            calls: list[tuple[Any, ...]] = [
                (run_one, scene, policy, first[seed], seed, wishes.leads, next(signs), parts[seed, policy])
                for seed, policy in runs
            ]
            calls.insert(1, (baselines_of, scene, wishes.leads))
            made = work.run("streaming", _call, calls)
            beside: dict[str, ScoreSet] = made.pop(1)
        by_key = {(run.policy, run.seed): run for run in made}
        ordered = [by_key[policy.name, seed] for policy in wishes.policies for seed in wishes.seeds]
        told = _told(scene, wishes, [first[seed].seconds for seed in wishes.seeds], beside, ordered)
        tell(told)
        if wishes.forecasts is not None:
            written = [parts[seed, policy] for policy in wishes.policies for seed in wishes.seeds]
            merge([part for part in written if part is not None], wishes.forecasts)
    return told


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: with its processes and the files that it has on the way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """One of several kinds of tasks that go side by side."""
    return function(*arguments)


def fit_one(scene: Scene, seed: int, sign: Path) -> First:
    """The first version of a seed; in a process of its own.

    Raises:
        DataError, VersionError: as `Material.fit`.
    """
    start_tensorflow(scene.settings.network.threads)
    settings = replace(training_settings(scene.settings), seed=seed)

    def on_epoch(epoch: EpochReport) -> None:
        sign.write_text(str(FIT_SHARE * epoch.epoch / epoch.epochs), encoding="ascii")

    first = _material(scene).fit(
        scene.architecture, settings, scene.online_step, scene.settings.training.validation, on_epoch
    )
    sign.write_text(str(FIT_SHARE), encoding="ascii")
    return first


def run_one(
    scene: Scene, policy: Policy, first: First, seed: int, leads: Sequence[int], sign: Path, part: Path | None
) -> PolicyRun:
    """One policy with one seed; in a process of its own.

    Raises:
        DataError, VersionError: as `Run.play`.
    """
    start_tensorflow(scene.settings.network.threads)
    from worker.backtest_run import Run  # noqa: PLC0415

    truth = _truth(scene)
    begin, end = scene.row(scene.online_step), len(scene.block)
    said = 0.0

    def report(done: int) -> None:
        nonlocal said
        share = (done - begin) / max(1, end - begin)
        if share - said >= PULSE_SHARE or done == end:
            said = share
            sign.write_text(str(share), encoding="ascii")

    run = Run(scene, policy, first, _material(scene) if policy.updates and not scene.gate else None, seed)
    with ExitStack() as stack:
        write: Callable[[Ints, Ints, Singles, int], None]
        if part is None:
            write = lambda *_: None  # noqa: E731
        else:
            writer = stack.enter_context(ForecastWriter(part, scene.names, scene.settings.interval_ms))

            def write(slot: Ints, step: Ints, forecasts: Singles, version: int) -> None:
                writer.add(policy.name, seed, slot, step, forecasts, version)

        return run.play(Scores(truth, scene.settings.model.horizon, scene.online_step), write, report, leads)


def baselines_of(scene: Scene, leads: Sequence[int]) -> dict[str, ScoreSet]:
    """Persistence, seasonal naive and the linear model, over the same span."""
    return baselines(_truth(scene), scene.settings.model.horizon, scene.online_step, leads)


@lru_cache(maxsize=1)
def _material(scene: Scene) -> Material:
    """What can be learned from the file, prepared once in a process."""
    from worker.backtest_update import Material  # noqa: PLC0415 - this brings TensorFlow

    return Material(scene.block, scene.names, scene.settings.series_form(), scene.architecture)


def _truth(scene: Scene) -> Truth:
    """Errors are measured in deviations over what the first version was trained on, without its validation span."""
    first, online = int(scene.block.step[0]), scene.online_step
    train_end = first + round((online - first) * (1.0 - scene.settings.training.validation))
    return Truth.of(scene.block, scene.names, scene.settings.series_form(), train_end)


def _check(scene: Scene) -> None:
    """Refuse a file that leaves nothing to stream, or nothing to fit on."""
    block, interval_ms = scene.block, scene.settings.interval_ms
    first, last = int(block.step[0]), int(block.step[-1])
    begin, end = rfc3339(first * interval_ms), rfc3339(last * interval_ms)
    least = 3 * scene.settings.model.horizon
    if not first < scene.online_step <= last:
        raise DataError(
            f"--train-until is {rfc3339(scene.online_step * interval_ms)}, the file goes from {begin} to {end}",
            "name a time in between: what is before it is fitted on, what follows is streamed",
        )
    if last - scene.online_step < least:
        raise DataError(
            f"after --train-until the file has {last - scene.online_step} steps, and 3 horizons make {least}",
            "name an earlier time, or a shorter horizon",
        )


def _longest_first(policies: Sequence[Policy]) -> list[Policy]:
    return sorted(policies, key=lambda policy: policy.every_ms or (1 << 40 if policy.updates else 1 << 50))


def _part(folder: Path, wishes: Wishes, policy: Policy, seed: int) -> Path | None:
    """Where the forecasts of a run go, on their way."""
    if wishes.forecasts is None:
        return None
    return folder / f"{policy.name.replace(':', '-')}-{seed}.parquet"


def _read(path: Path) -> float:
    """How far a task is; it may be writing just now."""
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0


def _told(
    scene: Scene, wishes: Wishes, fit_s: Sequence[float], beside: dict[str, ScoreSet], runs: Sequence[PolicyRun]
) -> Backtested:
    settings, block = scene.settings, scene.block
    interval_ms = settings.interval_ms
    return Backtested(
        file=wishes.file,
        model=settings.model.name,
        target=settings.model.target,
        interval_ms=interval_ms,
        horizon=settings.model.horizon,
        leads=wishes.leads,
        series=len(scene.names),
        observations=len(block) - scene.row(scene.online_step),
        begin_ms=int(block.step[0]) * interval_ms,
        online_ms=scene.online_step * interval_ms,
        end_ms=int(block.step[-1]) * interval_ms,
        gate=scene.gate,
        seeds=len(wishes.seeds),
        fit_s=tuple(fit_s),
        baselines=beside,
        runs=tuple(runs),
    )
