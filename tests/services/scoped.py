"""Servers that run inside a `with`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Scoped(ABC):
    """Started where the `with` begins and closed where it ends, also if it could not start."""

    @abstractmethod
    def start(self) -> None:
        """Start the server and return when it answers."""

    @abstractmethod
    def close(self) -> None:
        """Kill the server and remove its data."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
