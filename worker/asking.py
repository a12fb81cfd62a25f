"""Asks for retraining without any drift: at least so often, after so many new pairs, and while skill is low.

Time and pairs count from the last request that was made here, whatever its trigger, and from the incumbent's last
training. Skill is compared with the best week of the last year, whichever version answered then: as long as the error,
as a share of persistence's, is too far above the least, it is asked for again after each cool-down. That is no test:
weeks differ by chance, and no share of false alarms is held to here, as that of a drift is.
What was asked last and the request move in one call: a restart asks for nothing twice.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from models.times import DAY_MS, HOUR_MS, rfc3339, to_ms
from worker.store import Request
from worker.stored import read_stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.drift_limits import Goal
    from worker.desks import StateDesk

FORMAT = 1
SKILL = "skill"  # the trigger of what is asked for while skill is low
LEAST_ERROR = 1e-6  # of persistence's: below it no error is told from none
KEPT_VERSIONS = 20
MONTH_MS = 30 * DAY_MS
REMEMBERED_MONTHS = 12


class Asked(msgspec.Struct):
    """What is stored of what was asked for."""

    asked_ms: int | None = None  # event time of the last request of any trigger
    drifts: int = 0  # how many had been found then
    version: int | None = None  # that answered when somebody looked last
    trained_ms: int | None = None  # event time up to which it knew data, or from which it was looked at
    pairs: dict[int, int] = msgspec.field(default_factory=dict)  # by version, at the last request while it answered
    bests: dict[int, tuple[float, int]] = msgspec.field(default_factory=dict)  # by month: best skill, event time of it
    format: int = FORMAT


@dataclass(frozen=True)
class Seen:
    """What the monitor sees of the version that answers."""

    version: int
    clock_ms: int  # event time, of the hour that is under way
    pairs: int  # that the version has met, ever
    trained_ms: int | None  # event time up to which its training had data; None: not known
    drifts: int  # found so far
    drifted_ms: int | None  # event time of the newest of them
    goal: Goal  # what an update would be for, by the trend of its skill
    skill: float | None = None  # against persistence over the last week; None: it has not answered so long yet


class Asking:
    """Asks because of time that has passed, pairs that have come, or skill that is low."""

    def __init__(
        self, store: StateDesk, every_ms: int, pairs: int, skill_drop: float = 0.0, cooldown_ms: int = 0
    ) -> None:
        """`every_ms`, `pairs` and `skill_drop`: 0 asks for none; `cooldown_ms` lies between two because of skill."""
        self._store = store
        self._every_ms = every_ms
        self._pairs = pairs
        self._skill_drop = skill_drop
        self._cooldown_ms = cooldown_ms
        self._revision = 0
        self._stored = b""
        self._asked = Asked()

    def open(self) -> None:
        """Take up what whoever led before left.

        Raises:
            ServiceUnreachable: Redis did not answer.
            LedgerError: another format, or bytes that can't be read.
        """
        self._revision, self._stored = self._store.state("asking")
        self._asked = read_stored(self._stored, Asked, "what was asked for")

    def look(self, seen: Seen, now_ms: int) -> None:
        """Ask, if it is time.

        Raises:
            FencedError, OffsetConflict: another monitor leads, or Redis lost its tail: open anew.
            ServiceUnreachable: Redis did not answer: open anew.
        """
        asked = self._asked
        if asked.version != seen.version:
            known = seen.clock_ms if seen.trained_ms is None else min(seen.trained_ms, seen.clock_ms)
            asked.version, asked.trained_ms = seen.version, known
        self._keep_best(seen)
        if seen.drifts > asked.drifts and seen.drifted_ms is not None:
            self._note(seen, max(seen.drifted_ms, asked.asked_ms or seen.drifted_ms))
        asked.drifts = seen.drifts
        request = self._due(seen, now_ms)
        if request is not None:
            self._note(seen, seen.clock_ms)
        state = msgspec.msgpack.encode(asked)
        if state != self._stored:
            self._store.change("asking", self._revision, state, [] if request is None else [request])
            self._revision, self._stored = self._revision + 1, state

    def _keep_best(self, seen: Seen) -> None:
        """The best skill of each of the last months; what is older is let go."""
        if not self._skill_drop or seen.skill is None:
            return
        bests, month = self._asked.bests, seen.clock_ms // MONTH_MS
        if month not in bests or seen.skill > bests[month][0]:
            bests[month] = (seen.skill, seen.clock_ms)
        for old in [at for at in bests if at <= month - REMEMBERED_MONTHS]:
            del bests[old]

    def _note(self, seen: Seen, at_ms: int) -> None:
        """A request was made."""
        pairs = self._asked.pairs
        pairs.pop(seen.version, None)
        pairs[seen.version] = seen.pairs
        for version in list(pairs)[:-KEPT_VERSIONS]:
            del pairs[version]
        self._asked.asked_ms = at_ms

    def _due(self, seen: Seen, now_ms: int) -> Request | None:
        since_ms = max(self._asked.asked_ms or 0, self._asked.trained_ms or 0)
        new = seen.pairs - self._asked.pairs.get(seen.version, 0)
        evidence: dict[str, Any] = {"version": seen.version, "since": rfc3339(since_ms), "pairs": new}
        passed_ms = seen.clock_ms - since_ms // HOUR_MS * HOUR_MS  # the clock stands at the hour, so both do
        goal, fell = seen.goal, self._fell(seen)
        if fell and passed_ms >= max(1, self._cooldown_ms):
            trigger, why, goal = SKILL, fell, "restore"
            evidence |= {"skill": seen.skill, "best": max(self._asked.bests.values())[0]}
        elif self._every_ms and passed_ms >= self._every_ms:
            days = f"{passed_ms / DAY_MS:.3g} days, limit {self._every_ms / DAY_MS:.3g}"
            trigger, why = "schedule", f"nothing was asked for, and nothing learned, for {days} (retraining.every)"
        elif self._pairs and new >= self._pairs:
            trigger, why = "pairs", f"{new:,} new pairs, limit {self._pairs:,} (retraining.pairs)"
        else:
            return None
        return Request(id=uuid.uuid4().hex, trigger=trigger, goal=goal, why=why, evidence=evidence, created_ms=now_ms)

    def _fell(self, seen: Seen) -> str:
        """How far skill is below its best, in words; "" where it is not too far."""
        skill = seen.skill
        if not self._skill_drop or skill is None:
            return ""
        best, best_ms = max(self._asked.bests.values())
        least, error = max(LEAST_ERROR, 1.0 - best), 1.0 - skill  # as shares of persistence's MSE
        rise = error / least - 1.0
        if rise <= self._skill_drop:
            return ""
        return (
            f"the week's skill is {skill:.3f}, and was {best:.3f} on {rfc3339(best_ms)[:10]}: "
            f"{rise:.0%} more error beside persistence's, limit {self._skill_drop:.0%} (retraining.skill_drop)"
        )


def trained_until_ms(training: Mapping[str, Any]) -> int | None:
    """The event time up to which a version's training had data, by its record; None: it does not say."""
    try:
        return to_ms(datetime.fromisoformat(training["data"]["until"]))
    except (KeyError, TypeError, ValueError):
        return None
