"""Two versions beside each other: the pairs of days on which both forecast the same, as the monitor counted them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.tally import COLUMNS, PAIRS
from models.windows import figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.blocks import Floats
    from models.windows import Book

COUNTED = [COLUMNS[name] for name in (PAIRS, "count", "persistence.count")]


@dataclass(frozen=True)
class Beside:
    """Two versions on the same pairs; sums of `(leads + 1, COLUMNS)`."""

    before: int
    after: int
    leads: tuple[int, ...]
    sums: tuple[Floats, Floats]
    days: int

    def skill(self, lead: int | None = None) -> tuple[float, float]:
        """The skill of both against persistence, in the target's unit, at a lead that is reported or over all."""
        if lead is not None and lead not in self.leads:
            return math.nan, math.nan
        row = -1 if lead is None else self.leads.index(lead)
        before, after = (float(figures(sums, self.leads, "unscaled").skill["persistence"][row]) for sums in self.sums)
        return before, after


def beside(book: Book, before: int, after: int, since_day: int, newest_hour: int) -> Beside | None:
    """Both over the complete days since one on which each has as many pairs as the other; None: there is none."""
    if before not in book.versions or after not in book.versions or book.leads[before] != book.leads[after]:
        return None
    ours, theirs = (dict(book.days(version, newest_hour)) for version in (before, after))
    days = [day for day in ours if day >= since_day and day in theirs and _alike(ours[day], theirs[day])]
    if not days:
        return None
    return Beside(before, after, book.leads[before], (_total(ours, days), _total(theirs, days)), len(days))


def _alike(one: Floats, other: Floats) -> bool:
    return bool(np.array_equal(one[:, COUNTED], other[:, COUNTED]))


def _total(sums: Mapping[int, Floats], days: list[int]) -> Floats:
    total: Floats = np.sum([sums[day] for day in days], axis=0)
    return total
