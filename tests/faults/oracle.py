"""Whether ledger, topics and the consumers' memory say what one uninterrupted run gives (`tests.uninterrupted`)."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import numpy as np

from consumers.codec import Decoder
from consumers.recovery import Recovery
from tests.faults.simulation import MAX_AHEAD_MS, Simulation
from tests.faults.world import Failed
from tests.streams import FORM
from tests.uninterrupted import Outcome, outcome_of, uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consumers.ledger import Ledger
    from consumers.roster import Seat
    from consumers.stream import Arrivals, Partition
    from tests.faults.topics import Sent, Written


def judge(simulation: Simulation) -> None:
    """Compare everything with one uninterrupted run.

    Raises:
        Failed: something differs.
    """
    published = _by_source(simulation.arrived, "pred", "source-partition", "source-offset")
    letters = _by_source(simulation.arrived, "dead", "killick-partition", "killick-offset")
    for number, log in enumerate(simulation.group.logs):
        ledger = simulation.ledger(number)
        want = expected(simulation, number, ledger.roster())
        kept = simulation.server.blocks(number, list(ledger.blocks()))
        partition = recovered(simulation, ledger)
        found = outcome_of(partition, kept, ledger.counters(), ledger.history())
        where = f"partition {number}"
        if differing := want.differences(found):
            raise Failed(f"{where}: the ledger differs from one uninterrupted run in {differing}")
        _check_memory(simulation, number, found)
        _check_forecasts(where, published.get(number, {}), want.forecasts)
        _check_letters(where, letters.get(number, {}), want.refusals, log.records)
        if waiting := ledger.refusals():
            raise Failed(f"{where}: {len(waiting)} refusals still wait in the ledger")


def expected(simulation: Simulation, number: int, roster: Sequence[Seat]) -> Outcome:
    """One run over the whole log of a partition, cut by chance and at the roster's offsets."""
    log = simulation.group.logs[number]
    decoder = Decoder(FORM, MAX_AHEAD_MS)

    def arrivals(start: int, end: int) -> Arrivals:
        return decoder.decode([record for record in log.records if start <= record.offset < end], start, end)

    cuts = _cuts(random.Random(simulation.seed + 7), log.end)
    return uninterrupted(roster, simulation.load, FORM, arrivals, cuts, max_series=simulation.limits.max_series)


def recovered(simulation: Simulation, ledger: Ledger) -> Partition:
    """The partition as the ledger gives it back."""
    head = ledger.head()
    if head is None:
        raise Failed(f"partition {ledger.partition} has no ledger")
    versions = {seat.version: simulation.load(seat.version) for seat in ledger.roster()}
    recovery = Recovery(ledger, head, FORM, versions)
    for batch in recovery.run():
        if any(one.mismatch for one in batch):
            raise Failed(f"partition {ledger.partition}: a block that is folded again gives other bits")
    return recovery.partition


def _cuts(rng: random.Random, end: int) -> Iterator[int]:
    most = rng.choice((2, 10, 60))
    at = 0
    while at < end:
        yield at
        at += rng.randint(1, most)
    yield end


def _check_memory(simulation: Simulation, number: int, found: Outcome) -> None:
    """The consumer that holds the partition has in memory what the ledger gives back."""
    for node in simulation.nodes:
        holding = node.consumer.held.get(number)
        if holding is not None:
            mine = outcome_of(holding.partition, (), {})
            if mine.series != found.series or mine.carried != found.carried:
                raise Failed(f"partition {number}: what {node.name} has in memory is not what the ledger gives back")


def _by_source(arrived: Sequence[Sent], topic: str, partition: str, offset: str) -> dict[int, dict[int, list[Sent]]]:
    found: dict[int, dict[int, list[Sent]]] = {}
    for message in arrived:
        if message[0] == topic:
            headers = dict(message[3])
            found.setdefault(int(headers[partition]), {}).setdefault(int(headers[offset]), []).append(message)
    return found


def _check_forecasts(where: str, found: dict[int, list[Sent]], wanted: dict[int, tuple[int, bytes]]) -> None:
    if found.keys() != wanted.keys():
        lacking, foreign = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        raise Failed(f"{where}: forecasts are lacking for offsets {lacking[:5]}, foreign for {foreign[:5]}")
    for offset, messages in found.items():
        copies = {(message[1], message[2]) for message in messages}
        if len(copies) > 1:
            raise Failed(f"{where}: offset {offset} was published with {len(copies)} different values: {copies}")
        body = json.loads(messages[0][2] or b"")
        values = np.array([np.nan if x is None else x for x in body["values"]], np.float32)
        version, issued = wanted[offset]
        if body["version"] != version:
            raise Failed(f"{where}: offset {offset} was answered by version {body['version']}, not {version}")
        if values.tobytes() != (np.frombuffer(issued, np.float32) + np.float32(0)).tobytes():
            raise Failed(f"{where}: offset {offset} was published with other values than one run gives")


def _check_letters(
    where: str, found: dict[int, list[Sent]], wanted: dict[int, str], records: Sequence[Written]
) -> None:
    reasons = {o: {dict(m[3])["killick-reason"].decode() for m in messages} for o, messages in found.items()}
    if reasons != {offset: {reason} for offset, reason in wanted.items()}:
        differing = sorted(o for o in reasons.keys() | wanted.keys() if reasons.get(o) != {wanted.get(o)})
        raise Failed(f"{where}: dead letters differ at offsets {differing[:5]}")
    by_offset = {record.offset: record for record in records}
    for offset, messages in found.items():
        for _, key, value, _, _ in messages:
            if (key, value) != (by_offset[offset].key, by_offset[offset].value):
                raise Failed(f"{where}: the dead letter of offset {offset} has not the original's bytes")
