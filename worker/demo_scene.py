"""What the demo knows at a moment: filled by its watcher, shown by its views, and its result at the end."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from models.times import DAY_MS
from models.windows import LIFE, figures
from worker.demo_versions import Beside, beside
from worker.skill_report import drifts_json, finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.audit import AuditEntry
    from models.blocks import Floats
    from models.scaling import SeriesForm
    from models.tally import Reference
    from models.windows import Figures
    from worker.skill_report import Report, Scores
    from worker.updating_view import Updating

Stage = Literal["starting", "fitting", "streaming", "closing", "done"]
Mood = Literal["plain", "good", "bad"]
RATE_S = 3.0  # the span that a rate is taken over
WEEK_DAYS = 7


@dataclass(frozen=True)
class Event:
    """Something worth a line; `at` is when, in words: event time where it has one."""

    at: str
    text: str
    mood: Mood = "plain"


@dataclass(frozen=True)
class Latest:
    """The newest forecast of a series, as a reader of the predictions topic has it."""

    issued_at: str
    values: tuple[float | None, ...]


@dataclass
class Scene:
    """Everything that is shown; times in seconds are the monotonic clock's."""

    form: SeriesForm
    horizon: int
    began_s: float
    total: int = 0  # records that will be sent
    first_ms: int = 0  # event time of the stream's first observation, and of its last
    last_ms: int = 1
    stage: Stage = "starting"
    fit_lines: list[str] = field(default_factory=list)
    sent: int = 0
    feed_note: str = ""  # what the producer waits for
    consumer_note: str = ""  # what the consumer does, or waits for
    committed: int = 0  # records that the ledgers have answered for
    published: int = 0  # records up to the published marks
    series: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    report: Report | None = None  # what the monitor keeps
    scores: Scores | None = None  # of the first version
    now_ms: int = 0  # event time of the newest observation that was forecast
    values: dict[str, float] = field(default_factory=dict)  # the newest target by series
    latest: dict[str, Latest] = field(default_factory=dict)
    read: int = 0  # forecasts in the predictions topic, each counted once
    again: int = 0  # messages that came again with the same bytes, as they may after a kill
    differing: int = 0  # messages that came again with other bytes: must stay 0
    letters: int = 0  # records in the dead-letter topic, each counted once
    versions: tuple[int, ...] = ()
    updating: Updating | None = None
    audit: Sequence[AuditEntry] = ()  # oldest first
    answering: tuple[int, ...] = ()  # the version that answers in each partition that has one
    shadows: frozenset[int] = frozenset()  # versions that read along in every partition
    swaps: list[tuple[int, int]] = field(default_factory=list)  # event time, and the version that answers from then on
    roll_back: bool = False  # whether it was time to roll back by hand
    kills: int = 0
    opened: int = 0  # times that a consumer took a partition up
    events: list[Event] = field(default_factory=list)
    _rates: deque[tuple[float, int]] = field(default_factory=deque)

    def say(self, text: str, *, at: str = "", mood: Mood = "plain") -> None:
        """Add an event."""
        self.events.append(Event(at, text, mood))

    @property
    def lag(self) -> int:
        """Records that were sent and are not in a ledger yet."""
        return max(0, self.sent - self.committed)

    @property
    def refused(self) -> dict[str, int]:
        """Refused records by reason."""
        found = {name: n for name, n in self.counters.items() if name.startswith("refused.")}
        return {name.removeprefix("refused."): n for name, n in sorted(found.items()) if n}

    @property
    def share(self) -> float:
        """How much of the stream's event time is done, 0 … 1."""
        return min(1.0, max(0.0, (self.now_ms - self.first_ms) / max(1, self.last_ms - self.first_ms)))

    def watched(self, report: Report) -> None:
        """Take over what the monitor keeps."""
        self.report = report
        if report.book.versions:
            self.scores = report.scores(report.book.versions[0])

    @property
    def behind(self) -> int:
        """Records that the monitor has not counted yet; all, as long as nothing is known of it."""
        return self.report.lag if self.report is not None else self.committed

    def figures(self, window: str = LIFE) -> Figures | None:
        """The figures of a window, in the target's unit; None before the first pair is counted."""
        return self.scores.figures(window, "unscaled") if self.scores is not None else None

    def skill(self, reference: Reference = "persistence", lead: int | None = None, window: str = LIFE) -> float:
        """Skill at a lead that is reported, or (None) over all; NaN where there is none."""
        found = self.figures(window)
        if found is None or (lead is not None and str(lead) not in found.leads):
            return math.nan
        return float(found.skill[reference][found.leads.index(str(lead)) if lead is not None else -1])

    def weeks(self) -> list[float]:
        """The skill against persistence of each week, the oldest first, over all leads, by who answered."""
        if self.report is None or self.scores is None:
            return []
        book = self.report.book
        sums: dict[int, Floats] = {}
        for version, (since, until) in self._tenures(book.versions[0]):
            if version not in book.versions:
                continue
            for day, of_day in book.days(version, self.report.newest_hour):
                if since <= day < until:
                    week = day // WEEK_DAYS
                    sums[week] = sums[week] + of_day if week in sums else of_day
        return [
            float(figures(sums[week], self.scores.leads, "unscaled").skill["persistence"][-1]) for week in sorted(sums)
        ]

    def _tenures(self, first: int) -> Iterator[tuple[int, tuple[float, float]]]:
        """Who answered, and on which days since 1970; `first` before anybody was seen to."""
        swaps = self.swaps or [(0, first)]
        days = [time_ms // DAY_MS for time_ms, _ in swaps[1:]]
        for (_, version), since, until in zip(swaps, [-math.inf, *days], [*days, math.inf], strict=True):
            yield version, (since, until)

    @property
    def promoted(self) -> tuple[int, int, int] | None:
        """Event time of the first change of version, the version that answered before, and the one after."""
        if len(self.swaps) < 2:
            return None
        (_, before), (time_ms, after) = self.swaps[:2]
        return time_ms, before, after

    def beside(self) -> Beside | None:
        """The versions before and after the promotion on the same pairs since then, as long as both run."""
        if self.promoted is None or self.report is None:
            return None
        time_ms, before, after = self.promoted
        return beside(self.report.book, before, after, time_ms // DAY_MS + 1, self.report.newest_hour)

    def count(self, name: str) -> int:
        """One of the ledgers' counters."""
        return self.counters.get(name, 0)

    def rate(self, now_s: float) -> float:
        """Observations a second over the last few seconds."""
        self._rates.append((now_s, self.count("observations")))
        while len(self._rates) > 2 and now_s - self._rates[0][0] > RATE_S:
            self._rates.popleft()
        (begin_s, before), (end_s, after) = self._rates[0], self._rates[-1]
        return max(0, after - before) / (end_s - begin_s) if end_s > begin_s else 0.0

    def result(self, seconds: float) -> dict[str, Any]:
        """What `killick demo --json` prints."""
        return {
            "observations": self.count("observations"),
            "forecasts": self.count("forecasts"),
            "pairs": self.count("pairs"),
            "dead_letters": sum(self.refused.values()),
            "dead_letters_by_reason": self.refused,
            "duplicates": self.count("duplicates"),
            "gaps_bridged": self.count("gaps_bridged"),
            "resets": self.count("series_resets"),
            "skill": {
                "persistence": self._skill("persistence"),
                "seasonal_naive": self._skill("seasonal"),
            },
            "drifts": drifts_json(self.report.told) if self.report is not None else [],
            "versions": list(self.versions),
            **self._updates(),
            "sent": self.sent,
            "series": self.series,
            "predictions_read": self.read,
            "predictions_again": self.again,
            "predictions_differing": self.differing,
            "dead_letters_read": self.letters,
            "kills": self.kills,
            "seconds": round(seconds, 1),
        }

    def _updates(self) -> dict[str, Any]:
        """What updating came to; the skills are null where nothing was promoted."""
        verdicts = list(reversed(self.updating.verdicts)) if self.updating is not None else []
        found = self.beside()
        return {
            "retrainings": len(verdicts),
            "verdicts": [
                {
                    "outcome": one.outcome,
                    "trigger": one.trigger,
                    "chosen": one.chosen,
                    "version": one.version,
                    "trainings": len(one.attempts),
                    "sentence": one.sentence,
                }
                for one in verdicts
            ],
            "promotions": self.changes("promote"),
            "rollbacks": self.changes("rollback"),
            "skill_before": _rounded(found.skill()[0]) if found is not None else None,
            "skill_after": _rounded(found.skill()[1]) if found is not None else None,
        }

    def changes(self, event: str) -> int:
        """How often the audit has an event."""
        return sum(entry.event == event for entry in self.audit)

    def _skill(self, reference: Reference) -> dict[str, Any]:
        """By lead, null where a lead has no figures of its own."""
        by_lead = [_rounded(self.skill(reference, lead)) for lead in range(1, self.horizon + 1)]
        return {"mean": _rounded(self.skill(reference)), "by_lead": by_lead}


def _rounded(value: float) -> float | None:
    shown: float | None = finite(round(value, 4))
    return shown


def shown_leads(horizon: int) -> Sequence[int]:
    """The leads that there is room for: a few, and the last one."""
    return sorted({*(k for k in (1, 2, 3, 6, 12, 18) if k < horizon), horizon})
