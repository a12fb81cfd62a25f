"""Random streams of observations, and a network in NumPy whose bits can't depend on the shape of its call."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from consumers.roster import Seat
from consumers.stream import Arrivals, Partition, Version, admit, fold
from models.architecture import Architecture, Inputs
from models.scaling import SeriesForm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from consumers.stream import Folded

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Singles = NDArray[np.float32]

MAX_GAP = 3
FORM = SeriesForm(
    features=("v", "w"),
    target="v",
    interval_ms=3_600_000,
    period_steps=8,
    half_life_steps=12.0,
    ring_steps=10,
    max_gap_steps=MAX_GAP,
)
# one step on most of the time; else a gap that is just bridged, one that is just not, one far beyond the ring
STRIDES = (1, 1, 1, 1, 2, MAX_GAP + 1, MAX_GAP + 2, 40)


def architecture_of(**changes: Any) -> Architecture:
    """A small architecture that fits `FORM`."""
    horizon = changes.get("horizon", 4)
    values: dict[str, Any] = {
        "units": (3,),
        "horizon": horizon,
        "features": FORM.features,
        "target": FORM.target,
        "gain": tuple(0.5 + 0.25 * k for k in range(horizon)),
        "interval_ms": FORM.interval_ms,
        "period_steps": FORM.period_steps,
        "inputs": Inputs(lags=3, season_lags=(2,)),
    }
    return Architecture(**(values | changes))


class AtOnce(Executor):
    """Runs what it is given before it returns."""

    def submit(self, work: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        """The outcome, which is there already."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **options))
        except Exception as error:  # noqa: BLE001 - handed to whoever asks for the outcome
            future.set_exception(error)
        return future


class NumpyScanner:
    """A recurrent network, number by number: h ← tanh(.8 h + x·a + .1 h'), outputs x·B + h·C.

    h' is h with its numbers rotated. Sums run over the inputs in a fixed order, so that a lane's bits do not
    depend on the shape of the call; with `careless` they do: whoever is in the tile is added to the outputs.
    """

    def __init__(self, architecture: Architecture, seed: int = 0, *, careless: bool = False) -> None:
        rng = np.random.default_rng(seed)
        size, horizon = architecture.carried_size, architecture.horizon
        self._to_state = rng.normal(size=(architecture.input_size, size), scale=0.3).astype(np.float32)
        self._to_output = rng.normal(size=(architecture.input_size, horizon), scale=0.3).astype(np.float32)
        self._from_state = rng.normal(size=(size, horizon)).astype(np.float32)
        self._careless = careless

    def scan(self, x: Singles, active: Bools, carried: Singles) -> tuple[Singles, Singles]:
        """`x` (W, T, I), `active` (W, T), `carried` (T, S) → outputs (W, T, H), carried (T, S)."""
        assert active.shape[1] % 8 == 0, "tiles are multiples of 8"
        outputs = np.zeros((*active.shape, self._to_output.shape[1]), np.float32)
        for wave in range(len(x)):
            state = np.float32(0.8) * carried + np.float32(0.1) * np.roll(carried, 1, axis=1)
            state = np.tanh(_add_products(state, x[wave], self._to_state))
            carried = np.where(active[wave][:, None], state, carried)
            outputs[wave] = _add_products(
                _add_products(outputs[wave], x[wave], self._to_output), carried, self._from_state
            )
            if self._careless:
                outputs[wave] += np.float32(1e-6) * active[wave].sum()
        return outputs, carried


def _add_products(total: Singles, rows: Singles, matrix: Singles) -> Singles:
    for i in range(rows.shape[1]):
        total = total + rows[:, i, None] * matrix[i]
    return total


@dataclass(frozen=True)
class Stream:
    """N records of one partition in order of arrival."""

    series: list[str]  # N
    step: Ints  # (N,)
    values: Floats  # (N, F), zero where missing
    present: Bools  # (N, F)
    resent: Bools  # (N,)

    def __len__(self) -> int:
        return len(self.series)

    def take(self, index: Sequence[int] | Ints) -> Stream:
        """Some of the records, in the order of `index`."""
        at = np.asarray(index, np.int64)
        return Stream(
            [self.series[i] for i in at.tolist()],
            self.step[at],
            self.values[at],
            self.present[at],
            self.resent[at],
        )

    def arrivals(self, begin: int, end: int, first_offset: int = 0) -> Arrivals:
        """The records `begin` to before `end` as the decoder gives them, offsets counted from `first_offset`."""
        rows = slice(begin, end)
        return Arrivals(
            first_offset + begin,
            first_offset + end,
            np.arange(begin, end) + first_offset,
            self.series[rows],
            self.step[rows],
            self.values[rows],
            self.present[rows],
            self.resent[rows],
        )


def stream_of(rows: Iterable[tuple[str, int, Sequence[float | None]]], *, resent: bool = False) -> Stream:
    """The stream of (series, step, values) in this order; None is missing."""
    listed = list(rows)
    raw = np.array([values for _, _, values in listed], np.float64).reshape(len(listed), -1)
    present = ~np.isnan(raw)
    return Stream(
        [series for series, _, _ in listed],
        np.array([step for _, step, _ in listed], np.int64),
        np.where(present, raw, 0.0),
        present,
        np.full(len(listed), resent),
    )


_numbers = st.one_of(
    st.none(),
    st.integers(-5, 5).map(float),
    st.floats(-100, 100, width=32),
    st.sampled_from((1e30, -1e30, 1e-300, -0.0)),
)


@st.composite
def streams(draw: st.DrawFn, most: int = 40, strides: Sequence[int] = STRIDES) -> Stream:
    """Up to `most` observations of five series, in any interleaving; some series start late, with gaps."""
    now = {name: 1_000 + 7 * i for i, name in enumerate("abcde")}
    rows = []
    picks = st.tuples(st.sampled_from("aaabbcde"), st.sampled_from(strides), _numbers, _numbers)
    size = draw(st.integers(1, most))
    for name, stride, v, w in draw(st.lists(picks, min_size=size, max_size=size)):
        now[name] += stride
        rows.append((name, now[name], (v, w)))
    return stream_of(rows)


def cuts_of(n: int, points: Iterable[int]) -> list[tuple[int, int]]:
    """The spans between these points of 0 … n."""
    edges = sorted({0, n, *(point % (n + 1) for point in points)})
    return list(pairwise(edges))


def run(
    stream: Stream,
    cuts: Iterable[tuple[int, int]],
    versions: Mapping[int, Version],
    *,
    form: SeriesForm = FORM,
) -> tuple[Partition, list[Folded]]:
    """A partition after the whole stream, in these blocks, and what each brought; all must be accepted."""
    partition = Partition(form)
    partition.seat([Seat(n, "shadow" if i else "incumbent", 0, 0) for i, n in enumerate(versions)], versions)
    results = []
    for begin, end in cuts:
        admitted = admit(partition, stream.arrivals(begin, end), max_series=100)
        assert len(admitted.block) == end - begin
        (folded,) = fold([(partition, admitted.block)], versions)
        results.append(folded)
    return partition, results
