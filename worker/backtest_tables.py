"""A backtest for terminals and for programs: tables, and one JSON object."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from rich.markup import escape
from rich.table import Table

from models.audit import printable
from models.skill import average
from models.times import day_text, rfc3339
from worker.backtest_appraisal import Appraisal
from worker.report_backtest_words import gate_words, plain_words, span_words
from worker.report_numbers import MINUS, NONE, clock_words, count_words, figure, skill_words
from worker.report_words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from worker.backtest_appraisal import Standing
    from worker.backtest_told import Backtested, LeadScore, PolicyRun, ScoreSet, SeriesScore

Column = TypeVar("Column", str, int)

MEASURES = {
    "mse": "MSE by lead",
    "mse_upto": "MSE, mean over leads 1 to",
    "skill": "skill against persistence by lead",
    "skill_seasonal": "skill against seasonal naive by lead",
}
BOUNDLESS = 100_000  # columns of a terminal that wraps nothing
MOST_SERIES = 40  # rows of the table by series; all are in the JSON


def print_tables(told: Backtested, console: Console) -> None:
    """How good each way to forecast was, by lead and by series too, and what updating cost."""
    appraisal = Appraisal(told)
    chosen = appraisal.advised.chosen
    told_of = f"{counted(told.series, 'series', 'series')}, {span_words(told)}"
    _say(console, f"{told.file}: {told_of}; gate {'on' if told.gate else 'off'}, {counted(told.seeds, 'seed')}")
    shown = [_errors(appraisal, chosen)]
    for measure in MEASURES:
        shown += _fitting(console, told.leads, partial(_by_lead, appraisal, chosen, measure))
    shown.append(_costs(appraisal, chosen))
    shown += _fitting(console, [one.name for one in appraisal.standings], partial(_by_series, appraisal))
    for table in shown:
        if table.row_count:
            console.print()
            console.print(table)
    _say(console, "")
    _say(console, "Errors are in standard deviations of each series over the training span, MAPE is in per cent.")
    for words in (plain_words(appraisal), *gate_words(told)):
        _say(console, words)


def as_json(told: Backtested) -> str:
    """Everything that was found, as one JSON object; figures of a policy are means over seeds."""
    appraisal = Appraisal(told)
    return msgspec.json.encode(
        {
            "file": told.file,
            "model": told.model,
            "target": told.target,
            "interval_ms": told.interval_ms,
            "horizon": told.horizon,
            "leads": told.leads,
            "series": told.series,
            "observations": told.observations,
            "begin": rfc3339(told.begin_ms),
            "online": rfc3339(told.online_ms),
            "end": rfc3339(told.end_ms),
            "gate": told.gate,
            "seeds": told.seeds,
            "fit_s": told.fit_s,
            "says": plain_words(appraisal),
            "policies": [_policy(appraisal, name) for name in told.policies],
            "baselines": [
                {"baseline": name, **_scored(appraisal, name), "daily": _daily(scores)}
                for name, scores in told.baselines.items()
            ],
            "runs": [_run(run, told.interval_ms) for run in told.runs],
        }
    ).decode()


def _policy(appraisal: Appraisal, name: str) -> dict[str, Any]:
    runs, one = appraisal.runs(name), appraisal.standing(name)
    assert one is not None  # noqa: S101 - it has runs
    return {
        "policy": name,
        "observations": _whole(average(run.observations for run in runs)),
        **_scored(appraisal, name),
        "mse_deviation": one.deviation,
        "retrainings": _whole(one.retrainings),
        "promotions": _whole(one.promotions),
        "rollbacks": _whole(one.rollbacks),
        "gradient_steps": _whole(one.gradient_steps),
        "training_s": one.training_s,
        "seconds": one.seconds,
        "gain_share": one.gain_share,
        "training_share": one.compute_share,
    }


def _scored(appraisal: Appraisal, name: str) -> dict[str, Any]:
    """The errors of a policy or a baseline, by lead and by series too."""
    sets = appraisal.scores(name)

    def over(value: Callable[[ScoreSet], float | None]) -> float | None:
        return average(value(scores) for scores in sets)

    return {
        "pairs": _whole(over(lambda one: one.pairs)),
        "mse": over(lambda one: one.mse),
        "mae": over(lambda one: one.mae),
        "mape": over(lambda one: one.mape),
        "skill": over(lambda one: one.skill_persistence),
        "skill_seasonal": over(lambda one: one.skill_seasonal),
        "by_lead": [_lead(scores) for scores in zip(*(one.leads for one in sets), strict=True)],
        "per_series": {
            scores[0].series: _series(scores, appraisal.told.leads)
            for scores in zip(*(one.series for one in sets), strict=True)
        },
    }


def _lead(scores: Sequence[LeadScore]) -> dict[str, Any]:
    return {
        "lead": scores[0].lead,
        "pairs": _whole(average(one.pairs for one in scores)),
        "mse": average(one.mse for one in scores),
        "mae": average(one.mae for one in scores),
        "mape": average(one.mape for one in scores),
        "mse_upto": average(one.upto for one in scores),
        "skill": average(one.skill_persistence for one in scores),
        "skill_seasonal": average(one.skill_seasonal for one in scores),
    }


def _series(scores: Sequence[SeriesScore], leads: Sequence[int]) -> dict[str, Any]:
    return {
        "pairs": _whole(average(one.pairs for one in scores)),
        "mse": average(one.mse for one in scores),
        "mae": average(one.mae for one in scores),
        "mape": average(one.mape for one in scores),
        "skill": average(one.skill_persistence for one in scores),
        "skill_seasonal": average(one.skill_seasonal for one in scores),
        "mse_upto": {str(lead): average(one.upto[at] for one in scores) for at, lead in enumerate(leads)},
    }


def _run(run: PolicyRun, interval_ms: int) -> dict[str, Any]:
    return {
        "policy": run.policy,
        "seed": run.seed,
        "observations": run.observations,
        "mse": run.scores.mse,
        "mae": run.scores.mae,
        "mape": run.scores.mape,
        "skill": run.scores.skill_persistence,
        "skill_seasonal": run.scores.skill_seasonal,
        "mse_upto": {str(one.lead): one.upto for one in run.scores.leads},
        "retrainings": run.retrainings,
        "promotions": run.promotions,
        "rollbacks": run.rollbacks,
        "gradient_steps": run.gradient_steps,
        "training_s": run.training_s,
        "seconds": run.seconds,
        "daily": _daily(run.scores),
        "versions": [{"version": version, "since": rfc3339(step * interval_ms)} for version, step in run.versions],
        "happened": [
            {"time": rfc3339(one.step * interval_ms), "it": one.kind, "version": one.version, "words": one.words}
            for one in run.happened
        ],
    }


def _daily(scores: ScoreSet) -> list[dict[str, Any]]:
    return [
        {"day": day_text(one.day), "pairs": one.pairs, "mse": one.mse, "persistence": one.persistence}
        for one in scores.daily
    ]


def _whole(value: float | None) -> float | None:
    """A mean of counts as a count, where it is one."""
    return int(value) if value is not None and value == int(value) else value


def _fitting(console: Console, columns: Sequence[Column], make: Callable[[Sequence[Column]], Table]) -> list[Table]:
    """One table of all columns, or as many as it takes for no figure to be wrapped."""
    free = console.options.update(max_width=BOUNDLESS)
    for width in range(len(columns), 0, -1):
        parts = -(-len(columns) // width)
        even = -(-len(columns) // parts)
        found = [make(columns[at : at + even]) for at in range(0, len(columns), even)]
        if width == 1 or all(console.measure(table, options=free).maximum <= console.width for table in found):
            return found
    return []


def _errors(appraisal: Appraisal, chosen: str | None) -> Table:
    several = appraisal.told.seeds > 1
    table = _table(
        "over all leads", "MSE", *(["±"] if several else []), "MAE", "MAPE", "skill: persistence", "seasonal"
    )
    for one in appraisal.standings:
        spread = [NONE if one.deviation is None else figure(one.deviation)] if several else []
        table.add_row(
            _named(one, chosen), figure(one.mse), *spread, figure(one.mae), figure(one.mape),
            skill_words(one.skill_persistence), skill_words(one.skill_seasonal), style=_style(one, chosen),
        )  # fmt: skip
    return table


def _by_lead(appraisal: Appraisal, chosen: str | None, measure: str, leads: Sequence[int]) -> Table:
    """A measure at each of these leads, a row for each way to forecast."""
    words = skill_words if measure.startswith("skill") else figure
    table = _table(MEASURES[measure], *(str(lead) for lead in leads))
    for one in appraisal.standings:
        sets = appraisal.scores(one.name)
        of_leads = zip(*(scores.leads for scores in sets), strict=True)
        found = [_lead(scores) for scores in of_leads if scores[0].lead in leads]
        table.add_row(_named(one, chosen), *(words(lead[measure]) for lead in found), style=_style(one, chosen))
    return table


def _costs(appraisal: Appraisal, chosen: str | None) -> Table:
    """What the policies trained, and what share of the gain and of the training of `always` that is."""
    table = _table("updating", "retrained", "promoted", "undone", "training", "of always' gain", "of its training")
    for one in appraisal.standings:
        if one.policy:
            table.add_row(
                _named(one, chosen), *(count_words(n) for n in (one.retrainings, one.promotions, one.rollbacks)),
                clock_words(one.training_s or 0.0), _share(one.gain_share),
                _share(one.compute_share), style=_style(one, chosen),
            )  # fmt: skip
    return table


def _by_series(appraisal: Appraisal, names: Sequence[str]) -> Table:
    """The MSE of each series, a column for each of these ways to forecast; the loudest first."""
    errors = {name: appraisal.by_series(name, lambda one: one.mse) for name in names}
    loudest = [series for series, _ in appraisal.loudest]
    table = _table("MSE by series", *names)
    if len(loudest) > 1:
        for series in loudest[:MOST_SERIES]:
            table.add_row(f"  {escape(printable(series))}", *(figure(errors[name].get(series)) for name in names))
        if len(loudest) > MOST_SERIES:
            table.add_row(f"  and {len(loudest) - MOST_SERIES:,} more: --json")
    return table


def _table(first: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(f"  {first}", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _named(one: Standing, chosen: str | None) -> str:
    return f"{'▸' if one.name == chosen else ' '} {one.name}"


def _style(one: Standing, chosen: str | None) -> str:
    return "bold" if one.name == chosen else "" if one.policy else "dim"


def _share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.{0 if abs(value) >= 0.0995 else 1}f} %".replace("-", MINUS)


def _say(console: Console, words: str) -> None:
    """Print a line as it is: names of files and series may hold what rich takes for markup."""
    console.print(printable(words), markup=False, highlight=False)
