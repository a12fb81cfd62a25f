"""The registry: a model's versions in Redis. Immutable once registered; names (aliases) point at them.

Architecture and weights are stored apart; what comes back is checked before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import msgspec

from models.architecture import Architecture, Weights
from models.errors import VersionError
from models.server import Client, call_function, calling
from models.weights import weights_digest, weights_from_bytes

LIBRARY = "killick_registry_v1"
CODE = resources.files("models").joinpath("registry.lua")


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
    """Which version answers, which is being judged, which answered before; and the counter of their changes."""

    incumbent: int | None
    candidate: int | None
    previous: int | None
    generation: int


class Registry:
    """The versions of one model."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model
        self._tag = f"killick:{{{model}}}:"

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
        keys = [self._key(name) for name in ("state", "architectures", "weights", "infos", "audit")]
        arguments: list[bytes | str | int] = [
            architecture.to_json(),
            weights,
            msgspec.json.encode(info),
            actor,
            reason,
            now_ms,
        ]
        return int(call_function(self._client, CODE, f"{LIBRARY}_register", keys, arguments)[0])

    def aliases(self) -> Aliases:
        """Who is who at present."""
        found = calling(self._client.hgetall, self._key("state"))
        numbers = {name.decode(): int(number) for name, number in found.items()}
        return Aliases(
            numbers.get("incumbent"),
            numbers.get("candidate"),
            numbers.get("previous"),
            numbers.get("generation", 0),
        )

    def versions(self) -> list[VersionInfo]:
        """All versions, oldest first."""
        found = calling(self._client.hgetall, self._key("infos"))
        infos = [_info(number.decode(), data) for number, data in found.items()]
        return sorted(infos, key=lambda info: info.version)

    def load(self, version: int) -> tuple[Architecture, bytes, Weights]:
        """A version's architecture, its weights as registered and as arrays.

        Raises:
            VersionError: there is no such version, or it is not what was registered.
        """
        names = ("architectures", "weights", "infos")
        architecture, weights, info = (calling(self._client.hget, self._key(name), str(version)) for name in names)
        if architecture is None or weights is None or info is None:
            known = [info.version for info in self.versions()]
            raise VersionError(
                f"model {self._model!r} has no version {version}",
                f"it has {known}" if known else "fit one: `killick fit FILE`",
            )
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

    def _key(self, name: str) -> str:
        return self._tag + name


def _info(number: str, data: bytes) -> VersionInfo:
    try:
        return msgspec.structs.replace(msgspec.json.decode(data, type=VersionInfo), version=int(number))
    except (msgspec.DecodeError, ValueError) as error:
        raise VersionError(
            f"what Redis holds of version {number} can't be read ({error})", "restore Redis from a backup"
        ) from error
