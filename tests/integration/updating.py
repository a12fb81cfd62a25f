"""A killick that updates itself, for tests: a world that turns, a stream of it that goes on, retrainers as processes.

Series that swing with one period, and from a step on with another: what an update has to learn, and learns quickly.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from consumers.roster import incumbent_of
from models.times import rfc3339
from models.weights import fresh_weights, weights_to_bytes
from tests.integration.beside import beside
from tests.integration.harness import ROOT, START_S, ConsumerProcess, wait
from tests.integration.monitors import MonitorProcess
from tests.integration.streams import HOUR_MS, START_MS, observation
from worker.child import Child, free_port
from worker.gate_told import GateTold, read_gate
from worker.requests import RequestStore
from worker.store import ModelStore, PartitionStore
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from models.audit import AuditEntry
    from models.verdict import Verdict
    from tests.integration.harness import Message, Stack
    from worker.requests import Waiting

SERIES = 6
BEFORE, AFTER = 8.0, 5.0  # periods, steps
VERDICT_S = 180.0  # on a busy machine
SETTINGS: dict[str, dict[str, Any]] = {
    "training": {"epochs": 6, "rate": 1e-2, "chunk": 12, "segments": 4, "closing_epochs": 1},
    "ledger": {"snapshot_every": 1_000},
    "swap": {"guard": "90d"},
    "drift": {"calibration_steps": 6_000, "trend_p": 1e-12},  # only who asks for less meets a drift
    "monitor": {"poll": "100ms", "lease": "3s"},
    "retraining": {
        "strategies": ["update-on-new"],
        "rates": [1e-2],
        "recents": ["all"],
        "epochs": 5,
        "repeats": 2,
        "new_data": "12d",
        "evaluation": 0.35,
        "reports": "",
    },
    "judgement": {"harm": "2d", "deadline": "180d", "breaker_steps": 5},
}


def settings(**changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings above, some of them changed, by section and name."""
    return {name: {**SETTINGS.get(name, {}), **changes.get(name, {})} for name in {**SETTINGS, **changes}}


def observations(step: int, turn: int) -> list[Message]:
    """What every series says at a step; the same at every call."""
    period = BEFORE if step < turn else AFTER
    noise = np.random.default_rng(step).normal(size=SERIES)
    waves = np.sin(2 * np.pi * step / period + np.arange(SERIES))
    values = 10 + (1 + np.arange(SERIES)) * (3.0 * waves + 0.3 * noise)
    return [
        observation(f"s{at}", START_MS + step * HOUR_MS, {"value": round(float(value), 4)})
        for at, value in enumerate(values)
    ]


class Flow:
    """A stream that goes on: `per_s` steps a second, with a turn at one of them."""

    def __init__(self, stack: Stack, first: int, turn: int, per_s: float) -> None:
        self._stack = stack
        self._turn = turn
        self._per_s = per_s
        self._enough = threading.Event()
        self.step = first  # that is sent next

    def send(self, steps: int) -> None:
        """Send so many steps at once."""
        messages = [one for step in range(self.step, self.step + steps) for one in observations(step, self._turn)]
        self._stack.send(messages)
        self.step += steps

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Steps come while the block runs; afterwards all of them are answered."""
        self._enough.clear()
        with beside("flow", self._work, self._enough.set):
            yield
        self._stack.done(60.0)

    def _work(self) -> None:
        due = time.monotonic()
        while not self._enough.is_set():
            self.send(1)
            due += 1 / self._per_s
            self._enough.wait(max(0.0, due - time.monotonic()))


class RetrainerProcess(ConsumerProcess):
    """One `killick retrainer`, started when it is made; with a log of its own."""

    def __init__(self, stack: Stack, number: int) -> None:
        self.port = free_port()
        self.log = stack.directory / f"{stack.model}-retrainer-{number}.log"
        command = [shutil.which("env") or "env", f"KILLICK_RETRAINING__PORT={self.port}", *stack.words("retrainer")]
        self.told_to_end = False
        self._child = Child(self.log.stem, command, self.log, ROOT)
        self._child.start(lambda: self._child.logged('"action":"started"') or not self.running, START_S)

    @property
    def pid(self) -> int:
        """The process's id, by which its name as a worker tells it."""
        return self._child.pid


class Updating:
    """A stack with what updates it, and what is to be seen of that."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.requests = RequestStore(stack.redis, stack.model)
        self.verdicts = VerdictStore(stack.redis, stack.model)

    def monitor(self) -> MonitorProcess:
        """Start a `killick monitor`."""
        stack = self.stack
        log = stack.directory / f"{stack.model}-monitor-{len(stack.processes)}.log"
        found = MonitorProcess(stack.words("monitor"), log)
        stack.processes.append(found)
        return found

    def retrainer(self) -> RetrainerProcess:
        """Start one more `killick retrainer`."""
        found = RetrainerProcess(self.stack, len(self.stack.processes))
        self.stack.processes.append(found)
        return found

    def persistence(self, seed: int, until: int, parent: int | None = None) -> int:
        """A version that forecasts the last value, trained, as it says, on all before a step."""
        architecture = self.stack.settings.architecture((1.0,) * self.stack.settings.model.horizon)
        weights = fresh_weights(architecture, seed)
        return self._register(architecture, weights, seed, until, parent)

    def broken(self, like: int, until: int, seed: int = 99) -> int:
        """A version whose forecasts are far off: one of which the last layer shouts."""
        architecture, _, weights = self.stack.registry.load(like)
        louder = {name: w * 80 + 30 if name == "head.kernel" else w for name, w in weights.items()}
        return self._register(architecture, louder, 100 + seed, until, like)

    def _register(self, architecture: Any, weights: Any, seed: int, until: int, parent: int | None) -> int:
        return self.stack.registry.register(
            architecture,
            weights_to_bytes({name: w.astype(np.float32) for name, w in weights.items()}, architecture),
            training={"data": {"until": rfc3339(START_MS + (until - 1) * HOUR_MS)}},
            parent=parent,
            actor="test",
            reason=f"seed {seed}",
            now_ms=START_MS + seed,
        )

    def ask(self, why: str = "to be sure") -> str:
        """Ask for a retraining, as a person does; the request's id."""
        said = self.stack.output("retrain", "--reason", why, "--actor", "ann")
        return said.splitlines()[0].removeprefix("asked: request ")

    def at_once(self, *commands: list[str]) -> tuple[list[int], list[str]]:
        """Exit codes of commands that are given at the same time, and what they said."""
        running = [
            subprocess.Popen(
                self.stack.words(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for words in commands
        ]
        said = [one.communicate(timeout=120)[0] for one in running]
        return [one.returncode for one in running], said

    def counted(self) -> int:
        """Observations that a monitor has counted, over all partitions."""
        stores = [PartitionStore(self.stack.redis, self.stack.model, n) for n in range(self.stack.partitions)]
        return sum(store.standing().observations for store in stores)

    def gate(self) -> GateTold:
        """What gate and guard are at."""
        return read_gate(ModelStore(self.stack.redis, self.stack.model).state("gate")[1], GateTold)

    def waiting(self) -> list[Waiting]:
        """The requests that no verdict has answered."""
        return self.requests.waiting()

    def verdict(self, count: int = 1, timeout_s: float = VERDICT_S) -> Verdict:
        """The newest verdict, as soon as there are so many."""
        self.until(lambda: len(self.verdicts.recent(count)) >= count, timeout_s, f"verdict {count}")
        return self.verdicts.recent(1)[0]

    def training(self) -> str:
        """The worker that trains, once the first training is under way."""
        self.until(lambda: (now := self.requests.progress()) is not None and now.total > 1, VERDICT_S, "a training")
        return next(one.worker for one in self.waiting() if one.worker)

    def answers(self, version: int, timeout_s: float = VERDICT_S) -> None:
        """Wait until every partition is answered by a version, and the registry names it."""

        def reached() -> bool:
            return self.answering() == {version} == {self.stack.registry.aliases().incumbent}

        self.until(reached, timeout_s, f"version {version} to answer")

    def answering(self) -> set[int | None]:
        """Who answers anywhere."""
        return {incumbent_of(self.stack.ledger(number).roster()) for number in range(self.stack.partitions)}

    def states(self) -> dict[str, str]:
        """How the partitions follow the registry, with why not."""
        states = [self.stack.ledger(number).state() for number in range(self.stack.partitions)]
        return {state.kind: state.why for state in states if state is not None}

    def until(self, ready: Any, timeout_s: float, what: str) -> None:
        """Wait while all processes live."""

        def reached() -> bool:
            self.stack.alive()
            return bool(ready())

        wait(reached, timeout_s, lambda: f"{what}: {self.told()}", 0.05)

    def told(self) -> str:
        """Where everything stands."""
        return (
            f"{self.stack.registry.aliases()}; {self.gate()}; waiting {self.waiting()}; "
            f"verdicts {[(one.id, one.outcome, one.sentence) for one in self.verdicts.recent(9)]}; "
            f"audit {[str(entry) for entry in self.stack.registry.audit(9)]}"
        )

    def audited(self, *events: str) -> list[AuditEntry]:
        """The changes of these kinds, oldest first."""
        return [entry for entry in self.stack.registry.audit() if entry.event in events]


def write_history(stack: Stack, steps: int) -> str:
    """A CSV file of the first steps; its name."""
    lines = ["time,series,value"]
    for step in range(steps):
        for message in observations(step, steps):
            body = json.loads(message.value or b"")
            lines.append(
                f"{rfc3339(START_MS + step * HOUR_MS)},{(message.key or b'').decode()},{body['values']['value']}"
            )
    path = stack.directory / "history.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
