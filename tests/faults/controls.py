"""Negative controls: the production code without one of its safeguards. The simulator has to find each one out."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from consumers import ledger, recovery
from models import forecaster, network, registry
from tests.faults.text import Text
from tests.faults.world import Control
from worker import judging, requests, verdicts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FENCE = "if head['token'] ~= args[1] then return {'fenced'} end"
CHAIN = "if head['last'] ~= before then return {'behind'"
OFFSET = "if tonumber(head['next']) ~= tonumber(args[2])"


def without(text: str, *beginnings: str) -> str:
    """A text without the lines that begin so; each must be there."""
    for beginning in beginnings:
        lines = text.splitlines()
        kept = [line for line in lines if not line.strip().startswith(beginning)]
        assert len(kept) < len(lines), f"no line begins with {beginning!r}"
        text = "\n".join(kept)
    return text


@contextmanager
def lua_without(*beginnings: str) -> Iterator[Control]:
    """The ledger's functions without some of their checks."""
    with patch.object(ledger, "CODE", Text(without(ledger.CODE.read_text(), *beginnings))):
        yield Control()


@contextmanager
def no_fence() -> Iterator[Control]:
    """Whoever held the partition before may go on writing."""
    with lua_without(FENCE, CHAIN) as control:
        yield control


@contextmanager
def no_offset_check() -> Iterator[Control]:
    """A block is taken wherever the ledger stands."""
    with lua_without(OFFSET, CHAIN) as control:
        yield control


@contextmanager
def no_call_before() -> Iterator[Control]:
    """Token and offset alone are looked at: a roster or a snapshot may be lost with a tail, and nobody knows."""
    with lua_without(CHAIN), patch.object(ledger.Ledger, "check", lambda owner: owner._last):
        yield Control()


@contextmanager
def counter_for_a_fence() -> Iterator[Control]:
    """The token is the last one and one more, as the ledger knows it: after a lost tail it comes a second time."""
    take = ledger.Ledger.take

    def counted(self: ledger.Ledger, **words: Any) -> ledger.Head:
        head = self.head()
        self.token = str(int(head.token or 0) + 1 if head else 1)
        return take(self, **words)

    with patch.object(ledger.Ledger, "take", counted), lua_without(CHAIN) as control:
        yield control


@contextmanager
def roster_not_committed() -> Iterator[Control]:
    """Who answers is changed in the consumer's memory, and nowhere else."""
    commit = ledger.Ledger.commit

    def forgetful(self: ledger.Ledger, change: ledger.Commit) -> None:
        known = self.roster()
        commit(self, replace(change, roster=None) if change.roster is not None and known else change)

    with patch.object(ledger.Ledger, "commit", forgetful):
        yield Control()


@contextmanager
def spun_up_from_now() -> Iterator[Control]:
    """A version's carried state begins where it joins, whatever the roster says about its start."""
    init = recovery.SpinUp.__init__

    def late(self: recovery.SpinUp, *words: Any) -> None:
        init(self, *words)
        head = words[0].head()
        self._partition_starts = head.next  # type: ignore[attr-defined]

    def fold_late(self: recovery.SpinUp, blocks: Any) -> None:
        starts = self._partition_starts  # type: ignore[attr-defined]
        number = self.version.number
        self._partition.spans[number] = self._partition.spans[number]._replace(start=max(starts, self.start))
        fold_all(self, blocks)

    fold_all = recovery.SpinUp._fold
    with patch.object(recovery.SpinUp, "__init__", late), patch.object(recovery.SpinUp, "_fold", fold_late):
        yield Control()


@contextmanager
def from_the_group_offset() -> Iterator[Control]:
    """After an assignment, reading goes on where the group's offset in Kafka says."""
    yield Control(from_group=True)


@contextmanager
def tiles_of_one() -> Iterator[Control]:
    """The network is given as many lanes as there are, also one."""
    with ExitStack() as stack:
        for module in (forecaster, network):
            stack.enter_context(patch.object(module, "MIN_TILE", 1))
        yield Control(real=True)


@contextmanager
def no_look_at_who_answers() -> Iterator[Control]:
    """A trial goes on, and ends in a promotion, whoever answers by now."""
    code = Text(without(registry.CODE.read_text(), "if state.incumbent ~= expected", "if old then return old end"))
    with patch.object(registry, "CODE", code), patch.object(judging.Judging, "_stale", lambda *_: None):
        yield Control()


@contextmanager
def verdicts_written_twice() -> Iterator[Control]:
    """Who was slow rather than dead writes a verdict, too."""
    lines = "local fenced", "if fenced then return fenced end", "if redis.call('HEXISTS', keys[2], args[2]) == 1"
    code = Text(without(requests.CODE.read_text(), *lines))
    with ExitStack() as stack:
        for module in (requests, verdicts):
            stack.enter_context(patch.object(module, "CODE", code))
        stack.enter_context(patch.object(verdicts.VerdictStore, "get", lambda *_: None))
        yield Control()


CONTROLS: dict[str, Callable[[], Any]] = {
    "no fence": no_fence,
    "a counter for a fence": counter_for_a_fence,
    "no offset check": no_offset_check,
    "resume from Kafka's offset": from_the_group_offset,
    "tiles of one": tiles_of_one,
    "a roster that is not committed": roster_not_committed,
    "spin-up from now": spun_up_from_now,
    "no name of the call before": no_call_before,
    "a trial that does not look at who answers": no_look_at_who_answers,
    "a verdict that is written twice": verdicts_written_twice,
}
