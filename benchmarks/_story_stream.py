"""What `benchmarks.story` is made of: the real processes, a stream that is paced by event time, and what happened when.

A day of event time is sent; then the producer waits until it is forecast, counted and judged, and as long as candidates
are trained or spin up. Training takes minutes, and a live stream brings nothing in minutes: so what comes out is what
it would have given. Events are dated by the day of event time at whose end they were seen.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from models.times import DAY_MS, rfc3339
from tests.integration.harness import ROOT, Message, Stack, wait
from tests.integration.monitors import MonitorProcess
from worker import wiring_updating
from worker.child import Child
from worker.drift_told import Told, read_told
from worker.standing import standing_of
from worker.store import ModelStore, PartitionStore, counted_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks._story_sets import DataSet
    from consumers.history import History
    from worker.updating_view import Updating

FIT_S = 1_800.0
DAY_S = 120.0  # longest time that a day may take which nobody is trained in
TRAIN_S = 3_600.0
LOOK_S = 0.05
HELD_S = 0.3  # between two looks while candidates are trained
VERDICTS = 5  # newest, that are looked at every day
RESUME_DAYS = 7  # after a pause, so many days later a person lets promotions go on
RUNNING: dict[str, dict[str, Any]] = {
    "kafka": {"session_timeout": "45s"},
    "http": {"port": 0},
    "retraining": {"port": 0},
}


@dataclass(frozen=True)
class Event:
    """Something that happened, at a time of the stream."""

    time: str
    kind: str  # drift, request, verdict, register, promote, rollback, trial, pause, resume
    version: int | None
    words: str
    seconds: float = 0.0
    trainings: int = 0
    trigger: str = ""


@dataclass
class Played:
    """What is left when a stream is over."""

    events: list[Event] = field(default_factory=list)
    stream_s: float = 0.0  # without the waiting for candidates
    waited_s: float = 0.0
    records: int = 0


def settings_of(chosen: DataSet, directory: Path) -> dict[str, dict[str, Any]]:
    """The committed settings, with what the machine needs."""
    found = chosen.settings(directory)
    for section, values in RUNNING.items():
        found[section] = {**found.get(section, {}), **values}
    return found


def fit(stack: Stack, path: Path, chosen: DataSet) -> float:
    """Fit version 1, as a user would; the seconds."""
    began = time.monotonic()
    words = stack.words("fit", str(path), *chosen.words, "--until", f"{chosen.fit_days}d")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=FIT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"the fit failed:\n{done.stderr.decode()}")
    print(done.stdout.decode().strip(), file=sys.stderr)
    return time.monotonic() - began


class Story:
    """The processes of a model, and the producer that waits for them; a context manager."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.played = Played()
        self._told: set[tuple[str, str]] = set()
        self._now_ms = 0
        self._paused_ms: int | None = None
        stack.consumer()
        self._monitor = MonitorProcess(stack.words("monitor"), stack.directory / "monitor.log")
        stack.processes.append(self._monitor)
        self._retrainer = Child("retrainer", stack.words("retrainer"), stack.directory / "retrainer.log", ROOT)
        self._retrainer.start(lambda: True, 1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._retrainer.stop()

    def play(self, history: History) -> Played:
        """Send it all, a day at a time."""
        began = time.monotonic()
        for day_ms, part in days(history):
            self._now_ms = day_ms
            self.played.records += self.stack.send(Message(key, value) for key, value, _ in part.messages())
            self._settle()
            self._note(self._view())
            self._hold()
        self.played.stream_s = time.monotonic() - began - self.played.waited_s
        return self.played

    def _settle(self) -> None:
        """Wait until all that was sent is forecast, counted, and looked at by detectors, gate and what asks."""
        stack = self.stack
        ledgers = [stack.ledger(number) for number in range(stack.partitions)]
        stores = [PartitionStore(stack.redis, stack.model, ledger.partition) for ledger in ledgers]

        def committed() -> bool:
            self._alive()
            return sum(head.mark if head else 0 for head in stack.heads()) >= self.played.records

        def counted() -> bool:
            self._alive()
            heads = [ledger.head() for ledger in ledgers]
            return all(
                head is None or counted_to(store.standing(), ledger, head) >= head.next
                for ledger, store, head in zip(ledgers, stores, heads, strict=True)
            )

        wait(committed, DAY_S, "the consumer")
        wait(counted, DAY_S, "the monitor", LOOK_S)
        observations = sum(store.standing().observations for store in stores)
        self._monitor.reach(observations, DAY_S)  # it shows them when a whole step is over

    def _hold(self) -> None:
        """Wait as long as time must not pass."""
        began = time.monotonic()
        said = ""
        while reason := self._reason(self._view()):
            if reason != said:
                print(f"{rfc3339(self._now_ms)[:10]}: waits: {reason}", file=sys.stderr)
                said = reason
            self._alive()
            if time.monotonic() - began > TRAIN_S:
                raise RuntimeError(f"{TRAIN_S:g} s: {reason}:\n{self._retrainer.log_tail()}")
            time.sleep(HELD_S)
        if said:
            self._note(self._view())
            self.played.waited_s += time.monotonic() - began

    def _view(self) -> Updating:
        return wiring_updating.updating(self.stack.settings, self.stack.redis, VERDICTS)

    def _reason(self, view: Updating) -> str:
        """Why nothing is to be sent; "" sends on."""
        if view.progress is not None:
            return "candidates are trained"
        if "" in view.waits_for:
            return "a retrainer takes the request up"
        every = (standing_of(self.stack.ledger(number)) for number in range(self.stack.partitions))
        found = [standing for standing in every if standing is not None]
        candidate, trial = view.aliases.candidate, view.gate.trial
        if candidate is not None and any(candidate not in one.shadows for one in found):
            return f"version {candidate} spins up"
        if candidate is not None and (trial is None or trial.version != candidate) and view.gate.watched != candidate:
            return f"the trial of version {candidate} begins"
        if any(not one.answers(view.aliases.incumbent or 0) for one in found):
            return f"version {view.aliases.incumbent} takes over"
        return ""

    def _note(self, view: Updating) -> None:
        """Put down what is new, and let a person resume what was paused a week ago."""
        for key, event in self._happened(view):
            if (event.kind, key) not in self._told:
                self._told.add((event.kind, key))
                self.played.events.append(event)
                print(f"{event.time[:10]}: {event.kind}: {event.words}", file=sys.stderr)
        if not view.aliases.paused:
            self._paused_ms = None
        elif self._paused_ms is None:
            self._paused_ms = self._now_ms
        elif self._now_ms - self._paused_ms >= RESUME_DAYS * DAY_MS:
            self.stack.output("resume", "--actor", "operator", "--reason", f"looked at, {RESUME_DAYS} days later")

    def _happened(self, view: Updating) -> Iterator[tuple[str, Event]]:
        """All that ever happened, as far as it is still told, each with what tells it from others."""
        now = rfc3339(self._now_ms)
        told = read_told(ModelStore(self.stack.redis, self.stack.model).drift()[1], Told)
        for found in told.found:
            words = f"{found.drift.detector}: {found.drift.words}"
            yield f"{found.time_ms} {words}", Event(rfc3339(found.time_ms), "drift", found.version, words)
        for one in view.waiting:
            look = int(one.request.evidence.get("look", 0))
            words = one.request.why + (f" (look {look + 1})" if look else "")
            yield one.request.id, Event(now, "request", None, words, trigger=one.request.trigger)
        for verdict in reversed(view.verdicts):
            at = now if verdict.newest_step is None else rfc3339(verdict.newest_step * verdict.interval_ms)
            words = f"{verdict.outcome}: {verdict.sentence}"
            spent = (verdict.seconds, len(verdict.attempts), verdict.trigger)
            yield verdict.id, Event(at, "verdict", verdict.version, words, *spent)
        for end in view.gate.ended:
            words = f"version {end.version} {end.outcome}: {end.sentence}"
            yield words, Event(now, "trial", end.version, words)
        for entry in self.stack.registry.audit():
            if entry.event in {"promote", "rollback", "pause", "resume"}:
                move = f"{entry.before} → {entry.after}, " if entry.after is not None else ""
                words = f"{move}by {entry.actor}: {entry.reason}"
                yield entry.id, Event(now, entry.event, entry.version, words)

    def _alive(self) -> None:
        self.stack.alive()
        if not self._retrainer.running():
            raise RuntimeError(f"the retrainer ended:\n{self._retrainer.log_tail()}")


def days(history: History) -> Iterator[tuple[int, History]]:
    """The end of each day that has observations, in epoch milliseconds, with them."""
    day = history.time_ms // DAY_MS
    edges = [0, *(np.flatnonzero(np.diff(day)) + 1).tolist(), len(history)]
    for begin, end in pairwise(edges):
        yield (int(day[begin]) + 1) * DAY_MS, history.slice(begin, end)
