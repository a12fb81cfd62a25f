"""A line between clients and a server that can be cut, or go silent in one direction or both."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal, Self

from worker.child import free_port

Way = Literal["asking", "answering"]
WAYS: tuple[Way, ...] = ("asking", "answering")
CHUNK = 65_536


class Proxy:
    """Forwards one port of 127.0.0.1 to another, a context manager. Open at first."""

    def __init__(self) -> None:
        self.port = free_port()
        self.target = 0  # set it before the first client comes
        self._flows = {way: threading.Event() for way in WAYS}
        self._cut = False
        self._lines: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.open()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    def silence(self, *ways: Way) -> None:
        """Connections stay, new ones are taken, and nothing comes through any more (in these directions)."""
        for way in ways or WAYS:
            self._flows[way].clear()

    def cut(self) -> None:
        """Break all connections, with what is under way in them, and take no new ones."""
        self._cut = True
        self._break()

    def open(self, *, broken: bool = False) -> None:
        """Let everything through; `broken`: only on new connections, what is under way in the old ones is lost."""
        if broken:
            self._break()
        self._cut = False
        for flow in self._flows.values():
            flow.set()

    def close(self) -> None:
        """Break all connections and stop."""
        self._listener.close()
        self.cut()
        for flow in self._flows.values():
            flow.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _break(self) -> None:
        with self._guard:
            lines, self._lines = self._lines, set()
        for line in lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._cut:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._guard:
                self._lines |= {client, server}
            for source, sink, way in ((client, server, WAYS[0]), (server, client, WAYS[1])):
                sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pump, args=(source, sink, way), name="proxy line", daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                self._flows[way].wait()
                sink.sendall(data)
        with self._guard:
            self._lines -= {source, sink}
        for line in (source, sink):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()
