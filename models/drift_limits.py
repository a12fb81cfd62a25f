"""What counts as a drift, and what is told of one."""

from __future__ import annotations

from typing import Literal

import msgspec

LOSS_DETECTORS = ("adwin", "page_hinkley")
INPUT_DETECTORS = ("ks", "psi")
DETECTORS = (*LOSS_DETECTORS, *INPUT_DETECTORS, "trend")

Goal = Literal["restore", "improve", "investigate"]


class DriftLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of drift: rates, spans and effect sizes.

    `false_alarms` is the rate in 1,000 steps of a quiet stream that both loss detectors together may reach;
    `calibration_steps` how many losses tell what quiet is; `ks` and `psi` are the effect sizes from which an
    input has drifted; `trend_p` is the p-value below which skill has a trend.
    """

    false_alarms: float = 0.2
    calibration_steps: int = 336
    ks: float = 0.25
    psi: float = 0.25
    trend_p: float = 0.05


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One drift: who found it, by which number, and one sentence for people. `at_step` is filled by who knows it."""

    detector: str
    statistic: float
    threshold: float
    words: str
    at_step: int = -1


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """How skill moves: -1 falling, 0 steady, 1 rising; what an update is then for, and one sentence for people.

    `slope` is per day, NaN with fewer than two days; `days` counts those whose skill is known.
    """

    direction: Literal[-1, 0, 1]
    slope: float
    p_value: float
    days: int
    goal: Goal
    words: str
