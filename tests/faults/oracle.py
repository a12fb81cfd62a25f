"""What one uninterrupted run gives, and whether ledger, topics and the consumers' memory say the same.

A tenure's carried state is kept under a number of its own, so that a version that left and came back is two.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from consumers.codec import Decoder
from consumers.recovery import Recovery
from consumers.stream import Partition, Version, admit, fold
from tests.faults.roster import Tenure, roster_for, seat_at, tenures_of
from tests.faults.simulation import MAX_AHEAD_MS, Simulation
from tests.faults.world import Failed
from tests.streams import FORM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from consumers.ledger import Ledger
    from consumers.roster import Seat
    from models.blocks import Block
    from tests.faults.topics import Sent, Written


@dataclass
class Outcome:
    """What a partition came to: digests, counters; forecasts and refusals by offset."""

    series: str
    carried: dict[int, str]  # by version that runs
    columns: dict[str, str]  # of the observations and each version's pairs
    counters: dict[str, int]
    forecasts: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # version, bytes
    refusals: dict[int, str] = field(default_factory=dict)  # reason

    def differences(self, other: Outcome) -> list[str]:
        """Which of the digests and counters differ."""
        found = []
        for name in ("series", "carried", "columns", "counters"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine == theirs:
                continue
            if isinstance(mine, dict):
                found += [f"{name} {key}" for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
            else:
                found.append(name)
        return sorted(found)


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
        found = outcome_of(partition, ledger.roster(), kept, ledger.counters(), list(ledger.history()))
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
    rng = random.Random(simulation.seed + 7)
    log = simulation.group.logs[number]
    tenures = tenures_of(roster)
    versions = {}
    for tenure in tenures:
        loaded = simulation.load(tenure.version)
        versions[tenure.number] = Version(tenure.number, loaded.architecture, loaded.network)
    decoder, partition = Decoder(FORM, MAX_AHEAD_MS), Partition(FORM)
    counters: Counter[str] = Counter()
    blocks: list[Block] = []
    history: list[Block] = []
    outcome = Outcome("", {}, {}, {})
    for start, end in pairwise(_cuts(rng, log.end, roster)):
        records = [record for record in log.records if start <= record.offset < end]
        _seat(partition, roster_for(roster, tenures, start), versions)
        admitted = admit(partition, decoder.decode(records, start, end), max_series=simulation.limits.max_series)
        (folded,) = fold([(partition, admitted.block)], versions)
        counters += folded.counts
        counters.update(f"refused.{r.reason}" for r in admitted.refusals)
        counters.update(duplicates=admitted.duplicates, history=len(admitted.history))
        outcome.refusals.update({r.offset: r.reason for r in admitted.refusals})
        pairs, issued = {}, []
        for tenure in tenures:
            seat = seat_at(roster, tenure, start)
            if seat is not None and tenure.number in folded.block.pairs:
                pairs[tenure.version] = folded.block.pairs[tenure.number]
                if seat.role == "incumbent":
                    issued = [(tenure.version, row.tobytes()) for row in folded.forecasts[tenure.number]]
        outcome.forecasts.update(zip(folded.block.offset.tolist(), issued, strict=False))  # a seat may lack
        blocks.append(_with_pairs(folded.block, pairs))
        history.append(admitted.history)
    _seat(partition, roster_for(roster, tenures, log.end), versions)
    done = outcome_of(partition, (), blocks, counters, history)
    by_number = {tenure.number: tenure.version for tenure in tenures}
    outcome.series, outcome.columns, outcome.counters = done.series, done.columns, done.counters
    outcome.carried = {by_number[n]: digest for n, digest in _carried(partition).items()}
    return outcome


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


def outcome_of(
    partition: Partition,
    roster: Sequence[Seat],
    blocks: Sequence[Block],
    counters: Mapping[str, int],
    history: Sequence[Block],
) -> Outcome:
    """Digests of a partition's state, blocks and counters."""
    del roster
    size = len(partition.names)
    partition.series.reserve(size)
    total = hashlib.sha256(json.dumps(partition.names).encode())
    for name, array in sorted(partition.series.arrays().items()):
        total.update(name.encode() + np.ascontiguousarray(array[:size]).tobytes())
    columns = _columns(blocks) | {f"history.{name}": text for name, text in _columns(history).items()}
    return Outcome(total.hexdigest(), _carried(partition), columns, {k: n for k, n in counters.items() if n})


def _carried(partition: Partition) -> dict[int, str]:
    size = len(partition.names)
    found = {}
    for number, carried in partition.carried.items():
        carried.reserve(size)
        total = hashlib.sha256()
        for name, array in sorted(carried.arrays().items()):
            total.update(name.encode() + np.ascontiguousarray(array[:size]).tobytes())
        found[number] = total.hexdigest()
    return found


def _columns(blocks: Iterable[Block]) -> dict[str, str]:
    """SHA-256 by column, rows named by their offsets; how they were cut into blocks is left out."""
    totals: dict[str, Any] = {}
    for block in blocks:
        if len(block) == 0:
            continue
        parts: dict[str, Any] = {name: getattr(block, name) for name in ("slot", "step", "values", "present")}
        if block.pairs or block.checksums:
            parts["scale"] = block.scale + np.float32(0)
        parts |= {f"pairs {version}": pairs for version, pairs in block.pairs.items()}
        for name, part in parts.items():
            total = totals.setdefault(name, [hashlib.sha256(), hashlib.sha256()])
            total[0].update(block.offset.astype(np.int64).tobytes())
            total[1].update(np.ascontiguousarray(part).tobytes())
    return {name: total[0].hexdigest()[:16] + total[1].hexdigest() for name, total in totals.items()}


def _cuts(rng: random.Random, end: int, roster: Sequence[Seat]) -> list[int]:
    most = rng.choice((2, 10, 60))
    cuts, at = {0, end}, 0
    while at < end:
        cuts.add(at)
        at += rng.randint(1, most)
    for seat in roster:
        cuts |= {seat.start_offset, seat.join_offset, end if seat.leave_offset is None else seat.leave_offset}
    return sorted(cut for cut in cuts if 0 <= cut <= end)


def _seat(partition: Partition, roster: tuple[Seat, ...], versions: Mapping[int, Version]) -> None:
    if partition.roster != roster:
        partition.seat(roster, versions)


def _with_pairs(block: Block, pairs: dict[int, Any]) -> Block:
    return replace(block, pairs=pairs, checksums={})


def _check_memory(simulation: Simulation, number: int, found: Outcome) -> None:
    """The consumer that holds the partition has in memory what the ledger gives back."""
    for node in simulation.nodes:
        holding = node.consumer.held.get(number)
        if holding is not None:
            mine = outcome_of(holding.partition, (), (), {}, ())
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


__all__ = ["Tenure", "expected", "judge", "recovered"]
