"""Error sums of versions and references: what pandas makes of the same observations and forecasts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models import tally
from models.blocks import Block
from models.tally import COLUMNS, LOUDEST, REFERENCES, Scorer, reported_leads
from tests.streams import FORM, cuts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.streams import Floats

HORIZONS = {1: 10, 2: 3, 7: 1}  # of the versions; FORM's period is 8 steps
HOUR_STEPS = 3  # what the tests group by


@dataclass
class Case:
    """N observations as one block, and as a table: slot, step, value (NaN: missing), scale, `v<version>_<lead>`."""

    block: Block
    table: pd.DataFrame

    def cut(self, points: Sequence[int]) -> list[Block]:
        """The same in blocks; of those with an odd number, version 2 is left out of every third."""
        blocks = []
        for i, (begin, end) in enumerate(cuts_of(len(self.block), points)):
            part = replace(self.block.take(np.arange(begin, end)), start=begin, end=end)
            if i % 3 == 2:
                part.pairs.pop(2, None)
                self.table.loc[begin : end - 1, [f"v2_{k}" for k in range(1, HORIZONS[2] + 1)]] = np.nan
            blocks.append(part)
        return blocks


def case(seed: int, size: int, series: int = 4) -> Case:
    """Random walks of very different loudness, with gaps, new starts, missing values, lost forecasts, zero scales."""
    rng = np.random.default_rng(seed)
    slot = rng.integers(0, series, size)
    step = np.empty(size, np.int64)
    now = rng.integers(990, 1_010, series)
    for i, s in enumerate(slot.tolist()):
        now[s] += rng.choice([1, 1, 1, 1, 1, 2, FORM.max_gap_steps + 1, FORM.max_gap_steps + 2])
        step[i] = now[s]
    value = np.where(rng.random(size) < 0.15, np.nan, rng.normal(size=size) * 10.0**slot)
    scale = np.where(rng.random(size) < 0.1, 0.0, 10.0**slot * rng.uniform(0.5, 2, size)).astype(np.float32)
    pairs = {}
    columns: dict[str, Floats] = {}
    for version, horizon in HORIZONS.items():
        issued = (value[:, None] + rng.normal(size=(size, horizon)) * 10.0 ** slot[:, None]).astype(np.float32)
        issued[rng.random((size, horizon)) < 0.2] = np.nan  # as it is where the value is missing
        pairs[version] = issued
        columns |= {f"v{version}_{k + 1}": issued[:, k].astype(np.float64) for k in range(horizon)}
    values = np.stack([np.nan_to_num(value), np.ones(size)], axis=1)
    present = np.stack([~np.isnan(value), np.ones(size, np.bool_)], axis=1)
    block = Block(0, size, np.arange(size), slot, step, values, present, scale, pairs)
    named = {"slot": slot, "step": step, "value": value, "scale": scale.astype(np.float64)}
    return Case(block, pd.DataFrame(named | columns))


def with_references(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `persistence_<lead>` and `seasonal_<lead>`: by series step by step, the last value carried on."""
    parts = []
    for _, seen in table.groupby("slot"):
        run = (seen["step"].diff() > FORM.max_gap_steps + 1).cumsum()
        for _, part in seen.groupby(run):
            at = part.set_index("step")
            every = at["value"].reindex(range(at.index.min(), at.index.max() + 1)).ffill()
            found = part.copy()
            for k in range(1, max(HORIZONS.values()) + 1):
                season = -(-k // FORM.period_steps) * FORM.period_steps
                found[f"persistence_{k}"] = every.shift(k).reindex(at.index).to_numpy()
                found[f"seasonal_{k}"] = every.shift(season).reindex(at.index).to_numpy()
            parts.append(found)
    return pd.concat(parts).sort_index()


def column(table: pd.DataFrame, version: int, name: str) -> pd.DataFrame:
    """What each observation adds to one of the columns, by lead."""
    issued = table[[f"v{version}_{k}" for k in range(1, HORIZONS[version] + 1)]]
    issued.columns = pd.Index(range(1, HORIZONS[version] + 1))
    error = issued.sub(table["value"], axis=0)
    reference, _, what = name.rpartition(".")
    if reference:
        theirs = table[[f"{reference}_{k}" for k in issued.columns]].set_axis(issued.columns, axis=1)
        theirs = theirs.sub(table["value"], axis=0)
        error, theirs = error.where(theirs.notna()), theirs.where(error.notna())
        error = theirs if "reference_" in what else error
    if what.startswith("scaled_"):
        settled = table[f"seasonal_{FORM.period_steps}"].notna()
        error = error.div(table["scale"].where(settled & (table["scale"] > 0)), axis=0)
    kind = what.removeprefix("scaled_").removeprefix("reference_")
    return {"count": error.notna(), "error": error, "absolute": error.abs(), "squared": error**2}[kind].astype(float)


def summed(blocks: Sequence[Block], group_steps: int, horizon: int) -> dict[tuple[int, int], Floats]:
    """Version and group of steps → sums, however the scorer cut the blocks."""
    found: dict[tuple[int, int], Floats] = {}
    for scored in Scorer(FORM, horizon).score(blocks):
        for version, one in scored.items():
            named, group = np.unique(one.step // group_steps, return_inverse=True)
            for at, part in zip(named.tolist(), one.sums(group, len(named)), strict=True):
                found[version, at] = found.get((version, at), 0.0) + part
    return found


def assert_equal(case: Case, found: dict[tuple[int, int], Floats]) -> None:
    """Every column of every group, lead and version is what pandas finds."""
    table = with_references(case.table)
    group = table["step"] // HOUR_STEPS
    for version, horizon in HORIZONS.items():
        issued = table[[f"v{version}_{k}" for k in range(1, horizon + 1)]].notna().any(axis=1)
        groups = sorted(set(group[issued]))
        assert sorted(at for number, at in found if number == version) == groups
        sums = np.stack([found[version, at] for at in groups])
        for name, i in COLUMNS.items():
            if name == "pairs":
                assert sums[:, -1, i].tolist() == issued.groupby(group).sum()[groups].tolist()
                assert not sums[:, :-1, i].any()
                continue
            wanted = column(table, version, name).groupby(group).sum().loc[groups]
            rows = [*(wanted[k] for k in reported_leads(horizon)), wanted.sum(axis=1)]
            np.testing.assert_allclose(sums[:, :, i], np.stack(rows, axis=1), rtol=1e-12, atol=1e-9, err_msg=name)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 99), max_size=6), st.sampled_from((1, 300, tally.CELLS)))
@settings(max_examples=20, phases=[Phase.generate])  # a smaller seed is no simpler case
def test_sums_equal_those_of_pandas(seed: int, points: list[int], cells: int) -> None:
    """Every version with its own horizon, both references, scaled and unscaled, in any blocks and pieces."""
    made = case(seed, 90)
    blocks = made.cut(points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tally, "CELLS", cells)
        assert_equal(made, summed(blocks, HOUR_STEPS, max(HORIZONS.values())))


def test_groups_in_any_order_have_the_same_sums() -> None:
    """Groups need not come in order, nor all have a pair: those without are zero."""
    made = case(1, 200)
    (scored,) = Scorer(FORM, 10).score([made.block])
    one = scored[1]
    group = one.slot * 2
    found = one.sums(group, 9)
    assert found.shape == (9, len(one.leads) + 1, len(COLUMNS))
    assert not found[1::2].any()
    for slot in range(4):
        mine = one.slot == slot
        np.testing.assert_allclose(found[2 * slot, -1, COLUMNS["absolute"]], np.abs(one.errors[:, mine]).sum())
        assert found[2 * slot, -1, COLUMNS["pairs"]] == mine.sum()
    np.testing.assert_allclose(found.sum(axis=0), one.sums(group * 0, 1)[0], rtol=1e-9)


def test_following_is_scoring_without_the_sums() -> None:
    """What was followed is known as if it had been scored."""
    made = case(2, 120)
    first, second = made.cut([60])
    one, other = Scorer(FORM, 10), Scorer(FORM, 10)
    list(one.score([first]))
    other.follow([first])
    (wanted,), (found,) = one.score([second]), other.score([second])
    for version in HORIZONS:
        for name in REFERENCES:
            np.testing.assert_array_equal(found[version].references[name][0], wanted[version].references[name][0])


def test_a_version_with_a_longer_horizon_is_scored_from_where_it_comes() -> None:
    """The scorer looks as far back as the longest version needs, over restarts; at first it knows nothing of that."""
    made = case(3, 400, series=1)
    blocks = made.cut(range(0, 400, 4))
    narrow, wide = Scorer(FORM, 1), Scorer(FORM, 10)
    for block in blocks[:50]:
        for scorer in (narrow, wide):
            list(scorer.score([replace(block, pairs={7: block.pairs[7]})]))
    for at, block in enumerate(blocks[50:]):
        (found,), (wanted,) = narrow.score([block]), wide.score([block])
        kept = narrow.trails.recent(0, len(narrow.trails))
        narrow = Scorer(FORM, 1)  # as after a restart
        narrow.trails.restore(0, kept)
        if 1 not in wanted:
            continue
        np.testing.assert_array_equal(found[1].errors, wanted[1].errors)
        for name in REFERENCES:
            (errors, both), (theirs, where) = found[1].references[name], wanted[1].references[name]
            assert not (both & ~where).any()
            np.testing.assert_array_equal(errors[both], theirs[both])
            if at >= 16 // 4:
                np.testing.assert_array_equal(both, where)


def test_losses_are_the_absolute_scaled_errors_of_an_observation() -> None:
    """Their sum over the leads and their number; none in a series' first period, nor where there was no scale."""
    made = case(4, 200)
    (scored,) = Scorer(FORM, 10).score([made.block])
    settled = with_references(made.table)["seasonal_1"].notna()
    for version, horizon in HORIZONS.items():
        total, number = scored[version].losses
        columns = [f"v{version}_{k}" for k in range(1, horizon + 1)]
        rows = made.table[made.table[columns].notna().any(axis=1)]
        scale = rows["scale"].where(settled & (rows["scale"] > 0))
        errors = rows[columns].sub(rows["value"], axis=0).abs().div(scale, axis=0)
        np.testing.assert_allclose(total, errors.sum(axis=1), rtol=1e-12)
        assert number.tolist() == errors.count(axis=1).tolist()


def test_an_infinite_forecast_leaves_finite_sums() -> None:
    """It counts as the loudest error there is: the figures are bad, and they are numbers."""
    made = case(5, 50)
    made.block.pairs[2][:20] = np.inf
    made.block.pairs[2][20:30] = -np.inf
    made.block.scale[:40] = np.tile(np.array([0.0, 1e-44, 1e38, np.inf], np.float32), 10)
    (scored,) = Scorer(FORM, 10).score([made.block])
    sums = scored[2].sums(np.zeros(len(scored[2].slot), np.int64), 1)
    assert np.isfinite(sums).all()
    assert sums[0, -1, COLUMNS["absolute"]] >= LOUDEST
    assert np.isfinite(scored[2].losses[0]).all()


def test_a_version_without_pairs_is_not_there() -> None:
    """A shadow that has just joined has no forecast for any observation yet."""
    made = case(6, 30)
    made.block.pairs[2][:] = np.nan
    (scored,) = Scorer(FORM, 10).score([made.block])
    assert set(scored) == {1, 7}
    assert list(Scorer(FORM, 10).score([])) == []


@pytest.mark.parametrize(
    ("horizon", "leads"), [(1, (1,)), (5, (1, 2, 3, 5)), (6, (1, 2, 3, 6)), (30, (1, 2, 3, 6, 12, 18, 24, 30))]
)
def test_reported_leads_end_with_the_horizon(horizon: int, leads: tuple[int, ...]) -> None:
    """The usual ones that are shorter, and the longest."""
    assert reported_leads(horizon) == leads
