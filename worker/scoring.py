"""Skill while the stream runs: error sums over the pairs of new blocks, beside those of the reference forecasts.

The references come from the same observations, folded into a series state of our own, so that missing values and
bridged gaps are seen as the forecaster sees them. Made for a handful of series: series are taken one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.scaling import SeriesState
from models.skill import ErrorSums, mean_skill, persistence, seasonal_naive, skill

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.blocks import Block
    from models.scaling import Bools, Floats, Ints, Rows, SeriesForm

    Reference = Callable[[Floats, Bools], tuple[Floats, Bools]]


@dataclass(frozen=True)
class Compared:
    """A version and a reference over the same pairs, by lead; sums of disjoint sets of pairs are added."""

    version: ErrorSums
    reference: ErrorSums

    @classmethod
    def none(cls, horizon: int) -> Compared:
        """No pair yet."""
        nothing = ErrorSums.over(np.zeros((0, horizon)), np.zeros((0, horizon), np.bool_))
        return cls(nothing, nothing)

    def __add__(self, other: Compared) -> Compared:
        return Compared(self.version + other.version, self.reference + other.reference)

    @property
    def by_lead(self) -> Floats:
        """Skill of each lead, `(H,)`, NaN where there is none."""
        return skill(self.version.mse, self.reference.mse)

    @property
    def mean(self) -> float:
        """Skill of the mean over all leads; NaN where there is no pair."""
        return mean_skill(self.version.mse, self.reference.mse)


@dataclass(frozen=True)
class Score:
    """One version's pairs compared with both references."""

    persistence: Compared
    seasonal: Compared

    @classmethod
    def none(cls, horizon: int) -> Score:
        """No pair yet."""
        return cls(Compared.none(horizon), Compared.none(horizon))

    def __add__(self, other: Score) -> Score:
        return Score(self.persistence + other.persistence, self.seasonal + other.seasonal)


class Scorer:
    """Scores one partition's blocks, given in order."""

    def __init__(self, form: SeriesForm, horizon: int) -> None:
        self._form = form
        self._horizon = horizon
        self._series = SeriesState(form)
        self._trails: dict[int, _Trail] = {}
        period = form.period_steps
        self._back = period * -(-horizon // period)  # steps that the references look back on
        self._references: tuple[Reference, Reference] = (
            lambda x, known: persistence(x, known, horizon),
            lambda x, known: seasonal_naive(x, known, horizon, period),
        )

    def add(self, block: Block, version: int) -> tuple[Score, Rows]:
        """The score of the block's pairs of one version, and the steps that the block made its series take."""
        rows = self._series.look(block.slot, block.step, block.values, block.present)
        self._series.absorb(rows)
        score = Score.none(self._horizon)
        if version not in block.pairs:
            return score, rows
        slots = rows.slot[rows.lane]
        for slot in np.unique(block.slot).tolist():
            trail = self._trails.setdefault(slot, _Trail(self._back))
            mine = np.flatnonzero(slots == slot)
            target = self._form.target_index
            trail.extend(rows.step[mine], rows.x[mine, target], rows.since[mine, target] >= 0)
            score += self._compare(trail, block.take(block.slot == slot), version)
        return score, rows

    def _compare(self, trail: _Trail, block: Block, version: int) -> Score:
        pairs = block.pairs[version]
        actual = block.values[:, self._form.target_index, None]
        paired = ~np.isnan(pairs)
        errors = np.where(paired, pairs, 0.0) - actual  # (N, H)
        found = []
        for reference in self._references:
            values, valid = (column[block.step - trail.first] for column in reference(trail.x, trail.known))
            both = paired & valid
            found.append(Compared(ErrorSums.over(errors, both), ErrorSums.over(values - actual, both)))
        return Score(*found)


class _Trail:
    """One series' recent values of the target by step, at least `back` steps before the newest ones."""

    def __init__(self, back: int) -> None:
        self._back = back
        self.first = 0  # the step of x[0]
        self.x = np.zeros(0)
        self.known = np.zeros(0, np.bool_)

    def extend(self, step: Ints, x: Floats, known: Bools) -> None:
        """Add newer steps (ascending or not), and forget what nothing looks back on any more."""
        begin, end = int(step.min()), int(step.max()) + 1
        first = begin - self._back
        kept = slice(max(0, first - self.first), None)
        old_x, old_known = self.x[kept], self.known[kept]
        at = max(0, self.first - first)
        self.x, self.known = np.zeros(end - first), np.zeros(end - first, np.bool_)
        self.x[at : at + len(old_x)], self.known[at : at + len(old_x)] = old_x, old_known
        self.x[step - first], self.known[step - first] = x, known
        self.first = first
