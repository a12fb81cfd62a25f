"""The study of swaps: its runs are folds of the core, its labels lie in their span, its intervals hold the truth."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from benchmarks._excess import (
    EVENTS,
    HORIZON,
    NEW,
    OLD,
    Stream,
    cut,
    measured,
    plan_for,
    reference,
    relative,
    seat,
    treated,
)
from consumers.history import History
from consumers.stream import Partition, Version, fold
from models.network import Network, configure
from models.sequences import sequences_of
from models.weights import fresh_weights

PLAN = plan_for({}, {"lags": 3, "units": [8]}, seed=1)
STEPS, MOMENTS, DEPTH = 600, (260, 301), 40


@pytest.fixture(scope="module")
def stream() -> Stream:
    """Two series by the hour; the second misses some hours."""
    configure(threads=1)  # as every test that steps a network in this process
    rng = np.random.default_rng(1)
    walk = rng.normal(size=(STEPS, 2)).cumsum(axis=0)
    rows = [(t, s) for t in range(STEPS) for s in range(2) if not (s and t % 97 == 5)]
    step, series = np.array(rows).T
    values = walk[step, series][:, None]
    times = (400_000 + step) * 3_600_000
    return Stream.of(History(("a", "b"), ("value",), series, times, values, np.ones_like(values, np.bool_)), PLAN.form)


@pytest.fixture(scope="module")
def versions() -> dict[int, Version]:
    """Two versions with random weights, so that their states differ."""
    rng = np.random.default_rng(2)
    made = {}
    for number in (OLD, NEW):
        weights = fresh_weights(PLAN.architecture, number)
        weights["head.kernel"] = rng.normal(size=weights["head.kernel"].shape).astype(np.float32)
        made[number] = Version(number, PLAN.architecture, Network(PLAN.architecture, weights))
    return made


def test_a_spun_up_version_forecasts_as_one_that_was_seated_there(stream: Stream, versions: dict[int, Version]) -> None:
    """A run from a copied series state gives the bits of one partition folded over everything from its offset."""
    known = reference(stream, versions[OLD], versions[NEW], MOMENTS, (DEPTH,))
    found, distance = treated(stream, versions[NEW], known, MOMENTS, DEPTH)
    assert (distance > 0).all()
    for i, moment in enumerate(MOMENTS):
        partition = Partition(stream.form)
        partition.seat([seat(NEW, stream.offset(moment - DEPTH), "incumbent")], versions)
        for begin, end in ((0, moment - DEPTH), (moment - DEPTH, moment + EVENTS)):
            (folded,) = fold([(partition, stream.piece(begin, end))], versions)
        block = folded.block
        after = block.step - stream.first_step >= moment
        expected = np.full((2, EVENTS, HORIZON), np.nan, np.float32)
        expected[block.slot[after], block.step[after] - stream.first_step - moment] = folded.forecasts[NEW][after]
        np.testing.assert_array_equal(found[:, i], expected)


def test_the_state_over_all_steps_costs_nothing(stream: Stream, versions: dict[int, Version]) -> None:
    """Spun up from the stream's start, or kept from the very same version, a version errs as the reference does."""
    whole = measured(stream, versions[OLD], versions[NEW], MOMENTS[:1], (MOMENTS[0],))
    np.testing.assert_array_equal(whole.squared[str(MOMENTS[0])], whole.squared["all"])
    twin = Version(OLD, versions[NEW].architecture, versions[NEW].network)
    same = measured(stream, twin, versions[NEW], MOMENTS, ())
    np.testing.assert_array_equal(same.squared["kept"], same.squared["all"])
    assert (same.squared["zeroed"] != same.squared["all"]).any()
    assert same.distance["zeroed"] == pytest.approx(1.0)


def test_no_label_of_a_span_lies_beyond_it(stream: Stream) -> None:
    """The labels of a cut span are those whose own time is before its end."""
    block = stream.block
    rows = Partition(stream.form).series.look(block.slot, block.step, block.values, block.present)
    whole = sequences_of(PLAN.architecture, stream.form, rows)
    piece = cut(whole, 100, 300)
    for lead in (1, HORIZON):
        known = whole.known[:, 100:300, lead - 1].copy()
        known[:, 200 - lead :] = False
        np.testing.assert_array_equal(piece.known[:, :, lead - 1], known)
    assert whole.known[:, 299].any()


def test_the_interval_of_an_excess_holds_it() -> None:
    """Equal sums are an excess of zero without width; a tenth more at random is found as about ten per cent."""
    rng = np.random.default_rng(3)
    right = rng.gamma(2.0, size=(3, 40))
    assert relative(right, deepcopy(right)).tolist() == [0.0] * 1_001
    found = relative(right * rng.normal(1.1, 0.2, size=right.shape), right)
    low, high = np.quantile(found[1:], [0.025, 0.975])
    assert low < 10.0 < high
    assert low < found[0] < high
    assert 2.0 < high - low < 20.0
