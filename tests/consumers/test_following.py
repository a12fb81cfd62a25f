"""Following: rosters go where the registry points, and what a version answers with is the fold from its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumers.following import RETRY_S
from models.errors import VersionError
from tests.consumers.running import GUARD_STEPS, SPIN_UP_STEPS, Waiting, World

if TYPE_CHECKING:
    from tests.consumers.conftest import Store

pytestmark = pytest.mark.services
BACK = 40  # steps of each series before something happens


@pytest.fixture
def world(redis_store: Store, model: str) -> World:
    """Forty steps of three series have passed, and version 1 answers."""
    world = World(redis_store, model)
    world.feed(BACK)
    return world


def test_a_cold_version_is_spun_up_beside_the_stream_and_then_answers(world: World) -> None:
    """While it is loaded the old one answers, and the partition says so; then one commit seats it."""
    assert (world.roles(), world.state()) == ({1: "incumbent"}, ("running", None, ""))
    world.loader.held = True
    world.promote(2, 1)
    world.feed(3)
    assert (world.roles(), world.state()) == ({1: "incumbent"}, ("spinning-up", 2, ""))
    assert set(world.topic.versions()) == {1}
    before = world.holding().next
    world.loader.let_go()
    world.feed(3)
    assert (world.roles(), world.state()) == ({1: "shadow", 2: "incumbent"}, ("running", None, ""))
    seat = next(s for s in world.holding().partition.roster if s.version == 2)
    assert before < seat.join_offset <= before + 9
    depth = world.holding().newest_step - 1_000 - seat.start_offset // 3
    assert SPIN_UP_STEPS <= depth <= 3 * SPIN_UP_STEPS + 6
    assert world.topic.versions() == [1] * seat.join_offset + [2] * (world.holding().next - seat.join_offset)
    assert world.holding().partition.digest() == world.whole()
    assert (world.heard.spin_ups, world.heard.swaps) == ([(0, 2)], [(0, 2)])


def test_a_candidate_reads_along_and_is_promoted_at_once(world: World) -> None:
    """It is spun up when it is nominated; the promotion then needs no spin-up and no time."""
    world.nominate(2)
    world.step(3)
    assert (world.roles(), world.state()) == ({1: "incumbent", 2: "shadow"}, ("running", None, ""))
    assert world.heard.swaps == []
    world.feed(5)
    start = world.holding().partition.spans[2].start
    assert set(world.topic.versions()) == {1}
    world.promote(2, 1)
    world.step()
    assert world.roles() == {1: "shadow", 2: "incumbent"}
    assert world.holding().partition.spans[2].start == start
    assert (world.heard.spin_ups, world.heard.swaps) == ([(0, 2)], [(0, 2)])
    world.feed(3)
    assert world.topic.versions()[-9:] == [2] * 9
    assert world.holding().partition.digest() == world.whole()


def test_a_candidate_that_is_dropped_leaves(world: World) -> None:
    """Nobody's shadow is not stepped any more."""
    world.nominate(2)
    world.step(3)
    world.nominate(None, expected=2)
    world.step()
    assert world.roles() == {1: "incumbent"}
    assert set(world.holding().partition.carried) == {1}


def test_a_rollback_is_immediate_and_its_forecasts_are_those_of_an_uninterrupted_run(world: World) -> None:
    """The former version is warm; who is rolled back leaves at once."""
    world.promote(2, 1)
    world.feed(5)
    assert world.roles() == {1: "shadow", 2: "incumbent"}
    world.rollback(2)
    world.step()
    assert world.roles() == {1: "incumbent"}
    assert world.holding().partition.spans[1].start == 0
    world.feed(5)
    assert world.topic.versions()[-15:] == [1] * 15
    assert world.heard.spin_ups == [(0, 2)]
    assert world.heard.swaps == [(0, 2), (0, 1)]
    assert world.holding().partition.digest() == world.whole()


def test_the_former_version_leaves_after_the_guard_period(world: World) -> None:
    """In event time: as many steps as the guard has, however many records; a rollback then needs a spin-up."""
    world.promote(2, 1)
    world.step(3)
    assert world.roles() == {1: "shadow", 2: "incumbent"}
    world.step(20)
    world.feed(GUARD_STEPS - 1)
    assert world.roles() == {1: "shadow", 2: "incumbent"}
    world.feed(2)
    assert world.roles() == {2: "incumbent"}
    world.rollback(2)
    world.loader.held = True
    world.step()
    world.loader.let_go()
    world.step(3)
    assert world.roles() == {1: "incumbent"}
    assert world.holding().partition.spans[1].start > 0
    assert world.heard.spin_ups == [(0, 2), (0, 1)]
    assert world.holding().partition.digest() == world.whole()


def test_what_can_not_be_loaded_leaves_the_incumbent_answering(world: World) -> None:
    """The partition has diverged, and says why; it is tried again once the registry moves."""
    world.broken[3] = "the weights of version 3 are not those that were registered"
    world.promote(3, 1)
    world.feed(3)
    assert world.roles() == {1: "incumbent"}
    assert world.state() == ("diverged", 3, world.broken[3])
    assert world.heard.divergences == {0: world.broken[3]}
    assert world.topic.versions() == [1] * world.holding().next
    assert world.loads.count(3) == 1, "not at every step"
    world.rollback(3)
    world.step(2)
    assert (world.roles(), world.state()) == ({1: "incumbent"}, ("running", None, ""))
    assert world.heard.divergences == {0: ""}
    world.promote(4, 1)
    world.feed(3)
    assert world.roles() == {1: "shadow", 4: "incumbent"}


def test_a_version_that_could_not_be_loaded_is_tried_again(world: World) -> None:
    """After a while, without anyone's doing: what was wrong may have been put right."""
    world.broken[3] = "not this time"
    world.promote(3, 1)
    world.step(int(RETRY_S / 0.3) - 5)
    assert world.loads.count(3) == 1
    world.broken.clear()
    world.step(10)
    assert world.roles() == {1: "shadow", 3: "incumbent"}
    assert world.state() == ("running", None, "")
    assert world.heard.divergences == {0: ""}


def test_a_move_of_the_registry_has_it_tried_again_at_once(world: World) -> None:
    """Whoever commands something may have put it right."""
    world.broken[3] = "not this time"
    world.promote(3, 1)
    world.step(5)
    world.broken.clear()
    world.nominate(4)
    world.step(3)
    assert world.loads.count(3) == 2
    assert world.roles()[3] == "incumbent"


def test_a_broken_candidate_does_not_stand_in_the_way(world: World) -> None:
    """It is not a shadow, and a promotion goes on beside it."""
    world.broken[3] = "no"
    world.nominate(3)
    world.step(3)
    assert (world.roles(), world.state()) == ({1: "incumbent"}, ("diverged", 3, "no"))
    world.promote(2, 1)
    world.step(5)
    assert world.roles() == {1: "shadow", 2: "incumbent"}


def test_a_promotion_that_is_overtaken_is_given_up(world: World) -> None:
    """The spin-up of who is no longer wanted ends, and nothing is kept for it."""
    world.loader.held = True
    world.promote(2, 1)
    world.step(2)
    world.promote(3, 2)
    world.step(2)
    world.loader.let_go()
    world.step(3)
    assert world.roles() == {3: "incumbent"}
    assert world.heard.spin_ups == [(0, 3)]
    assert set(world.holding().plan._pins) <= {3}


def test_a_spin_up_goes_on_in_slices_while_records_come(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few observations between two blocks: the stream goes on, the version catches up; another may overtake it."""
    monkeypatch.setattr("consumers.following.LEAST_SLICE", 4)
    monkeypatch.setattr("consumers.following.LARGEST_SLICE", 4)
    world.follower._slice = 4
    world.promote(2, 1)
    world.feed(3)
    assert (world.roles(), world.state()) == ({1: "incumbent"}, ("spinning-up", 2, ""))
    assert world.follower.busy
    assert 2 in world.holding().plan._pins
    world.promote(3, 2)
    world.step()
    assert 2 not in world.holding().plan._pins
    world.feed(30)
    assert world.roles() == {3: "incumbent"}
    assert world.heard.spin_ups == [(0, 3)]
    assert world.holding().partition.digest() == world.whole()
    world.feed(30)
    assert world.holding().plan._pins == {}, "every snapshot has it by now"


def test_nothing_is_published_before_the_roster_is_on_disk(world: World) -> None:
    """Committed and folded, but not sent: the ledger's server and the registry's must have it first."""
    world.disk = Waiting()
    world.promote(2, 1)
    world.step(3)
    assert world.roles() == {1: "shadow", 2: "incumbent"}
    assert world.disk.keys == [world.holding().ledger.disk_key, world.registry.disk_key]
    sent = len(world.topic.sent)
    world.feed(5)
    head = world.holding().ledger.head()
    assert head is not None
    assert (len(world.topic.sent), head.next, head.mark) == (sent, 3 * (BACK + 5), 3 * BACK)
    world.disk.there = True
    world.step(3)
    assert world.topic.versions()[sent:] == [2] * 15
    head = world.holding().ledger.head()
    assert head is not None
    assert head.mark == head.next


def test_a_shadow_that_joins_or_leaves_holds_nothing_up(world: World) -> None:
    """Only another version's first forecast waits for the disk."""
    world.disk = Waiting()
    world.nominate(2)
    world.feed(5)
    assert world.roles() == {1: "incumbent", 2: "shadow"}
    assert world.disk.keys == []
    assert len(world.topic.versions()) == 3 * (BACK + 5)


def test_who_takes_over_waits_for_the_disk_too(world: World) -> None:
    """A consumer that died before the disk had the roster published nothing; its successor waits in its place."""
    world.disk = Waiting()
    world.promote(2, 1)
    world.feed(3)
    sent = len(world.topic.sent)
    assert world.topic.versions() == [1] * sent
    world.disk = Waiting()
    world.start()
    world.feed(2)
    assert world.roles() == {1: "shadow", 2: "incumbent"}
    assert world.disk.keys == [world.holding().ledger.disk_key, world.registry.disk_key]
    assert len(world.topic.sent) == sent
    world.disk.there = True
    world.step(2)
    again = world.topic.versions()[sent:]
    assert sorted(again) == again, "what the first one answered after the mark comes again, before the second"
    (seat,) = (seat for seat in world.holding().partition.roster if seat.version == 2)
    assert again.count(2) == world.holding().next - seat.join_offset
    assert world.holding().partition.digest() == world.whole()
    world.disk = Waiting()
    world.start()
    world.feed(1)
    assert world.disk.keys == [], "its forecasts are out: the roster was on disk before them"


def test_partitions_without_records_follow_too(redis_store: Store, model: str) -> None:
    """An empty block carries the roster: one partition that never had a record, one whose records have ended."""
    world = World(redis_store, model, partitions=3)
    world.feed(BACK, partition=1)
    world.promote(2, 1)
    for _ in range(10):
        world.feed(1, partition=2)
    assert [world.roles(p) for p in range(3)] == [{1: "shadow", 2: "incumbent"}] * 3
    heads = [world.holding(p).ledger.head() for p in range(3)]
    assert [(head.next, head.generation) for head in heads if head] == [
        (0, world.registry.aliases().generation), (3 * BACK, world.registry.aliases().generation), (30, 2),
    ]  # fmt: skip
    assert sorted(world.heard.spin_ups) == sorted(world.heard.swaps) == [(0, 2), (1, 2), (2, 2)]
    world.feed(3, partition=0)
    assert world.topic.versions()[-9:] == [2] * 9
    assert [world.holding(p).partition.digest() == world.whole(p) for p in range(3)] == [True] * 3


def test_several_changes_at_one_offset_are_told_once_each(world: World) -> None:
    """A swap is counted when it happens, not again with the next change of the roster at the same offset."""
    world.promote(2, 1)
    world.step(3)
    world.nominate(3)
    world.step(3)
    assert world.roles() == {1: "shadow", 2: "incumbent", 3: "shadow"}
    assert world.heard.swaps == [(0, 2)]


def test_a_partition_that_went_is_not_spun_up_any_more(world: World) -> None:
    """What was under way for it is given up, and another partition's turn comes."""
    world.follower._slice = 1
    world.promote(2, 1)
    world.step()
    world.loader.held = True
    world.promote(3, 2)
    world.step()
    world.follower.forget(0)
    assert not world.follower.busy
    world.loader.let_go()
    assert world.heard.divergences == {0: ""}
    world.step(3)
    assert world.roles()[3] == "incumbent"


def test_a_partition_that_went_has_not_diverged_here(world: World) -> None:
    """Whoever has it now says what becomes of it; the gauge of this consumer goes down."""
    world.broken[3] = "no"
    world.promote(3, 1)
    world.step(3)
    assert world.heard.divergences == {0: "no"}
    world.consumer._drop(0, "revoked")
    assert world.heard.divergences == {0: ""}
    assert world.heard.rosters == {0: ()}


def test_a_restart_in_the_middle_of_a_spin_up_begins_it_anew(world: World) -> None:
    """Nothing of it was committed; the next consumer finds the registry where it is, and does the same."""
    world.loader.held = True
    world.promote(2, 1)
    world.feed(2)
    world.loader.held = False
    world.start()
    world.feed(3)
    assert world.roles() == {1: "shadow", 2: "incumbent"}
    assert world.holding().partition.digest() == world.whole()


def test_a_shadow_that_can_not_be_loaded_any_more_leaves_at_a_restart(world: World) -> None:
    """The incumbent goes on; the partition does not stand still for a shadow."""
    world.nominate(2)
    world.feed(3)
    assert world.roles() == {1: "incumbent", 2: "shadow"}
    world.broken[2] = "gone"
    world.start()
    world.feed(2)
    assert world.roles() == {1: "incumbent"}
    assert world.state() == ("diverged", 2, "gone")
    assert world.topic.versions()[-6:] == [1] * 6


def test_an_incumbent_that_can_not_be_loaded_stops_the_start(world: World) -> None:
    """There is nobody who could answer: the error says why."""
    world.broken[1] = "the weights of version 1 are others"
    with pytest.raises(VersionError, match="the weights of version 1 are others"):
        world.start()


def test_a_new_chunk_that_a_recovery_meets_is_not_taken_for_an_old_one(
    redis_store: Store, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger did not know of it yet: its step is what the others had reached, or a spin-up would be too short."""
    monkeypatch.setattr("consumers.opening.chunk_slots", lambda _: 2)
    world = World(redis_store, model)
    world.feed(BACK, series=2)
    world.topic.room = len(world.topic.sent)  # nothing is published any more, so no snapshot is written
    world.feed(1, series=2)
    world.feed(1, series=5)  # beyond the mark
    world.topic.room = 10**9
    world.start()
    assert {taken.first: taken.step for taken in world.holding().plan.newborn()} == {2: 1000 + BACK, 4: 1000 + BACK}
