"""Streams of records with everything in them that goes wrong: gaps, missing values, repeats, late and bad ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from models.times import rfc3339
from tests.integration.harness import Message

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR_MS = 3_600_000
START_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
FAR_MS = 4_102_444_800_000  # 2100-01-01: beyond any record's timestamp
RUBBISH = (
    b"rubbish",
    b"",
    b"[1]",
    b'{"time":"yesterday","values":{"value":1}}',
    b'{"time":1704067200000,"values":{}}',
    b'{"time":1704067200000,"values":{"value":"12"}}',
    b'{"series":"elsewhere","time":1704067200000,"values":{"value":1}}',
    b'{"time":%d,"values":{"value":1}}' % FAR_MS,
)


def observation(series: str, time_ms: int, values: dict[str, float | None], *, keyed: bool = True) -> Message:
    """One observation's record; times that are odd hours stand as text, the others as milliseconds."""
    time = rfc3339(time_ms) if time_ms // HOUR_MS % 2 else time_ms
    body = {"time": time, "values": values} if keyed else {"series": series, "time": time, "values": values}
    return Message(series.encode(), json.dumps(body).encode())


def smooth(rng: np.random.Generator, steps: int) -> np.ndarray:
    """A daily cycle, a slow wander and noise, `(steps,)`."""
    hours = np.arange(steps)
    daily = 4.0 * np.sin(2 * np.pi * hours / 24 + rng.uniform(0, 6))
    walk = np.cumsum(rng.normal(scale=0.5, size=steps))
    return np.asarray(np.round(10 + daily + walk + rng.normal(scale=0.3, size=steps), 4))


def troubled(
    seed: int, series: int, steps: int, *, features: tuple[str, ...] = ("value",), trouble: float = 0.02
) -> Iterator[Message]:
    """Records of several series, interleaved: of each kind of trouble a share of about `trouble`."""
    rng = np.random.default_rng(seed)
    names = [f"series-{i}" for i in range(series)]
    columns = {name: {feature: smooth(rng, steps) for feature in features} for name in names}
    silent = dict.fromkeys(names, 0)
    for step in range(steps):
        for name in rng.permutation(names).tolist():
            if silent[name] > 0:
                silent[name] -= 1
                continue
            values: dict[str, float | None] = {f: float(columns[name][f][step]) for f in features}
            if rng.random() < trouble:
                values[features[int(rng.integers(len(features)))]] = None
            good = observation(name, START_MS + step * HOUR_MS, values, keyed=bool(rng.random() < 0.5))
            yield good
            chance = rng.random(5) < trouble
            if chance[0]:
                yield good  # the very same
            if chance[1]:  # the same time, another value
                yield observation(name, START_MS + step * HOUR_MS, dict.fromkeys(features, -99.5))
            if chance[2] and step > 3:  # before the last one
                back = int(rng.integers(1, 3 if rng.random() < 0.5 else step))
                yield observation(name, START_MS + (step - back) * HOUR_MS, dict.fromkeys(features, 0.25))
            if chance[3]:
                yield Message(name.encode(), RUBBISH[int(rng.integers(len(RUBBISH)))], (("h", b"\x00\xff"),))
            if chance[4]:
                silent[name] = int(rng.integers(1, 5)) if rng.random() < 0.8 else int(rng.integers(7, 40))
