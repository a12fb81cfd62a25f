"""Holding: what a consumer finds when it takes a partition, and in which order it makes it good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumers.holding import Holding, Limits, Topics
from consumers.ledger import Commit, Ledger, RawRecord, Refused
from consumers.opening import Opener
from consumers.roster import Seat
from consumers.stream import Partition, Refusal, Version, admit, fold
from consumers.versions import Versions
from models.blocks import empty_block
from models.errors import LedgerError
from models.registry import Registry
from models.weights import fresh_weights, weights_to_bytes
from tests.consumers.test_publishing import Topic
from tests.streams import FORM, AtOnce, NumpyScanner, architecture_of, stream_of
from worker.metrics import ConsumerMetrics

if TYPE_CHECKING:
    from tests.consumers.conftest import Store

pytestmark = pytest.mark.services
ARCHITECTURE = architecture_of()
VERSION = Version(1, ARCHITECTURE, NumpyScanner(ARCHITECTURE, 1))


def opener_of(store: Store, model: str, topic: Topic, partitions: int = 1) -> Opener:
    """An opener whose only version is a network in NumPy."""
    return Opener(
        store.client, model, FORM, lambda: Topics("observations", "predictions", "dead", "t", partitions), Limits(),
        registry=Registry(store.client, model), versions=Versions(lambda _: VERSION, AtOnce()), sender=topic,
        observer=ConsumerMetrics(model),
    )  # fmt: skip


def crashed(store: Store, model: str) -> Ledger:
    """A ledger of two blocks of two observations each and a refusal, nothing of it published."""
    ledger = Ledger(store.client, model, 0, "who crashed")
    ledger.take(start=0, form=FORM.digest(), topic_id="t", partitions=1, chunk_slots=2)
    roster = [Seat(1, "incumbent", 0, 0)]
    ledger.commit(Commit(0, empty_block(0, 2), roster=roster))
    partition = Partition(FORM)
    partition.seat(roster, {1: VERSION})
    stream = stream_of([("a", step, (1.0, 2.0)) for step in range(4)])
    refused = [Refused(Refusal(0, "late", "too late"), RawRecord(b"a", b"{}", (), 7))]
    for begin, end in ((0, 2), (2, 4)):
        admitted = admit(partition, stream.arrivals(begin, end), max_series=9)
        (folded,) = fold([(partition, admitted.block)], {1: VERSION})
        ledger.commit(Commit(begin, folded.block, new_names=admitted.new_names, refused=refused))
        refused = []
    return ledger


def opened(opener: Opener) -> Holding:
    """The partition, once it is open."""
    return next(found for found in opener.open(0, (0, 4), None) if found is not None)


@pytest.fixture
def ledger(redis_store: Store, model: str) -> Ledger:
    """The ledger of a consumer that crashed before it published anything."""
    registry = Registry(redis_store.client, model)
    weights = weights_to_bytes(fresh_weights(ARCHITECTURE, 1), ARCHITECTURE)
    registry.register(ARCHITECTURE, weights, training={}, parent=None, actor="ann", reason="test", now_ms=0)
    return crashed(redis_store, model)


def test_the_mark_waits_for_refusals_that_a_crash_left_behind(redis_store: Store, model: str, ledger: Ledger) -> None:
    """After a crash the mark passes no offset whose dead letter is not acknowledged: passing it lets it go."""
    topic = Topic()
    holding = opened(opener_of(redis_store, model, topic))
    holding.publisher.send()
    for sent in topic.sent:
        sent.done = sent.topic == "predictions"
    assert [sent.topic for sent in topic.sent].count("predictions") == 4, "all forecasts are made again"
    assert max((p.end for p in holding.publisher.settle(0)), default=0) == 0, "the dead-letter topic has not answered"
    for sent in topic.sent:
        sent.acknowledge()
    assert [publication.end for publication in holding.publisher.settle(0)][-1] == 4
    assert [refused.refusal.offset for refused in ledger.refusals()] == [0], (
        "the ledger keeps it until the mark is told"
    )


def test_a_partition_that_the_topic_was_given_later_is_refused(redis_store: Store, model: str, ledger: Ledger) -> None:
    """A topic that grows under a consumer would take series away from their history: the consumer stops."""
    opener = opener_of(redis_store, model, Topic(), partitions=1)
    with pytest.raises(LedgerError, match=r"got a partition 1, at the start it had 1: series would move away"):
        next(opener.open(1, (0, 0), None))
    assert ledger.head() is not None
