"""The versions that a consumer can step: loaded, checked and compiled beside the running stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from concurrent.futures import Executor, Future

    from consumers.stream import Version


class Versions:
    """Versions by number; each is loaded when it is asked for, by `executor`."""

    def __init__(self, load: Callable[[int], Version], executor: Executor) -> None:
        self._load = load
        self._executor = executor
        self._loading: dict[int, Future[Version]] = {}
        self.ready: dict[int, Version] = {}

    def ask(self, number: int) -> Version | None:
        """The version; None while it is being loaded.

        Raises:
            VersionError: it can't be used here.
            ServiceUnreachable: Redis did not answer; ask again.
        """
        if number in self.ready:
            return self.ready[number]
        if number not in self._loading:
            self._loading[number] = self._executor.submit(self._load, number)
        if not self._loading[number].done():
            return None
        self.ready[number] = self._loading.pop(number).result()
        return self.ready[number]

    def keep(self, numbers: Collection[int]) -> None:
        """Let go of all the others."""
        for number in [number for number in self.ready if number not in numbers]:
            del self.ready[number]
