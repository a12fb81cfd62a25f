"""Every figure of the monitor equals what pandas makes of the pairs, over kills, a takeover, archive and trimming."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from models.windows import SCALINGS, WINDOWS, Book
from models.windows import figures as of_sums
from tests.integration.figures import Words, by_lead, differing, figures, references
from tests.integration.harness import wait
from tests.integration.monitors import MonitorProcess
from tests.integration.streams import START_MS, observation
from worker.store import PartitionStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import NewStack
    from tests.integration.harness import Message, Stack

INTERVAL_MS = 900_000
INTERVAL = pd.Timedelta(INTERVAL_MS, "ms")
DAYS = 34
SERIES = 6
PERIOD = 12  # steps
MAX_GAP = 5  # steps
HORIZON = 14  # more than a period: seasonal naive looks two of them back
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"horizon": HORIZON, "interval": "15min", "period": "3h", "max_gap": "75min"},
    "kafka": {"max_poll_records": 60, "session_timeout": "1s"},
    "ledger": {"retention": "2d", "snapshot_every": 500},
    "swap": {"spin_up_steps": 12, "spin_up": "3h"},
    "monitor": {"poll": "20ms", "lease": "2s"},
    "drift": {"calibration_steps": 6_000},  # more than there are: nothing here is about drift
}
ACCEPTED = 0.95  # of the records, at least
PARTS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)  # of the stream: between them something happens


def walks() -> pd.DataFrame:
    """Series whose loudness is 1 to 100,000, with gaps of both kinds and missing values; the first begins late."""
    rng = np.random.default_rng(7)
    steps = DAYS * 96 + 2  # ends within an hour
    parts = []
    for i in range(SERIES):
        at = np.arange(steps)
        value = 20 + 3 * np.sin(2 * np.pi * (at + 5 * i) / PERIOD) + np.cumsum(rng.normal(scale=0.5, size=steps))
        keep = rng.random(steps) > 0.02
        for start in rng.integers(100, steps - 100, 12).tolist():
            keep[start : start + int(rng.choice([2, MAX_GAP, MAX_GAP + 1, MAX_GAP + 2, 40]))] = False
        keep[: 700 if i == 0 else 0] = False
        value[rng.random(steps) < 0.02] = np.nan
        time_ms = START_MS + at * INTERVAL_MS
        parts.append(pd.DataFrame({"series": f"s{i}", "time_ms": time_ms, "value": value * 10.0**i})[keep])
    frame = pd.concat(parts).sort_values("time_ms", kind="stable", ignore_index=True)
    frame["time"] = pd.to_datetime(frame["time_ms"], unit="ms", utc=True)
    return frame


def messages(frame: pd.DataFrame) -> list[Message]:
    """The records; every fiftieth comes again, and every ninetieth once more when it is late."""
    found: list[Message] = []
    columns = (frame[name].tolist() for name in ("series", "time_ms", "value"))
    for i, (series, time_ms, value) in enumerate(zip(*columns, strict=True)):
        found.append(observation(series, time_ms, {"value": None if np.isnan(value) else value}))
        if i % 50 == 0:
            found.append(found[-1])
        if i % 90 == 89:
            found.append(found[-60])
    return found


def stored(stack: Stack) -> dict[Words, float]:
    """The figures of all versions, from what the monitors keep in Redis."""
    book, newest = Book(), 0
    stores = [PartitionStore(stack.redis, stack.model, number) for number in range(stack.partitions)]
    book.merge([store.sums()[0] for store in stores])
    newest = max(store.standing().newest or 0 for store in stores) * INTERVAL_MS // 3_600_000
    found: dict[Words, float] = {}
    for version in book.versions:
        for window in WINDOWS:
            sums = book.window(version, window, newest)
            for scaling in SCALINGS:
                made = of_sums(sums, book.leads[version], scaling)
                found["pairs", str(version), window] = made.pairs
                for at, lead in enumerate(made.leads):
                    words = (scaling, str(version), window)
                    for name, values in (
                        ("mae", made.mae),
                        ("rmse", made.rmse),
                        ("bias", made.bias),
                        ("mase_ratio", made.mase),
                    ):
                        found[name, lead, *words] = float(values[at])
                    for reference, values in made.skill.items():
                        found["skill_score", lead, reference, *words] = float(values[at])
    return {words: value for words, value in found.items() if not np.isnan(value)}


def shown(monitor: MonitorProcess, versions: set[str]) -> dict[Words, float]:
    """The figures of these versions as /metrics has them."""
    names = {"pairs", "mae", "rmse", "bias", "mase_ratio", "skill_score"}
    return {words: value for words, value in monitor.samples().items() if words[0] in names and versions & set(words)}


def run(stack: Stack, records: list[Message], observations: int) -> MonitorProcess:
    """The monitor that leads at the end of all that can happen to one; everything is counted."""
    cuts = [int(part * len(records)) for part in PARTS]
    parts = [records[begin:end] for begin, end in pairwise(cuts)]
    monitors = [stack_monitor(stack, 0)]  # before there is a ledger
    consumer = stack.consumer()
    stack.send(parts[0])
    monitors[0].reach(int(0.8 * cuts[1]))
    assert monitors[0].stop() == 0  # keeps its trails: blocks may be trimmed
    for number in (1, 2):
        monitors.append(stack_monitor(stack, number))
        if number == 1:
            stack.registry.nominate(2, expected=None, actor="ann", reason="test", now_ms=1)
        else:
            stack.registry.promote(2, expected=1, actor="ann", reason="test", now_ms=2)
        stack.send(parts[number])
        monitors[number].reach(int(ACCEPTED * cuts[number]) + len(parts[number]) // 2)
        monitors[number].kill()
    leader, other = stack_monitor(stack, 3), stack_monitor(stack, 4)
    stack.registry.nominate(3, expected=None, actor="ann", reason="test", now_ms=3)
    stack.send(parts[3])
    wait(lambda: leader.leads() or other.leads(), 10, "one of two to lead")
    leader, other = (leader, other) if leader.leads() else (other, leader)
    leader.reach(int(ACCEPTED * cuts[3]) + len(parts[3]) // 3)
    assert not other.leads()
    leader.pause()
    wait(other.leads, 10, "the one that stood by to lead")
    half = len(parts[4]) // 2
    stack.send(parts[4][:half])
    other.reach(int(ACCEPTED * cuts[4]) + half // 2)
    leader.resume()
    wait(lambda: leader.page("/metrics")[0] == 200 and not leader.leads(), 10, "the first one to stand by")
    stack.send(parts[4][half:])
    stack.done()
    other.reach(observations)
    assert other.stop() == 0
    wait(leader.leads, 10, "the one that stands by to lead again")
    leader.reach(observations)
    assert consumer.stop() == 0
    return leader


def stack_monitor(stack: Stack, number: int) -> MonitorProcess:
    """Start one more."""
    process = MonitorProcess(stack.words("monitor"), stack.directory / f"{stack.model}-monitor-{number}.log")
    stack.processes.append(process)
    return process


@pytest.mark.timeout(150)
def test_every_figure_equals_pandas(new_stack: NewStack, tmp_path: Path) -> None:
    """Killed twice, stopped once, taken over from, archived and trimmed: each figure is what pandas finds, to 1e-9."""
    archive = {"archive": {"path": str(tmp_path / "archive"), "rows": 400, "after": "6h"}}
    stack = new_stack(SETTINGS | archive, partitions=3)
    for seed in (1, 2):
        stack.register(seed=seed)
    long = stack.settings.architecture((1.0,) * HORIZON)
    stack.register(seed=3, architecture=msgspec.structs.replace(long, horizon=7, gain=(1.0,) * 7))
    frame = walks()
    monitor = run(stack, messages(frame), len(frame))
    assert monitor.counted() == len(frame)
    heads = stack.heads()
    assert min(head.trimmed if head else 0 for head in heads) > 0
    stack.output("pairs", "--format", "parquet", "--out", str(tmp_path / "pairs.parquet"))
    pairs = pd.read_parquet(tmp_path / "pairs.parquet")
    past = references(frame, INTERVAL, MAX_GAP, PERIOD, HORIZON)
    wanted = figures(by_lead(pairs, past, HORIZON), frame["time"].max())
    assert {words[-2] for words in wanted} == {"1", "2", "3"}
    assert {words[-1] for words in wanted} == set(WINDOWS)
    assert differing(stored(stack), wanted) == []
    now = shown(monitor, {"2", "3"})
    assert differing(now, {words: value for words, value in wanted.items() if words[-2] in ("2", "3")}) == []
