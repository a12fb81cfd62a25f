"""What is stored of gate and guard and is told to people; read without what decides, which takes long to import."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from worker.stored import read_stored

FORMAT = 1

Waits = Literal["running", "waits for approval", "paused"]
Outcome = Literal["promoted", "ended", "rolled back"]


class TrialTold(msgspec.Struct, kw_only=True):
    """The live trial of a candidate."""

    version: int
    against: int  # the incumbent
    verdict: str
    mode: Literal["superiority", "harm", "none"]
    alpha: float
    e_value: float = 1.0  # of being better; in a trial for harm, of being worse
    needed: float = 1.0
    steps: int = 0  # that both have live forecasts for
    difference: float = 0.0  # the incumbent's squared error less its own, a step, scaled: positive where it is better
    state: Waits = "running"
    words: str = ""


class GuardTold(msgspec.Struct, kw_only=True):
    """The watch over the version that answers, beside the one that answered before."""

    version: int
    previous: int
    e_value: float = 1.0  # of the previous one being better
    needed: float = 1.0
    steps: int = 0
    difference: float = 0.0  # its squared error less the previous one's, a step, scaled: positive where it is worse
    state: Literal["learning", "running", "refused"] = "running"
    words: str = ""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a trial ended, or that the guard rolled back."""

    version: int
    outcome: Outcome
    sentence: str
    time_ms: int


class GateTold(msgspec.Struct, kw_only=True):
    """What gate and guard are at."""

    step: int | None = None  # up to which they were fed
    trial: TrialTold | None = None
    guard: GuardTold | None = None
    watched: int | None = None  # a candidate that has no trial: people decide on it
    ended: list[Ended] = msgspec.field(default_factory=list)  # the newest ones, oldest first
    counts: dict[str, int] = msgspec.field(default_factory=dict)  # by outcome, of all time
    format: int = FORMAT


ToldType = TypeVar("ToldType", bound=GateTold)


def read_gate(data: bytes, kind: type[ToldType]) -> ToldType:
    """What was stored, as `kind`; nothing yet where nothing was stored.

    Raises:
        LedgerError: another format.
    """
    return read_stored(data, kind, "the gate's state")
