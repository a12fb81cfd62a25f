"""What updating needs of whoever keeps versions, states, requests and verdicts: Redis, or a backtest's memory.

                          kept in Redis               kept in memory
    VersionDesk           models/registry.py          worker/memory_registry.py
    StateDesk             worker/store.py             worker/memory.py
    RequestDesk           worker/requests.py          worker/memory.py
    VerdictDesk           worker/verdicts.py          worker/memory.py

Each pair is held to the same words by one suite of tests. What is said here is said in full where Redis keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.architecture import Architecture, Weights
    from models.audit import AuditEntry
    from models.registry import Aliases, Status, VersionInfo
    from models.verdict import Verdict
    from worker.requests import Progress, Waiting
    from worker.store import Record, Request


class VersionDesk(Protocol):
    """A model's versions, who is who among them, and who changed that."""

    def register(
        self,
        architecture: Architecture,
        weights: bytes,
        *,
        training: dict[str, Any],
        parent: int | None,
        actor: str,
        reason: str,
        now_ms: int,
    ) -> int:
        """The number of a new version; the first one answers. The same words again give the same number."""

    def promote(
        self, version: int, *, expected: int, actor: str, reason: str, now_ms: int, automatic: bool = False
    ) -> Aliases:
        """Who is who after `version` became the incumbent in place of `expected`."""

    def rollback(self, to: int | None = None, *, expected: int, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who after `expected` was withdrawn and `to` (None: the previous version) answers again."""

    def nominate(
        self,
        version: int | None,
        *,
        expected: int | None,
        actor: str,
        reason: str,
        now_ms: int,
        automatic: bool = False,
    ) -> Aliases:
        """Who is who after `version` (None: none) became the candidate in place of `expected`."""

    def resume(self, *, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who, which does not change; automatic promotion is possible again."""

    def aliases(self) -> Aliases:
        """Who is who at present."""

    def statuses(self) -> dict[int, Status]:
        """The versions that must not be used, with what became of them."""

    def audit(self, count: int | None = None) -> list[AuditEntry]:
        """The newest `count` changes (None: all), oldest first."""

    def last(self, *events: str, version: int | None = None) -> AuditEntry | None:
        """The newest change of these kinds, of that version if one is given."""

    def versions(self) -> list[VersionInfo]:
        """All versions, oldest first."""

    def info(self, version: int) -> VersionInfo | None:
        """What is known of one version; None: there is no such version."""

    def load(self, version: int) -> tuple[Architecture, bytes, Weights]:
        """A version's architecture, its weights as registered and as arrays."""


class StateDesk(Protocol):
    """Who leads, and the states of detectors, gate, guard and whoever asks."""

    def lease(self, milliseconds: int) -> bool:
        """Whether this one leads, for so long."""

    def release(self) -> None:
        """Lead no longer."""

    def drift(self) -> tuple[int, bytes]:
        """Revision and state of the detectors; empty where there is none yet."""

    def drift_losses(self) -> list[float]:
        """The losses that the detectors were fed and still need, oldest first."""

    def change_drift(
        self,
        revision: int,
        state: bytes,
        losses: Sequence[float],
        forget: int,
        requests: Sequence[Request],
        answers: int | None = None,
    ) -> None:
        """Put down the detectors' state after `losses` more, of all of which the oldest are let go; and ask."""

    def state(self, name: Record) -> tuple[int, bytes]:
        """Revision and state of gate and guard, or of what was asked for; empty where there is none yet."""

    def change(self, name: Record, revision: int, state: bytes, requests: Sequence[Request] = ()) -> None:
        """Put down such a state, and ask."""


class RequestDesk(Protocol):
    """The requests for retraining, and who is at work on them."""

    def ask(self, request: Request) -> None:
        """Ask for a retraining, once however often it is said."""

    def waiting(self) -> list[Waiting]:
        """Every request that no verdict has answered, oldest first."""

    def claim(self, entries: Sequence[str], silent_ms: int) -> list[str]:
        """The entries that are ours to work on now; none while another worker is at work and not silent for so long."""

    def keep(self, entries: Sequence[str], progress: Progress, alive_ms: int) -> list[str]:
        """Those entries that are still asked for; says for so long that we are at work on them."""

    def tell(self, progress: Progress, alive_ms: int) -> None:
        """Let people see for so long what keeps requests waiting."""

    def leave(self, entries: Sequence[str]) -> None:
        """Let requests wait for any worker again."""

    def answered(self, entries: Sequence[str]) -> None:
        """Take requests from the queue that a verdict has answered."""


class VerdictDesk(Protocol):
    """The verdicts, each written once, with what its trial spends."""

    def get(self, verdict: str) -> Verdict | None:
        """A verdict by its id; None: there is none, or it was let go long ago."""

    def of_version(self, version: int) -> Verdict | None:
        """The verdict that a version was registered by; None: it was made in another way."""

    def recent(self, count: int) -> list[Verdict]:
        """The newest verdicts, newest first."""

    def spent(self) -> float:
        """What the live trials have spent of the budget of false promotions."""

    def draft(self, verdict: Verdict, worker: str, entries: Sequence[str]) -> None:
        """Keep a verdict whose version is about to be registered: who takes over can go on from it."""

    def drafted(self) -> Verdict | None:
        """The verdict that was kept so, if its requests are not answered yet."""

    def write(self, verdict: Verdict, worker: str, entries: Sequence[str], *, before: float, spends: float) -> None:
        """Write a verdict on requests; `before` was spent, its trial spends so much more."""
