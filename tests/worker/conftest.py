"""What every test of the top floor starts from: the log as it was."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Commands start the log of their process, which here is pytest's."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.captureWarnings(capture=False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    for name in ("kafka", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)
