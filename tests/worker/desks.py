"""Both places where updating keeps what is shared, with the same handles: Redis, and memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from models.registry import Registry
from worker.memory import Memory, MemoryModelStore, MemoryRequests, MemoryVerdicts
from worker.memory_registry import MemoryRegistry
from worker.requests import RequestStore
from worker.store import ModelStore
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from models.server import Client

MODEL = "weather"


class Desks(Protocol):
    """Handles of one model."""

    @property
    def registry(self) -> Registry | MemoryRegistry:
        """Its versions."""

    def store(self, token: str = "") -> ModelStore | MemoryModelStore:
        """Its states, for a monitor of that token."""

    def requests(self, worker: str = "") -> RequestStore | MemoryRequests:
        """Its requests, for a worker of that name."""

    def verdicts(self) -> VerdictStore | MemoryVerdicts:
        """Its verdicts."""


@dataclass(frozen=True)
class InRedis:
    """Kept by a server."""

    client: Client

    @property
    def registry(self) -> Registry:
        """Its versions."""
        return Registry(self.client, MODEL)

    def store(self, token: str = "") -> ModelStore:
        """Its states, for a monitor of that token."""
        return ModelStore(self.client, MODEL, token)

    def requests(self, worker: str = "") -> RequestStore:
        """Its requests, for a worker of that name."""
        return RequestStore(self.client, MODEL, worker)

    def verdicts(self) -> VerdictStore:
        """Its verdicts."""
        return VerdictStore(self.client, MODEL)


@dataclass(frozen=True)
class InMemory:
    """Kept by this process."""

    memory: Memory = field(default_factory=lambda: Memory(MODEL))
    registry: MemoryRegistry = field(default_factory=lambda: MemoryRegistry(MODEL))

    def store(self, token: str = "") -> MemoryModelStore:
        """Its states, for a monitor of that token."""
        return MemoryModelStore(self.memory, token)

    def requests(self, worker: str = "") -> MemoryRequests:
        """Its requests, for a worker of that name."""
        return MemoryRequests(self.memory, worker)

    def verdicts(self) -> MemoryVerdicts:
        """Its verdicts."""
        return MemoryVerdicts(self.memory)
