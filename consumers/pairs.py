"""Pairs as tables: what `killick pairs` prints, one row per observation and version.

Columns: series, time, value, scale (in force when the observation came), version, lead_1 … lead_H; `lead_k` is the
forecast that was issued k steps earlier for this time, null where there was none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from numpy.typing import NDArray

    from consumers.ledger import Ledger
    from models.blocks import Block
    from models.scaling import SeriesForm


def pair_tables(
    ledger: Ledger,
    form: SeriesForm,
    *,
    blocks: Iterable[Block] | None = None,
    series: Collection[str] = (),
    since_ms: int | None = None,
    until_ms: int | None = None,
    versions: Collection[int] = (),
) -> Iterator[pa.Table]:
    """A table per block that holds pairs of the wanted series (all if none is named), times and versions.

    Of the partition's `blocks`, as `recorded_blocks` gives them; without them of those that the ledger has.

    Raises:
        ServiceUnreachable: Redis did not answer.
    """
    names, wanted = _names(ledger, series)
    if not wanted.any():
        return
    for block in ledger.blocks() if blocks is None else blocks:
        if len(block) == 0:
            continue
        if int(block.slot.max()) >= len(names):  # a consumer at work has added series meanwhile
            names, wanted = _names(ledger, series)
        time_ms = block.step * form.interval_ms
        keep = wanted[block.slot]
        keep &= (time_ms >= since_ms) if since_ms is not None else True
        keep &= (time_ms < until_ms) if until_ms is not None else True
        for version, pairs in block.pairs.items():
            rows = np.flatnonzero(keep & ~np.isnan(pairs).all(axis=1))
            if len(rows) and (not versions or version in versions):
                yield _table(block, form, names, version, rows)


def _names(ledger: Ledger, series: Collection[str]) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """The name of each slot, and whether it is among those that are wanted."""
    names = np.array(ledger.names(), dtype=object)
    return names, np.isin(names, list(series)) if series else np.ones(len(names), np.bool_)


def _table(block: Block, form: SeriesForm, names: np.ndarray, version: int, rows: np.ndarray) -> pa.Table:
    pairs = block.pairs[version][rows]
    columns = {
        "series": pa.array(names[block.slot[rows]], pa.string()),
        "time": pa.array(block.step[rows] * form.interval_ms, pa.timestamp("ms", "UTC")),
        "value": pa.array(block.values[rows, form.target_index]),
        "scale": pa.array(block.scale[rows]),
        "version": pa.array(np.full(len(rows), version)),
    }
    for lead in range(pairs.shape[1]):
        columns[f"lead_{lead + 1}"] = pa.array(pairs[:, lead], from_pandas=True)
    return pa.table(columns)
