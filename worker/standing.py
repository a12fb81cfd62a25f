"""Where each partition stands: who answers there, how far it is, whether it follows the registry, and why not."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Generic, TypeVar

from consumers.roster import seated
from models.errors import KillickError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from consumers.ledger import Head, Ledger, PartitionState
    from consumers.roster import Seat

LOOK_EVERY_S = 0.1
Found = TypeVar("Found")


@dataclass(frozen=True)
class Standing:
    """One partition's head, the seats that are taken at present, and what its consumer said last."""

    partition: int
    head: Head
    seats: tuple[Seat, ...]
    state: PartitionState | None

    @property
    def incumbent(self) -> Seat | None:
        """The seat of the version that answers."""
        return next((seat for seat in self.seats if seat.role == "incumbent"), None)

    @property
    def shadows(self) -> list[int]:
        """The versions that run beside it."""
        return [seat.version for seat in self.seats if seat.role == "shadow"]

    @property
    def generation(self) -> int:
        """The registry's generation that the partition has followed."""
        if self.state is None or self.state.kind != "running":
            return self.head.generation
        return max(self.head.generation, self.state.generation)

    def answers(self, version: int) -> bool:
        """Whether this version answers here."""
        return self.incumbent is not None and self.incumbent.version == version


def standing_of(ledger: Ledger) -> Standing | None:
    """Where a partition stands; None: no consumer ever had it."""
    head = ledger.head()
    if head is None:
        return None
    return Standing(ledger.partition, head, tuple(seated(ledger.roster()).values()), ledger.state())


@dataclass(frozen=True)
class Following:
    """Which partitions follow a change of the incumbent, which are on the way, which can't and why."""

    follow: tuple[int, ...] = ()
    spinning_up: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()  # their consumer has not seen the change, or they have none
    diverged: Mapping[int, str] | None = None

    @property
    def settled(self) -> bool:
        """Nothing more will happen: each follows, or can't."""
        return not self.spinning_up and not self.waiting

    def lines(self) -> list[str]:
        """What to tell people; partitions that can't follow have a line of their own with the reason."""
        total = len(self.follow) + len(self.spinning_up) + len(self.waiting) + len(self.diverged or {})
        found = [f"{len(self.follow)} of {total} partitions follow" + _names(self.follow, total)]
        if self.spinning_up:
            found.append(f"still spinning up{_names(self.spinning_up)}")
        if self.waiting:
            found.append(f"have not seen it yet{_names(self.waiting)}")
        found += [f"partition {number} diverged: {why}" for number, why in sorted((self.diverged or {}).items())]
        return found


def following(version: int, generation: int, ledgers: Sequence[Ledger]) -> Following:
    """How the partitions follow the change that made `version` the incumbent and `generation` the registry's."""
    places: dict[str, list[int]] = {"follow": [], "spinning_up": [], "waiting": []}
    diverged: dict[int, str] = {}
    for ledger in ledgers:
        standing = standing_of(ledger)
        said = standing.state if standing is not None else None
        if standing is not None and standing.answers(version):
            places["follow"].append(ledger.partition)
        elif said is None or said.generation < generation or said.kind == "running":
            places["waiting"].append(ledger.partition)
        elif said.kind == "spinning-up" or said.version != version:  # or it is a shadow that can't be followed
            places["spinning_up"].append(ledger.partition)
        else:
            diverged[ledger.partition] = said.why
    return Following(**{name: tuple(found) for name, found in places.items()}, diverged=diverged)


def wait_until_settled(
    look: Callable[[], Following],
    report: Callable[[int, str], None],
    *,
    timeout_s: float,
    give_up: Callable[[], bool],
) -> Following:
    """How it stands when nothing more will happen, the time is up, or there is reason to give up."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        report(len(found.follow), "; ".join(found.lines()[1:]))
        if found.settled or time.monotonic() >= deadline or give_up():
            return found
        time.sleep(LOOK_EVERY_S)


class Aside(Generic[Found]):
    """Does `work` beside what comes next; where a service is away nothing is found: who asks can do without."""

    def __init__(self, work: Callable[[], Found]) -> None:
        self._work = work
        self._found: Found | None = None
        self._began = time.monotonic()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def found(self, within_s: float = 0.0) -> Found | None:
        """What was found, waited for until so many seconds after the beginning; None: nothing yet."""
        self._thread.join(max(0.0, self._began + within_s - time.monotonic()))
        return self._found

    @property
    def over(self) -> bool:
        """Whether nothing more will be found."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        with suppress(KillickError):
            self._found = self._work()


def _names(partitions: Sequence[int], total: int | None = None) -> str:
    """`: 0, 1, 5`; nothing where it is all of them, or none."""
    return "" if not partitions or len(partitions) == total else ": " + ", ".join(map(str, partitions))
