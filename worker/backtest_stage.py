"""The stream of a backtest: one partition, the versions that run in it, and how new ones are brought up beside them.

    block ─► fold (as the consumer does) ─► forecasts, pairs
    registry ─► wanted ─► spun up from a copy of series state, a spin-up depth back ─► one new roster

The copies stand in for the snapshots of a ledger.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from consumers.roster import Seat, incumbent_of, reseated, shadows_of, wanted
from consumers.stream import Partition, Version, fold
from models.blocks import part_of
from models.network import Network
from models.scaling import SeriesState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consumers.stream import Folded
    from models.blocks import Block
    from models.forecaster import Carried
    from models.scaling import SeriesForm
    from worker.desks import VersionDesk

BLIND_OBSERVATIONS = 1 << 20  # of a fold without versions


class _Copy(NamedTuple):
    """Series state as it was before a block."""

    series: SeriesState
    block: Block


class Stage:
    """Folds blocks, in their order, and follows the registry between them."""

    def __init__(
        self, form: SeriesForm, names: Sequence[str], registry: VersionDesk, *, depth_steps: int, guard_steps: int
    ) -> None:
        """Slot i is the series `names[i]`. `depth_steps`: how much of the past a version is given before it runs."""
        self.partition = Partition(form, names)
        self._registry = registry
        self._depth = depth_steps
        self._guard = guard_steps
        self._versions: dict[int, Version] = {}
        self._back: deque[_Copy] = deque()
        self._newest = 0

    def pass_by(self, block: Block) -> None:
        """Let series state see a past that no version is to see."""
        for piece in pieces(block, BLIND_OBSERVATIONS):
            fold([(self.partition, piece)], self._versions)

    def fold(self, block: Block) -> Folded:
        """What a block brings; it is not empty."""
        self._back.append(_Copy(_copied(self.partition.series), block))
        self._newest = int(block.step.max())
        while len(self._back) > 1 and int(self._back[1].block.step.min()) <= self._newest - self._depth:
            self._back.popleft()
        (folded,) = fold([(self.partition, block)], self._versions)
        return folded

    def follow(self) -> None:
        """Seat whom the registry names: who is new is spun up first.

        Raises:
            VersionError: one of them can't run here.
        """
        aliases = self._registry.aliases()
        if aliases.incumbent is None:
            return
        ready: dict[int, Carried] = {}
        while True:
            target = wanted(
                self.partition.roster,
                incumbent=aliases.incumbent,
                candidate=aliases.candidate,
                previous=aliases.previous,
                step=self._newest,
                guard_steps=self._guard,
                ready=ready,
            )
            if not target.missing:
                break
            number = target.missing[0]
            self._versions[number] = self._loaded(number)
            ready[number] = self._spun_up(self._versions[number])
        roster = self.partition.roster
        if target.incumbent == incumbent_of(roster) and target.shadows == shadows_of(roster):
            return
        seats = reseated(
            roster,
            offset=self._offset,
            step=self._newest,
            incumbent=target.incumbent,
            shadows=target.shadows,
            starts=dict.fromkeys(ready, self._back[0].block.start),
        )
        self.partition.seat(seats, self._versions)
        self.partition.carried |= {number: one for number, one in ready.items() if number in self.partition.carried}
        self._versions = {number: self._versions[number] for number in self.partition.carried}

    @property
    def _offset(self) -> int:
        """Where the next block begins."""
        return self._back[-1].block.end

    def _loaded(self, number: int) -> Version:
        architecture, _, weights = self._registry.load(number)
        return Version(number, architecture, Network(architecture, weights))

    def _spun_up(self, version: Version) -> Carried:
        """The carried state of a version that saw the blocks of which there are copies, and nothing before."""
        apart = Partition(self.partition.form, self.partition.names)
        apart.series = _copied(self._back[0].series)
        start = self._back[0].block.start
        apart.seat([Seat(version.number, "shadow", start, start)], {version.number: version})
        for one in self._back:
            fold([(apart, one.block)], {version.number: version})
        return apart.carried[version.number]


def pieces(block: Block, size: int) -> Iterator[Block]:
    """A block in pieces of so many observations; their offsets follow each other."""
    for first in range(0, len(block), size):
        yield part_of(block, first, first + size)


def _copied(state: SeriesState) -> SeriesState:
    copy = SeriesState(state.form)
    for name, array in state.arrays().items():
        setattr(copy, name, array.copy())
    return copy
