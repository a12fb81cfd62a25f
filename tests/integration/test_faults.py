"""Real faults on real servers: after each, ledger and topics are bit for bit those of one uninterrupted run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import require
from tests.integration.faults import KINDS, SWAPPED, Scene, Servers, run
from tests.services import kafka as kafka_service
from tests.services import redis as redis_service
from tests.services.disk import COMPILER_MISSING, compiler
from tests.services.kafka import KafkaBroker
from tests.services.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.services
# Killed consumers, zombies, consumers that come and go, and the broker's restart have tests of their own here
# (test_crashes, test_groups, test_waiting); the benchmark does each of them thirty times.
FEW = ["cut", "full-always", "parted", "always+swaps", "everysec+swaps", "full-everysec+swaps", "parted-one+swaps"]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """A broker with a line to it that can be broken."""
    require(kafka_service.missing())
    require("" if redis_service.redis_binary() else redis_service.REDIS_MISSING)
    with Proxy() as proxy, KafkaBroker(proxied=proxy.port) as broker:
        proxy.target = broker.behind
        yield Servers(broker, proxy)


@pytest.mark.parametrize("name", FEW)
def test_outcome_after_a_fault_is_that_of_an_uninterrupted_run(name: str, servers: Servers, tmp_path: Path) -> None:
    """Whatever broke: nothing is lost, what comes twice has equal bytes, and state, pairs and counters are exact."""
    kind = (KINDS | SWAPPED)[name]
    require("" if compiler() or not kind.on_disk else COMPILER_MISSING)
    with Scene(kind, servers, tmp_path, seed=5) as scene:
        done = run(scene, seed=1)
        assert done.outcome.exact, done.outcome
        assert done.records > 200
        if name == "cut":
            assert done.rewinds > 0, "the lost tail was not noticed"
        elif not kind.forgets:
            assert done.rewinds == 0
        assert bool(done.commands) == kind.swaps
