"""The archive beside a real stream: what Redis lets go is still read, and a version's past is made again from both."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from consumers.archive import Archive
from models.server import calling
from tests.integration.streams import observation, smooth
from worker.backfill import backfilled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.blocks import Block
    from tests.integration.conftest import NewStack
    from tests.integration.harness import Stack

HOUR_MS = 3_600_000
FIRST_STEP = 400_000
STEPS = 400
SERIES = 6


def pairs_of(stack: Stack) -> pd.DataFrame:
    """What `killick pairs` prints."""
    done = stack.run("pairs")
    assert done.returncode == 0
    assert done.stderr == b""
    return pd.read_csv(io.BytesIO(done.stdout)).sort_values(["series", "time"], ignore_index=True)


def rows_of(blocks: Iterable[Block], version: int) -> dict[int, bytes]:
    """Offset → pairs, bit for bit."""
    return {
        offset: row.tobytes()
        for block in blocks
        if version in block.pairs
        for offset, row in zip(block.offset.tolist(), block.pairs[version], strict=True)
    }


@pytest.mark.timeout(180)
def test_what_redis_lets_go_is_read_from_the_archive(
    new_stack: NewStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`killick pairs` prints the same after half of it was archived and trimmed; a backfill gives the same bits."""
    path = tmp_path_factory.mktemp("archive")
    stack = new_stack(
        {
            "kafka": {"max_poll_records": 50},
            "ledger": {"retention": "36500d", "snapshot_every": 100},
            "swap": {"spin_up_steps": 12, "spin_up": "12h"},
            "archive": {"path": str(path)},
        }
    )
    version = stack.register(seed=5)
    rng = np.random.default_rng(5)
    values = [smooth(rng, STEPS) for _ in range(SERIES)]
    features = stack.settings.model.features
    for begin, end in pairwise((0, STEPS // 2, STEPS)):
        stack.send(
            observation(f"s{s}", (FIRST_STEP + t) * HOUR_MS, dict.fromkeys(features, float(values[s][t])))
            for t in range(begin, end)
            for s in range(SERIES)
        )
        consumer = stack.consumer()
        stack.done()
        assert consumer.stop() == 0
    before = pairs_of(stack)
    assert len(before) == SERIES * (STEPS - 1)
    recorded = {number: list(stack.ledger(number).blocks()) for number in range(stack.partitions)}
    archive = Archive(str(path), stack.model)
    for number, blocks in recorded.items():
        ledger = stack.ledger(number)
        middle = blocks[len(blocks) // 2].end
        some = list(ledger.blocks(until=middle))
        for begin, end in pairwise((0, len(some) // 3, len(some))):
            archive.write(number, some[begin:end], ledger.names(), stack.form, roster=ledger.roster())
        calling(stack.redis.hset, ledger._key("needs"), "archive", archive.end(number))
        head = ledger.head()
        assert head is not None
        ledger.token, ledger._last = head.token, head.last
        assert ledger.trim(middle) > 0
        assert next(ledger.blocks()).end > blocks[0].end
    pd.testing.assert_frame_equal(pairs_of(stack), before)
    found: dict[int, list[Block]] = {number: [] for number in recorded}
    for number, block in backfilled(stack.settings, stack.redis, version, (FIRST_STEP - 1) * HOUR_MS):
        found[number].append(block)
    for number, blocks in recorded.items():
        assert rows_of(found[number], version) == rows_of(blocks, version)
        assert {b.end: b.checksums for b in found[number]} == {b.end: b.checksums for b in blocks if len(b)}
    for file in path.rglob("*.parquet"):
        file.unlink()
        break
    done = stack.run("pairs")
    assert done.returncode == 1
    assert b"is not in" in done.stderr
