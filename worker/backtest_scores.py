"""Forecasts of a backtest against what came: errors, skill, and the baselines over the same pairs.

    Block ──Truth.of──► dense target, units ──┐
    slot, step, forecasts, in pieces ────────► Scores ──result──► ScoreSet

`upto`, the mean over leads 1…k, is taken over windows: forecasts of which all k leads lie within the file, as the
literature takes it. All other means are over all pairs.

A forecast counts when it was issued in the online span and the target was observed at its time. Persistence and
seasonal naive are issued at the same observations, from what the series held then; a series that starts anew after
a gap that is too long has forgotten what was before, as the stream core has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models import rls
from models.errors import DataError
from models.references import seasonal_lags
from models.times import DAY_MS
from worker.backtest_told import DayScore, LeadScore, ScoreSet, SeriesScore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.blocks import Block, Bools, Floats, Ints, Singles
    from models.scaling import SeriesForm

PIECE_CELLS = 65_536  # forecasts that are scored at once: what the caches hold
REFERENCES = ("persistence", "seasonal")


@dataclass(frozen=True)
class Truth:
    """What came, by series and step; column t is step `first_step + t`."""

    names: tuple[str, ...]
    form: SeriesForm
    first_step: int
    train_end_step: int
    target: Floats  # (S, T), NaN where there is none
    observed: Bools  # (S, T) there was an observation, be it without a target
    held: Floats  # (S, T) the last value of the target since the series started (anew), NaN before there is one
    began: Ints  # (S, T) the column of the first such value; T: there is none yet
    unit: Floats  # (S,) what errors are measured in

    @classmethod
    def of(cls, block: Block, names: Sequence[str], form: SeriesForm, train_end_step: int) -> Truth:
        """The truth in a block of accepted observations; slot i is `names[i]`.

        A unit is the standard deviation over the steps before `train_end_step`; of a series that did not vary there
        it is that over all its values, or 1.

        Raises:
            DataError: the block is empty.
        """
        if not len(block):
            raise DataError("there is no observation to score against", "give a file that holds some")
        first = int(block.step.min())
        shape = len(names), int(block.step.max()) - first + 1
        target, observed = np.full(shape, np.nan), np.zeros(shape, np.bool_)
        at, there = (block.slot, block.step - first), block.present[:, form.target_index]
        observed[at] = True
        target[at] = np.where(there, block.values[:, form.target_index], np.nan)
        held, began = _held(target, observed, form.max_gap_steps)
        unit = _units(target, max(0, train_end_step - first))
        return cls(tuple(names), form, first, train_end_step, target, observed, held, began, unit)

    @property
    def end_step(self) -> int:
        """One step after the last."""
        return self.first_step + int(self.target.shape[1])

    def issued(self, begin_step: int) -> tuple[Ints, Ints]:
        """Slots and steps of the observations from a step on, by step, then by slot."""
        begin = max(0, begin_step - self.first_step)
        column, slot = np.nonzero(self.observed[:, begin:].T)
        return slot, column + begin + self.first_step

    def reference(self, name: str, slot: Ints, step: Ints, horizon: int) -> Floats:
        """What persistence or seasonal naive forecast at observations, `(N, H)`; NaN where they could not."""
        column = step - self.first_step
        if name == "persistence":
            return np.repeat(self.held[slot, column][:, None], horizon, axis=1)
        leads = np.arange(1, horizon + 1)
        past = column[:, None] + leads - seasonal_lags(horizon, self.form.period_steps)
        known = past >= self.began[slot, column][:, None]
        return np.where(known, self.held[slot[:, None], np.maximum(past, 0)], np.nan)

    def labels(self, slot: Ints, step: Ints, horizon: int) -> Floats:
        """The target at the times that were forecast, `(N, H)`; NaN where there is none."""
        column = step[:, None] + np.arange(1, horizon + 1) - self.first_step
        last = self.target.shape[1] - 1
        return np.where(column <= last, self.target[slot[:, None], np.minimum(column, last)], np.nan)


class _Sums(NamedTuple):
    """Sums over pairs by series and lead, `(S, H)` each."""

    pairs: Floats
    squared: Floats
    absolute: Floats
    sized: Floats  # pairs whose target is not zero
    relative: Floats


class _Beside(NamedTuple):
    """Sums over the pairs that a reference has too, `(S, H)` each."""

    pairs: Floats
    squared: Floats
    reference: Floats


class Scores:
    """Takes forecasts in pieces and says how good they were; memory does not grow with them, but by day."""

    def __init__(self, truth: Truth, horizon: int, begin_step: int) -> None:
        shape = len(truth.names), horizon
        self._truth, self._horizon, self._begin = truth, horizon, begin_step
        self._sums = _Sums(*(np.zeros(shape) for _ in _Sums._fields))
        self._beside = {name: _Beside(*(np.zeros(shape) for _ in _Beside._fields)) for name in REFERENCES}
        self._first_day = begin_step * truth.form.interval_ms // DAY_MS
        days = truth.end_step * truth.form.interval_ms // DAY_MS - self._first_day + 1
        self._days = np.zeros((5, max(0, days)))  # pairs and squares; those persistence has too, with its squares
        self._late = np.full((*shape, horizon), np.nan)  # (S, left, H): squares, by how many steps are left
        self._waiting: list[tuple[Ints, Ints, Singles | Floats]] = []
        self._cells = 0

    def add(self, slot: Ints, step: Ints, forecasts: Singles | Floats) -> None:
        """Score forecasts `(N, H)` that were issued at observations `(N,)`; NaN where there is none."""
        rows = np.flatnonzero(step >= self._begin)
        if not len(rows):
            return
        whole = len(rows) == len(step)
        self._waiting.append((slot, step, forecasts) if whole else (slot[rows], step[rows], forecasts[rows]))
        self._cells += len(rows) * self._horizon
        if self._cells >= PIECE_CELLS:
            self._flush()

    def result(self, leads: Sequence[int]) -> ScoreSet:
        """The scores so far; `leads` are those that are shown, means go over all.

        Raises:
            DataError: a lead is not among those that were forecast.
        """
        beyond = [lead for lead in leads if not 1 <= lead <= self._horizon]
        if beyond:
            raise DataError(f"lead {beyond[0]} was not forecast, leads are 1 to {self._horizon}", "name one of these")
        self._flush()
        windows = [self._windows(lead) for lead in leads]
        return _score_set(
            self._truth.names, self._sums, self._beside, dict(zip(leads, windows, strict=True)), self._daily()
        )

    def _flush(self) -> None:
        if not self._waiting:
            return
        slot, step, forecasts = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._cells = [], 0
        rows = max(1, PIECE_CELLS // self._horizon)
        for begin in range(0, len(slot), rows):
            piece = slice(begin, begin + rows)
            self._score(slot[piece], step[piece], forecasts[piece].astype(np.float64))

    def _score(self, slot: Ints, step: Ints, forecasts: Floats) -> None:
        """Add a piece to the sums."""
        order = np.argsort(slot, kind="stable")
        slot, step, forecasts = slot[order], step[order], forecasts[order]
        heads = np.flatnonzero(np.diff(slot, prepend=-1))
        to = slot[heads]

        def add(sums: Floats, cells: Floats) -> None:
            sums[to] += np.add.reduceat(cells, heads, axis=0)

        labels = self._truth.labels(slot, step, self._horizon)
        unit = self._truth.unit[slot][:, None]
        errors = labels - forecasts
        paired = np.isfinite(errors)
        raw = np.abs(np.where(paired, errors, 0.0))
        absolute = raw / unit
        squared = absolute * absolute
        sized = paired & (labels != 0)
        relative = np.divide(raw, np.abs(labels), out=np.zeros_like(raw), where=sized)
        cells = (paired.astype(np.float64), squared, absolute, sized.astype(np.float64), relative)
        for sums, part in zip(self._sums, cells, strict=True):
            add(sums, part)
        self._keep_late(slot, step, np.where(paired, squared, np.nan))
        for name in REFERENCES:
            distance = (labels - self._truth.reference(name, slot, step, self._horizon)) / unit
            both = paired & np.isfinite(distance)
            beside = (
                both.astype(np.float64),
                np.where(both, squared, 0.0),
                np.square(np.where(both, distance, 0.0)),
            )
            for sums, part in zip(self._beside[name], beside, strict=True):
                add(sums, part)
            if name == "persistence":
                self._add_days(step, (cells[0], squared, *beside))

    def _keep_late(self, slot: Ints, step: Ints, squared: Floats) -> None:
        """Keep what was forecast so late that not all of the leads lie within the file."""
        left = self._truth.end_step - 1 - step
        rows = np.flatnonzero(left < self._horizon)
        self._late[slot[rows], left[rows]] = squared[rows]

    def _windows(self, lead: int) -> tuple[Floats, Floats]:
        """Squares and pairs `(S, lead)` of the windows of so many leads that lie within the file."""
        late = self._late[:, :lead, :lead]
        squared = self._sums.squared[:, :lead] - np.nansum(late, axis=1)
        return squared, self._sums.pairs[:, :lead] - np.isfinite(late).sum(axis=1)

    def _add_days(self, step: Ints, cells: Sequence[Floats]) -> None:
        """Add cells `(N, H)` to the days of the times that were forecast."""
        steps = step[:, None] + np.arange(1, self._horizon + 1)
        days = (steps * self._truth.form.interval_ms // DAY_MS - self._first_day).ravel()
        size = self._days.shape[1]
        np.minimum(days, size - 1, out=days)  # what lies beyond the end has no pair: its cells are zero
        for at, part in enumerate(cells):
            self._days[at] += np.bincount(days, part.ravel(), size)

    def _daily(self) -> tuple[DayScore, ...]:
        pairs, squared, both, _, reference = self._days
        return tuple(
            DayScore(
                day=self._first_day + at,
                pairs=int(pairs[at]),
                mse=float(squared[at] / pairs[at]),
                persistence=float(reference[at] / both[at]) if both[at] else None,
            )
            for at in np.flatnonzero(pairs).tolist()
        )


def baselines(truth: Truth, horizon: int, begin_step: int, leads: Sequence[int]) -> dict[str, ScoreSet]:
    """The scores of persistence, seasonal naive and online least squares at every observation from a step on."""
    slot, step = truth.issued(begin_step)
    rows = max(1, PIECE_CELLS // horizon)
    found = {}
    for name in REFERENCES:
        scores = Scores(truth, horizon, begin_step)
        for begin in range(0, len(slot), rows):
            piece = slot[begin : begin + rows], step[begin : begin + rows]
            scores.add(*piece, truth.reference(name, *piece, horizon))
        found[name] = scores.result(leads)
    scores = Scores(truth, horizon, begin_step)
    for at, slots, issued in least_squares(truth, horizon):
        scores.add(slots, np.full(len(slots), at), issued)
    return found | {"rls": scores.result(leads)}


def least_squares(truth: Truth, horizon: int) -> Iterator[tuple[int, Ints, Floats]]:
    """The forecasts `(N, H)` of online least squares by step, with their slots; it learns from the first step on."""
    past = rls.Past(truth.first_step, truth.target, truth.held, truth.began, truth.observed)
    trained = max(0, truth.train_end_step - truth.first_step)
    unit = _deviation(truth.target[:, :trained])  # what comes later is not known yet
    yield from rls.forecasts(past, np.where(unit > 0, unit, 1.0), period_steps=truth.form.period_steps, horizon=horizon)


def _held(target: Floats, observed: Bools, max_gap_steps: int) -> tuple[Floats, Ints]:
    """The last known value at each step, and the column of the first one; neither from before a gap too long."""
    width = target.shape[1]
    column = np.broadcast_to(np.arange(width), target.shape)
    last = np.maximum.accumulate(np.where(observed, column, -1), axis=1)
    before = np.concatenate([np.full((len(target), 1), -1), last[:, :-1]], axis=1)
    opens = observed & ((before < 0) | (column - before > max_gap_steps + 1))
    lane = np.maximum.accumulate(np.where(opens, column, -1), axis=1)
    newest = np.maximum.accumulate(np.where(np.isfinite(target), column, -1), axis=1)
    held = np.where((newest >= lane) & (lane >= 0), np.take_along_axis(target, np.maximum(newest, 0), axis=1), np.nan)
    known = np.isfinite(held)
    opened = known & (opens | ~np.concatenate([np.zeros((len(target), 1), np.bool_), known[:, :-1]], axis=1))
    began = np.maximum.accumulate(np.where(opened, column, -1), axis=1)
    return held, np.where(np.isfinite(held), began, width)


def _units(target: Floats, train_end: int) -> Floats:
    """The standard deviation of each series over its first columns."""
    unit = _deviation(target[:, :train_end])
    unit = np.where(unit > 0, unit, _deviation(target))
    return np.where(unit > 0, unit, 1.0)


def _deviation(target: Floats) -> Floats:
    """Of each row, over what is not NaN; 0 where there is nothing."""
    known = np.isfinite(target)
    count = np.maximum(known.sum(axis=1), 1)
    mean = np.where(known, target, 0.0).sum(axis=1) / count
    squares = np.square(np.where(known, target - mean[:, None], 0.0)).sum(axis=1)
    return np.asarray(np.sqrt(squares / count))


def _score_set(
    names: Sequence[str],
    sums: _Sums,
    beside: dict[str, _Beside],
    windows: dict[int, tuple[Floats, Floats]],
    daily: tuple[DayScore, ...],
) -> ScoreSet:
    pooled = _Sums(*(one.sum(axis=0, keepdims=True) for one in sums))
    pooled_beside = {name: _Beside(*(one.sum(axis=0, keepdims=True) for one in sums)) for name, sums in beside.items()}
    whole = _Rated(pooled, pooled_beside)
    rated = _Rated(sums, beside)
    upto = [_over_leads(*one) for one in windows.values()]
    return ScoreSet(
        pairs=int(pooled.pairs.sum()),
        mse=_finite(whole.mse[0]),
        mae=_finite(whole.mae[0]),
        mape=_finite(whole.mape[0]),
        skill_persistence=_finite(whole.skill["persistence"][0]),
        skill_seasonal=_finite(whole.skill["seasonal"][0]),
        leads=tuple(_lead_score(lead, one, pooled, pooled_beside) for lead, one in windows.items()),
        daily=daily,
        series=tuple(
            SeriesScore(
                series=name,
                pairs=int(sums.pairs[at].sum()),
                mse=_finite(rated.mse[at]),
                mae=_finite(rated.mae[at]),
                mape=_finite(rated.mape[at]),
                skill_persistence=_finite(rated.skill["persistence"][at]),
                skill_seasonal=_finite(rated.skill["seasonal"][at]),
                upto=tuple(_finite(one[at]) for one in upto),
            )
            for at, name in enumerate(names)
        ),
    )


class _Rated:
    """Means over leads of sums `(R, H)`, one a row, NaN where there is no pair."""

    def __init__(self, sums: _Sums, beside: dict[str, _Beside]) -> None:
        self.mse = _over_leads(sums.squared, sums.pairs)
        self.mae = _over_leads(sums.absolute, sums.pairs)
        self.mape = 100 * _over_leads(sums.relative, sums.sized)
        self.skill = {
            name: _skill(_over_leads(one.squared, one.pairs), _over_leads(one.reference, one.pairs))
            for name, one in beside.items()
        }


def _lead_score(lead: int, windows: tuple[Floats, Floats], pooled: _Sums, beside: dict[str, _Beside]) -> LeadScore:
    squared, pairs = (one.sum(axis=0, keepdims=True) for one in windows)
    rated = _Rated(
        _Sums(*(one[:, lead - 1 : lead] for one in pooled)),
        {name: _Beside(*(one[:, lead - 1 : lead] for one in sums)) for name, sums in beside.items()},
    )
    return LeadScore(
        lead=lead,
        pairs=int(pooled.pairs[0, lead - 1]),
        mse=_finite(rated.mse[0]),
        mae=_finite(rated.mae[0]),
        mape=_finite(rated.mape[0]),
        upto=_finite(_over_leads(squared, pairs)[0]),
        skill_persistence=_finite(rated.skill["persistence"][0]),
        skill_seasonal=_finite(rated.skill["seasonal"][0]),
    )


def _over_leads(total: Floats, count: Floats) -> Floats:
    """The mean of the leads' means `(R,)`, over the leads that have a pair; NaN: none has."""
    has = count > 0
    means = np.divide(total, count, out=np.zeros_like(total), where=has)
    leads = has.sum(axis=1)
    out = np.full(len(total), np.nan)
    np.divide(means.sum(axis=1), leads, out=out, where=leads > 0)
    return out


def _skill(mse: Floats, reference: Floats) -> Floats:
    """`1 - MSE / MSE(reference)`; NaN where the reference makes no error, or has no pair."""
    out = np.full(len(mse), np.nan)
    np.divide(mse, reference, out=out, where=reference > 0)
    return 1 - out


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
