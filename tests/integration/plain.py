"""The formulas of the series state once more, in plain Python: one series, one step after the other.

Nothing of `models` is used here: this is what the running system is compared with. `m` and `S` are exponentially
weighted means that forget by half in `half_life` steps (RECIPE):

    S = max(1.7 · exp(EWmean log(|x_t - x_{t-q}| + floor)), floor),  q a quarter of a period
    floor = .02 · mean |x_t - x_{t-q}| over the whole life + 1e-6 · |m| + 1e-12
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

HOUR_MS = 3_600_000
DAY_HOURS, WEEK_HOURS = 24, 168
MONDAY_HOURS = 96  # 1970-01-05 was a Monday


@dataclass
class Feature:
    """Level and scale of one feature of one series."""

    half_life: float
    quarter: int
    history: list[float] = field(default_factory=list)  # from the first value on, one a step
    moves: list[float] = field(default_factory=list)
    level: float = 0.0
    scale: float = 0.0
    _level: tuple[float, float] = (0.0, 0.0)  # weighted sum, weight
    _log: tuple[float, float] = (0.0, 0.0)

    def take(self, value: float | None) -> None:
        """One step: a value, or None for one that is missing; then the last one stands in for it."""
        if value is None:
            if self.history:
                self.history.append(self.history[-1])
            return
        self.history.append(value)
        keep = 0.5 ** (1 / self.half_life)
        self._level = keep * self._level[0] + value, keep * self._level[1] + 1
        self.level = self._level[0] / self._level[1]
        back = min(self.quarter, len(self.history) - 1)
        if back:
            self.moves.append(abs(value - self.history[-1 - back]))
        mean = sum(self.moves) / len(self.moves) if self.moves else 0.0
        floor = 0.02 * mean + 1e-6 * abs(self.level) + 1e-12
        if back:
            self._log = keep * self._log[0] + math.log(self.moves[-1] + floor), keep * self._log[1] + 1
        self.scale = max(1.7 * math.exp(self._log[0] / self._log[1]), floor) if self.moves else floor

    def difference(self, back: int) -> float:
        """`x_{t-back} - x_t`; zero where the series does not go back so far."""
        return self.history[-1 - back] - self.history[-1] if 0 < back < len(self.history) else 0.0


@dataclass
class Steps:
    """What the network is fed at each step, `(T, I)`; base and scale of the forecasts made there, `(T,)` each."""

    inputs: NDArray[np.float64]
    base: NDArray[np.float64]
    scale: NDArray[np.float64]


def walk(
    rows: Sequence[Mapping[str, float | None] | None],
    first_hour: int,
    *,
    features: Sequence[str],
    target: str,
    lags: int,
    season_lags: Sequence[int] = (),
    squash: float = 3.0,
    half_life: float = 168.0,
    period: int = 24,
) -> Steps:
    """The inputs of one series, step by step; a row that is None is a bridged step: nothing was observed."""
    states = {name: Feature(half_life, period // 4) for name in features}
    inputs, base, scale = [], [], []
    for number, row in enumerate(rows):
        values = {name: row[name] if row is not None else None for name in features}
        for name, state in states.items():
            state.take(values[name])
        x = states[target]
        raw = [_over(s.history[-1] - s.level, s.scale) if s.history else 0.0 for s in states.values()]
        raw += [_over(-2 * s.difference(1), s.scale) for s in states.values()]
        raw += [_over(x.difference(k), x.scale) for k in range(1, lags + 1)]
        raw += [_over(x.difference(period - k), x.scale) for k in season_lags]
        hour = first_hour + number
        day = 2 * math.pi * (hour % DAY_HOURS) / DAY_HOURS
        week = 2 * math.pi * ((hour - MONDAY_HOURS) % WEEK_HOURS) / WEEK_HOURS
        bounded = [squash * math.tanh(value / squash) for value in raw]
        calendar = [math.sin(day), math.cos(day), math.sin(week), math.cos(week)]
        missing = [float(values[name] is None) for name in features]
        inputs.append(bounded + calendar + missing)
        base.append(x.history[-1] if x.history else math.nan)
        scale.append(x.scale)
    return Steps(np.array(inputs), np.array(base), np.array(scale))


def _over(value: float, scale: float) -> float:
    return value / scale if scale > 0 else 0.0
