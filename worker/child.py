"""Server processes that never outlive the process that started them."""

from __future__ import annotations

import atexit
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from models.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# Runs between us and the server: asks the kernel to kill it when we die (prctl(2), PR_SET_PDEATHSIG = 1, kept
# over execve), then becomes it. A program of its own, as code between fork and exec is unsafe beside threads.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
# Below the ports that the kernel gives to outgoing connections: a client that knocks at the port of a stopped
# server could otherwise be given that very port, connect to itself, and keep the server from coming back.
_PORTS = range(20_000, 32_000)
_POLL_S = 0.02


class Child:
    """One server process, in a session of its own, with its output in a log file.

    It dies with the thread that called `start` (call it from one that stays), and at the latest at exit.
    `environment` None hands ours on.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._cwd = cwd
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process id; 0 when it was never started."""
        return self._process.pid if self._process else 0

    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Start the server and return when `ready` says so.

        Raises:
            ServiceUnreachable: it ended, or was not ready in time; the message carries the end of its log.
        """
        if self.running():
            return
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  the command is made by our own code
                bound(self._command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._cwd,
                env=self._environment,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            )
        atexit.register(self.kill)
        try:
            self._wait(ready, timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, patience_s: float = 15.0) -> None:
        """Ask the server to end, and kill it when it has not after `patience_s`."""
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self.kill()

    def kill(self) -> None:
        """Kill the server at once (SIGKILL) and wait until it is gone."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        atexit.unregister(self.kill)

    def pause(self) -> None:
        """Stop the server where it is (SIGSTOP): connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def logged(self, text: str) -> bool:
        """Whether `text` is in the log since the last start."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return text.encode() in file.read()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        # Popen looks whether the process was waited for before it signals, so a reused id is never hit.
        if self._process is not None:
            self._process.send_signal(number)

    def _wait(self, ready: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running():
                raise self._failed("ended before it was ready")
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready within {timeout_s:g} s")
            time.sleep(_POLL_S)

    def _failed(self, what: str) -> ServiceUnreachable:
        return ServiceUnreachable(f"{self.name} {what}", f"its log ends with:\n{self.log_tail()}")


def bound(command: Sequence[str]) -> list[str]:
    """The command bound to us: its process is killed when the thread that starts it ends, by whatever means (Linux).

    The command's first word is a path.
    """
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    for _ in range(1000):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no hindrance
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceUnreachable(f"no free port of 127.0.0.1 between {_PORTS.start} and {_PORTS.stop}")


def listens(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def answers_ping(port: int) -> bool:
    """Whether a Redis or Valkey on this port is through with loading its data."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
