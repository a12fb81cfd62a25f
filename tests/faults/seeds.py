"""Running seeds: from a number to a verdict, with the seed's own numbers where they have to be small."""

from __future__ import annotations

import io
import logging
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest.mock import patch

from consumers import following, holding, ledger, loop, recovery, snapshots
from tests.faults.clock import simulated_time
from tests.faults.oracle import judge
from tests.faults.points import POINTS
from tests.faults.simulation import Simulation
from tests.faults.store import RUN
from tests.faults.text import Text
from tests.faults.world import Control, Failed
from worker import patience

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from tests.faults.boundaries import Tally

TICKS = 260
SERVER_SAYS = "redis.pcall('INFO', 'server')"
REAL_EVERY = 10  # seeds: one in so many runs on TensorFlow
SMALL = (
    (loop, "TRIM_EVERY", 3),
    (holding, "BLOCK_BYTES", 4_000),
    (snapshots, "MAX_CHUNK_SLOTS", 2),
    (recovery, "MERGED_OBSERVATIONS", 40),
    (recovery, "READ_BLOCKS", 3),
    (ledger, "READ_BLOCKS", 5),
    (following, "LEAST_SLICE", 2),
    (following, "LARGEST_SLICE", 32),
)


@dataclass
class Verdict:
    """What became of one seed."""

    seed: int
    tally: Tally
    failure: str = ""
    trace: list[str] | None = None


class Quiet:
    """Stands in for `sys` where somebody says that he waits."""

    stderr = io.StringIO()


@contextmanager
def simulated() -> Iterator[None]:
    """Inside, time is simulated, and the numbers that only set sizes are small."""
    silent = [logging.getLogger(name) for name in ("consumers", "worker")]
    with ExitStack() as stack:
        stack.enter_context(simulated_time())
        code = Text(ledger.CODE.read_text()).replaced(SERVER_SAYS, f"redis.call('GET', '{RUN}')")
        stack.enter_context(patch.object(ledger, "CODE", code))
        for module, name, value in SMALL:
            stack.enter_context(patch.object(module, name, value))
        for logger in silent:
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)
        stack.enter_context(patch.object(patience, "sys", Quiet))
        yield


def run_seed(seed: int, client: redis.Redis, *, control: Control | None = None, trace: bool = False) -> Verdict:
    """One seed from beginning to end; to be called inside `simulated`."""
    target = POINTS[seed % len(POINTS)] if POINTS else None
    simulation = Simulation(seed, client, target, control or Control(), real=seed % REAL_EVERY == 0, trace=trace)
    failure = ""
    try:
        simulation.run(TICKS)
        simulation.settle()
        judge(simulation)
    except Failed as error:
        failure = str(error)
    return Verdict(seed, simulation.tally, failure, simulation.boundaries.trace)
