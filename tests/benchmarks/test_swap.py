"""What `benchmarks.swap` makes of the logs: which latencies count where, and when a new version answered."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._swap import PARTITIONS, Change, Logs, first_forecasts, longest_silence, spans

BEGAN_MS = 1_000_000


@pytest.fixture
def logs() -> Logs:
    """Ten seconds of an observation a millisecond, in turns by partition; in the sixth second all wait for its end."""
    came = BEGAN_MS + np.arange(10_000)
    answered = came + 5
    inside = (came >= BEGAN_MS + 5_000) & (came < BEGAN_MS + 6_000)
    answered[inside] = BEGAN_MS + 6_005
    partition = np.arange(10_000) % PARTITIONS
    version = np.where(came >= BEGAN_MS + 5_100 + 20 * partition, 2, 1)
    return Logs(came, answered, version, partition, again=0)


def test_latencies_count_by_when_their_observation_came(logs: Logs) -> None:
    """Before ends with the command, during a second after the last commit; what waited counts where it came."""
    change = Change("promote", 2, BEGAN_MS / 1000 + 5.0, BEGAN_MS / 1000 + 5.2)
    found = spans(logs, [change], 1.0)
    assert [len(found[name]) for name in ("before", "during", "after")] == [1_000, 1_200, 1_000]
    assert found["before"].tolist() == [5] * 1_000
    assert int(found["during"].max()) == 1_005
    assert int((found["during"] > 5).sum()) == 1_000
    assert found["after"].tolist() == [5] * 1_000


def test_a_version_answers_when_its_first_forecast_is_in_the_last_partition(logs: Logs) -> None:
    """The wait is counted: forecasts that were held back until the end of the sixth second came then."""
    change = Change("promote", 2, BEGAN_MS / 1000 + 5.0, BEGAN_MS / 1000 + 5.2)
    assert first_forecasts(logs, change) == pytest.approx(1.005, abs=0.001)
    assert longest_silence(logs, change) == pytest.approx(1.0, abs=0.01)
    assert logs.lost == 0
