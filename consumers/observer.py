"""What the loop reports about itself; the top floor turns it into metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumers.roster import Seat


class Observer:
    """Told once per block, never per observation; takes no notice, but for what a subclass wants to hear."""

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

    def roster(self, partition: int, seats: Sequence[Seat]) -> None:
        """Who runs in a partition that is at work here."""

    def spun_up(self, partition: int, version: int, seconds: float) -> None:
        """A version was given its carried state, and how long that took."""

    def swapped(self, partition: int, version: int, seconds: float) -> None:
        """Another version answers, so long after the registry was seen to have moved."""

    def diverged(self, partition: int, why: str) -> None:
        """Why a partition can't follow the registry; empty: it does."""
