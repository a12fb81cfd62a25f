"""Versions are loaded beside the running stream, once, and let go when nobody runs them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from consumers.stream import Version
from consumers.versions import Versions
from models.errors import ServiceUnreachable, VersionError
from tests.streams import AtOnce, NumpyScanner, architecture_of

ARCHITECTURE = architecture_of()


def version(number: int) -> Version:
    """A version of this number."""
    return Version(number, ARCHITECTURE, NumpyScanner(ARCHITECTURE, number))


def test_whoever_asks_does_not_wait() -> None:
    """None while a version is being loaded in a thread; then the version, loaded once however often it is asked for."""
    let_go = Event()
    loads: list[int] = []

    def load(number: int) -> Version:
        loads.append(number)
        assert let_go.wait(10)
        return version(number)

    with ThreadPoolExecutor(1) as executor:
        versions = Versions(load, executor)
        assert [versions.ask(1), versions.ask(2), versions.ask(1)] == [None, None, None]
        assert versions.ready == {}
        let_go.set()
        executor.submit(int).result(10)
        one, two = versions.ask(1), versions.ask(2)
    assert one is not None
    assert two is not None
    assert (one.number, two.number) == (1, 2)
    assert versions.ask(1) is one
    assert versions.ready == {1: one, 2: two}
    assert loads == [1, 2]


def test_what_goes_wrong_is_told_once_and_tried_again() -> None:
    """Whoever asks next begins a new attempt: Redis may be back, a version may have been restored."""
    troubles = [VersionError("other bytes"), ServiceUnreachable("away")]

    def load(number: int) -> Version:
        if troubles:
            raise troubles.pop(0)
        return version(number)

    versions = Versions(load, AtOnce())
    with pytest.raises(VersionError, match="other bytes"):
        versions.ask(7)
    with pytest.raises(ServiceUnreachable, match="away"):
        versions.ask(7)
    found = versions.ask(7)
    assert found is not None
    assert found.number == 7


def test_who_runs_nowhere_is_let_go() -> None:
    """What is kept stays the same object; the others are loaded anew when they are asked for."""
    loads: list[int] = []

    def load(number: int) -> Version:
        loads.append(number)
        return version(number)

    versions = Versions(load, AtOnce())
    kept = versions.ask(1)
    versions.ask(2)
    versions.keep({1, 5})
    assert versions.ready == {1: kept}
    assert versions.ask(1) is kept
    versions.ask(2)
    assert loads == [1, 2, 2]
