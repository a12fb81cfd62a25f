"""Losses by event-time step of several contenders over the very same pairs: what a verdict is worked out from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.errors import DataError
from models.tally import REFERENCES, reported_leads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.blocks import Bools, Floats, Ints
    from models.tally import Reference, Scored

SLOT_SHIFT = 44  # bits of a step: more than any time has, in milliseconds


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses of all contenders, of persistence and of seasonal naive, by name, over the same pairs.

    A pair is an observation and a forecast of it, issued in the span, that all contenders and persistence have, where
    there is a scale to measure it by. Seasonal naive may lack some of them.
    """

    steps: Ints  # (T,) all of the span
    loss: dict[str, Floats]  # (T,) mean squared scaled error over series and leads; NaN: no pair
    leads: tuple[int, ...]
    mse_by_lead: dict[str, Floats]  # (L,) scaled; NaN: no pair
    mse: dict[str, float]  # scaled
    mae: dict[str, float]  # in the target's unit
    pairs: int
    observations: int  # that pairs are of
    series: int


class _Total:
    """Sums of one contender's errors, by step and by lead."""

    def __init__(self, steps: int, horizon: int) -> None:
        self.by_step, self.steps = np.zeros(steps), np.zeros(steps, np.int64)
        self.by_lead, self.leads = np.zeros(horizon), np.zeros(horizon, np.int64)
        self.absolute = 0.0

    def add(self, at: Ints, errors: Floats, scale: Floats, pairs: Bools) -> None:
        """Take in errors `(H, M)` at steps `at` `(M,)`."""
        absolute = np.abs(np.where(pairs, errors, 0.0))
        squared = (absolute * scale) ** 2
        self.by_step += np.bincount(at, squared.sum(axis=0), len(self.by_step))
        self.steps += np.bincount(at, pairs.sum(axis=0), len(self.steps)).astype(np.int64)
        self.by_lead += squared.sum(axis=1)
        self.leads += pairs.sum(axis=1)
        self.absolute += float(absolute.sum())


class LossSums:
    """Sums over the pairs of a span `begin…end` (steps), piece by piece."""

    def __init__(self, contenders: Sequence[str], begin: int, end: int, horizon: int) -> None:
        self._contenders = tuple(contenders)
        self._begin, self._end, self._horizon = begin, end, horizon
        self._totals = {name: _Total(end - begin, horizon) for name in (*contenders, *REFERENCES)}
        self._observations = 0
        self._series: set[tuple[int, int]] = set()

    def add(self, segment: int, scored: Mapping[str, Scored]) -> None:
        """Take in what the contenders' forecasts in one piece of a segment were worth."""
        if len(scored) < len(self._contenders):
            return  # one of them has no pair here
        errors, pairs, first = self._in_common(scored)
        kept = np.flatnonzero(pairs.any(axis=0))
        at, scale, pairs = first.step[kept] - self._begin, first.per_scale[kept], pairs[:, kept]
        seasonal = pairs & first.references["seasonal"][1][:, kept]
        for name, error in errors.items():
            self._totals[name].add(at, error[:, kept], scale, seasonal if name == "seasonal" else pairs)
        self._observations += len(at)
        self._series |= {(segment, slot) for slot in np.unique(first.slot[kept]).tolist()}

    def _in_common(self, scored: Mapping[str, Scored]) -> tuple[dict[str, Floats], Bools, Scored]:
        """Errors by name and where all have one that counts, `(H, M)` each, over the observations that all scored."""
        keys = {name: _keys(one) for name, one in scored.items()}
        common = next(iter(keys.values()))
        for key in keys.values():
            common = common[np.isin(common, key)]
        rows = {name: np.flatnonzero(np.isin(key, common)) for name, key in keys.items()}
        name, one = next(iter(scored.items()))
        first = _taken(one, rows[name])
        leads = np.arange(1, self._horizon + 1)[:, None]
        pairs = first.references["persistence"][1] & (first.per_scale > 0)
        pairs &= (first.step - leads >= self._begin) & (first.step < self._end)
        errors: dict[str, Floats] = {}
        for name, one in scored.items():
            errors[name] = one.errors[:, rows[name]]
            pairs &= one.paired[:, rows[name]]
        for reference in REFERENCES:
            errors[reference] = first.references[reference][0]
        return errors, pairs, first

    def losses(self) -> Losses:
        """What it came to.

        Raises:
            DataError: there is no pair that all have.
        """
        pairs = int(self._totals[self._contenders[0]].steps.sum())
        if not pairs:
            raise DataError(
                f"no observation in the {self._end - self._begin} steps of the span has a forecast of every contender",
                "wait for more data: a series' first period has no scale to measure errors by",
            )
        leads = reported_leads(self._horizon)
        at = np.array(leads) - 1
        totals = self._totals.items()
        return Losses(
            steps=np.arange(self._begin, self._end),
            loss={name: _mean(total.by_step, total.steps) for name, total in totals},
            leads=leads,
            mse_by_lead={name: _mean(total.by_lead, total.leads)[at] for name, total in totals},
            mse={name: _ratio(float(total.by_lead.sum()), int(total.leads.sum())) for name, total in totals},
            mae={name: _ratio(total.absolute, int(total.leads.sum())) for name, total in totals},
            pairs=pairs,
            observations=self._observations,
            series=len(self._series),
        )


def _keys(one: Scored) -> Ints:
    """A number for each observation: its slot and step."""
    keys: Ints = (one.slot << SLOT_SHIFT) + one.step
    return keys


def _taken(one: Scored, rows: Ints) -> Scored:
    """The scored pairs of some observations."""
    references: dict[Reference, tuple[Floats, Bools]] = {
        name: (errors[:, rows], both[:, rows]) for name, (errors, both) in one.references.items()
    }
    return replace(
        one,
        slot=one.slot[rows],
        step=one.step[rows],
        block=one.block[rows],
        per_scale=one.per_scale[rows],
        errors=one.errors[:, rows],
        paired=one.paired[:, rows],
        references=references,
    )


def _mean(total: Floats, count: Ints) -> Floats:
    mean: Floats = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return mean


def _ratio(total: float, count: int) -> float:
    return total / count if count else math.nan
