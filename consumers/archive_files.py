"""Blocks as Parquet files that pandas can read, and that give back every block bit for bit.

    a row per observation   partition, offset, series, slot, step, time, value_<feature> (null where missing), scale,
                            pairs_<version>: H forecasts, by lead; null where the block had no such version
    beside the rows         how they were cut into blocks, and what blocks hold that is in no row: see `Contents`

Columns of numbers are stored plain, byte by byte: a dictionary would take all NaN for one.
"""

from __future__ import annotations

import base64
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from consumers.roster import Seat  # noqa: TC001 - msgspec reads it
from models.blocks import Block
from models.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.blocks import Bools, Floats, Ints, Singles
    from models.scaling import SeriesForm

FORMAT = 1
KEY = "killick"
COMPRESSION = "zstd"
CURE = "bring the file back from a copy, or give it up: move it and manifest.json away, then the hole is named"

Place = tuple[int, int]  # a block's end and its sequence there: its id in the ledger
Layout = tuple[tuple[int, int], ...]  # version and horizon, in the order of a block's pairs


class SeriesFormWords(msgspec.Struct, frozen=True):
    """What readers need of a series form, and the digest of the whole."""

    features: tuple[str, ...]
    target: str
    interval_ms: int
    digest: str


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of blocks says of itself."""

    format: int
    model: str
    partition: int
    form: SeriesFormWords
    after: Place  # the blocks follow the one that stands here
    until: Place  # where the last of them stands
    series_before: int  # series that were known before these blocks
    series: tuple[str, ...]  # those that came with them, by slot
    roster: tuple[Seat, ...]  # as it was when this was written
    start: tuple[int, ...]  # by block
    end: tuple[int, ...]
    sequence: tuple[int, ...]
    rows: tuple[int, ...]
    layout: tuple[int, ...]  # by block, into `layouts`
    layouts: tuple[Layout, ...]
    checksums: tuple[tuple[int, ...], ...]  # by block, as its layout


def words_of(form: SeriesForm) -> SeriesFormWords:
    """What files say of a form."""
    return SeriesFormWords(form.features, form.target, form.interval_ms, form.digest())


def encode_file(contents: Contents, blocks: Sequence[Block], names: Sequence[str]) -> bytes:
    """The bytes of a Parquet file of these blocks; `names` by slot.

    Raises:
        ArchiveError: a version has pairs of two horizons.
    """
    columns = _columns(contents, blocks, names)
    table = pa.table(columns)
    split = [name for name in columns if name == "scale" or name.startswith("value_")]
    split += [f"{name}.list.element" for name in columns if name.startswith("pairs_")]
    encodings = dict.fromkeys(split, "BYTE_STREAM_SPLIT")
    encodings |= dict.fromkeys(("partition", "offset", "slot", "step", "time"), "DELTA_BINARY_PACKED")
    stream = pa.BufferOutputStream()
    with parquet.ParquetWriter(
        stream, table.schema, compression=COMPRESSION, use_dictionary=["series"], column_encoding=encodings,
        write_statistics=["offset", "step", "time"],
    ) as writer:  # fmt: skip
        writer.write_table(table, row_group_size=max(1, len(table)))
        packed = zlib.compress(msgspec.json.encode(contents))
        writer.add_key_value_metadata({KEY: base64.b64encode(packed).decode()})
    return bytes(stream.getvalue())


def contents_of(blocks: Sequence[Block]) -> dict[str, object]:
    """What the blocks add to the contents of their file, beside their rows."""
    layouts: dict[Layout, int] = {}
    used = [
        layouts.setdefault(tuple((version, pairs.shape[1]) for version, pairs in block.pairs.items()), len(layouts))
        for block in blocks
    ]
    return {
        "start": tuple(block.start for block in blocks),
        "end": tuple(block.end for block in blocks),
        "sequence": tuple(block.sequence for block in blocks),
        "rows": tuple(len(block) for block in blocks),
        "layout": tuple(used),
        "layouts": tuple(layouts),
        "checksums": tuple(tuple(block.checksums.get(version, 0) for version in block.pairs) for block in blocks),
    }


def decode_contents(data: bytes, name: str) -> Contents:
    """What a file says of itself.

    Raises:
        ArchiveError: another format, or bytes that are not those of such a file.
    """
    try:
        packed = (parquet.read_metadata(pa.BufferReader(data)).metadata or {})[KEY.encode()]
        text = zlib.decompress(base64.b64decode(packed))
        found = int(msgspec.json.decode(text)["format"])
        if found == FORMAT:
            return msgspec.json.decode(text, type=Contents)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, zlib.error) as error:
        raise ArchiveError(f"{name} is not a file of blocks ({error})", CURE) from error
    raise ArchiveError(f"{name} has format {found}, known is {FORMAT}", "upgrade killick")


def decode_file(data: bytes, name: str) -> Iterator[Block]:
    """The blocks of a file, bit for bit as they were.

    Raises:
        ArchiveError: as `decode_contents`.
    """
    contents = decode_contents(data, name)
    try:
        table = parquet.ParquetFile(pa.BufferReader(data)).read()
        columns = _Columns(table, contents)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ArchiveError(f"{name} can't be read ({error})", CURE) from error
    edges = np.cumsum([0, *contents.rows]).tolist()
    for number, (begin, end) in enumerate(pairwise(edges)):
        yield columns.block(contents, number, slice(begin, end))


class _Columns:
    """A file's columns as arrays."""

    def __init__(self, table: pa.Table, contents: Contents) -> None:
        if len(table) != sum(contents.rows):
            raise ValueError(f"{len(table)} rows, its blocks have {sum(contents.rows)}")
        self.offset, self.slot, self.step = (_numbers(table, n) for n in ("offset", "slot", "step"))
        self.scale: Singles = table["scale"].to_numpy()
        features = [table[f"value_{name}"].combine_chunks() for name in contents.form.features]
        self.present: Bools = np.stack([f.is_valid().to_numpy(zero_copy_only=False) for f in features], axis=1)
        values = [f.fill_null(0.0).to_numpy(zero_copy_only=False) for f in features]
        self.values: Floats = np.stack(values, axis=1)
        self.pairs = {}
        for version, horizon in {pair for layout in contents.layouts for pair in layout}:
            chunks = table[_pairs_name(version)].chunks
            flat = [np.asarray(c.values)[c.offset * horizon : (c.offset + len(c)) * horizon] for c in chunks]
            self.pairs[version] = np.concatenate([np.empty(0, np.float32), *flat]).reshape(-1, horizon)

    def block(self, contents: Contents, number: int, rows: slice) -> Block:
        """One block; its arrays are its own."""
        layout = contents.layouts[contents.layout[number]]
        return Block(
            contents.start[number],
            contents.end[number],
            self.offset[rows].copy(),
            self.slot[rows].copy(),
            self.step[rows].copy(),
            self.values[rows].copy(),
            self.present[rows].copy(),
            self.scale[rows].copy(),
            {version: self.pairs[version][rows].copy() for version, _ in layout},
            {version: crc for (version, _), crc in zip(layout, contents.checksums[number], strict=True)},
            contents.sequence[number],
        )


def _columns(contents: Contents, blocks: Sequence[Block], names: Sequence[str]) -> dict[str, pa.Array]:
    def whole(name: str, dtype: type) -> np.ndarray:
        return np.concatenate([np.empty(0, dtype), *(getattr(block, name) for block in blocks)])

    slot, step = whole("slot", np.int64), whole("step", np.int64)
    features = contents.form.features
    none = np.empty((0, len(features)))
    values = np.concatenate([none, *(block.values for block in blocks)])
    present = np.concatenate([none.astype(np.bool_), *(block.present for block in blocks)])
    scale = [block.scale if len(block.scale) else np.zeros(len(block), np.float32) for block in blocks]
    used, at = np.unique(slot, return_inverse=True)
    series = pa.array([names[i] for i in used.tolist()], pa.string())
    columns = {
        "partition": pa.array(np.full(len(slot), contents.partition, np.int32)),
        "offset": pa.array(whole("offset", np.int64)),
        "series": pa.DictionaryArray.from_arrays(pa.array(at.astype(np.int32)), series),
        "slot": pa.array(slot),
        "step": pa.array(step),
        "time": pa.array(step * contents.form.interval_ms, pa.timestamp("ms", "UTC")),
    }
    for i, feature in enumerate(features):
        columns[f"value_{feature}"] = pa.array(np.ascontiguousarray(values[:, i]), mask=~present[:, i])
    columns["scale"] = pa.array(np.concatenate([np.empty(0, np.float32), *scale]))
    return columns | _pairs(contents, blocks)


def _pairs(contents: Contents, blocks: Sequence[Block]) -> dict[str, pa.Array]:
    horizons: dict[int, int] = {}
    for version, horizon in (pair for layout in contents.layouts for pair in layout):
        if horizons.setdefault(version, horizon) != horizon:
            raise ArchiveError(
                f"partition {contents.partition}: version {version} has pairs of {horizons[version]} and of {horizon}"
                " leads",
                "this is a defect of killick",
            )
    columns = {}
    rows = sum(map(len, blocks))
    for version, horizon in sorted(horizons.items()):
        pairs = np.zeros((rows, horizon), np.float32)
        missing = np.ones(rows, np.bool_)
        begin = 0
        for block in blocks:
            if version in block.pairs:
                pairs[begin : begin + len(block)] = block.pairs[version]
                missing[begin : begin + len(block)] = False
            begin += len(block)
        columns[_pairs_name(version)] = pa.FixedSizeListArray.from_arrays(
            pa.array(pairs.ravel()), horizon, mask=pa.array(missing)
        )
    return columns


def _pairs_name(version: int) -> str:
    return f"pairs_{version}"


def _numbers(table: pa.Table, name: str) -> Ints:
    found: Ints = table[name].to_numpy()
    if found.dtype != np.int64:
        raise ValueError(f"{name} is of type {found.dtype}")
    return found
