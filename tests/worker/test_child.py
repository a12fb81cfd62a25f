"""Server processes are ready when they say so, tell why when they are not, and never outlive us."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import ServiceUnreachable
from tests.services.processes import alive, gone
from worker.child import Child, free_port, listens

ROOT = Path(__file__).parents[2]


def test_a_server_that_fails_says_how_its_log_ends(tmp_path: Path) -> None:
    """A command that ends before it is ready is an error that carries the end of its log."""
    words = [sys.executable, "-c", "print('no luck today'); raise SystemExit(3)"]
    child = Child("luckless", words, tmp_path / "log", tmp_path)
    with pytest.raises(ServiceUnreachable, match=r"luckless ended before(?s:.*)no luck today"):
        child.start(lambda: False, timeout_s=30)
    assert not child.running()


def test_a_server_that_is_never_ready_is_killed(tmp_path: Path) -> None:
    """A command that is not ready in time is an error, and nothing of it stays."""
    child = Child("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", tmp_path)
    with pytest.raises(ServiceUnreachable, match="not ready within"):
        child.start(lambda: False, timeout_s=0.3)
    assert child.pid > 0
    assert not alive(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's own")
def test_a_server_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """When the process that started a server is killed, the server goes too."""
    program = (
        "import pathlib, sys, time\n"
        "from worker.child import Child\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "child = Child('orphan', [sys.executable, '-c', 'import time; time.sleep(60)'], here / 'log', here)\n"
        "child.start(lambda: True, 10)\n"
        "time.sleep(1)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        assert alive(orphan)
        parent.send_signal(signal.SIGKILL)
    assert gone([orphan])


def test_a_free_port_is_free() -> None:
    """Nobody listens on a port that is given out."""
    assert not listens(free_port())
