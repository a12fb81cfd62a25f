"""Whether a model's registry is what its audit says, and those who may change it by themselves did as they may."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.audit import AuditEntry
    from models.registry import Registry, VersionInfo
    from worker.verdicts import VerdictStore

MOVES = ("promote", "rollback", "nominate")


class Replay:
    """Who is who by the entries of the audit so far; `wrong` says which one could not be."""

    def __init__(self, infos: dict[int, VersionInfo]) -> None:
        self._infos = infos
        self._withdrawn: set[int] = set()
        self._decided = Counter[tuple[str, object]]()
        self.incumbent: int | None = None
        self.candidate: int | None = None
        self.previous: int | None = None
        self.approved: int | None = None
        self.paused = False

    def wrong(self, entry: AuditEntry) -> str:
        """Why this entry must not be the next one; "" where it may, and is taken in."""
        before = self.candidate if entry.event == "nominate" else self.incumbent
        if entry.event in MOVES and entry.before != before:
            return f"{entry.event} in place of {entry.before}, while it was {before}"
        if entry.event in (*MOVES, "incumbent") and entry.after in self._withdrawn:
            return f"{entry.event} of {entry.after}, which was withdrawn before"
        if entry.event == "approve" and entry.version != self.candidate:
            return f"{entry.version} was approved, and {self.candidate} was the candidate"
        if why := self._by_machine(entry):
            return why
        self._move(entry)
        return ""

    def _by_machine(self, entry: AuditEntry) -> str:
        """Why gate and retrainer may not do that: of a version they decide once, and never on a stale one."""
        if entry.actor not in ("gate", "retrainer") or entry.event not in MOVES:
            return ""
        version = entry.after if entry.after is not None else entry.before
        assert version is not None
        if entry.after is not None and self._infos[version].parent != self.incumbent:
            return f"{entry.actor}: {entry.event} of {version}, made from another one than {self.incumbent}"
        if entry.event == "promote" and (self.paused or self.candidate != version):
            return f"the gate promoted {version}; paused {self.paused}, candidate {self.candidate}"
        about: object = version if entry.actor == "gate" else self._infos[version].training.get("verdict")
        self._decided[entry.actor, about] += 1
        if self._decided[entry.actor, about] > 1:
            return f"the {entry.actor} decided more than once: on {about}"
        return ""

    def _move(self, entry: AuditEntry) -> None:
        event, after = entry.event, entry.after
        if event in MOVES:
            self.approved = None
        if event == "nominate":
            self.candidate = after
        elif event in ("promote", "rollback", "incumbent"):
            self.previous = self.incumbent if event == "promote" else None
            if event == "rollback" and self.incumbent is not None:
                self._withdrawn.add(self.incumbent)
            self.incumbent = after
            self.candidate = None if self.candidate == after else self.candidate
        elif event == "approve":
            self.approved = entry.version
        if event in ("pause", "resume", "rollback"):
            self.paused = event != "resume"

    def differs(self, registry: Registry) -> str:
        """What the registry says otherwise."""
        aliases, statuses = registry.aliases(), registry.statuses()
        names = ("incumbent", "candidate", "previous", "approved", "paused")
        mine = {name: getattr(self, name) for name in names}
        if mine != {name: getattr(aliases, name) for name in names}:
            return f"the audit gives {mine}; the registry says {aliases}"
        if self._withdrawn != set(statuses) or self.incumbent not in self._infos:
            return f"withdrawn by the audit {self._withdrawn}, by the registry {statuses}; {aliases}"
        return ""


def wrong(registry: Registry, verdicts: VerdictStore) -> str:
    """What is wrong with a model's versions and verdicts; "" where nothing is."""
    infos = {info.version: info for info in registry.versions()}
    replay = Replay(infos)
    for entry in registry.audit():
        if why := replay.wrong(entry):
            return f"{entry}: {why}"
    return replay.differs(registry) or _wrong_verdicts(infos, verdicts)


def _wrong_verdicts(infos: dict[int, VersionInfo], verdicts: VerdictStore) -> str:
    """A verdict is the only one on its requests, and its version knows it."""
    written = verdicts.recent(100)
    asked = Counter(request for verdict in written for request in verdict.requests)
    if twice := sorted(request for request, count in asked.items() if count > 1):
        return f"several verdicts were written on {twice}"
    for verdict in written:
        if verdict.version is not None and infos[verdict.version].training.get("verdict") != verdict.id:
            return f"verdict {verdict.id} names version {verdict.version}, which knows nothing of it"
    return ""
