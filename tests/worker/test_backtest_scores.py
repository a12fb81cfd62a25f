"""Scores of a backtest against plain loops and pandas; baselines against what the service's monitor compares with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from models.blocks import Block, empty_block
from models.errors import DataError
from models.references import Observed, Trails, seasonal_lags
from models.scaling import SeriesForm
from worker import backtest_scores
from worker.backtest_scores import Scores, Truth, baselines, least_squares

if TYPE_CHECKING:
    from worker.backtest_told import ScoreSet

HOUR_MS, FIRST = 3_600_000, 400_003
PERIOD, HORIZON, MAX_GAP = 6, 8, 4
STEPS, TRAINED, BEGIN = 300, 100, 120
NAMES = ("a", "b", "c")
LEADS = (1, 4, 8)
FORM = SeriesForm(
    features=("other", "value"),
    target="value",
    interval_ms=HOUR_MS,
    period_steps=PERIOD,
    half_life_steps=50.0,
    ring_steps=40,
    max_gap_steps=MAX_GAP,
)


def block(seed: int = 0) -> Block:
    """Three series with missing targets, bridged gaps, gaps that are too long, and zeros."""
    rng = np.random.default_rng(seed)
    there = rng.random((len(NAMES), STEPS)) < 0.9
    there[0, 150:161] = False
    there[1, :20] = False
    there[2, 290:] = False
    there[1:, 195:210] = True
    there[1, 200 : 201 + MAX_GAP] = there[2, 200 : 200 + MAX_GAP] = False  # just too long, just not
    there[0, 0] = True
    column, slot = np.nonzero(there.T)
    values = np.round(rng.normal(size=(len(slot), 2)).cumsum(axis=0) * 0.1, 1) * (slot[:, None] + 1)
    values[rng.random(len(slot)) < 0.03] = 0.0
    present = rng.random((len(slot), 2)) < 0.92
    present[(slot > 0) & (column >= 195) & (column < 210)] = True
    present[(slot == 0) & (column > 160) & (column < 165), 1] = False
    offset = np.arange(len(slot))
    return Block(0, len(slot), offset, slot, column + FIRST, np.where(present, values, 0.0), present)


def truth(seed: int = 0) -> Truth:
    """The truth in the block."""
    return Truth.of(block(seed), NAMES, FORM, FIRST + TRAINED)


def issued(of: Block, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A forecast `(N, H)` for each observation, some of them missing."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(len(of), HORIZON)).astype(np.float32)
    found[rng.random(len(of)) < 0.05] = np.nan
    return found


def walked(of: Block) -> dict[tuple[int, int], tuple[float, list[float]]]:
    """By series and step of each observation: persistence, and seasonal naive for leads 1…H; a plain walk."""
    found = {}
    for slot in range(len(NAMES)):
        held: dict[int, float] = {}
        last, value = -1, np.nan
        for row in np.flatnonzero(of.slot == slot).tolist():
            step = int(of.step[row])
            if last < 0 or step - last > MAX_GAP + 1:
                held, value = {}, np.nan
            else:
                held |= dict.fromkeys(range(last + 1, step), value)
            if of.present[row, 1]:
                value = float(of.values[row, 1])
            held[step], last = value, step
            leads = range(1, HORIZON + 1)
            seasonal = [held.get(step + k - PERIOD * -(-k // PERIOD), np.nan) for k in leads]
            found[slot, step] = value, seasonal
    return found


def pairs(of: Block, forecasts: np.ndarray[Any, Any]) -> pd.DataFrame:
    """A row per pair of the online span, by plain loops."""
    labels = {
        (int(of.slot[row]), int(of.step[row])): float(of.values[row, 1]) for row in np.flatnonzero(of.present[:, 1])
    }
    unit = pd.DataFrame(
        [(slot, value) for (slot, step), value in labels.items() if step < FIRST + TRAINED], columns=["slot", "value"]
    )
    units = unit.groupby("slot")["value"].std(ddof=0).to_dict()
    references, rows = walked(of), []
    for row in range(len(of)):
        slot, step = int(of.slot[row]), int(of.step[row])
        if step < FIRST + BEGIN:
            continue
        flat, seasonal = references[slot, step]
        for lead in range(1, HORIZON + 1):
            label, forecast = labels.get((slot, step + lead)), float(forecasts[row, lead - 1])
            if label is None or np.isnan(forecast):
                continue
            error, size = (label - forecast) / units[slot], abs(label)
            rows.append(
                {
                    "slot": slot, "step": step, "lead": lead, "day": (step + lead) * HOUR_MS // 86_400_000,
                    "squared": error**2, "absolute": abs(error),
                    "relative": 100 * abs(label - forecast) / size if size else np.nan,
                    "persistence": ((label - flat) / units[slot]) ** 2,
                    "seasonal": ((label - seasonal[lead - 1]) / units[slot]) ** 2,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def mean(frame: pd.DataFrame, column: str) -> float:
    """The mean of the leads' means."""
    return float(frame.groupby("lead")[column].mean().mean())


def skill(frame: pd.DataFrame, name: str) -> float:
    """Over the pairs that the reference has."""
    both = frame[frame[name].notna()]
    return 1 - mean(both, "squared") / mean(both, name)


def scored(of: Truth, block: Block, forecasts: np.ndarray[Any, Any], pieces: int = 1) -> ScoreSet:
    """The scores of forecasts that come in so many pieces."""
    scores = Scores(of, HORIZON, FIRST + BEGIN)
    for rows in np.array_split(np.arange(len(block)), pieces):
        scores.add(block.slot[rows], block.step[rows], forecasts[rows])
    return scores.result(LEADS)


@pytest.fixture(scope="module", name="found")
def found_scores() -> ScoreSet:
    """What `Scores` say."""
    return scored(truth(), block(), issued(block()))


@pytest.fixture(scope="module", name="frame")
def plain_pairs() -> pd.DataFrame:
    """What plain loops say."""
    return pairs(block(), issued(block()))


def test_means_over_all_leads_equal_those_of_plain_loops(found: ScoreSet, frame: pd.DataFrame) -> None:
    """MSE, MAE, MAPE and skill, where targets are missing, are zero, or follow a gap."""
    assert found.pairs == len(frame)
    assert found.mse == pytest.approx(mean(frame, "squared"))
    assert found.mae == pytest.approx(mean(frame, "absolute"))
    assert found.mape == pytest.approx(mean(frame, "relative"))
    assert found.skill_persistence == pytest.approx(skill(frame, "persistence"))
    assert found.skill_seasonal == pytest.approx(skill(frame, "seasonal"))
    assert frame["relative"].isna().any()
    assert frame["persistence"].isna().any()
    assert frame["seasonal"].isna().sum() > frame["persistence"].isna().sum()


def test_each_lead_equals_that_of_plain_loops(found: ScoreSet, frame: pd.DataFrame) -> None:
    """The leads that are shown, each by itself; and up to it, over the windows that lie within the file."""
    assert [one.lead for one in found.leads] == list(LEADS)
    for one in found.leads:
        only = frame[frame["lead"] == one.lead]
        windows = frame[(frame["lead"] <= one.lead) & (frame["step"] + one.lead < FIRST + STEPS)]
        assert one.pairs == len(only)
        assert one.mse == pytest.approx(only["squared"].mean())
        assert one.mae == pytest.approx(only["absolute"].mean())
        assert one.mape == pytest.approx(only["relative"].mean())
        assert one.skill_persistence == pytest.approx(skill(only, "persistence"))
        assert one.skill_seasonal == pytest.approx(skill(only, "seasonal"))
        assert one.upto == pytest.approx(mean(windows, "squared"))


def test_each_series_equals_that_of_plain_loops(found: ScoreSet, frame: pd.DataFrame) -> None:
    """In the order of the names."""
    assert [one.series for one in found.series] == list(NAMES)
    for slot, one in enumerate(found.series):
        only = frame[frame["slot"] == slot]
        assert one.pairs == len(only)
        assert one.mse == pytest.approx(mean(only, "squared"))
        assert one.mae == pytest.approx(mean(only, "absolute"))
        assert one.mape == pytest.approx(mean(only, "relative"))
        assert one.skill_persistence == pytest.approx(skill(only, "persistence"))
        assert one.skill_seasonal == pytest.approx(skill(only, "seasonal"))
        windows = [only[(only["lead"] <= lead) & (only["step"] + lead < FIRST + STEPS)] for lead in LEADS]
        assert one.upto == pytest.approx([mean(rows, "squared") for rows in windows])


def test_each_day_holds_the_forecasts_for_its_times(found: ScoreSet, frame: pd.DataFrame) -> None:
    """A day's pairs are those whose time lies in it, whenever they were issued; persistence over those it has."""
    by_day = frame.groupby("day")
    assert [one.day for one in found.daily] == sorted(frame["day"].unique())
    for one in found.daily:
        only = by_day.get_group(one.day)
        assert one.pairs == len(only)
        assert one.mse == pytest.approx(only["squared"].mean())
        assert one.persistence == pytest.approx(only["persistence"].mean())


def test_pieces_make_no_difference(found: ScoreSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecasts that come in many pieces, and are scored in others, come to the same."""
    in_pieces = scored(truth(), block(), issued(block()), pieces=37)
    monkeypatch.setattr(backtest_scores, "PIECE_CELLS", 50 * HORIZON)
    in_smaller = scored(truth(), block(), issued(block()), pieces=11)
    for other in (in_pieces, in_smaller):
        assert other.mse == pytest.approx(found.mse, rel=1e-12)
        assert other.skill_seasonal == pytest.approx(found.skill_seasonal, rel=1e-12)
        assert [one.upto for one in other.leads] == pytest.approx([one.upto for one in found.leads], rel=1e-12)
        assert [(one.day, one.pairs) for one in other.daily] == [(one.day, one.pairs) for one in found.daily]


def test_references_are_those_that_the_monitor_compares_with() -> None:
    """Persistence and seasonal naive at each observation equal what the service's trails give."""
    of, here = truth(), block()
    lags = seasonal_lags(HORIZON, PERIOD) - np.arange(1, HORIZON + 1)
    observed = Observed(here.slot, here.step, here.values[:, 1], here.present[:, 1])
    values, known = Trails(MAX_GAP, 2 * PERIOD).look_back(observed, np.append(0, lags))
    expected = np.where(known, values, np.nan).T
    np.testing.assert_array_equal(of.reference("seasonal", here.slot, here.step, HORIZON), expected[:, 1:])
    flat = of.reference("persistence", here.slot, here.step, HORIZON)
    np.testing.assert_array_equal(flat, np.repeat(expected[:, :1], HORIZON, axis=1))


def test_the_baselines_are_scored_at_every_observation_of_the_online_span() -> None:
    """Persistence has no skill against itself, and each baseline's errors are those of its forecasts, added by hand."""
    of, here = truth(), block()
    found = baselines(of, HORIZON, FIRST + BEGIN, LEADS)
    assert tuple(found) == ("persistence", "seasonal", "rls")
    assert found["persistence"].skill_persistence == 0
    assert found["seasonal"].skill_seasonal == 0
    for name in ("persistence", "seasonal"):
        expected = scored(of, here, of.reference(name, here.slot, here.step, HORIZON))
        assert found[name].mse == pytest.approx(expected.mse, rel=1e-12)
        assert found[name].pairs == expected.pairs
    by_row = {(int(s), int(t)): row for row, (s, t) in enumerate(zip(here.slot, here.step, strict=True))}
    learned = np.full((len(here), HORIZON), np.nan)
    for step, slots, forecasts in least_squares(of, HORIZON):
        for slot, values in zip(slots.tolist(), forecasts, strict=True):
            learned[by_row[slot, step]] = values
    assert found["rls"].mse == pytest.approx(scored(of, here, learned).mse, rel=1e-12)
    assert found["rls"].pairs == found["persistence"].pairs


def test_what_comes_later_does_not_move_the_linear_model() -> None:
    """Its forecasts of the online span are the same whatever follows, also of a series that did not vary before."""
    here = block()
    here = replace(
        here, values=np.where((here.slot[:, None] == 1) & (here.step[:, None] < FIRST + TRAINED), 3.0, here.values)
    )
    later = here.step >= FIRST + 200
    other = replace(here, values=np.where(later[:, None], 1e6, here.values))

    def told(of: Block) -> list[tuple[int, list[list[float]]]]:
        found = least_squares(Truth.of(of, NAMES, FORM, FIRST + TRAINED), HORIZON)
        return [(step, forecasts.tolist()) for step, _, forecasts in found if step < FIRST + 200]

    np.testing.assert_equal(told(here), told(other))


def test_units_come_from_the_training_span_and_else_from_all_that_there_is() -> None:
    """A series that did not vary in it is measured by all its values; one that never varies by one."""
    here = block()
    before = here.step[:, None] < FIRST + TRAINED
    values = np.where((here.slot[:, None] == 1) & before, 3.0, np.where(here.slot[:, None] == 2, 5.0, here.values))
    of = Truth.of(replace(here, values=values), NAMES, FORM, FIRST + TRAINED)
    known = here.present[:, 1] & (here.slot == 1)
    assert of.unit[0] == pytest.approx(truth().unit[0])
    assert of.unit[1] == pytest.approx(values[known, 1].std())
    assert of.unit[2] == 1.0


def test_what_can_not_be_scored_says_so() -> None:
    """No observation; a lead that was not forecast. No forecast is no error."""
    with pytest.raises(DataError, match="no observation"):
        Truth.of(empty_block(0, 2), NAMES, FORM, FIRST)
    with pytest.raises(DataError, match=r"lead 9 .* 1 to 8"):
        Scores(truth(), HORIZON, FIRST).result((1, 9))
    nothing = Scores(truth(), HORIZON, FIRST + STEPS + 50).result(LEADS)
    assert (nothing.pairs, nothing.mse, nothing.mape, nothing.skill_persistence, nothing.daily) == (0, *[None] * 3, ())
    assert [one.upto for one in nothing.leads] == [None] * 3
