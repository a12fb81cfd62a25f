"""The simulator over its first seeds, and its negative controls: without a safeguard, a seed fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.controls import CONTROLS
from tests.faults.seeds import run_seed, simulated

if TYPE_CHECKING:
    import redis

pytestmark = pytest.mark.services
SEEDS, CHUNK = 300, 30


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_whatever_happens_the_outcome_is_that_of_one_uninterrupted_run(
    simulator_redis: redis.Redis, first: int
) -> None:
    """Crashes, zombies, rebalances, lost answers, lost tails, swaps: state, pairs, counters, forecasts are equal."""
    failures = {}
    with simulated():
        for seed in range(first, first + CHUNK):
            verdict = run_seed(seed, simulator_redis)
            if verdict.failure:
                failures[seed] = verdict.failure
    again = "\n".join(
        f"seed {seed}: {failure}\n  again: python -m benchmarks.simulator --first {seed} --seeds 1 --trace"
        for seed, failure in failures.items()
    )
    assert not failures, again


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_a_consumer_without_this_safeguard_is_caught(simulator_redis: redis.Redis, name: str) -> None:
    """The first seeds find out a consumer from which one safeguard was taken."""
    with simulated(), CONTROLS[name]() as control:
        for seed in range(SEEDS):
            if run_seed(seed, simulator_redis, control=control).failure:
                return
    pytest.fail(f"{name}: not caught in {SEEDS} seeds")


def test_the_same_seed_gives_the_same_run(simulator_redis: redis.Redis) -> None:
    """Every passage, crash and fault of a seed comes again, whatever ran before it."""
    with simulated():
        tallies = [run_seed(seed, simulator_redis).tally for seed in (11, 12, 11)]
    assert tallies[0] == tallies[2]
    assert tallies[0] != tallies[1]
