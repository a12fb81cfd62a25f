"""The registry: a model's versions in Redis. Immutable once registered; names (aliases) point at them.

Architecture and weights are stored apart; what comes back is checked before it is used. An alias moves by one
function call of `registry.lua`, which compares it with what the caller believes; who comes late is told who was faster.
Keys, all under one hash tag per model, so that a call stays on one node of a cluster:

    state          hash: incumbent, candidate, previous, approved, generation, paused; versions and partitions: how many
    statuses       hash: version → withdrawn or retired
    architectures, weights, infos      hashes by version
    audit          stream: every change, append-only
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from models.architecture import Architecture, Weights
from models.audit import AuditEntry, entry_of, newest, printable
from models.errors import VersionError
from models.refusals import check_reason, refusal, unknown_version
from models.server import Client, call_function, calling
from models.weights import weights_digest, weights_from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LIBRARY = "killick_registry_v3"
CODE = resources.files("models").joinpath("registry.lua")
READ_ENTRIES = 256  # of the audit, in one read
Status = Literal["withdrawn", "retired"]


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a version beside its network."""

    version: int = 0
    weights_sha256: str
    architecture_sha256: str
    parent: int | None
    created_ms: int
    actor: str
    reason: str
    training: dict[str, Any]


@dataclass(frozen=True)
class Aliases:
    """Which version answers, which is being judged, which answered before; and the counter of their changes.

    While `paused`, versions are promoted by people only. `approved` is the candidate, once a person has signed it off.
    """

    incumbent: int | None
    candidate: int | None
    previous: int | None
    generation: int
    paused: bool = False
    approved: int | None = None


@dataclass(frozen=True)
class By:
    """Who changes something, why, when."""

    actor: str
    reason: str
    now_ms: int


class Registry:
    """The versions of one model."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model
        self._tag = model_tag(model)

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
        """The number of a new version. The first one of a model becomes its incumbent.

        Calling it again with the same words, `now_ms` among them, gives back the same number: after
        `ServiceUnreachable` nobody knows whether it was registered.

        Raises:
            VersionError: the weights are not those of the architecture.
            ServiceUnreachable: Redis did not answer.
        """
        weights_from_bytes(weights, architecture)
        info = VersionInfo(
            weights_sha256=weights_digest(weights),
            architecture_sha256=architecture.digest,
            parent=parent,
            created_ms=now_ms,
            actor=actor,
            reason=reason,
            training=training,
        )
        stored = [architecture.to_json(), weights, msgspec.json.encode(info)]
        by = By(actor, reason, now_ms)
        return int(self._call("register", by, stored, more_keys=("architectures", "weights"))[1])

    def promote(
        self, version: int, *, expected: int, actor: str, reason: str, now_ms: int, automatic: bool = False
    ) -> Aliases:
        """Who is who after `version` became the incumbent in place of `expected`, which is `previous` now.

        Raises:
            StaleCommand: another version answers than `expected`, or `version` already does; or it is `automatic`
                and paused, or `version` was made from another one than the incumbent.
            VersionError: there is no such version, or it is withdrawn or retired.
            ServiceUnreachable: no answer; it may or may not have happened.
        """
        by = By(actor, reason, now_ms)
        return self._change("promote", by, version, expected, int(automatic))

    def rollback(self, to: int | None = None, *, expected: int, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who after `expected` was withdrawn and `to` (None: the previous version) answers again.

        Automatic promotion is paused until `resume`, and there is no previous version any more.

        Raises:
            StaleCommand: another version answers than `expected`, or there is no previous one.
            VersionError, ServiceUnreachable: as `promote`.
        """
        return self._change("rollback", By(actor, reason, now_ms), _text(to), expected)

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
        """Who is who after `version` (None: none) became the candidate in place of `expected`.

        Raises:
            StaleCommand: another candidate is there than `expected`, or `version` is one already, or answers; or it is
                `automatic` and `version` was made from another one than the incumbent.
            VersionError, ServiceUnreachable: as `promote`.
        """
        by = By(actor, reason, now_ms)
        return self._change("nominate", by, _text(version), _text(expected), int(automatic))

    def approve(self, version: int, *, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who, which does not change; the candidate `version` is signed off.

        Raises:
            StaleCommand: it is not the candidate, or signed off already, or made from another one than the incumbent.
            VersionError, ServiceUnreachable: as `promote`.
        """
        return self._change("approve", By(actor, reason, now_ms), version)

    def retire(self, version: int, *, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who, which does not change; `version` is never to be used again.

        Raises:
            StaleCommand: it is retired already.
            VersionError: there is no such version, or an alias names it.
            ServiceUnreachable: as `promote`.
        """
        return self._change("retire", By(actor, reason, now_ms), version)

    def pause(self, *, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who, which does not change; from now on only people promote.

        Raises:
            StaleCommand: it is paused already.
            ServiceUnreachable: as `promote`.
        """
        return self._change("pause", By(actor, reason, now_ms))

    def resume(self, *, actor: str, reason: str, now_ms: int) -> Aliases:
        """Who is who, which does not change; automatic promotion is possible again.

        Raises:
            StaleCommand: it is not paused.
            ServiceUnreachable: as `promote`.
        """
        return self._change("resume", By(actor, reason, now_ms))

    def aliases(self) -> Aliases:
        """Who is who at present."""
        return _aliases(calling(self._client.hgetall, self._key("state")))

    def statuses(self) -> dict[int, Status]:
        """The versions that must not be used, with what became of them."""
        found = calling(self._client.hgetall, self._key("statuses"))
        return {int(number): status.decode() for number, status in found.items()}

    def audit(self, count: int | None = None) -> list[AuditEntry]:
        """The newest `count` changes (None: all), oldest first."""
        entries: list[AuditEntry] = []
        for entry in self._newest_first():
            if len(entries) == count:
                break
            entries.append(entry)
        return entries[::-1]

    def last(self, *events: str, version: int | None = None) -> AuditEntry | None:
        """The newest change of these kinds, of that version if one is given."""
        return newest(self._newest_first(), events, version)

    def versions(self) -> list[VersionInfo]:
        """All versions, oldest first."""
        found = calling(self._client.hgetall, self._key("infos"))
        infos = [_info(number.decode(), data) for number, data in found.items()]
        return sorted(infos, key=lambda info: info.version)

    def info(self, version: int) -> VersionInfo | None:
        """What is known of one version; None: there is no such version."""
        found = calling(self._client.hget, self._key("infos"), str(version))
        return None if found is None else _info(str(version), found)

    def load(self, version: int) -> tuple[Architecture, bytes, Weights]:
        """A version's architecture, its weights as registered and as arrays.

        Raises:
            VersionError: there is no such version, or it is not what was registered.
        """
        names = ("architectures", "weights", "infos")
        architecture, weights, info = (calling(self._client.hget, self._key(name), str(version)) for name in names)
        if architecture is None or weights is None or info is None:
            raise self._unknown(version)
        expected = _info(str(version), info)
        network = Architecture.from_json(architecture)
        for what, is_now, was in (
            ("weights", weights_digest(weights), expected.weights_sha256),
            ("architecture", network.digest, expected.architecture_sha256),
        ):
            if is_now != was:
                raise VersionError(
                    f"the {what} of version {version} have SHA-256 {is_now[:12]}…, registered was {was[:12]}…",
                    "Redis holds other bytes than were registered: restore it from a backup",
                )
        return network, weights, weights_from_bytes(weights, network)

    def partitions(self) -> int:
        """How many partitions the model's observations have; 0 before any consumer ran."""
        found = calling(self._client.hget, self._key("state"), "partitions")
        return int(found) if found else 0

    def set_partitions(self, count: int) -> None:
        """Note how many partitions there are, so that the ledgers can be found."""
        calling(self._client.hset, self._key("state"), "partitions", count)

    def _change(self, function: str, by: By, *arguments: str | int) -> Aliases:
        check_reason(function, by.reason)
        reply = self._call(function, by, arguments)
        if reply[0] != b"ok":
            kind, *words = (word.decode() for word in reply)
            raise self._refusal(kind, words)
        flat = reply[1]
        return _aliases(dict(zip(flat[::2], flat[1::2], strict=True)))

    def _call(
        self, function: str, by: By, arguments: Sequence[bytes | str | int], more_keys: Sequence[str] = ()
    ) -> list[Any]:
        keys = [self._key(name) for name in ("state", "statuses", "infos", "audit", *more_keys)]
        who: list[bytes | str | int] = [uuid.uuid4().hex, printable(by.actor), printable(by.reason), by.now_ms]
        return call_function(self._client, CODE, f"{LIBRARY}_{function}", keys, [*who, *arguments])

    def _refusal(self, kind: str, words: Sequence[str]) -> VersionError:
        """Why nothing was changed, with who did what is in the way."""
        if kind == "unknown":
            return self._unknown(int(words[0]))
        return refusal(kind, words, self._model, self.last)

    def _newest_first(self) -> Iterator[AuditEntry]:
        last = "+"
        while True:
            entries = calling(self._client.xrevrange, self._key("audit"), last, count=READ_ENTRIES)
            yield from (entry_of(identity, fields) for identity, fields in entries)
            if len(entries) < READ_ENTRIES:
                return
            last = "(" + entries[-1][0].decode()

    def _unknown(self, version: int) -> VersionError:
        return unknown_version(self._model, version, [info.version for info in self.versions()])

    @property
    def disk_key(self) -> str:
        """The key by which the disk of the registry's server is asked."""
        return self._key("synced")

    def _key(self, name: str) -> str:
        return self._tag + name


def model_tag(model: str) -> str:
    """How the keys of a model begin that are of no partition: on one node of a cluster."""
    return f"killick:{{{model}}}:"


def _aliases(found: Mapping[bytes, bytes]) -> Aliases:
    numbers = {name: int(number) for name, number in found.items()}
    return Aliases(
        numbers.get(b"incumbent"),
        numbers.get(b"candidate"),
        numbers.get(b"previous"),
        numbers.get(b"generation", 0),
        bool(numbers.get(b"paused", 0)),
        numbers.get(b"approved"),
    )


def _text(version: int | None) -> str:
    return "" if version is None else str(version)


def _info(number: str, data: bytes) -> VersionInfo:
    try:
        return msgspec.structs.replace(msgspec.json.decode(data, type=VersionInfo), version=int(number))
    except (msgspec.DecodeError, ValueError) as error:
        raise VersionError(
            f"what Redis holds of version {number} can't be read ({error})", "restore Redis from a backup"
        ) from error
