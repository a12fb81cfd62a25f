"""What must come out: the pure core over the same records, in one process, without Kafka and Redis.

And what came out: the state that is recovered from the ledger, and the topics as a plain client reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from consumers.codec import Decoder
from consumers.recovery import Recovery
from consumers.roster import Seat
from consumers.stream import Partition, Version, admit, fold
from models.network import Network, configure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from models.blocks import Block
    from tests.integration.harness import Stack

MAX_CUT = 700  # records in one batch of the oracle; the consumers cut elsewhere


@dataclass(frozen=True)
class State:
    """A partition's outcome: digests of its state and of its pairs, and its counters."""

    state: str  # SHA-256 over names, series state and carried state
    pairs: str  # SHA-256 over the columns of all blocks
    counters: dict[str, int]


@dataclass(frozen=True)
class Expected:
    """What an uninterrupted run makes of a partition's records."""

    state: State
    forecasts: dict[int, NDArray[np.float32]] = field(repr=False)  # by the offset of the observation
    refusals: dict[int, str] = field(repr=False)  # reason by offset


def load_version(stack: Stack, number: int = 1) -> Version:
    """A registered version, on the machine's TensorFlow."""
    configure(threads=1)
    architecture, _, weights = stack.registry.load(number)
    return Version(number, architecture, Network(architecture, weights))


def expected(stack: Stack, records: Sequence[Any], version: Version, seed: int = 0) -> Expected:
    """The outcome of one uninterrupted run over a partition's records, cut into batches by chance."""
    rng = np.random.default_rng(seed)
    settings = stack.settings
    decoder = Decoder(stack.form, settings.max_ahead_ms)
    partition = Partition(stack.form)
    versions = {version.number: version}
    partition.seat([Seat(version.number, "incumbent", 0, 0)], versions)
    counters: Counter[str] = Counter()
    blocks: list[Block] = []
    forecasts: dict[int, NDArray[np.float32]] = {}
    refusals: dict[int, str] = {}
    begin = 0
    while begin < len(records):
        batch = records[begin : begin + int(rng.integers(1, MAX_CUT))]
        first = blocks[-1].end if blocks else 0
        arrivals = decoder.decode(batch, first, batch[-1].offset + 1)
        admitted = admit(partition, arrivals, max_series=settings.model.max_series)
        (folded,) = fold([(partition, admitted.block)], versions)
        issued = folded.forecasts.get(version.number, np.empty((0, 0), np.float32))
        forecasts.update(zip(folded.block.offset.tolist(), issued, strict=True))
        refusals.update({r.offset: r.reason for r in admitted.refusals})
        counters += folded.counts
        counters.update(f"refused.{r.reason}" for r in admitted.refusals)
        counters.update(duplicates=admitted.duplicates, history=len(admitted.history))
        blocks.append(folded.block)
        begin += len(batch)
    outcome = State(partition.digest(), pairs_digest(blocks), {k: n for k, n in counters.items() if n})
    return Expected(outcome, forecasts, refusals)


def recovered(stack: Stack, number: int, version: Version) -> State:
    """The outcome as the ledger has it: newest snapshots, the blocks after them folded again."""
    ledger = stack.ledger(number)
    head = ledger.head()
    assert head is not None, f"partition {number} has no ledger"
    versions = {version.number: version}
    recovery = Recovery(ledger, head, stack.form, versions)
    for batch in recovery.run():
        assert not any(replayed.mismatch for replayed in batch), "a replayed block gave other bits"
    return State(recovery.partition.digest(), pairs_digest(ledger.blocks()), ledger.counters())


def pairs_digest(blocks: Iterable[Block]) -> str:
    """SHA-256 over offsets, series, steps, values, masks, scales and pairs; the cut into blocks is left out."""
    columns: dict[str, list[NDArray[Any]]] = {}
    for block in blocks:
        if len(block) == 0:
            continue
        parts = {
            "offset": block.offset,
            "slot": block.slot,
            "step": block.step,
            "values": block.values,
            "present": block.present,
            "scale": block.scale,
        }
        for name, part in (parts | {f"pairs.{n}": p for n, p in block.pairs.items()}).items():
            columns.setdefault(name, []).append(part)
    total = hashlib.sha256()
    for name in sorted(columns):
        column = np.concatenate(columns[name])
        total.update(f"{name} {column.dtype} {column.shape}".encode() + np.ascontiguousarray(column).tobytes())
    return total.hexdigest()


def check(stack: Stack, version: Version) -> list[Expected]:
    """Assert that ledger and topics are bit for bit what one uninterrupted run gives; by partition."""
    found = []
    by_partition = predictions_by_source(stack.predictions())
    letters = letters_by_source(stack.dead_letters())
    for number, records in enumerate(stack.records()):
        want = expected(stack, records, version, seed=number)
        assert recovered(stack, number, version) == want.state, f"partition {number} differs"
        check_forecasts(by_partition.get(number, {}), want.forecasts)
        reasons = {offset: letter["killick-reason"] for offset, letter in letters.get(number, {}).items()}
        assert reasons == want.refusals
        assert stack.ledger(number).refusals() == []
        found.append(want)
    return found


def check_forecasts(found: dict[int, set[bytes]], wanted: dict[int, NDArray[np.float32]]) -> None:
    """Assert that every forecast was published, with the bits of `wanted`, and twice only with equal bytes."""
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())[:10]
    for offset, values in found.items():
        assert len(values) == 1, f"offset {offset} was published with {len(values)} different values"
        numbers = json.loads(next(iter(values)))["values"]
        issued = np.array([np.nan if x is None else x for x in numbers], np.float32)
        assert issued.tobytes() == (wanted[offset] + np.float32(0)).tobytes(), f"offset {offset}: {issued}"


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
