"""The audit of a model's versions: who changed what, when, why, from which to which; read as it was appended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from models.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_DID = {
    "register": "registered",
    "incumbent": "made the incumbent",
    "promote": "promoted",
    "rollback": "rolled back",
    "nominate": "nominated",
    "approve": "approved",
    "retire": "retired",
    "pause": "paused",
    "resume": "resumed",
}


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change; `before` and `after` are the versions that the alias named."""

    id: str
    time_ms: int
    event: str
    version: int | None
    before: int | None
    after: int | None
    actor: str
    reason: str
    generation: int | None  # None in entries that were written before it was noted

    def __str__(self) -> str:
        """`promoted by ann@host at 2026-03-01T12:00:00Z: better in winter`."""
        did = _DID.get(self.event, self.event)
        if self.event == "nominate" and self.after is None:
            did = "sent away"
        return f"{did} by {self.actor} at {rfc3339(self.time_ms)}: {self.reason}"


def entry_of(identity: bytes, fields: Mapping[bytes, bytes]) -> AuditEntry:
    """An entry of the stream; fields that it lacks are None, fields that are not known are left out."""
    return AuditEntry(
        id=identity.decode(),
        time_ms=_number(fields, b"time_ms") or 0,
        event=_text(fields, b"event"),
        version=_number(fields, b"version"),
        before=_number(fields, b"before"),
        after=_number(fields, b"after"),
        actor=_text(fields, b"actor"),
        reason=_text(fields, b"reason"),
        generation=_number(fields, b"generation"),
    )


def newest(entries: Iterable[AuditEntry], events: Collection[str], version: int | None = None) -> AuditEntry | None:
    """The first of these kinds, and of this version if one is given: the entries come newest first."""
    return next(
        (
            entry
            for entry in entries
            if entry.event in events and (version is None or version in (entry.version, entry.before))
        ),
        None,
    )


def printable(text: str) -> str:
    """The text in one line that moves no cursor: blanks are one space, what can't be printed is a question mark."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def _text(fields: Mapping[bytes, bytes], name: bytes) -> str:
    return printable(fields.get(name, b"").decode(errors="replace"))


def _number(fields: Mapping[bytes, bytes], name: bytes) -> int | None:
    found = fields.get(name, b"")
    return int(found) if found.isdigit() else None
