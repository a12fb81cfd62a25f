"""The records of a seed: few series, everything in them that goes wrong, offsets with holes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumers.codec import RESENT_HEADER
from tests.faults.topics import Log, Written
from tests.integration.streams import START_MS, observation, troubled
from tests.streams import FORM

if TYPE_CHECKING:
    import random

DAY_MS = 86_400_000
STAMP_MS = START_MS + 400 * DAY_MS  # of every record: after all observations but those that are refused as `future`


def new_log(rng: random.Random, partition: int, records: int) -> Log:
    """The log of one partition with about so many records; nothing is visible yet."""
    series = rng.randint(2, 7)
    trouble = rng.choice((0.0, 0.02, 0.06))
    steps = max(3, records // series)
    written: list[Written] = []
    offset = 0
    for message in troubled(rng.randrange(1 << 30), series, steps, features=FORM.features, trouble=trouble):
        headers = [*message.headers]
        if rng.random() < trouble:
            headers.append((RESENT_HEADER, b"1"))
        key = None if message.key is None else b"p%d-" % partition + message.key
        value = message.value
        if value is not None:
            value = value.replace(b'"series-', b'"p%d-series-' % partition)
        written.append(Written(offset, key, value, STAMP_MS, headers))
        offset += 1 if rng.random() < 0.97 else rng.randint(2, 4)  # a transaction's marker, or compaction
    goodbye = observation(f"p{partition}-series-0", START_MS + (steps + 2) * 3_600_000, {"v": 1.0, "w": 2.0})
    written.append(Written(offset, goodbye.key, goodbye.value, STAMP_MS, ()))
    return Log(written)
