"""What must come out: one uninterrupted run over the same records and roster, without Kafka and Redis.

And what came out: the state that is recovered from the ledger, and the topics as a plain client reads them.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from consumers.codec import Decoder
from consumers.recovery import Recovery
from consumers.stream import Arrivals, Version
from models.network import Network, configure
from tests.uninterrupted import Outcome, outcome_of, uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.integration.harness import Stack

MAX_CUT = 700  # records in one batch of the oracle; the consumers cut elsewhere
_loaded: WeakKeyDictionary[Stack, dict[int, Version]] = WeakKeyDictionary()


@dataclass
class Comparison:
    """A stream's records, what is lacking, what came twice with equal bytes, and what is not as it should be."""

    records: int = 0
    lost: int = 0  # forecasts and dead letters that never came
    duplicated: int = 0  # forecasts that came again, with equal bytes
    mismatches: list[str] = field(default_factory=list)
    wanted: list[Outcome] = field(default_factory=list, repr=False)  # of the uninterrupted run, by partition

    @property
    def exact(self) -> bool:
        """Whether all is as in one uninterrupted run."""
        return not self.lost and not self.mismatches


def check(stack: Stack) -> list[Outcome]:
    """Assert that ledgers and topics are bit for bit what one uninterrupted run gives, which is given back."""
    found = compare(stack)
    assert found.exact, found
    return found.wanted


def compare(stack: Stack) -> Comparison:
    """Compare ledgers and topics with one uninterrupted run over the same records and rosters."""
    found = Comparison()
    predictions = stack.predictions()
    by_partition = predictions_by_source(predictions)
    letters = letters_by_source(stack.dead_letters())
    for number, records in enumerate(stack.records()):
        where = f"partition {number}: "
        want, have = expected(stack, number, records), recovered(stack, number)
        found.records += len(records)
        found.mismatches += [where + _shown(name, want, have) for name in want.differences(have)]
        _judge_forecasts(found, where, by_partition.get(number, {}), want.forecasts)
        _judge_letters(found, where, letters.get(number, {}), want.refusals)
        if stack.ledger(number).refusals():
            found.mismatches.append(where + "refusals still wait in the ledger")
        found.wanted.append(want)
    found.duplicated = len(predictions) - sum(len(copies) for at in by_partition.values() for copies in at.values())
    return found


def expected(stack: Stack, number: int, records: Sequence[Any]) -> Outcome:
    """The outcome of one uninterrupted run over a partition's records, cut into batches by chance."""
    decoder = Decoder(stack.form, stack.settings.max_ahead_ms)
    offsets = [record.offset for record in records]

    def arrivals(start: int, end: int) -> Arrivals:
        return decoder.decode(records[bisect_left(offsets, start) : bisect_left(offsets, end)], start, end)

    return uninterrupted(
        stack.ledger(number).roster(),
        lambda version: loaded(stack, version),
        stack.form,
        arrivals,
        _cuts(number, offsets[-1] + 1 if offsets else 0),
        max_series=stack.settings.model.max_series,
    )


def recovered(stack: Stack, number: int) -> Outcome:
    """The outcome as the ledger has it: newest snapshots, the blocks after them folded again."""
    ledger = stack.ledger(number)
    head = ledger.head()
    assert head is not None, f"partition {number} has no ledger"
    versions = {seat.version: loaded(stack, seat.version) for seat in ledger.roster()}
    recovery = Recovery(ledger, head, stack.form, versions)
    for batch in recovery.run():
        assert not any(replayed.mismatch for replayed in batch), "a replayed block gave other bits"
    return outcome_of(recovery.partition, ledger.blocks(), ledger.counters(), ledger.history())


def loaded(stack: Stack, number: int) -> Version:
    """A registered version, on the machine's TensorFlow; the same one at every call."""
    versions = _loaded.setdefault(stack, {})
    if number not in versions:
        configure(threads=1)
        architecture, _, weights = stack.registry.load(number)
        versions[number] = Version(number, architecture, Network(architecture, weights))
    return versions[number]


def predictions_by_source(records: Iterable[Any]) -> dict[int, dict[int, set[bytes]]]:
    """The distinct values of the forecasts, by source partition and source offset."""
    found: dict[int, dict[int, set[bytes]]] = {}
    for record in records:
        headers = dict(record.headers)
        at = found.setdefault(int(headers["source-partition"]), {})
        at.setdefault(int(headers["source-offset"]), set()).add(record.key + b"\0" + record.value)
    return {
        number: {offset: {v.partition(b"\0")[2] for v in values} for offset, values in at.items()}
        for number, at in found.items()
    }


def letters_by_source(records: Iterable[Any]) -> dict[int, dict[int, dict[str, str]]]:
    """The headers of the dead letters, the last of each name, by source partition and source offset."""
    found: dict[int, dict[int, dict[str, str]]] = {}
    for record in records:
        headers = {name: content.decode(errors="replace") for name, content in record.headers}
        number, offset = int(headers["killick-partition"]), int(headers["killick-offset"])
        found.setdefault(number, {})[offset] = headers
    return found


def _cuts(seed: int, end: int) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    at = 0
    while at < end:
        yield at
        at += int(rng.integers(1, MAX_CUT))
    yield end


def _shown(name: str, want: Outcome, have: Outcome) -> str:
    """What differs; counters with their values."""
    kind, _, key = name.partition(" ")
    if kind != "counters":
        return name
    return f"{key}: {have.counters.get(key)} instead of {want.counters.get(key)}"


def _judge_forecasts(
    found: Comparison, where: str, have: Mapping[int, set[bytes]], want: Mapping[int, tuple[int, bytes]]
) -> None:
    found.lost += len(want.keys() - have.keys())
    found.mismatches += [f"{where}a forecast for offset {o}" for o in sorted(have.keys() - want.keys())]
    for offset in sorted(have.keys() & want.keys()):
        copies = [json.loads(copy) for copy in have[offset]]
        version, values = want[offset]
        if len(copies) > 1:
            found.mismatches.append(f"{where}offset {offset} was published with {len(copies)} different values")
        elif copies[0]["version"] != version:
            found.mismatches.append(f"{where}offset {offset}: version {copies[0]['version']}, not {version}, answered")
        elif _bits(copies[0]["values"]) != (np.frombuffer(values, np.float32) + np.float32(0)).tobytes():
            found.mismatches.append(f"{where}offset {offset} was published with other values")


def _bits(values: Iterable[float | None]) -> bytes:
    """The float32 of the text; a forecast that there is not is null in it."""
    return np.array([np.nan if value is None else value for value in values], np.float32).tobytes()


def _judge_letters(
    found: Comparison, where: str, have: Mapping[int, Mapping[str, str]], want: Mapping[int, str]
) -> None:
    found.lost += len(want.keys() - have.keys())
    reasons = {offset: letter["killick-reason"] for offset, letter in have.items()}
    wrong = sorted(offset for offset, reason in reasons.items() if want.get(offset) != reason)
    found.mismatches += [f"{where}a dead letter for offset {o}: {reasons[o]}, not {want.get(o)}" for o in wrong]
