"""Changes of the registry that people ask for, by command or by HTTP: who asks, and whether they are on the disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from models.server import OnDisk, promise

if TYPE_CHECKING:
    from models.registry import Registry
    from models.server import Client

DISK_MS = 3_000


def by(actor: str, reason: str) -> dict[str, Any]:
    """Who changes something, why, now: the last arguments of the registry's methods."""
    return {"actor": actor, "reason": reason, "now_ms": int(time.time() * 1_000)}


def on_disk(client: Client, registry: Registry) -> bool | None:
    """Whether what was written up to now is on the server's disk, after waiting a while; None: it can't say.

    Raises:
        ServiceUnreachable: Redis did not answer.
    """
    promised = promise(client)
    if promised != "on request":
        return True if promised == "always" else None
    disk = OnDisk(client, registry.disk_key)
    try:
        return disk.reached(DISK_MS)
    finally:
        disk.close()
