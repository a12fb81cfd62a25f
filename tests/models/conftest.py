"""A client of every kind of store that the registry must work on: Redis, Valkey, and Redis as a cluster."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.consumers.conftest import KINDS, Store, new_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.server import Client


@pytest.fixture(scope="session", params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each kind of server in turn, shared by the tests of this folder."""
    with ExitStack() as resources:
        yield new_store(request.param, resources)


@pytest.fixture
def client(store: Store) -> Client:
    """A client of an empty store: no keys, no functions."""
    store.client.flushall()
    store.client.function_flush()
    return store.client
