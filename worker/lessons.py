"""What a retraining learns from: what is recorded since the stream began and the history of the first fit, as a lesson.

registry ─► incumbent: network, what it was trained on ─┐
what is recorded, history of the fit ─► segments ───────┴─► Lesson, with its spans
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from consumers.past import newest_step, of_history
from models.drift_inputs import inputs_of
from models.errors import ArchiveError, DataError, VersionError
from models.strategies import cuts
from models.times import rfc3339
from worker.readiness import DRIFT, Known, new_begin
from worker.retraining_tasks import Lesson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumers.archive_history import Histories
    from consumers.past import Stretch
    from models.learning import TrainingSettings
    from models.registry import VersionInfo
    from models.scaling import SeriesForm
    from worker.desks import VersionDesk
    from worker.store import Request

HALF_LIVES = 4  # of series state before the first step that is trained on, where a record is not read whole
SERIES_SEED = 1


class Recorded(Protocol):
    """Reads what is recorded of a model's stream: archive and ledgers of a service, the file of a backtest."""

    def __call__(self, *, since_step: int, alive: Callable[[], None]) -> tuple[list[Stretch], int]:
        """Stretches of the series that are looked at, from about a step on, and how many series there are.

        `alive` is called again and again while data is read.

        Raises:
            ArchiveError, LedgerError: what is recorded can't be read.
            ServiceUnreachable: Redis did not answer.
        """


class Sources(NamedTuple):
    """Where a model's data and versions are."""

    registry: VersionDesk
    recorded: Recorded
    histories: Histories | None
    newest: Callable[[], int | None]  # step that the monitor has counted
    tried: Callable[[], int | None]  # version whose live trial is under way


class Shares(NamedTuple):
    """How much is looked at, and how it is cut."""

    history_steps: int
    series: int
    validation: float
    evaluation: float
    recent_share: float
    recent_inputs_steps: int  # the window in which the monitor compares inputs


@dataclass(frozen=True)
class Gathered:
    """A lesson, with what is told of its data."""

    lesson: Lesson
    series: int  # that are looked at
    all_series: int
    observations: int
    data: dict[str, Any]  # as the registry keeps it with a version
    inputs: dict[str, Any]
    notes: tuple[str, ...]


class Lessons:
    """Gathers lessons of one model."""

    def __init__(
        self, sources: Sources, form: SeriesForm, shares: Shares, training: TrainingSettings, threads: int
    ) -> None:
        self._sources = sources
        self._form = form
        self._shares = shares
        self._training = training
        self._threads = threads

    def newest_step(self) -> int | None:
        """The newest step that the monitor has counted; None: it has counted none."""
        return self._sources.newest()

    def tried(self) -> int | None:
        """The version whose live trial is under way."""
        return self._sources.tried()

    def incumbent(self) -> VersionInfo | None:
        """The version that answers."""
        registry = self._sources.registry
        answers = registry.aliases().incumbent
        return None if answers is None else registry.info(answers)

    def known(self, last: int | None) -> Known:
        """What says which requests are ready; `last` was the newest step when the last verdict was reached."""
        return Known(self.incumbent(), self.newest_step(), last, self.tried(), self._form.interval_ms)

    def gather(self, requests: Sequence[Request], alive: Callable[[], None] = lambda: None) -> Gathered:
        """The lesson that requests ask for; after several drifts data is new from the first one on.

        `alive` is called again and again while data is read.

        Raises:
            DataError: there is too little data.
            VersionError: there is no version that answers.
            ArchiveError, LedgerError: what is recorded can't be read.
            ServiceUnreachable: Redis did not answer.
        """
        incumbent = self.incumbent()
        if incumbent is None:
            raise VersionError("no version answers yet, so there is nothing to update", "fit one: `killick fit FILE`")
        stretches, all_series, since = self._stretches(alive)
        notes: list[str] = []
        digest = self._history_of(incumbent)
        fitted = self._fitted_on(digest, notes)
        if not stretches:
            raise DataError("nothing is recorded of the stream yet", "a consumer has to run first: `killick consumer`")
        newest = newest_step(stretches)
        observations = sum(len(one.block) for one in stretches)
        looked = sum(len(one.names) for one in stretches)
        if looked < all_series:
            notes.append(f"{looked:,} of {all_series:,} series were drawn (retraining.series)")
        if not all(one.whole for one in stretches):
            notes.append("the record does not begin with the stream: its first steps only bring series state about")
        used = [one.until(newest + 1) for one in [*fitted, *stretches]]
        begin = max(since, min(int(one.block.step.min()) for one in used))
        shares = self._shares
        network, weights, _ = self._sources.registry.load(incumbent.version)
        interval_ms = self._form.interval_ms
        asking = [one for one in requests if one.trigger == DRIFT] or requests
        new_since = max(begin, min(new_begin(request, incumbent, interval_ms) for request in asking))
        spans = cuts(
            begin,
            new_since,
            newest + 1,
            horizon=network.horizon,
            validation=shares.validation,
            evaluation=shares.evaluation,
        )
        lesson = Lesson(
            id=requests[0].id,
            form=self._form,
            architecture=network.to_json(),
            weights=weights,
            segments=tuple(one.block for one in used),
            names=tuple(one.names for one in used),
            cuts=spans,
            training=self._training,
            update=self._training,
            recent_share=shares.recent_share,
            threads=self._threads,
        )
        data = {
            "series": looked,
            "observations": observations,
            "since": rfc3339(begin * self._form.interval_ms),
            "until": rfc3339(newest * self._form.interval_ms),
            "history": digest,
        }
        return Gathered(
            lesson=lesson,
            series=looked,
            all_series=all_series,
            observations=observations,
            data=data,
            inputs=self._inputs(stretches, new_since, newest),
            notes=tuple(notes),
        )

    def _stretches(self, alive: Callable[[], None]) -> tuple[list[Stretch], int, int]:
        """What is recorded; how many series there are; from which step on it may be trained on."""
        sources, shares = self._sources, self._shares
        since = (sources.newest() or 0) - shares.history_steps
        settling = HALF_LIVES * round(self._form.half_life_steps)
        found, total = sources.recorded(since_step=since - settling, alive=alive)
        return found, total, since

    def _fitted_on(self, digest: str | None, notes: list[str]) -> list[Stretch]:
        """The history that the first version was fitted on, if it was kept."""
        if digest is None:
            return []
        if self._sources.histories is None:
            notes.append(
                "the history of the first fit was not kept (archive.path): old data is what the stream brought"
            )
            return []
        try:
            history = self._sources.histories.read(digest)
        except ArchiveError as error:
            notes.append(f"the history of the first fit can't be had: {error}")
            return []
        found = of_history(history, self._form, series=self._shares.series, seed=SERIES_SEED)
        return [found] if found is not None else []

    def _inputs(self, stretches: Sequence[Stretch], begin: int, end: int) -> dict[str, Any]:
        """Histograms of the features over the new data, for the monitor to compare with what comes later."""
        blocks = []
        for one in stretches:
            rows = np.flatnonzero((one.block.step >= begin) & (one.block.step <= end))
            blocks.append(one.block.take(rows))
        values, present, steps = (
            np.concatenate([getattr(block, name) for block in blocks]) for name in ("values", "present", "step")
        )
        return inputs_of(self._form.features, values, present, steps, window_steps=self._shares.recent_inputs_steps)

    def _history_of(self, version: VersionInfo) -> str | None:
        """The digest of the history that the first ancestor was fitted on."""
        while "history" not in version.training.get("data", {}) and version.parent is not None:
            parent = self._sources.registry.info(version.parent)
            if parent is None:
                break
            version = parent
        data = version.training.get("data", {})
        found = data.get("history", data.get("sha256"))
        return None if found is None else str(found)
