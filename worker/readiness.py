"""When a request for retraining has waited long enough: pure functions of what is known of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from models.times import rfc3339
from worker.asking import SKILL, trained_until_ms

if TYPE_CHECKING:
    from models.registry import VersionInfo
    from worker.store import Request

PEOPLE = ("operator", "http")
DRIFT = "drift"
MOOT = frozenset({DRIFT, SKILL})  # of what is asked because of a version, nothing is left when another one answers


class Known(NamedTuple):
    """What readiness depends on; steps since 1970."""

    incumbent: VersionInfo | None
    newest: int | None  # that the monitor has counted
    last: int | None  # that was the newest when the last verdict was reached
    tried: int | None  # version whose live trial is under way
    interval_ms: int


def look_of(request: Request) -> int:
    """Which look this is at what came since a drift, from 0; each is at half the level, on twice the data."""
    return int(request.evidence.get("look", 0))


def new_begin(request: Request, incumbent: VersionInfo, interval_ms: int) -> int:
    """From which step on data is new to the incumbent; after a drift, from the drift on."""
    until_ms = trained_until_ms(incumbent.training)
    begin = 0 if until_ms is None else until_ms // interval_ms + 1
    drifts = request.evidence.get("drifts", ()) if request.evidence.get("version") == incumbent.version else ()
    steps = [drift["at_step"] for drift in drifts if drift.get("at_step", -1) >= 0]
    return int(max([begin, *steps[:1]]))


def waits_for(request: Request, known: Known, *, cooldown_steps: int, new_steps: int) -> str:
    """What a request waits for, in words; "" where it is ready. What a person asks for is.

    The clock ends no trial: a candidate that is tried is let be, unless the world has drifted meanwhile.
    """
    if request.trigger in PEOPLE or known.newest is None or known.incumbent is None:
        return ""
    if known.tried is not None and request.trigger != DRIFT:
        return f"the trial of version {known.tried}, which must come to an end first"
    cooled = known.last is None or known.newest - known.last >= cooldown_steps
    if known.last is not None and not cooled and not look_of(request):
        until = rfc3339((known.last + cooldown_steps) * known.interval_ms)
        return f"the cool-down, until {until} (retraining.cooldown)"
    begin = new_begin(request, known.incumbent, known.interval_ms)
    needed = new_steps << look_of(request)
    if known.newest - begin < needed:
        until = rfc3339((begin + needed) * known.interval_ms)
        return f"new data, until {until} (retraining.new_data)"
    return ""
