"""Starting TensorFlow without the lines that its libraries write to standard error when they are loaded.

They go around Python and, since 2.21, partly around TF_CPP_MIN_LOG_LEVEL too. So what comes to the stream in
that moment is held back, and handed on without them: other threads may have written there too.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STDERR = 2
_NOISE = re.compile(
    rb"^(WARNING: All log messages before absl|[IW]\d{4} [\d:.]+ |\d{4}-\d\d-\d\d [\d:.]+: [IW] |"
    rb"To enable the following instructions|E\d{4} [\d:.]+ +\d+ cuda_)"
)


def start_tensorflow(threads: int) -> None:
    """Load TensorFlow pinned to `threads` threads; afterwards `models.network` can be imported in silence.

    Raises:
        ConfigError: it already runs with another number of threads.
    """
    with held_back(STDERR):
        from models import network  # noqa: PLC0415 - 2 s and 600 MB, for the processes that need it

        network.configure(threads)
        network.warm_up()


@contextmanager
def held_back(descriptor: int) -> Iterator[None]:
    """What is written to the descriptor meanwhile comes out at the end, without TensorFlow's noise."""
    sys.stderr.flush()
    kept = os.dup(descriptor)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), descriptor)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
            aside.seek(0)
            for line in aside:
                if not _NOISE.match(line):
                    os.write(descriptor, line)
