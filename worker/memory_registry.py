"""The registry of a backtest: versions and aliases in this process, by the rules and in the words of Redis.

Every check stands in the order of `models/registry.lua`, and is worded by `models/refusals.py` like those of Redis; one
suite of tests holds both to it. One process, one thread: nothing here is locked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from models.audit import AuditEntry, newest, printable
from models.refusals import check_reason, refusal, unknown_version
from models.registry import Aliases, By, VersionInfo
from models.weights import weights_digest, weights_from_bytes

if TYPE_CHECKING:
    from models.architecture import Architecture, Weights
    from models.errors import VersionError
    from models.registry import Status


class _Kept(NamedTuple):
    info: VersionInfo
    words: bytes  # the info as JSON, without its number: what tells a repeated registration
    architecture: Architecture
    weights: bytes


class MemoryRegistry:
    """The versions of one model, until the process ends."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._aliases = Aliases(None, None, None, 0)
        self._kept: dict[int, _Kept] = {}
        self._statuses: dict[int, Status] = {}
        self._audit: list[AuditEntry] = []

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
        """The number of a new version; as `Registry.register`."""
        weights_from_bytes(weights, architecture)
        words = msgspec.json.encode(
            VersionInfo(
                weights_sha256=weights_digest(weights),
                architecture_sha256=architecture.digest,
                parent=parent,
                created_ms=now_ms,
                actor=actor,
                reason=reason,
                training=training,
            )
        )
        for number, kept in self._kept.items():
            if kept.words == words:
                return number
        number = len(self._kept) + 1
        info = msgspec.structs.replace(msgspec.json.decode(words, type=VersionInfo), version=number)
        self._kept[number] = _Kept(info, words, architecture, weights)
        self._note("register", By(actor, reason, now_ms), number)
        if self._aliases.incumbent is None:
            self._aliases = replace(self._aliases, incumbent=number, generation=self._aliases.generation + 1)
            self._note("incumbent", By(actor, "the first version", now_ms), number, after=number)
        return number

    def promote(
        self, version: int, *, expected: int, actor: str, reason: str, now_ms: int, automatic: bool = False
    ) -> Aliases:
        """Who is who after `version` became the incumbent in place of `expected`; as `Registry.promote`."""
        by, now = _by("promote", actor, reason, now_ms), self._aliases
        if now.incumbent == version:
            raise self._refused("answers already", version)
        self._fit(version)
        if now.incumbent != expected:
            raise self._refused("another answers", now.incumbent, expected)
        if automatic:
            if now.paused:
                raise self._refused("paused")
            self._fresh(version)
        candidate = None if now.candidate == version else now.candidate
        self._aliases = replace(now, incumbent=version, previous=expected, candidate=candidate)
        return self._moved("promote", by, version, expected)

    def rollback(self, to: int | None = None, *, expected: int, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who after `expected` was withdrawn and `to` answers again; as `Registry.rollback`."""
        by, now = _by("rollback", actor, reason, now_ms), self._aliases
        if now.incumbent != expected:
            raise self._refused("another answers", now.incumbent, expected)
        to = now.previous if to is None else to
        if to is None:
            raise self._refused("no previous", expected)
        if to == expected:
            raise self._refused("answers already", to)
        self._fit(to)
        candidate = None if now.candidate == to else now.candidate
        self._aliases = replace(now, incumbent=to, previous=None, candidate=candidate, paused=True)
        self._statuses[expected] = "withdrawn"
        return self._moved("rollback", by, to, expected)

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
        """Who is who after `version` became the candidate in place of `expected`; as `Registry.nominate`."""
        by, now = _by("nominate", actor, reason, now_ms), self._aliases
        if version is None and now.candidate is None:
            raise self._refused("no candidate")
        if version == now.candidate:
            raise self._refused("candidate already", now.candidate)
        if now.candidate != expected:
            raise self._refused("another candidate", now.candidate, expected)
        if version is not None:
            if version == now.incumbent:
                raise self._refused("answers", version)
            self._fit(version)
            if automatic:
                self._fresh(version)
        self._aliases = replace(now, candidate=version)
        return self._moved("nominate", by, version, expected)

    def approve(self, version: int, *, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who, which does not change; the candidate `version` is signed off; as `Registry.approve`."""
        by, now = _by("approve", actor, reason, now_ms), self._aliases
        self._fit(version)
        if now.incumbent == version:
            raise self._refused("answers already", version)
        if now.candidate != version:
            raise self._refused("not the candidate", version, now.candidate)
        self._fresh(version)
        if now.approved == version:
            raise self._refused("approved already", version)
        self._aliases = replace(now, approved=version)
        return self._noted("approve", by, version)

    def retire(self, version: int, *, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who, which does not change; `version` is never to be used again; as `Registry.retire`."""
        by, now = _by("retire", actor, reason, now_ms), self._aliases
        if version not in self._kept:
            raise self._unknown(version)
        if self._statuses.get(version) == "retired":
            raise self._refused("retired already", version)
        for alias in ("incumbent", "candidate", "previous"):
            if getattr(now, alias) == version:
                raise self._refused("named", version, alias)
        self._statuses[version] = "retired"
        return self._noted("retire", by, version)

    def pause(self, *, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who, which does not change; from now on only people promote; as `Registry.pause`."""
        by = _by("pause", actor, reason, now_ms)
        if self._aliases.paused:
            raise self._refused("paused already")
        self._aliases = replace(self._aliases, paused=True)
        return self._noted("pause", by)

    def resume(self, *, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who, which does not change; automatic promotion is possible again; as `Registry.resume`."""
        by = _by("resume", actor, reason, now_ms)
        if not self._aliases.paused:
            raise self._refused("not paused")
        self._aliases = replace(self._aliases, paused=False)
        return self._noted("resume", by)

    def aliases(self) -> Aliases:
        """Who is who at present."""
        return self._aliases

    def statuses(self) -> dict[int, Status]:
        """The versions that must not be used, with what became of them."""
        return dict(self._statuses)

    def audit(self, count: int | None = None) -> list[AuditEntry]:
        """The newest `count` changes (None: all), oldest first."""
        return self._audit[max(0, len(self._audit) - count) :] if count is not None else list(self._audit)

    def last(self, *events: str, version: int | None = None) -> AuditEntry | None:
        """The newest change of these kinds, of that version if one is given."""
        return newest(reversed(self._audit), events, version)

    def versions(self) -> list[VersionInfo]:
        """All versions, oldest first."""
        return [kept.info for kept in self._kept.values()]

    def info(self, version: int) -> VersionInfo | None:
        """What is known of one version; None: there is no such version."""
        kept = self._kept.get(version)
        return None if kept is None else kept.info

    def load(self, version: int) -> tuple[Architecture, bytes, Weights]:
        """A version's architecture, its weights as registered and as arrays.

        Raises:
            VersionError: there is no such version.
        """
        if version not in self._kept:
            raise self._unknown(version)
        kept = self._kept[version]
        return kept.architecture, kept.weights, weights_from_bytes(kept.weights, kept.architecture)

    def _moved(self, event: str, by: By, version: int | None, before: int | None) -> Aliases:
        """An alias has moved: the generation counts it; a sign-off was of what was before."""
        self._aliases = replace(self._aliases, approved=None, generation=self._aliases.generation + 1)
        self._note(event, by, version, before, version)
        return self._aliases

    def _noted(self, event: str, by: By, version: int | None = None) -> Aliases:
        self._note(event, by, version)
        return self._aliases

    def _note(
        self, event: str, by: By, version: int | None, before: int | None = None, after: int | None = None
    ) -> None:
        self._audit.append(
            AuditEntry(
                id=f"{len(self._audit) + 1:012d}-0",  # sorts as it was appended
                time_ms=by.now_ms,
                event=event,
                version=version,
                before=before,
                after=after,
                actor=printable(by.actor),
                reason=printable(by.reason),
                generation=self._aliases.generation,
            )
        )

    def _fit(self, version: int) -> None:
        """Refuse what no alias may name."""
        if version not in self._kept:
            raise self._unknown(version)
        status = self._statuses.get(version)
        if status is not None:
            raise self._refused(status, version)

    def _fresh(self, version: int) -> None:
        """Refuse what was made from another version than the one that answers."""
        parent = self._kept[version].info.parent
        if parent != self._aliases.incumbent:
            raise self._refused("stale", version, parent, self._aliases.incumbent)

    def _refused(self, kind: str, *words: int | str | None) -> VersionError:
        return refusal(kind, ["none" if word is None else str(word) for word in words], self._model, self.last)

    def _unknown(self, version: int) -> VersionError:
        return unknown_version(self._model, version, list(self._kept))


def _by(event: str, actor: str, reason: str, now_ms: int) -> By:
    """Who changes something, with a reason."""
    check_reason(event, reason)
    return By(actor, reason, now_ms)
