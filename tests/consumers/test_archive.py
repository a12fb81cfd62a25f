"""The archive: what was written comes back bit for bit, whatever breaks meanwhile, and pandas can read it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from consumers.archive import Archive
from models.blocks import Block, empty_block, encode_block
from tests.streams import FORM

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = tuple(f"s{i}" for i in range(40))
HORIZONS = {1: 3, 2: 1, 30: 5}
_numbers = st.floats(allow_nan=False)
_singles = st.floats(width=32)


def block_of(rng: np.random.Generator, start: int, rows: int, versions: Sequence[int], sequence: int = 1) -> Block:
    """A block of `rows` observations that begins at an offset, with refused ones among them, NaN of any kind."""
    offset = start + np.sort(rng.choice(rows + 3, rows, replace=False))
    present = rng.random((rows, 2)) < 0.8
    values = np.where(present, rng.choice([0.0, -0.0, 1e-300, np.inf, 7.25], (rows, 2)), 0.0)
    bits = rng.integers(0, 2**32, (rows, 8), np.uint32)
    bits[rng.random((rows, 8)) < 0.3] = 0x7FC00001  # a NaN that is not NumPy's
    floats = bits.view(np.float32)
    return Block(
        start,
        start + rows + 3,
        offset,
        rng.integers(0, min(len(NAMES), 1 + start // 4), rows),
        rng.integers(-5, 2**40, rows),
        values,
        present,
        rng.random(rows).astype(np.float32),
        {version: np.ascontiguousarray(floats[:, : HORIZONS[version]]) for version in versions},
        {version: int(rng.integers(0, 2**32)) for version in versions},
        sequence,
    )


@st.composite
def ledgers(draw: st.DrawFn) -> list[Block]:
    """Blocks that follow each other: of any size, with roster commits between them, and spans that were refused."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    blocks: list[Block] = []
    at, sequence = draw(st.integers(0, 5)), 0
    for kind in draw(st.lists(st.sampled_from(("block", "block", "roster", "refused")), min_size=1, max_size=14)):
        if kind == "block":
            rows = draw(st.integers(1, 6))
            versions = draw(st.lists(st.sampled_from(sorted(HORIZONS)), unique=True))
            blocks.append(block_of(rng, at, rows, versions))
            at, sequence = blocks[-1].end, 1
        elif kind == "roster":
            sequence += draw(st.integers(1, 2))
            blocks.append(replace(empty_block(at, 2), sequence=sequence))
        else:
            at, sequence = at + 4, 1
    return blocks


def bits(blocks: Any) -> list[tuple[Any, ...]]:
    """Everything that a block is."""
    return [(block.start, block.end, block.sequence, encode_block(block)) for block in blocks]


def memory() -> Archive:
    """An archive in the memory."""
    return Archive("a", "m", fs._MockFileSystem())


# — what comes back —


@settings(max_examples=150)
@given(blocks=ledgers(), cuts=st.lists(st.integers(0, 14)), back=st.integers(0, 3))
def test_blocks_come_back_bit_for_bit(blocks: list[Block], cuts: list[int], back: int) -> None:
    """In files of any size, each call beginning with blocks that are there already."""
    archive = memory()
    edges = sorted({0, len(blocks), *(cut % (len(blocks) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        new = archive.write(3, blocks[max(0, begin - back) : end], NAMES, FORM)
        assert new == sum(map(len, blocks[begin:end]))
    if blocks:
        assert archive.place(3) == blocks[-1].place
    assert bits(archive.blocks(3)) == bits(blocks)
    assert archive.names(3) == list(NAMES[: max((int(b.slot.max()) + 1 for b in blocks if len(b)), default=0)])
    for after in {block.end for block in blocks} | {0, 5}:
        assert bits(archive.blocks(3, after)) == bits(b for b in blocks if b.end > after)
        assert bits(archive.blocks(3, until=after)) == bits(b for b in blocks if b.end <= after)
