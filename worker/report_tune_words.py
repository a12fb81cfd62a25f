"""A tuning in words: what to do with what was found, how sure that is, and what it cost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from worker.report_numbers import clock_words, less_interval, less_words
from worker.report_words import counted
from worker.tune_space import text
from worker.tune_tables import ENDS, advice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.tune_told import Run, Trial, Tuned

NOTHING = "nothing: the settings as they are"


class Outcome(NamedTuple):
    """The advice in a few words, and the tone of the page."""

    words: str
    tone: str


def outcome(told: Tuned) -> Outcome:
    """Whether to paste what was found."""
    best = told.best
    if best is None:
        return Outcome("nothing to use", "failed")
    judge = told.check or best
    if judge.skill_persistence is not None and judge.skill_persistence <= 0:
        return Outcome("not worth a network", "reject")
    if best.number == 0:
        return Outcome("keep the settings", "promote")
    if judge.gain is None or judge.gain_interval is None:
        return Outcome("not tested", "inconclusive")
    if judge.gain_interval[0] > 0:
        return Outcome("better settings found", "promote")
    return Outcome("may be luck" if judge.gain > 0 else "keep the settings", "inconclusive")


def plain_words(told: Tuned) -> str:
    """What to do, for who reads one line."""
    words = advice(told)
    return f"{words[0].upper()}{words[1:]}."


def more_words(told: Tuned) -> list[str]:
    """What that rests on, a sentence each."""
    best = told.best
    if best is None:
        return []
    found = [_best_words(told, best)]
    if told.check is not None and best.number and told.check.gain is not None:
        span = "On the span at the end, which the search has not seen,"
        found.append(f"{span} it makes {less_words(told.check.gain)} error than the settings as they are"
                     f"{interval_words(told.check.gain_interval)}.")  # fmt: skip
    elif best.number and told.check is None:
        found.append("Nothing was checked on a span that the search has not seen: the gain above is flattered by the "
                     "choice among trials.")  # fmt: skip
    found.append(_sure_words(told, best))
    return found


def _best_words(told: Tuned, best: Trial) -> str:
    if best.number == 0:
        return f"Of {counted(len(told.ranking), 'complete trial')} the settings as they are make the least error."
    if best.gain is None:
        return f"Over the splits of the search trial {best.number} makes the least error."
    won = f", in {best.splits_won} of {counted(len(told.splits), 'split')}" if len(told.splits) > 1 else ""
    return (
        f"Over the splits of the search trial {best.number} makes {less_words(best.gain)} error than the settings as "
        f"they are{interval_words(best.gain_interval)}{won}."
    )


def _sure_words(told: Tuned, best: Trial) -> str:
    if best.best_share is None:
        return "One repeat says nothing of luck: ask for --repeats 3."
    words = f"By the luck of the seeds trial {best.number} is the best with a chance of {100 * best.best_share:.0f} %; "
    if not told.tied:
        return f"{words}all others are worse beyond luck."
    words += f"{counted(len(told.tied), 'other')} can't be told from it"
    cheap = told.trial(told.cheapest)
    if cheap is not None and cheap.number != best.number and best.pace_s > 0:
        words += f"; trial {cheap.number} is one, and trains in {100 * cheap.pace_s / best.pace_s:.0f} % of its time"
    return f"{words}."


def interval_words(interval: tuple[float, float] | None) -> str:
    """The 95 % interval of a gain, in brackets; empty where there is none."""
    return "" if interval is None else f" ({range_words(interval)})"


def range_words(interval: tuple[float, float]) -> str:
    """The 95 % interval of a gain."""
    return f"95 %: {less_interval(*interval)}"


def changes(told: Tuned, one: Trial) -> list[str]:
    """What a trial changes, as TOML, what matters most first."""
    keys = sorted(one.changed, key=lambda key: -told.importance.get(key, 0.0))
    return [f"{key} = {text(one.changed[key])}" for key in keys]


def diagnoses(runs: Sequence[Run]) -> str:
    """How many trainings were diagnosed as what."""
    return ", ".join(f"{name} {count}" for name, count in Counter(run.diagnosis for run in runs).most_common())


def cost_words(told: Tuned) -> str:
    """How much was trained."""
    took = clock_words(told.seconds)
    return f"{counted(told.trainings, 'training')}, {took} in all" + (
        f", {told.workers} at a time" if told.workers > 1 else ""
    )


def states_words(told: Tuned) -> str:
    """How the trials ended."""
    states = Counter(one.state for one in told.trials)
    ended = ", ".join(f"{states[state]} {word}" for state, word in ENDS.items() if states[state])
    return f"{len(told.trials)} of {told.wanted}: {ended}" if ended else f"none of {told.wanted}"
