"""The last values of the target by series: what persistence and seasonal naive forecast from.

A series' steps are numbered as it takes them (its *place*): an observation is one, and so is each step of a bridged
gap, which repeats the last value. A step that is k places back is then k steps back, unless the series started anew
in between; this is how `models.scaling` sees it too. Arrays over series, no loop over observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.errors import DataError
from models.scaling import NO_STEP

if TYPE_CHECKING:
    from models.blocks import Bools, Floats, Ints

CELLS = 4_000_000  # of the ring that are worth having, before a batch is taken in pieces
MIN_GROWTH = 256  # slots
NEVER = np.iinfo(np.int64).max // 4  # a place that is never reached


def seasonal_lags(horizon: int, period_steps: int) -> Ints:
    """How many steps seasonal naive looks back for leads 1…H, `(H,)`: the least whole number of periods."""
    leads = np.arange(1, horizon + 1)
    return period_steps * -(-leads // period_steps)


class Observed(NamedTuple):
    """Observations in the order in which they were accepted, `(N,)` each; `values` are those of the target."""

    slot: Ints
    step: Ints
    values: Floats  # 0 where missing
    present: Bools

    def take(self, rows: Ints) -> Observed:
        """Some of them, in this order."""
        return Observed(self.slot[rows], self.step[rows], self.values[rows], self.present[rows])


@dataclass(frozen=True)
class Recent:
    """What is kept of S series: enough to go on as if they had been followed all along."""

    last: Ints  # (S,) newest step
    known: Ints  # (S,) places up to the newest whose value is known, at most `depth`
    values: Floats  # (S, depth) of the newest places, the newest first


class Trails:
    """The values of one partition's series, `depth` steps back and no further."""

    def __init__(self, max_gap_steps: int, depth: int) -> None:
        self._longest = max_gap_steps + 1  # steps that one observation can take
        self.depth = depth
        self._last = np.empty(0, np.int64)
        self._place = np.empty(0, np.int64)  # of the newest step
        self._began = np.empty(0, np.int64)  # place of the first known value since the series started (anew)
        self._ring = np.empty((0, self._least_width()))

    def __len__(self) -> int:
        """How many series there is room for."""
        return len(self._last)

    def look_back(self, observed: Observed, lags: Ints) -> tuple[Floats, Bools]:
        """The values `lags` steps before each observation, `(K, N)`, and whether they were known; takes them over.

        Raises:
            DataError: a step is not after the last of its series.
        """
        slot = observed.slot
        self._reserve(int(slot.max(initial=-1)) + 1)
        order = np.argsort(slot, kind="stable")
        index = np.arange(len(order))
        rank = index - np.maximum.accumulate(np.where(_changes(slot[order]), index, 0))
        most = self._most_at_once()
        found, known = np.empty((len(lags), len(slot))), np.empty((len(lags), len(slot)), np.bool_)
        for piece in range(int(rank.max(initial=-1)) // most + 1):
            rows = order[rank // most == piece]
            found[:, rows], known[:, rows] = self._extend(observed.take(rows), lags)
        return found, known

    def recent(self, first: int, count: int) -> Recent:
        """What is kept of the slots from `first` on."""
        rows = slice(first, first + count)
        place = self._place[rows]
        cells = (place[:, None] - np.arange(self.depth)) & (self._ring.shape[1] - 1)
        known = np.clip(place - self._began[rows] + 1, 0, self.depth)
        return Recent(self._last[rows].copy(), known, np.take_along_axis(self._ring[rows], cells, axis=1))

    def restore(self, first: int, kept: Recent) -> None:
        """Take over what `recent` gave for the slots from `first` on, also of trails of another depth."""
        depth = kept.values.shape[1]
        self.deepen(depth)
        self._reserve(first + len(kept.last))
        rows = slice(first, first + len(kept.last))
        place = np.full(len(kept.last), self.depth)
        self._last[rows], self._place[rows] = kept.last, place
        self._began[rows] = np.where(kept.known > 0, place - kept.known + 1, NEVER)
        cells = (place[:, None] - np.arange(depth)) & (self._ring.shape[1] - 1)
        np.put_along_axis(self._ring[rows], cells, kept.values, axis=1)

    def deepen(self, depth: int) -> None:
        """Look back so far from now on; what lies beyond the depth before is not known yet."""
        if depth <= self.depth:
            return
        kept = self.recent(0, len(self))
        self.depth = depth
        self._ring = np.zeros((len(self), self._least_width()))
        self.restore(0, kept)

    def _extend(self, observed: Observed, lags: Ints) -> tuple[Floats, Bools]:
        """As `look_back`, for a piece that is sorted by slot."""
        slot, step = observed.slot, observed.step
        heads = _changes(slot)
        gap = step - np.where(heads, self._last[slot], np.roll(step, 1))
        if gap.min() < 1:
            at = int(np.argmin(gap))
            raise DataError(f"slot {slot[at]} was given step {step[at]}, which is not after its last")
        anew = gap > self._longest
        taken = np.where(anew, 1, gap)
        run = np.cumsum(taken)
        first = np.flatnonzero(heads)
        place = self._place[slot] + run - (run - taken)[first][np.cumsum(heads) - 1]
        self._widen(int((place - self._place[slot]).max()))
        goes_on = heads & ~anew  # from before this piece
        filled, before, began = self._fill(observed, heads | anew, goes_on, place)
        before[heads] = self._newest(slot[heads])

        mask = self._ring.shape[1] - 1
        base, flat = slot * (mask + 1), self._ring.reshape(-1)
        bridged = np.flatnonzero(taken > 1)
        if len(bridged):
            times = taken[bridged] - 1
            owner = np.repeat(bridged, times)
            back = np.arange(len(owner)) - np.repeat(np.cumsum(times) - times, times) + 1
            flat[base[owner] + ((place[owner] - back) & mask)] = before[owner]
        flat[base + (place & mask)] = filled
        ends = np.append(first[1:], len(slot)) - 1
        at = slot[ends]
        self._last[at], self._place[at], self._began[at] = step[ends], place[ends], began[ends]

        past = place - lags[:, None]  # (K, N)
        return flat[base + (past & mask)], past >= began

    def _fill(self, observed: Observed, opens: Bools, goes_on: Bools, place: Ints) -> tuple[Floats, Floats, Ints]:
        """Values with the last known one where there is none; the one before each; where its lane's values begin.

        A lane is a stretch of one series without a gap that is too long; it `opens` here, or `goes_on` from before.
        """
        slot, present = observed.slot, observed.present
        index = np.arange(len(slot))
        lane_at = np.maximum.accumulate(np.where(opens, index, 0))
        latest = np.maximum.accumulate(np.where(present, index, -1))
        carried = np.where(goes_on[lane_at], self._newest(slot), 0.0)
        filled = np.where(latest >= lane_at, observed.values[latest], carried)
        starts = np.flatnonzero(opens)
        began = np.minimum.reduceat(np.where(present, place, NEVER), starts)
        began = np.where(goes_on[starts], np.minimum(self._began[slot[starts]], began), began)
        return filled, np.roll(filled, 1), began[np.cumsum(opens) - 1]

    def _newest(self, slot: Ints) -> Floats:
        """The value at the newest place of each."""
        values: Floats = self._ring[slot, self._place[slot] & (self._ring.shape[1] - 1)]
        return values

    def _most_at_once(self) -> int:
        """How many observations of one series a piece may hold, so that the ring stays small."""
        width = max(CELLS // max(1, len(self._last)), self.depth + 1 + self._longest)
        return max(1, (width - self.depth - 1) // self._longest)

    def _least_width(self) -> int:
        """How many places the ring needs when observations come one by one."""
        return _power_of_two(self.depth + 1 + self._longest)

    def _widen(self, taken: int) -> None:
        """Make the ring hold what is needed while so many steps are taken at once."""
        width = _power_of_two(self.depth + 1 + taken)
        if width > self._ring.shape[1]:
            self._resize(width)

    def _resize(self, width: int) -> None:
        old, back = self._ring, np.arange(self.depth + 1)
        places = self._place[:, None] - back
        kept = np.take_along_axis(old, places & (old.shape[1] - 1), axis=1)
        self._ring = np.zeros((len(old), width))
        np.put_along_axis(self._ring, places & (width - 1), kept, axis=1)

    def _reserve(self, slots: int) -> None:
        have = len(self._last)
        if slots <= have:
            return
        if self._ring.shape[1] > self._least_width():  # one series took many steps at once when they were few
            self._resize(self._least_width())
        more = max(slots - have, MIN_GROWTH, have // 4)
        self._last = np.append(self._last, np.full(more, NO_STEP))
        self._place = np.append(self._place, np.full(more, self.depth))
        self._began = np.append(self._began, np.full(more, NEVER))
        self._ring = np.concatenate([self._ring, np.zeros((more, self._ring.shape[1]))])


def _changes(sorted_slots: Ints) -> Bools:
    """Where another series begins."""
    heads = np.ones(len(sorted_slots), np.bool_)
    heads[1:] = sorted_slots[1:] != sorted_slots[:-1]
    return heads


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
