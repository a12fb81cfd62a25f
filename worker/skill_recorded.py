"""Figures that the monitor does not keep: by series, and of a version that was not live; from recorded blocks.

    recorded blocks ──► models.tally.Scorer, a lead-in before the window first ──► sums by hour, or by series

The lead-in is what the references look back on, twice over: a series whose target was missing all that time has its
first references later than the monitor, which followed it from the beginning.
"""

from __future__ import annotations

import difflib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from consumers.recorded import recorded_blocks
from models.errors import DataError
from models.tally import COLUMNS, Scorer
from models.times import HOUR_MS
from models.windows import DAY_HOURS, LIFE, POOLED, WINDOW_HOURS, Book, figures
from worker import wiring
from worker.skill_report import finite, measures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from consumers.archive import Archive, Hole
    from consumers.ledger import Ledger
    from models.blocks import Block, Bools, Floats, Ints
    from models.scaling import SeriesForm
    from models.server import Client
    from models.tally import Scored
    from models.windows import Scaling
    from worker.settings import Settings

OBSERVATIONS = 65_536  # that are scored in one go, about
QUANTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Span:
    """Event time in hours since 1970: from one on (None: from the beginning), before another."""

    since: int | None
    until: int

    @classmethod
    def of_window(cls, name: str, newest_hour: int) -> Span:
        """The span of a window."""
        return cls(None if name == LIFE else newest_hour - WINDOW_HOURS[name], newest_hour)

    def whole_days(self) -> Span:
        """The same, from the beginning of its first day on."""
        return Span(None if self.since is None else self.since // DAY_HOURS * DAY_HOURS, self.until)

    def holds(self, hours: Ints) -> Bools:
        """Which hours are in it."""
        since = -np.inf if self.since is None else self.since
        return (hours >= since) & (hours < self.until)


class Records:
    """What is recorded of a model, read again where it is needed; `told` is given how many observations were read."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self.told: Callable[[int], None] = lambda _: None
        self.read = 0
        self.form: SeriesForm = settings.series_form()
        self.horizon = settings.model.horizon
        self.ledgers = wiring.ledgers(settings, client)
        self._archive: Archive | None = wiring.archive(settings)
        self.holes: list[tuple[int, Hole]] = []  # with their partitions

    def series(self, name: str) -> tuple[Ledger, int]:
        """The partition and the slot of a series.

        Raises:
            DataError: there is no such series.
        """
        known: list[str] = []
        for ledger in self.ledgers:
            names = ledger.names()
            if name in names:
                return ledger, names.index(name)
            known += names
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        cure = f"there are {len(known):,}; the nearest is {near[0]!r}" if near else "no series was seen yet"
        raise DataError(f"series {name!r} is not known", cure)

    def total(self, ledgers: Sequence[Ledger], span: Span) -> int:
        """How many records there are to read."""
        heads = [(ledger.head(), self._after(ledger, span)) for ledger in ledgers]
        return sum(head.next - max(0, after) for head, after in heads if head is not None)

    def newest_hour(self) -> int | None:
        """The hour of the newest observation, by looking at all; None where there is none."""
        steps = [
            int(block.step.max())
            for ledger in self.ledgers
            for block in recorded_blocks(ledger, self._archive, holes=[])
            if len(block)
        ]
        return max(steps) * self.form.interval_ms // HOUR_MS if steps else None

    def blocks(self, ledger: Ledger, span: Span) -> Iterator[Block]:
        """The blocks of a partition that a span's figures need, oldest first."""
        holes: list[Hole] = []
        after = self._after(ledger, span)
        yield from self.counted(recorded_blocks(ledger, self._archive, after, holes=holes))
        self.holes += [(ledger.partition, hole) for hole in holes]

    def counted(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks as they are read."""
        for block in blocks:
            self.read += len(block)
            self.told(self.read)
            yield block

    def scorer(self) -> Scorer:
        """A scorer for one partition."""
        return Scorer(self.form, self.horizon)

    def hours(self, steps: Ints) -> Ints:
        """Hours since 1970."""
        return steps * self.form.interval_ms // HOUR_MS

    def _after(self, ledger: Ledger, span: Span) -> int:
        """The offset after which reading begins."""
        if span.since is None or self._archive is None:
            return -1
        lead_in = 2 * self.scorer().trails.depth + self.form.max_gap_steps
        return self._archive.before(ledger.partition, span.since * HOUR_MS // self.form.interval_ms - lead_in)


def series_book(records: Records, ledger: Ledger, slot: int, span: Span) -> Book:
    """The sums of one series by hour and day."""
    book = Book()
    _count_hours(records, book, (block.take(block.slot == slot) for block in records.blocks(ledger, span)), span)
    return book


def backfilled_book(records: Records, found: Iterable[tuple[int, Block]], span: Span) -> Book:
    """The sums by hour and day of replayed blocks, which come with their partitions, one partition after the other."""
    book = Book()
    for _, pairs in itertools.groupby(found, key=lambda one: one[0]):
        _count_hours(records, book, records.counted(block for _, block in pairs), span)
    return book


@dataclass
class BySeries:
    """The sums of a version's series over a window: at lead 1, and at the lead that was asked for."""

    names: list[str] = field(default_factory=list)
    sums: list[Floats] = field(default_factory=list)  # by partition, (series, 2, COLUMNS)

    def add(self, names: Sequence[str], sums: Floats) -> None:
        """Add the series of another partition, of which only those with pairs are kept."""
        kept = np.flatnonzero(sums[:, 1, COLUMNS["count"]] > 0)
        self.names += [names[slot] for slot in kept.tolist()]
        self.sums.append(sums[kept])

    def skill(self, against: str, scaling: Scaling) -> Floats:
        """The skill of each, NaN where the reference has no pair or no error."""
        whole = np.concatenate(self.sums)
        return figures(whole[:, 1], (), scaling).skill[against]  # type: ignore[index]

    def quantiles(self, against: str, scaling: Scaling) -> dict[str, float | None]:
        """The quantiles of skill over the series that have one; linear between two series."""
        skill = self.skill(against, scaling)
        skill = skill[~np.isnan(skill)]
        values = np.quantile(skill, np.array(QUANTILES) / 100) if len(skill) else np.full(len(QUANTILES), np.nan)
        return {f"p{q}": finite(float(value)) for q, value in zip(QUANTILES, values, strict=True)}

    def worst(self, count: int, against: str, scaling: Scaling) -> list[dict[str, Any]]:
        """The series with the least skill, the worst first."""
        skill, whole = self.skill(against, scaling), np.concatenate(self.sums)
        order = np.argsort(skill, kind="stable")[: min(count, int((~np.isnan(skill)).sum()))]
        return [{"series": self.names[at], **measures(figures(whole[at], (1,), scaling), 1)} for at in order.tolist()]


def by_series(records: Records, span: Span, lead: str, version: int | None) -> dict[int, BySeries]:
    """Version → the sums of its series over a span, at a lead; of one version, or of all that report it."""
    found: dict[int, BySeries] = {}
    for ledger in records.ledgers:
        totals: dict[int, Floats] = {}
        for number, scored, inside in _scored(records, records.blocks(ledger, span), span):
            rows = [0, *(at for at, name in enumerate([*map(str, scored.leads), POOLED]) if name == lead)]
            if len(rows) > 1 and version in (None, number):
                slots, group = np.unique(scored.slot, return_inverse=True)
                sums = scored.sums(np.where(inside, group, len(slots)), len(slots) + 1)[:-1, rows]
                totals[number] = _added(totals.get(number), slots, sums)
        names = ledger.names()
        for number, total in totals.items():
            found.setdefault(number, BySeries()).add(names, total)
    return found


def _added(total: Floats | None, slots: Ints, sums: Floats) -> Floats:
    """The total by slot with the sums of some slots more."""
    need = int(slots[-1]) + 1
    if total is None:
        total = np.zeros((need, *sums.shape[1:]))
    elif need > len(total):
        total = np.concatenate([total, np.zeros((max(need, len(total) * 5 // 4) - len(total), *sums.shape[1:]))])
    total[slots] += sums
    return total


def _count_hours(records: Records, book: Book, blocks: Iterable[Block], span: Span) -> None:
    """Add the pairs of one partition's blocks, by hour."""
    for version, scored, inside in _scored(records, blocks, span):
        hours, group = np.unique(records.hours(scored.step), return_inverse=True)
        sums = scored.sums(np.where(inside, group, len(hours)), len(hours) + 1)[:-1]
        kept = np.flatnonzero(span.holds(hours))
        book.add(version, scored.leads, hours[kept], sums[kept])


def _scored(records: Records, blocks: Iterable[Block], span: Span) -> Iterator[tuple[int, Scored, Bools]]:
    """The scored pairs of one partition's blocks, and which of them are in the span."""
    scorer = records.scorer()
    for some in _batches(blocks):
        if not any(span.holds(records.hours(block.step)).any() for block in some):
            scorer.follow(some)
            continue
        for found in scorer.score(some):
            for version, scored in found.items():
                inside = span.holds(records.hours(scored.step))
                if inside.any():
                    yield version, scored, inside


def _batches(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    some: list[Block] = []
    size = 0
    for block in blocks:
        if len(block):
            some.append(block)
            size += len(block)
        if size >= OBSERVATIONS:
            yield some
            some, size = [], 0
    if some:
        yield some
