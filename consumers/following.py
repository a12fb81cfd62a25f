"""Following the registry: who should answer and read along is spun up beside the stream, then seated.

    registry polled ─► wanted ─► loaded and checked (another thread) ─► spun up (slices between blocks)
                         └─ ready versions ─► one roster commit ─► on disk ─► its first forecast is published

What can't be loaded leaves the incumbent answering, and the partition *diverged*.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumers.ledger import Commit, PartitionState
from consumers.recovery import SpinUp
from consumers.roster import Wanted, incumbent_of, reseated, seated, shadows_of, wanted
from models.blocks import empty_block
from models.errors import LedgerError, VersionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumers.holding import Holding, Limits, Reachable
    from consumers.observer import Observer
    from consumers.versions import Versions
    from models.registry import Aliases, Registry

RETRY_S = 30.0  # a version that can't be followed is tried again
SLICE_S, IDLE_SLICE_S = 0.005, 0.05  # of a spin-up between two polls: while records come, and while none do
SHARE = 0.3  # of the time that the records of a poll took, where that is more
LONG_DISK_S = 10.0  # to wait for Redis' disk without a word
LEAST_SLICE, LARGEST_SLICE = 256, 4096  # observations; a smaller one costs little less

log = logging.getLogger(__name__)


@dataclass
class _SpinningUp:
    """The one spin-up that is under way."""

    partition: int
    work: SpinUp
    began: float


class Follower:
    """Makes the rosters of a consumer's partitions follow the registry."""

    def __init__(
        self,
        registry: Registry,
        versions: Versions,
        limits: Limits,
        observer: Observer,
        disk: Callable[[str], Reachable | None],
        *,
        poll_s: float = 0.2,
    ) -> None:
        self._registry = registry
        self._versions = versions
        self._limits = limits
        self._observer = observer
        self._disk = disk  # by key; None: there is nothing to wait for
        self._poll_s = poll_s
        self._aliases: Aliases | None = None
        self._polled_at = float("-inf")
        self._moved_at = 0.0  # when the registry was seen to have moved
        self._spinning: _SpinningUp | None = None
        self._slice = LEAST_SLICE
        self._failed: dict[tuple[int, int], tuple[str, float]] = {}  # partition, version → why not, and since when
        self._said: dict[int, PartitionState] = {}

    @property
    def busy(self) -> bool:
        """Whether a spin-up is under way."""
        return self._spinning is not None

    def poll(self, now: float) -> None:
        """Look at the registry, once in a while."""
        if now - self._polled_at < self._poll_s:
            return
        self._polled_at = now
        aliases = self._registry.aliases()
        if self._aliases is None or aliases.generation != self._aliases.generation:
            self._moved_at = now
            self._failed.clear()
        self._aliases = aliases
        self._failed = {at: failed for at, failed in self._failed.items() if now - failed[1] < RETRY_S}

    def follow(self, holding: Holding, now: float, busy_s: float | None) -> Commit | None:
        """Do what there is to do for a partition of which all is committed, for some milliseconds at most.

        `busy_s` is the time that the records of the last poll took; None: there were none. The partition is seated
        anew at once; the commit that comes back must be the next one of its ledger.

        Raises:
            FencedError: the ledger is no longer ours.
            ServiceUnreachable: Redis did not answer; call again.
        """
        aliases = self._aliases
        if aliases is None or aliases.incumbent is None:
            return None
        target = self._wanted(holding, aliases)
        if aliases.incumbent != holding.partition.incumbent and holding.next < holding.doubt:
            why = f"Redis was restarted: first what the former version may have published, up to offset {holding.doubt}"
            self._note(holding, PartitionState("spinning-up", aliases.generation, aliases.incumbent, why))
            return None
        missing = [version for version in target.missing if (holding.number, version) not in self._failed]
        self._abandon(holding, missing)
        self._say(holding, aliases.generation, target.missing)
        ready = None
        if missing and (self._spinning is None or self._spinning.partition == holding.number):
            budget_s = IDLE_SLICE_S if busy_s is None else max(SLICE_S, SHARE * busy_s)
            ready = self._bring(holding, missing[0], now, budget_s)
        if ready is not None:
            target = self._wanted(holding, aliases, ready.version.number)
        roster = holding.partition.roster
        if target.incumbent == incumbent_of(roster) and target.shadows == shadows_of(roster):
            return None
        return self._seat(holding, target, ready, aliases)

    def opened(self, holding: Holding) -> None:
        """A partition is at work: its roster may have changed since the last forecast that is published."""
        roster = holding.partition.roster
        seats = seated(roster).values()
        if any(seat.role == "incumbent" and seat.join_offset >= holding.mark_told for seat in seats):
            self._await_disk(holding)
        self._observer.roster(holding.number, roster)

    def committed(self, holding: Holding, now: float) -> None:
        """The commit that `follow` gave is in the ledger: what changed is told, and awaited on the disk."""
        roster = holding.partition.roster
        answers = incumbent_of(roster)
        for seat in holding.joined:
            if seat.leave_offset is None:
                log.info(
                    "partition %d: version %d is %s from offset %d on, its state begins at %d",
                    holding.number, seat.version, seat.role, seat.join_offset, seat.start_offset,
                    extra={"action": "seated", "partition": holding.number, "version": seat.version},
                )  # fmt: skip
                if seat.version == answers:
                    self._observer.swapped(holding.number, seat.version, now - self._moved_at)
                    self._await_disk(holding)
        self._observer.roster(holding.number, roster)

    def ask_disk(self, holding: Holding) -> None:
        """Ask whether a change of version is on the disk; once it is, the partition is published again.

        Raises:
            FencedError, OffsetConflict: the disk has another history than ours.
            ServiceUnreachable: Redis did not answer; ask again.
        """
        waiting = [one for one in holding.disk if not one.reached()]
        if not waiting:
            holding.ledger.check()
        elif time.monotonic() - holding.disk_since > LONG_DISK_S:
            log.warning(
                "partition %d: for %g s Redis has not said that a change of version is on its disk, and until it does "
                "nothing is published: see its appendfsync and its disk",
                holding.number, LONG_DISK_S, extra={"action": "disk", "partition": holding.number},
            )  # fmt: skip
            holding.disk_since = math.inf
        holding.disk = waiting

    def forget(self, partition: int) -> None:
        """A partition is no longer ours."""
        said = self._said.pop(partition, None)
        if said is not None and said.kind == "diverged":
            self._observer.diverged(partition, "")
        if self._spinning is not None and self._spinning.partition == partition:
            self._spinning = None

    def needed(self) -> set[int]:
        """The versions that partitions have to follow."""
        aliases = self._aliases
        return {v for v in (aliases.incumbent, aliases.candidate) if v is not None} if aliases else set()

    def _await_disk(self, holding: Holding) -> None:
        """Publish nothing of a partition until roster and registry are on the server's disk."""
        keys = (holding.ledger.disk_key, self._registry.disk_key)
        holding.disk = [waiting for waiting in map(self._disk, keys) if waiting is not None]
        holding.disk_since = time.monotonic()

    def _wanted(self, holding: Holding, aliases: Aliases, *ready: int) -> Wanted:
        if aliases.incumbent is None:
            raise LedgerError("the registry has no version", "this is a defect of killick")
        return wanted(
            holding.partition.roster,
            incumbent=aliases.incumbent,
            candidate=aliases.candidate,
            previous=aliases.previous,
            step=holding.newest_step,
            guard_steps=self._limits.guard_steps,
            ready=ready,
        )

    def _abandon(self, holding: Holding, missing: Sequence[int]) -> None:
        """Give up a spin-up that is no longer the most urgent one."""
        spinning = self._spinning
        if spinning is None or spinning.partition != holding.number:
            return
        if spinning.work.version.number not in missing[:1]:
            holding.plan.unpin(spinning.work.version.number)
            self._spinning = None

    def _bring(self, holding: Holding, number: int, now: float, budget_s: float) -> SpinUp | None:
        """Load a version, and spin it up some of the way; it comes back when it has caught up."""
        try:
            version = self._versions.ask(number)
            if version is None or _owes(holding, number):
                return None
            spinning = self._spinning
            if spinning is None:
                start = holding.plan.start_offset(holding.newest_step, holding.first)
                holding.plan.pin(number, start)
                work = SpinUp(holding.ledger, holding.partition.form, version, start, holding.plan.index)
                spinning = self._spinning = _SpinningUp(holding.number, work, now)
            if not self._advance(spinning.work, holding.next, budget_s):
                return None
        except (VersionError, LedgerError) as error:
            holding.ledger.check()  # one that lost its tail has none of what the plan knows of
            self._fail(holding, number, error, now)
            return None
        self._spinning = None
        self._observer.spun_up(holding.number, number, now - spinning.began)
        return spinning.work

    def _advance(self, work: SpinUp, until: int, budget_s: float) -> bool:
        """Some of a spin-up, in slices of about the time that there is."""
        began = time.perf_counter()
        done = work.advance(self._slice, until)
        took = max(time.perf_counter() - began, 1e-6)
        self._slice = int(min(max(self._slice * min(budget_s / took, 2.0), LEAST_SLICE), LARGEST_SLICE))
        return done

    def _fail(self, holding: Holding, number: int, error: VersionError | LedgerError, now: float) -> None:
        log.error(
            "partition %d diverged: version %d can't be followed: %s",
            holding.number, number, error,
            extra={"action": "diverged", "partition": holding.number, "version": number},
        )  # fmt: skip
        self._failed[holding.number, number] = (str(error), now)
        holding.plan.unpin(number)
        self.forget(holding.number)

    def _seat(self, holding: Holding, target: Wanted, ready: SpinUp | None, aliases: Aliases) -> Commit:
        """Change who runs, from the next block on."""
        partition = holding.partition
        before = set(partition.spans)
        roster = reseated(
            partition.roster,
            offset=holding.next,
            step=holding.newest_step,
            incumbent=target.incumbent,
            shadows=target.shadows,
            starts={} if ready is None else {ready.version.number: ready.start},
        )
        holding.joined = tuple(seat for seat in roster if seat not in partition.roster)
        partition.seat(roster, self._versions.ready)
        if ready is not None:
            number = ready.version.number
            partition.carried[number] = ready.carried
            holding.plan.joined(number, ready.start, holding.next, len(partition.names))
        for number in before - set(partition.spans):
            holding.plan.left(number, holding.next)
        block = empty_block(holding.next, len(partition.form.features))
        return Commit(holding.next, block, roster=roster, generation=aliases.generation)

    def _say(self, holding: Holding, generation: int, missing: Sequence[int]) -> None:
        """Write down how far the partition follows, where that has changed."""
        failed = {v: self._failed[holding.number, v][0] for v in missing if (holding.number, v) in self._failed}
        if failed:
            number, why = next(iter(failed.items()))
            state = PartitionState("diverged", generation, number, why)
        elif missing:
            state = PartitionState("spinning-up", generation, missing[0])
        else:
            state = PartitionState("running", generation)
        self._note(holding, state)

    def _note(self, holding: Holding, state: PartitionState) -> None:
        if self._said.get(holding.number) != state:
            holding.ledger.note(state)
            self._said[holding.number] = state
            self._observer.diverged(holding.number, state.why if state.kind == "diverged" else "")


def _owes(holding: Holding, number: int) -> bool:
    """Whether forecasts that the version issued in an earlier tenure are not published yet."""
    left = [s.leave_offset for s in holding.partition.roster if s.version == number and s.leave_offset is not None]
    return bool(left) and max(left) > holding.mark_told
