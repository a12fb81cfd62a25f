"""A study as values: every trial with its figures, the ranking, the check, and what to paste."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.skill import average
from worker.tune_figures import (
    apart,
    best_shares,
    by_split,
    checked,
    deviation_of,
    gain_over,
    mean_of,
    measured,
)
from worker.tune_space import applied, toml, values_of
from worker.tune_told import Split, Trial, Tuned

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from models.sequences import Spans
    from worker.tune import Ground, Wanted
    from worker.tune_study import Kept, Study
    from worker.tune_told import Check, Run


@dataclass(frozen=True)
class About:
    """What a study is of, in words."""

    file: str
    workers: int
    folder: str


def tuned(study: Study, ground: Ground, wanted: Wanted, about: About) -> Tuned:
    """What a study came to; trial 0 has ended."""
    trials = tuple(_trials(study, ground))
    numbered = {one.number: one for one in trials}
    complete = {one.number: found for one in trials if one.state == "complete" and (found := measured(one.runs))}
    ranking = tuple(sorted(complete, key=lambda number: (complete[number].mean, number)))
    tied = tuple(number for number in ranking[1:] if not apart(complete[ranking[0]], complete[number]))
    best = numbered[ranking[0]] if ranking else None
    check = _check(study, ground, best.number) if best is not None else None
    form, block = ground.plan_of(ground.settings).form, ground.block
    first, interval_ms = int(block.step.min()), form.interval_ms
    runs = [run for one in trials for run in one.runs]
    return Tuned(
        file=about.file,
        model=ground.settings.model.name,
        target=form.target,
        interval_ms=interval_ms,
        horizon=ground.settings.model.horizon,
        series=len(np.unique(block.slot)),
        observations=len(block),
        begin_ms=first * interval_ms,
        end_ms=(int(block.step.max()) + 1) * interval_ms,
        splits=tuple(
            _split(ground, spans, [run for run in runs if run.split == number])
            for number, spans in enumerate(ground.splits)
        ),
        repeats=wanted.repeats,
        wanted=wanted.trials,
        trials=trials,
        ranking=ranking,
        tied=tied,
        cheapest=min((*ranking[:1], *tied), key=lambda number: numbered[number].pace_s, default=None),
        importance=study.importance(),
        check=check,
        toml=toml(best.changed) if best is not None else "",
        seconds=sum(run.seconds for run in (*runs, *study.checks.values())),
        workers=about.workers,
        study=about.folder,
    )


def _trials(study: Study, ground: Ground) -> Iterable[Trial]:
    """The trials that have ended."""
    first: dict[str, Any] = {}
    zero = study.trials[0]
    complete = {
        one.number: found for one in study.trials if one.state == "complete" and (found := measured(_runs(one)))
    }
    shares = best_shares(complete)
    for one in study.trials:
        if one.state is None:
            continue
        settings = applied(ground.settings, ground.dimensions, one.params)
        values = values_of(settings, ground.dimensions)
        first = first or values
        yield _trial(
            one,
            zero,
            settings=values,
            changed={key: value for key, value in values.items() if value != first[key]},
            parameters=settings.architecture(gain=(1.0,) * settings.model.horizon).parameter_count,
            best_share=shares.get(one.number),
        )


def _trial(one: Kept, zero: Kept, **given: Any) -> Trial:
    runs = _runs(one)
    seeds = {(run.split, run.seed) for run in runs}
    beside = [run for run in _runs(zero) if (run.split, run.seed) in seeds]
    found = measured(runs)
    gain, gain_interval = gain_over(measured(beside), found) if one.number else (None, None)
    ours, theirs = by_split(runs), by_split(beside)
    return Trial(
        number=one.number,
        state=one.state or "refused",
        words=one.words,
        runs=runs,
        mse=mean_of(runs),
        deviation=deviation_of([runs]),
        error=found.error if found is not None and found.freedom else None,
        interval=found.interval if found is not None else None,
        skill_persistence=average(run.skill_persistence for run in runs),
        skill_seasonal=average(run.skill_seasonal for run in runs),
        gain=gain,
        gain_interval=gain_interval,
        splits_won=sum(bool(np.mean(ours[split]) < np.mean(theirs[split])) for split in ours if split in theirs),
        seconds=sum(run.seconds for run in runs),
        **given,
    )


def _runs(one: Kept) -> tuple[Run, ...]:
    """The runs of a trial, repeat after repeat, whatever order they came in."""
    return tuple(sorted(one.runs.values(), key=lambda run: (run.seed, run.split)))


def _check(study: Study, ground: Ground, best: int) -> Check | None:
    """The check of the best; None: it was not made."""
    runs = {
        number: [run for (trial, _), run in sorted(study.checks.items()) if trial == number] for number in (0, best)
    }
    if not (runs[0] and runs[best]):
        return None
    return checked(_split(ground, ground.held, runs[best]), runs[0], runs[best])


def _split(ground: Ground, spans: Spans, runs: Sequence[Run]) -> Split:
    """Spans as times, with the references of the first run on them."""
    first, interval_ms = int(ground.block.step.min()), ground.settings.interval_ms
    scored = next((run for run in runs if run.mse is not None), None)
    return Split(
        begin_ms=first * interval_ms,
        train_ms=(first + spans.train_end) * interval_ms,
        validation_ms=(first + spans.validation_end) * interval_ms,
        end_ms=(first + spans.end) * interval_ms,
        pairs=scored.pairs if scored else 0,
        persistence=scored.persistence if scored else None,
        seasonal=scored.seasonal if scored else None,
    )
