"""Error sums: what is left of pairs once they are counted, by version, group (an hour, a series, …) and lead.

    blocks ──Scorer──► Scored: errors of one version and of the references ──sums──► (groups, leads + 1, COLUMNS)

Sums of disjoint sets of pairs are added. An error is forecast less observation; a *scaled* one is divided by the scale
in force when the observation came, so that loud series don't drown the rest. In the first period of a series, and
after each gap that is too long, the scale rests on a few moves and may be a hundredth of what it becomes: until
the value one period before is known there is no scaled error. The last row of each group pools all leads, those too
that have no row of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.references import Observed, Trails, seasonal_lags

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from models.blocks import Block, Bools, Floats, Ints
    from models.scaling import SeriesForm

Reference = Literal["persistence", "seasonal"]
REFERENCES: tuple[Reference, ...] = ("persistence", "seasonal")
REPORTED_LEADS = (1, 2, 3, 6, 12, 18, 24, 48, 72, 96, 168, 336, 720)
CELLS = 1 << 18  # errors that are looked at in one go: they stay in the processor's cache
LOUDEST = 1e100  # of an error: one that is greater, or infinite, counts as this, and its square is a number

# Of the version's errors, unscaled and scaled; then of each reference's, with the version's over the same pairs.
OWN = ("count", "error", "absolute", "squared", "scaled_count", "scaled_error", "scaled_absolute", "scaled_squared")
BESIDE = ("count", "squared", "reference_squared", "reference_absolute",
          "scaled_count", "scaled_squared", "scaled_reference_squared", "scaled_reference_absolute")  # fmt: skip
PAIRS = "pairs"  # observations with a forecast; in the last row only
COLUMNS = {name: at for at, name in enumerate([*OWN, *(f"{r}.{c}" for r in REFERENCES for c in BESIDE), PAIRS])}


def reported_leads(horizon: int) -> tuple[int, ...]:
    """The leads that have figures of their own."""
    return tuple(sorted({*(lead for lead in REPORTED_LEADS if lead < horizon), horizon}))


@dataclass(frozen=True)
class Scored:
    """The pairs of one version in M observations, by lead; observations without any are not among them."""

    leads: tuple[int, ...]  # that are reported
    row: Ints  # (M,) which of the piece's observations
    slot: Ints  # (M,)
    step: Ints  # (M,)
    block: Ints  # (M,) which of the blocks that were given
    per_scale: Floats  # (M,) 1 / scale in force; 0: none that can be relied on
    errors: Floats  # (H, M), 0 where there is no pair
    paired: Bools  # (H, M)
    references: dict[Reference, tuple[Floats, Bools]]  # errors, 0 where unknown, and where both have one; (H, M) each

    @cached_property
    def losses(self) -> tuple[Floats, Ints]:
        """The sum over leads of the absolute scaled errors of each observation, and their number, `(M,)` each."""
        number = self.paired.sum(axis=0) * (self.per_scale > 0)
        return np.abs(self.errors).sum(axis=0) * self.per_scale, number

    def sums(self, group: Ints, groups: int) -> Floats:
        """The sums by group, `(groups, leads + 1, COLUMNS)`; `group` `(M,)` says which one an observation is of."""
        total = np.zeros((groups, len(self.leads) + 1, len(COLUMNS)))
        if not len(group):
            return total
        order = np.argsort(group, kind="stable") if (group[1:] < group[:-1]).any() else None
        by = group if order is None else group[order]
        starts = np.flatnonzero(np.concatenate([[True], by[1:] != by[:-1]]))
        at = np.array(self.leads) - 1
        for name, values in self._columns():
            if values is None:
                continue
            summed = np.add.reduceat(values if order is None else values[:, order], starts, axis=1, dtype=np.float64)
            total[by[starts], :-1, COLUMNS[name]] = summed[at].T
            total[by[starts], -1, COLUMNS[name]] = summed.sum(axis=0)
        total[by[starts], -1, COLUMNS[PAIRS]] = np.diff(np.append(starts, len(by)))
        return total

    def _columns(self) -> Iterator[tuple[str, NDArray[np.generic] | None]]:
        scaled = self.per_scale > 0
        all_scaled = bool(scaled.all())
        errors, squared = self.errors, self.errors * self.errors
        per_square = self.per_scale * self.per_scale
        yield "count", self.paired
        yield "error", errors
        yield "absolute", np.abs(errors)
        yield "squared", squared
        yield "scaled_count", self.paired if all_scaled else self.paired & scaled
        yield "scaled_error", errors * self.per_scale
        yield "scaled_absolute", np.abs(errors) * self.per_scale
        yield "scaled_squared", squared * per_square
        for name, (theirs, both) in self.references.items():
            same = both is self.paired
            mine = squared if same else squared * both
            square = theirs * theirs
            absolute = np.abs(theirs)
            yield f"{name}.count", both
            yield f"{name}.squared", mine
            yield f"{name}.reference_squared", square
            yield f"{name}.reference_absolute", absolute
            yield f"{name}.scaled_count", both if all_scaled else both & scaled
            yield f"{name}.scaled_squared", mine * per_square
            yield f"{name}.scaled_reference_squared", square * per_square
            yield f"{name}.scaled_reference_absolute", absolute * self.per_scale


class Scorer:
    """Scores one partition's blocks, given in order; remembers of each series what the references look back on."""

    def __init__(self, form: SeriesForm, horizon: int) -> None:
        """`horizon`: that of the versions; of one with a longer one, the first pairs lack far references."""
        self._form = form
        self.trails = Trails(form.max_gap_steps, int(seasonal_lags(horizon, form.period_steps)[-1]))

    def follow(self, blocks: Iterable[Block]) -> None:
        """Take the observations in without scoring anything."""
        for piece in self._pieces(list(blocks)):
            self._look_back(piece, np.empty(0, np.int64))

    def score(self, blocks: Sequence[Block]) -> Iterator[dict[int, Scored]]:
        """What the versions' forecasts were worth, piece by piece: version → errors.

        Raises:
            DataError: the blocks don't follow what came before.
        """
        at = 0
        for piece in self._pieces(blocks):
            yield self._score(piece, at)
            at += len(piece)

    def _score(self, blocks: Sequence[Block], first: int) -> dict[int, Scored]:
        horizon = max((pairs.shape[1] for block in blocks for pairs in block.pairs.values()), default=1)
        seasons = seasonal_lags(horizon, self._form.period_steps)
        self.trails.deepen(int(seasons[-1]))
        lags = np.unique(np.append(np.arange(1, horizon + 1), seasons))
        past, known = self._look_back(blocks, lags)
        settled = known[np.searchsorted(lags, self._form.period_steps)]
        starts = np.cumsum([0, *map(len, blocks)])
        target = self._form.target_index
        found = {}
        for version in sorted({number for block in blocks for number in block.pairs}):
            having = [i for i, block in enumerate(blocks) if version in block.pairs]
            forecasts = np.concatenate([blocks[i].pairs[version] for i in having]).T  # (H, N)
            rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in having])
            actual = np.concatenate([blocks[i].values[:, target] for i in having])
            scale = np.concatenate([blocks[i].scale for i in having]).astype(np.float64)
            paired = ~np.isnan(forecasts)
            some = paired.any(axis=0)
            if not some.any():
                continue
            if not some.all():
                forecasts, paired = forecasts[:, some], paired[:, some]
                rows, actual, scale = rows[some], actual[some], scale[some]
            errors = _errors(forecasts, actual, paired)
            of = np.repeat(having, [len(blocks[i]) for i in having])
            found[version] = Scored(
                leads=reported_leads(len(forecasts)),
                row=rows,
                slot=np.concatenate([blocks[i].slot for i in having])[some],
                step=np.concatenate([blocks[i].step for i in having])[some],
                block=of[some] + first,
                per_scale=np.divide(1.0, scale, out=np.zeros_like(scale), where=settled[rows] & (scale > 0)),
                errors=errors,
                paired=paired,
                references=_references(past, known, lags, self._form.period_steps, rows, actual, paired),
            )
        return found

    def _look_back(self, blocks: Sequence[Block], lags: Ints) -> tuple[Floats, Bools]:
        target = self._form.target_index
        observed = Observed(
            np.concatenate([block.slot for block in blocks]),
            np.concatenate([block.step for block in blocks]),
            np.concatenate([block.values[:, target] for block in blocks]),
            np.concatenate([block.present[:, target] for block in blocks]),
        )
        return self.trails.look_back(observed, lags)

    def _pieces(self, blocks: Sequence[Block]) -> Iterator[Sequence[Block]]:
        """The blocks in groups of about CELLS errors each."""
        begin, size = 0, 0
        for at, block in enumerate(blocks):
            size += len(block) * max((pairs.shape[1] for pairs in block.pairs.values()), default=1)
            if size >= CELLS:
                yield blocks[begin : at + 1]
                begin, size = at + 1, 0
        if begin < len(blocks):
            yield blocks[begin:]


def _references(
    past: Floats, known: Bools, lags: Ints, period_steps: int, rows: Ints, actual: Floats, paired: Bools
) -> dict[Reference, tuple[Floats, Bools]]:
    """Each reference's errors, and where it and the version both have one, `(H, M)` each."""
    horizon = len(paired)
    whole = len(rows) == past.shape[1]
    chosen: dict[Reference, Ints] = {
        "persistence": np.arange(1, horizon + 1),
        "seasonal": seasonal_lags(horizon, period_steps),
    }
    found: dict[Reference, tuple[Floats, Bools]] = {}
    for name, wanted in chosen.items():
        at = np.searchsorted(lags, wanted)
        values, there = (past[at], known[at]) if whole else (past[np.ix_(at, rows)], known[np.ix_(at, rows)])
        both = paired & there
        if np.array_equal(both, paired):
            both = paired
        found[name] = (_errors(values, actual, both), both)
    return found


def _errors(forecasts: NDArray[np.floating], actual: Floats, paired: Bools) -> Floats:
    """Forecast less observation, `(H, M)`; 0 where there is no pair."""
    errors: Floats = forecasts - actual
    errors[~paired] = 0.0
    return np.clip(errors, -LOUDEST, LOUDEST, out=errors)
