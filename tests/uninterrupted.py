"""One uninterrupted run over a partition's records and roster, and digests by which outcomes are compared.

The oracle of all tests that break something. It reads a roster by itself: a *tenure* is one fold that the roster
asks for, and is kept under a number of its own, so that a version that left and came back is two.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from consumers.roster import Role, Seat
from consumers.stream import Arrivals, Partition, Version, admit, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from consumers.stream import Folded
    from models.blocks import Block
    from models.scaling import SeriesForm


class Tenure(NamedTuple):
    """A version's time from one start offset to its last leave; `number` is its own among all tenures."""

    number: int
    version: int
    start: int
    leave: int | None

    def runs(self, offset: int) -> bool:
        """Whether a block that starts here is stepped."""
        return self.start <= offset and (self.leave is None or offset < self.leave)


@dataclass
class Outcome:
    """What a partition came to: digests and counters; forecasts and refusals by offset."""

    series: str  # SHA-256 over names and series state
    carried: dict[int, str]  # SHA-256 by version that runs
    columns: dict[str, str]  # SHA-256 of the observations, and of each version's pairs
    counters: dict[str, int]
    forecasts: dict[int, tuple[int, bytes]] = field(default_factory=dict, repr=False)  # version, float32 bytes
    refusals: dict[int, str] = field(default_factory=dict, repr=False)  # reason

    def differences(self, other: Outcome) -> list[str]:
        """Which of the digests and counters differ."""
        found = [] if self.series == other.series else ["series"]
        for name in ("carried", "columns", "counters"):
            mine, theirs = getattr(self, name), getattr(other, name)
            found += [f"{name} {key}" for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
        return sorted(found)


def tenures_of(roster: Sequence[Seat]) -> list[Tenure]:
    """Every fold that the roster asks for: seats of one version with the same start are one."""
    found: dict[tuple[int, int], list[Seat]] = {}
    for seat in roster:
        found.setdefault((seat.version, seat.start_offset), []).append(seat)
    tenures = []
    for number, ((version, start), seats) in enumerate(found.items(), 1):
        leaves = [seat.leave_offset for seat in seats if seat.leave_offset is not None]
        tenures.append(Tenure(number, version, start, max(leaves) if len(leaves) == len(seats) else None))
    return tenures


def uninterrupted(
    roster: Sequence[Seat],
    load: Callable[[int], Version],
    form: SeriesForm,
    arrivals: Callable[[int, int], Arrivals],
    cuts: Iterable[int],
    *,
    max_series: int,
) -> Outcome:
    """One run from the first of the cuts to the last, in one process, cut there and at the roster's offsets.

    `arrivals` gives the records from one offset to another as they are decoded.
    """
    wanted = sorted(set(cuts))
    edges = {seat.start_offset for seat in roster} | {seat.join_offset for seat in roster}
    edges |= {seat.leave_offset for seat in roster if seat.leave_offset is not None}
    wanted = sorted({*wanted, *(edge for edge in edges if wanted[0] <= edge <= wanted[-1])})
    tenures = tenures_of(roster)
    versions = {t.number: replace(load(t.version), number=t.number) for t in tenures}
    partition = Partition(form)
    counters: Counter[str] = Counter()
    blocks: list[Block] = []
    history: list[Block] = []
    forecasts: dict[int, tuple[int, bytes]] = {}
    refusals: dict[int, str] = {}
    for start, end in pairwise(wanted):
        _seat(partition, _running(roster, tenures, start), versions)
        admitted = admit(partition, arrivals(start, end), max_series=max_series)
        (folded,) = fold([(partition, admitted.block)], versions)
        counters += folded.counts
        counters.update(f"refused.{r.reason}" for r in admitted.refusals)
        counters.update(duplicates=admitted.duplicates, history=len(admitted.history))
        refusals.update({r.offset: r.reason for r in admitted.refusals})
        issued = _issued(roster, tenures, start, folded)
        forecasts.update(zip(folded.block.offset.tolist(), issued, strict=False))  # a seat may lack
        blocks.append(_with_seats(roster, tenures, start, folded))
        history.append(admitted.history)
    _seat(partition, _running(roster, tenures, wanted[-1]), versions)
    outcome = outcome_of(partition, blocks, counters, history)
    by_number = {t.number: t.version for t in tenures}
    outcome.carried = {by_number[number]: digest for number, digest in outcome.carried.items()}
    outcome.forecasts, outcome.refusals = forecasts, refusals
    return outcome


def outcome_of(
    partition: Partition, blocks: Iterable[Block], counters: Mapping[str, int], history: Iterable[Block] = ()
) -> Outcome:
    """Digests of a partition's state and blocks, and its counters without those that are zero."""
    size = len(partition.names)
    partition.series.reserve(size)
    columns = _columns(blocks)
    columns |= {f"history.{name}": digest for name, digest in _columns(history, scaled=False).items()}
    return Outcome(
        _digest(json.dumps(partition.names), partition.series.arrays(), size),
        carried_of(partition),
        columns,
        {name: amount for name, amount in counters.items() if amount},
    )


def carried_of(partition: Partition) -> dict[int, str]:
    """SHA-256 of the carried state of every version that runs."""
    size = len(partition.names)
    found = {}
    for number, carried in partition.carried.items():
        carried.reserve(size)
        found[number] = _digest("", carried.arrays(), size)
    return found


def _digest(words: str, arrays: Mapping[str, Any], size: int) -> str:
    total = hashlib.sha256(words.encode())
    for name, array in sorted(arrays.items()):
        total.update(name.encode() + np.ascontiguousarray(array[:size]).tobytes())
    return total.hexdigest()


def _columns(blocks: Iterable[Block], *, scaled: bool = True) -> dict[str, str]:
    """SHA-256 by column, rows named by their offsets; how they were cut into blocks is left out."""
    totals: dict[str, tuple[Any, Any]] = {}
    for block in blocks:
        if len(block) == 0:
            continue
        parts: dict[str, Any] = {name: getattr(block, name) for name in ("slot", "step", "values", "present")}
        if scaled:
            parts["scale"] = block.scale + np.float32(0)
        parts |= {f"pairs of {version}": pairs for version, pairs in block.pairs.items()}
        for name, part in parts.items():
            offsets, cells = totals.setdefault(name, (hashlib.sha256(), hashlib.sha256()))
            offsets.update(block.offset.astype(np.int64).tobytes())
            cells.update(np.ascontiguousarray(part).tobytes())
    return {name: offsets.hexdigest()[:16] + cells.hexdigest() for name, (offsets, cells) in totals.items()}


def _seated(roster: Sequence[Seat], tenure: Tenure, offset: int) -> Role | None:
    """The role that the tenure's version has for a block that starts here; None while it is spun up outside."""
    for seat in roster:
        if (seat.version, seat.start_offset) != (tenure.version, tenure.start):
            continue
        if seat.join_offset <= offset and (seat.leave_offset is None or offset < seat.leave_offset):
            return seat.role
    return None


def _running(roster: Sequence[Seat], tenures: Sequence[Tenure], offset: int) -> tuple[Seat, ...]:
    """What the fold steps for a block that starts here, each tenure under its own number."""
    return tuple(
        Seat(tenure.number, _seated(roster, tenure, offset) or "shadow", tenure.start, tenure.start)
        for tenure in tenures
        if tenure.runs(offset)
    )


def _seat(partition: Partition, roster: tuple[Seat, ...], versions: Mapping[int, Version]) -> None:
    if partition.roster != roster:
        partition.seat(roster, versions)


def _issued(roster: Sequence[Seat], tenures: Sequence[Tenure], start: int, folded: Folded) -> list[tuple[int, bytes]]:
    """Version and forecasts of the one that answers, by observation."""
    for tenure in tenures:
        if _seated(roster, tenure, start) == "incumbent" and tenure.number in folded.forecasts:
            return [(tenure.version, row.tobytes()) for row in folded.forecasts[tenure.number]]
    return []


def _with_seats(roster: Sequence[Seat], tenures: Sequence[Tenure], start: int, folded: Folded) -> Block:
    """The block with the pairs of those that have a seat, by version."""
    pairs = folded.block.pairs
    kept = {t.version: pairs[t.number] for t in tenures if t.number in pairs and _seated(roster, t, start) is not None}
    return replace(folded.block, pairs=kept, checksums={})
