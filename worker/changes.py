"""Changes of the registry that people ask for, by command or by HTTP: who asks, and whether they are on the disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from models.server import OnDisk, promise

if TYPE_CHECKING:
    from models.registry import Registry
    from models.server import Client, Promise

DISK_MS = 3_000


def by(actor: str, reason: str) -> dict[str, Any]:
    """Who changes something, why, now: the last arguments of the registry's methods."""
    return {"actor": actor, "reason": reason, "now_ms": int(time.time() * 1_000)}


class Disk:
    """Says whether what was written is on the disk of the registry's server."""

    def __init__(self, client: Client, registry: Registry) -> None:
        self._client = client
        self._key = registry.disk_key
        self._promised: Promise | None = None

    def reached(self) -> bool | None:
        """Whether what was written up to now is there, after waiting a while; None: the server can't say.

        Raises:
            ServiceUnreachable: Redis did not answer.
        """
        if self._promised is None:
            self._promised = promise(self._client)
        if self._promised != "on request":
            return True if self._promised == "always" else None
        disk = OnDisk(self._client, self._key)
        try:
            return disk.reached(DISK_MS)
        finally:
            disk.close()
