"""Blocks: consecutive observations of one partition as columns, and their bytes in the ledger.

    byte 0        format number
    byte 1        widths of the offset, slot and step columns, two bits each (1, 2, 4 or 8 bytes), and flags
    varints       observations N, offsets covered, features F, versions V, first step (zigzag)
    V times       version, its horizon H (varints), checksum of its forecasts (4 bytes)
    columns       offset deltas (none where consecutive), slots, step deltas, mask bits (none where all present),
                  values (N, F) float64, scale (N,) float32, then per version its pairs (N, H) float32

The block's end and its sequence are not among them: they are the ledger's stream id.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.errors import LedgerError

FORMAT = 1
CONSECUTIVE, ALL_PRESENT = 64, 128
MAX_BITS = 56  # of the numbers in a header: more than any offset, step or count
MAX_FEATURES = 1 << 16
WIDTHS = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8"))

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """N accepted observations of one partition, in the order of their offsets `start … end - 1`.

    Offsets of the span that are not in `offset` were refused, dropped as duplicates, or never existed.
    """

    start: int
    end: int
    offset: Ints  # (N,)
    slot: Ints  # (N,)
    step: Ints  # (N,)
    values: Floats  # (N, F), zero where missing
    present: Bools  # (N, F)
    scale: Singles = field(default_factory=lambda: np.empty(0, np.float32))  # (N,) of the target, in force before
    pairs: dict[int, Singles] = field(default_factory=dict)  # version → (N, H), NaN: no forecast for that lead
    checksums: dict[int, int] = field(default_factory=dict)  # version → CRC-32 of its forecasts
    sequence: int = 1  # among the ledger's changes at this end: those of a roster move no offset

    @property
    def place(self) -> tuple[int, int]:
        """Where the block stands in its ledger: later blocks have greater ones."""
        return self.end, self.sequence

    def __len__(self) -> int:
        """The number of observations."""
        return len(self.offset)

    def take(self, index: Ints | Bools) -> Block:
        """The same block with only some of its observations; the checksums no longer apply."""
        return replace(
            self,
            offset=self.offset[index],
            slot=self.slot[index],
            step=self.step[index],
            values=self.values[index],
            present=self.present[index],
            scale=self.scale[index] if len(self.scale) else self.scale,
            pairs={version: pairs[index] for version, pairs in self.pairs.items()},
            checksums={},
        )


def part_of(block: Block, begin: int, end: int) -> Block:
    """The observations `begin…end` of a block, by their number, as a block of its own; they are not none."""
    part = block.take(np.arange(begin, min(end, len(block))))
    return replace(part, start=int(part.offset[0]), end=int(part.offset[-1]) + 1)


def empty_block(at: int, features: int) -> Block:
    """A block of no observation at offset `at`: what a roster commit carries."""
    none = np.empty(0, np.int64)
    return Block(at, at, none, none, none, np.empty((0, features)), np.empty((0, features), np.bool_))


def checksum(forecasts: Singles) -> int:
    """CRC-32 of forecasts `(N, H)`, in the order of their observations."""
    return zlib.crc32(forecasts.astype("<f4").tobytes())


def encode_block(block: Block) -> bytes:
    """The block's bytes."""
    n, features = block.values.shape
    first = int(block.step.min(initial=0)) if n == 0 else int(block.step.min())
    delta = block.offset - block.start
    consecutive = bool(n == block.end - block.start)
    all_present = bool(block.present.all())
    columns = (delta, block.slot, block.step - first)
    codes = [_width(column) for column in columns]
    head = codes[0] | codes[1] << 2 | codes[2] << 4 | CONSECUTIVE * consecutive | ALL_PRESENT * all_present
    zigzag = first << 1 if first >= 0 else (-first << 1) - 1
    parts = [bytes((FORMAT, head))]
    parts += [_varint(x) for x in (n, block.end - block.start, features, len(block.pairs), zigzag)]
    for version, pairs in block.pairs.items():
        checked = struct.pack("<I", block.checksums.get(version, 0))
        parts.append(_varint(version) + _varint(pairs.shape[1]) + checked)
    for skip, code, column in zip((consecutive, False, False), codes, columns, strict=True):
        if not skip:
            parts.append(column.astype(WIDTHS[code]).tobytes())
    if not all_present:
        parts.append(np.packbits(block.present).tobytes())
    parts += [block.values.astype("<f8").tobytes(), _scales(block).astype("<f4").tobytes()]
    parts += [pairs.astype("<f4").tobytes() for pairs in block.pairs.values()]
    return b"".join(parts)


def decode_block(data: bytes, end: int, sequence: int = 1) -> Block:
    """The block that ends before offset `end`, the ledger's `sequence`-th change there.

    Raises:
        LedgerError: another format, or bytes that are not those of a block.
    """
    if not data or data[0] != FORMAT:
        found = data[0] if data else "no bytes"
        raise LedgerError(f"block before offset {end} has format {found}, known is {FORMAT}", "upgrade killick")
    try:
        return _decode(data, end, sequence)
    except (ValueError, IndexError, struct.error) as error:
        raise LedgerError(f"block before offset {end} is damaged ({error})", "restore Redis from a backup") from error


def _decode(data: bytes, end: int, sequence: int) -> Block:
    head, at = data[1], 2
    numbers = []
    for _ in range(5):
        number, at = _read_varint(data, at)
        numbers.append(number)
    n, span, features, count, zigzag = numbers
    start, first = end - span, zigzag >> 1 if not zigzag & 1 else -((zigzag + 1) >> 1)
    horizons, checksums = {}, {}
    for _ in range(count):
        version, at = _read_varint(data, at)
        horizons[version], at = _read_varint(data, at)
        (checksums[version],) = struct.unpack_from("<I", data, at)
        at += 4
    widths = [WIDTHS[head >> shift & 3] for shift in (0, 2, 4)]
    given = [not head & CONSECUTIVE, True, True]
    mask_size = 0 if head & ALL_PRESENT else (n * features + 7) // 8
    size = mask_size + n * (8 * features + 4 + 4 * sum(horizons.values()))
    size += n * sum(width.itemsize for width, there in zip(widths, given, strict=True) if there)
    if at + size != len(data) or features > MAX_FEATURES:  # before anything is allocated
        raise ValueError(f"{len(data)} bytes, its header says {at + size}")
    columns = []
    for width, there in zip(widths, given, strict=True):
        columns.append(np.frombuffer(data, width, n, at).astype(np.int64) if there else np.arange(n))
        at += n * width.itemsize * there
    present = np.ones((n, features), np.bool_)
    if mask_size:
        bits = np.unpackbits(np.frombuffer(data, np.uint8, mask_size, at), count=n * features)
        present, at = bits.reshape(n, features).astype(np.bool_), at + mask_size
    values = np.frombuffer(data, "<f8", n * features, at).reshape(n, features).astype(np.float64)
    at += 8 * n * features
    scale = np.frombuffer(data, "<f4", n, at).astype(np.float32)
    at += 4 * n
    pairs = {}
    for version, horizon in horizons.items():
        pairs[version] = np.frombuffer(data, "<f4", n * horizon, at).reshape(n, horizon).astype(np.float32)
        at += 4 * n * horizon
    return Block(start, end, columns[0] + start, columns[1], columns[2] + first, values, present, scale, pairs,
                 checksums, sequence)  # fmt: skip


def _scales(block: Block) -> Singles:
    """The scales `(N,)`; what was not folded, as history, has none: zero."""
    return block.scale if len(block.scale) else np.zeros(len(block), np.float32)


def _width(column: Ints) -> int:
    top = int(column.max(initial=0))
    return next(code for code, bits in enumerate((8, 16, 32, 64)) if top < 1 << bits)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < MAX_BITS:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
    raise ValueError(f"a number of more than {MAX_BITS} bits")
