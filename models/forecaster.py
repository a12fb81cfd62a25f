"""A version at work: its inputs from the series state, its network over the waves, its forecasts and pairs.

`inputs` is the one preparation that the running stream and training share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import VersionError
from models.scaling import MIN_GROWTH, Bools, Floats, Ints, Rows, SeriesForm
from models.slabs import histories, windows
from models.times import DAY_MS, WEEK_MS
from models.transforms import Transform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.architecture import Architecture

MONDAY_MS = 4 * DAY_MS  # 1970-01-01 was a Thursday
MIN_TILE = 8  # single rows gave other bits than tiles of 8 and more
MAX_TILE = 1024

Singles = NDArray[np.float32]


class Scanner(Protocol):
    """What the forecaster needs of a network (models.network.Network)."""

    def scan(self, x: Singles, active: Bools, carried: Singles) -> tuple[Singles, Singles]:
        """`x` (W, T, I), `active` (W, T), `carried` (T, S) → outputs (W, T, H), carried (T, S)."""


def check_fit(architecture: Architecture, form: SeriesForm) -> None:
    """Refuse a version that needs more than the series state of the model keeps.

    Raises:
        VersionError: with the cure.
    """
    for name in ("features", "target", "interval_ms", "period_steps"):
        theirs, ours = getattr(architecture, name), getattr(form, name)
        if theirs != ours:
            raise VersionError(
                f"the version was made for {name} {theirs!r}, the model's is {ours!r}",
                "fit a version with this configuration, or use the configuration that it was made with",
            )
    if architecture.ring_steps_needed >= form.ring_steps:
        raise VersionError(
            f"the version looks {architecture.ring_steps_needed} steps back, the series state keeps {form.ring_steps}",
            "use fewer lags, or start a model with a longer ring",
        )


def inputs(architecture: Architecture, form: SeriesForm, rows: Rows, names: Sequence[str] = ()) -> Singles:
    """The network's inputs, `(R, I)`, in the order of `architecture.input_names()` (source: RECIPE).

    `names` are the series by slot; they are needed where the architecture has an input for each of its series.
    """
    chosen = architecture.inputs
    parts: list[Singles] = []
    bounded = _of_values(architecture, form, rows)
    if bounded:
        with np.errstate(over="ignore"):  # beyond single precision is squashed to ±c all the same
            z = np.ascontiguousarray(np.concatenate(bounded, axis=1) / chosen.squash, np.float32)
        parts.append(np.float32(chosen.squash) * np.tanh(z))
    if chosen.calendar:
        parts.append(calendar(rows.step * form.interval_ms))
    if chosen.missing:
        parts.append((~rows.present).astype(np.float32))
    if architecture.series:
        parts.append(_one_hot(architecture.series, rows, names))
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def _one_hot(series: Sequence[str], rows: Rows, names: Sequence[str]) -> Singles:
    """1 in the column of the row's series, `(R, len(series))`; a series of another name has none."""
    column_of = {name: column for column, name in enumerate(series)}
    columns = np.array([column_of.get(names[slot], -1) for slot in rows.slot.tolist()], np.int64)[rows.lane]
    found = np.zeros((len(columns), len(series)), np.float32)
    known = np.flatnonzero(columns >= 0)
    found[known, columns[known]] = 1.0
    return found


def _of_values(architecture: Architecture, form: SeriesForm, rows: Rows) -> list[Floats]:
    """The inputs that are made of values, before they are squashed; each with R rows."""
    chosen, target = architecture.inputs, form.target_index
    seen_by = [architecture.seen_by if f == target else Transform() for f in range(rows.x.shape[1])]
    inverse = np.divide(1.0, rows.scale, out=np.zeros_like(rows.scale), where=rows.scale > 0)
    transform = seen_by[target]
    if not transform.none:
        scale, level = rows.scale[:, target], rows.level[:, target]
        inverse[:, target] = np.divide(1.0, transform.unit(scale, level), out=np.zeros_like(scale), where=scale > 0)
    found: list[Floats] = []
    if chosen.level:
        distance = rows.x - rows.level
        if not transform.none:
            distance[:, target] = transform.seen(rows.x[:, target], scale) - transform.seen(level, scale)
        found.append(distance * inverse)
    if chosen.delta:
        found += [2.0 * _differences(rows, [1], f, t) * -inverse[:, f, None] for f, t in enumerate(seen_by)]
    if chosen.lags:
        found.append(_differences(rows, range(1, chosen.lags + 1), target, transform) * inverse[:, target, None])
    if chosen.season_lags:
        back = [form.period_steps - k for k in chosen.season_lags]
        found.append(_differences(rows, back, target, transform) * inverse[:, target, None])
    if architecture.season_mean:
        found.append(_season_means(architecture, rows, target, transform) * inverse[:, target, None])
    return found


def _season_means(architecture: Architecture, rows: Rows, feature: int, transform: Transform) -> Floats:
    """The mean of the values at the same time of as many periods as are known, less x_t, as it is seen, `(R, K)`."""
    leads = np.asarray(architecture.season_mean_lags, np.int64)
    scale = rows.scale[:, feature, None]
    total = np.zeros((len(rows.x), len(leads)))
    count = np.zeros_like(total)
    for periods in range(1, architecture.season_mean + 1):
        values, valid = rows.lagged((periods * architecture.period_steps - leads).tolist(), feature)
        total += np.where(valid, transform.seen(values, scale), 0.0)
        count += valid
    now = transform.seen(rows.x[:, feature, None], scale)
    means: Floats = np.divide(total, count, out=np.repeat(now, len(leads), axis=1), where=count > 0) - now
    return means


def calendar(time_ms: Ints) -> Singles:
    """Sine and cosine of the hour of the day and of the time of the week (UTC), `(N, 4)`."""
    moments, which = np.unique(time_ms, return_inverse=True)
    day = 2.0 * np.pi * (moments % DAY_MS) / DAY_MS
    week = 2.0 * np.pi * ((moments - MONDAY_MS) % WEEK_MS) / WEEK_MS
    waves = np.stack([np.sin(day), np.cos(day), np.sin(week), np.cos(week)], axis=1)
    found: Singles = waves.astype(np.float32)[which]
    return found


def forecasts(architecture: Architecture, form: SeriesForm, rows: Rows, outputs: Singles) -> Singles:
    """The values that the network's outputs `(R, H)` stand for.

    NaN at bridged steps, and where no value of the target has been seen yet: nothing can be said.
    """
    base, unit = base_and_unit(architecture, form, rows)
    values = architecture.seen_by.back(base + unit * outputs, rows.scale[:, form.target_index, None])
    found: Singles = values.astype(np.float32)
    found[(rows.since[:, form.target_index] < 0) | (rows.source < 0)] = np.nan
    return found


def base_and_unit(architecture: Architecture, form: SeriesForm, rows: Rows) -> tuple[Floats, Floats]:
    """What a forecast adds the network's output to, and what it multiplies it by: `(R, H)`, or `(R, 1)` where alike.

    Of the target as the architecture sees it. Where a series does not go back a period, the last value is the base.
    """
    target, transform = form.target_index, architecture.seen_by
    scale, level = rows.scale[:, target, None], rows.level[:, target, None]
    unit = transform.unit(scale, level)
    if architecture.has_gain:
        unit = unit * np.asarray(architecture.gain)
    base = rows.x[:, target, None] if architecture.has_gain else level
    if architecture.form == "season":
        values, valid = rows.lagged(architecture.base_lags, target)
        base = np.where(valid & (np.asarray(architecture.base_lags) > 0), values, base)
    return transform.seen(base, scale), unit


def _differences(rows: Rows, ks: Sequence[int], feature: int, transform: Transform) -> Floats:
    """`x_{t-k} - x_t` of one feature as it is seen, `(R, K)`; zero where the series does not go back so far."""
    values, valid = rows.lagged(ks, feature)
    scale = rows.scale[:, feature, None]
    moved = transform.seen(values, scale) - transform.seen(rows.x[:, feature, None], scale)
    differences: Floats = np.where(valid, moved, 0.0)
    return differences


class Carried:
    """The carried state of one version in one partition: network state and pending forecasts, by slot."""

    def __init__(self, size: int, horizon: int) -> None:
        self.network = np.empty((0, size), np.float32)  # (C, S)
        self.pending = np.empty((0, horizon, horizon), np.float32)  # (C, step mod H, H); NaN: not issued

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Every array by name, first axis the slot: what a snapshot holds."""
        return {"network": self.network, "pending": self.pending}

    def reserve(self, slots: int) -> None:
        """Make room for `slots` series, their state zero and nothing pending."""
        have = len(self.network)
        if slots <= have:
            return
        more = max(slots - have, MIN_GROWTH, have // 4)
        self.network = np.concatenate([self.network, np.zeros((more, self.network.shape[1]), np.float32)])
        empty = np.full((more, *self.pending.shape[1:]), np.nan, np.float32)
        self.pending = np.concatenate([self.pending, empty])

    def pair(self, rows: Rows, forecasts: Singles, target: int) -> Singles:
        """The forecasts that had been issued for each row's time, `(R, H)`, NaN where there was none."""
        horizon = self.pending.shape[1]
        leads = np.arange(1, horizon + 1)
        lanes = len(rows.slot)
        pairs: Singles
        if len(rows.lane) > lanes * horizon:  # most rows are paired inside the batch
            pairs = np.empty_like(forecasts)
            cell = (rows.step[:lanes, None] - leads[::-1]) % horizon  # (L, H), oldest first
            before = self.pending[rows.slot[:, None], cell].swapaxes(0, 1)  # (H, L, H)
            for slab, history in histories(rows.slabs, forecasts, before):
                issued = windows(history, horizon)[:-1, ..., ::-1]  # (W, width, H, steps back)
                slab.of(pairs)[:] = issued.diagonal(axis1=2, axis2=3)
        else:
            slot = rows.slot[rows.lane][:, None]
            pairs = self.pending[slot, (rows.step[:, None] - leads) % horizon, leads - 1]
            if rows.waves > 1:
                at = rows.past(leads[None, :])
                pairs = np.where(at >= 0, forecasts[at, leads - 1], pairs)
        pairs[(leads > rows.age[:, None]) | ~rows.present[:, target, None]] = np.nan
        return pairs

    def absorb(self, rows: Rows, forecasts: Singles, network: Singles) -> None:
        """Take over the network state by lane, `(L, S)`, and the forecasts by row, `(R, H)`."""
        horizon = self.pending.shape[1]
        for index in rows.latest(horizon):
            self.pending[rows.slot[rows.lane[index]], rows.step[index] % horizon] = forecasts[index]
        for index in rows.latest(1):
            lane = rows.lane[index]
            self.network[rows.slot[lane]] = network[lane]


@dataclass(frozen=True)
class Task:
    """One partition's share of a scan: its rows, their inputs `(R, I)`, its lanes' network state `(L, S)`."""

    rows: Rows
    x: Singles
    network: Singles


def scan_tasks(network: Scanner, horizon: int, tasks: Sequence[Task]) -> list[tuple[Singles, Singles]]:
    """The network over the rows of several partitions at once: per task outputs `(R, H)` and state `(L, S)`.

    Lanes of like length share a tile, so that one call scans many waves and little of it is idle.
    """
    results = [(np.zeros((len(t.x), horizon), np.float32), np.empty_like(t.network)) for t in tasks]
    owner = np.concatenate([np.full(len(t.rows.count), i) for i, t in enumerate(tasks)])
    lane = np.concatenate([np.arange(len(t.rows.count)) for t in tasks])
    count = np.concatenate([t.rows.count for t in tasks])
    order = np.argsort(-count, kind="stable")
    for begin, end in _tiles(count[order]):
        members = order[begin:end]
        spans = []
        for i in np.unique(owner[members]).tolist():
            lanes = lane[members[owner[members] == i]]
            spans.append((i, int(lanes[0]), int(lanes[-1]) + 1))
        _scan_tile(network, tasks, spans, results, int(count[order[begin]]))
    return results


def _tiles(count: Ints) -> list[tuple[int, int]]:
    """Cut lanes, sorted longest first, where the next would idle for more than half of the tile's waves."""
    tiles, begin = [], 0
    while begin < len(count):
        like = int(np.searchsorted(-count, -(int(count[begin]) // 2), side="left"))
        end = min(max(like, begin + MIN_TILE), begin + MAX_TILE, len(count))
        tiles.append((begin, end))
        begin = end
    return tiles


def _scan_tile(
    network: Scanner,
    tasks: Sequence[Task],
    spans: list[tuple[int, int, int]],
    results: list[tuple[Singles, Singles]],
    waves: int,
) -> None:
    """One call of the network: `spans` names the lanes `a … b - 1` of each task, side by side in the tile."""
    width = sum(b - a for _, a, b in spans)
    width += -width % MIN_TILE
    x = np.zeros((waves, width, tasks[0].x.shape[1]), np.float32)
    active = np.zeros((waves, width), np.bool_)
    carried = np.zeros((width, tasks[0].network.shape[1]), np.float32)
    pieces = []  # (task, slab, lanes of the slab, waves and columns of the tile)
    column = 0
    for i, a, b in spans:
        task = tasks[i]
        carried[column : column + b - a] = task.network[a:b]
        wave = 0
        for slab in task.rows.slabs:
            if slab.width <= a:
                break
            n = min(slab.width, b) - a
            to = (slice(wave, wave + slab.waves), slice(column, column + n))
            pieces.append((i, slab, slice(a, a + n), to))
            wave += slab.waves
        column += b - a
    for i, slab, lanes, to in pieces:
        x[to] = slab.of(tasks[i].x)[:, lanes]
        active[to] = True
    outputs, state = network.scan(x, active, carried)
    for i, slab, lanes, to in pieces:
        slab.of(results[i][0])[:, lanes] = outputs[to]
    column = 0
    for i, a, b in spans:
        results[i][1][a:b] = state[column : column + b - a]
        column += b - a
