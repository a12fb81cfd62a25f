"""What a model has seen, for training and judging: stretches of observations, each from an empty series state on.

    archive + ledger of a partition ──recorded──► Stretch          a fit's history ──admitted──► Stretch

Of many series some are drawn at random. A stretch that is `whole` begins where the stream did: series state that is
folded over it is that of the running service, bit for bit. One that begins later comes close to it within some
half-lives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from consumers.recorded import recorded_blocks
from consumers.recovery import merged
from consumers.stream import Arrivals, Partition, admit
from models.blocks import Block
from models.times import step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumers.archive import Archive, Hole
    from consumers.history import History
    from consumers.ledger import Ledger
    from consumers.stream import Admitted
    from models.scaling import Ints, SeriesForm


@dataclass(frozen=True)
class Stretch:
    """Observations in the order of the stream; slot i is the series `names[i]`."""

    names: tuple[str, ...]
    block: Block
    whole: bool

    def until(self, step: int) -> Stretch:
        """The observations before a step."""
        rows = np.flatnonzero(self.block.step < step)
        return replace(self, block=self.block.take(rows)) if len(rows) < len(self.block) else self


def recorded(
    ledgers: Sequence[Ledger],
    archive: Archive | None,
    *,
    since_step: int,
    series: int,
    seed: int,
    alive: Callable[[], None],
) -> tuple[list[Stretch], int]:
    """What is recorded of `series` of the model's series at most, by partition; and how many series there are.

    `alive` is called at every block: reading may take long.

    Raises:
        ArchiveError, LedgerError: what is recorded can't be read.
        ServiceUnreachable: Redis did not answer.
    """
    counts = [ledger.series_count() for ledger in ledgers]
    total = sum(counts)
    drawn = np.arange(total)
    if total > series:
        drawn = np.sort(np.random.default_rng(seed).choice(total, series, replace=False))
    found, first = [], 0
    for ledger, count in zip(ledgers, counts, strict=True):
        slots = drawn[(drawn >= first) & (drawn < first + count)] - first
        first += count
        stretch = _stretch(ledger, archive, since_step, slots, alive) if len(slots) else None
        if stretch is not None:
            found.append(stretch)
    return found, total


def _stretch(
    ledger: Ledger, archive: Archive | None, since_step: int, slots: Ints, alive: Callable[[], None]
) -> Stretch | None:
    """What is recorded of some slots of a partition; None: nothing."""
    number = np.full(int(slots[-1]) + 1, -1)
    number[slots] = np.arange(len(slots))
    names = ledger.names()
    blocks: list[Block] = []
    holes: list[Hole] = []
    whole = True
    for block in recorded_blocks(ledger, archive, holes=holes):
        alive()
        known = block.slot < len(number)
        recent = block.step >= since_step
        whole &= bool(recent.all())
        rows = np.flatnonzero(known & recent & (number[np.where(known, block.slot, 0)] >= 0))
        if len(rows):
            blocks.append(_only(block, rows, number))
    if not blocks:
        return None
    return Stretch(tuple(names[slot] for slot in slots.tolist()), merged(blocks), whole and not holes)


def newest_step(stretches: Sequence[Stretch]) -> int:
    """The step that half of the series have reached: one clock that runs ahead does not count.

    `stretches` are not empty.
    """
    newest = []
    for one in stretches:
        last = np.full(len(one.names), -1)
        np.maximum.at(last, one.block.slot, one.block.step)
        newest.append(last)
    found = np.concatenate(newest)
    return int(np.median(found[found >= 0]))


def _only(block: Block, rows: Ints, number: Ints) -> Block:
    """Some of a block's observations, their slots numbered anew, and nothing but them."""
    return Block(
        block.start,
        block.end,
        block.offset[rows],
        number[block.slot[rows]],
        block.step[rows],
        block.values[rows],
        block.present[rows],
    )


def admitted(history: History, form: SeriesForm) -> tuple[Partition, Admitted]:
    """The observations of a history that the running service would accept, and why not the others."""
    partition = Partition(form)
    names = history.series
    arrivals = Arrivals(
        start=0,
        end=len(history),
        offset=np.arange(len(history), dtype=np.int64),
        series=[names[i] for i in history.series_index.tolist()],
        step=step_of(history.time_ms, form.interval_ms),
        values=np.where(history.present, history.values, 0.0),
        present=history.present,
        resent=np.zeros(len(history), np.bool_),
    )
    return partition, admit(partition, arrivals, max_series=len(names) + 1)


def of_history(history: History, form: SeriesForm, *, series: int, seed: int) -> Stretch | None:
    """A history as a stretch of `series` of its series at most; None: nothing of it can be used."""
    partition, found = admitted(history, form)
    return drawn(found.block, partition.names, series=series, seed=seed) if len(found.block) else None


def drawn(block: Block, names: Sequence[str], *, series: int, seed: int) -> Stretch:
    """A block whose slot i is the series `names[i]` as a stretch of `series` of them at most; it begins the stream."""
    if len(names) > series:
        slots = np.sort(np.random.default_rng(seed).choice(len(names), series, replace=False))
        number = np.full(len(names), -1)
        number[slots] = np.arange(len(slots))
        block = _only(block, np.flatnonzero(number[block.slot] >= 0), number)
        names = [names[slot] for slot in slots.tolist()]
    return Stretch(tuple(names), block, whole=True)
