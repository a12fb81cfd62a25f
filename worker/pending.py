"""The losses of event-time steps that are not over yet, of all partitions; which of them are, in their order.

A step is over when later steps have met as many forecasts as it has, and every partition that moves is past it: one
series whose clock runs ahead ends no step for the others. It is over in any case once so many later steps were met
that no observation of it would be accepted any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    if not losses:
        return
    steps = np.array(sorted({step for step, _ in losses}))
    counts = np.zeros(len(steps), np.int64)
    main: dict[int, tuple[int, int]] = {}
    for (step, version), (count, _) in losses.items():
        counts[np.searchsorted(steps, step)] += count
        main[step] = max(main.get(step, (0, 0)), (count, version))
    later = counts.sum() - np.cumsum(counts)
    following = range(len(steps) - 1, -1, -1)
    for step, count, after, steps_after in zip(steps.tolist(), counts.tolist(), later.tolist(), following, strict=True):
        is_over = (after >= count and step < until) or steps_after > ahead_steps
        if not is_over:
            return
        version = main[step][1]
        number, loss = losses[step, version]
        yield StepLoss(step, version, loss / number)
