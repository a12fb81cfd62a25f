"""`kill -9` at any moment changes no bit of the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.crashes import TROUBLED, run_with_kills
from tests.integration.oracle import check

if TYPE_CHECKING:
    from tests.integration.conftest import NewStack

KILLS = 4


def test_state_pairs_and_counters_after_kills_are_those_of_an_uninterrupted_run(new_stack: NewStack) -> None:
    """After kills at random moments state, pairs, counters, forecasts and letters equal one run without any."""
    stack = new_stack(TROUBLED)
    stack.register(seed=3)
    kills = run_with_kills(stack, kills=KILLS, seed=2, series=600, steps=32)
    assert len(kills) == KILLS
    wanted = check(stack)
    counted = {name for want in wanted for name in want.counters}
    assert {"duplicates", "gaps_bridged", "series_resets", "missing_targets", "refused.late"} <= counted
    assert any(stack.ledger(number).snapshot_index() for number in range(2)), "no snapshot was written"
