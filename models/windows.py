"""Error sums by event-time hour and day and over a version's life; the figures of a window are made from them.

A window of n hours ends with the last complete hour: the one before the newest that is well under way. It costs the sum
of n arrays, however many pairs there were.

    skill  1 - MSE / MSE(reference), over the pairs that both have           (Murphy 1988, Mon. Wea. Rev. 116, 2417)
    MASE   MAE / MAE of persistence one step ahead, over the same window     (after Hyndman & Koehler 2006, Int. J.
                                                                              Forecasting 22, 679, eq. 3)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from models.tally import COLUMNS, PAIRS, REFERENCES, Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from models.blocks import Floats, Ints

DAY_HOURS = 24
WINDOW_HOURS = {"1h": 1, "1d": DAY_HOURS, "7d": 7 * DAY_HOURS, "30d": 30 * DAY_HOURS}
LIFE = "life"
WINDOWS = (*WINDOW_HOURS, LIFE)
KEPT_HOURS = WINDOW_HOURS["30d"] + DAY_HOURS
KEPT_DAYS = 400
UNDER_WAY = 0.1  # of the pairs of the fullest hour before it
FULL = 0.9  # of a window, that has pairs before its skill counts
POOLED = "all"  # the lead that stands for all of them

Scaling = Literal["scaled", "unscaled"]
SCALINGS: tuple[Scaling, ...] = ("scaled", "unscaled")
Kind = Literal["hour", "day", "life"]
KINDS: tuple[Kind, ...] = ("hour", "day", "life")


class Key(NamedTuple):
    """Which sums: of a version, in an hour or a day since 1970, or of its life (at 0)."""

    kind: Kind
    version: int
    at: int = 0


@dataclass
class Book:
    """The sums of any number of versions, each `(leads + 1, COLUMNS)`."""

    leads: dict[int, tuple[int, ...]] = field(default_factory=dict)  # version → those with a row of their own
    sums: dict[Key, Floats] = field(default_factory=dict)

    @property
    def versions(self) -> list[int]:
        """The versions that have pairs."""
        return sorted(self.leads)

    def add(self, version: int, leads: tuple[int, ...], hours: Ints, sums: Floats) -> set[Key]:
        """Count sums `(G, leads + 1, COLUMNS)` of hours `(G,)`, which are in order; which entries changed."""
        self.leads.setdefault(version, leads)
        touched: set[Key] = set()
        if not len(hours):
            return touched
        days = hours // DAY_HOURS
        first = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
        added: list[tuple[Kind, Ints, Floats]] = [
            ("hour", hours, sums),
            ("day", days[first], np.add.reduceat(sums, first, axis=0)),
            ("life", hours[:1] * 0, sums.sum(axis=0, keepdims=True)),
        ]
        for kind, numbers, parts in added:
            for at, part in zip(numbers.tolist(), parts, strict=True):
                key = Key(kind, version, at)
                self.put(key, part)
                touched.add(key)
        return touched

    def put(self, key: Key, part: Floats) -> None:
        """Add to one entry."""
        before = self.sums.get(key)
        self.sums[key] = part.copy() if before is None else before + part

    def merge(self, parts: Sequence[Book], keys: Iterable[Key] | None = None) -> None:
        """Make these entries, or all, the sums of those of the partitions `parts`."""
        for part in parts:
            self.leads |= part.leads
        for key in {key for part in parts for key in part.sums} if keys is None else keys:
            found = [part.sums[key] for part in parts if key in part.sums]
            if found:
                self.sums[key] = np.sum(found, axis=0) if len(found) > 1 else found[0]
            else:
                self.sums.pop(key, None)

    def newest_hour(self) -> int | None:
        """The hour that is not complete yet, since 1970; None: there are no pairs.

        The newest that holds at least a tenth as many pairs as the fullest of the 24 hours with pairs before it: a
        series whose clock runs ahead moves no window for the others, however far.
        """
        pairs: Counter[int] = Counter()
        for key, sums in self.sums.items():
            if key.kind == "hour":
                pairs[key.at] += int(sums[-1, COLUMNS[PAIRS]])
        hours = sorted(pairs)
        counts = [pairs[hour] for hour in hours]
        for at in reversed(range(len(hours))):
            if counts[at] >= UNDER_WAY * max(counts[max(0, at - DAY_HOURS) : at + 1]):
                return hours[at]
        return None

    def outdated(self, newest_hour: int) -> set[Key]:
        """The entries that no window reaches any more."""
        least = {"hour": newest_hour - KEPT_HOURS, "day": newest_hour // DAY_HOURS - KEPT_DAYS, "life": 0}
        return {key for key in self.sums if key.at < least[key.kind]}

    def window(self, version: int, name: str, newest_hour: int) -> Floats:
        """The sums of a window, `(leads + 1, COLUMNS)`, zero where nothing was paired."""
        total = np.zeros((len(self.leads[version]) + 1, len(COLUMNS)))
        if name == LIFE:
            return self.sums.get(Key("life", version), total)
        for hour in range(newest_hour - WINDOW_HOURS[name], newest_hour):
            part = self.sums.get(Key("hour", version, hour))
            if part is not None:
                total += part
        return total

    def days(self, version: int, newest_hour: int) -> Iterator[tuple[int, Floats]]:
        """The complete days that have pairs, oldest first: days since 1970 and their sums."""
        found = [key.at for key in self.sums if key.kind == "day" and key.version == version]
        for day in sorted(found):
            if day < newest_hour // DAY_HOURS:
                yield day, self.sums[Key("day", version, day)]


@dataclass(frozen=True)
class Figures:
    """What the sums of a window say, one number per row of `leads`, NaN where there is no pair."""

    leads: tuple[str, ...]
    pairs: int  # observations with a forecast
    counts: Ints  # (L,) forecasts that met their observation
    mae: Floats
    rmse: Floats
    bias: Floats
    mase: Floats
    skill: Mapping[Reference, Floats]


def figures(sums: Floats, leads: tuple[int, ...], scaling: Scaling) -> Figures:
    """The figures of sums `(leads + 1, COLUMNS)`; the last row pools all leads."""
    scaled = "scaled_" if scaling == "scaled" else ""

    def column(name: str) -> Floats:
        values: Floats = sums[:, COLUMNS[name]]
        return values

    count = column(f"{scaled}count")
    mae = _ratio(column(f"{scaled}absolute"), count)
    naive = _ratio(
        column(f"persistence.{scaled}reference_absolute")[:1], column(f"persistence.{scaled}count")[:1]
    )  # lead 1 is the first row, of every version
    skill: dict[Reference, Floats] = {}
    for name in REFERENCES:
        lost = _ratio(column(f"{name}.{scaled}squared"), column(f"{name}.{scaled}reference_squared"))
        skill[name] = 1.0 - lost
    return Figures(
        leads=(*map(str, leads), POOLED),
        pairs=int(sums[-1, COLUMNS[PAIRS]]),
        counts=count.astype(np.int64),
        mae=mae,
        rmse=np.sqrt(_ratio(column(f"{scaled}squared"), count)),
        bias=_ratio(column(f"{scaled}error"), count),
        mase=_ratio(mae, np.broadcast_to(naive, mae.shape)),
        skill=skill,
    )


def recent_skill(book: Book, version: int, name: str, newest_hour: int) -> float | None:
    """The skill against persistence over a window, of scaled errors, all leads pooled; None: it is not full yet.

    It is once the version has had pairs for nine tenths of it; what it met before, as after a pause, does not count.
    """
    length = WINDOW_HOURS[name]
    since = newest_hour - length
    hours = [key.at for key in book.sums if key.kind == "hour" and key.version == version and key.at >= since]
    if not hours or newest_hour - min(hours) < FULL * length:
        return None
    found = figures(book.window(version, name, newest_hour), book.leads[version], "scaled").skill["persistence"][-1]
    return float(found) if np.isfinite(found) else None


def daily_skill(book: Book, version: int, newest_hour: int, days: int) -> Floats:
    """The skill against persistence of the last complete days, oldest first, `(days,)`; NaN where a day has no pair.

    Of scaled errors, all leads pooled.
    """
    daily = np.full(days, np.nan)
    first = newest_hour // DAY_HOURS - days
    if version in book.leads:
        for day, sums in book.days(version, newest_hour):
            if day >= first:
                daily[day - first] = figures(sums, book.leads[version], "scaled").skill["persistence"][-1]
    return daily


def _ratio(total: Floats, by: Floats) -> Floats:
    """`total / by`, NaN where `by` is not above zero."""
    ratio = np.full(np.shape(total), np.nan)
    np.divide(total, by, out=ratio, where=by > 0)
    return ratio
