"""What a stream came to in spite of all that was done to it, in numbers instead of assertions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.integration.oracle import expected, letters_by_source, load_version, predictions_by_source, recovered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tests.integration.harness import Stack
    from tests.integration.oracle import Expected


@dataclass
class Outcome:
    """A stream's records, what is lacking, what came twice with equal bytes, and what is not as it should be."""

    records: int = 0
    lost: int = 0  # forecasts and dead letters that never came
    duplicated: int = 0  # forecasts that came again, with equal bytes
    mismatches: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether it is that of one uninterrupted run."""
        return not self.lost and not self.mismatches


def outcome(stack: Stack) -> Outcome:
    """Compare ledgers and topics with one uninterrupted run over the same records."""
    found = Outcome()
    version = load_version(stack)
    predictions = stack.predictions()
    by_partition = predictions_by_source(predictions)
    letters = letters_by_source(stack.dead_letters())
    for number, records in enumerate(stack.records()):
        want = expected(stack, records, version, seed=number)
        have = recovered(stack, number, version)
        found.records += len(records)
        for name in ("state", "pairs", "counters"):
            if getattr(have, name) != getattr(want.state, name):
                found.mismatches.append(f"partition {number}: {name} {_shown(have, want, name)}")
        _judge_forecasts(found, number, by_partition.get(number, {}), want.forecasts)
        _judge_letters(found, number, letters.get(number, {}), want.refusals)
        if stack.ledger(number).refusals():
            found.mismatches.append(f"partition {number}: refusals still wait in the ledger")
    found.duplicated = len(predictions) - sum(len(v) for at in by_partition.values() for v in at.values())
    return found


def _shown(have: Any, want: Expected, name: str) -> str:
    """The counters that differ; of digests only that they do."""
    if name != "counters":
        return "differ"
    mine, theirs = have.counters, want.state.counters
    names = sorted(n for n in mine.keys() | theirs.keys() if mine.get(n) != theirs.get(n))
    return ", ".join(f"{n}: {mine.get(n)} instead of {theirs.get(n)}" for n in names)


def _judge_forecasts(
    found: Outcome, number: int, have: Mapping[int, set[bytes]], want: Mapping[int, NDArray[np.float32]]
) -> None:
    found.lost += len(want.keys() - have.keys())
    found.mismatches += [f"partition {number}: a forecast for offset {o}" for o in sorted(have.keys() - want.keys())]
    for offset in sorted(have.keys() & want.keys()):
        numbers = [json.loads(value)["values"] for value in have[offset]]
        issued = [np.array([np.nan if x is None else x for x in row], np.float32).tobytes() for row in numbers]
        if issued != [(want[offset] + np.float32(0)).tobytes()]:
            found.mismatches.append(f"partition {number}: offset {offset} has {len(issued)} values, or another")


def _judge_letters(found: Outcome, number: int, have: Mapping[int, dict[str, str]], want: Mapping[int, str]) -> None:
    found.lost += len(want.keys() - have.keys())
    reasons = {offset: letter["killick-reason"] for offset, letter in have.items()}
    wrong = sorted(offset for offset, reason in reasons.items() if want.get(offset) != reason)
    found.mismatches += [f"partition {number}: a dead letter for offset {o}, {reasons[o]}" for o in wrong]
