"""What the loop reports about itself; the top floor turns it into metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Observer(Protocol):
    """Told once per block, never per observation."""

    def block(self, counts: Mapping[str, int], version: int | None) -> None:
        """A block was committed; its counts, as the ledger keeps them, and the version that answers."""

    def commit(self, seconds: float) -> None:
        """How long the ledger took for one commit."""

    def acknowledged(self, seconds: float, forecasts: int) -> None:
        """From poll to acknowledgement, for so many forecasts of one block."""

    def lag(self, partition: int, records: int | None) -> None:
        """Records that wait in the log; None: the partition is no longer ours."""

    def rewound(self) -> None:
        """Redis had lost what the group's offset says was committed; the stream went back to the ledger."""

    def mismatch(self) -> None:
        """A replayed block gave other bits than were committed."""

    def redis_up(self, *, up: bool) -> None:
        """Whether the last call to Redis was answered."""
