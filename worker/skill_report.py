"""What the monitor keeps of a model's skill, read from Redis as it stands; as one object, and as rows.

No monitor need run for it, and nothing is counted here. `Scores` are what the tables of `worker.skill_view` show: of
a version, or of one series of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from models.errors import VersionError
from models.times import HOUR_MS, day_text, rfc3339
from models.windows import POOLED, SCALINGS, WINDOWS, Book, figures
from worker import wiring
from worker.drift_told import Told, read_told
from worker.store import START, ModelStore, PartitionStore, counted_to
from worker.version_report import role_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from models.blocks import Floats
    from models.registry import Aliases, Registry, Status
    from models.server import Client
    from models.windows import Figures, Scaling
    from worker.settings import Settings
    from worker.store import Request

MEASURES = ("count", "skill_persistence", "skill_seasonal", "mae", "rmse", "bias", "mase")
CSV_HEAD = ("version", "window", "lead", "scaling", "measure", "value")


@dataclass(frozen=True)
class Scores:
    """The sums of one version, or of one series of it, by window; and by day, since 1970."""

    leads: tuple[int, ...]
    windows: Mapping[str, Floats]
    days: Mapping[int, Floats]

    def figures(self, window: str, scaling: Scaling) -> Figures:
        """The figures of a window."""
        return figures(self.windows[window], self.leads, scaling)

    def daily(self, at: int = -1, scaling: Scaling = "scaled") -> dict[int, float]:
        """Day → skill against persistence at one of the rows; NaN where there is none."""
        return {
            day: float(figures(sums, self.leads, scaling).skill["persistence"][at]) for day, sums in self.days.items()
        }

    def as_json(self, windows: Sequence[str]) -> dict[str, Any]:
        """Every figure, and the daily skill against persistence of scaled errors, all leads pooled."""
        return {
            "windows": {name: self._window(name) for name in windows},
            "daily": [{"day": day_text(day), "skill": finite(skill)} for day, skill in self.daily().items()],
        }

    def _window(self, name: str) -> dict[str, Any]:
        found = {scaling: self.figures(name, scaling) for scaling in SCALINGS}
        leads: dict[str, Any] = {
            scaling: {lead: measures(figures, at) for at, lead in enumerate(figures.leads)}
            for scaling, figures in found.items()
        }
        return {"pairs": found["scaled"].pairs, **leads}

    def rows(self, version: int, windows: Sequence[str]) -> Iterator[tuple[int, str, str, str, str, float | None]]:
        """Rows of `CSV_HEAD`."""
        for name in windows:
            yield version, name, POOLED, "", "pairs", self.figures(name, "scaled").pairs
            for scaling in SCALINGS:
                found = self.figures(name, scaling)
                for at, lead in enumerate(found.leads):
                    for measure, value in measures(found, at).items():
                        yield version, name, lead, scaling, measure, value


@dataclass(frozen=True)
class Progress:
    """How far a partition is counted."""

    partition: int
    counted: int  # offset
    next: int  # the ledger's

    @property
    def lag(self) -> int:
        """Records that are not counted yet."""
        return max(0, self.next - self.counted)


@dataclass(frozen=True)
class Report:
    """What Redis holds of a model's skill."""

    model: str
    aliases: Aliases
    statuses: Mapping[int, Status]
    partitions: Sequence[Progress] = ()
    ran: bool = False  # whether a monitor ever counted anything
    led: bool = False  # whether one is at work
    observations: int = 0
    newest_ms: int | None = None  # of what was counted
    book: Book = field(default_factory=Book)
    told: Told = field(default_factory=Told)
    requests: Sequence[Request] = ()

    @cached_property
    def newest_hour(self) -> int:
        """The hour that the windows end at: it is not complete yet."""
        return self.book.newest_hour() or 0

    @property
    def lag(self) -> int:
        """Records that are not counted yet."""
        return sum(one.lag for one in self.partitions)

    def role(self, version: int) -> str:
        """What a version is."""
        return role_of(self.aliases, version) or self.statuses.get(version, "")

    def versions(self) -> list[int]:
        """The versions that have pairs: the one that answers first, then the newest."""
        return sorted(self.book.versions, key=lambda number: (number != self.aliases.incumbent, -number))

    def chosen(self, version: int | None, registered: Registry) -> list[int]:
        """The versions that have pairs, or this one of them.

        Raises:
            VersionError: it has none.
        """
        found = [number for number in self.versions() if version in (None, number)]
        if version is None or found:
            return found
        known = any(info.version == version for info in registered.versions())
        having = ", ".join(map(str, self.book.versions)) or "none"
        raise VersionError(
            f"version {version} of model {self.model!r} {'has no pairs yet' if known else 'does not exist'}",
            f"versions with pairs: {having}",
        )

    def scores(self, version: int) -> Scores:
        """Of all windows."""
        return scores_of(self.book, version, self.newest_hour)

    def trend_words(self, version: int, window: str = "30d") -> str:
        """How the skill of a version moves; empty where that was not judged yet."""
        trends = self.told.trends_of(version)
        return trends[window].words if window in trends else ""

    def as_json(self, versions: Sequence[int], windows: Sequence[str]) -> dict[str, Any]:
        """What `killick skill --json` prints."""
        aliases, told = self.aliases, self.told
        return {
            "model": self.model,
            "incumbent": aliases.incumbent,
            "candidate": aliases.candidate,
            "previous": aliases.previous,
            "newest": None if self.newest_ms is None else rfc3339(self.newest_ms),
            "until": rfc3339(self.newest_hour * HOUR_MS) if self.book.sums else None,
            "monitor": {
                "ran": self.ran,
                "leads": self.led,
                "observations": self.observations,
                "lag_records": self.lag,
                "partitions": [
                    {"partition": p.partition, "counted": p.counted, "next": p.next, "lag_records": p.lag}
                    for p in self.partitions
                ],
            },
            "versions": [
                {
                    "version": version,
                    "role": self.role(version),
                    **self.scores(version).as_json(windows),
                    "trends": self._trends(version),
                }
                for version in versions
            ],
            "drift": {
                "version": told.version,
                "statistics": {
                    name: {"statistic": finite(value), "threshold": None if limit is None else finite(limit)}
                    for name, (value, limit) in told.statistics.items()
                },
                "counts": told.counts,
                "drifts": drifts_json(told),
            },
            "requests": [msgspec.to_builtins(request) for request in self.requests],
        }

    def _trends(self, version: int) -> dict[str, Any]:
        return {
            window: {name: finite(value) for name, value in msgspec.to_builtins(trend).items()}
            for window, trend in self.told.trends_of(version).items()
        }


def read_report(settings: Settings, client: Client) -> Report:
    """What is there now.

    Raises:
        ServiceUnreachable: Redis did not answer.
        LedgerError: it is of another format.
    """
    name = settings.model.name
    registry, shared = wiring.registry(settings, client), ModelStore(client, name)
    books, partitions, observations, newest, ran = [], [], 0, None, False
    for ledger in wiring.ledgers(settings, client):
        head = ledger.head()
        store = PartitionStore(client, name, ledger.partition)
        standing = store.standing()
        ran |= standing.place != START
        if head is not None:
            partitions.append(Progress(ledger.partition, counted_to(standing, ledger, head), head.next))
        if standing.observations:
            observations += standing.observations
            newest = max(newest or 0, standing.newest or 0)
            books.append(store.sums()[0])
    book = Book()
    book.merge(books)
    return Report(
        model=name,
        aliases=registry.aliases(),
        statuses=registry.statuses(),
        partitions=partitions,
        ran=ran,
        led=shared.led(),
        observations=observations,
        newest_ms=None if newest is None else newest * settings.interval_ms,
        book=book,
        told=read_told(shared.drift()[1], Told),
        requests=shared.requests(),
    )


def scores_of(book: Book, version: int, newest_hour: int) -> Scores:
    """What a book has of a version."""
    windows = {name: book.window(version, name, newest_hour) for name in WINDOWS}
    return Scores(book.leads[version], windows, dict(book.days(version, newest_hour)))


def measures(found: Figures, at: int) -> dict[str, float | None]:
    """The `MEASURES` at one row of the figures."""
    values = [
        found.counts[at],
        found.skill["persistence"][at],
        found.skill["seasonal"][at],
        *(getattr(found, name)[at] for name in MEASURES[3:]),
    ]
    return {name: finite(value.item()) for name, value in zip(MEASURES, values, strict=True)}


def drifts_json(told: Told) -> list[dict[str, Any]]:
    """The newest drifts, oldest first."""
    return [
        {
            "detector": found.drift.detector,
            "version": found.version,
            "at": rfc3339(found.time_ms),
            "statistic": finite(found.drift.statistic),
            "threshold": finite(found.drift.threshold),
            "words": found.drift.words,
        }
        for found in told.found
    ]


def finite(value: Any) -> Any:
    """The value; None in place of a number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
