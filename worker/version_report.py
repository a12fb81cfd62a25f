"""What `killick versions` and `killick audit` print as JSON, and the HTTP API tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from models.times import rfc3339

if TYPE_CHECKING:
    from models.audit import AuditEntry
    from models.registry import Aliases, Registry, VersionInfo


def role_of(aliases: Aliases, version: int) -> str:
    """The alias that names a version; empty where none does."""
    named = {aliases.previous: "previous", aliases.candidate: "candidate", aliases.incumbent: "incumbent"}
    return named.get(version, "")


def versions_as_json(registry: Registry) -> list[dict[str, Any]]:
    """Every version, oldest first.

    Raises:
        ServiceUnreachable: Redis did not answer.
        VersionError: what Redis holds of one can't be read.
    """
    aliases, statuses, found = registry.aliases(), registry.statuses(), registry.versions()
    return [_version(info, role_of(aliases, info.version), statuses.get(info.version, "")) for info in found]


def entry_as_json(entry: AuditEntry) -> dict[str, Any]:
    """A change, with its time also as text."""
    return {**msgspec.to_builtins(entry), "time": rfc3339(entry.time_ms)}


def aliases_as_json(aliases: Aliases) -> dict[str, Any]:
    """Who is who."""
    return {
        "incumbent": aliases.incumbent,
        "candidate": aliases.candidate,
        "previous": aliases.previous,
        "approved": aliases.approved,
        "generation": aliases.generation,
        "paused": aliases.paused,
    }


def _version(info: VersionInfo, role: str, status: str) -> dict[str, Any]:
    return {**msgspec.to_builtins(info), "role": role, "status": status}
