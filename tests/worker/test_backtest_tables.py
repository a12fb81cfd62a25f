"""Tables and JSON of a backtest."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from models.skill import average
from tests.worker.backtest_samples import FIRST_DAY, LEADS, NAMES, POLICIES, SEEDS, TRAIN_DAYS, only, run, told
from worker.backtest_tables import MOST_SERIES, as_json, print_tables
from worker.report_numbers import figure

if TYPE_CHECKING:
    from worker.backtest_told import Backtested, ScoreSet


def printed(of: Backtested, width: int = 120) -> str:
    """What a terminal shows."""
    stream = StringIO()
    print_tables(of, Console(file=stream, width=width))
    return stream.getvalue()


def row(text: str, table: str, name: str) -> list[str]:
    """The cells of a row of the table that is headed so, without the name."""
    lines = text.splitlines()
    begin = next(at for at, line in enumerate(lines) if line.strip().startswith(table))
    found = next(line for line in lines[begin + 1 :] if line.replace("▸", " ").split()[:1] == [name])
    return found.replace("▸", " ").split()[1:]


def parsed(of: Backtested) -> dict[str, Any]:
    """The JSON as a program reads it."""
    found: dict[str, Any] = json.loads(as_json(of))
    return found


def mean(policy: str, value: Any) -> float:
    """The mean of something over the seeds."""
    return float(np.mean([value(run(policy, seed)) for seed in range(1, SEEDS + 1)]))


def test_the_json_gives_every_policy_with_means_over_its_seeds() -> None:
    """The fields that programs rely on, with the figures of the runs."""
    found = parsed(told())
    assert [one["policy"] for one in found["policies"]] == list(POLICIES)
    named = {
        "policy", "observations", "mse", "mae", "mape", "skill", "retrainings", "promotions", "training_s", "seconds",
        "per_series",
    }  # fmt: skip
    for one in found["policies"]:
        assert named <= set(one)
        name = one["policy"]
        assert one["mse"] == pytest.approx(mean(name, lambda r: r.scores.mse))
        assert one["mae"] == pytest.approx(mean(name, lambda r: r.scores.mae))
        assert one["mape"] == pytest.approx(mean(name, lambda r: r.scores.mape))
        assert one["skill"] == pytest.approx(mean(name, lambda r: r.scores.skill_persistence))
        assert one["skill_seasonal"] == pytest.approx(mean(name, lambda r: r.scores.skill_seasonal))
        assert one["training_s"] == pytest.approx(mean(name, lambda r: r.training_s))
        assert one["retrainings"] == run(name, 1).retrainings
        assert one["observations"] == run(name, 1).observations
        assert list(one["per_series"]) == list(NAMES)
        assert one["per_series"]["OT"]["mse"] == pytest.approx(mean(name, lambda r: r.scores.series[2].mse))
        upto = mean(name, lambda r: r.scores.series[2].upto[1])
        assert one["per_series"]["OT"]["mse_upto"][str(LEADS[1])] == pytest.approx(upto)
        assert [lead["lead"] for lead in one["by_lead"]] == list(LEADS)
        assert one["by_lead"][1]["mse_upto"] == pytest.approx(mean(name, lambda r: r.scores.leads[1].upto))


def test_the_json_gives_baselines_and_every_run() -> None:
    """Baselines as they are; each run with its seed, its days, and what happened to its versions."""
    found = parsed(told())
    assert {one["baseline"]: one["mse"] for one in found["baselines"]} == pytest.approx(
        {name: scores.mse for name, scores in told().baselines.items()}
    )
    assert [(one["policy"], one["seed"]) for one in found["runs"]] == [(one.policy, one.seed) for one in told().runs]
    drifted = next(one for one in found["runs"] if one["policy"] == "on-drift")
    assert drifted["happened"][0]["it"] == "drift"
    assert drifted["versions"][0] == {"version": 1, "since": "2016-09-16T00:00:00Z"}
    assert drifted["daily"][0]["day"] == str(np.datetime64(FIRST_DAY + TRAIN_DAYS, "D"))
    assert len(drifted["daily"]) == len(run("on-drift", 1).scores.daily)


def test_shares_are_of_what_always_gains_and_trains() -> None:
    """The policy never has gained nothing, always everything; without always there are none."""
    found = {one["policy"]: one for one in parsed(told())["policies"]}
    assert (found["never"]["gain_share"], found["always"]["gain_share"]) == (0, 1)
    gain = mean("never", lambda r: r.scores.mse) - mean("on-drift", lambda r: r.scores.mse)
    most = mean("never", lambda r: r.scores.mse) - mean("always", lambda r: r.scores.mse)
    assert found["on-drift"]["gain_share"] == pytest.approx(gain / most)
    assert found["on-drift"]["training_share"] == pytest.approx(5 / 139)
    assert parsed(only(("never", "on-drift")))["policies"][0]["gain_share"] is None


def test_the_tables_show_the_figures() -> None:
    """Errors with their spread, by lead, what updating cost, and each series."""
    text = printed(told())
    errors = row(text, "over all leads", "never")
    assert errors[0] == f"{mean('never', lambda r: r.scores.mse):.4f}"
    assert errors[2] == f"{mean('never', lambda r: r.scores.mae):.4f}"
    spread = np.std([run("never", seed).scores.mse or 0.0 for seed in range(1, SEEDS + 1)], ddof=1)
    assert float(errors[1]) == pytest.approx(spread, rel=1e-3)
    by_lead = [f"{mean('never', lambda r, at=at: r.scores.leads[at].mse):.4g}" for at in range(3)]
    assert row(text, "MSE by lead", "never") == by_lead
    upto = [f"{mean('never', lambda r, at=at: r.scores.leads[at].upto):.4g}" for at in range(3)]
    assert [f"{float(cell):.4g}" for cell in row(text, "MSE, mean over leads 1 to", "never")] == upto
    assert row(text, "skill against persistence by lead", "persistence") == ["+0.000"] * 3
    assert row(text, "updating", "on-drift") == ["5", "5", "0", "3.5", "s", "92", "%", "3.6", "%"]
    assert len(row(text, "MSE by series", "OT")) == len(POLICIES) + len(told().baselines)


def test_what_is_advised_is_marked_and_said() -> None:
    """The same words as on the page, at the end."""
    text = printed(told())
    assert "▸ on-drift" in text
    assert text.rstrip().splitlines()[-2].startswith("Update when drift is found (on-drift)")


def test_one_seed_has_no_spread_and_one_series_no_table() -> None:
    """What there is nothing of is not shown."""
    text = printed(only(POLICIES, seeds=1))
    assert "±" not in text
    single = msgspec.structs.replace(told(), runs=(), baselines={}, series=1)
    assert "MSE by series" not in printed(single)


def test_a_terminal_of_eighty_columns_shows_all_figures() -> None:
    """Nothing is cut off."""
    narrow = printed(told(), width=80)
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    for table in ("over all leads", "MSE by lead", "MSE, mean over leads 1 to"):
        assert row(narrow, table, "never") == row(printed(told()), table, "never")


def test_many_leads_take_several_tables_and_no_figure_is_wrapped() -> None:
    """On eighty columns as on many: every lead has its figure, in one piece."""

    def many(scores: ScoreSet) -> ScoreSet:
        leads = tuple(msgspec.structs.replace(scores.leads[0], lead=lead) for lead in range(1, 25))
        return msgspec.structs.replace(scores, leads=leads)

    runs = tuple(msgspec.structs.replace(one, scores=many(one.scores)) for one in told().runs)
    baselines = {name: many(scores) for name, scores in told().baselines.items()}
    of = msgspec.structs.replace(told(), runs=runs, baselines=baselines, leads=tuple(range(1, 25)), horizon=24)
    for width in (80, 160):
        lines = printed(of, width=width).splitlines()
        for table in ("MSE by lead", "skill against seasonal naive by lead"):
            heads = [at for at, line in enumerate(lines) if line.strip().startswith(table)]
            assert " ".join(lines[at].replace(table, "") for at in heads).split() == [str(n) for n in range(1, 25)]
            for at in heads:
                figures = [line.replace("▸", " ").split()[1:] for line in lines[at + 1 : at + 1 + len(POLICIES)]]
                assert {len(row) for row in figures} == {len(lines[at].replace(table, "").split())}
        one = figure(average(run.scores.leads[0].mse for run in told().runs if run.policy == "never"))
        assert sum(line.replace("▸", " ").split().count(one) for line in lines if " never" in line) >= 24


def test_names_are_printed_as_they_are() -> None:
    """What rich takes for markup, and what moves a terminal's cursor, does neither."""
    runs = tuple(
        msgspec.structs.replace(
            one, scores=msgspec.structs.replace(
                one.scores,
                series=tuple(msgspec.structs.replace(s, series=f"[red]{s.series}\x1b[2J") for s in one.scores.series),
            ),
        )
        for one in told().runs
    )  # fmt: skip
    text = printed(msgspec.structs.replace(told(), runs=runs, baselines={}, file="[b]x.csv"))
    assert "[b]x.csv" in text
    assert "[red]OT" in text
    assert "\x1b" not in text


def test_of_many_series_the_loudest_are_shown() -> None:
    """And how many there are beside them."""
    first = run("never", 1)
    many = tuple(
        msgspec.structs.replace(first.scores.series[0], series=f"s{at}", mse=float(at + 1)) for at in range(50)
    )
    scores = msgspec.structs.replace(first.scores, series=many)
    of = msgspec.structs.replace(
        told(), runs=(msgspec.structs.replace(first, scores=scores),), baselines={}, seeds=1, series=50
    )
    text = printed(of)
    assert "s49 " in text
    assert "s9 " not in text
    assert f"and {50 - MOST_SERIES} more: --json" in text
