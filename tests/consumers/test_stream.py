"""The stream core: equal bits however the stream is cut, and what becomes of every kind of arrival."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumers.roster import Seat
from consumers.stream import Partition, Version, admit, fold
from models.blocks import checksum
from models.weights import fresh_weights
from tests.streams import FORM, MAX_GAP, NumpyScanner, Stream, architecture_of, cuts_of, run, stream_of, streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from consumers.stream import Admitted, Folded
    from models.forecaster import Carried
    from models.scaling import SeriesForm, SeriesState

HOUR_MS = FORM.interval_ms
_CORRECTION = architecture_of()
_PLAIN = architecture_of(form="plain", horizon=2, cell="gru", units=(4, 2), series=("c", "other", "a", "e"))
_SEASON = architecture_of(form="season", horizon=9, transform="log")
_DRAWN_IN = architecture_of(transform="yeo-johnson", transform_lambda=0.25, horizon=3)
VERSIONS = {
    4: Version(4, _CORRECTION, NumpyScanner(_CORRECTION, 1)),
    7: Version(7, _PLAIN, NumpyScanner(_PLAIN, 2)),
    8: Version(8, _SEASON, NumpyScanner(_SEASON, 3)),
    9: Version(9, _DRAWN_IN, NumpyScanner(_DRAWN_IN, 4)),
}
cut_points = st.lists(st.integers(0, 1_000), max_size=6)


def bits(array: npt.NDArray[np.generic]) -> bytes:
    """The bytes of an array: NaN equals NaN, 0 differs from -0."""
    return np.ascontiguousarray(array).tobytes()


def by_record(results: Iterable[Folded], version: int) -> tuple[bytes, bytes, bytes]:
    """Forecasts, pairs and scales of one version over all blocks, in the order of the records."""
    listed = list(results)
    return (
        bits(np.concatenate([folded.forecasts[version] for folded in listed])),
        bits(np.concatenate([folded.block.pairs[version] for folded in listed])),
        bits(np.concatenate([folded.block.scale for folded in listed])),
    )


def counts_of(results: Iterable[Folded]) -> Counter[str]:
    """What all blocks counted."""
    return sum((folded.counts for folded in results), Counter())


def state_of(partition: Partition, name: str) -> dict[str, bytes]:
    """Series state and carried state of one series, wherever its slot is."""
    slot = partition.slots[name]
    arrays = {f"series.{key}": array for key, array in partition.series.arrays().items()}
    for number, carried in partition.carried.items():
        arrays |= {f"{number}.{key}": array for key, array in carried.arrays().items()}
    return {key: bits(array[slot]) for key, array in arrays.items()}


# — the fold: equal bits —


@settings(max_examples=150)
@given(streams(), cut_points)
def test_bits_do_not_depend_on_the_cut(stream: Stream, points: list[int]) -> None:
    """One block, a block a record, and any other cut: the same forecasts, pairs, scales, counts and state."""
    n = len(stream)
    whole, in_one = run(stream, [(0, n)], VERSIONS)
    for cuts in (cuts_of(n, points), cuts_of(n, range(n))):
        partition, results = run(stream, cuts, VERSIONS)
        assert partition.digest() == whole.digest()
        assert counts_of(results) == counts_of(in_one)
        for version in VERSIONS:
            assert by_record(results, version) == by_record(in_one, version)


@settings(max_examples=60)
@given(streams(), cut_points, st.randoms(use_true_random=False))
def test_bits_do_not_depend_on_the_interleaving(stream: Stream, points: list[int], random: object) -> None:
    """Series may come in any interleaving that keeps each series' own order."""
    assert hasattr(random, "shuffle")
    turns = list(stream.series)
    random.shuffle(turns)
    queues = {name: [i for i, s in enumerate(stream.series) if s == name] for name in set(turns)}
    order = np.array([queues[name].pop(0) for name in turns])
    one, results = run(stream, cuts_of(len(stream), points), VERSIONS)
    other, shuffled = run(stream.take(order), cuts_of(len(stream), points), VERSIONS)
    for name in set(turns):
        assert state_of(one, name) == state_of(other, name)
    for version in VERSIONS:
        mine = np.concatenate([folded.forecasts[version] for folded in results])
        theirs = np.concatenate([folded.forecasts[version] for folded in shuffled])
        assert bits(mine[order]) == bits(theirs)


@settings(max_examples=60)
@given(streams(), cut_points)
def test_bits_do_not_depend_on_the_neighbours(stream: Stream, points: list[int]) -> None:
    """A series alone in its partition gets the same forecasts, pairs and state as among others."""
    among, results = run(stream, cuts_of(len(stream), points), VERSIONS)
    name = stream.series[-1]
    mine = np.array([i for i, series in enumerate(stream.series) if series == name])
    alone, by_itself = run(stream.take(mine), [(0, len(mine))], VERSIONS)
    assert state_of(alone, name) == state_of(among, name)
    for version in VERSIONS:
        forecasts = np.concatenate([folded.forecasts[version] for folded in results])
        pairs = np.concatenate([folded.block.pairs[version] for folded in results])
        assert bits(forecasts[mine]) == bits(by_itself[0].forecasts[version])
        assert bits(pairs[mine]) == bits(by_itself[0].block.pairs[version])


def fold_together(
    streams_: list[Stream], cuts: list[list[tuple[int, int]]], versions: Mapping[int, Version], form: SeriesForm
) -> tuple[list[Partition], list[list[Folded]]]:
    """Several partitions side by side, one block of each at a time; who has no block left folds an empty one."""
    partitions = [Partition(form) for _ in streams_]
    results: list[list[Folded]] = [[] for _ in streams_]
    for partition in partitions:
        partition.seat([Seat(n, "shadow" if i else "incumbent", 0, 0) for i, n in enumerate(versions)], versions)
    for turn in range(max(map(len, cuts))):
        work = []
        for partition, stream, spans in zip(partitions, streams_, cuts, strict=True):
            begin, end = spans[turn] if turn < len(spans) else (len(stream), len(stream))
            work.append((partition, admit(partition, stream.arrivals(begin, end), max_series=100).block))
        for found, folded in zip(results, fold(work, versions), strict=True):
            found.append(folded)
    return partitions, results


@settings(max_examples=60)
@given(st.lists(st.tuples(streams(most=20), cut_points), min_size=2, max_size=4))
def test_partitions_folded_together_equal_those_folded_alone(parts: list[tuple[Stream, list[int]]]) -> None:
    """Waves span partitions, and no bit passes from one to the other, whoever has nothing to fold."""
    cuts = [cuts_of(len(stream), points) for stream, points in parts]
    together, results = fold_together([stream for stream, _ in parts], cuts, VERSIONS, FORM)
    for (stream, _), spans, partition, found in zip(parts, cuts, together, results, strict=True):
        alone, by_itself = run(stream, spans, VERSIONS)
        assert partition.digest() == alone.digest()
        assert counts_of(found) == counts_of(by_itself)
        for version in VERSIONS:
            assert by_record(found[: len(spans)], version) == by_record(by_itself, version)


def test_a_careless_network_is_found_out() -> None:
    """The comparison can fail: a network that minds its neighbours by 1e-6 gives another digest when cut."""
    versions = {1: Version(1, _CORRECTION, NumpyScanner(_CORRECTION, careless=True))}
    stream = stream_of([(name, step, (float(step % 5), 1.0)) for step in range(9) for name in "ab"])
    whole, in_one = run(stream, [(0, 18)], versions)
    cut, results = run(stream, cuts_of(18, range(18)), versions)
    assert by_record(results, 1) != by_record(in_one, 1)
    assert cut.digest() != whole.digest()


@pytest.mark.parametrize(("cell", "units"), [("lstm", (6, 5)), ("gru", (7,))])
def test_the_real_network_gives_equal_bits_however_the_stream_is_cut(cell: str, units: tuple[int, ...]) -> None:
    """TensorFlow: 27 series with gaps and resets, two versions, three cuts, and two partitions at once."""
    from models.network import Network, configure

    configure(threads=1)
    versions = {}
    for number, form in ((1, "correction"), (2, "plain")):
        architecture = architecture_of(cell=cell, units=units, form=form)
        rng = np.random.default_rng(number)
        weights = {
            name: (array + rng.normal(scale=0.2, size=array.shape)).astype(np.float32)
            for name, array in fresh_weights(architecture, number).items()
        }
        versions[number] = Version(number, architecture, Network(architecture, weights))
    stream = _walks(series=27, records=700)
    n = len(stream)
    whole, in_one = run(stream, [(0, n)], versions)
    assert counts_of(in_one)["gaps_bridged"] > 10
    assert counts_of(in_one)["series_resets"] > 10
    many = [*range(60), *range(60, n, 47)]
    for cuts in (cuts_of(n, many), cuts_of(n, range(0, n, 13))):
        partition, results = run(stream, cuts, versions)
        assert partition.digest() == whole.digest()
        for version in versions:
            assert by_record(results, version) == by_record(in_one, version)
    other = _walks(series=5, records=300, seed=9)
    both = [cuts_of(n, range(0, n, 100)), cuts_of(300, range(0, 300, 150))]
    together, _ = fold_together([stream, other], both, versions, FORM)
    assert together[0].digest() == whole.digest()
    assert together[1].digest() == run(other, [(0, 300)], versions)[0].digest()


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_few_series_over_many_waves_give_the_bits_of_a_block_a_record(missing: float) -> None:
    """TensorFlow: three series side by side for 150 steps, one of them for 120: in one block, in days, one by one."""
    from models.network import Network, configure

    configure(threads=1)
    versions = {}
    for number, cell in ((1, "lstm"), (2, "gru")):
        architecture = architecture_of(cell=cell, units=(6, 5))
        weights = fresh_weights(architecture, number)
        head = weights["head.kernel"]
        weights["head.kernel"] = np.random.default_rng(number).normal(size=head.shape).astype(np.float32)
        versions[number] = Version(number, architecture, Network(architecture, weights))
    rng = np.random.default_rng(0)
    levels = np.cumsum(rng.normal(size=(150, 3, 2)), axis=0)
    rows = [
        (name, 500 + step, [x if rng.random() >= missing else None for x in levels[step, i].tolist()])
        for step in range(150)
        for i, name in enumerate("abc")
        if name != "b" or step < 120
    ]
    stream = stream_of(rows)
    n = len(stream)
    whole, in_one = run(stream, [(0, n)], versions)
    assert (counts_of(in_one)["missing_targets"] > 0) == (missing > 0)
    for cuts in (cuts_of(n, range(0, n, 3 * 24)), cuts_of(n, range(n))):
        partition, results = run(stream, cuts, versions)
        assert partition.digest() == whole.digest()
        assert counts_of(results) == counts_of(in_one)
        for version in versions:
            assert by_record(results, version) == by_record(in_one, version)


def _walks(series: int, records: int, seed: int = 0) -> Stream:
    """Random walks with a tenth of the values missing, in random interleaving."""
    rng = np.random.default_rng(seed)
    now = np.full(series, 500)
    level = rng.normal(size=(series, 2))
    rows = []
    for i in rng.integers(0, series, records).tolist():
        now[i] += rng.choice([1, 1, 1, 1, 1, 1, 2, MAX_GAP + 1, MAX_GAP + 2, 30])
        level[i] += rng.normal(size=2)
        rows.append((f"s{i}", int(now[i]), [x if rng.random() > 0.1 else None for x in level[i].tolist()]))
    return stream_of(rows)


# — pairs —


@settings(max_examples=100)
@given(streams(), cut_points)
def test_pairs_equal_a_look_into_the_past(stream: Stream, points: list[int]) -> None:
    """Brute force: lead k is what was forecast for this step k steps ago, unless a long gap lay between."""
    _, results = run(stream, cuts_of(len(stream), points), VERSIONS)
    for version in VERSIONS:
        forecasts = np.concatenate([folded.forecasts[version] for folded in results])
        pairs = np.concatenate([folded.block.pairs[version] for folded in results])
        issued: dict[str, dict[int, npt.NDArray[np.float32]]] = {}
        for i, (name, step) in enumerate(zip(stream.series, stream.step.tolist(), strict=True)):
            past = issued.setdefault(name, {})
            if past and step - max(past) > MAX_GAP + 1:
                past.clear()
            expected = np.full(forecasts.shape[1], np.nan, np.float32)
            for lead in range(1, forecasts.shape[1] + 1):
                if stream.present[i, 0] and step - lead in past:
                    expected[lead - 1] = past[step - lead][lead - 1]
            np.testing.assert_array_equal(pairs[i], expected)
            past[step] = forecasts[i]


def test_forecasts_are_the_formula_around_the_networks_output() -> None:
    """A network that outputs f: x + S·g·f in the correction form, level + S·f in the plain one; zeros: persistence."""

    class Constant:
        def __init__(self, output: tuple[float, ...]) -> None:
            self._output = np.array(output, np.float32)

        def scan(
            self, x: npt.NDArray[np.float32], active: npt.NDArray[np.bool_], carried: npt.NDArray[np.float32]
        ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
            assert len(x) == len(active)
            return np.broadcast_to(self._output, (*active.shape, len(self._output))).copy(), carried

    output = (0.5, -1.0, 2.0, 0.0)
    plain = architecture_of(form="plain")
    versions = {
        1: Version(1, _CORRECTION, Constant(output)),
        2: Version(2, plain, Constant(output)),
        3: Version(3, _CORRECTION, Constant((0.0,) * 4)),
    }
    values = [3.0, 5.0, 2.0, 8.0, 8.5]
    partition, results = run(stream_of([("a", i, (x, 0.0)) for i, x in enumerate(values)]), [(0, 5)], versions)
    scale, level = partition.series.scale[0, 0], partition.series.sums[0, 0, 0] / partition.series.sums[0, 1, 0]
    last = {number: issued[-1] for number, issued in results[0].forecasts.items()}
    gained = np.array(_CORRECTION.gain) * output
    np.testing.assert_allclose(last[1], 8.5 + scale * gained, rtol=1e-6)
    np.testing.assert_allclose(last[2], level + scale * np.array(output), rtol=1e-6)
    assert last[3].tolist() == [8.5] * 4


# — what a gap, a missing value, a new start do (DESIGN §6) —


def small_run(rows: Sequence[tuple[str, int, Sequence[float | None]]]) -> tuple[Partition, Folded]:
    """One block of these, with both versions."""
    partition, results = run(stream_of(rows), [(0, len(rows))], VERSIONS)
    return partition, results[0]


def known(pairs: npt.NDArray[np.float32]) -> list[list[int]]:
    """The leads that each row has."""
    return [(np.flatnonzero(~np.isnan(row)) + 1).tolist() for row in pairs]


def test_a_gap_up_to_the_limit_is_bridged() -> None:
    """Bridged steps step the network, issue nothing and pair nothing; leads that span the gap do pair."""
    _, folded = small_run([("a", 0, (1.0, 1.0)), ("a", 1, (2.0, 1.0)), ("a", 5, (3.0, 1.0)), ("a", 6, (4.0, 1.0))])
    assert folded.counts["gaps_bridged"] == 1
    assert folded.counts["steps_bridged"] == 3
    assert folded.counts["series_resets"] == 0
    assert folded.counts["forecasts"] == folded.counts["observations"] == 4
    assert known(folded.block.pairs[4]) == [[], [1], [4], [1]]
    assert folded.counts["pairs"] == 3


def test_a_bridged_step_repeats_the_last_values_and_steps_the_network() -> None:
    """The carried state is that of a network which was fed the missing steps, with the mask saying so."""
    rows: list[tuple[str, int, tuple[float | None, ...]]] = [("a", 0, (1.0, 2.0)), ("a", 1, (5.0, None))]
    bridged, _ = small_run([*rows, ("a", 4, (6.0, 3.0))])
    filled, _ = small_run([*rows, ("a", 2, (None, None)), ("a", 3, (None, None)), ("a", 4, (6.0, 3.0))])
    mine, theirs = state_of(bridged, "a"), state_of(filled, "a")
    for name in ("4.network", "7.network", "series.ring", "series.sums", "series.seen"):
        assert mine[name] == theirs[name], name
    jumped, _ = small_run([*rows, ("a", 2, (6.0, 3.0))])
    assert state_of(jumped, "a")["4.network"] != mine["4.network"]


def test_a_longer_gap_starts_the_series_anew() -> None:
    """One step more than can be bridged: state as if nothing had been before, and no pair over the gap."""
    rows = [("a", 0, (1.0, 1.0)), ("a", 1, (2.0, 1.0)), ("a", 1 + MAX_GAP + 2, (3.0, 1.0))]
    partition, folded = small_run([*rows])
    assert folded.counts["series_resets"] == 1
    assert folded.counts["gaps_bridged"] == folded.counts["steps_bridged"] == 0
    assert known(folded.block.pairs[4]) == [[], [1], []]
    new, _ = small_run(rows[-1:])
    mine, theirs = state_of(partition, "a"), state_of(new, "a")
    for name in ("4.network", "series.sums", "series.scale", "series.age", "series.since"):
        assert mine[name] == theirs[name], name
    before = folded.block.scale.tolist()
    assert before[2] == 0.0
    assert before[1] > 0.0


def test_a_missing_target_forms_no_pair_but_gets_a_forecast() -> None:
    """It is forecast from what is known, counted, and the pairs after it go on."""
    _, folded = small_run([("a", 0, (1.0, 1.0)), ("a", 1, (None, 1.0)), ("a", 2, (3.0, 1.0))])
    assert known(folded.block.pairs[4]) == [[], [], [1, 2]]
    assert folded.counts["missing_targets"] == 1
    assert folded.counts["forecasts"] == 3
    assert not np.isnan(folded.forecasts[4]).any()
    assert folded.counts["pairs"] == 1


def test_nothing_can_be_said_before_the_first_value_of_the_target() -> None:
    """Forecasts are NaN, and so no pair, until the target was once seen."""
    _, folded = small_run([("a", 0, (None, 1.0)), ("a", 1, (3.0, 1.0)), ("a", 2, (4.0, 1.0))])
    assert np.isnan(folded.forecasts[4]).all(axis=1).tolist() == [True, False, False]
    assert known(folded.block.pairs[4]) == [[], [], [1]]
    assert folded.counts["pairs"] == 1


def test_only_the_incumbent_is_counted() -> None:
    """Two versions at once: forecasts are counted once, and each version has pairs and a checksum of its own."""
    _, folded = small_run([("a", i, (float(i), 0.0)) for i in range(4)])
    assert folded.counts["forecasts"] == 4
    assert set(folded.block.pairs) == set(folded.block.checksums) == set(VERSIONS)
    assert folded.block.checksums[4] == checksum(folded.forecasts[4])
    assert folded.block.checksums[4] != folded.block.checksums[7]


def test_a_version_starts_from_zero_at_its_start_offset() -> None:
    """A shadow seated at offset 5 has the carried state of one that saw only what came from there on."""
    stream = stream_of([("a", i, (float(i * i % 7), 1.0)) for i in range(12)])
    partition, _ = run(stream, [(0, 5)], {4: VERSIONS[4]})
    partition.seat([Seat(4, "incumbent", 0, 0), Seat(7, "shadow", 5, 5)], VERSIONS)
    block = admit(partition, stream.arrivals(5, 12), max_series=9).block
    (folded,) = fold([(partition, block)], VERSIONS)
    assert known(folded.block.pairs[7])[:3] == [[], [1], [1, 2]]
    assert known(folded.block.pairs[4])[0] == [1, 2, 3, 4]
    whole, _ = run(stream, [(0, 12)], {4: VERSIONS[4]})
    mine, theirs = state_of(partition, "a"), state_of(whole, "a")
    assert {name: mine[name] for name in theirs} == theirs


def test_a_version_that_left_is_forgotten() -> None:
    """Its carried state goes, the others' stays."""
    partition, _ = small_run([("a", i, (float(i), 0.0)) for i in range(4)])
    kept = partition.carried[7]
    partition.seat([Seat(4, "incumbent", 0, 0, leave_offset=4), Seat(7, "incumbent", 0, 0)], VERSIONS)
    assert set(partition.carried) == {7}
    assert partition.carried[7] is kept
    assert partition.incumbent == 7


# — admission —


def judge_plainly(stream: Stream, form: SeriesForm, max_series: int) -> list[str]:
    """The verdict on each record, one after the other, from a dictionary of what a series still remembers."""
    kept: dict[str, dict[int, tuple[float | None, ...]]] = {}
    verdicts = []
    for i, name in enumerate(stream.series):
        step = int(stream.step[i])
        cells = zip(stream.values[i].tolist(), stream.present[i].tolist(), strict=True)
        row = tuple(x if there else None for x, there in cells)
        nothing = (None,) * len(row)
        if name not in kept and len(kept) >= max_series:
            verdicts.append("too-many-series")
            continue
        past = kept.setdefault(name, {})
        newest = max(past, default=None)
        if newest is None or step > newest:
            if newest is not None and step - newest > form.max_gap_steps + 1:
                past.clear()
            for bridged in range(max(past, default=step) + 1, step):
                past[bridged] = nothing
            past[step] = row
            for old in [at for at in past if step - at >= form.ring_steps]:
                del past[old]
            verdicts.append("accept")
        elif past.get(step) == row:
            verdicts.append("duplicate")
        elif past.get(step, nothing) != nothing:
            verdicts.append("contradiction")
        else:
            verdicts.append("history" if stream.resent[i] else "late")
    return verdicts


def verdicts_of(admitted: Admitted, offsets: range) -> list[str]:
    """What `admit` says of each record."""
    said = dict.fromkeys(offsets, "duplicate")
    said |= dict.fromkeys(admitted.block.offset.tolist(), "accept")
    said |= dict.fromkeys(admitted.history.offset.tolist(), "history")
    said |= {refusal.offset: refusal.reason for refusal in admitted.refusals}
    return [said[offset] for offset in offsets]


@st.composite
def unruly(draw: st.DrawFn) -> Stream:
    """Records whose steps go to and fro, with few different values, some of them resent."""
    names, steps = st.sampled_from("aab"), st.sampled_from((0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 30, 31))
    value = st.sampled_from((1.0, 2.0, None))
    rows = draw(st.lists(st.tuples(names, steps, st.tuples(value, value), st.booleans()), min_size=1, max_size=14))
    stream = stream_of([row[:3] for row in rows])
    stream.resent[:] = [row[3] for row in rows]
    return stream


@settings(max_examples=300)
@given(unruly(), cut_points, st.integers(1, 2))
@example(stream_of([("a", step, (1.0, 1.0)) for step in (2, 5, 9, 12, 2)]), [], 2)  # beyond the ring
@example(stream_of([("a", step, (1.0, 1.0)) for step in (2, 5, 9, 12, 3)]), [3], 2)
@example(stream_of([("a", step, (1.0, 1.0)) for step in (2, 30, 2)]), [], 2)  # before a new start
def test_verdicts_equal_those_of_one_record_after_the_other(stream: Stream, points: list[int], max_series: int) -> None:
    """Whatever the cut: accept, duplicate, contradiction, late, history, too-many-series as judged by a plain loop."""
    expected = judge_plainly(stream, FORM, max_series)
    partition = Partition(FORM)
    found = []
    duplicates = 0
    for begin, end in cuts_of(len(stream), points):
        admitted = admit(partition, stream.arrivals(begin, end), max_series=max_series)
        fold([(partition, admitted.block)], {})
        found += verdicts_of(admitted, range(begin, end))
        duplicates += admitted.duplicates
    assert found == expected
    assert duplicates == expected.count("duplicate")


def admit_rows(partition: Partition, stream: Stream, at: int = 0, max_series: int = 9) -> Admitted:
    """Admit and fold a stream whose offsets begin at `at`."""
    admitted = admit(partition, stream.arrivals(0, len(stream), at), max_series=max_series)
    fold([(partition, admitted.block)], VERSIONS)
    return admitted


@pytest.mark.parametrize("together", [True, False])
def test_an_exact_duplicate_is_dropped_and_other_values_are_refused(together: bool) -> None:  # noqa: FBT001
    """In the same block or a later one; the mask counts too, and words name series and time."""
    first = [("a", 10, (1.0, None)), ("a", 11, (2.0, 2.0))]
    again = [("a", 10, (1.0, None)), ("a", 10, (1.0, 0.0)), ("a", 11, (2.0, 2.5)), ("a", 11, (2.0, 2.0))]
    partition = Partition(FORM)
    if together:
        admitted = admit_rows(partition, stream_of([*first, *again]))
    else:
        admit_rows(partition, stream_of(first))
        admitted = admit_rows(partition, stream_of(again), at=2)
    assert admitted.duplicates == 2
    assert [(r.offset, r.reason) for r in admitted.refusals] == [(3, "contradiction"), (4, "contradiction")]
    assert "'a'" in admitted.refusals[0].error
    assert "1970-01-01T10:00:00Z" in admitted.refusals[0].error


def test_a_duplicate_without_any_value_is_dropped_too() -> None:
    """A record of nulls that comes twice is no reason for a dead letter."""
    stream = stream_of([("a", 10, (1.0, 1.0)), ("a", 11, (None, None)), ("a", 11, (None, None))])
    for cuts in ([(0, 3)], [(0, 2), (2, 3)]):
        partition = Partition(FORM)
        found = [_admit_span(partition, stream, begin, end) for begin, end in cuts]
        assert sum(admitted.duplicates for admitted in found) == 1
        assert not any(admitted.refusals for admitted in found)


def _admit_span(partition: Partition, stream: Stream, begin: int, end: int) -> Admitted:
    admitted = admit(partition, stream.arrivals(begin, end), max_series=9)
    fold([(partition, admitted.block)], VERSIONS)
    return admitted


def test_a_late_record_is_refused_and_a_resent_one_goes_to_history() -> None:
    """Steps that were bridged, or that the series no longer remembers, are late; resent, they are for training."""
    partition = Partition(FORM)
    admit_rows(partition, stream_of([("a", 10, (1.0, 1.0)), ("a", 13, (2.0, 2.0))]))
    before = partition.digest()
    late = stream_of([("a", 12, (5.0, 5.0)), ("a", 3, (5.0, 5.0))])
    admitted = admit_rows(partition, late, at=2)
    assert [(r.offset, r.reason) for r in admitted.refusals] == [(2, "late"), (3, "late")]
    assert "1970-01-01T12:00:00Z is not after its last observation, 1970-01-01T13:00:00Z" in admitted.refusals[0].error
    late.resent[:] = True
    admitted = admit_rows(partition, late, at=4)
    assert not admitted.refusals
    assert admitted.history.step.tolist() == [12, 3]
    assert admitted.history.values.tolist() == [[5.0, 5.0], [5.0, 5.0]]
    assert len(admitted.block) == 0
    assert partition.digest() == before


def test_more_series_than_allowed_are_refused() -> None:
    """The first ones stay; a refused name takes no slot, and known ones go on."""
    partition = Partition(FORM)
    rows = [(name, step, (1.0, 1.0)) for step in (1, 2) for name in "abc"]
    admitted = admit_rows(partition, stream_of(rows), max_series=2)
    assert admitted.new_names == partition.names == ["a", "b"]
    assert [(r.offset, r.reason) for r in admitted.refusals] == [(2, "too-many-series"), (5, "too-many-series")]
    assert "'c'" in admitted.refusals[0].error
    assert "2 series" in admitted.refusals[0].error
    assert admitted.block.offset.tolist() == [0, 1, 3, 4]


def test_refusals_of_the_decoder_are_kept_in_the_order_of_offsets() -> None:
    """Both kinds of refusal go out in one order, as the ledger wants them."""
    from dataclasses import replace

    from consumers.stream import Refusal

    partition = Partition(FORM)
    stream = stream_of([("a", 5, (1.0, 1.0)), ("a", 4, (1.0, 1.0))])
    arrivals = replace(
        stream.arrivals(0, 2),
        end=4,
        offset=np.array([0, 2]),
        refusals=[Refusal(1, "malformed", "x"), Refusal(3, "late", "x")],
    )
    admitted = admit(partition, arrivals, max_series=9)
    assert [refusal.offset for refusal in admitted.refusals] == [1, 2, 3]
    assert (admitted.block.start, admitted.block.end) == (0, 4)


def test_a_block_of_only_refusals_moves_nothing() -> None:
    """Its span is covered, its columns are empty, and the fold leaves the state as it is."""
    partition, _ = small_run([("a", i, (float(i), 0.0)) for i in range(4)])
    before = partition.digest()
    admitted = admit_rows(partition, stream_of([("a", 1, (9.0, 9.0))]), at=4)
    assert (len(admitted.block), admitted.block.start, admitted.block.end) == (0, 4, 5)
    assert partition.digest() == before


def owners(partition: Partition) -> tuple[SeriesState | Carried, ...]:
    """Everything that holds state."""
    return partition.series, *partition.carried.values()


def test_the_digest_sees_every_array() -> None:
    """One number changed anywhere in the state, or another name, gives another digest."""
    rows = [(name, i, (float(i), 0.5)) for i in range(6) for name in "ab"]
    reference, _ = small_run(rows)
    seen = {reference.digest()}
    count = 0
    for owner in range(3):
        for name in owners(reference)[owner].arrays():
            partition, _ = small_run(rows)
            array = getattr(owners(partition)[owner], name)
            last = (1, *(size - 1 for size in array.shape[1:]))
            array[last] = not array[last] if array.dtype == np.bool_ else 77
            seen.add(partition.digest())
            count += 1
    renamed, _ = small_run([("c" if name == "b" else name, step, values) for name, step, values in rows])
    seen.add(renamed.digest())
    assert len(seen) == count + 2 == 13
