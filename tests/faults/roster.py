"""The oracle's own reading of a roster: tenures from a start, and who has which seat at an offset."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from consumers.roster import Seat

if TYPE_CHECKING:
    from collections.abc import Sequence


class Tenure(NamedTuple):
    """A version's time from one start offset to its last leave; `number` is its own among all tenures."""

    number: int
    version: int
    start: int
    leave: int | None


def tenures_of(roster: Sequence[Seat]) -> list[Tenure]:
    """Every fold that the roster asks for: seats of one version with the same start are one.

    A seat that goes on where an earlier one ended belongs to it; one that begins anew has a start of its own.
    """
    found: dict[tuple[int, int], list[Seat]] = {}
    for seat in roster:
        found.setdefault((seat.version, seat.start_offset), []).append(seat)
    tenures = []
    for number, ((version, start), seats) in enumerate(found.items(), 1):
        leaves = [seat.leave_offset for seat in seats]
        last = None if None in leaves else max(leave for leave in leaves if leave is not None)
        tenures.append(Tenure(number, version, start, last))
    return tenures


def seat_at(roster: Sequence[Seat], tenure: Tenure, offset: int) -> Seat | None:
    """The seat that the tenure's version has for a block that starts here."""
    for seat in roster:
        if (seat.version, seat.start_offset) != (tenure.version, tenure.start):
            continue
        if seat.join_offset <= offset and (seat.leave_offset is None or offset < seat.leave_offset):
            return seat
    return None


def roster_for(roster: Sequence[Seat], tenures: Sequence[Tenure], offset: int) -> tuple[Seat, ...]:
    """What the fold steps for a block that starts here, each tenure under its own number."""
    seats = []
    for tenure in tenures:
        if tenure.start <= offset and (tenure.leave is None or offset < tenure.leave):
            seat = seat_at(roster, tenure, offset)
            role = "shadow" if seat is None else seat.role
            seats.append(Seat(tenure.number, role, tenure.start, tenure.start))
    return tuple(seats)
