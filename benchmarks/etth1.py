"""The first 3,000 hours of ETTh1 through the whole service, over restarts and a kill, compared with pandas.

Fits on the first 84 days, streams all 3,000 hours of the seven columns, and asserts that forecasts, pairs, counters
and skill equal a calculation in pandas, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from tests.integration.harness import Stack
from tests.integration.joined import Outcome, compare
from tests.services.kafka import KafkaBroker, missing
from tests.services.redis import REDIS_MISSING, RedisServer, redis_binary

HOURS = 3_000
FIT = "84d"
LEADS = (1, 6, 12, 24)
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"horizon": 24},
    "network": {"units": [32], "lags": 24},
    "training": {"epochs": 20},
    "kafka": {"max_poll_records": 500, "session_timeout": "1s"},
    "ledger": {"snapshot_every": 2_000},
}


def run(stack: Stack, source: Path) -> tuple[Outcome, float]:
    """Fit, stream with a restart and a kill, compare; the outcome and the seconds of the stream."""
    frame = pd.read_csv(source, nrows=HOURS)
    file = stack.directory / "ETTh1.csv"
    frame.to_csv(file, index=False)
    columns = ("--time", "date", "--series-from-columns")
    print(stack.output("fit", str(file), *columns, "--until", FIT), file=sys.stderr)
    began = time.monotonic()
    stack.output("produce", str(file), *columns)
    process = stack.consumer()
    stack.reach(4_000)
    process.kill()
    process = stack.consumer()
    stack.reach(12_000)
    process.stop()
    process = stack.consumer()
    stack.done()
    process.stop()
    seconds = time.monotonic() - began
    observed = frame.melt(id_vars="date", var_name="series", value_name="value")
    observed["time"] = pd.to_datetime(observed["date"], utc=True)
    return compare(stack, observed[["series", "time", "value"]]), seconds


def main() -> int:
    """Run it; print a table of the skill by lead, or with --json one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data", help="folder of ETTh1.csv (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    words = parser.parse_args()
    source = Path(words.data) / "ETTh1.csv"
    lacking = missing() or ("" if redis_binary() else REDIS_MISSING)
    if lacking or not source.exists():
        print(lacking or f"{source} is not there: name its folder with --data", file=sys.stderr)
        return 3 if lacking else 2
    with (
        KafkaBroker() as kafka,
        RedisServer(redis_binary()) as redis,
        tempfile.TemporaryDirectory() as folder,
        Stack(kafka.bootstrap_servers, redis.url, Path(folder), settings=SETTINGS) as stack,
    ):
        outcome, seconds = run(stack, source)
    rows = [
        {"lead": k, "persistence": round(outcome.persistence[k - 1], 4), "seasonal": round(outcome.seasonal[k - 1], 4)}
        for k in LEADS
    ]
    if words.json:
        counts = {"observations": outcome.observations, "pairs": outcome.pairs, "seconds": round(seconds, 1)}
        print(json.dumps({**counts, "equal": True, "rows": rows}))
        return 0
    print(
        f"{outcome.observations} observations, as many forecasts, {outcome.pairs} pairs: equal to pandas, bit for bit"
    )
    print(f"{'lead':>6} {'skill against persistence':>26} {'against seasonal naive':>24}")
    for row in rows:
        print(f"{row['lead']:>6} {row['persistence']:>26} {row['seasonal']:>24}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
