"""A Redis of the simulator's own: it is emptied before every seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import require
from tests.faults.server import simulator_server
from tests.services.redis import REDIS_MISSING, redis_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis


@pytest.fixture(scope="session")
def simulator_redis() -> Iterator[redis.Redis]:
    """A client of a Redis that keeps nothing on disk: the simulator plays the disk."""
    require("" if redis_binary() else REDIS_MISSING)
    with simulator_server() as client:
        yield client
