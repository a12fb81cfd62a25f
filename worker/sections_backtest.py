"""The settings of the plain update, which a backtest makes where no gate is asked for.

As `worker/sections.py`, which the rest of the settings is in.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from models.times import DAY_MS
from worker.durations import Duration
from worker.sections import PositiveLength, Section


class UpdateSettings(Section):
    """The plain update."""

    about: ClassVar[str] = "The plain update of `killick backtest --gate off`: so many passes, live at once, unjudged."

    rate: float = Field(
        default=1e-3, ge=1e-8, le=1, description="learning rate of the optimiser; it falls to 0 pass by pass"
    )
    passes: int = Field(default=4, ge=1, le=10_000, description="how often all recent data is gone over")
    windows: int = Field(
        default=56, ge=1, le=65_536, description="most windows of one step: a burn-in and a chunk each"
    )
    chunk: int = Field(default=48, ge=2, le=4_096, description="steps of a window that are trained on")
    recent: PositiveLength = Field(
        default=Duration(28 * DAY_MS), description="how much of the newest data counts as recent"
    )
    recent_share: float = Field(default=0.5, gt=0, le=1, description="share of recent windows; the rest is older")
