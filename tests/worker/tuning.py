"""A small history and settings to tune, and how to run a search over them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from consumers.history import History
from tests.streams import AtOnce
from worker import settings_reading as reading
from worker.cli_history import plan_of
from worker.tune import Search, Wanted
from worker.tune_ground import ground_of, identity
from worker.tune_space import space
from worker.tune_study import opened
from worker.tune_summary import About, tuned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from worker.settings import Settings
    from worker.tune import Ground
    from worker.tune_study import Study
    from worker.tune_told import Run, Tuned

HOUR_MS = 3_600_000
BEGIN_MS = 1_577_836_800_000
SETTINGS = """\
[model]
horizon = 3
[network]
units = [4]
lags = 3
[training]
epochs = 2
chunk = 24
closing_epochs = 1
rate = 0.01
"""
VARY = ("training.rate=0.001..0.03", "network.units=[4],[6]", "network.calendar")


def waves(days: int = 40, seed: int = 0) -> History:
    """One series by the hour: a daily wave with noise."""
    rng = np.random.default_rng(seed)
    step = np.arange(24 * days)
    values = 10 + 3 * np.sin(2 * np.pi * step / 24) + rng.normal(scale=0.5, size=len(step)).cumsum() * 0.2
    return History(
        series=("A",),
        features=("value",),
        series_index=np.zeros(len(step), np.int64),
        time_ms=BEGIN_MS + step * HOUR_MS,
        values=values[:, None],
        present=np.ones((len(step), 1), np.bool_),
    )


def as_csv(history: History) -> str:
    """The same as a file."""
    rows = (
        f"{time},{value!r}" for time, value in zip(history.time_ms.tolist(), history.values[:, 0].tolist(), strict=True)
    )
    return "\n".join(["time,value", *rows, ""])


def settings_of(folder: Path, content: str = SETTINGS) -> Settings:
    """The settings of a file with this content."""
    path = folder / "killick.toml"
    path.write_text(content)
    return reading.load(path, environment=False).settings


def wanted_of(**changes: Any) -> Wanted:
    """A small search."""
    values: dict[str, Any] = {"trials": 3, "splits": 2, "repeats": 2, "check": 0, "prune": False, "seed": 1}
    return Wanted(**(values | changes))


@contextmanager
def at_once() -> Iterator[Executor]:
    """An executor that works in this process."""
    yield AtOnce()


@contextmanager
def searching(
    folder: Path, settings: Settings, wanted: Wanted, vary: Sequence[str] = VARY, history: History | None = None
) -> Iterator[tuple[Search, Study, Ground]]:
    """A search that has not begun."""
    history = waves() if history is None else history
    dimensions = space(settings, vary, ())
    ground = ground_of(history, settings, dimensions, plan_of, wanted.splits)
    with opened(folder, identity(history, ground, wanted), dimensions) as study:
        yield Search(study, ground, wanted), study, ground


def searched(
    folder: Path, settings: Settings, wanted: Wanted, vary: Sequence[str] = VARY, history: History | None = None
) -> Tuned:
    """What a search in this process came to."""
    with searching(folder, settings, wanted, vary, history) as (search, study, ground):
        search.run(at_once, 1)
        return tuned(study, ground, wanted, About("waves.csv", 1, str(folder)))


def timeless(told: Tuned) -> Tuned:
    """The same without what the clock says, and where."""

    def run(one: Run) -> Run:
        return msgspec.structs.replace(one, seconds=0.0)

    trials = tuple(msgspec.structs.replace(one, seconds=0.0, runs=tuple(map(run, one.runs))) for one in told.trials)
    check = told.check and msgspec.structs.replace(
        told.check, first=tuple(map(run, told.check.first)), best=tuple(map(run, told.check.best))
    )
    return msgspec.structs.replace(
        told, trials=trials, check=check, seconds=0.0, workers=0, study="", file="", cheapest=None
    )
