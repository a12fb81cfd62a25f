"""`killick monitor` as a process: waits for Redis, counts, stands by, and leaves in order."""

from __future__ import annotations

import io
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from consumers.ledger import Ledger
from models.registry import Registry
from models.server import connect
from tests.integration.harness import wait
from tests.integration.monitors import MonitorProcess
from tests.streams import FORM
from tests.worker.following import Tail, assert_same, book_of, live, walks
from worker import cli
from worker.store import ModelStore, PartitionStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from models.server import Client
    from tests.conftest import NewRedis
    from tests.consumers.living import Live

pytestmark = pytest.mark.services
MODEL = "watched"
WAIT_S = 20.0
SETTINGS = """
[model]
name = "watched"
features = ["v", "w"]
target = "v"
horizon = 4
period = "8h"
max_gap = "3h"
[redis]
url = "{url}"
timeout = "500ms"
[monitor]
poll = "20ms"
lease = "2s"
[log]
format = "json"
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], MonitorProcess]]:
    """A function that starts a monitor on the Redis at this URL."""
    made: list[MonitorProcess] = []

    def begin(url: str) -> MonitorProcess:
        config = tmp_path / "killick.toml"
        config.write_text(SETTINGS.format(url=url), encoding="utf-8")
        words = [sys.executable, "-m", "worker.cli", "--config", str(config), "monitor"]
        made.append(MonitorProcess(words, tmp_path / f"monitor-{len(made)}.log"))
        return made[-1]

    yield begin
    for process in made:
        process.kill()


def feed(client: Client, records: int) -> Live:
    """A ledger with so many observations."""
    consumer = live(client, MODEL)
    Registry(client, MODEL).set_partitions(1)
    consumer.take(walks(300), 0, records)
    consumer.publish()
    return consumer


def test_blocks_are_let_go_for_good_when_no_monitor_runs(redis_url: str, tmp_path: Path) -> None:
    """`--leave` lets blocks go that wait to be counted or archived; not while a monitor is at work."""
    config = tmp_path / "killick.toml"
    config.write_text(SETTINGS.format(url=redis_url), encoding="utf-8")
    words = ["--config", str(config), "monitor", "--leave"]
    with closing(connect(redis_url)) as client:
        feed(client, 50)
        store = PartitionStore(client, MODEL, 0, "mine")
        store.take()
        store.need("monitor", 3)
        store.need("archive", 2)
        shared = ModelStore(client, MODEL, "mine")
        assert shared.lease(60_000)
        errors = io.StringIO()
        assert cli.run(words, errors) == 2
        assert "a monitor of model 'watched' is at work: stop it first" in errors.getvalue()
        assert store.needed().keys() >= {"monitor", "archive"}
        shared.release()
        assert cli.run(words, errors) == 0
        assert not store.needed().keys() & {"monitor", "archive"}


def test_it_counts_until_it_is_told_to_stop(redis_url: str, start: Callable[[str], MonitorProcess]) -> None:
    """Figures are on /metrics; SIGTERM ends it with 0, its trails are kept, and nobody leads."""
    with closing(connect(redis_url)) as client:
        feed(client, 200)
        process = start(redis_url)
        process.reach(200, WAIT_S)
        process.ready()
        assert process.page("/healthz")[0] == 200
        samples = process.samples()
        assert samples["skill_score", "all", "persistence", "scaled", "1", "life"] < 1
        assert samples["pairs", "1", "life"] > 100
        assert samples["monitor_lag_records", "0"] == 0
        assert samples["ledger_blocks", "0"] == 2
        assert (samples["redis_up",], samples["monitor_leader",]) == (1, 1)
        assert process.stop() == 0
        standing = PartitionStore(client, MODEL, 0).standing()
        assert (standing.observations, standing.trails_place) == (200, standing.place)
        assert not ModelStore(client, MODEL).led()


def test_it_shows_what_was_counted_before(redis_url: str, start: Callable[[str], MonitorProcess]) -> None:
    """After a restart the figures are there at once, though no observation comes."""
    with closing(connect(redis_url)) as client:
        feed(client, 200)
    process = start(redis_url)
    process.reach(200, WAIT_S)
    wait(lambda: len(process.samples()) > 50, WAIT_S, "the figures")
    before = {words: value for words, value in process.samples().items() if words[0] in ("mae", "skill_score", "pairs")}
    assert before
    process.kill()
    process = start(redis_url)
    process.reach(200, WAIT_S)
    after = process.samples()
    assert {words: after.get(words) for words in before} == pytest.approx(before)


def test_it_waits_for_redis(new_redis: NewRedis, start: Callable[[str], MonitorProcess]) -> None:
    """Away at the start, and later: alive, not ready, saying why; when Redis is back it goes on where it stood."""
    server = new_redis()
    with closing(connect(server.url)) as client:
        feed(client, 100)
    server.stop()
    process = start(server.url)
    for observations in (100, 100):
        wait(lambda: "Redis did not answer" in process.waiting_for(), WAIT_S, "it to say what it waits for")
        assert process.page("/healthz")[0] == 200
        assert process.samples()["redis_up",] == 0
        server.start()
        process.reach(observations, WAIT_S)
        process.ready()
        assert process.samples()["redis_up",] == 1
        server.stop()
    wait(lambda: "Redis did not answer" in process.waiting_for(), WAIT_S, "it to say what it waits for")
    assert process.stop() == 0


def test_redis_that_forgot_everything_is_counted_anew(redis_url: str, start: Callable[[str], MonitorProcess]) -> None:
    """Keys that are gone, or as they were before, are no error: what the ledger holds is what is counted."""
    with closing(connect(redis_url)) as client:
        empty = Tail(client, MODEL)
        feed(client, 100)
        process = start(redis_url)
        process.reach(100, WAIT_S)
        empty.lose()
        wait(lambda: process.counted() == 0, WAIT_S, "it to see that nothing is there")
        feed(client, 60)
        process.reach(60, WAIT_S)
        assert process.counted() == 60
        assert process.running


def test_redis_that_lost_its_tail_is_counted_from_there(
    new_redis: NewRedis, start: Callable[[str], MonitorProcess]
) -> None:
    """Restarted with a cut append-only file under a running monitor; the consumer then writes other blocks."""
    server, stream = new_redis({"appendfsync": "always"}), walks(300)
    with closing(connect(server.url)) as client:
        consumer = feed(client, 100)
        process = start(server.url)
        process.reach(100, WAIT_S)
        process.pause()
        kept = server.log.stat().st_size
        process.resume()
        consumer.take(stream, 100, 200)
        process.reach(200, WAIT_S)
        log = server.log
        server.kill()
        with log.open("r+b") as file:
            file.truncate(kept)
        server.start()
        head = consumer.ledger.head()
        assert head is not None
        assert head.next == 100
        again = live(client, "another")
        again.take(stream, 0, 100)
        again.ledger = Ledger(client, MODEL, 0, "again")
        again.ledger.take(start=0, form=FORM.digest(), topic_id="t", partitions=1, chunk_slots=2)
        for begin in range(100, 300, 40):
            again.take(stream, begin, begin + 40)
        wait(lambda: PartitionStore(client, MODEL, 0).standing().observations == 300, WAIT_S, "all to be counted")
        assert_same(PartitionStore(client, MODEL, 0).sums()[0], book_of(again.ledger))
        process.reach(300, WAIT_S)
        assert process.counted() == 300


def test_a_model_that_nobody_knows_is_waited_for(redis_url: str, start: Callable[[str], MonitorProcess]) -> None:
    """No consumer ran yet, or the name is wrong: it leads, shows no figure, and is ready."""
    process = start(redis_url)
    wait(process.leads, WAIT_S, "it to lead")
    process.ready()
    samples = process.samples()
    assert samples["monitor_observations_total",] == 0
    assert not any(words[0] in ("mae", "pairs", "event_time_seconds") for words in samples)
    assert process.stop() == 0


def test_one_stands_by_until_the_other_ends(redis_url: str, start: Callable[[str], MonitorProcess]) -> None:
    """It is ready, shows no figures that another one shows, and leads as soon as that one has left."""
    with closing(connect(redis_url)) as client:
        feed(client, 100)
    first = start(redis_url)
    first.reach(100, WAIT_S)
    second = start(redis_url)
    second.ready()
    assert set(second.samples()) == {("monitor_leader",), ("redis_up",)}
    assert second.samples()["monitor_leader",] == 0
    assert first.stop() == 0
    second.reach(100, WAIT_S)
    assert second.leads()
