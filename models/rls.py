"""Forecasts of a linear model that learns online: recursive least squares, the baseline that an LSTM must beat.

    y_{t,k} = x_{t+k} - x_t ≈ w_k · u_t         one w a series and lead, one u a series, known at t

    K_t = P_{t-1} u_t / (λ + u_t' P_{t-1} u_t),  P_t = (P_{t-1} - K_t u_t' P_{t-1}) / λ
    w_k ← w_k + K_t (y_{t,k} - w_k · u_t)        at t + k: a label is used when its time has come, not before

Recursive least squares with exponential forgetting (Haykin 2002, Adaptive Filter Theory, ch. 9). Inputs are the same
for all leads, so one covariance a series serves them all, and each lead's weights are those of a filter of its own
whose labels come k steps late. Inputs are differences to the present value: of lags that cover one period, and of the
level; and the time within the period as sines and cosines, as large as the series moves at present. Inputs and the
errors that are learned from are cut off at some times that size: one bad value would else outweigh months. Without
anything learned the forecast is persistence. The constants were chosen on ETTh2 and ETTm1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.blocks import Bools, Floats, Ints

NEAREST_LAGS = 4  # each of them, and
LAGS = 24  # spread over a period
HARMONICS = 11  # of a period
FORGET_PERIODS = 30.0  # half-life of what was learned
LEVEL_PERIODS = 14.0  # half-life of level and scale
MOST_MOVES = 10.0  # scales that an input or an error may measure
PRIOR = 1.0  # P before anything is learned, values in `unit`
MAX_COVARIANCE = 100.0  # beyond it a series forgets nothing: what does not move can't be learned anew
FLOOR = 0.02  # of moves and scales, in `unit`: as `models.scaling`
FACTOR = 1.7  # from the mean of logarithms to a standard deviation, about
HALF = 0.5  # brings sines and cosines, and so their weights, near the other inputs


@dataclass(frozen=True)
class Past:
    """S series over T steps, from `first_step` on."""

    first_step: int
    target: Floats  # (S, T) NaN where there is none
    held: Floats  # (S, T) the last value that was known, NaN before there is one
    began: Ints  # (S, T) the column that `held` goes back to
    observed: Bools  # (S, T) forecasts are issued here


def lags_of(period_steps: int) -> Ints:
    """How many steps the inputs look back: the nearest ones, and some that are spread over a period."""
    spread = np.round(np.arange(1, LAGS + 1) * period_steps / LAGS).astype(np.int64)
    found = np.unique(np.concatenate([np.arange(1, NEAREST_LAGS + 1), spread]))
    return found[(found > 0) & (found <= max(period_steps, NEAREST_LAGS))]


def forecasts(past: Past, unit: Floats, *, period_steps: int, horizon: int) -> Iterator[tuple[int, Ints, Floats]]:
    """For each step its observed series `(N,)` and what they forecast then for leads 1…H, `(N, H)`.

    `unit` `(S,)` is what values are measured in. A series whose lags are not all known forecasts persistence; one
    without any value forecasts nothing (NaN).
    """
    values, target = (np.ascontiguousarray((x / unit[:, None]).T) for x in (past.held, past.target))  # (T, S)
    inputs = _Inputs(len(unit), period_steps)
    squares = LeastSquares(len(unit), inputs.count, horizon, 0.5 ** (1 / (FORGET_PERIODS * period_steps)))
    deepest = int(inputs.lags.max())
    for column, x in enumerate(values):
        squares.learn(target[column], MOST_MOVES * inputs.scale)
        slots = np.flatnonzero(past.observed[:, column])
        full = past.observed[:, column] & (past.began[:, column] + deepest <= column) & np.isfinite(x)
        moved = inputs.at(values, column, past.first_step + column, full)
        corrections = squares.forecast(moved, x, full)[slots]
        yield past.first_step + column, slots, (corrections + x[slots, None]) * unit[slots, None]


class _Inputs:
    """What the forecasts are made from, with the level and the scale of S series."""

    def __init__(self, series: int, period_steps: int) -> None:
        self.lags = lags_of(period_steps)
        self._period = period_steps
        self._move = max(1, period_steps // 4)
        self._harmonics = np.arange(1, min(HARMONICS, (period_steps - 1) // 2) + 1)
        self._keep = 0.5 ** (1 / (LEVEL_PERIODS * period_steps))
        self._level, self._moves = _Mean(series), _Mean(series)
        self.scale = np.full(series, np.inf)  # of the moves at present
        self.count = len(self.lags) + 1 + 2 * len(self._harmonics)

    def at(self, values: Floats, column: int, step: int, full: Bools) -> Floats:
        """The inputs `(S, D)` at a step, zero but for the series that are `full`; `values` is `(T, S)`."""
        x = values[column]
        if column >= self._move:
            move = np.abs(x - values[column - self._move])
            self._moves.add(np.log(move + FLOOR), self._keep, np.isfinite(move))
        self.scale = np.maximum(FACTOR * np.exp(self._moves.mean()), FLOOR)
        most = MOST_MOVES * self.scale
        level = np.where(self._level.known, self._level.mean(), x)
        self._level.add(np.clip(x, level - most, level + most), self._keep, np.isfinite(x))
        phase = 2 * np.pi * (step % self._period) / self._period * self._harmonics
        found = np.zeros((len(x), self.count))
        if full.any():
            lags = len(self.lags)
            found[:, :lags] = (values[column - self.lags] - x).T
            found[:, lags] = self._level.mean() - x
            found[:, lags + 1 :] = HALF * self.scale[:, None] * np.concatenate([np.sin(phase), np.cos(phase)])
            np.clip(found, -most[:, None], most[:, None], out=found)
            found[~full] = 0.0
        return found


class _Mean:
    """Exponentially weighted means of S series."""

    def __init__(self, series: int) -> None:
        self._sum, self._weight = np.zeros(series), np.zeros(series)

    def add(self, x: Floats, keep: float, known: Bools) -> None:
        """Take in what is known."""
        decay = np.where(known, keep, 1.0)
        self._sum = self._sum * decay + np.where(known, x, 0.0)
        self._weight = self._weight * decay + known

    @property
    def known(self) -> Bools:
        """Of which something was taken in."""
        return self._weight > 0

    def mean(self) -> Floats:
        """The means; 0 where nothing was known."""
        means = np.zeros(len(self._sum))
        np.divide(self._sum, self._weight, out=means, where=self.known)
        return means


class LeastSquares:
    """Weights of S series, H leads and D inputs; a label of lead k is learned k steps after its inputs were seen."""

    def __init__(self, series: int, inputs: int, horizon: int, forgetting: float) -> None:
        self._horizon, self._forgetting = horizon, forgetting
        self._covariance = np.tile(np.eye(inputs) * PRIOR, (series, 1, 1))  # (S, D, D)
        self._weights = np.zeros((horizon, series, inputs))  # of lead H first, as the oldest inputs are
        # The last H inputs and gains, oldest first, as a window that moves through twice the room.
        self._inputs = np.zeros((2 * horizon, series, inputs))
        self._gains = np.zeros((2 * horizon, series, inputs))
        self._bases = np.zeros((2 * horizon, series))
        self._at = 0
        self._change = np.zeros_like(self._weights)

    def learn(self, label: Floats, most: Floats) -> None:
        """Learn from the values `(S,)` that came, NaN where none did: each is the label of H earlier inputs.

        No error counts for more than `most` `(S,)`.
        """
        window = slice(self._at, self._at + self._horizon)
        inputs, gains = self._inputs[window], self._gains[window]
        expected = self._bases[window] + np.einsum("hsd,hsd->hs", self._weights, inputs)
        error = label - expected  # (H, S)
        error[:, np.isnan(label)] = 0.0
        np.clip(error, -most, most, out=error)
        np.multiply(gains, error[..., None], out=self._change)
        self._weights += self._change

    def forecast(self, inputs: Floats, base: Floats, learns: Bools) -> Floats:
        """Differences `(S, H)` to `base` `(S,)` that inputs `(S, D)` lead to; only where it `learns` will it do so."""
        if learns.any():
            gains = self._gain(inputs, learns)
            found: Floats = np.einsum("hsd,sd->sh", self._weights[::-1], inputs)
        else:
            gains, found = np.zeros_like(inputs), np.zeros((len(inputs), self._horizon))
        for at in (self._at, self._at + self._horizon):
            self._inputs[at], self._gains[at], self._bases[at] = inputs, gains, np.where(learns, base, 0.0)
        self._at = (self._at + 1) % self._horizon
        return found

    def _gain(self, inputs: Floats, learns: Bools) -> Floats:
        """The gains `(S, D)` of inputs; moves the covariances."""
        p = self._covariance
        seen = np.einsum("sij,sj->si", p, inputs)
        spread = np.einsum("si,si->s", seen, inputs)
        lost = learns & ~(spread >= 0)
        if lost.any():  # rounding has cost the covariance its sign: begin anew with the weights as they are
            p[lost] = np.eye(p.shape[1]) * PRIOR
            seen[lost] = PRIOR * inputs[lost]
            spread[lost] = PRIOR * np.square(inputs[lost]).sum(axis=1)
        forgets = learns & (np.einsum("sii->si", p).max(axis=1) < MAX_COVARIANCE)
        keep = np.where(forgets, self._forgetting, 1.0)
        gains: Floats = seen / (keep + spread)[:, None]
        p -= gains[:, :, None] * seen[:, None, :]
        p /= keep[:, None, None]
        return gains
