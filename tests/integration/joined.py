"""What pandas makes of the input and the predictions topic, beside what killick made of them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.skill import ErrorSums, persistence, seasonal_naive, skill

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.integration.harness import Stack

HOUR = pd.Timedelta(hours=1)
PERIOD_STEPS = 24


@dataclass(frozen=True)
class Outcome:
    """Counts, and skill against persistence and seasonal naive by lead, `(H,)` each; both as pandas has them."""

    observations: int
    pairs: int
    counters: dict[str, int]
    persistence: NDArray[np.float64]
    seasonal: NDArray[np.float64]


def with_runs(frame: pd.DataFrame, max_gap_steps: int) -> pd.DataFrame:
    """The observations (series, time, value) in order, with `gap` steps left out before, and `run`: since a reset."""
    frame = frame.sort_values(["series", "time"]).reset_index(drop=True)
    hours = frame.groupby("series")["time"].diff().dt.total_seconds() / 3600
    frame["gap"] = hours.fillna(1).round().astype("int64") - 1
    frame["run"] = (frame["gap"] > max_gap_steps).groupby(frame["series"]).cumsum()
    return frame


def predictions_frame(stack: Stack) -> pd.DataFrame:
    """One row per series and time of issue, with columns `f1 … fH`; a repeated record must have equal bytes."""
    by_key: dict[tuple[bytes, str], bytes] = {}
    for record in stack.predictions():
        body = json.loads(record.value)
        assert by_key.setdefault((record.key, body["issued_at"]), record.value) == record.value
        assert body["version"] == 1
        assert body["model"] == stack.model
    bodies = [json.loads(value) for value in by_key.values()]
    values = np.array([[np.nan if x is None else x for x in body["values"]] for body in bodies], np.float32)
    leads = {f"f{k + 1}": values[:, k] for k in range(values.shape[1])}
    issued = pd.to_datetime([body["issued_at"] for body in bodies], utc=True)
    return pd.DataFrame({"series": [body["series"] for body in bodies], "time": issued, **leads})


def pairs_frame(stack: Stack) -> pd.DataFrame:
    """What `killick pairs` prints."""
    table = pd.read_csv(io.StringIO(stack.output("pairs", "--format", "csv")), dtype=str)
    for name in table.columns[2:]:
        table[name] = table[name].astype(np.float64)  # by Python's own reading of a number
    table["time"] = pd.to_datetime(table["time"], utc=True)
    return table.sort_values(["series", "time"]).reset_index(drop=True)


def join(frame: pd.DataFrame, predictions: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """The observations of the target with the forecasts made for their times in the same run, by lead."""
    issued = predictions.merge(frame[["series", "time", "run"]], on=["series", "time"], how="inner")
    assert len(issued) == len(predictions)
    joined = frame[frame["value"].notna()]
    for k in range(1, horizon + 1):
        made = issued[["series", "time", "run", f"f{k}"]].assign(time=issued["time"] + k * HOUR)
        joined = joined.merge(made, on=["series", "time", "run"], how="left")
    leads = [f"f{k}" for k in range(1, horizon + 1)]
    return joined[joined[leads].notna().any(axis=1)].sort_values(["series", "time"]).reset_index(drop=True)


def compare(stack: Stack, frame: pd.DataFrame, *, extra: dict[str, int] | None = None) -> Outcome:
    """Assert that killick and pandas agree on what became of the observations (series, time, value).

    `extra`: what else is to be counted, as {"duplicates": 3}.
    """
    horizon = stack.settings.model.horizon
    max_gap = stack.settings.max_gap_steps
    frame = with_runs(frame, max_gap)
    predictions = predictions_frame(stack)
    assert len(predictions) == len(frame)
    joined, pairs = join(frame, predictions, horizon), pairs_frame(stack)
    pd.testing.assert_series_equal(pairs["series"], joined["series"], check_dtype=False)
    assert (pairs["time"] == joined["time"]).all()
    assert (pairs["value"] == joined["value"]).all()
    for k in range(1, horizon + 1):
        np.testing.assert_array_equal(pairs[f"lead_{k}"].astype(np.float32), joined[f"f{k}"].astype(np.float32))
    bridged = frame[(frame["gap"] > 0) & (frame["gap"] <= max_gap)]
    wanted = {
        "observations": len(frame),
        "forecasts": len(frame),
        "pairs": len(joined),
        "gaps_bridged": len(bridged),
        "steps_bridged": int(bridged["gap"].sum()),
        "series_resets": int((frame["gap"] > max_gap).sum()),
        "missing_targets": int(frame["value"].isna().sum()),
        **(extra or {}),
    }
    assert counters(stack) == {name: number for name, number in wanted.items() if number}
    by_pandas = [_skill_by_pandas(frame, joined, horizon, season) for season in (False, True)]
    for ours, theirs in zip(_skill_by_killick(frame, pairs, horizon), by_pandas, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    return Outcome(len(frame), len(joined), wanted, *by_pandas)


def counters(stack: Stack) -> dict[str, int]:
    """What the ledgers counted, summed over the partitions, as `killick status --json` says it."""
    total: dict[str, int] = {}
    status: dict[str, Any] = json.loads(stack.output("status", "--json"))
    for partition in status["partitions"]:
        for name, number in partition["counters"].items():
            total[name] = total.get(name, 0) + number
    return total


def _skill_by_pandas(frame: pd.DataFrame, joined: pd.DataFrame, horizon: int, season: bool) -> NDArray[np.float64]:  # noqa: FBT001
    found = []
    known = frame[frame["value"].notna()][["series", "time", "value"]]
    for k in range(1, horizon + 1):
        back = -(-k // PERIOD_STEPS) * PERIOD_STEPS if season else k
        earlier = known.assign(time=known["time"] + back * HOUR).rename(columns={"value": "reference"})
        both = joined.merge(earlier, on=["series", "time"], how="inner").dropna(subset=[f"f{k}"])
        error = both[f"f{k}"].astype(np.float64) - both["value"]
        found.append(1 - (error**2).mean() / ((both["reference"] - both["value"]) ** 2).mean())
    return np.array(found)


def _skill_by_killick(frame: pd.DataFrame, pairs: pd.DataFrame, horizon: int) -> list[NDArray[np.float64]]:
    first = frame["time"].min()
    sums: list[list[tuple[ErrorSums, ErrorSums]]] = [[], []]
    for name, observed in frame.groupby("series"):
        size = int((frame["time"].max() - first) / HOUR) + 1
        x, known = np.zeros(size), np.zeros(size, np.bool_)
        seen = observed[observed["value"].notna()]
        at = ((seen["time"] - first) / HOUR).round().astype(int).to_numpy()
        x[at], known[at] = seen["value"], True
        mine = pairs[pairs["series"] == name]
        forecasts = np.full((size, horizon), np.nan)
        at = ((mine["time"] - first) / HOUR).round().astype(int).to_numpy()
        forecasts[at] = mine[[f"lead_{k}" for k in range(1, horizon + 1)]].to_numpy(np.float32)
        errors, paired = forecasts - x[:, None], ~np.isnan(forecasts)
        for total, (reference, valid) in zip(
            sums, (persistence(x, known, horizon), seasonal_naive(x, known, horizon, PERIOD_STEPS)), strict=True
        ):
            both = paired & valid
            total.append((ErrorSums.over(errors, both), ErrorSums.over(reference - x[:, None], both)))
    results = []
    for total in sums:
        ours, theirs = total[0]
        for a, b in total[1:]:
            ours, theirs = ours + a, theirs + b
        results.append(skill(ours.mse, theirs.mse))
    return results
