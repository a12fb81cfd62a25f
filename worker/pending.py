"""Losses and duels of event-time steps that are not over yet, of all partitions; which of them are, in their order.

A step is over when later steps have met as many forecasts as it has, and every partition that moves is past it: one
series whose clock runs ahead ends no step for the others. It is over in any case once so many later steps were met
that no observation of it would be accepted any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from models.duels import Duels
    from worker.store import Losses


class StepLoss(NamedTuple):
    """One step's mean loss: of the version that answered most of it."""

    step: int
    version: int
    loss: float


def merged(parts: Iterable[Losses], fed: int | None) -> Losses:
    """The losses of all partitions together, of steps after those that were `fed`."""
    total: Losses = {}
    for part in parts:
        for (step, version), (count, loss) in part.items():
            if fed is None or step > fed:
                before = total.get((step, version), (0, 0.0))
                total[step, version] = (before[0] + count, before[1] + loss)
    return total


def complete(losses: Losses, *, until: int, ahead_steps: int) -> Iterator[StepLoss]:
    """The steps that are over, oldest first; `until` is the least newest step of the partitions that move."""
    counts: dict[int, float] = {}
    main: dict[int, tuple[int, int]] = {}
    for (step, version), (count, _) in losses.items():
        counts[step] = counts.get(step, 0) + count
        main[step] = max(main.get(step, (0, 0)), (count, version))
    for step in over(counts, until=until, ahead_steps=ahead_steps):
        version = main[step][1]
        number, loss = losses[step, version]
        yield StepLoss(step, version, loss / number)


def over(counts: Mapping[int, float], *, until: int, ahead_steps: int) -> Iterator[int]:
    """Which of these steps, each of which met so many forecasts, are over, oldest first; `until` as in `complete`."""
    steps = sorted(counts)
    met = np.array([counts[step] for step in steps])
    later = met.sum() - np.cumsum(met)
    for at, step in enumerate(steps):
        is_over = (later[at] >= met[at] and step < until) or len(steps) - 1 - at > ahead_steps
        if not is_over:
            return
        yield step


def together(parts: Iterable[Duels], judged: int | None) -> Duels:
    """The duels of all partitions, of steps after those that were `judged`."""
    total: Duels = {}
    for part in parts:
        for key, duel in part.items():
            if judged is None or key[0] > judged:
                total[key] = total[key].plus(duel) if key in total else duel
    return total


def fought(duels: Duels, *, until: int, ahead_steps: int) -> list[int]:
    """The steps of these duels that are over, oldest first; `until` as in `complete`."""
    sizes: dict[int, float] = {}
    for (step, *_), duel in duels.items():
        sizes[step] = sizes.get(step, 0.0) + duel.size
    return list(over(sizes, until=until, ahead_steps=ahead_steps))
