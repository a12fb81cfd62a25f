"""`killick demo`: a year of weather through the whole service, on embedded servers that keep nothing.

    weather.csv ─┬─ first 56 days ─► killick fit ──► version 1
                 └─ the rest ─► the code of killick produce ─► Tansu ─► killick consumer ─► ledger
    killick monitor: skill, drift ─► request ─► killick retrainer: candidates, verdict ─► version 2, a shadow
                     live trial ─► promotion …… killick rollback, on purpose

The children are the real commands, with a killick.toml of their own; KILLICK_ variables are kept from them. The
consumer is killed once on the way. The producer waits while candidates are trained and spin up: a year passes in a
minute here, and training takes the seconds that it takes. What was chosen with a look at this very year is said in
worker/demo_weather.py: the skill says that the parts work together, not how well they forecast what they have not seen.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import DataError
from worker import settings_reading, wiring
from worker.child import Child
from worker.demo_feed import Feed, bad_records
from worker.demo_scene import Scene
from worker.demo_story import on_trial, outcome, waits_for
from worker.demo_watch import Watcher
from worker.demo_weather import FIT_DAYS, Weather, write_settings
from worker.embedded import embedded_services
from worker.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.demo_view import View
    from worker.settings import Settings

ROOT = Path(__file__).parents[1]
KILL_AT = 0.5  # share of the stream's records
ROLL_BACK_AT = 0.9  # share of its time
TRIAL_PAUSE_S = 0.03  # before each hour while a candidate is tried: so that it can be looked at
BAD_SERIES = "JFK"
PARTITIONS = 2
AHEAD = 2_000  # records that the producer may be ahead of the monitor: four weeks
TICK_S = 0.15
AT_ONCE_S = 1.0
SILENT_S = 60.0  # without progress for so long, something is wrong
CLOSING_S = 30.0  # at most: the monitor has to count what came last
TOPICS = {"observations": PARTITIONS, "predictions": PARTITIONS, "observations.deadletter": 1}
ROLL_BACK = ["rollback", "--actor", "operator", "--reason", "the demo shows the way back"]


def run(view: View, speed: float | None) -> tuple[Scene, float]:
    """The scene at the end, and how many seconds it took. Shows what happens in `view`.

    Raises:
        ConfigError: the extra `demo` is not installed.
        ServiceUnreachable: an embedded server did not start.
        DataError: the fit or the consumer failed, or nothing moves any more.
    """
    began_s = time.monotonic()
    weather = Weather.read()
    with ExitStack() as stack:
        directory = stack.enter_context(scratch("demo"))
        services = stack.enter_context(embedded_services())
        config = directory / "killick.toml"
        settings = write_settings(config, services)
        _create_topics(settings)
        demo = Demo(settings, config, directory, weather, speed, stack, began_s)
        stack.enter_context(view)
        demo.play(view)
    return demo.scene, time.monotonic() - began_s


def _create_topics(settings: Settings) -> None:
    admin = wiring.admin(settings)
    try:
        for name, partitions in TOPICS.items():
            admin.create_topic(name, partitions)
    finally:
        admin.close()


class Demo:
    """The processes, the producer and the watcher, and what happens when."""

    def __init__(
        self,
        settings: Settings,
        config: Path,
        directory: Path,
        weather: Weather,
        speed: float | None,
        stack: ExitStack,
        began_s: float,
    ) -> None:
        environment = settings_reading.environment_without_settings() | {"PYTHONUTF8": "1"}
        words = {
            "fit": ["fit", str(weather.path), "--time", "time_hour", "--series", "origin", "--until", f"{FIT_DAYS}d"],
            "consumer": ["consumer"],
            "monitor": ["monitor"],
            "retrainer": ["retrainer"],
            "rollback": ROLL_BACK,
        }
        children = [_command(name, arguments, config, directory, environment) for name, arguments in words.items()]
        self._fit, self._consumer, self._monitor, self._retrainer, self._rollback = children
        for child in children:
            stack.callback(child.kill)
        client = wiring.redis_client(settings)
        stack.callback(client.close)
        self._registry = wiring.registry(settings, client)
        form = settings.series_form()
        parts = weather.parts()
        sink = wiring.sink(settings)
        stack.callback(sink.close, 0.5)
        bad = bad_records(parts[0], BAD_SERIES, form.target)
        self._feed = Feed(sink, settings.kafka.observations, parts, bad, speed)
        stack.callback(self._feed.stop)
        self.scene = Scene(
            form, settings.model.horizon, began_s, total=self._feed.total,
            first_ms=int(weather.stream.time_ms[0]), last_ms=int(weather.stream.time_ms[-1]),
        )  # fmt: skip
        self._watcher = Watcher(settings, client, self.scene, self._fit.log, self._consumer.log)
        stack.callback(self._watcher.close)
        self._moved: tuple[object, ...] = ()
        self._moved_s = began_s
        self._bad = bad

    def play(self, view: View) -> None:
        """Everything from the fit to the last forecast.

        Raises:
            DataError: as `run`.
        """
        scene = self.scene
        scene.stage = "fitting"
        self._consumer.start(lambda: True, AT_ONCE_S)
        self._fit.start(lambda: True, AT_ONCE_S)
        self._monitor.start(lambda: True, AT_ONCE_S)
        self._retrainer.start(lambda: True, AT_ONCE_S)
        self._feed.start("waits: the first version is being fitted")
        while self._fit.running():
            self._tick(view)
        scene.versions = tuple(info.version for info in self._registry.versions())
        if not scene.versions:
            raise DataError("the fit failed", f"it ended with:\n{self._fit.log_tail()}")
        self._tick(view)
        scene.say(f"version {scene.versions[-1]} is fitted and registered; the stream begins", mood="good")
        scene.stage = "streaming"
        self._feed.wait("")
        while not (self._feed.done and scene.published == scene.total and scene.kills and scene.opened >= PARTITIONS):
            self._tick(view)
            self._stir()
        self._close(view)

    def _stir(self) -> None:
        """What is done to the stream on its way: bad records, a kill and a rollback, said openly; and waiting."""
        scene = self.scene
        if self._bad and self._feed.bad_sent == len(self._bad):
            words = "; ".join(f"one {record.what}" for record in self._bad)
            scene.say(f"now {len(self._bad)} bad records, on purpose: {words}")
            self._bad = []
        away = scene.kills > 0 and scene.opened < PARTITIONS
        # Tansu tells the end of a log that rests too low (worker/embedded.py): records have to flow while a consumer
        # starts that had read them all.
        reason = "" if away else waits_for(scene)
        if scene.committed >= KILL_AT * scene.total and not scene.kills and not (reason or on_trial(scene)):
            self._kill()
        if scene.share >= ROLL_BACK_AT and not scene.roll_back and not (reason or on_trial(scene)):
            self._roll_back()
        if self._rollback.running():
            reason = reason or "an operator rolls back"
        self._feed.wait(reason)
        self._feed.until(scene.committed - (0 if away else scene.behind) + AHEAD)
        self._feed.slow(TRIAL_PAUSE_S if on_trial(scene) else 0.0)

    def _kill(self) -> None:
        scene = self.scene
        self._consumer.kill()
        self._watcher.look()
        scene.kills, scene.opened = 1, 0
        scene.say(f"kill -9 of the consumer, on purpose, at {scene.count('observations'):,} observations", mood="bad")
        scene.say("a new one starts: it takes up from snapshot and ledger")
        scene.consumer_note = "killed; a new one starts"
        self._consumer.start(lambda: True, AT_ONCE_S)

    def _roll_back(self) -> None:
        """Once near the end, if there is something to roll back."""
        scene = self.scene
        scene.roll_back = True
        scene.say(outcome(scene), mood="good" if scene.promoted else "bad")
        if scene.promoted is None or set(scene.answering) != {scene.promoted[2]}:
            scene.say("so there is nothing to roll back by hand")
            return
        scene.say(f"now an operator rolls back, on purpose: killick {' '.join(ROLL_BACK[:1])}", mood="bad")
        self._rollback.start(lambda: True, AT_ONCE_S)

    def _close(self, view: View) -> None:
        """Let the consumer finish, read what it published last, and let the monitor count it."""
        scene = self.scene
        scene.stage = "closing"
        view.show(scene)
        self._consumer.stop()
        deadline_s = time.monotonic() + CLOSING_S
        self._watcher.look(report=True)
        while time.monotonic() < deadline_s and (
            scene.read < scene.count("forecasts") or scene.letters < sum(scene.refused.values()) or scene.behind
        ):
            self._watcher.look(report=True)
            view.show(scene)
        self._retrainer.stop()
        self._monitor.stop()
        self._watcher.look(report=True)
        scene.stage = "done"
        view.show(scene)

    def _tick(self, view: View) -> None:
        """Look, show, and see that something moves."""
        scene, now_s = self.scene, time.monotonic()
        scene.sent, scene.feed_note = self._feed.sent, self._feed.note
        self._watcher.look()
        view.show(scene)
        if self._feed.failure is not None:
            raise self._feed.failure
        for child in (self._consumer, self._monitor, self._retrainer):
            if scene.stage == "streaming" and not child.running():
                raise DataError(f"{child.name} ended", f"its log ends with:\n{child.log_tail()}")
        training = scene.updating.progress if scene.updating is not None else None
        moved = (scene.sent, scene.published, len(scene.fit_lines) + scene.opened, training and training.done)
        if moved != self._moved:
            self._moved, self._moved_s = moved, now_s
        if now_s - self._moved_s > SILENT_S:
            raise DataError(
                f"nothing moved for {SILENT_S:.0f} s: {scene.sent:,} records sent, {scene.published:,} answered",
                f"the consumer's log ends with:\n{self._consumer.log_tail()}",
            )
        time.sleep(max(0.0, TICK_S - (time.monotonic() - now_s)))


def _command(name: str, arguments: list[str], config: Path, directory: Path, environment: Mapping[str, str]) -> Child:
    """`killick --config … NAME …` as a child process of this interpreter."""
    words = [sys.executable, "-m", "worker.cli", "--config", str(config), *arguments]
    return Child(f"killick {name}", words, directory / f"{name}.log", ROOT, environment)
