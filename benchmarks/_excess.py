"""The study behind `benchmarks.excess`: two versions of a stream, and the errors of the second after a swap.

The running service's own core does it all. A copy of the series state stands for a snapshot; a seat with a start
offset for a spin-up; a fold of many partitions, one for each moment of a swap, for the stream after it.
"""

from __future__ import annotations

import io
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from consumers.roster import Seat
from consumers.stream import Partition, Version, fold
from worker.cli_history import plan_of
from worker.fit import observations, with_gain
from worker.quiet import start_tensorflow
from worker.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from consumers.history import History
    from models.architecture import Architecture, Weights
    from models.blocks import Block
    from models.forecaster import Carried
    from models.scaling import SeriesForm, SeriesState
    from models.sequences import Sequences
    from worker.fit import FitPlan

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]

EVENTS = 200  # after the swap
RANGES = ((1, 1), (2, 8), (9, 24), (25, 72), (73, EVENTS))
LEADS = ((1, 1), (2, 6), (7, 24))
HORIZON = LEADS[-1][1]
EARLY, LATE = 0.25, 0.5  # of the steps: the old version knows the first quarter, the new one the second
VALIDATION = 0.15  # of a version's span
FINE_RATE, FINE_EPOCHS, FINE_CLOSING = 5e-4, 3, 1  # about 30 updates, at the rate that serves most series (RECIPE)
OLD, NEW = 1, 2
KEPT, ZEROED = "kept", "zeroed"
FINE, FRESH = "fine-tuned", "fresh"
DRAWS, MOMENTS_A_BLOCK = 1_000, 4  # of the bootstrap


@dataclass(frozen=True)
class Excess:
    """What one version lost by each treatment of its state, at M moments of a swap.

    Sums over series, `(M, ranges, lead groups)`: the errors' squares and amounts under each treatment and under
    the reference "all"; `distance` `(M,)`: the carried state's distance from the reference's, relative to that.
    """

    squared: dict[str, Floats]
    absolute: dict[str, Floats]
    distance: dict[str, Floats]
    skill: float  # of the reference, against persistence, over all that is looked at


@dataclass(frozen=True)
class Stream:
    """A whole history as one block with what is known of it by series and step of the common clock."""

    form: SeriesForm
    block: Block
    first_step: int
    x: Floats  # (S, T) the target; NaN where it was not observed

    @classmethod
    def of(cls, history: History, form: SeriesForm) -> Stream:
        """The observations that the service would accept."""
        _, block = observations(history, form, Console(file=io.StringIO()))
        first = int(block.step.min())
        x = np.full((int(block.slot.max()) + 1, int(block.step.max()) - first + 1), np.nan)
        seen = block.present[:, form.target_index]
        x[block.slot[seen], block.step[seen] - first] = block.values[seen, form.target_index]
        return cls(form, block, first, x)

    @property
    def steps(self) -> int:
        """The number of steps of the common clock."""
        return int(self.x.shape[1])

    def piece(self, begin: int, end: int) -> Block:
        """The block of the steps `begin … end - 1`."""
        taken = self.block.take(np.arange(self._row(begin), self._row(end)))
        return replace(taken, start=self.offset(begin), end=self.offset(end))

    def offset(self, step: int) -> int:
        """The offset of the first observation at a step or after it."""
        at = self._row(step)
        return int(self.block.offset[at]) if at < len(self.block) else self.block.end

    def _row(self, step: int) -> int:
        return int(np.searchsorted(self.block.step, step + self.first_step))


def plan_for(model: dict[str, Any], network: dict[str, Any], seed: int) -> FitPlan:
    """What the service's own settings make of these sections."""
    content = {"model": {"horizon": HORIZON, **model}, "network": network, "training": {"seed": seed}}
    return plan_of(Settings.model_validate(content))


def study(history: History, plan: FitPlan, depths: Sequence[int], count: int) -> dict[str, Excess]:
    """By kind of new version: what the treatments of its state cost at `count` moments of a swap."""
    start_tensorflow(plan.threads)
    stream = Stream.of(history, plan.form)
    old, versions = trained(stream, plan)
    first, last = round(LATE * stream.steps), stream.steps - EVENTS - HORIZON
    moments = np.linspace(first, last, count).astype(int).tolist()
    return {kind: measured(stream, old, new, moments, depths) for kind, new in versions.items()}


def trained(stream: Stream, plan: FitPlan) -> tuple[Version, dict[str, Version]]:
    """The old version, trained on the early span, and the new ones by kind, trained on the late span."""
    from models.network import Network
    from models.sequences import gains, sequences_of

    block = stream.block
    rows = Partition(plan.form).series.look(block.slot, block.step, block.values, block.present)
    whole = sequences_of(plan.architecture, plan.form, rows)
    middle = round(EARLY * whole.steps)
    early, late = cut(whole, 0, middle), cut(whole, middle, round(LATE * whole.steps))
    first = with_gain(plan.architecture, gains(early, early.steps))
    weights = _weights(first, early, plan)
    fine_plan = replace(
        plan, training=replace(plan.training, rate=FINE_RATE, epochs=FINE_EPOCHS, closing_epochs=FINE_CLOSING)
    )
    fine = _weights(first, late, fine_plan, weights)
    anew = with_gain(plan.architecture, gains(late, late.steps))
    other = replace(plan, training=replace(plan.training, seed=plan.training.seed + 1_000))
    return Version(OLD, first, Network(first, weights)), {
        FINE: Version(NEW, first, Network(first, fine)),
        FRESH: Version(NEW, anew, Network(anew, _weights(anew, late, other))),
    }


def _weights(architecture: Architecture, span: Sequences, plan: FitPlan, weights: Weights | None = None) -> Weights:
    from models.epochs import train
    from models.sequences import Spans

    spans = Spans(round((1.0 - VALIDATION) * span.steps), span.steps, span.steps)
    return train(architecture, span, spans, plan.training, weights=weights).weights


def cut(whole: Sequences, begin: int, end: int) -> Sequences:
    """The sequences of the steps `begin … end - 1`; no label reaches beyond them."""
    columns = ("inputs", "targets", "known", "active", "fresh")
    piece = replace(whole, first_step=whole.first_step + begin, **{c: getattr(whole, c)[:, begin:end] for c in columns})
    known = piece.known.copy()
    for lead in range(1, piece.horizon + 1):
        known[:, max(0, piece.steps - lead) :, lead - 1] = False
    return replace(piece, known=known)


@dataclass(frozen=True)
class Reference:
    """A run of both versions over everything: what each snapshot of the other runs starts from."""

    series: dict[int, SeriesState]  # by step: the series state before it
    carried: dict[int, dict[int, Carried]]  # by moment of a swap, then by version
    forecasts: Singles  # (S, T, H) of the new version
    scale: Floats  # (S, T) in force before the observation


def measured(stream: Stream, old: Version, new: Version, moments: Sequence[int], depths: Sequence[int]) -> Excess:
    """What each treatment of the new version's state costs."""
    known = reference(stream, old, new, moments, depths)
    window = np.asarray(moments)[:, None] + np.arange(EVENTS)  # (M, E)
    unit = known.scale[:, window]  # (S, M, E)
    aims = window[:, :, None] + np.arange(1, HORIZON + 1)
    actual = stream.x[:, aims]  # (S, M, E, H)
    best = known.forecasts[:, window]

    def errors(forecasts: NDArray[Any]) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = (forecasts - actual) / unit[..., None]
        return found

    base = errors(best)
    usable = np.isfinite(base)
    squared, absolute = {"all": _summed(base**2, usable)}, {"all": _summed(np.abs(base), usable)}
    last = errors(np.broadcast_to(stream.x[:, window, None], actual.shape))
    both = usable & np.isfinite(last)
    skill = 1.0 - float((base[both] ** 2).sum() / (last[both] ** 2).sum())
    distance = {}
    for name, depth in [(KEPT, 0), (ZEROED, 0), *((str(depth), depth) for depth in depths)]:
        forecasts, distance[name] = treated(stream, new, known, moments, depth, kept=name == KEPT)
        found = errors(forecasts)
        squared[name], absolute[name] = _summed(found**2, usable), _summed(np.abs(found), usable)
    return Excess(squared, absolute, distance, skill)


def _summed(errors: Floats, usable: NDArray[np.bool_]) -> Floats:
    """Sums over series of `(S, M, E, H)`, by moment, range of events and group of leads."""
    total = np.where(usable, errors, 0.0).sum(axis=0)  # (M, E, H)
    by_range = np.stack([total[:, a - 1 : b].sum(axis=1) for a, b in RANGES], axis=1)
    return np.stack([by_range[:, :, a - 1 : b].sum(axis=2) for a, b in LEADS], axis=2)


def reference(stream: Stream, old: Version, new: Version, moments: Sequence[int], depths: Sequence[int]) -> Reference:
    """Both versions folded over everything, with copies of the state at every step that a run will start from."""
    versions = {OLD: old, NEW: new}
    partition = Partition(stream.form)
    partition.seat([seat(OLD, 0, "incumbent"), seat(NEW, 0)], versions)
    starts = {moment - depth for moment in moments for depth in (0, *depths)}
    cuts = sorted({0, *starts, *(m + EVENTS for m in moments)})
    series: dict[int, SeriesState] = {}
    carried: dict[int, dict[int, Carried]] = {}
    forecasts = np.full((*stream.x.shape, HORIZON), np.nan, np.float32)
    scale = np.full(stream.x.shape, np.nan)
    for begin, end in zip(cuts, [*cuts[1:], stream.steps], strict=True):
        if begin in starts:
            series[begin] = deepcopy(partition.series)
        if begin in moments:
            carried[begin] = deepcopy(partition.carried)
        if begin == cuts[-1]:
            break
        (folded,) = fold([(partition, stream.piece(begin, end))], versions)
        at = (folded.block.slot, folded.block.step - stream.first_step)
        forecasts[at], scale[at] = folded.forecasts[NEW], folded.block.scale
    return Reference(series, carried, forecasts, scale)


def treated(
    stream: Stream, new: Version, known: Reference, moments: Sequence[int], depth: int, *, kept: bool = False
) -> tuple[Singles, Floats]:
    """Forecasts `(S, M, E, H)` after swaps, and how far `(M,)` the carried state was from the reference's.

    The state is folded from zero over the `depth` steps before the moment, or that of the old version (`kept`).
    """
    versions = {NEW: new}
    partitions = []
    for moment in moments:
        partition = Partition(stream.form)
        partition.series = deepcopy(known.series[moment - depth])
        partition.seat([seat(NEW, stream.offset(moment - depth), "incumbent")], versions)
        if kept:
            partition.carried[NEW] = deepcopy(known.carried[moment][OLD])
        partitions.append(partition)
    if depth:
        fold([(p, stream.piece(m - depth, m)) for p, m in zip(partitions, moments, strict=True)], versions)
    size = len(stream.x)
    distance = [
        _distance(partition.carried[NEW], known.carried[moment][NEW], size)
        for partition, moment in zip(partitions, moments, strict=True)
    ]
    found = fold([(p, stream.piece(m, m + EVENTS)) for p, m in zip(partitions, moments, strict=True)], versions)
    forecasts = np.full((size, len(moments), EVENTS, HORIZON), np.nan, np.float32)
    for i, (moment, folded) in enumerate(zip(moments, found, strict=True)):
        block = folded.block
        forecasts[block.slot, i, block.step - stream.first_step - moment] = folded.forecasts[NEW]
    return forecasts, np.array(distance)


def seat(version: int, start: int, role: Any = "shadow") -> Seat:
    """A seat in which a version starts from zero at an offset, and is there from then on."""
    return Seat(version=version, role=role, start_offset=start, join_offset=start)


def _distance(carried: Carried, right: Carried, size: int) -> float:
    """Root-mean-square distance of two carried states, in root-mean-squares of the right one."""
    right.reserve(size)
    carried.reserve(size)
    truth = right.network[:size].astype(np.float64)
    return float(np.sqrt(((carried.network[:size] - truth) ** 2).sum() / (truth**2).sum()))


def relative(treated: Floats, right: Floats, draws: int = DRAWS, block: int = MOMENTS_A_BLOCK) -> Floats:
    """Excess in % of the reference from sums `(seeds, M)`: its value, then `draws` of its bootstrap.

    Drawn are the seeds, and the moments of swaps in circular blocks, both at once (Politis & Romano 1992, in
    Exploring the Limits of Bootstrap, 263).
    """
    rng = np.random.default_rng(1)
    seeds, moments = right.shape
    blocks = -(-moments // block)
    shares = [treated.sum() / right.sum()]
    for _ in range(draws):
        begins = rng.integers(moments, size=(blocks, 1))
        at = ((begins + np.arange(block)) % moments).ravel()[:moments]
        who = rng.integers(seeds, size=(seeds, 1))
        shares.append(treated[who, at].sum() / right[who, at].sum())
    return 100.0 * (np.array(shares) - 1.0)
