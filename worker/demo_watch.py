"""The demo's watcher: reads what anybody could read (ledgers, topics, logs) and fills the scene with it."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from consumers.deadletters import to_letter
from consumers.kafka import Source
from consumers.messages import Prediction
from models.scaling import SeriesState
from models.times import DAY_MS, rfc3339
from worker import wiring, wiring_updating
from worker.demo_scene import Latest
from worker.demo_story import Story
from worker.skill_report import read_report
from worker.standing import standing_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from consumers.codec import Record
    from consumers.ledger import Ledger
    from models.blocks import Block
    from models.drift_limits import Drift
    from models.scaling import Rows
    from models.server import Client
    from worker.demo_scene import Scene
    from worker.settings import Settings

POLL_S = 0.01
POLLS = 4  # at most, of one topic in one look
REPORT_EVERY_S = 1.0
UPDATING_EVERY_S = 0.25
VERDICTS = 20  # the newest ones
TOLD = frozenset({"started", "opened", "resumed", "rewound", "mismatch", "hole", "lost"})


@dataclass
class _Followed:
    """One partition's ledger, as far as it was read."""

    ledger: Ledger
    state: SeriesState
    after: int = -1
    names: list[str] = field(default_factory=list)


class Watcher:
    """Fills a scene; `look` is called again and again, from one thread."""

    def __init__(self, settings: Settings, client: Client, scene: Scene, fit_log: Path, consumer_log: Path) -> None:
        self._settings = settings
        self._client = client
        self._scene = scene
        self._followed: list[_Followed] = []
        self._gaps: dict[tuple[int, int], list[str]] = {}
        self._fit = Lines(fit_log)
        self._consumer = Lines(consumer_log)
        self._predictions = _reader(settings, settings.kafka.predictions)
        self._letters = _reader(settings, settings.kafka.dead_letters)
        self._decode = msgspec.json.Decoder(Prediction).decode
        self._refused: set[tuple[int, int]] = set()
        self._digests: dict[tuple[bytes | None, str], bytes] = {}
        self._reported_s = self._updated_s = 0.0
        self._story = Story(scene)
        self._drifts: set[tuple[str, int]] = set()

    def look(self, *, report: bool = False) -> None:
        """Take in what is new; what the monitor keeps now and then, or when a `report` is asked for.

        Raises:
            ServiceUnreachable: Redis did not answer.
        """
        self._scene.fit_lines += self._fit.new()
        self._read_log()
        self._read_ledgers()
        self._read_predictions()
        self._read_letters()
        now_s = time.monotonic()
        if report or now_s - self._reported_s >= REPORT_EVERY_S:
            self._reported_s = now_s
            self._read_report()
        if report or now_s - self._updated_s >= UPDATING_EVERY_S:
            self._updated_s = now_s
            self._read_updating()

    def close(self) -> None:
        """Let the connections go."""
        self._predictions.close()
        self._letters.close()

    def _read_log(self) -> None:
        scene = self._scene
        for line in self._consumer.new():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            action, message = entry.get("action"), str(entry.get("message", ""))
            if action == "waiting":
                scene.consumer_note = message.removeprefix("waiting: ")
                scene.say(f"consumer waits: {scene.consumer_note}")
            elif action in TOLD:
                scene.consumer_note = "reads its ledger" if action == "started" else ""
                scene.opened += action == "opened"
                bad = action in {"mismatch", "hole", "lost", "rewound"}
                scene.say(f"consumer: {message}", mood="bad" if bad else "good")

    def _read_ledgers(self) -> None:
        scene, form = self._scene, self._scene.form
        if not self._followed:
            self._followed = [
                _Followed(ledger, SeriesState(form)) for ledger in wiring.ledgers(self._settings, self._client)
            ]
        counters: dict[str, int] = {}
        committed = published = series = 0
        for one in self._followed:
            head = one.ledger.head()
            if head is None:
                continue
            committed, published = committed + head.next, published + head.mark
            for name, amount in one.ledger.counters().items():
                counters[name] = counters.get(name, 0) + amount
            for block in one.ledger.blocks(one.after):
                one.after = block.end
                if len(block):
                    self._take_in(one, block)
            series += len(one.names)
        self._tell_gaps()
        scene.counters, scene.series = counters, series
        scene.committed, scene.published = committed, published

    def _read_report(self) -> None:
        scene = self._scene
        report = read_report(self._settings, self._client)
        scene.watched(report)
        fresh: dict[int, list[Drift]] = {}
        for found in report.told.found:
            if (found.drift.detector, found.time_ms) not in self._drifts:
                self._drifts.add((found.drift.detector, found.time_ms))
                fresh.setdefault(found.time_ms, []).append(found.drift)
        for time_ms, drifts in fresh.items():
            names = ", ".join(drift.detector for drift in drifts)
            scene.say(f"drift, {names}: {drifts[0].words}", at=rfc3339(time_ms)[:16], mood="bad")

    def _read_updating(self) -> None:
        """Who runs where, what the registry's audit has, and how far requests, training, verdict and trial are."""
        scene = self._scene
        found = [standing for one in self._followed if (standing := standing_of(one.ledger)) is not None]
        scene.answering = tuple(one.incumbent.version for one in found if one.incumbent is not None)
        scene.shadows = frozenset.intersection(*(frozenset(one.shadows) for one in found)) if found else frozenset()
        scene.audit = wiring.registry(self._settings, self._client).audit()
        scene.versions = tuple(
            one.version for one in scene.audit if one.event == "register" and one.version is not None
        )
        now = wiring_updating.updating(self._settings, self._client, VERDICTS)
        if now.waiting and (scene.updating is None or not scene.updating.waiting):
            self._read_report()  # first the drift, then what it asks for
        self._story.tell(now)

    def _take_in(self, one: _Followed, block: Block) -> None:
        """The newest values, and what happened to the series."""
        scene = self._scene
        if int(block.slot.max()) >= len(one.names):
            one.names = one.ledger.names()
        rows = one.state.look(block.slot, block.step, block.values, block.present)
        one.state.absorb(rows)
        scene.now_ms = max(scene.now_ms, int(block.step.max()) * scene.form.interval_ms)
        target = scene.form.target_index
        for slot, value, there in zip(
            block.slot.tolist(), block.values[:, target].tolist(), block.present[:, target].tolist(), strict=True
        ):
            if there:
                scene.values[one.names[slot]] = value
        for step, missing, name in _happened(rows, one.names):
            self._gaps.setdefault((step, missing), []).append(name)

    def _tell_gaps(self) -> None:
        """One line for all series that missed the same steps, once the others had the time to miss them too."""
        scene = self._scene
        for (step, missing), names in sorted(self._gaps.items()):
            if scene.stage == "streaming" and step * scene.form.interval_ms > scene.now_ms - DAY_MS:
                continue
            del self._gaps[step, missing]
            what = f"{missing} hours" if missing > 1 else "an hour"
            text = f"{what} missing, bridged" if missing else "too long a gap, the memory begins anew"
            moment = rfc3339(step * scene.form.interval_ms)[:16]
            scene.say(f"{', '.join(sorted(names))}: {text}", at=moment, mood="plain" if missing else "bad")

    def _read_predictions(self) -> None:
        scene = self._scene
        for record in _polled(self._predictions):
            found = self._decode(record.value or b"")
            digest = hashlib.blake2b(record.value or b"", digest_size=16).digest()
            known = self._digests.setdefault((record.key, found.issued_at), digest)
            before = scene.read
            scene.read = len(self._digests)
            if scene.read == before:
                scene.again += known == digest
                scene.differing += known != digest
            scene.latest[(record.key or b"").decode()] = Latest(found.issued_at, tuple(found.values))

    def _read_letters(self) -> None:
        for record in _polled(self._letters):
            letter = to_letter(record)
            if (letter.partition, letter.offset) in self._refused:  # it came again, as it may after a kill
                continue
            self._refused.add((letter.partition, letter.offset))
            self._scene.letters = len(self._refused)
            self._scene.say(f"refused, {letter.reason}: {letter.error}", mood="bad")


class Lines:
    """The lines of a file that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new(self) -> list[str]:
        """The complete lines since the last call, without the empty ones."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return [line for line in whole.decode(errors="replace").splitlines() if line.strip()]


def _happened(rows: Rows, names: list[str]) -> Iterator[tuple[int, int, str]]:
    """Every gap: its first step, how many steps were bridged (0: none, the series began anew), and the series."""
    slots = rows.slot[rows.lane]
    for lane in np.flatnonzero(rows.again).tolist():
        yield int(rows.step[rows.lane == lane].min()), 0, names[int(rows.slot[lane])]
    for slot in np.unique(slots).tolist():
        steps = np.sort(rows.step[(slots == slot) & (rows.source < 0)])
        for run in np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1):
            if len(run):
                yield int(run[0]), len(run), names[slot]


def _reader(settings: Settings, topic: str) -> Source:
    """A topic from its first record on, all partitions."""
    kafka = settings.kafka
    source = Source(kafka.bootstrap_servers, topic, "", manual=True)
    for change in source.changes():
        for number in change.partitions:
            source.start(number, 0)
    return source


def _polled(source: Source) -> Iterator[Record]:
    for _ in range(POLLS):
        found = source.poll(POLL_S)
        if not found:
            return
        for records in found.values():
            yield from records
