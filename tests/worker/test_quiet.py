"""TensorFlow starts without its noise, and nothing else is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, sys
from worker.quiet import held_back, start_tensorflow
start_tensorflow(1)
with held_back(2):
    os.write(2, b"I0000 00:00:1795231711.626795 5205 port.cc:153] oneDNN\\n")
    os.write(2, b"E0000 00:00:1795231711.626795 5205 gpu.cc:1] an error\\n")
    print("a word of another thread", file=sys.stderr)
print("after", file=sys.stderr)
"""


def test_tensorflow_starts_in_silence_and_other_lines_come_through() -> None:
    """Of all that is written to standard error while TensorFlow starts, only its own remarks are dropped."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, check=True, timeout=120)
    assert ended.stderr.decode().splitlines() == [
        "E0000 00:00:1795231711.626795 5205 gpu.cc:1] an error",
        "a word of another thread",
        "after",
    ]
