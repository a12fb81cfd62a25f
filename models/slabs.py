"""Slabs: waves of equal width that follow each other, whose rows are a rectangle of waves and lanes.

Rows lie wave after wave, the longest lane first (`models.scaling.Rows`), so a batch consists of as many slabs as its
lanes have different lengths, and of one where all are equally long. In a slab the past of every row is a window that
slides over the waves, and a running sum moves all lanes at once.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Kind = TypeVar("Kind", bound=np.generic)


class Slab(NamedTuple):
    """A rectangle of rows: `waves` times `width` lanes."""

    waves: int
    width: int
    rows: slice

    def of(self, column: NDArray[Kind]) -> NDArray[Kind]:
        """The slab's part of a contiguous array by row, `(R, …)`, as a view `(W, width, …)`."""
        return column[self.rows].reshape(self.waves, self.width, *column.shape[1:])


def slabs_of(offsets: Ints) -> list[Slab]:
    """The slabs of the waves that begin at the rows `offsets`, `(W + 1,)`, the last of which is the end."""
    widths = np.diff(offsets)
    cuts = [0, *(np.flatnonzero(np.diff(widths)) + 1).tolist(), len(widths)]
    found = []
    for begin, end in pairwise(cuts):
        if begin < end:
            found.append(Slab(end - begin, int(widths[begin]), slice(int(offsets[begin]), int(offsets[end]))))
    return found


def histories(
    slabs: Sequence[Slab], column: NDArray[Kind], before: NDArray[Kind]
) -> Iterator[tuple[Slab, NDArray[Kind]]]:
    """Each slab, and `column` `(R, …)` at its waves with the K waves before them in front: `(K + W, width, …)`.

    `before` is what came before the first wave, oldest first, `(K, L, …)`.
    """
    depth = len(before)
    for slab in slabs:
        history = np.empty((depth + slab.waves, slab.width, *column.shape[1:]), column.dtype)
        history[:depth] = before[:, : slab.width]
        history[depth:] = slab.of(column)
        yield slab, history
        before = history[slab.waves :]


def windows(history: NDArray[Kind], depth: int) -> NDArray[Kind]:
    """The last `depth` waves up to and with each, oldest first, `(N - depth + 1, width, …, depth)`, as a view.

    `history` is a contiguous array, `(N, width, …)`. (NumPy's `sliding_window_view` takes 60 µs to say the same.)
    """
    shape = (len(history) - depth + 1, *history.shape[1:], depth)
    return np.ndarray(shape, history.dtype, history, strides=(*history.strides, history.strides[0]))


def running(slabs: Sequence[Slab], start: Floats, decay: Floats, add: Floats) -> Floats:
    """`state · decay + add` per lane, `(R, …)`, wave after wave; `start` is `(L, …)`."""
    out = np.empty_like(add)
    multiply, plus = np.multiply, np.add
    per_lane = int(np.prod(add.shape[1:]))
    state = start.reshape(len(start), per_lane)
    for slab in slabs:
        state = state[: slab.width]
        decays, adds, outs = (slab.of(a).reshape(slab.waves, slab.width, per_lane) for a in (decay, add, out))
        for kept, more, after in zip(decays, adds, outs, strict=True):
            multiply(state, kept, after)
            plus(after, more, after)
            state = after
    return out
