"""What a tuning came to, on a terminal: the ranking, how sure it is, what it cost, and what to paste."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.table import Table

from models.times import rfc3339
from worker.tune_space import text
from worker.tune_told import Trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from worker.tune_told import Check, State, Tuned

SHOWN = 12  # trials of the table
LONGEST = 6  # numbers of a list there
SHOWN_REPEATS = (1, 2, 3, 5, 10, 20, 30, 50, 100)
SHOWN_SETTINGS = 6  # that matter most
MINUTE, HOUR = 60, 3_600
NONE = "-"
ENDS: dict[State, str] = {
    "complete": "complete", "pruned": "given up early", "exploded": "exploded", "refused": "refused",
}  # fmt: skip


def show(told: Tuned, console: Console) -> None:
    """Print all of it."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    say(f"{told.file}: {told.series:,} series, {told.observations:,} observations")
    for number, split in enumerate(told.splits, 1):
        say(
            f"split {number}: trained … {rfc3339(split.train_ms)}, validated … {rfc3339(split.validation_ms)}, "
            f"evaluated … {rfc3339(split.end_ms)}; persistence {_number(split.persistence)}, "
            f"seasonal naive {_number(split.seasonal)}"
        )
    console.print(ranking(told))
    for line in sentences(told):
        say(line)
    if promising(told):
        say("\n# for killick.toml, each line under its heading\n" + told.toml)


def ranking(told: Tuned) -> Table:
    """The best trials, the settings as they are among them, one row each."""
    table = Table(title="MSE, in standard deviations of each series over the training span")
    for heading in ("", "trial", "MSE", "±", "gain", "skill", "s", "weights"):
        table.add_column(heading, justify="right")
    table.add_column("changes", overflow="fold", ratio=1)
    numbered = {one.number: one for one in told.trials}
    ranks = {number: rank for rank, number in enumerate(told.ranking, 1)}
    shown = [number for number in told.ranking if ranks[number] <= SHOWN or number == 0]
    for number in shown:
        one = numbered[number]
        table.add_row(
            f"{ranks[number]}{'=' if number in told.tied else ''}",
            str(number),
            _number(one.mse),
            _number(one.error, 3),
            NONE if one.gain is None else f"{one.gain:+.1%}",
            NONE if one.skill_persistence is None else f"{one.skill_persistence:+.3f}",
            f"{one.pace_s:.1f}",
            f"{one.parameters:,}",
            ", ".join(f"{key.split('.')[1]} {_short(value)}" for key, value in one.changed.items()) or "as they are",
        )
    return table


def sentences(told: Tuned) -> Iterator[str]:
    """What the figures say, a line each."""
    yield (
        "± is the standard error by the luck of the seeds, = can't be told from the best, gain is over the settings as "
        "they are, skill is against persistence, s are seconds of a training"
    )
    best = told.best
    if best is None:
        yield "no trial is complete: there is no best"
        return
    yield f"best       {_best(told, best)}"
    yield f"sure?      {_sure(told, best)}"
    if told.importance:
        most = list(told.importance.items())[:SHOWN_SETTINGS]
        yield "matters    " + ", ".join(f"{name} {share:.0%}" for name, share in most)
    yield f"diagnosis  {_diagnoses(best)}"
    if told.check is not None:
        yield from _check(told.check, best)
    yield f"cost       {_cost(told)}"
    yield f"           {advice(told)}"


def advice(told: Tuned) -> str:
    """What to do, in one sentence."""
    best = told.best
    if best is None:
        return "nothing was found that could be used"
    judge = best if told.check is None else told.check
    if judge.skill_persistence is not None and judge.skill_persistence <= 0:
        return "no better than persistence: this network is not worth it here, whatever the settings"
    if best.number == 0:
        return "keep the settings as they are: none of the others is better"
    return _whether(judge)


def promising(told: Tuned) -> bool:
    """Whether there is something to paste: what the best changes, unless it was seen to do no good."""
    best = told.best
    if best is None or not told.toml:
        return False
    judge = best if told.check is None else told.check
    return judge.gain is None or judge.gain > 0


def _whether(judge: Trial | Check) -> str:
    """Whether to paste what was found, by the best trial's own figures or by the check."""
    if judge.gain is None or judge.gain_interval is None:
        return "paste what follows if you trust one repeat: nothing says how much of it is luck"
    own = isinstance(judge, Trial)
    where = "on the spans that it was chosen on" if own else "on the span that the search has not seen"
    if judge.gain_interval[0] > 0:
        hint = "; --check would say whether it is elsewhere" if own else ""
        return f"paste what follows: it is better {where}{hint}"
    if judge.gain > 0:
        return f"what follows may be better, but {where} the difference is within luck"
    return f"keep the settings as they are: {where} they are not beaten"


def _best(told: Tuned, best: Trial) -> str:
    interval = f" (95 %: {_number(best.interval[0])} to {_number(best.interval[1])})" if best.interval else ""
    said = f"trial {best.number}, MSE {_number(best.mse)}{interval}"
    if best.number == 0:
        return f"{said}: the settings as they are"
    if best.gain is not None:
        said += f", {_share(best.gain)} the settings as they are"
        said += f" (95 %: {best.gain_interval[0]:+.1%} to {best.gain_interval[1]:+.1%})" if best.gain_interval else ""
        said += f", better in {best.splits_won} of {len(told.splits)} splits"
    return said


def _sure(told: Tuned, best: Trial) -> str:
    if best.best_share is None:
        return "one repeat says nothing of luck: ask for --repeats 3"
    said = f"it is the best of these with a chance of {best.best_share:.0%}, by the luck of the seeds; "
    if not told.tied:
        return said + "all others are worse beyond luck"
    named = ", ".join(map(str, told.tied[:SHOWN])) + (", …" if len(told.tied) > SHOWN else "")
    said += f"can't be told from it: {'trial' if len(told.tied) == 1 else 'trials'} {named}"
    cheap = told.trial(told.cheapest)
    if cheap is not None and cheap.number != best.number and best.pace_s:
        share = f"{cheap.pace_s / best.pace_s:.0%} of the time"
        said += f"; the cheapest of all these is trial {cheap.number}, at {share}"
    return said


def _diagnoses(best: Trial) -> str:
    counts = Counter(run.diagnosis for run in best.runs)
    said = ", ".join(f"{word} {count} of {len(best.runs)}" for word, count in counts.most_common())
    return f"{said}; the first: {best.runs[0].words}"


def _check(check: Check, best: Trial) -> Iterator[str]:
    repeats = len(check.first)
    span = f"{rfc3339(check.split.validation_ms)} … {rfc3339(check.split.end_ms)}"
    if best.number == 0:
        yield f"check      {span}, which the search has not seen: MSE {_number(check.best_mse)} in {repeats} repeats"
    else:
        said = f"check      {span}, which the search has not seen: MSE {_number(check.best_mse)}, "
        said += f"{_number(check.first_mse)} as they are, {repeats} repeats each"
        if check.gain is not None:
            said += f": {_share(check.gain)} them"
        if check.gain_interval is not None:
            said += f" (95 %: {check.gain_interval[0]:+.1%} to {check.gain_interval[1]:+.1%})"
        yield said
    if check.skill_persistence is not None and check.skill_seasonal is not None:
        yield (
            f"           skill against persistence {check.skill_persistence:+.3f}, "
            f"against seasonal naive {check.skill_seasonal:+.3f}"
        )
    if check.standard_errors:
        shown = [one for one in check.standard_errors if one.repeats in SHOWN_REPEATS]
        said = ", ".join(f"{one.error:.4f} of {one.repeats}" for one in shown)
        yield f"repeats    standard error of the mean: {said}"
    if check.needed is not None:
        yield f"           to tell the two apart takes about {check.needed:,} repeats of each"


def _cost(told: Tuned) -> str:
    states = Counter(one.state for one in told.trials)
    others = (f", {states[state]} {said}" for state, said in ENDS.items() if state != "complete" and states[state])
    return (
        f"{told.trainings:,} trainings, {_length(told.seconds)} in all ({told.workers} at a time); "
        f"{len(told.trials)} trials, {states['complete']} complete{''.join(others)}; kept in {told.study}"
    )


def _short(value: object) -> str:
    """A value for a narrow column: of long lists the ends."""
    if isinstance(value, list) and len(value) > LONGEST:
        return f"[{value[0]}, …, {value[-1]}]"
    return text(value)


def _share(gain: float) -> str:
    return f"{abs(gain):.1%} {'below' if gain >= 0 else 'above'}"


def _number(value: float | None, digits: int = 4) -> str:
    return NONE if value is None else f"{value:.{digits}g}"


def _length(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h"
