"""What a network is trained on: dense arrays by series and step, and the order in which training walks them.

A label may be used only when its time lies inside the span that is trained on: else the network would be
trained by what had not been observed (the horizon leak).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from models.forecaster import inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.architecture import Architecture, Float32
    from models.scaling import Rows, SeriesForm

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Number = TypeVar("Number", np.float64, np.int64, np.bool_)
LEAST_GAIN = 1e-3
BOUND = 8.0  # scales, at leads no longer than the moves that the scale measures
MAX_BYTES = 8 << 30
MAX_WARM_UP_STEPS = 288  # a series' first steps, up to a period, train nothing: their scale is a guess
CHUNKS_PER_SEGMENT = 6  # shorter series are cut into fewer segments, so that an epoch has some steps


@dataclass(frozen=True)
class Sequences:
    """S series over T steps of a common clock, I inputs, H leads.

    `targets` are what the network's output, times the gain, should be: (x_{t+k} - x_t)/S_t in the "correction"
    form, (x_{t+k} - x_{t+k-p})/S_t in the "season" form, (x_{t+k} - level_t)/S_t in the "plain" form, each of the
    target as the architecture sees it; zero where not `known`. `active` marks the steps that a series takes (bridged
    ones too), `fresh` those at which its carried state starts from zero.
    """

    inputs: Float32  # (S, T, I)
    targets: Float32  # (S, T, H)
    known: Bools  # (S, T, H)
    active: Bools  # (S, T)
    fresh: Bools  # (S, T)
    first_step: int

    @property
    def steps(self) -> int:
        """The number of steps of the common clock, T."""
        return int(self.inputs.shape[1])

    @property
    def horizon(self) -> int:
        """The number of leads, H."""
        return int(self.targets.shape[2])

    def usable(self, begin: int, end: int) -> int:
        """How many labels forecasts issued from `begin` on have before `end` (steps of the common clock)."""
        return sum(int(self.known[:, begin : max(begin, end - k), k - 1].sum()) for k in range(1, self.horizon + 1))


@dataclass(frozen=True)
class Spans:
    """Where train | validation | tail end, in steps of the common clock."""

    train_end: int
    validation_end: int
    end: int

    @classmethod
    def by_share(cls, steps: int, validation: float, tail: float, horizon: int) -> Spans:
        """The spans that give validation and tail these shares of the steps.

        Raises:
            DataError: a span would be too short to hold a few horizons.
        """
        train_end = round(steps * (1.0 - validation - tail))
        validation_end = round(steps * (1.0 - tail))
        spans = cls(train_end, validation_end, steps)
        shortest = 3 * horizon
        lengths = {"training": train_end, "validation": validation_end - train_end}
        if tail > 0:
            lengths["held-out"] = steps - validation_end
        for name, length in lengths.items():
            if length < shortest:
                raise DataError(
                    f"the history has {steps} steps, of which {length} make the {name} span; "
                    f"at least {shortest} (3 horizons) are needed",
                    "give a longer history, a shorter horizon or other shares",
                )
        return spans


def sequences_of(
    architecture: Architecture, form: SeriesForm, *parts: Rows, names: Sequence[Sequence[str]] = ()
) -> Sequences:
    """The sequences in the rows of whole stretches, one series a slot; the series state was empty before each.

    Stretches that don't follow each other in time lie side by side, as series of their own. `names` are those of each
    stretch's series by slot, for an architecture that has an input for each.

    Raises:
        DataError: they would not fit into memory.
    """
    slot, step, (series, first, end) = _placed(parts)
    named = names or [()] * len(parts)
    shape = (series, end - first)
    _check_size(shape, len(step), architecture)
    at = (slot, step - first)
    target = form.target_index

    def dense(columns: list[NDArray[Number]], empty: int = 0) -> NDArray[Number]:
        out = np.full(shape, empty, columns[0].dtype)
        out[at] = np.concatenate(columns)
        return out

    network_inputs = np.zeros((*shape, architecture.input_size), np.float32)
    network_inputs[at] = np.concatenate(
        [inputs(architecture, form, rows, known) for rows, known in zip(parts, named, strict=True)]
    )
    age = dense([rows.age for rows in parts], -1)
    course = _Course(
        x=dense([rows.x[:, target] for rows in parts]),
        level=dense([rows.level[:, target] for rows in parts]),
        scale=dense([rows.scale[:, target] for rows in parts]),
        since=dense([rows.since[:, target] for rows in parts], -1),
        age=age,
        issued=dense([rows.source for rows in parts], -1) >= 0,
        observed=dense([rows.present[:, target] for rows in parts]),
    )
    warm_up = min(form.period_steps, MAX_WARM_UP_STEPS)
    targets, known = _targets(architecture, course, warm_up, _bounds(architecture, form))
    return Sequences(
        inputs=network_inputs,
        targets=targets,
        known=known,
        active=age >= 0,
        fresh=age == 0,
        first_step=first,
    )


def _placed(parts: Sequence[Rows]) -> tuple[Ints, Ints, tuple[int, int, int]]:
    """The series and step of each row, `(R,)`; how many series there are, the first step, and the end.

    A stretch that begins after another has ended goes on in its series; `fresh` says that it begins there.
    """
    ended: list[int] = []  # by series: its last step so far
    places: list[Ints] = [np.empty(0, np.int64)] * len(parts)
    begins = [0]
    for i in sorted(range(len(parts)), key=lambda i: int(parts[i].step.min())):
        rows = parts[i]
        series, first = int(rows.slot.max()) + 1, int(rows.step.min())
        base = next(at for at in (*begins, len(ended)) if max(ended[at : at + series], default=first - 1) < first)
        begins.append(base + series)
        ended += [0] * (base + series - len(ended))
        ended[base : base + series] = [int(rows.step.max())] * series
        places[i] = rows.slot[rows.lane] + base
    step = np.concatenate([rows.step for rows in parts])
    return np.concatenate(places), step, (len(ended), int(step.min()), int(step.max()) + 1)


def _check_size(shape: tuple[int, int], rows: int, architecture: Architecture) -> None:
    """Refuse sequences that need more than `MAX_BYTES`; one wrong year in a file is enough for that."""
    series, steps = shape
    needed = series * steps * (4 * architecture.input_size + 5 * architecture.horizon + 64)
    if needed > MAX_BYTES:
        raise DataError(
            f"{series:,} series over {steps:,} steps ({rows / (series * steps):.1%} of them taken) need "
            f"{needed / 1e9:.1f} GB to train on, the limit is {MAX_BYTES / 1e9:.1f} GB",
            "take a shorter span (fit: --since, --until; else retraining.history) or fewer series "
            "(retraining.series), and look for wrong times",
        )


def _bounds(architecture: Architecture, form: SeriesForm) -> NDArray[np.float64]:
    """The largest scaled difference that is taken at its word, `(H,)`; it grows as a random walk does.

    Where a series that stood still moves again, differences are hundreds of its scale: they would be all that
    loss and gain speak of. Huber's gradient does not change by it.
    """
    if architecture.form == "plain":
        return np.full(architecture.horizon, np.inf)
    apart = np.arange(1, architecture.horizon + 1) + architecture.base_lags
    return BOUND * np.sqrt(np.maximum(1.0, apart / form.move_steps))


@dataclass(frozen=True)
class _Course:
    """The target's course by series and step, and what is known of it there, `(S, T)` each."""

    x: NDArray[np.float64]
    level: NDArray[np.float64]
    scale: NDArray[np.float64]
    since: Ints
    age: Ints
    issued: Bools
    observed: Bools

    def base(self, form: str, lag: int, now: slice) -> NDArray[np.float64]:
        """What a forecast stands on, as `models.forecaster.base_and_unit` says; `lag` steps back in the season."""
        if form == "plain":
            return self.level[:, now]
        if not lag:
            return self.x[:, now]
        goes_back = self.since[:, now] >= lag
        return np.where(goes_back, np.roll(self.x, lag, axis=1)[:, now], self.x[:, now])


def _targets(
    architecture: Architecture, course: _Course, warm_up: int, bounds: NDArray[np.float64]
) -> tuple[Float32, Bools]:
    """Scaled differences `(S, T, H)`, bounded, and where they are known."""
    steps, horizon = course.x.shape[1], architecture.horizon
    age, transform = course.age, architecture.seen_by
    targets = np.zeros((*course.x.shape, horizon), np.float32)
    known = np.zeros((*course.x.shape, horizon), np.bool_)
    for k in range(1, min(horizon, steps - 1) + 1):
        now, then = slice(0, steps - k), slice(k, steps)
        scale = course.scale[:, now]
        ok = course.issued[:, now] & course.observed[:, then] & (age[:, now] >= warm_up)
        ok &= scale > 0
        ok &= age[:, then] - age[:, now] == k  # no new start in between
        base = course.base(architecture.form, architecture.base_lags[k - 1], now)
        moved = transform.seen(course.x[:, then], scale) - transform.seen(base, scale)
        difference = np.where(ok, moved, 0.0)
        unit = transform.unit(scale, course.level[:, now])
        scaled = np.divide(difference, unit, out=np.zeros_like(difference), where=ok)
        targets[:, now, k - 1] = np.clip(scaled, -bounds[k - 1], bounds[k - 1])
        known[:, now, k - 1] = ok
    return targets, known


def gains(sequences: Sequences, train_end: int, begin: int = 0) -> tuple[float, ...]:
    """Root-mean-square of the scaled difference at each lead over the training span, g_k (RECIPE)."""
    found = []
    for k in range(1, sequences.horizon + 1):
        issued = slice(begin, max(begin, train_end - k))
        known = sequences.known[:, issued, k - 1]
        values = sequences.targets[:, issued, k - 1][known].astype(np.float64)
        found.append(max(LEAST_GAIN, float(np.sqrt(np.mean(values**2)))) if len(values) else 1.0)
    return tuple(found)


@dataclass(frozen=True)
class Batch:
    """One chunk of C steps of B lanes, steps first, as the network scans it."""

    lanes: Ints  # (B,) which lanes of the walk
    inputs: Float32  # (C, B, I)
    active: Bools  # (C, B)
    fresh: Bools  # (C, B)
    targets: Float32  # (C, B, H)
    known: Float32  # (C, B, H) 1 or 0


class Lanes(NamedTuple):
    """Stretches of series that training walks side by side, by lane, `(B,)` each; steps of the common clock.

    A label may be used when its forecast is issued at `label_begin` or later and its own time is before `label_end`.
    """

    series: Ints
    start: Ints
    stop: Ints
    label_begin: Ints
    label_end: Ints

    def batch(self, sequences: Sequences, lanes: Ints, begin: int, end: int) -> Batch:
        """The chunk `begin…end`, counted from the lanes' starts, of some lanes."""
        return self.cut(sequences, lanes, self.start[lanes] + np.arange(begin, end)[:, None])

    def cut(self, sequences: Sequences, lanes: Ints, time: Ints) -> Batch:
        """What lies at the times `(C, B)` of some lanes; what is outside of them is not active and has no label."""
        inside = (time >= self.start[lanes]) & (time < self.stop[lanes])
        at = (self.series[lanes][None, :], np.clip(time, 0, sequences.steps - 1))
        leads = np.arange(1, sequences.horizon + 1)
        in_span = time[:, :, None] + leads < self.label_end[lanes][:, None]  # the label's own time
        counts = inside & (time >= self.label_begin[lanes])
        return Batch(
            lanes=lanes,
            inputs=sequences.inputs[at],
            active=sequences.active[at] & inside,
            fresh=sequences.fresh[at] & inside,
            targets=sequences.targets[at],
            known=(sequences.known[at] & in_span & counts[:, :, None]).astype(np.float32),
        )


class Walk:
    """Whole series, each cut into segments that are walked side by side, each in time order.

    Segment j ends where segment j + 1 begins, so the state at the end of one is what the next starts from in
    the following epoch (`handed_on`).
    """

    def __init__(self, sequences: Sequences, end: int, chunk: int, segments: int) -> None:
        self._sequences = sequences
        self._chunk = chunk
        lanes: list[tuple[int, int, int, int]] = []  # series, start, stop, the lane before
        for series in range(len(sequences.active)):
            taken = np.flatnonzero(sequences.active[series, :end])
            if not len(taken):
                continue
            start, stop = int(taken[0]), int(taken[-1]) + 1
            pieces = max(1, min(segments, (stop - start) // (CHUNKS_PER_SEGMENT * chunk)))
            cuts = np.linspace(start, stop, pieces + 1).astype(int).tolist()
            for i in range(pieces):
                lanes.append((series, cuts[i], cuts[i + 1], len(lanes) - 1 if i else -1))
        self.series, self.start, self.stop, self.before = np.array(lanes, np.int64).reshape(-1, 4).T
        self._lanes = Lanes(self.series, self.start, self.stop, self.start, np.full(len(lanes), end))

    @property
    def lanes(self) -> int:
        """The number of lanes."""
        return len(self.series)

    @property
    def longest(self) -> int:
        """The number of steps of the longest lane, 0 without lanes."""
        return int((self.stop - self.start).max(initial=0))

    def boundaries(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Where an epoch's chunks begin and end, from the lanes' starts; the first is cut short at random.

        Without that every epoch would cut, and so train, alike.
        """
        first = int(rng.integers(self._chunk // 2 + 1, self._chunk + 1))
        begins = [0, *range(first, self.longest, self._chunk)]
        return list(zip(begins, [*begins[1:], self.longest], strict=True))

    def tour(self, rng: np.random.Generator, batch_lanes: int, burn_in_chunks: int) -> Iterator[tuple[Batch, bool]]:
        """An epoch's batches of at most so many lanes, chunk after chunk, and whether they train or only burn in."""
        groups = -(-self.lanes // batch_lanes)
        for number, (begin, end) in enumerate(self.boundaries(rng)):
            for batch in self.batches(begin, end, groups, rng):
                yield batch, number >= burn_in_chunks

    def batches(self, begin: int, end: int, groups: int, rng: np.random.Generator) -> Iterator[Batch]:
        """The chunk `begin…end` of all lanes in `groups` batches, dealt out at random."""
        order = np.arange(self.lanes) if groups == 1 else rng.permutation(self.lanes)
        for lanes in np.array_split(order, groups):
            yield self.batch(lanes, begin, end)

    def batch(self, lanes: Ints, begin: int, end: int) -> Batch:
        """The chunk `begin…end`, counted from the lanes' starts, of some lanes."""
        return self._lanes.batch(self._sequences, lanes, begin, end)

    def at_times(self, lanes: Ints, begin: int, end: int) -> Batch:
        """The steps `begin…end` of the common clock of some lanes."""
        return self._lanes.cut(self._sequences, lanes, np.repeat(np.arange(begin, end)[:, None], len(lanes), axis=1))

    def handed_on(self, carried: Float32) -> Float32:
        """The state `(B, S)` to start the next epoch from: that at the end of the lane before, else zero."""
        return np.where((self.before >= 0)[:, None], carried[self.before], np.float32(0.0))
