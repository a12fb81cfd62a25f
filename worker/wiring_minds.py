"""Puts together what makes something of the figures, from the settings: for the monitor, and for a backtest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.drift_limits import DriftLimits
from worker.asking import Asking
from worker.drifting import DriftWatch
from worker.gate import Limits
from worker.judging import Judging
from worker.overseeing import Minds

if TYPE_CHECKING:
    from worker.desks import StateDesk, VerdictDesk, VersionDesk
    from worker.settings import Settings


def minds(settings: Settings, store: StateDesk, registry: VersionDesk, verdicts: VerdictDesk) -> Minds:
    """Detectors, gate and guard, and whoever asks for retraining."""
    drift, judgement, retraining = settings.drift, settings.judgement, settings.retraining
    limits = DriftLimits(
        false_alarms=drift.false_alarms,
        calibration_steps=drift.calibration_steps,
        ks=drift.ks,
        psi=drift.psi,
        trend_p=drift.trend_p,
    )
    judged = Limits(
        interval_ms=settings.interval_ms,
        ahead_steps=settings.ahead_steps,
        approval=judgement.approval == "required",
        guard_alpha=judgement.guard_alpha,
        breaker_ratio=judgement.breaker_ratio,
        breaker_steps=judgement.breaker_steps,
    )
    return Minds(
        DriftWatch(store, limits, settings.interval_ms),
        Judging(store, registry, verdicts.of_version, judged),
        Asking(store, retraining.every.ms, retraining.pairs, retraining.skill_drop, retraining.cooldown.ms),
    )
