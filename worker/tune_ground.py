"""What a tuning trains on: the observations that the service would accept, and where they are cut."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import msgspec

from consumers.past import admitted
from models.errors import DataError
from models.sequences import Spans
from worker.fit import digest, with_series
from worker.tune import Ground

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumers.history import History
    from worker.fit import FitPlan
    from worker.settings import Settings
    from worker.tune import Wanted
    from worker.tune_space import Dimension

FIRST = 2  # evaluation spans' lengths that lie before the first of them
LEAST = 3  # horizons in a span


def ground_of(
    history: History,
    settings: Settings,
    dimensions: Sequence[Dimension],
    plan_of: Callable[[Settings], FitPlan],
    splits: int,
) -> Ground:
    """The ground of a search over a history.

    Raises:
        DataError: nothing of it is accepted, or it is too short.
        VersionError: it has more series than can have an input each, and that is asked for.
    """
    plan = plan_of(settings)
    partition, found = admitted(history, plan.form)
    block = found.block
    if not len(block):
        raise DataError("the history holds no observation that can be used", "`killick fit` says what is left out")
    steps = int(block.step.max() - block.step.min()) + 1
    held = Spans.by_share(steps, plan.validation, plan.evaluation, settings.model.horizon)
    cut = splits_of(held, splits, settings.model.horizon)
    if plan.series_inputs or "network.series" in {one.key for one in dimensions}:
        with_series(plan.architecture, partition.names)  # refused before the search, not in it

    def named(wanted: Settings) -> FitPlan:
        asked = plan_of(wanted)
        if not asked.series_inputs:
            return asked
        return replace(asked, architecture=with_series(asked.architecture, partition.names))

    return Ground(block, settings, tuple(dimensions), named, cut, held)


def splits_of(held: Spans, count: int, horizon: int) -> tuple[Spans, ...]:
    """Expanding splits of what lies before the span held out: evaluation spans of one length, one after the other.

    Each trains on all that is before its validation span, which is as large a part of that as in a fit
    (Hyndman & Athanasopoulos 2021, section 5.10: evaluation on a rolling origin).

    Raises:
        DataError: the spans would be too short.
    """
    share = 1.0 - held.train_end / held.validation_end
    length = held.validation_end / (count + FIRST)
    found = []
    for number in range(count):
        validation_end = round((FIRST + number) * length)
        spans = Spans(round(validation_end * (1.0 - share)), validation_end, round((FIRST + number + 1) * length))
        for name, size in (
            ("training", spans.train_end),
            ("validation", validation_end - spans.train_end),
            ("evaluation", spans.end - validation_end),
        ):
            if size < LEAST * horizon:
                raise DataError(
                    f"the {name} span of split {number + 1} of {count} has {size} steps, "
                    f"at least {LEAST * horizon} ({LEAST} horizons) are needed",
                    "give a longer history, a shorter horizon or fewer --splits",
                )
        found.append(spans)
    return tuple(found)


def identity(history: History, ground: Ground, wanted: Wanted) -> dict[str, Any]:
    """All that must be the same for a study to go on."""
    settings = ground.settings
    return {
        "data": digest(history),
        "model": msgspec.to_builtins(ground.plan_of(settings).form) | {"horizon": settings.model.horizon},
        "network": settings.network.model_dump(mode="json", exclude={"threads"}),
        "training": settings.training.model_dump(mode="json"),
        "splits": wanted.splits,
        "repeats": wanted.repeats,
        "prune": wanted.prune,
        "seed": wanted.seed,
        "space": {one.key: asdict(one) for one in ground.dimensions},
    }
