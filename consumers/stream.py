"""The stream core: state in, state out. No I/O, no clock, no Kafka, no Redis.

    Arrivals ──admit──► Block + refusals          (live only)
    Block ──fold──► forecasts, pairs, counters    (live and every replay: recovery, training, backtests)

`fold` is the one way in which series state and carried state move.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from consumers.roster import Seat, Span, incumbent_at, incumbent_of, spans
from models import forecaster
from models.blocks import Block, checksum
from models.forecaster import Carried, Scanner, Task
from models.scaling import NO_STEP, Bools, Floats, Ints, Rows, SeriesForm, SeriesState
from models.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from models.architecture import Architecture

Singles = NDArray[np.float32]
Reason = Literal[
    "malformed",
    "no-series",
    "key-mismatch",
    "bad-time",
    "missing-feature",
    "not-a-number",
    "late",
    "contradiction",
    "future",
    "too-many-series",
]


@dataclass(frozen=True)
class Refusal:
    """Why the record at `offset` is not an observation, in words for its producer."""

    offset: int
    reason: Reason
    error: str


@dataclass(frozen=True)
class Arrivals:
    """Decoded records of one partition, offsets `start … end - 1`, as columns of N."""

    start: int
    end: int
    offset: Ints  # (N,)
    series: list[str]  # N
    step: Ints  # (N,)
    values: Floats  # (N, F), zero where missing
    present: Bools  # (N, F)
    resent: Bools  # (N,) sent again by `killick deadletters resend`
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True)
class Version:
    """A version that can be stepped: its architecture and its network."""

    number: int
    architecture: Architecture
    network: Scanner


class Partition:
    """Everything that the fold moves for one partition: names, series state, carried state by version."""

    def __init__(self, form: SeriesForm, names: Iterable[str] = ()) -> None:
        """`names` are series that have their slots already, in their order."""
        self.form = form
        self.names = list(names)
        self.slots = {name: slot for slot, name in enumerate(self.names)}
        self.series = SeriesState(form)
        self.roster: tuple[Seat, ...] = ()
        self.spans: dict[int, Span] = {}
        self.carried: dict[int, Carried] = {}

    def add_name(self, name: str) -> int:
        """The slot of a series that is new."""
        self.slots[name] = len(self.names)
        self.names.append(name)
        return len(self.names) - 1

    def learn(self, names: Iterable[str]) -> None:
        """Take over the slots that have been given meanwhile, in their order."""
        for name in names:
            self.add_name(name)

    def seat(self, roster: Sequence[Seat], versions: Mapping[int, Version], mark: int | None = None) -> None:
        """Follow a roster: who is new starts from zero, who left is forgotten, but for who answered after `mark`."""
        self.roster = tuple(roster)
        self.spans = spans(roster, mark)
        self.carried = {number: carried for number, carried in self.carried.items() if number in self.spans}
        for number in sorted(set(self.spans) - set(self.carried)):
            architecture = versions[number].architecture
            self.carried[number] = Carried(architecture.carried_size, architecture.horizon)

    @property
    def incumbent(self) -> int | None:
        """The version that answers."""
        return incumbent_of(self.roster)

    def digest(self) -> str:
        """SHA-256 of names, series state and carried state: equal states, equal digests."""
        size = len(self.names)
        self.series.reserve(size)
        total = hashlib.sha256(msgspec.json.encode(self.names))
        for name, array in sorted(self.series.arrays().items()):
            total.update(name.encode() + np.ascontiguousarray(array[:size]).tobytes())
        for number, carried in sorted(self.carried.items()):
            carried.reserve(size)
            for name, array in sorted(carried.arrays().items()):
                total.update(f"{number}.{name}".encode() + np.ascontiguousarray(array[:size]).tobytes())
        return total.hexdigest()


@dataclass(frozen=True)
class Admitted:
    """What of the arrivals is an observation, what goes to history, what is refused."""

    block: Block
    history: Block  # resent records of the past: for training only
    refusals: list[Refusal]
    duplicates: int
    new_names: list[str]


def admit(partition: Partition, arrivals: Arrivals, *, max_series: int) -> Admitted:
    """Judge arrivals by what the series state already holds; new series get their slots."""
    known = len(partition.names)
    refusals = list(arrivals.refusals)
    slot = np.empty(len(arrivals.series), np.int64)
    for i, name in enumerate(arrivals.series):
        at = partition.slots.get(name, -1)
        if at < 0 and len(partition.names) < max_series:
            at = partition.add_name(name)
        slot[i] = at
        if at < 0:
            error = f"series {name!r} is new, and this partition already holds its {max_series} series"
            refusals.append(Refusal(int(arrivals.offset[i]), "too-many-series", error))
    partition.series.reserve(len(partition.names))
    verdicts = _judge(partition, arrivals, slot, refusals)
    everything = Block(
        arrivals.start, arrivals.end, arrivals.offset, slot, arrivals.step, arrivals.values, arrivals.present
    )
    refusals.sort(key=lambda refusal: refusal.offset)
    return Admitted(
        everything.take(verdicts == ACCEPT),
        everything.take(verdicts == HISTORY),
        refusals,
        int(np.count_nonzero(verdicts == DUPLICATE)),
        partition.names[known:],
    )


REFUSE, ACCEPT, DUPLICATE, HISTORY = range(4)


def _judge(partition: Partition, arrivals: Arrivals, slot: Ints, refusals: list[Refusal]) -> NDArray[np.int8]:
    """A verdict per arrival; in order for all series whose steps do not simply go forward."""
    form = partition.form
    verdicts = np.where(slot >= 0, ACCEPT, REFUSE).astype(np.int8)
    order = np.argsort(slot, kind="stable")
    s, t = slot[order], arrivals.step[order]
    head = np.ones(len(s), np.bool_)
    head[1:] = s[1:] != s[:-1]
    last = np.append(partition.series.last, NO_STEP)  # slot -1, refused, reads the sentinel
    before = np.where(head, last[s], np.roll(t, 1))
    stuck = np.unique(s[(t <= before) & (s >= 0)])
    if len(stuck) == 0:
        return verdicts
    taken: dict[tuple[int, int], int] = {}
    newest = {at: int(partition.series.last[at]) for at in stuck.tolist()}
    began = {at: newest[at] - int(partition.series.age[at]) for at in stuck.tolist()}
    for i in np.flatnonzero(np.isin(slot, stuck)).tolist():
        at, step = int(slot[i]), int(arrivals.step[i])
        if step > newest[at]:
            if step - newest[at] > form.max_gap_steps + 1:
                began[at] = step
            newest[at] = step
            taken[at, step] = i
            continue
        kept = None
        if step >= began[at] and newest[at] - step < form.ring_steps:  # else a later block could not know it
            earlier = taken.get((at, step))
            found = partition.series.at(at, step) or (arrivals.values[i], np.zeros_like(arrivals.present[i]))
            kept = found if earlier is None else (arrivals.values[earlier], arrivals.present[earlier])
        verdicts[i], refusal = _judge_past(arrivals, i, kept, newest[at], form.interval_ms)
        if refusal is not None:
            refusals.append(refusal)
    return verdicts


def _judge_past(
    arrivals: Arrivals, i: int, kept: tuple[Floats, Bools] | None, newest: int, interval_ms: int
) -> tuple[int, Refusal | None]:
    """The verdict on an arrival whose step is not after the last of its series.

    `kept` is what the series state remembers of its step, all missing where it was bridged; None: nothing.
    """
    offset, name, step = int(arrivals.offset[i]), arrivals.series[i], int(arrivals.step[i])
    if kept is not None:
        values, present = kept
        same = bool((present == arrivals.present[i]).all())
        if same and bool((values[present] == arrivals.values[i][present]).all()):
            return DUPLICATE, None
        if present.any():
            error = f"series {name!r} already has other values for {rfc3339(step * interval_ms)}"
            return REFUSE, Refusal(offset, "contradiction", error)
    if arrivals.resent[i]:
        return HISTORY, None
    error = (
        f"series {name!r}: {rfc3339(step * interval_ms)} is not after its last observation, "
        f"{rfc3339(newest * interval_ms)}"
    )
    return REFUSE, Refusal(offset, "late", error)


@dataclass(frozen=True)
class Folded:
    """What a block brought: the block with scale and pairs, the forecasts of its observations, what to count."""

    block: Block
    forecasts: dict[int, Singles]  # version → (N, H); NaN: no value of the target was ever seen
    counts: Counter[str]


def fold(work: Sequence[tuple[Partition, Block]], versions: Mapping[int, Version]) -> list[Folded]:
    """Advance partitions by a block each, all rostered versions at once.

    The network runs over the waves of all partitions together. Blocks must follow each other by offset;
    their observations must have been admitted.
    """
    looked = [partition.series.look(b.slot, b.step, b.values, b.present) for partition, b in work]
    results = [_measure(partition, block, rows) for (partition, block), rows in zip(work, looked, strict=True)]
    for number in sorted({n for partition, _ in work for n in partition.carried}):
        members = [
            i for i, (p, b) in enumerate(work) if len(b) and number in p.spans and p.spans[number].covers(b.start)
        ]
        if members:
            parts = [(work[i][0], looked[i]) for i in members]
            found = _run(versions[number], parts)
            for i, (forecasts, pairs) in zip(members, found, strict=True):
                results[i] = _with_version(work[i][0], results[i], looked[i], number, forecasts, pairs)
    for (partition, _), rows in zip(work, looked, strict=True):
        partition.series.absorb(rows)
    return results


def _run(version: Version, parts: Sequence[tuple[Partition, Rows]]) -> list[tuple[Singles, Singles]]:
    """One version over several partitions: forecasts and pairs by row, `(R, H)` each; carried state moves."""
    architecture = version.architecture
    tasks = []
    for partition, rows in parts:
        carried = partition.carried[version.number]
        carried.reserve(len(partition.series.last))
        state = np.where(rows.fresh[:, None], np.float32(0), carried.network[rows.slot])
        tasks.append(Task(rows, forecaster.inputs(architecture, partition.form, rows, partition.names), state))
    scanned = forecaster.scan_tasks(version.network, architecture.horizon, tasks)
    results = []
    for (partition, rows), (outputs, state) in zip(parts, scanned, strict=True):
        carried = partition.carried[version.number]
        forecasts = forecaster.forecasts(architecture, partition.form, rows, outputs)
        pairs = carried.pair(rows, forecasts, partition.form.target_index)
        carried.absorb(rows, forecasts, state)
        results.append((forecasts, pairs))
    return results


def _measure(partition: Partition, block: Block, rows: Rows) -> Folded:
    """The scale in force, and the counts that depend on the data alone."""
    target = partition.form.target_index
    scale = rows.scale_before[rows.row_of, target].astype(np.float32)
    steps_bridged = len(rows.source) - len(block)
    gaps_bridged = 0
    if steps_bridged:
        before = rows.past(1)[rows.row_of]
        gaps_bridged = int(np.count_nonzero((before >= 0) & (rows.source[np.maximum(before, 0)] < 0)))
    counts = Counter(
        observations=len(block),
        gaps_bridged=gaps_bridged,
        steps_bridged=steps_bridged,
        series_resets=int(np.count_nonzero(rows.again)),
        missing_targets=int(np.count_nonzero(~block.present[:, target])),
    )
    return Folded(replace(block, scale=scale, pairs={}, checksums={}), {}, counts)


def _with_version(
    partition: Partition, so_far: Folded, rows: Rows, number: int, forecasts: Singles, pairs: Singles
) -> Folded:
    issued, paired = forecasts[rows.row_of], pairs[rows.row_of]
    counts = so_far.counts
    if number == incumbent_at(partition.roster, so_far.block.start):
        counts = counts + Counter(forecasts=len(issued), pairs=int(np.count_nonzero(~np.isnan(paired).all(axis=1))))
    block = replace(
        so_far.block,
        pairs={**so_far.block.pairs, number: paired},
        checksums={**so_far.block.checksums, number: checksum(issued)},
    )
    return Folded(block, {**so_far.forecasts, number: issued}, counts)
