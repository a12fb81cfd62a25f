"""A world that turns: what a retraining's tests stand on. Series that swing, and from a step on swing otherwise."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from consumers.ledger import Ledger
from consumers.past import recorded
from models.decision import JudgementLimits
from models.learning import TrainingSettings
from models.registry import Registry
from models.strategies import Budget, Grid
from models.times import rfc3339
from models.weights import fresh_weights, weights_to_bytes
from tests.streams import FORM, architecture_of, stream_of
from tests.worker.following import count_all, follower, live
from worker.lessons import SERIES_SEED, Lessons, Shares, Sources
from worker.requests import RequestStore
from worker.retrainer import Plans, Retrainer, Rules
from worker.settling import Settler
from worker.store import PartitionStore, Request
from worker.verdict_making import Impact
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumers.past import Stretch
    from models.server import Client
    from tests.consumers.living import Live
    from tests.streams import Stream

BEGIN = 400_000  # step
TURN = BEGIN + 420
END = BEGIN + 900
NAMES = ("a", "b", "c")
LIMITS = JudgementLimits(
    gate="both", screen=0.05, alpha=0.01, budget=0.2, harm_alpha=0.01, harm_steps=24, deadline_steps=700
)
GRID = Grid(
    strategies=("update-on-new", "new-on-new"),
    rates=(3e-3, 1e-2),
    recents=(None,),
    update=Budget(4, 2),
    fresh=Budget(6, 3, 1e-2),
)
TRAINING = TrainingSettings(chunk=12, segments=4, closing_epochs=1, burn_in_chunks=1)


def swings(begin: int = BEGIN, end: int = END, turn: int = TURN, seed: int = 3) -> Stream:
    """Three series that swing with a period of 8 steps, from `turn` on with one of 5, and some noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(begin, end):
        for i, name in enumerate(NAMES):
            period = 8.0 if step < turn else 5.0
            value = (1 + i) * (3.0 * np.sin(2 * np.pi * step / period + i) + 0.3 * rng.normal())
            rows.append((name, step, (float(value), float(rng.normal()))))
    return stream_of(rows)


def filled(client: Client, model: str, stream: Stream | None = None, block: int = 300) -> Live:
    """A ledger that holds the stream, counted by a monitor, and a registry whose version 1 was fitted before it."""
    registry = Registry(client, model)
    register(registry, 0)
    registry.set_partitions(1)
    stream = stream or swings()
    consumer = live(client, model)
    for begin in range(0, len(stream), block):
        consumer.take(stream, begin, min(begin + block, len(stream)))
        consumer.publish()
    monitor = follower(client, model)
    count_all(monitor)
    return consumer


def register(registry: Registry, seed: int, parent: int | None = None, **training: Any) -> int:
    """A version with fresh weights that has seen what was before the turn."""
    architecture = architecture_of()
    return registry.register(
        architecture,
        weights_to_bytes(fresh_weights(architecture, seed), architecture),
        training={"data": {"until": rfc3339((TURN - 1) * FORM.interval_ms)}, **training},
        parent=parent,
        actor="ann",
        reason=f"seed {seed}",
        now_ms=1_700_000_000_000 + seed,
    )


def request(name: str, trigger: str = "operator", **evidence: Any) -> Request:
    """A request of that name."""
    return Request(id=name, trigger=trigger, goal="restore", why=f"{name} asks", evidence=evidence, created_ms=7)


def drift(name: str, **evidence: Any) -> Request:
    """A request because of a drift at the turn."""
    return request(name, "drift", version=1, drifts=[{"at_step": TURN}], **evidence)


def lessons(client: Client, model: str, tried: int | None = None, **shares: Any) -> Lessons:
    """What lessons are gathered by."""
    registry = Registry(client, model)
    given: dict[str, Any] = {
        "history_steps": 10_000, "series": 100, "validation": 0.2, "evaluation": 0.4, "recent_share": 0.5,
        "recent_inputs_steps": 48, **shares,
    }  # fmt: skip

    def stream(*, since_step: int, alive: Callable[[], None]) -> tuple[list[Stretch], int]:
        ledgers = [Ledger(client, model, number) for number in range(registry.partitions())]
        return recorded(ledgers, None, since_step=since_step, series=given["series"], seed=SERIES_SEED, alive=alive)

    sources = Sources(
        registry=registry,
        recorded=stream,
        histories=None,
        newest=partial(_newest, client, model),
        tried=lambda: tried,
    )
    return Lessons(sources, FORM, Shares(**given), TRAINING, 1)


def _newest(client: Client, model: str) -> int | None:
    return PartitionStore(client, model, 0).standing().newest


def retrainer(
    client: Client,
    model: str,
    worker: str = "w1",
    stopping: Any = lambda: False,
    tried: int | None = None,
    **rules: Any,
) -> Retrainer:
    """A worker with a small grid."""
    given: dict[str, Any] = {
        "cooldown_steps": 100, "new_steps": 200, "executor": "processes", "workers": 1, "repeats": 2,
        "timeout_s": 300.0,
    }  # fmt: skip
    plans = Plans(model, FORM.interval_ms, GRID, Rules(**(given | rules)), LIMITS, Impact(0.0, ""))
    requests, verdicts = RequestStore(client, model, worker), VerdictStore(client, model)
    settler = Settler(worker, requests, verdicts, Registry(client, model), LIMITS)
    return Retrainer(worker, requests, verdicts, settler, lessons(client, model, tried=tried), plans, stopping)
