"""Duels of two versions: what pandas makes of the same cells, the same bits in any cut, and what is a fault."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models import tally
from models.duels import Breaker, Duel, Duels, Tenure, between, count
from models.tally import Scorer
from tests.models.test_tally import HORIZONS, Case, case, with_references
from tests.streams import FORM, cuts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.blocks import Block

FIRST, SECOND = 1, 2
HORIZON = min(HORIZONS[FIRST], HORIZONS[SECOND])
JOINED = 1_006  # a step early in the case


def with_infinite(made: Case, seed: int) -> Case:
    """Some of the forecasts are infinite, in the block and in the table."""
    rng = np.random.default_rng(seed)
    for version in (FIRST, SECOND):
        issued = made.block.pairs[version]
        issued[rng.random(issued.shape) < 0.05] = np.inf
        for k in range(issued.shape[1]):
            made.table[f"v{version}_{k + 1}"] = issued[:, k].astype(np.float64)
    return made


def tenures_of(blocks: Sequence[Block], turns_at: int) -> list[list[Tenure]]:
    """Both run wherever both have pairs; from the offset `turns_at` on the second one answers."""
    pairs = [(FIRST, SECOND) if block.start < turns_at else (SECOND, FIRST) for block in blocks]
    return [
        [Tenure(pair, JOINED, HORIZON)] if {FIRST, SECOND} <= block.pairs.keys() else []
        for pair, block in zip(pairs, blocks, strict=True)
    ]


def counted(blocks: Sequence[Block], turns_at: int, at_once: int = 99) -> Duels:
    """The duels of the blocks, so many of them given at a time."""
    found: Duels = {}
    scorer = Scorer(FORM, max(HORIZONS.values()))
    for begin in range(0, len(blocks), at_once):
        some = blocks[begin : begin + at_once]
        for scored in scorer.score(some):
            count(found, scored, tenures_of(some, turns_at), None)
    return found


def wanted(made: Case, turns_at: int) -> pd.DataFrame:
    """The fields of every duel by (step, answering, other), as pandas finds them in the table."""
    table = with_references(made.table)
    scale = table["scale"].where(table[f"seasonal_{FORM.period_steps}"].notna() & (table["scale"] > 0))
    rows = []
    for k in range(1, HORIZON + 1):
        one, two = (table[f"v{v}_{k}"].where(np.isfinite(table[f"v{v}_{k}"])) for v in (FIRST, SECOND))
        live = (table["step"] - k > JOINED) & table["value"].notna()
        errors = {name: (there - table["value"]) / scale for name, there in (("one", one), ("two", two))}
        persistence = (table[f"persistence_{k}"] - table["value"]) / scale
        both = live & one.notna() & two.notna() & scale.notna()
        found = pd.DataFrame({"step": table["step"], "turned": table.index >= turns_at, "cells": both})
        found["one"], found["two"] = (errors[name].where(both) ** 2 for name in ("one", "two"))
        found["referred"] = both & persistence.notna()
        found["persistence"] = persistence.where(both) ** 2
        found["one_lacks"] = live & one.isna() & two.notna() & made.table["both"]
        found["two_lacks"] = live & two.isna() & one.notna() & made.table["both"]
        rows.append(found)
    summed = pd.concat(rows).groupby(["step", "turned"]).sum().astype(float)
    return summed[(summed[["cells", "one_lacks", "two_lacks"]] > 0).any(axis=1)]


@given(st.integers(0, 2**32), st.lists(st.integers(0, 99), max_size=6), st.integers(0, 300))
@settings(max_examples=20, phases=[Phase.generate])  # a smaller seed is no simpler case
def test_duels_equal_those_of_pandas(seed: int, points: list[int], turns_at: int) -> None:
    """Live cells that both have, at the leads that both have, with missing and infinite forecasts counted apart."""
    made = with_infinite(case(seed, 300), seed)
    blocks = made.cut([*points, turns_at])
    made.table["both"] = np.concatenate([np.full(len(block), SECOND in block.pairs) for block in blocks])
    found = counted(blocks, turns_at, 2)
    table = wanted(made, turns_at)
    keys = [(int(step), *((SECOND, FIRST) if turned else (FIRST, SECOND))) for step, turned in table.index]
    assert sorted(found) == sorted(keys)
    seen = np.array([found[key].turned() if key[1] == SECOND else found[key] for key in keys]).reshape(-1, 7)
    np.testing.assert_allclose(seen, table.to_numpy().reshape(-1, 7), rtol=1e-12)


def test_any_cut_of_the_stream_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks are read at once, and in whatever pieces they are scored."""
    made = with_infinite(case(3, 900, series=9), 3)
    blocks = [replace(made.block.take(np.arange(a, b)), start=a, end=b) for a, b in cuts_of(900, range(0, 900, 7))]
    through = counted(blocks, 450)
    assert len(through) > 80
    for at_once, cells in ((1, 1), (3, 40), (99, 200)):
        monkeypatch.setattr(tally, "CELLS", cells)
        assert counted(blocks, 450, at_once) == through


def test_steps_that_are_over_get_nothing_more() -> None:
    """What comes too late is left out; nothing else is."""
    made = case(4, 300)
    blocks, everything, later = [made.block], counted([made.block], 999), Duels()
    (scored,) = Scorer(FORM, 10).score(blocks)
    over = sorted(everything)[len(everything) // 2][0]
    assert count(later, scored, tenures_of(blocks, 999), over) == set(later)
    assert later == {key: duel for key, duel in everything.items() if key[0] > over}


def test_a_version_without_any_forecast_lacks_all_of_them() -> None:
    """Its cells are counted, though it has no pair that can be scored."""
    made = case(5, 200)
    whole = counted([made.block], 999)
    broken = replace(made.block, pairs={**made.block.pairs, FIRST: np.full_like(made.block.pairs[FIRST], np.nan)})
    found = counted([broken], 999)
    assert sum(duel.cells for duel in whole.values()) > 100
    assert {duel.cells for duel in found.values()} == {0}
    for key, duel in whole.items():
        assert found[key].first_lacks >= duel.cells + duel.first_lacks
        assert (found[key].second_lacks, found[key].first) == (0, 0)


def test_two_versions_are_compared_whichever_answers() -> None:
    """Partitions follow a promotion one after another: their shares of a step are added up, seen from one side."""
    duels = {
        (7, 1, 2): Duel(4, 8.0, 4.0, 4, 6.0, 1, 2),
        (7, 2, 1): Duel(2, 1.0, 3.0, 1, 2.0, 5, 3),
        (6, 2, 1): Duel(2, 1.0, 3.0, 1, 2.0, 5, 3),
        (6, 2, 3): Duel(9),
    }
    found = between(duels, 1, 2)
    assert list(found) == [6, 7]
    assert found[7] == Duel(6, 11.0, 5.0, 5, 8.0, 4, 7)
    assert found[7].difference == pytest.approx(1.0)
    assert found[7].turned() == between(duels, 2, 1)[7]
    assert np.isnan(Duel(first_lacks=3).difference)


def duel(first: float, second: float = 1.0, cells: float = 10, persistence: float = 1.0) -> Duel:
    """A step in which the mean squared errors were these."""
    return Duel(cells, first * cells, second * cells, cells / 2, persistence * cells / 2)


def test_a_disaster_is_so_many_steps_in_a_row() -> None:
    """Over steps that were over and those that are not; one that is no disaster begins the count anew."""
    bad, good, both = duel(4.1), duel(3.9), duel(4.1, 4.1)
    breaker = Breaker()
    for one in (bad, bad, good, bad, bad):
        assert breaker.fault([(9, bad)], 4.0, 4) is None
        breaker.feed(one, 4.0)
    assert breaker.fault([], 4.0, 4) is None
    assert breaker.fault([(9, bad), (10, both), (11, bad)], 4.0, 4) is None  # the other one does as badly
    assert breaker.fault([(9, bad), (10, good), (11, bad)], 4.0, 4) is None
    found = breaker.fault([(9, bad), (10, duel(50.0))], 4.0, 4)
    assert found is not None
    assert found.step == 10
    assert found.words == "for 4 steps its squared error is more than 4 times persistence's, 50 times in the last"


def test_a_step_that_has_hardly_begun_says_nothing_of_errors() -> None:
    """One series whose clock runs ahead is no disaster of all of them."""
    breaker = Breaker()
    for _ in range(3):
        breaker.feed(duel(1.0, cells=100), 4.0)
    ahead = [(at, duel(900.0, cells=2)) for at in range(10, 30)]
    assert breaker.fault(ahead, 4.0, 12) is None
    assert breaker.fault([(at, duel(900.0, cells=60)) for at in range(10, 30)], 4.0, 12) is not None


def test_a_forecast_that_is_missing_is_a_fault_at_once() -> None:
    """Where the other version has one; what the other one lacks is not this one's fault."""
    assert Breaker().fault([(3, Duel(5, second_lacks=2))], 4.0, 12) is None
    found = Breaker().fault([(3, duel(1.0)), (4, Duel(8, first_lacks=2))], 4.0, 12)
    assert found is not None
    assert (found.step, found.words) == (4, "2 of 10 forecasts are missing or no numbers")
    assert Breaker().fault([(3, Duel(5, 9.0, 1.0))], 4.0, 1) is None  # persistence is not known
    assert Breaker().fault([(3, duel(1e-9, 0.0, persistence=0.0))], 4.0, 1) is not None
