"""A `killick api` of a test: the real server on a real port, in a thread of its own, and a model that it serves."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import httpx

from consumers.roster import Seat
from models.registry import Registry
from models.server import connect
from models.verdict import Attempted, Calibration, Compared, Epoch, Judged, Trial, Verdict
from tests.models.versions import register
from tests.streams import architecture_of
from tests.worker.following import count_all, follower, live, walks
from worker import settings_reading
from worker.api import ApiService
from worker.requests import RequestStore
from worker.store import Request
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.settings import Settings

MODEL = "weather"
TOKEN = "a-token-of-a-test-7f3c"  # noqa: S105 - it opens nothing else
BEARS = {"Authorization": f"Bearer {TOKEN}"}
BY = {"actor": "ann", "reason": "better in winter"}
RECORDS = 300
FILE = """
[model]
name = "weather"
features = ["v", "w"]
target = "v"
interval = "1h"
horizon = 4
period = "8h"
max_gap = "3h"
half_life = "12h"
[kafka]
bootstrap_servers = "127.0.0.1:1"
assignment = "manual"
[redis]
url = "{url}"
timeout = "{timeout}"
[api]
port = 0
token_file = "{token}"
failures = {failures}
"""


def settings_file(folder: Path, redis_url: str, *, failures: int = 10, timeout: str = "2s") -> Path:
    """A settings file of the model, with a token; Kafka is away."""
    token, found = folder / "token", folder / "killick.toml"
    token.write_text(TOKEN + "\n")
    found.write_text(FILE.format(url=redis_url, token=token, failures=failures, timeout=timeout))
    return found


def settings_of(file: Path) -> Settings:
    """The settings of a file."""
    return settings_reading.load(file).settings


@contextmanager
def served(settings: Settings) -> Iterator[httpx.Client]:
    """A client of the API of these settings, which bears the token."""
    service = ApiService(settings)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        with httpx.Client(base_url=service.url, headers=BEARS, timeout=20.0) as client:
            yield client
    finally:
        service.stop()
        thread.join(20.0)
    assert not thread.is_alive()


def path(name: str) -> str:
    """The path of a route of the model."""
    return f"/v1/models/{MODEL}/{name}"


def verdict(name: str, version: int | None = None) -> Verdict:
    """A verdict with one of everything."""
    tried = Attempted(
        strategy="update-on-new", rate=1e-4, recent_steps=None, seed=1, outcome="trained", validation_mse=0.4,
        diagnosis="good", words="a good fit", best_epoch=1, gradient_steps=10, seconds=0.5,
        curve=(Epoch(epoch=1, train_loss=0.5, validation_loss=0.6),),
    )  # fmt: skip
    calibration = Calibration(block_steps=6, scale=0.1, lag1=0.05, steps=400)
    return Verdict(
        id=name, requests=(name,), trigger="http", goal="improve", why="a new sensor", model=MODEL,
        interval_ms=3_600_000, created_ms=1_772_366_400_000, seconds=12.5, incumbent=1, outcome="promote",
        sentence="update-on-new is better", version=version, chosen="update-on-new", leads=(1, 4), attempts=(tried,),
        judged=(Judged(name="incumbent", mse=0.5, mae=1.0, skill=0.25, by_lead=(0.25, 0.75)),),
        compared=(
            Compared(
                name="update-on-new", difference=0.1, low=0.05, high=0.15, statistic=2.5, p_value=0.01, p_holm=0.02
            ),
        ),
        trial=Trial(mode="superiority", alpha=0.01, calibration=calibration, harm_steps=24, deadline_steps=720),
    )  # fmt: skip


def make_model(redis_url: str) -> None:
    """Versions 1 (it answers), 2 (the candidate) and 3; one partition that is counted; a verdict, and a request."""
    with closing(connect(redis_url)) as client:
        registry = Registry(client, MODEL)
        for seed in range(3):
            register(registry, architecture_of(), seed, parent=1 if seed else None)
        registry.set_partitions(1)
        registry.nominate(2, expected=None, actor="retrainer", reason="better offline", now_ms=1_772_366_400_000)
        consumer = live(client, MODEL)
        stream = walks(RECORDS)
        for begin in range(0, RECORDS, 50):
            if begin == RECORDS // 2:
                consumer.seat([Seat(1, "incumbent", 0, 0), Seat(2, "shadow", begin, begin)])
            consumer.take(stream, begin, begin + 50)
        consumer.publish()
        count_all(follower(client, MODEL))
        VerdictStore(client, MODEL).write(verdict("first", 2), "w", [], before=0.0, spends=0.01)
        asked = Request(id="r", trigger="drift", goal="restore", why="it lost", evidence={"p": 0.1}, created_ms=1)
        RequestStore(client, MODEL).ask(asked)
