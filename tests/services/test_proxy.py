"""A line that can be broken: silent in one direction or both, or cut, and mended again."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.services.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON_S = 0.3


@pytest.fixture
def heard() -> list[bytes]:
    """What has come to the server."""
    return []


@pytest.fixture
def proxy(heard: list[bytes]) -> Iterator[Proxy]:
    """A line to a server that says everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo(client: socket.socket) -> None:
        with suppress(OSError), client:
            while data := client.recv(100):
                heard.append(data)
                client.sendall(data)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with Proxy() as line:
        line.target = listener.getsockname()[1]
        yield line
    listener.close()


def client_of(proxy: Proxy) -> socket.socket:
    """A connection through the line."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=SOON_S)


def answer(client: socket.socket, said: bytes = b"") -> bytes:
    """What comes back; `nothing` in this time, or empty where the connection is broken."""
    try:
        if said:
            client.sendall(said)
        return client.recv(100)
    except TimeoutError:
        return b"nothing"
    except OSError:
        return b""


def test_open_line_passes_everything(proxy: Proxy, heard: list[bytes]) -> None:
    """What is said arrives, and so does the answer."""
    with client_of(proxy) as client:
        assert answer(client, b"a") == b"a"
    assert heard == [b"a"]


def test_silent_line_holds_what_is_said_until_it_is_open(proxy: Proxy, heard: list[bytes]) -> None:
    """Nothing comes through a silent line, no connection breaks, and afterwards it all arrives."""
    with client_of(proxy) as client:
        assert answer(client, b"a") == b"a"
        proxy.silence()
        assert answer(client, b"b") == b"nothing"
        assert heard == [b"a"]
        proxy.open()
        assert answer(client) == b"b"


def test_line_that_is_silent_one_way_loses_answers(proxy: Proxy, heard: list[bytes]) -> None:
    """The server hears what is said; the answer is lost where the connection is broken before it comes through."""
    with client_of(proxy) as client:
        proxy.silence("answering")
        assert answer(client, b"a") == b"nothing"
        assert heard == [b"a"]
        proxy.open(broken=True)
        assert answer(client, b"b") == b""
    with client_of(proxy) as client:
        assert answer(client, b"c") == b"c"


def test_cut_line_takes_nobody_until_it_is_open(proxy: Proxy, heard: list[bytes]) -> None:
    """Connections break at once, and new ones are of no use."""
    with client_of(proxy) as client:
        assert answer(client, b"a") == b"a"
        proxy.cut()
        assert answer(client, b"b") == b""
    with client_of(proxy) as client:
        assert answer(client, b"c") == b""
    proxy.open()
    with client_of(proxy) as client:
        assert answer(client, b"d") == b"d"
    assert heard == [b"a", b"d"]
