"""Versions for tests: fresh weights, registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from models.weights import fresh_weights, weights_to_bytes

if TYPE_CHECKING:
    from models.architecture import Architecture


class Registered(Protocol):
    """Where versions are registered: in Redis, or in memory."""

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
        """The number of a new version."""


def register(registry: Registered, architecture: Architecture, seed: int = 0, parent: int | None = None) -> int:
    """The number of a version with fresh weights; another seed is another version."""
    return registry.register(
        architecture,
        weights_to_bytes(fresh_weights(architecture, seed), architecture),
        training={"epochs": 3, "loss": 0.5},
        parent=parent,
        actor="ann",
        reason=f"seed {seed}",
        now_ms=1_700_000_000_000 + seed,
    )
