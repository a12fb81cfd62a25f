"""Series state: what is kept per series and depends on the data alone.

A partition's series are rows of arrays ("slots"). A batch of observations is looked at as *steps taken*: the
steps of a bridged gap are put in between, and the whole is laid out wave by wave, as a packed sequence is:
wave `w` holds the `w`-th step of every series that takes more than `w` of them. Everything that does not
follow from the step before is computed for all rows at once; only the running sums go wave by wave.

    observations ──look──► Rows ──(inputs, forecasts, pairs)──► absorb ──► SeriesState
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import ConfigError, DataError
from models.slabs import Slab, histories, running, slabs_of, windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMAT = 1
NO_STEP = np.iinfo(np.int64).min // 4  # "no step yet": far before any time, and safe to subtract from
MIN_GROWTH = 256  # slots
SCALE_FACTOR = 1.7  # turns the exponentiated log mean of absolute moves into about their standard deviation
MOVE_FLOOR = 0.02  # of the mean absolute move of its life: a series that rests for days keeps its measure
LEVEL_FLOOR = 1e-6  # of the level: the least scale of a series that does not move at all
ABSOLUTE_FLOOR = 1e-12

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class SeriesForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the series state of a model looks like; fixed for the life of a ledger.

    `ring_steps` recent observations are kept; statistics forget by half every `half_life_steps`;
    a gap of up to `max_gap_steps` missing steps is bridged.
    """

    features: tuple[str, ...]
    target: str
    interval_ms: int
    period_steps: int
    half_life_steps: float
    ring_steps: int
    max_gap_steps: int
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Refuse a form that can't be kept."""
        if self.target not in self.features:
            raise ConfigError(f"target {self.target!r} is not among the features {list(self.features)}", "add it")
        if self.ring_steps <= max(1, self.period_steps // 4):
            raise ConfigError(
                f"ring_steps {self.ring_steps} must be more than a quarter of period_steps {self.period_steps}",
                "the scale compares each value with the one a quarter of a period ago: make the ring longer",
            )

    @property
    def target_index(self) -> int:
        """The column of the target."""
        return self.features.index(self.target)

    @property
    def move_steps(self) -> int:
        """How far apart the two values are whose difference the scale measures."""
        return max(1, self.period_steps // 4)

    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for this form."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]


@dataclass(frozen=True)
class Rows:
    """The steps that a batch of observations makes its series take, wave by wave.

    L lanes (one per series, and one more each time a series starts anew), R rows, N observations, F features.
    Lanes are sorted by `count`, longest first; lane `l` of wave `w` is row `offsets[w] + l`.
    """

    slot: Ints  # (L,)
    count: Ints  # (L,) rows of the lane
    fresh: Bools  # (L,) the series starts here: its carried state is zero
    again: Bools  # (L,) fresh, though the series was known: a gap was too long to be bridged
    generation: Ints  # (L,) how many lanes of the same slot come before this one
    offsets: Ints  # (W + 1,)
    lane: Ints  # (R,)
    wave: Ints  # (R,)
    step: Ints  # (R,)
    source: Ints  # (R,) which observation this is; -1: a bridged step
    row_of: Ints  # (N,) the row of each observation
    age: Ints  # (R,) steps since the series began, 0 at its first
    since: Ints  # (R, F) steps since the first value of the feature; -1: none yet
    x: Floats  # (R, F) values; the last one stands in for what is missing
    present: Bools  # (R, F)
    level: Floats  # (R, F) after the row
    scale: Floats  # (R, F) after the row; 0: none yet
    scale_before: Floats  # (R, F) in force when the row came
    sums: Floats  # (R, 6, F) running sums after the row
    ring: Floats  # (C, ring_steps, F) of the state that was looked at
    ring_steps: int

    @property
    def waves(self) -> int:
        """How many steps the longest lane takes."""
        return len(self.offsets) - 1

    def past(self, k: int | Ints) -> Ints:
        """The row `k` steps before each row, `(R,)` or `(R, K)`; -1 where it lies before the batch."""
        wave, lane = (self.wave, self.lane) if np.ndim(k) < 2 else (self.wave[:, None], self.lane[:, None])
        before = wave - k
        return np.where(before >= 0, self.offsets[np.maximum(before, 0)] + lane, -1)

    @cached_property
    def slabs(self) -> list[Slab]:
        """The rectangles that the rows consist of."""
        return slabs_of(self.offsets)

    def lagged(self, ks: Sequence[int], feature: int) -> tuple[Floats, Bools]:
        """`x` of one feature `k` steps before each row, `(R, K)`, and whether there was one."""
        lags = np.asarray(ks, np.int64)
        deepest = int(lags.max(initial=0))
        if self.waves == 1:
            values = self._from_ring(lags[None, :], feature)
        elif len(self.lane) * len(lags) < len(self.slot) * deepest:  # reading the rings would be the greater part
            rows = self.past(lags[None, :])
            values = np.where(rows >= 0, self.x[rows, feature], self._from_ring(lags[None, :], feature))
        else:
            values = np.empty((len(self.lane), len(lags)))
            before = self._from_ring(np.arange(deepest, 0, -1)[None, :], feature, len(self.slot)).T
            for slab, history in histories(self.slabs, self.x[:, feature], before):
                slab.of(values)[:] = windows(history, deepest + 1)[:, :, deepest - lags]
        return values, lags[None, :] <= self.since[:, feature, None]

    def latest(self, n: int) -> Iterator[Ints]:
        """Indices of the rows that are among the last `n` of their lane, a series' earlier lanes first."""
        recent = (self.count[self.lane] - self.wave) <= n
        for generation in range(int(self.generation.max(initial=0)) + 1):
            yield np.flatnonzero(recent & (self.generation[self.lane] == generation))

    def _from_ring(self, lags: Ints, feature: int, rows: int | None = None) -> Floats:
        """What the ring holds `lags` steps before each row, or before the first `rows` of them, `(R, K)`."""
        cell = (self.step[:rows, None] - lags) % self.ring_steps
        values: Floats = self.ring[self.slot[self.lane[:rows]][:, None], cell, feature]
        return values


class SeriesState:
    """The series state of one partition, as arrays that grow with the number of series.

    `look` computes what a batch would do and changes nothing; `absorb` takes it over.
    """

    def __init__(self, form: SeriesForm) -> None:
        self.form = form
        shape = (0, form.ring_steps, len(form.features))
        self.last = np.empty(0, np.int64)
        self.age = np.empty(0, np.int64)
        self.since = np.empty((0, len(form.features)), np.int64)
        self.ring = np.empty(shape, np.float64)
        self.seen = np.empty(shape, np.bool_)
        # level: sum, weight; |move| of its life: sum, count; log of moves: weight, sum; and the scale that follows
        self.sums = np.empty((0, 6, len(form.features)), np.float64)
        self.scale = np.empty((0, len(form.features)), np.float64)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Every array by name, first axis the slot: what a snapshot holds."""
        return {name: getattr(self, name) for name in ("last", "age", "since", "ring", "seen", "sums", "scale")}

    def reserve(self, slots: int) -> None:
        """Make room for `slots` series; new rows are those of a series never seen."""
        have = len(self.last)
        if slots <= have:
            return
        more = max(slots - have, MIN_GROWTH, have // 4)
        empty = {"last": NO_STEP, "age": -1, "since": -1}
        for name, array in self.arrays().items():
            rows = np.full((more, *array.shape[1:]), empty.get(name, 0), array.dtype)
            setattr(self, name, np.concatenate([array, rows]))

    def at(self, slot: int, step: int) -> tuple[Floats, Bools] | None:
        """The values and mask that were kept for a step, `(F,)` each; None where the ring no longer holds it."""
        back = self.last[slot] - step
        if not 0 <= back < min(self.form.ring_steps, self.age[slot] + 1):
            return None
        cell = step % self.form.ring_steps
        return self.ring[slot, cell], self.seen[slot, cell]

    def look(self, slot: Ints, step: Ints, values: Floats, present: Bools) -> Rows:
        """The rows that observations in arrival order make: `slot`, `step` `(N,)`, `values`, `present` `(N, F)`.

        Raises:
            DataError: a step is not after the last of its series (admission should have refused it).
        """
        self.reserve(int(slot.max(initial=-1)) + 1)
        layout = self._lay_out(slot, step)
        x, mask = self._fill(layout, values, present)
        return self._measure(layout, x, mask)

    def absorb(self, rows: Rows) -> None:
        """Take over what `look` found."""
        for index in rows.latest(self.form.ring_steps):
            slot = rows.slot[rows.lane[index]]
            self.ring[slot, rows.step[index] % self.form.ring_steps] = rows.x[index]
            self.seen[slot, rows.step[index] % self.form.ring_steps] = rows.present[index]
        for index in rows.latest(1):
            slot = rows.slot[rows.lane[index]]
            self.last[slot] = rows.step[index]
            self.age[slot] = rows.age[index]
            self.since[slot] = rows.since[index]
            self.sums[slot] = rows.sums[index]
            self.scale[slot] = rows.scale[index]

    def _lay_out(self, slot: Ints, step: Ints) -> _Layout:
        order = np.argsort(slot, kind="stable")
        s, t = slot[order], step[order]
        head = np.ones(len(s), np.bool_)
        head[1:] = s[1:] != s[:-1]
        before = self.last[s]
        np.copyto(before[1:], t[:-1], where=~head[1:])
        gap = t - before
        if len(gap) and gap.min() < 1:
            at = int(np.argmin(gap))
            raise DataError(f"slot {s[at]} was given step {t[at]}, which is not after its last, {before[at]}")
        anew = gap > self.form.max_gap_steps + 1
        bridged = np.where(anew, 0, gap - 1)
        opens = head | anew
        lane = np.cumsum(opens) - 1
        first = np.flatnonzero(opens)
        taken = np.cumsum(bridged + 1)  # rows up to and with each observation
        starts = (taken - bridged - 1)[first]
        count = np.diff(starts, append=taken[-1:])
        longest = np.argsort(-count, kind="stable")
        rank = np.empty_like(longest)
        rank[longest] = np.arange(len(longest))
        per_wave = len(count) - np.cumsum(np.bincount(count))[:-1]
        offsets = np.concatenate([[0], np.cumsum(per_wave)]).astype(np.int64)
        row_of = np.empty(len(s), np.int64)
        row_of[order] = offsets[taken - starts[lane] - 1] + rank[lane]
        lane_slot = s[first]
        nth = np.arange(len(first)) - np.maximum.accumulate(np.where(head[first], np.arange(len(first)), 0))
        return _Layout(
            slot=lane_slot[longest],
            count=count[longest],
            fresh=anew[first][longest],
            again=(anew[first] & (before[first] != NO_STEP))[longest],
            generation=nth[longest],
            offsets=offsets,
            row_of=row_of,
            first_step=(t - bridged)[first][longest],
        )

    def _fill(self, at: _Layout, values: Floats, present: Bools) -> tuple[Floats, Bools]:
        """Values and mask by row, `(R, F)`: the last known value stands in for what is missing."""
        size = int(at.offsets[-1])
        x = np.zeros((size, values.shape[1]))
        mask = np.zeros((size, values.shape[1]), np.bool_)
        x[at.row_of] = values
        mask[at.row_of] = present
        if mask.all():
            return x, mask
        ring_cell = (at.first_step - 1) % self.form.ring_steps
        known = np.where(at.fresh[:, None], 0.0, self.ring[at.slot, ring_cell])
        for slab in slabs_of(at.offsets):
            found, given = slab.of(x), slab.of(mask)
            newest = np.where(given, np.arange(slab.waves)[:, None, None], -1)
            np.maximum.accumulate(newest, axis=0, out=newest)  # the wave of the last known value
            filled = np.take_along_axis(found, np.maximum(newest, 0), axis=0)
            found[:] = np.where(newest >= 0, filled, known[: slab.width])
            known = found[-1]
        return x, mask

    def _measure(self, at: _Layout, x: Floats, present: Bools) -> Rows:
        """Level and scale by row (RECIPE: the mean of the *logarithm* of moves, so that events don't inflate it)."""
        per_wave = np.diff(at.offsets)
        wave = np.repeat(np.arange(len(per_wave)), per_wave)
        lane = np.arange(len(wave)) - at.offsets[wave]
        step = at.first_step[lane] + wave
        old = at.fresh[:, None]
        age = np.where(at.fresh, 0, self.age[at.slot] + 1)[lane] + wave
        since = self._since(at, wave, lane, present)
        sums = np.where(old[:, None], 0.0, self.sums[at.slot])
        scale = np.where(old, 0.0, self.scale[at.slot])
        rows = Rows(
            slot=at.slot, count=at.count, fresh=at.fresh, again=at.again, generation=at.generation,
            offsets=at.offsets, lane=lane, wave=wave, step=step, source=_invert(at.row_of, len(wave)),
            row_of=at.row_of, age=age, since=since, x=x, present=present, level=np.empty_like(x),
            scale=np.empty_like(x), scale_before=np.empty_like(x), sums=np.empty((len(x), 6, x.shape[1])),
            ring=self.ring, ring_steps=self.form.ring_steps,
        )  # fmt: skip
        self._accumulate(rows, sums, scale)
        return rows

    def _since(self, at: _Layout, wave: Ints, lane: Ints, present: Bools) -> Ints:
        start = np.where(at.fresh[:, None], -1, self.since[at.slot])
        if present.all() and (start >= 0).all():
            return start[lane] + wave[:, None] + 1
        since = np.empty(present.shape, np.int64)
        for slab in slabs_of(at.offsets):
            start = start[: slab.width]
            began = np.logical_or.accumulate(slab.of(present), axis=0) | (start >= 0)
            slab.of(since)[:] = start + np.cumsum(began, axis=0)
            start = slab.of(since)[-1]
        return since

    def _accumulate(self, rows: Rows, sums: Floats, scale: Floats) -> None:
        keep = 0.5 ** (1.0 / self.form.half_life_steps)
        move = self._moves(rows)
        moved = rows.present & (rows.since > 0)
        decay = np.where(rows.present, keep, 1.0)
        decay_moved = np.where(moved, keep, 1.0)
        absolute = np.where(moved, np.abs(move), 0.0)
        value = np.where(rows.present, rows.x, 0.0)
        one, ones = moved.astype(np.float64), np.ones_like(decay)
        rows.sums[:, :5] = running(
            rows.slabs,
            sums[:, :5],
            np.stack([decay, decay, ones, ones, decay_moved], axis=1),
            np.stack([value, rows.present.astype(np.float64), absolute, one, one], axis=1),
        )
        rows.level[:] = _ratio(rows.sums[:, 0], rows.sums[:, 1])
        floor = MOVE_FLOOR * _ratio(rows.sums[:, 2], rows.sums[:, 3]) + LEVEL_FLOOR * np.abs(rows.level)
        floor += ABSOLUTE_FLOOR
        logs = np.where(moved, np.log(absolute + floor), 0.0)
        rows.sums[:, 5:] = running(rows.slabs, sums[:, 5:], decay_moved[:, None], logs[:, None])
        spread = SCALE_FACTOR * np.exp(_ratio(rows.sums[:, 5], rows.sums[:, 4]))
        rows.scale[:] = np.where(rows.sums[:, 3] > 0, np.maximum(spread, floor), floor)
        rows.scale[rows.since < 0] = 0.0
        for slab, history in histories(rows.slabs, rows.scale, scale[None]):
            slab.of(rows.scale_before)[:] = history[:-1]

    def _moves(self, rows: Rows) -> Floats:
        """`x_t - x_{t-q}`, q a quarter of a period, or as far back as the series goes, `(R, F)`."""
        move = np.empty_like(rows.x)
        for feature in range(rows.x.shape[1]):
            since, most = rows.since[:, feature], self.form.move_steps
            if len(since) and since.min() >= most:
                values, _ = rows.lagged([most], feature)
                move[:, feature] = rows.x[:, feature] - values[:, 0]
                continue
            k = np.clip(since, 0, most)
            cell = (rows.step - k) % self.form.ring_steps
            old = self.ring[rows.slot[rows.lane], cell, feature]
            if rows.waves > 1:
                at = rows.past(k)
                old = np.where(at >= 0, rows.x[at, feature], old)
            move[:, feature] = np.where(k > 0, rows.x[:, feature] - old, 0.0)
        return move


@dataclass(frozen=True)
class _Layout:
    slot: Ints
    count: Ints
    fresh: Bools
    again: Bools
    generation: Ints
    offsets: Ints
    row_of: Ints
    first_step: Ints


def _invert(row_of: Ints, size: int) -> Ints:
    source = np.full(size, -1, np.int64)
    source[row_of] = np.arange(len(row_of))
    return source


def _ratio(total: Floats, weight: Floats) -> Floats:
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
