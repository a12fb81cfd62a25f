"""A ledger and a log that don't belong together, or no longer: noticed when a partition is opened, and what then."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from consumers.holding import Holding, Limits, Topics
from consumers.ledger import Ledger
from consumers.opening import Opener
from consumers.versions import Versions
from models.errors import LedgerError
from models.registry import Registry
from models.weights import fresh_weights, weights_to_bytes
from tests.consumers.test_opening import ARCHITECTURE, VERSION, crashed
from tests.consumers.test_publishing import Topic
from tests.streams import FORM, AtOnce
from worker.metrics import ConsumerMetrics

if TYPE_CHECKING:
    from tests.consumers.conftest import Store

pytestmark = pytest.mark.services
END = 4  # where the ledger of `crashed` stands


@dataclass
class Taker:
    """Opens partition 0 of a model, with topics that may change meanwhile."""

    store: Store
    model: str
    accept_gap: bool = False
    topics: Topics = field(default_factory=lambda: Topics("observations", "predictions", "dead", "t", 1))
    metrics: ConsumerMetrics = field(init=False)
    opener: Opener = field(init=False)

    def __post_init__(self) -> None:
        """Register the version that answers, and make the opener."""
        registry = Registry(self.store.client, self.model)
        weights = weights_to_bytes(fresh_weights(ARCHITECTURE, 1), ARCHITECTURE)
        registry.register(ARCHITECTURE, weights, training={}, parent=None, actor="ann", reason="test", now_ms=0)
        self.metrics = ConsumerMetrics(self.model)
        self.opener = Opener(
            self.store.client, self.model, FORM, lambda: self.topics, Limits(accept_gap=self.accept_gap),
            registry=registry, versions=Versions(lambda _: VERSION, AtOnce()), sender=Topic(), observer=self.metrics,
        )  # fmt: skip

    @property
    def ledger(self) -> Ledger:
        """The ledger, to be read."""
        return Ledger(self.store.client, self.model, 0)

    def open(self, begin: int, end: int, committed: int | None) -> Holding:
        """The partition, whose log begins and ends there, and which the group has read up to `committed`."""
        return next(found for found in self.opener.open(0, (begin, end), committed) if found is not None)

    def rewinds(self) -> float:
        """How many lost tails were counted."""
        return self.metrics.registry.get_sample_value("killick_ledger_rewinds_total", {"model": self.model}) or 0.0


@pytest.fixture
def taker(redis_store: Store, model: str) -> Taker:
    """An opener beside a ledger that stands at `END`."""
    crashed(redis_store, model)
    return Taker(redis_store, model)


def untouched(taker: Taker) -> bool:
    """Whether the ledger still belongs to who crashed."""
    head = taker.ledger.head()
    return head is not None and head.token == "who crashed" and head.next == END  # noqa: S105 - a fence, no secret


def test_a_ledger_behind_the_group_is_caught_up_and_counted(taker: Taker) -> None:
    """The group has read further than the ledger knows: Redis lost its tail, the stream goes back, once counted."""
    assert taker.open(0, 20, 9).next == END
    assert taker.rewinds() == 1


@pytest.mark.parametrize("committed", [None, 0, 2, END])
def test_a_ledger_at_or_before_the_group_is_no_lost_tail(taker: Taker, committed: int | None) -> None:
    """The group's offset follows the ledger, so it may lie behind it: that is nothing to count."""
    assert taker.open(0, 20, committed).next == END
    assert taker.rewinds() == 0


def test_a_log_that_ends_before_the_ledger_is_refused(taker: Taker) -> None:
    """A log that is shorter than what was read of it is another one: the consumer stops and leaves the ledger alone."""
    with pytest.raises(LedgerError, match=rf"stands at offset {END}, the log of 'observations' ends at {END - 1}"):
        taker.open(0, END - 1, None)
    assert untouched(taker)
    assert taker.open(0, END, None).next == END


def test_records_that_retention_took_before_they_were_read_are_counted(taker: Taker) -> None:
    """A log that begins after the ledger leaves a hole: counted in the ledger, and passed over."""
    assert taker.open(END + 3, 20, None).next == END + 3
    assert taker.ledger.counters()["lost_records"] == 3


def test_another_topic_of_the_same_name_is_refused(taker: Taker) -> None:
    """The topic was deleted and made anew before the start: other records would follow on the old memory."""
    taker.topics = replace(taker.topics, topic_id="u")
    with pytest.raises(LedgerError, match="deleted and made anew"):
        taker.open(0, 20, None)
    assert untouched(taker)


def test_a_topic_that_is_made_anew_while_the_consumer_runs_is_refused(taker: Taker) -> None:
    """The topic's id is looked up at every opening, not only at the start of the process."""
    held = taker.open(0, 20, None)
    taker.topics = replace(taker.topics, topic_id="u")
    with pytest.raises(LedgerError, match="deleted and made anew"):
        taker.open(0, 20, None)
    held.ledger.check()  # who held it still does


def test_another_number_of_partitions_is_refused(taker: Taker) -> None:
    """With more partitions, series would come elsewhere than their history: refused, with the way out named."""
    taker.topics = replace(taker.topics, partitions=2)
    with pytest.raises(LedgerError, match=r"made for partitions 1, now it is 2: .*killick produce"):
        taker.open(0, 20, None)
    assert untouched(taker)


def test_an_empty_ledger_under_a_group_that_has_read_is_refused(redis_store: Store, model: str) -> None:
    """Redis lost everything: no new memory is begun silently in the midst of a stream."""
    taker = Taker(redis_store, model)
    with pytest.raises(LedgerError, match=r"the ledger is empty, but the group has read up to offset 9: .*accept-gap"):
        taker.open(0, 20, 9)
    assert taker.ledger.head() is None
    assert Taker(redis_store, model, accept_gap=True).open(0, 20, 9).next == 9


@pytest.mark.parametrize(("begin", "committed"), [(0, None), (0, 0), (5, None), (5, 0)])
def test_a_new_ledger_begins_where_the_log_does(
    redis_store: Store, model: str, begin: int, committed: int | None
) -> None:
    """Nobody has read anything: the ledger begins with the oldest record that there is, and nothing is missing."""
    taker = Taker(redis_store, model)
    assert taker.open(begin, 20, committed).next == begin
    assert taker.rewinds() == 0
    assert "lost_records" not in taker.ledger.counters()
