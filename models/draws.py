"""What an epoch of a retraining walks: short windows of recent data, each once, and of old data, drawn anew.

    old ───────────────────────────────┬─ recent ──────────┐
         [burn-in|chunk]    [burn-in|chunk] [burn-in|chunk]│ end

Each window's state starts from zero and is burned in on the steps before its labels, whose own labels are not used: a
small span can be trained on as it is, and an epoch costs what is drawn, not all history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.sequences import Lanes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.sequences import Batch, Ints, Sequences

BATCH_WINDOWS = 64  # of one step (RECIPE: 56), more only where an epoch would take more than so many steps:
MOST_STEPS = 32
LEAST_STEPS = 6  # an epoch takes, with fewer windows each if need be

Range = tuple[int, int]  # steps of the sequences' clock: begin, and end


class Windows:
    """Windows over a range of recent steps, all of them, and over one of old steps, `old_windows` of them."""

    def __init__(
        self,
        sequences: Sequences,
        chunk: int,
        recent: Range,
        old: Range = (0, 0),
        passes: int = 1,
        *,
        least_steps: int = LEAST_STEPS,
    ) -> None:
        """`passes`: how often an epoch goes over the recent steps, each time with another phase of the chunks."""
        self._sequences = sequences
        self._usable = np.asarray(sequences.known.any(axis=2), np.bool_)  # (S, T)
        self._chunk = chunk
        self._burn_in = max(1, chunk // 2)  # RECIPE: 24 steps for a chunk of 48
        self._recent, self._old, self._passes = recent, old, passes
        self._least_steps = least_steps
        self.old_windows = 0

    def recent_windows(self) -> int:
        """About how many windows an epoch has of recent data."""
        return self._passes * len(self._cells(self._recent, 0))

    def mix(self, recent_share: float) -> None:
        """Let each epoch draw so many old windows that this share of all is recent; none where nothing is old."""
        recent = self.recent_windows()
        self.old_windows = round(recent * (1.0 - recent_share) / recent_share) if self._old[1] > self._old[0] else 0

    def draw(self, rng: np.random.Generator) -> Lanes:
        """The windows of one epoch, in no order."""
        parts = [
            self._lanes(self._cells(self._recent, int(rng.integers(self._chunk))), self._recent)
            for _ in range(self._passes)
        ]
        if self.old_windows:
            cells = self._cells(self._old, int(rng.integers(self._chunk)))
            if len(cells):
                chosen = rng.choice(len(cells), self.old_windows, replace=self.old_windows > len(cells))
                parts.append(self._lanes(cells[chosen], self._old))
        return Lanes(*map(np.concatenate, zip(*parts, strict=True)))

    def tour(self, lanes: Lanes, rng: np.random.Generator, batch_lanes: int) -> Iterator[tuple[Batch, bool]]:
        """An epoch's batches, dealt out at random: the burn-in of each, and then what it trains on.

        No batch holds more than `batch_lanes` windows.
        """
        count = len(lanes.series)
        steps = min(max(self._least_steps, -(-count // BATCH_WINDOWS)), MOST_STEPS)
        steps = min(count, max(steps, -(-count // batch_lanes)))
        for which in np.array_split(rng.permutation(count), steps) if count else ():
            yield lanes.batch(self._sequences, which, 0, self._burn_in), False
            yield lanes.batch(self._sequences, which, self._burn_in, self._burn_in + self._chunk), True

    def _cells(self, span: Range, phase: int) -> Ints:
        """Series and first label's step of each window that holds a label, `(M, 2)`; the first begin `phase` early."""
        begin, end = span
        if end <= begin:
            return np.empty((0, 2), np.int64)
        starts = np.arange(begin - phase, end, self._chunk)
        counts = np.add.reduceat(self._usable[:, begin:end], np.maximum(starts - begin, 0), axis=1, dtype=np.int64)
        series, which = np.nonzero(counts)
        return np.stack([series, starts[which]], axis=1)

    def _lanes(self, cells: Ints, span: Range) -> Lanes:
        series, start = cells.T
        return Lanes(
            series=series,
            start=start - self._burn_in,
            stop=start + self._chunk,  # at the span's end too: there are no labels, and all lanes are alike
            label_begin=np.maximum(start, span[0]),
            label_end=np.full(len(start), span[1]),
        )
