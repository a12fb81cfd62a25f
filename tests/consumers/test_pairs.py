"""Pairs as tables: what a ledger holds, row by row, as a plain look into the past gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from consumers.ledger import Commit, Ledger
from consumers.pairs import pair_tables
from consumers.roster import Seat
from consumers.stream import Partition, Version, admit, fold
from models.blocks import empty_block
from tests.streams import FORM, MAX_GAP, NumpyScanner, Stream, architecture_of, cuts_of, stream_of

if TYPE_CHECKING:
    from tests.consumers.conftest import Store

pytestmark = pytest.mark.services
_ONE = architecture_of()
_TWO = architecture_of(horizon=2)
VERSIONS = {1: Version(1, _ONE, NumpyScanner(_ONE, 1)), 2: Version(2, _TWO, NumpyScanner(_TWO, 2))}
Row = dict[str, Any]


class Filled:
    """A ledger that is filled block by block, and what was forecast meanwhile."""

    def __init__(self, store: Store, model: str) -> None:
        self.ledger = Ledger(store.client, model, 0, "mine")
        self.ledger.take(start=0, form=FORM.digest(), topic_id="t", partitions=1, chunk_slots=64)
        self.partition = Partition(FORM)
        seats = [Seat(1, "incumbent", 0, 0), Seat(2, "shadow", 0, 0)]
        self.partition.seat(seats, VERSIONS)
        self.ledger.commit(Commit(0, empty_block(0, 2), roster=seats))
        self.rows: list[Row] = []
        self._issued: dict[tuple[str, int, int], np.ndarray] = {}
        self._last: dict[str, int] = {}

    def take(self, stream: Stream, begin: int, end: int) -> None:
        """Fold and commit a span, and note the rows that it should give."""
        admitted = admit(self.partition, stream.arrivals(begin, end), max_series=99)
        (folded,) = fold([(self.partition, admitted.block)], VERSIONS)
        self.ledger.commit(Commit(begin, folded.block, new_names=admitted.new_names))
        rows: dict[int, list[Row]] = {1: [], 2: []}
        for i in range(begin, end):
            name, step = stream.series[i], int(stream.step[i])
            if step - self._last.get(name, step) > MAX_GAP + 1:
                self._issued = {key: issued for key, issued in self._issued.items() if key[0] != name}
            self._last[name] = step
            for version, horizon in ((1, 4), (2, 2)):
                leads = [self._lead(name, step, version, k) for k in range(1, horizon + 1)]
                if stream.present[i, 0] and any(lead is not None for lead in leads):
                    row: Row = {"series": name, "step": step, "value": float(stream.values[i, 0])}
                    row |= {"version": version, "scale": float(folded.block.scale[i - begin])}
                    rows[version].append(row | {f"lead_{k}": lead for k, lead in enumerate(leads, 1)})
                self._issued[name, step, version] = folded.forecasts[version][i - begin]
        self.rows += rows[1] + rows[2]

    def _lead(self, name: str, step: int, version: int, k: int) -> float | None:
        issued = self._issued.get((name, step - k, version))
        return None if issued is None or np.isnan(issued[k - 1]) else float(issued[k - 1])


def rows_of(ledger: Ledger, **choice: Any) -> list[Row]:
    """All tables as rows."""
    rows = []
    for table in pair_tables(ledger, FORM, **choice):
        for row in table.to_pylist():
            step = int(row.pop("time").timestamp() * 1000) // FORM.interval_ms
            rows.append(row | {"step": step})
    return rows


def walks(records: int) -> Stream:
    """Four series with gaps, new starts and missing values."""
    rng = np.random.default_rng(5)
    now = np.full(4, -2)
    rows = []
    for i in rng.integers(0, 4, records).tolist():
        now[i] += rng.choice([1, 1, 1, 1, 2, MAX_GAP + 1, MAX_GAP + 2])
        rows.append((f"s{i}", int(now[i]), (float(rng.normal()) if rng.random() < 0.85 else None, 1.0)))
    return stream_of(rows)


@pytest.fixture(scope="module")
def filled(redis_store: Store) -> Filled:
    """300 observations in 60 blocks: more than are read at once."""
    found = Filled(redis_store, "pairs-filled")
    stream = walks(300)
    for begin, end in cuts_of(300, range(0, 300, 5)):
        found.take(stream, begin, end)
    return found


def test_tables_equal_a_plain_look_into_the_past(filled: Filled) -> None:
    """Every observation with any forecast for its time, per version, in the order of blocks."""
    found = rows_of(filled.ledger)
    assert len(found) > 300
    assert found == filled.rows


@pytest.mark.parametrize(
    "choice",
    [
        {"series": ["s1"]},
        {"series": ("s0", "s3", "unknown")},
        {"versions": {2}},
        {"since_ms": 20 * FORM.interval_ms},
        {"until_ms": 20 * FORM.interval_ms},
        {"since_ms": -FORM.interval_ms, "until_ms": 9 * FORM.interval_ms, "series": ["s2"], "versions": [1]},
    ],
)
def test_only_what_was_asked_for(filled: Filled, choice: dict[str, Any]) -> None:
    """Series, versions and a span of time, its end excluded, each of them and together."""
    since = choice.get("since_ms", -(10**18)) / FORM.interval_ms
    until = choice.get("until_ms", 10**18) / FORM.interval_ms
    expected = [
        row
        for row in filled.rows
        if row["series"] in choice.get("series", [row["series"]])
        and row["version"] in choice.get("versions", [row["version"]])
        and since <= row["step"] < until
    ]
    assert 0 < len(expected) < len(filled.rows)
    assert rows_of(filled.ledger, **choice) == expected


def test_nobody_asked_for_is_nothing(filled: Filled, redis_store: Store, model: str) -> None:
    """An unknown series or version, and a ledger that holds nothing."""
    assert rows_of(filled.ledger, series=["unknown"]) == []
    assert rows_of(filled.ledger, versions=[9]) == []
    assert rows_of(Ledger(redis_store.client, model, 0)) == []


@pytest.mark.parametrize("wanted", [(), ("a",), ("a", "b")])
def test_series_that_appear_while_reading_are_read(redis_store: Store, model: str, wanted: tuple[str, ...]) -> None:
    """A consumer at work adds series between two reads; they have their names, and a choice still holds."""
    live = Filled(redis_store, model)
    stream = stream_of([(name, step, (float(step), 1.0)) for name in ("a", "b") for step in range(80)])
    for begin in range(0, 80, 2):
        live.take(stream, begin, begin + 2)
    tables = pair_tables(live.ledger, FORM, series=wanted)
    found = next(tables).to_pylist()
    for begin in range(80, 160, 2):
        live.take(stream, begin, begin + 2)
    for table in tables:
        found += table.to_pylist()
    expected = [row["series"] for row in live.rows if row["series"] in (wanted or ("a", "b"))]
    assert [row["series"] for row in found] == expected


def test_columns_have_names_and_types(filled: Filled) -> None:
    """As `killick pairs` promises them; times are UTC."""
    table = next(pair_tables(filled.ledger, FORM, versions=[1]))
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert types == {
        "series": "string",
        "time": "timestamp[ms, tz=UTC]",
        "value": "double",
        "scale": "float",
        "version": "int64",
        "lead_1": "float",
        "lead_2": "float",
        "lead_3": "float",
        "lead_4": "float",
    }
