"""Old blocks leave the ledger, and nothing that is still needed leaves with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.integration.oracle import expected, recovered
from tests.integration.streams import observation, smooth

if TYPE_CHECKING:
    from tests.integration.conftest import NewStack

HOUR_MS = 3_600_000
RETENTION_STEPS = 48
STEPS = 900
SERIES = 4
SLACK_STEPS = 150  # trimming looks once in so many commits, and waits for a snapshot, which is late on a busy machine


def test_blocks_beyond_the_retention_go_and_a_recovery_from_the_rest_is_exact(new_stack: NewStack) -> None:
    """With two days of retention the old blocks go; what is left, with the snapshots, gives the same bits."""
    stack = new_stack(
        {
            "model": {"max_gap": "6h"},
            "kafka": {"max_poll_records": 2},
            "ledger": {"retention": f"{RETENTION_STEPS}h", "snapshot_every": 100},
            "swap": {"spin_up_steps": 12, "spin_up": "12h"},  # a spin-up needs blocks too: fewer than these
        },
        partitions=1,
    )
    stack.register(seed=5)
    rng = np.random.default_rng(5)
    values = [smooth(rng, STEPS) for _ in range(SERIES)]
    features = stack.settings.model.features
    stack.send(
        observation(f"s{s}", (400_000 + t) * HOUR_MS, dict.fromkeys(features, float(values[s][t])))
        for t in range(STEPS)
        for s in range(SERIES)
    )
    consumer = stack.consumer()
    stack.done()
    consumer.kill()
    ledger = stack.ledger(0)
    oldest = ledger.first_blocks(1)[0]
    newest = list(ledger.blocks())[-1]
    kept = ledger.block_count()
    held_steps = int(newest.step.max()) - int(oldest.step.min())
    assert RETENTION_STEPS <= held_steps <= RETENTION_STEPS + SLACK_STEPS
    assert kept < SERIES * STEPS // 4
    wanted, found = expected(stack, 0, stack.records()[0]), recovered(stack, 0)
    assert (found.series, found.carried) == (wanted.series, wanted.carried)
