"""Windows: what a retraining's epoch gives out, and above all what it does not."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.draws import BATCH_WINDOWS, LEAST_STEPS, MOST_STEPS, Windows
from models.sequences import Sequences

HORIZON = 5
STEPS = 300


def sequences_of(series: int, gaps: int = 0) -> Sequences:
    """Sequences whose first input is the step, whose second is the series, whose targets tell issue, lead and series.

    Of all labels, one in `gaps` is not known.
    """
    rng = np.random.default_rng(gaps)
    step = np.broadcast_to(np.arange(STEPS, dtype=np.float32), (series, STEPS))
    which = np.repeat(np.arange(series, dtype=np.float32)[:, None], STEPS, axis=1)
    leads = np.arange(1, HORIZON + 1, dtype=np.float32)
    active = np.ones((series, STEPS), np.bool_)
    active[:, :7] = False
    known = np.repeat(active[:, :, None], HORIZON, axis=2)
    known &= np.arange(STEPS)[:, None] + np.arange(1, HORIZON + 1) < STEPS
    if gaps:
        known &= rng.random(known.shape) > 1.0 / gaps
    return Sequences(
        inputs=np.stack([step, which], axis=2),
        targets=(step[:, :, None] + leads / 10 + 1000 * which[:, :, None]).astype(np.float32),
        known=known,
        active=active,
        fresh=np.zeros_like(active),
        first_step=0,
    )


def given_out(windows: Windows, seed: int, batch_lanes: int = 256) -> tuple[list[tuple[int, int, int]], int]:
    """Series, step of issue and lead of every label that an epoch trains on, and how many steps it takes."""
    rng = np.random.default_rng(seed)
    found: list[tuple[int, int, int]] = []
    steps = 0
    for batch, trains in windows.tour(windows.draw(rng), rng, batch_lanes):
        if not trains:
            continue
        steps += 1
        wave, lane, lead = np.nonzero(batch.known)
        target = batch.targets[wave, lane, lead]
        assert (batch.active[wave, lane]).all()
        series, rest = np.divmod(target, 1000)
        found += zip(series.astype(int).tolist(), np.floor(rest).astype(int).tolist(), (lead + 1).tolist(), strict=True)
    return found, steps


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(2, 40),
    st.integers(0, 200),
    st.integers(1, 99),
    st.integers(1, 3),
    st.integers(0, 5),
    st.integers(0, 1000),
)
def test_a_label_is_used_only_where_issue_and_time_lie_inside_its_span(
    series: int, chunk: int, begin: int, length: int, passes: int, gaps: int, seed: int
) -> None:
    """Recent labels: each that is known once a pass; old ones: whole in the old span; no other at all."""
    sequences = sequences_of(series, gaps)
    recent, old = (begin, begin + length), (begin // 2, begin)
    windows = Windows(sequences, chunk, recent, old, passes)
    windows.old_windows = 3
    found, _ = given_out(windows, seed)
    inside = [(s, t, k) for s, t, k in found if t >= begin]
    assert all(t + k < begin + length for _, t, k in inside)
    assert all(old[0] <= t and t + k < old[1] for _, t, k in found if t < begin)
    wanted = [
        (s, t, k)
        for s in range(series)
        for t in range(begin, min(begin + length, STEPS))
        for k in range(1, HORIZON + 1)
        if t + k < begin + length and sequences.known[s, t, k - 1]
    ]
    assert sorted(inside) == sorted(wanted * passes)


def test_windows_begin_with_a_burn_in_that_trains_nothing() -> None:
    """Before each batch come the steps just before it, of the same series; the state goes from one to the other."""
    windows = Windows(sequences_of(3), 10, (100, 160))
    rng = np.random.default_rng(1)
    lanes = windows.draw(rng)
    tour = list(windows.tour(lanes, rng, 256))
    assert [trains for _, trains in tour] == [False, True] * (len(tour) // 2)
    for (before, _), (batch, _) in zip(tour[::2], tour[1::2], strict=True):
        np.testing.assert_array_equal(before.lanes, batch.lanes)
        assert before.active.shape[0] == 5
        np.testing.assert_array_equal(before.inputs[-1, :, 0] + 1, batch.inputs[0, :, 0])
        np.testing.assert_array_equal(before.inputs[-1, :, 1], batch.inputs[0, :, 1])
    assert sorted(np.concatenate([batch.lanes for batch, _ in tour[::2]]).tolist()) == list(range(len(lanes.series)))


def test_another_seed_cuts_chunks_elsewhere_and_each_epoch_draws_old_windows_anew() -> None:
    """Phases and old windows follow the seed, and go on changing from epoch to epoch."""
    windows = Windows(sequences_of(2), 12, (200, 290), (10, 200))
    windows.old_windows = 4
    rng = np.random.default_rng(3)
    epochs = [windows.draw(rng) for _ in range(6)]
    assert len({int(lanes.start.max()) for lanes in epochs}) > 2
    old = {tuple(lanes.start[lanes.label_end == 200].tolist()) for lanes in epochs}
    assert len(old) == 6
    assert all(len(starts) == 4 for starts in old)
    assert len({tuple(windows.draw(np.random.default_rng(seed)).start.tolist()) for seed in range(6)}) > 3
    again = windows.draw(np.random.default_rng(3))
    np.testing.assert_array_equal(again.start, epochs[0].start)


def test_an_epoch_has_some_steps_even_of_few_windows_and_no_batch_is_too_large() -> None:
    """Few windows are dealt out over several steps, many over batches of a bounded size."""
    assert given_out(Windows(sequences_of(2), 10, (100, 150)), 0)[1] == LEAST_STEPS
    assert given_out(Windows(sequences_of(1), 10, (100, 109)), 5)[1] in {1, 2}
    many = Windows(sequences_of(30), 10, (100, 250))
    count = many.recent_windows()
    assert count == 450
    rng = np.random.default_rng(0)
    sizes = [len(batch.lanes) for batch, trains in many.tour(many.draw(rng), rng, 256) if trains]
    assert max(sizes) <= BATCH_WINDOWS
    assert len(sizes) == -(-sum(sizes) // BATCH_WINDOWS)
    sizes = [len(batch.lanes) for batch, trains in many.tour(many.draw(rng), rng, 20) if trains]
    assert max(sizes) <= 20
    crowd = Windows(sequences_of(60), 5, (50, 250))
    for batch_lanes, steps in ((256, MOST_STEPS), (50, -(-2_460 // 50))):
        found = given_out(crowd, 1, batch_lanes)[1]
        assert abs(found - steps) <= 1


def test_more_old_windows_than_there_are_come_again() -> None:
    """From a short old span as many are drawn as are asked for; from none, none."""
    windows = Windows(sequences_of(1), 10, (100, 150), (80, 100))
    windows.old_windows = 9
    lanes = windows.draw(np.random.default_rng(0))
    assert int((lanes.label_end == 100).sum()) == 9
    windows = Windows(sequences_of(1), 10, (100, 150), (2, 6))  # before the series begins
    windows.old_windows = 9
    assert (windows.draw(np.random.default_rng(0)).label_end == 150).all()
