"""The roster: which versions run in a partition, as what, from where to where. Pure functions over seats.

A roster keeps the seats that there were, some hundreds of them. A seat is a tenure in one role, for the blocks that
start in `join_offset … leave_offset - 1`; who changes role leaves one seat for another with the same `start_offset`.
A version's carried state is the fold from its `start_offset` on, whatever roles it had and whoever ran it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

CLOSED_SEATS = 400  # that a roster remembers: what is older answers no question any more

Role = Literal["incumbent", "shadow"]


class Seat(msgspec.Struct, frozen=True):
    """One version in a partition's roster; offsets are those of its first block, and after its last."""

    version: int
    role: Role
    start_offset: int
    join_offset: int
    leave_offset: int | None = None
    join_step: int = 0  # the partition's newest step when it joined


class Span(NamedTuple):
    """From where to where a version is stepped."""

    start: int
    leave: int | None

    def covers(self, offset: int) -> bool:
        """Whether the block that starts here is one of them."""
        return self.start <= offset and (self.leave is None or offset < self.leave)


def spans(roster: Sequence[Seat], mark: int | None = None) -> dict[int, Span]:
    """The versions that run; with a `mark`, also those that answered, and left, after it.

    What they had answered there may not have been published: a recovery has to make it again.
    """
    found: dict[int, Span] = {}
    if mark is not None:
        for seat in roster:
            if seat.role == "incumbent" and seat.leave_offset is not None and seat.leave_offset > mark:
                found[seat.version] = Span(seat.start_offset, seat.leave_offset)
    return found | {number: Span(seat.start_offset, None) for number, seat in seated(roster).items()}


def seated(roster: Iterable[Seat]) -> dict[int, Seat]:
    """The seats that are taken at present, by version."""
    return {seat.version: seat for seat in roster if seat.leave_offset is None}


def incumbent_of(roster: Iterable[Seat]) -> int | None:
    """The version that answers at present."""
    return next((number for number, seat in seated(roster).items() if seat.role == "incumbent"), None)


def incumbent_at(roster: Sequence[Seat], offset: int) -> int | None:
    """The version that answers the block that starts here; the newest seats are looked at first."""
    for seat in reversed(roster):
        if seat.role == "incumbent" and Span(seat.join_offset, seat.leave_offset).covers(offset):
            return seat.version
    return None


def shadows_of(roster: Iterable[Seat]) -> set[int]:
    """The versions that read along at present."""
    return {number for number, seat in seated(roster).items() if seat.role == "shadow"}


def reseated(
    roster: Sequence[Seat],
    *,
    offset: int,
    step: int,
    incumbent: int,
    shadows: Collection[int],
    starts: Mapping[int, int],
) -> tuple[Seat, ...]:
    """The roster with these versions from `offset` on; `starts`: where the carried state of new ones begins."""
    roles: dict[int, Role] = {**dict.fromkeys(sorted(shadows), "shadow"), incumbent: "incumbent"}
    running = seated(roster)
    seats = []
    for seat in roster:
        stays = seat.leave_offset is not None or roles.get(seat.version) == seat.role
        seats.append(seat if stays else msgspec.structs.replace(seat, leave_offset=offset))
    for version, role in roles.items():
        if version in running and running[version].role == role:
            continue
        start = running[version].start_offset if version in running else starts[version]
        seats.append(Seat(version, role, start, offset, None, step))
    closed = [seat for seat in seats if seat.leave_offset is not None]
    forgotten = set(map(id, closed[:-CLOSED_SEATS]))
    return tuple(seat for seat in seats if id(seat) not in forgotten)


class Wanted(NamedTuple):
    """What a partition's roster should be now, with versions that are ready, and who is to be made ready."""

    incumbent: int
    shadows: frozenset[int]
    missing: tuple[int, ...]  # most urgent first


def wanted(
    roster: Sequence[Seat],
    *,
    incumbent: int,
    candidate: int | None,
    previous: int | None,
    step: int,
    guard_steps: int,
    ready: Collection[int] = (),
) -> Wanted:
    """What the registry's aliases mean for a partition whose newest step is `step`.

    The previous version reads along for the guard period, where it runs already; it is not brought back for it.
    Until the version that should answer runs, or is `ready` to, the one that answers goes on.
    """
    running = seated(roster)
    able = {*running, *ready}
    answers = incumbent if incumbent in able else incumbent_of(roster)
    shadows: set[int] = set()
    if previous is not None and previous in running and previous != answers:
        seat = running[previous]
        joined = seat.join_step if seat.role == "shadow" else step
        if step - joined < guard_steps:
            shadows.add(previous)
    if candidate is not None and candidate in able and candidate != answers:
        shadows.add(candidate)
    missing = [v for v in (incumbent, candidate) if v is not None and v not in able]
    return Wanted(incumbent if answers is None else answers, frozenset(shadows), tuple(dict.fromkeys(missing)))
