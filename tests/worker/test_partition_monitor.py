"""One partition's monitor: every block is counted once, whatever happens, and the references know what they should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pytest

from consumers.ledger import Ledger
from consumers.roster import Seat, reseated
from models import duels
from models.drift_inputs import inputs_of, trained_inputs
from models.errors import DataError, FencedError, OffsetConflict, ServiceUnreachable
from models.server import connect
from models.tally import Scorer
from tests.consumers.test_ledger_calls import Deaf
from tests.consumers.test_spin_up import begun, caught_up, joined
from tests.models.test_references import remembered
from tests.models.test_tally import with_references
from tests.streams import FORM, Stream, cuts_of, stream_of
from tests.worker.following import Tail, assert_same, book_of, count_all, follower, live, walks
from worker import partition_monitor
from worker.counting import Watched
from worker.partition_monitor import PartitionMonitor
from worker.store import PartitionStore
from worker.tenures import tenures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.duels import Duels
    from models.server import Client
    from tests.consumers.living import Live

pytestmark = pytest.mark.services
MODEL = "m"


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """Redis, then Valkey."""
    made = connect(store_url)
    yield made
    made.close()


def test_every_restart_goes_on_where_the_one_before_stood(client: Client) -> None:
    """Killed at any moment, with trails kept or not, the sums are those of one pass; a shadow comes and goes."""
    stream, consumer = walks(600), live(client, MODEL)
    rng = np.random.default_rng(1)
    monitor = follower(client, MODEL)
    shadow = [Seat(1, "incumbent", 0, 0), Seat(2, "shadow", 200, 200)]
    for number, (begin, end) in enumerate(cuts_of(600, rng.integers(0, 600, 60).tolist())):
        if begin >= 200 and not consumer.partition.carried.get(2):
            consumer.seat([shadow[0], Seat(2, "shadow", consumer.at, consumer.at)])
        consumer.take(stream, begin, end)
        if rng.random() < 0.6:
            monitor.step(None)
        if rng.random() < 0.2:
            monitor.keep_trails(None)
        if rng.random() < 0.3:
            monitor = follower(client, MODEL, who=f"monitor {number}")
    assert count_all(monitor) == 600
    wanted = book_of(consumer.ledger)
    assert wanted.versions == [1, 2]
    assert_same(monitor.book, wanted)
    assert_same(PartitionStore(client, MODEL, 0).sums()[0], wanted)
    again = follower(client, MODEL)
    assert again.step(None) == 0
    assert_same(again.book, wanted)
    assert (again.observations, again.newest) == (600, int(stream.step.max()))


def test_records_that_make_no_block_are_no_hole(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Refused records move the ledger and leave no block: the references go on, and nothing lags."""
    consumer = live(client, MODEL)
    stream = stream_of([("a", 1_000 + i, (float(i * i), 1.0)) for i in range(40)])
    monitor = follower(client, MODEL)
    for begin in range(0, 40, 4):
        consumer.take(stream, begin, begin + 4)
        consumer.refuse(3)
        monitor.step(None)
        assert monitor.step(None) == 0
        assert monitor.lag == 0
    assert_same(monitor.book, book_of(consumer.ledger))
    assert "trimmed" not in caplog.text
    consumer.refuse(2)
    again = follower(client, MODEL, who="theirs")
    assert (again.step(None), again.lag) == (0, 0)


def test_blocks_wait_until_trails_are_kept_behind_them(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trimmed that a restart has to read: not after a restart without trails either."""
    monkeypatch.setattr(partition_monitor, "READ_OBSERVATIONS", 100)
    stream, consumer = walks(800), live(client, MODEL)
    for begin in range(0, 800, 4):
        consumer.take(stream, begin, begin + 4)
    consumer.publish()
    wanted = book_of(consumer.ledger)
    monitor = follower(client, MODEL)
    assert consumer.ledger.trim(800) == 1  # the roster's, at offset 0
    for _ in range(3):
        monitor.step(None)
        monitor = follower(client, MODEL)
        assert consumer.ledger.trim(800) == 0
    while monitor.step(None):
        monitor.keep_trails(None)
        assert consumer.ledger.trim(800) > 0
        monitor = follower(client, MODEL)
    assert consumer.ledger.block_count() == 0
    assert_same(monitor.book, wanted)


def test_one_wrong_time_of_next_year_costs_no_sums(client: Client) -> None:
    """Hours are let go by the hour that most are in, not by the newest."""
    rows = [(f"s{i % 12}", 10_000 + i // 12, (float(i % 7), 1.0)) for i in range(600)]
    stream = stream_of([*rows, ("s3", 19_000, (1.0, 1.0)), ("s3", 19_001, (2.0, 1.0))])
    consumer = live(client, MODEL)
    consumer.take(stream, 0, 602)
    monitor = follower(client, MODEL)
    count_all(monitor)
    assert monitor.newest == 19_001
    assert monitor.book.newest_hour() == 10_049
    wanted = book_of(consumer.ledger)
    assert len(wanted.sums) > 50
    assert_same(monitor.book, wanted)


def leave(client: Client) -> None:
    """As `killick monitor --leave` does."""
    store = PartitionStore(client, MODEL, 0, "leave")
    store.take()
    store.need("monitor", None)
    store.need("other", 1_000)


def test_a_monitor_asks_again_after_it_was_left(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """After `killick monitor --leave` blocks go; who comes next says which, starts anew behind them, and asks again."""
    stream = stream_of([("a", 1_000 + i, (float(i % 7), 1.0)) for i in range(200)])
    consumer = live(client, MODEL)
    consumer.take(stream, 0, 100)
    consumer.publish()
    monitor = follower(client, MODEL)
    count_all(monitor)
    monitor.keep_trails(None)
    leave(client)
    assert consumer.ledger.trim(100) == 2  # the roster's and the observations'
    monitor = follower(client, MODEL)
    assert "trimmed" not in caplog.text  # all of it had been counted
    first = monitor.book.window(1, "life", 0).copy()
    leave(client)
    for begin, end in ((100, 102), (102, 160), (160, 200)):
        consumer.take(stream, begin, end)
    consumer.publish()
    assert consumer.ledger.trim(102) == 1  # a hole that would be bridged, if it were none
    monitor = follower(client, MODEL)
    assert "blocks of offsets 100 to 102 were trimmed" in caplog.text
    assert consumer.ledger.trim(200) == 0
    assert count_all(monitor) == 198
    rest = book_of(consumer.ledger).window(1, "life", 0)
    np.testing.assert_allclose(monitor.book.window(1, "life", 0), first + rest, rtol=1e-12)


def test_two_at_work_count_nothing_twice(client: Client) -> None:
    """Who took the partition last counts; the other one is told so, and what it had read is not counted."""
    stream, consumer = walks(100), live(client, MODEL)
    one = follower(client, MODEL, who="one")
    consumer.take(stream, 0, 25)
    one.step(None)
    consumer.take(stream, 25, 50)
    other = follower(client, MODEL, who="other")
    with pytest.raises(FencedError):
        one.keep_trails(None)
    with pytest.raises(FencedError):
        one.step(None)
    with pytest.raises(FencedError):
        one.keep_no_archive()
    count_all(other)
    consumer.take(stream, 50, 100)
    again = follower(client, MODEL, who="one")
    with pytest.raises(FencedError):
        other.step(None)
    count_all(again)
    assert_same(PartitionStore(client, MODEL, 0).sums()[0], book_of(consumer.ledger))
    assert PartitionStore(client, MODEL, 0).standing().observations == 100


@pytest.mark.parametrize("loses", ["the call", "the answer"])
def test_an_answer_that_was_lost_counts_nothing_twice(client: Client, loses: str) -> None:
    """Whether the call was done or not, who opens anew goes on from what is there."""
    stream, consumer = walks(100), live(client, MODEL)
    deaf = Deaf(client)
    monitor = follower(cast("Client", deaf), MODEL)
    for begin in range(0, 100, 25):
        consumer.take(stream, begin, begin + 25)
        deaf.loses = loses
        with pytest.raises(ServiceUnreachable):
            monitor.step(None)
        monitor = follower(cast("Client", deaf), MODEL)
        count_all(monitor)
        deaf.loses = loses
        with pytest.raises(ServiceUnreachable):
            monitor.keep_trails(None)
    again = follower(client, MODEL, who="again")
    assert again.step(None) == 0
    assert_same(again.book, book_of(consumer.ledger))
    assert again.observations == 100


def test_redis_without_its_tail_is_counted_from_where_it_stands(client: Client) -> None:
    """The consumer writes other blocks than those that were lost; sums and cursor are of the same moment."""
    stream, consumer = walks(300), live(client, MODEL)
    monitor = follower(client, MODEL)
    consumer.take(stream, 0, 80)
    monitor.step(None)
    tail = Tail(client, MODEL)
    for begin in range(80, 200, 40):
        consumer.take(stream, begin, begin + 40)
        monitor.step(None)
        monitor.keep_trails(None)
    tail.lose()
    again = live(client, f"{MODEL}-spare")
    again.take(stream, 0, 80)
    again.ledger = Ledger(client, MODEL, 0, "new")
    again.ledger.take(start=0, form=FORM.digest(), topic_id="t", partitions=1, chunk_slots=2)
    for begin in range(80, 300, 55):
        again.take(stream, begin, begin + 55)
    with pytest.raises((OffsetConflict, DataError)):
        monitor.step(None)
    monitor = follower(client, MODEL)
    assert count_all(monitor) == 300
    assert_same(monitor.book, book_of(again.ledger))


def test_trails_that_were_not_finished_do_not_count(client: Client) -> None:
    """Killed between writing a set of trails and naming it: the set before counts, and nothing stays behind."""
    stream, consumer = walks(200), live(client, MODEL)
    monitor = follower(client, MODEL)
    consumer.take(stream, 0, 100)
    monitor.step(None)
    monitor.keep_trails(None)
    consumer.take(stream, 100, 200)
    count_all(monitor)
    store = PartitionStore(client, MODEL, 0, "mine")
    kept = store.standing().trails
    store._call("trail", ["monitor", "trails", "needs"], [monitor.place, 0, b"half a set"])
    monitor = follower(client, MODEL)
    assert count_all(monitor) == 200
    assert store.standing().trails == kept
    assert_same(monitor.book, book_of(consumer.ledger))
    monitor.keep_trails(None)
    follower(client, MODEL)  # can read them
    names = {field.decode().rpartition("/")[0] for field in cast("Any", client).hkeys(f"killick:{{{MODEL}/0}}:trails")}
    assert names == {store.standing().trails}
    assert names == {monitor.place}


def test_a_monitor_before_the_first_consumer_waits(client: Client) -> None:
    """There is no ledger yet; when there is, everything is counted, and was held back from the start."""
    monitor = follower(client, MODEL)
    assert (monitor.step(None), monitor.lag, monitor.newest) == (0, 0, None)
    monitor.keep_trails(None)
    consumer = live(client, MODEL)
    assert monitor.step(None) == 1  # the roster
    assert (monitor.newest, [seat.version for seat in monitor.seats]) == (None, [1])
    assert follower(client, MODEL).newest is None
    monitor = follower(client, MODEL)
    consumer.take(walks(30), 0, 30)
    consumer.publish()
    assert consumer.ledger.trim(30) == 1  # the roster's, at offset 0
    assert count_all(monitor) == 30


def test_losses_are_those_of_the_version_that_answers(client: Client) -> None:
    """By step: after a promotion the new one's, though both have pairs; what the detectors were fed is let go."""
    stream, consumer = walks(200, series=2), live(client, MODEL)
    consumer.seat([Seat(1, "incumbent", 0, 0), Seat(2, "shadow", 0, 0)])
    consumer.take(stream, 0, 100)
    consumer.seat([Seat(1, "incumbent", 0, 0, 100), Seat(2, "incumbent", 0, 100), Seat(1, "shadow", 0, 100)])
    consumer.take(stream, 100, 200)
    monitor = follower(client, MODEL)
    count_all(monitor)
    wanted: dict[tuple[int, int], list[float]] = {}
    settled = remembered(stream, np.array([FORM.period_steps]))[1][0]  # by offset: the value a period before is known
    for block in consumer.ledger.blocks():
        version = 1 if block.start < 100 else 2
        if version not in block.pairs:
            continue
        errors = np.abs(block.pairs[version] - block.values[:, :1])
        for i in np.flatnonzero((block.scale > 0) & settled[block.offset]).tolist():
            known = errors[i][~np.isnan(errors[i])] / float(block.scale[i])
            wanted.setdefault((int(block.step[i]), version), []).extend(known.tolist())
    assert {key: count for key, (count, _) in monitor.losses.items()} == {k: len(v) for k, v in wanted.items() if v}
    for key, (_, loss) in monitor.losses.items():
        assert loss == pytest.approx(sum(wanted[key]))
    store = PartitionStore(client, MODEL, 0)
    assert store.losses() == monitor.losses
    fed = int(np.median(stream.step))
    consumer.take(walks(220, series=2), 200, 220)
    count_all(monitor, fed)
    assert min(step for step, _ in monitor.losses) > fed
    assert len(monitor.losses) < len(wanted)
    assert store.losses() == monitor.losses


def test_inputs_are_counted_in_the_bins_of_the_training(client: Client) -> None:
    """By hour and feature, missing values left out; the counts survive a restart, and another version's go."""
    stream, consumer = walks(200), live(client, MODEL)
    sample = np.linspace(-1, 1, 50)[:, None]
    trained = trained_inputs({"inputs": inputs_of(["w"], sample, sample < 2, np.arange(50), window_steps=10)})
    assert trained is not None
    monitor = follower(client, MODEL)
    monitor.watched = Watched(1, trained)
    for begin in range(0, 200, 25):
        consumer.take(stream, begin, begin + 25)
        monitor.step(None)
    edges = np.asarray(trained.features["w"].edges)
    newest = int(stream.step.max())
    for (version, hour), counted in monitor.inputs.items():
        values = stream.values[(stream.step == hour) & stream.present[:, 1], 1]
        assert version == 1
        assert counted.tolist() == np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1).tolist()
    assert {hour for _, hour in monitor.inputs} == {s for s in stream.step.tolist() if s >= newest - 10 - 24}
    again = follower(client, MODEL)
    assert {k: v.tolist() for k, v in again.inputs.items()} == {k: v.tolist() for k, v in monitor.inputs.items()}
    again.watched = Watched(2, trained)
    consumer.take(walks(210), 200, 210)
    again.step(None)
    assert {version for version, _ in PartitionStore(client, MODEL, 0).sums()[1]} == {2}


def test_what_is_read_at_once_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """After many small blocks large ones come, and the other way round: a step's observations stay within bounds."""
    monkeypatch.setattr(partition_monitor, "READ_OBSERVATIONS", 60)
    stream, consumer = walks(900), live(client, MODEL)
    monkeypatch.setattr(partition_monitor, "READ_AT_ONCE", 4)
    sizes = [1] * 100 + [30] * 20 + [1] * 200
    at = 0
    for size in sizes:
        consumer.take(stream, at, at + size)
        at += size
    monitor = follower(client, MODEL)
    counts = []
    while count := monitor.step(None):
        counts.append(count)
    assert max(counts) <= 60 + 3 * 30
    assert len(counts) <= 16
    assert_same(monitor.book, book_of(consumer.ledger))


def test_a_version_of_a_longer_horizon_than_the_model(client: Client) -> None:
    """It is scored with all its leads, and a restart knows as much of the past as the one before did."""
    stream, consumer = walks(400), live(client, MODEL)
    store = PartitionStore(client, MODEL, 0, "mine")
    monitor = PartitionMonitor(Ledger(client, MODEL, 0), store, FORM, 1)
    monitor.open()
    for begin in range(0, 400, 20):
        consumer.take(stream, begin, begin + 20)
        monitor.step(None)
        monitor.keep_trails(None)
        monitor = follower(client, MODEL, horizon=1)
    assert monitor.book.leads[1] == (1, 2, 3, 4)
    assert_same(monitor.book, book_of(consumer.ledger))


def side_by_side(consumer: Live, stream: Stream) -> None:
    """Version 2 is spun up from the beginning and joins at 200, answers from 400 on; 1 leaves at 550."""
    consumer.take(stream, 0, 200)
    spun = begun(consumer, 0)
    caught_up(spun, consumer.at)
    joined(consumer, spun)
    for begin, end, incumbent, shadows in ((200, 400, 1, {2}), (400, 550, 2, {1}), (550, 600, 2, set[int]())):
        roster = reseated(
            consumer.partition.roster, offset=consumer.at, step=consumer.newest_step, incumbent=incumbent,
            shadows=shadows, starts={},
        )  # fmt: skip
        consumer.seat(roster)
        for at in range(begin, end, 5):
            consumer.take(stream, at, at + 5)


def table_of(ledger: Ledger) -> pd.DataFrame:
    """A ledger's observations with their pairs, `v<version>_<lead>`, and the offset at which their block begins."""
    parts = []
    for block in ledger.blocks():
        values = np.where(block.present[:, 0], block.values[:, 0], np.nan)
        part = {"start": block.start, "slot": block.slot, "step": block.step, "value": values, "scale": block.scale}
        for version, pairs in block.pairs.items():
            part |= {f"v{version}_{k + 1}": pairs[:, k].astype(np.float64) for k in range(2)}
        parts.append(pd.DataFrame(part))
    return with_references(pd.concat(parts, ignore_index=True))


def test_only_live_cells_are_compared(client: Client) -> None:
    """As pandas has it from the ledger's pairs: what was forecast before both had joined was replayed, and is out."""
    stream, consumer = walks(600, seed=8), live(client, MODEL)
    side_by_side(consumer, stream)
    monitor = follower(client, MODEL)
    count_all(monitor)
    table = table_of(consumer.ledger)
    scale = table["scale"].where(table["seasonal_8"].notna() & (table["scale"] > 0)).astype(np.float64)
    joined_step = int(stream.step[:200].max())
    rows, replayed = [], 0
    for k in (1, 2):
        paired = table[f"v1_{k}"].notna() & table[f"v2_{k}"].notna() & scale.notna() & (table["start"] >= 200)
        both = paired & (table["step"] - k > joined_step)
        replayed += int((paired & ~both).sum())
        one, two = (((table[f"v{v}_{k}"] - table["value"]) / scale).where(both) ** 2 for v in (1, 2))
        rows.append(
            pd.DataFrame({"step": table["step"], "turned": table["start"] >= 400, "n": both, "1": one, "2": two})
        )
    wanted = pd.concat(rows).groupby(["step", "turned"]).sum().astype(float)
    wanted = wanted[wanted["n"] > 0]
    assert replayed > 10
    assert {key[1:] for key in monitor.duels} == {(1, 2), (2, 1)}
    assert max(step for step, *_ in monitor.duels) <= int(table["step"][table["start"] < 550].max())
    found = {
        (step, first == 2): duel if first == 1 else duel.turned() for (step, first, _), duel in monitor.duels.items()
    }
    assert sorted(found) == sorted(wanted.index)
    seen = np.array([found[key][:3] for key in wanted.index])
    np.testing.assert_allclose(seen, wanted.to_numpy(), rtol=1e-9)
    assert {duel[5:] for duel in monitor.duels.values()} == {(0, 0)}


def duels_of(ledger: Ledger) -> Duels:
    """The duels of all blocks of a ledger, counted in one go."""
    found: Duels = {}
    blocks = [block for block in ledger.blocks() if len(block)]
    for scored in Scorer(FORM, 4).score(blocks):
        duels.count(found, scored, tenures(ledger.roster(), blocks), None)
    return found


def test_restarts_change_no_bit_of_the_duels(client: Client) -> None:
    """Killed at any moment, and however many blocks are read at once; what is judged is let go, and stays so."""
    stream, consumer = walks(600, seed=8), live(client, MODEL)
    rng, monitor = np.random.default_rng(2), follower(client, MODEL)
    take = consumer.take

    def watched(stream: Stream, begin: int, end: int) -> None:
        nonlocal monitor
        take(stream, begin, end)
        if rng.random() < 0.5:
            monitor.step(None)
        if rng.random() < 0.2:
            monitor = follower(client, MODEL)

    consumer.take = watched  # type: ignore[method-assign]
    side_by_side(consumer, stream)
    count_all(monitor)
    wanted = duels_of(consumer.ledger)
    assert len(wanted) > 80
    assert monitor.duels == wanted
    store = PartitionStore(client, MODEL, 0)
    assert store.duels() == wanted
    judged = sorted(wanted)[40][0]
    consumer.seat([*consumer.partition.roster, Seat(1, "shadow", consumer.at, consumer.at, None, 0)])
    take(stream_of([("late", judged - 20 + i, (float(i * i), 1.0)) for i in range(40)]), 0, 40)
    monitor.step(None, judged)
    assert store.duels() == monitor.duels
    assert min(step for step, *_ in monitor.duels) == judged + 1
    assert monitor.duels.keys() > {key for key in wanted if key[0] > judged}
