"""Duels: how two versions did on the same live cells, by event-time step; what the live tests are fed.

    blocks ──Scorer──► Scored of each version ──count──► Duel by (step, answering version, other version)

A cell is an observation at one lead. It is live where its forecast was issued after both versions had joined: what a
version that was spun up forecast of its past may be what its training has seen. A Duel's sums are added up cell by
cell in the order of the stream, from what was there before: how the stream is cut into reads changes no bit of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from models.tally import LOUDEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from models.blocks import Bools, Floats, Ints
    from models.tally import Scored


class Duel(NamedTuple):
    """Two versions over the same cells of one step; squared errors in units of the series' scale.

    `lacks` counts cells of which the other version has a forecast and the first one has none, or one that is no number.
    """

    cells: float = 0.0
    first: float = 0.0  # sum of the answering version's squared errors
    second: float = 0.0  # of the other's
    referred: float = 0.0  # how many of the cells persistence has a forecast for
    persistence: float = 0.0  # sum of its squared errors over those
    first_lacks: float = 0.0
    second_lacks: float = 0.0

    @property
    def size(self) -> float:
        """How many cells at least one of them has."""
        return self.cells + self.first_lacks + self.second_lacks

    @property
    def difference(self) -> float:
        """The first one's loss less the second one's: positive where the second one is better; NaN without cells."""
        return (self.first - self.second) / self.cells if self.cells else np.nan

    def turned(self) -> Duel:
        """The same seen from the other one."""
        return self._replace(
            first=self.second, second=self.first, first_lacks=self.second_lacks, second_lacks=self.first_lacks
        )

    def plus(self, other: Duel) -> Duel:
        """Both together."""
        return Duel(*(a + b for a, b in zip(self, other, strict=True)))


Pair = tuple[int, int]  # the version that answers, another one
Duels = dict[tuple[int, int, int], Duel]  # (step, answering version, other version)


class Tenure(NamedTuple):
    """Two versions that run in a block: the one that answers and another one."""

    pair: Pair
    joined_step: int  # the later of the steps at which they joined
    horizon: int  # the shorter one


def count(
    duels: Duels, scored: Mapping[int, Scored], tenures: Sequence[Sequence[Tenure]], over: int | None
) -> set[tuple[int, int, int]]:
    """Add what one piece of a stream brought to the duels, and say which changed.

    `tenures` by number of the block; what comes for steps up to the one that is `over` comes too late.
    """
    changed: set[tuple[int, int, int]] = set()
    for pair in dict.fromkeys(tenure.pair for block in tenures for tenure in block):
        shares = [next((one for one in block if one.pair == pair), None) for block in tenures]
        first, second = (scored.get(version) for version in pair)
        cells = _cells(first, second, shares, np.iinfo(np.int64).min if over is None else over)
        if cells is not None:
            changed |= _add(duels, pair, *cells)
    return changed


def _cells(
    first: Scored | None, second: Scored | None, shares: Sequence[Tenure | None], over: int
) -> tuple[Ints, Floats] | None:
    """Steps of M observations, and what each of their cells adds to the fields of a Duel, `(fields, M, H)`."""
    horizon = max((share.horizon for share in shares if share is not None), default=0)
    known = [one for one in (first, second) if one is not None]
    if not known:
        return None
    rows = known[0].row
    if len(known) > 1 and not np.array_equal(rows, known[1].row):
        rows = np.union1d(rows, known[1].row)
    step, block = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    per_scale = np.empty(len(rows))
    for one in known:
        at = slice(None) if len(one.row) == len(rows) else np.searchsorted(rows, one.row)
        step[at], block[at], per_scale[at] = one.step, one.block, one.per_scale
    least = np.array([share.joined_step if share else np.iinfo(np.int64).max for share in shares])[block]
    width = np.array([share.horizon if share else 0 for share in shares])[block]
    leads = np.arange(1, horizon + 1)
    live = (step[:, None] - leads > least[:, None]) & (leads <= width[:, None]) & (step > over)[:, None]  # (M, H)
    (has, squared), (other_has, other_squared) = (_errors(one, rows, per_scale, horizon) for one in (first, second))
    both = has & other_has & live
    judged = both & (per_scale > 0)[:, None]
    referred, persisted = _persistence(known[0], rows, per_scale, horizon)
    referred &= judged
    parts = (judged, squared * judged, other_squared * judged, referred, persisted * referred)
    return step, np.stack([*parts, other_has & live & ~both, has & live & ~both]).astype(np.float64)


def _errors(one: Scored | None, rows: Ints, per_scale: Floats, horizon: int) -> tuple[Bools, Floats]:
    """Where a version has a forecast that is a number, and its squared error, `(M, H)` each."""
    if one is None:
        return np.zeros((len(rows), horizon), np.bool_), np.zeros((len(rows), horizon))
    errors = _spread(one.errors, one, rows, horizon)
    has = _spread(one.paired, one, rows, horizon) & (np.abs(errors) < LOUDEST)
    return has, (errors * has * per_scale[:, None]) ** 2


def _persistence(one: Scored, rows: Ints, per_scale: Floats, horizon: int) -> tuple[Bools, Floats]:
    """Where persistence is known beside a version's forecast, and its squared error, `(M, H)` each."""
    errors, known = (_spread(values, one, rows, horizon) for values in one.references["persistence"])
    return known.copy(), (errors * per_scale[:, None]) ** 2


def _spread(values: NDArray[Any], one: Scored, rows: Ints, horizon: int) -> NDArray[Any]:
    """A version's `(H, M)` as `(M, H)`, in these rows and for these leads; zero where it has none."""
    if len(one.row) == len(rows) and len(values) >= horizon:
        return values[:horizon].T
    found = np.zeros((len(rows), horizon), values.dtype)
    width = min(horizon, len(values))
    found[np.searchsorted(rows, one.row), :width] = values[:width].T
    return found


def _add(duels: Duels, pair: Pair, step: Ints, cells: Floats) -> set[tuple[int, int, int]]:
    """Add the cells `(fields, M, H)` to the duels of their steps, one after another."""
    some = cells.any(axis=(0, 2))
    if not some.any():
        return set()
    steps, of = np.unique(step[some], return_inverse=True)
    keys = [(at, *pair) for at in steps.tolist()]
    before = np.array([duels.get(key, Duel()) for key in keys])  # (K, fields)
    index = np.concatenate([np.arange(len(keys)), np.repeat(of, cells.shape[2])])
    after = [
        np.bincount(index, np.concatenate([was, part[some].ravel()])) if part.any() else was
        for was, part in zip(before.T, cells, strict=True)
    ]  # adds in this order: with the sums before first, any cut of the stream gives the same bits
    for key, values in zip(keys, np.array(after).T.tolist(), strict=True):
        duels[key] = Duel(*values)
    return set(keys)


def between(duels: Duels, first: int, second: int) -> dict[int, Duel]:
    """The duels of two versions by step, oldest first, whichever answered, seen from the first one."""
    found: dict[int, Duel] = {}
    for (step, answering, other), duel in sorted(duels.items()):
        if {answering, other} == {first, second}:
            mine = duel if answering == first else duel.turned()
            found[step] = found[step].plus(mine) if step in found else mine
    return found


class Fault(NamedTuple):
    """What is wrong with a version."""

    step: int
    words: str


class Breaker(msgspec.Struct):
    """Whether the first version of duels is broken while the second one is not; feed it the steps that are over."""

    run: int = 0  # steps in a row, up to the last one that is over, that were disasters
    size: float = 0.0  # cells of that step

    def fault(self, steps: Iterable[tuple[int, Duel]], ratio: float, needed: int) -> Fault | None:
        """What is wrong, by the steps after those that it was fed, which need not be over; None: nothing.

        A step of which less than half has come says nothing of how large errors are.
        """
        run, size = self.run, self.size
        for step, duel in steps:
            if duel.first_lacks > 0:
                return Fault(step, f"{duel.first_lacks:,.0f} of {duel.size:,.0f} forecasts are missing or no numbers")
            if 2 * duel.size < size:
                continue
            run, size = (run + 1 if _disaster(duel, ratio) else 0), max(size, duel.size)
            if run >= needed:
                times = duel.first / duel.cells / (duel.persistence / duel.referred) if duel.persistence else np.inf
                return Fault(step, f"for {run:,} steps its squared error is more than {ratio:g} times persistence's, "
                                   f"{times:,.3g} times in the last")  # fmt: skip
        return None

    def feed(self, duel: Duel, ratio: float) -> None:
        """Take in a step that is over."""
        self.run = self.run + 1 if _disaster(duel, ratio) else 0
        self.size = duel.size


def _disaster(duel: Duel, ratio: float) -> bool:
    """Whether the first one's squared error is so many times persistence's, and the second one's is not."""
    if not duel.cells or not duel.referred:
        return False
    limit = ratio * duel.persistence / duel.referred
    return duel.first / duel.cells > limit >= duel.second / duel.cells
