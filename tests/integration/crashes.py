"""Runs a stream through consumers that are killed at random moments."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.integration.streams import troubled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.harness import Stack

EARLY = 0.3  # of the kills come at a random time after the start, whatever the consumer does then
LATEST_S = 4.0
TROUBLED: dict[str, dict[str, Any]] = {
    "model": {"features": ["value", "load"], "max_gap": "5h"},
    "kafka": {"max_poll_records": 40, "session_timeout": "1s"},
    "ledger": {"snapshot_every": 1000},
}


@dataclass(frozen=True)
class Kill:
    """One kill: seconds after the start, and how far things were then, over all partitions."""

    after_s: float
    committed: int
    published: int
    sent: int


def run_with_kills(
    stack: Stack,
    *,
    kills: int,
    seed: int,
    series: int,
    steps: int,
    report: Callable[[Kill], None] = lambda _kill: None,
) -> list[Kill]:
    """Send the stream in shares, kill a consumer in the midst of each, and let the last one finish."""
    rng = random.Random(seed)
    messages = list(troubled(seed, series, steps, features=stack.settings.model.features))
    share = len(messages) // (kills + 1)
    done: list[Kill] = []
    sent = 0
    for number in range(kills):
        sent += stack.send(messages[number * share : (number + 1) * share])
        began = time.monotonic()
        process = stack.consumer()
        if rng.random() < EARLY:
            time.sleep(rng.uniform(0, LATEST_S))
        else:
            target = sent - share + int(rng.uniform(0.02, 0.98) * share)
            stack.reach(target)
            time.sleep(rng.uniform(0, 0.02))
        assert process.running
        process.kill()
        heads = stack.heads()
        committed, published = (sum(getattr(head, name) if head else 0 for head in heads) for name in ("next", "mark"))
        done.append(Kill(time.monotonic() - began, committed, published, sent))
        report(done[-1])
    stack.send(messages[kills * share :])
    last = stack.consumer()
    stack.done()
    assert last.stop() == 0
    return done
