"""What Redis keeps of a model beside its versions, kept in this process: for a backtest, which has no server.

    Memory ─┬─ MemoryModelStore   who leads; states of detectors, gate, guard and whoever asks     as worker/store.py
            ├─ MemoryRequests     who asks, who is at work on it                                   as worker/requests.py
            └─ MemoryVerdicts     what came of it, what was spent                                  as worker/verdicts.py

They follow `store.lua` and `updating.lua` reply by reply, and what they refuse is worded by the same functions; one
suite of tests holds both to it. One process, one thread: nothing here is locked, and no answer is lost.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from worker import requests, store, verdicts
from worker.readiness import MOOT
from worker.requests import Progress, Waiting
from worker.store import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.verdict import Verdict
    from worker.store import Record

SAME_SPENT = 1e-12  # as updating.lua


class _Revised(NamedTuple):
    """A state, and by whom it was put down."""

    revision: int = 0
    state: bytes = b""
    by: str = ""


class _Taken(NamedTuple):
    """Who is at work on a request, when it said so last, and how often it was taken up."""

    worker: str
    lived_s: float
    times: int


class _Written(NamedTuple):
    created_ms: int
    verdict: str
    data: bytes


class Memory:
    """What the stores of one model share; `clock_s` tells how long a worker was silent, and how old a lease is."""

    def __init__(self, model: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.model = model
        self.clock_s = clock_s
        self.lease: tuple[str, float] | None = None  # whose, until when
        self.states: dict[str, _Revised] = {}
        self.losses: list[float] = []
        self.asked: dict[str, Request] = {}  # by entry, oldest first
        self.taken: dict[str, _Taken] = {}  # by entry, those that were taken back too
        self.progress: tuple[Progress, float] | None = None  # and until when it holds
        self.draft: bytes | None = None
        self.written: dict[str, _Written] = {}
        self.of_version: dict[int, str] = {}
        self.spent = 0.0
        self._entries = 0

    def add(self, request: Request) -> None:
        """Let a request wait, as it would come back from a server."""
        self._entries += 1
        self.asked[f"{self._entries}-0"] = msgspec.json.decode(msgspec.json.encode(request), type=Request)

    def let_go(self, entry: str) -> None:
        """Let a request go, also if somebody is at work on it."""
        self.asked.pop(entry, None)
        self.taken.pop(entry, None)

    def other(self, worker: str, entries: Sequence[str]) -> list[bytes]:
        """Who has taken up one of the entries in the worker's place."""
        for entry in entries:
            taken = self.taken.get(entry)
            if taken is not None and taken.worker != worker:
                return [b"fenced", taken.worker.encode()]
        return [b"ok"]

    def unwanted(self, worker: str, entries: Sequence[str]) -> list[bytes]:
        """Why no verdict may be written on entries: another worker has them, or all were taken back."""
        reply = self.other(worker, entries)
        if reply != [b"ok"] or not entries or any(entry in self.asked for entry in entries):
            return reply
        return [b"taken back"]


class MemoryModelStore:
    """Who leads, and the states of detectors, gate, guard and whoever asks."""

    def __init__(self, memory: Memory, token: str = "") -> None:
        self._memory = memory
        self._token = token

    def lease(self, milliseconds: int) -> bool:
        """Whether this one leads, for so long."""
        if self._leader() not in (None, self._token):
            return False
        self._memory.lease = (self._token, self._memory.clock_s() + 1e-3 * milliseconds)
        return True

    def release(self) -> None:
        """Lead no longer."""
        if self._leader() == self._token:
            self._memory.lease = None

    def led(self) -> bool:
        """Whether anybody leads."""
        return self._leader() is not None

    def drift(self) -> tuple[int, bytes]:
        """Revision and state of the detectors; empty where there is none yet."""
        return self._state("drift")

    def drift_losses(self) -> list[float]:
        """The losses that the detectors were fed and still need, oldest first."""
        return list(self._memory.losses)

    def change_drift(
        self,
        revision: int,
        state: bytes,
        losses: Sequence[float],
        forget: int,
        requests: Sequence[Request],
        answers: int | None = None,
    ) -> None:
        """Put down the detectors' state after `losses` more, and ask; as `ModelStore.change_drift`.

        Raises:
            FencedError: another one leads.
            OffsetConflict: another revision was put down.
        """
        memory = self._memory
        if not self._may_change("drift", revision, "the detectors' state"):
            return
        memory.losses.extend(losses)
        del memory.losses[:forget]
        if answers is not None:
            for entry, request in list(memory.asked.items()):
                if request.trigger in MOOT and request.evidence.get("version") != answers:
                    memory.let_go(entry)
        self._revise("drift", revision, state, requests)

    def state(self, name: Record) -> tuple[int, bytes]:
        """Revision and state of gate and guard, or of what was asked for; empty where there is none yet."""
        return self._state(name)

    def change(self, name: Record, revision: int, state: bytes, requests: Sequence[Request] = ()) -> None:
        """Put down such a state, and ask.

        Raises:
            FencedError, OffsetConflict: as `change_drift`.
        """
        if self._may_change(name, revision, f"the state {name!r}"):
            self._revise(name, revision, state, requests)

    def waiting(self) -> tuple[int, int | None]:
        """How many requests wait, and when the oldest was made, in milliseconds since 1970."""
        asked = self.requests()
        return len(asked), asked[0].created_ms if asked else None

    def requests(self) -> list[Request]:
        """What waits to be worked off, oldest first."""
        return list(self._memory.asked.values())

    def _leader(self) -> str | None:
        lease = self._memory.lease
        return None if lease is None or lease[1] <= self._memory.clock_s() else lease[0]

    def _state(self, name: str) -> tuple[int, bytes]:
        found = self._memory.states.get(name, _Revised())
        return found.revision, found.state

    def _may_change(self, name: str, expected: int, what: str) -> bool:
        """Whether the change is still to be made: no, where this very one was made before."""
        if self._leader() not in (None, self._token):
            store.judge([b"fenced"], what)
        found = self._memory.states.get(name, _Revised())
        if found.revision == expected + 1 and found.by == self._token:
            return False
        if found.revision != expected:
            store.judge([b"moved"], what)
        return True

    def _revise(self, name: str, expected: int, state: bytes, requests: Sequence[Request]) -> None:
        for request in requests:
            self._memory.add(request)
        self._memory.states[name] = _Revised(expected + 1, state, self._token)


class MemoryRequests:
    """The requests of one model."""

    def __init__(self, memory: Memory, worker: str = "") -> None:
        """`worker` names who takes requests up; none is needed to ask and to look."""
        self._memory = memory
        self._worker = worker

    def ask(self, request: Request) -> None:
        """Ask for a retraining; the same request again changes nothing."""
        if all(one.id != request.id for one in self._memory.asked.values()):
            self._memory.add(request)

    def waiting(self) -> list[Waiting]:
        """Every request that no verdict has answered, oldest first."""
        now_s, found = self._memory.clock_s(), []
        for entry, request in self._memory.asked.items():
            taken = self._memory.taken.get(entry, _Taken("", now_s, 0))
            found.append(Waiting(entry, request, taken.worker, int(1e3 * (now_s - taken.lived_s)), taken.times))
        return found

    def claim(self, entries: Sequence[str], silent_ms: int) -> list[str]:
        """The entries that are ours to work on now; as `RequestStore.claim`."""
        memory, now_s = self._memory, self._memory.clock_s()
        for taken in memory.taken.values():
            if taken.worker != self._worker and int(1e3 * (now_s - taken.lived_s)) < silent_ms:
                return []
        found = [entry for entry in entries if entry in memory.asked]
        for entry in found:
            before = memory.taken.get(entry)
            if before is None or before.worker != self._worker:
                memory.taken[entry] = _Taken(self._worker, now_s, 1 + (before.times if before else 0))
        return found

    def keep(self, entries: Sequence[str], progress: Progress, alive_ms: int) -> list[str]:
        """Those entries that are still asked for; says for so long that we are at work on them.

        Raises:
            FencedError: another worker has taken them up.
        """
        memory = self._memory
        requests.judge(memory.other(self._worker, entries))
        kept = [entry for entry in entries if entry in memory.taken and entry in memory.asked]
        for entry in kept:
            memory.taken[entry] = memory.taken[entry]._replace(lived_s=memory.clock_s())
        self.tell(progress, alive_ms)
        return kept

    def tell(self, progress: Progress, alive_ms: int) -> None:
        """Let people see for so long what keeps requests waiting."""
        self._memory.progress = (progress, self._memory.clock_s() + 1e-3 * alive_ms)

    def leave(self, entries: Sequence[str]) -> None:
        """Let requests wait for any worker again."""
        memory = self._memory
        for entry in entries:
            if entry in memory.taken and memory.taken[entry].worker == self._worker:
                del memory.taken[entry]
        memory.progress = None

    def answered(self, entries: Sequence[str]) -> None:
        """Take requests from the queue that a verdict has answered.

        Raises:
            FencedError: another worker has taken them up.
        """
        requests.judge(self._memory.other(self._worker, entries))
        for entry in entries:
            self._memory.let_go(entry)
        self._memory.progress = self._memory.draft = None

    def cancel(self, request: str) -> None:
        """Take a request back; a retraining that answers it alone is given up.

        Raises:
            VersionError: it does not wait.
        """
        for entry, one in self._memory.asked.items():
            if one.id == request:
                del self._memory.asked[entry]
                return
        raise requests.not_waiting(request, self._memory.model)

    def progress(self) -> Progress | None:
        """How far the retraining is that is under way; None: there is none."""
        found = self._memory.progress
        return None if found is None or found[1] <= self._memory.clock_s() else found[0]


class MemoryVerdicts:
    """The verdicts of one model."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def get(self, verdict: str) -> Verdict | None:
        """A verdict by its id; None: there is none, or it was let go long ago.

        Raises:
            LedgerError: another format.
        """
        found = self._memory.written.get(verdict)
        return None if found is None else verdicts.decode_verdict(found.data, verdict)

    def of_version(self, version: int) -> Verdict | None:
        """The verdict that a version was registered by; None: it was made in another way."""
        found = self._memory.of_version.get(version)
        return None if found is None else self.get(found)

    def recent(self, count: int) -> list[Verdict]:
        """The newest verdicts, newest first."""
        newest = sorted(self._memory.written.values(), reverse=True)[:count]
        return [verdicts.decode_verdict(one.data, one.verdict) for one in newest]

    def spent(self) -> float:
        """What the live trials have spent of the budget of false promotions."""
        return self._memory.spent

    def draft(self, verdict: Verdict, worker: str, entries: Sequence[str]) -> None:
        """Keep a verdict whose version is about to be registered.

        Raises:
            FencedError, TakenBack: another worker has taken the requests up, or all were taken back.
        """
        requests.judge(self._memory.unwanted(worker, entries))
        self._memory.draft = verdicts.encode_verdict(verdict)

    def drafted(self) -> Verdict | None:
        """The verdict that was kept so, if its requests are not answered yet."""
        found = self._memory.draft
        return None if found is None else verdicts.decode_verdict(found, "draft")

    def write(self, verdict: Verdict, worker: str, entries: Sequence[str], *, before: float, spends: float) -> None:
        """Write a verdict on requests; `before` was spent, its trial spends so much more.

        Raises:
            FencedError, TakenBack: another worker has taken the requests up, or all were taken back.
            StaleCommand: something else was spent meanwhile: judge anew.
        """
        memory = self._memory
        if verdict.id in memory.written:
            return
        requests.judge(memory.unwanted(worker, entries))
        if abs(memory.spent - before) > SAME_SPENT:
            raise verdicts.spent_meanwhile(f"{memory.spent:.14g}", before)
        memory.written[verdict.id] = _Written(verdict.created_ms, verdict.id, verdicts.encode_verdict(verdict))
        if verdict.version is not None:
            memory.of_version[verdict.version] = verdict.id
        memory.spent += max(0.0, spends)
        for old in sorted(memory.written.values())[: -verdicts.KEPT]:
            del memory.written[old.verdict]
