"""What all runs of a backtest have in common: the file, the settings, and where the online span begins."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.times import DAY_MS
from worker.fit import observations, with_series

if TYPE_CHECKING:
    from rich.console import Console

    from consumers.history import History
    from models.architecture import Architecture, Weights
    from models.blocks import Block
    from worker.settings import Settings


@dataclass(frozen=True)
class UpdateRules:
    """How a plain update is made; lengths in steps."""

    rate: float
    passes: int  # over the recent data
    windows: int  # of one gradient step, at most
    chunk: int
    recent_steps: int
    recent_share: float


@dataclass(frozen=True, eq=False)
class Scene:
    """What all runs over a file have in common; told apart by its id."""

    id: str  # of the file and the settings: what is prepared of it is kept by it
    settings: Settings
    block: Block  # the whole file, in the order of time
    names: tuple[str, ...]
    online_step: int  # what is before it, the first version is fitted on
    gate: bool

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scene) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def tick_steps(self) -> int:
        """Steps between two looks: a day."""
        return max(1, DAY_MS // self.settings.interval_ms)

    @property
    def rules(self) -> UpdateRules:
        """How a plain update is made."""
        update, interval_ms = self.settings.update, self.settings.interval_ms
        recent = max(1, update.recent.ms // interval_ms)
        return UpdateRules(update.rate, update.passes, update.windows, update.chunk, recent, update.recent_share)

    @property
    def architecture(self) -> Architecture:
        """Of the first version, with a gain that the fit replaces; it knows the series that come before."""
        settings = self.settings
        architecture = settings.architecture(gain=(1.0,) * settings.model.horizon)
        if not settings.network.series:
            return architecture
        past = np.unique(self.block.slot[: self.row(self.online_step)])
        return with_series(architecture, [self.names[slot] for slot in past.tolist()])

    def row(self, step: int) -> int:
        """The first observation of a step, or after it."""
        return int(np.searchsorted(self.block.step, step))


class First(NamedTuple):
    """The first version, as every policy of a seed starts with it; read where TensorFlow is not loaded."""

    architecture: Architecture
    weights: Weights
    seconds: float


def scene_of(settings: Settings, history: History, online_ms: int, *, gate: bool, console: Console) -> Scene:
    """What all runs over a history have in common; `console` is told what of it is left out.

    Raises:
        DataError: none of its observations can be used.
    """
    partition, block = observations(history, settings.series_form(), console)
    return Scene(
        id=uuid.uuid4().hex,
        settings=settings,
        block=block,
        names=tuple(partition.names),
        online_step=-(-online_ms // settings.interval_ms),
        gate=gate,
    )
