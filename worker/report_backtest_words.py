"""A backtest in words: what pays, what it costs, whether an LSTM is worth it; a sentence each."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from models.times import DAY_MS
from worker.backtest_appraisal import ALWAYS, CONTROL, FROZEN
from worker.durations import parse_duration
from worker.report_numbers import clock_words, less_interval, less_words, share_words
from worker.report_words import counted

if TYPE_CHECKING:
    from worker.backtest_appraisal import Advice, Appraisal, Faced
    from worker.backtest_told import Backtested

FEW_DAYS = 28  # of the online span: with fewer, days say little
FEW_SEEDS = 3
MANY_SEEDS = 5
FAILED = "failed: "  # begins the words of a verdict on a retraining that did not come to an end
LIKE_MUCH = 1.5  # times the gradient steps: what differs more was not trained alike
TONES: dict[Advice, str] = {
    "updating": "promote", "frozen": "promote", "lstm": "promote", "baseline": "reject", "undecided": "inconclusive",
    "nothing": "failed",
}  # fmt: skip
SPOKEN = {FROZEN: "the frozen LSTM", CONTROL: "the control", "rls": "online RLS", "seasonal": "seasonal naive"}
MADE = {
    FROZEN: "the frozen LSTM, trained once",
    CONTROL: "the LSTM, updated once a week on old data alone",
    "persistence": "baseline: the last observation goes on",
    "seasonal": "baseline: what was observed a period ago",
    "rls": "baseline: a linear model, updated online by recursive least squares",
}
WHEN = {ALWAYS: "once a day", "on-drift": "when drift is found", "on-skill": "when skill drops"}


def spoken(name: str) -> str:
    """The name in a sentence."""
    return SPOKEN.get(name, name)


def made_words(name: str) -> str:
    """How its forecasts come about."""
    when = when_words(name)
    return MADE.get(name, f"the LSTM, updated {when}" if when else "")


def when_words(name: str) -> str:
    """When a policy updates; empty for what never does."""
    if name.startswith("periodic:"):
        length = parse_duration(name.removeprefix("periodic:"))
        days = length.ms / DAY_MS
        return f"every {length}" if days % 1 else "once a day" if days == 1 else f"every {days:.0f} days"
    return WHEN.get(name, "")


def interval_words(faced: Faced) -> str:
    """The interval of a difference, in words; empty where there is none."""
    words = less_interval(faced.low, faced.high)
    return f"95 %: {words}" if words else ""


def _on_too_few_seeds(appraisal: Appraisal) -> Faced | None:
    """The policy with the least error of all, against the frozen LSTM, where only the seeds leave that open."""
    faced = appraisal.advised.against_frozen
    if faced is None or faced.clear or not faced.low > 0 or not 1 < faced.seeds < MANY_SEEDS:
        return None
    beside = appraisal.faced(faced.name, appraisal.advised.baseline)
    return faced if beside is None or beside.share > 0 else None


def tone(appraisal: Appraisal) -> str:
    """The colour of the advice."""
    return TONES["undecided" if _on_too_few_seeds(appraisal) is not None else appraisal.advised.advice]


def outcome_words(appraisal: Appraisal) -> str:
    """The advice in a few words."""
    advised = appraisal.advised
    if _on_too_few_seeds(appraisal) is not None:
        return "too few seeds to tell"
    return {
        "updating": f"{advised.chosen} pays",
        "frozen": "updating does not pay",
        "lstm": "the LSTM pays",
        "baseline": "an LSTM is not worth it" if advised.lstm is not None else "no LSTM was run",
        "undecided": "hardly worth an LSTM",
        "nothing": "nothing was scored",
    }[advised.advice]


def plain_words(appraisal: Appraisal) -> str:
    """What to do, for who reads one line."""
    advised, faced = appraisal.advised, appraisal.advised.against_baseline
    better = _on_too_few_seeds(appraisal)
    if better is not None:
        beside = appraisal.faced(better.name, advised.baseline)
        more = f", and {less_words(beside.share)} than {spoken(beside.other)}" if beside is not None else ""
        return (
            f"{better.name} makes {less_words(better.share)} error than the frozen LSTM{more}, but "
            f"{counted(better.seeds, 'seed')} can't tell that from luck: run it with --seeds {MANY_SEEDS}."
        )
    if advised.lstm is None or advised.advice == "nothing":
        best = f"; of the baselines {spoken(advised.baseline)} is the best" if advised.baseline else ""
        return f"No policy was scored{best}."
    against = (
        f"{less_words(faced.share)} error than {spoken(faced.other)}, the best baseline" if faced is not None else ""
    )
    if faced is not None and advised.advice == "baseline":
        return (
            f"Take {spoken(faced.other)}: the best LSTM, {spoken(advised.lstm)}, makes {less_words(faced.share)} "
            "error, and has to be trained."
        )
    if faced is not None and advised.advice == "undecided":
        simpler = "what is simpler costs less" if faced.share >= 0 else "and has to be trained"
        luck = "which may be luck" if math.isfinite(faced.low) else "on too few days to tell skill from luck"
        return f"The best LSTM, {spoken(advised.lstm)}, makes {against}, {luck}; {simpler}."
    if advised.advice == "updating" and advised.against_frozen is not None:
        head = f"Update {_named(advised.chosen)}: {less_words(advised.against_frozen.share)} error than the frozen LSTM"
        return f"{head}{_cost_words(appraisal)}{'; ' + against if against else ''}."
    name = "Leave the LSTM frozen" if advised.advice == "frozen" else _take_words(advised.lstm)
    why = "no policy that updates makes less error beyond luck" if advised.advice == "frozen" else ""
    told = f"it makes {against}" if against else ""
    return f"{name}: {'; '.join(filter(None, (why, told)))}." if why or told else f"{name}."


def _named(name: str | None) -> str:
    when = when_words(name or "")
    return f"{when} ({name})" if when else f"{name}"


def _take_words(name: str) -> str:
    return f"Update {_named(name)}" if when_words(name) else f"Take {spoken(name)}"


def _cost_words(appraisal: Appraisal) -> str:
    """What share of the gain of `always` for what share of its training; empty where that is not known."""
    one = appraisal.standing(appraisal.advised.chosen)
    if one is None or one.name == ALWAYS or one.gain_share is None or one.compute_share is None:
        return ""
    gain = "more than always gains" if one.gain_share > 1 else f"{share_words(one.gain_share)} of what always gains"
    return f", {gain} for {share_words(one.compute_share)} of its training"


def more_words(appraisal: Appraisal) -> list[str]:
    """What else is to know before one acts on it, a sentence each."""
    advised, told = appraisal.advised, appraisal.told
    found = []
    if advised.against_frozen is not None:
        found.append(faced_words(advised.against_frozen))
    if advised.against_baseline is not None:
        found.append(faced_words(advised.against_baseline))
    if advised.against_control is not None:
        found.append(_control_words(advised.against_control, told))
    told_apart = None if _on_too_few_seeds(appraisal) is not None else advised.against_frozen
    if advised.advice in {"undecided", "baseline"} and told_apart is not None:
        pays = told_apart.clear and told_apart.share > 0
        found.append(
            f"Of the policies, {advised.lstm} is the one to take." if pays else "Updating does not pay either."
        )
    found += gate_words(told)
    if told.end_ms - told.online_ms < FEW_DAYS * DAY_MS:
        found.append(f"The online span has {_long(told.end_ms - told.online_ms)}: too little to rest much on.")
    if advised.lstm is not None and told.seeds < FEW_SEEDS:
        seeds = counted(told.seeds, "seed")
        found.append(f"With {seeds} luck of training can't be told from skill: --seeds {MANY_SEEDS}.")
    return found


def gate_words(told: Backtested) -> list[str]:
    """What came of retrainings that brought no version into service, a sentence each."""
    retrained = sum(run.retrainings for run in told.runs)
    if not told.gate or not retrained or any(run.promotions for run in told.runs):
        return []
    verdicts = [one.words for run in told.runs for one in run.happened if one.kind == "verdict"]
    failed = [words.removeprefix(FAILED) for words in verdicts if words.startswith(FAILED)]
    found = [f"The gate let nothing through: {counted(retrained, 'retraining')}, no promotion."]
    if failed:
        found.append(f"{len(failed)} of {counted(len(verdicts), 'verdict')} failed, the last one so: {failed[-1]}.")
    if len(failed) < len(verdicts):
        found.append(
            "What updates would bring that nobody judges, --gate off says; what those would that need no proof, "
            'judgement.trial = "harm" (docs/judgement.md).'
        )
    return found


def faced_words(faced: Faced) -> str:
    """One against another, with its interval, its weeks and its seeds."""
    weeks = f"better in {faced.better_weeks} of {counted(faced.weeks, 'week')}" if faced.weeks else ""
    seeds = f"with {faced.better_seeds} of {counted(faced.seeds, 'seed')}" if faced.seeds > 1 else ""
    rests = ", ".join(filter(None, (interval_words(faced), weeks, seeds)))
    luck = "" if faced.clear else " That may be luck."
    told = f"{less_words(faced.share)} error{f' ({rests})' if rests else ''}"
    return f"{spoken(faced.name)} against {spoken(faced.other)}: {told}.{luck}"


def _control_words(faced: Faced, told: Backtested) -> str:
    if not faced.clear or faced.share <= 0:
        return (
            f"{faced.name} is no better beyond luck than the control, which is trained further on old data alone: what "
            "updating gains here may come from more training, not from what is new."
        )
    found = f"{faced.name} against the control, which is trained further on old data alone: "
    found += f"{less_words(faced.share)} error."
    ours, theirs = (_gradient_steps(told, name) for name in (faced.name, faced.other))
    if ours > LIKE_MUCH * theirs or theirs > LIKE_MUCH * ours:
        return (
            f"{found} But it took {ours:,.0f} gradient steps, and the control {theirs:,.0f}: part may be due to that."
        )
    return f"{found} So much is due to what is new."


def _gradient_steps(told: Backtested, policy: str) -> float:
    return fmean(run.gradient_steps for run in told.runs if run.policy == policy)


def span_words(told: Backtested) -> str:
    """How long was trained and how long forecast."""
    before, after = told.online_ms - told.begin_ms, told.end_ms - told.online_ms
    return f"{_long(before)} to learn from, then {_long(after)} forecast as a live stream"


def _long(ms: int) -> str:
    """A length of event time, in days from two days on."""
    return f"{ms / DAY_MS:,.0f} days" if ms >= 2 * DAY_MS else clock_words(ms / 1_000)


def fit_words(told: Backtested) -> str:
    """What the first fit took."""
    if not told.fit_s:
        return ""
    mean = sum(told.fit_s) / len(told.fit_s)
    return f"{clock_words(mean)}{' a seed' if len(told.fit_s) > 1 else ''}"
