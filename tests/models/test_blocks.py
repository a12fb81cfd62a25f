"""Blocks and their bytes: what goes in comes out, and damaged bytes are refused."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from models.blocks import Block, checksum, decode_block, empty_block, encode_block
from models.errors import LedgerError

SINGLE_NAN = np.float32("nan")
_numbers = st.floats(allow_nan=False, allow_infinity=False)
_singles = st.floats(width=32)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Any block: no observation or many, offsets with holes, far apart slots and steps, several versions."""
    n, features = draw(st.integers(0, 9)), draw(st.integers(1, 3))
    start = draw(st.sampled_from((0, 1, 255, 2**31, 2**52)) | st.integers(0, 2**52))
    ahead = st.integers(1, 300) if draw(st.booleans()) else st.just(1)
    offset = start - 1 + np.cumsum(draw(nps.arrays(np.int64, n, elements=ahead)))
    beyond = draw(st.integers(0, 3)) if n else draw(st.integers(0, 2**40))
    end = int(offset[-1]) + 1 + beyond if n else start + beyond
    slots = st.integers(0, draw(st.sampled_from((3, 255, 256, 70_000, 2**33))))
    step0 = draw(st.sampled_from((0, -1, 5, -400_000, 2**41)))
    steps = st.integers(0, draw(st.sampled_from((0, 200, 70_000, 2**34))))
    present = draw(nps.arrays(np.bool_, (n, features))) if draw(st.booleans()) else np.ones((n, features), np.bool_)
    values = draw(nps.arrays(np.float64, (n, features), elements=_numbers))
    versions = draw(st.dictionaries(st.integers(1, 300), st.integers(1, 4), max_size=3))
    return Block(
        start,
        end,
        offset,
        draw(nps.arrays(np.int64, n, elements=slots)),
        draw(nps.arrays(np.int64, n, elements=steps)) + step0,
        np.where(present, values, 0.0),
        present,
        draw(nps.arrays(np.float32, n, elements=_singles)),
        {version: draw(nps.arrays(np.float32, (n, h), elements=_singles)) for version, h in versions.items()},
        {version: draw(st.integers(0, 2**32 - 1)) for version in versions},
    )


def sample() -> Block:
    """Five observations at seven offsets, two versions of different horizons, something missing."""
    rng = np.random.default_rng(0)
    present = np.ones((5, 2), np.bool_)
    present[3, 1] = False
    return Block(
        100,
        107,
        np.array([100, 101, 103, 104, 106]),
        np.array([0, 1, 0, 300, 2]),
        np.array([400_000, 400_000, 400_001, 399_990, 400_001]),
        np.where(present, rng.normal(size=(5, 2)), 0.0),
        present,
        rng.random(5).astype(np.float32),
        {1: rng.normal(size=(5, 3)).astype(np.float32), 130: rng.normal(size=(5, 2)).astype(np.float32)},
        {1: 7, 130: 2**32 - 1},
    )


def assert_equal(found: Block, wanted: Block) -> None:
    """Fail unless every column has the same type and bytes."""
    assert (found.start, found.end) == (wanted.start, wanted.end)
    assert found.checksums == wanted.checksums
    assert list(found.pairs) == list(wanted.pairs)
    columns = ("offset", "slot", "step", "values", "present", "scale")
    mine = [getattr(found, name) for name in columns] + list(found.pairs.values())
    theirs = [getattr(wanted, name) for name in columns] + list(wanted.pairs.values())
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()
        assert a.flags.writeable


@settings(max_examples=300)
@given(blocks())
@example(sample())
@example(empty_block(7, 2))
def test_bytes_give_back_the_block(block: Block) -> None:
    """Every column bit for bit, NaN and -0 included, from the bytes and the end."""
    assert_equal(decode_block(encode_block(block), block.end), block)


@settings(max_examples=150)
@given(blocks())
@example(sample())
def test_truncated_bytes_are_refused(block: Block) -> None:
    """No prefix of a block's bytes is a block, nor are they with a byte more."""
    data = encode_block(block)
    for size in {*range(min(len(data), 60)), *range(0, len(data), 17), len(data) - 1}:
        with pytest.raises(LedgerError):
            decode_block(data[:size], block.end)
    with pytest.raises(LedgerError):
        decode_block(data + b"\0", block.end)


@settings(max_examples=300)
@given(blocks(), st.data())
def test_damaged_bytes_are_a_block_or_refused(block: Block, data: st.DataObject) -> None:
    """A changed byte anywhere gives other numbers or LedgerError, never another error or a huge allocation."""
    damaged = bytearray(encode_block(block))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, min(len(damaged), 40) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode_block(bytes(damaged), block.end)
    except LedgerError:
        return
    assert found.values.nbytes <= len(damaged)


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 2**52))
@example(b"\xc0" + b"\xff" * 7 + b"\x7f" + b"\0" * 8, 5)
@example(b"\x00\xff\xff\xff\xff\x7f\x00\xff\xff\xff\xff\x7f\x00\x00", 5)
@example(b"\x00" + b"\xff" * 50, 5)
def test_any_bytes_are_a_block_or_refused(data: bytes, end: int) -> None:
    """Bytes that nobody encoded are refused with LedgerError, at once."""
    try:
        decode_block(b"\x01" + data, end)
    except LedgerError as error:
        assert "damaged" in str(error)  # noqa: PT017


@pytest.mark.parametrize("first", [0, 2, 255])
def test_an_unknown_format_is_refused_with_its_number(first: int) -> None:
    """What a newer killick wrote is not guessed at; the message names both numbers and the cure."""
    data = bytes((first,)) + encode_block(sample())[1:]
    with pytest.raises(LedgerError, match=rf"before offset 107 has format {first}, known is 1: upgrade killick"):
        decode_block(data, 107)


def test_no_bytes_are_refused() -> None:
    """An empty field is not a block of nothing."""
    with pytest.raises(LedgerError, match="no bytes"):
        decode_block(b"", 3)


@pytest.mark.parametrize("n", [1, 2, 64])
def test_a_pair_costs_few_bytes(n: int) -> None:
    """One feature, one version, five leads: 32 bytes of numbers an observation, and at most 24 around them."""
    rng = np.random.default_rng(0)
    block = Block(
        10**9,
        10**9 + n,
        np.arange(n) + 10**9,
        rng.integers(0, 200_000, n),
        np.full(n, 400_000),
        rng.normal(size=(n, 1)),
        np.ones((n, 1), np.bool_),
        np.ones(n, np.float32),
        {1: rng.normal(size=(n, 5)).astype(np.float32)},
        {1: 3},
    )
    size = len(encode_block(block))
    assert size <= 24 + n * (8 + 4 + 20 + 5)


def test_taking_some_observations_keeps_the_span_and_drops_the_checksums() -> None:
    """By mask or by index, every column follows; a checksum over all of them no longer says anything."""
    block = sample()
    some = block.take(np.array([True, False, False, True, False]))
    assert (some.start, some.end, len(some)) == (100, 107, 2)
    assert some.checksums == {}
    assert some.offset.tolist() == [100, 104]
    assert some.present.tolist() == [[True, True], [True, False]]
    assert some.pairs[130].tolist() == block.pairs[130][[0, 3]].tolist()
    assert_equal(
        replace(some, checksums=block.checksums), replace(block.take(np.array([0, 3])), checksums=block.checksums)
    )


def test_the_checksum_is_that_of_the_little_endian_bytes() -> None:
    """CRC-32 over the rows in order, the same for any layout in memory; one bit more gives another."""
    forecasts = np.array([[1.0, 2.0], [3.0, SINGLE_NAN]], np.float32)
    expected = zlib.crc32(np.array([1.0, 2.0, 3.0, np.nan], "<f4").tobytes())
    assert checksum(forecasts) == checksum(np.asfortranarray(forecasts)) == expected
    other = forecasts.copy()
    other.view(np.uint32)[0, 0] ^= 1
    assert checksum(other) != expected
