"""What a seed's world is made of: processes, how often what happens to them, and what must not happen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.boundaries import CLOSING, JUDGING, RETRAINING, SPIN_UP, SWAP
from tests.faults.store import Rates

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from consumers.loop import Consumer
    from tests.faults.boundaries import Boundaries, Point
    from tests.faults.store import Store
    from tests.faults.topics import Sink, Source
    from worker.judging import Judging

# Chains of events that chance alone would seldom bring about.
PLOTS: dict[str, Sequence[str]] = {
    "tail": ("sync", "steps", "cut"),
    "zombie": ("steps", "freeze", "steps", "steps", "thaw"),
    "zombie-tail": ("sync", "step", "freeze", "steps", "cut", "steps", "steps", "thaw"),
    "twice": ("sync", "steps", "crash", "steps", "freeze", "cut", "steps", "steps", "thaw", "steps"),
}
UPDATED = 0.3  # of the worlds


class Failed(AssertionError):
    """What must not happen did."""


class Watcher:
    """The observer: nothing but boundaries, and a mismatch is a failure."""

    def __init__(self, boundaries: Boundaries) -> None:
        self._boundaries = boundaries

    def mismatch(self) -> None:
        """A replay gave other bits."""
        raise Failed("a replayed block gave other bits than were committed")

    def rewound(self) -> None:
        """Redis had lost its tail, and it was noticed."""
        self._boundaries.tally.faults["rewound"] += 1
        self._boundaries.cross("observer.rewound", "at")

    def diverged(self, partition: int, why: str) -> None:
        """A version can't be followed: only one that is of no use may be refused."""
        if why and "of no use" not in why:
            raise Failed(f"partition {partition} diverged: {why}")
        self._boundaries.cross("observer.diverged", "at")

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: self._boundaries.cross(f"observer.{name}", "at")


@dataclass
class Node:
    """A process: a consumer and what dies with it."""

    name: str
    consumer: Consumer
    source: Source
    sink: Sink
    store: Store
    frozen: bool = False


@dataclass
class Updater:
    """A process that updates the model: a gate or a retrainer."""

    name: str
    step: Callable[[], object]
    judging: Judging | None = None
    frozen: bool = False
    busy: bool = False  # in the middle of a step


@dataclass
class Temper:
    """What a seed's world is like: weights of what happens, and rates of what fails."""

    crash_rate: float
    rates: Rates
    weights: dict[str, int]
    tells_restarts: float
    interleaving: float

    @classmethod
    def of(cls, rng: random.Random, target: Point | None) -> Temper:
        """A temper by chance: some worlds are calm in one way and wild in another, but so that `target` is met."""
        rates = [rng.choice((0.0, 0.0, 0.01, 0.04)) for _ in range(4)]
        weights = {
            "step": 100,
            "produce": 12,
            "acknowledge": rng.choice((5, 15, 40)),
            "sync": rng.choice((0, 2, 8, 20)),
            "cut": rng.choice((0, 0, 2, 5)),
            "rebalance": rng.choice((0, 1, 4)),
            "start": rng.choice((1, 3)),
            "leave": rng.choice((0, 1)),
            "freeze": rng.choice((0, 1, 4)),
            "thaw": rng.choice((1, 3)),
            "deafen": rng.choice((0, 1, 3)),
            "arrive": 4,
            "operate": rng.choice((0, 1, 3, 8)),
            **dict.fromkeys(("pass", "ask", "expire", "hire", "update", "stall"), 0),
        }
        if rng.random() < UPDATED or (target is not None and target.phase in (JUDGING, RETRAINING)):
            weights |= {"pass": 25, "ask": 6, "expire": rng.choice((0, 1, 3)), "hire": 8, "update": 60}
            weights |= {"stall": rng.choice((0, 2)), "operate": rng.choice((0, 1, 3)), "cut": rng.choice((0, 0, 1))}
        if target is not None and target.phase == CLOSING:
            weights |= {"leave": 12, "start": 12}
            rates[0] = 0.08
        if target is not None and target.phase in (SPIN_UP, SWAP):
            weights["operate"] = 8
        if target is not None and target.label == "observer.rewound":
            weights |= {"sync": 8, "cut": 6}
        interleaving = rng.choice((0.0, 0.01, 0.05))
        crash_rate = rng.choice((0.0, 0.001, 0.004, 0.015))
        return cls(crash_rate, Rates(*rates), weights, rng.choice((0.0, 0.7, 1.0)), interleaving)


@dataclass
class Control:
    """What a negative control changes in the world: a part of the production code is taken away."""

    from_group: bool = False
    real: bool = False
