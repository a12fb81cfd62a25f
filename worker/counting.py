"""What blocks come to, added up: sums of errors, losses and duels by step, inputs by hour. In memory, no store.

    blocks of one partition ──Scorer──► Scored of each version ──► Book, losses, duels; values ──► inputs

The monitor keeps it in Redis (`worker.partition_monitor`); a backtest does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from consumers.roster import incumbent_at
from models import duels
from models.tally import Scorer
from models.times import HOUR_MS
from models.windows import DAY_HOURS, Book, Key
from worker.tenures import tenures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumers.roster import Seat
    from models.blocks import Block, Bools, Floats, Ints
    from models.drift_inputs import TrainedInputs
    from models.duels import Duels
    from models.scaling import SeriesForm
    from models.tally import Scored
    from worker.store import Losses

InputsKey = tuple[int, int]  # version, hour


@dataclass(frozen=True)
class Watched:
    """The version whose inputs are compared with those of its training."""

    version: int
    trained: TrainedInputs

    def count(self, features: Sequence[str], values: Floats, present: Bools, hours: Ints) -> dict[int, Ints]:
        """Hour → how many of the values `(N, F)` lie in each bin, the features' bins in a row."""
        named, of = np.unique(hours, return_inverse=True)
        parts = []
        for name, trained in self.trained.features.items():
            f = features.index(name)
            bins = len(trained.counts)
            rows = np.flatnonzero(present[:, f])
            at = np.searchsorted(np.asarray(trained.edges), values[rows, f], side="left")
            parts.append(np.bincount(of[rows] * bins + at, minlength=len(named) * bins).reshape(len(named), bins))
        counted = np.concatenate(parts, axis=1)
        return dict(zip(named.tolist(), counted, strict=True))


@dataclass
class Changed:
    """The entries that blocks changed, and those that they made go."""

    sums: set[Key] = field(default_factory=set)
    sums_gone: set[Key] = field(default_factory=set)
    inputs: set[InputsKey] = field(default_factory=set)
    inputs_gone: list[InputsKey] = field(default_factory=list)
    losses: set[tuple[int, int]] = field(default_factory=set)
    losses_gone: list[tuple[int, int]] = field(default_factory=list)
    duels: set[tuple[int, int, int]] = field(default_factory=set)
    duels_gone: list[tuple[int, int, int]] = field(default_factory=list)


class Counting:
    """Counts one partition's blocks as they come."""

    def __init__(self, form: SeriesForm, horizon: int) -> None:
        self._form = form
        self._scorer = Scorer(form, horizon)
        self.newest: int | None = None  # step
        self.hour: int | None = None  # of event time: that most are in, before there are pairs that of the newest
        self.book = Book()
        self.losses: Losses = {}
        self.duels: Duels = {}
        self.inputs: dict[InputsKey, Ints] = {}  # counts
        self.seats: Sequence[Seat] = ()
        self.touched: set[Key] = set()  # entries of the book that changed since somebody asked
        self.watched: Watched | None = None

    def count(self, blocks: Sequence[Block], newest: int, fed: int | None, judged: int | None) -> Changed:
        """Add blocks, none of them empty; `newest` is the newest step with them, `self.seats` their roster.

        The detectors were `fed` up to this step, whose losses may go; gate and guard have `judged` duels up to that.

        Raises:
            DataError: the blocks don't follow each other.
        """
        changed = Changed()
        answering = np.array([incumbent_at(self.seats, block.start) or 0 for block in blocks])
        touched = changed.sums
        side_by_side = tenures(self.seats, blocks)
        for scored in self._scorer.score(blocks):
            for version, one in scored.items():
                hours = one.step * self._form.interval_ms // HOUR_MS
                named, group = np.unique(hours, return_inverse=True)
                touched |= self.book.add(version, one.leads, named, one.sums(group, len(named)))
                changed.losses |= self._lose(version, one, answering[one.block] == version, fed)
            changed.duels |= duels.count(self.duels, scored, side_by_side, judged)
        self.hour = hour = self._hour_under_way(newest)
        changed.sums_gone = self.book.outdated(hour)
        for key in changed.sums_gone:
            del self.book.sums[key]
        self.touched |= touched | changed.sums_gone
        changed.sums -= changed.sums_gone
        changed.inputs = self._count_inputs(blocks)
        changed.inputs_gone = self._outdated_inputs(hour)
        for known in changed.inputs_gone:
            del self.inputs[known]
        changed.inputs.difference_update(changed.inputs_gone)
        changed.losses_gone = [key for key in self.losses if fed is not None and key[0] <= fed]
        for fed_already in changed.losses_gone:
            del self.losses[fed_already]
        changed.duels_gone = [key for key in self.duels if judged is not None and key[0] <= judged]
        for judged_already in changed.duels_gone:
            del self.duels[judged_already]
        return changed

    def _hour_under_way(self, newest: int) -> int:
        """The hour of event time that is not complete; before there are pairs, that of the `newest` step."""
        found = self.book.newest_hour()
        return newest * self._form.interval_ms // HOUR_MS if found is None else found

    def _lose(self, version: int, scored: Scored, answered: np.ndarray, fed: int | None) -> set[tuple[int, int]]:
        """Add the losses of a version where it answered, by step; those of steps that are over come too late."""
        total, number = scored.losses
        rows = np.flatnonzero(answered & (number > 0) & (scored.step > (fed if fed is not None else -np.inf)))
        steps, of = np.unique(scored.step[rows], return_inverse=True)
        sums, counts = np.bincount(of, total[rows]), np.bincount(of, number[rows])
        for step, loss, count in zip(steps.tolist(), sums.tolist(), counts.tolist(), strict=True):
            before = self.losses.get((step, version), (0, 0.0))
            self.losses[step, version] = (before[0] + int(count), before[1] + loss)
        return {(step, version) for step in steps.tolist()}

    def _count_inputs(self, blocks: Sequence[Block]) -> set[InputsKey]:
        if self.watched is None or not self.watched.trained.features or not blocks:
            return set()
        version, changed = self.watched.version, set()
        values, present = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("values", "present"))
        hours = np.concatenate([block.step for block in blocks]) * self._form.interval_ms // HOUR_MS
        for hour, counted in self.watched.count(self._form.features, values, present, hours).items():
            before = self.inputs.get((version, hour))
            self.inputs[version, hour] = counted if before is None else before + counted
            changed.add((version, hour))
        return changed

    def _outdated_inputs(self, hour: int) -> list[InputsKey]:
        if self.watched is None:
            return []
        kept = self.watched.trained.window_steps * self._form.interval_ms // HOUR_MS + DAY_HOURS
        return [key for key in self.inputs if key[0] != self.watched.version or key[1] < hour - kept]
