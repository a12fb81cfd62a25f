"""Gate and guard at work: what they make of live evidence, stored before it is carried out in the registry.

    duels ─► trial of the candidate (gate.py) ───┬─► decision ─► stored ─► registry ─► stored
          └─► watch over who answers (guard.py) ─┘

State and what was fed move in one call, as the detectors' do. A decision that was stored and perhaps not carried out is
carried out again: each change of the registry compares with what is expected, and the audit says whose it was.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from models.audit import printable
from models.duels import between
from models.errors import LedgerError, StaleCommand, VersionError
from worker import gate, guard
from worker.gate import Decision, TrialState
from worker.gate_told import Ended, GateTold, read_gate
from worker.guard import GuardState  # noqa: TC001 - msgspec reads it

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.duels import Duels
    from models.registry import Aliases
    from models.verdict import Verdict
    from worker.desks import StateDesk, VersionDesk
    from worker.gate import Limits
    from worker.gate_told import Outcome

GATE, GUARD = "gate", "guard"  # who changes the registry
EVENTS = {"promote": "promote", "end": "nominate", "rollback": "rollback"}  # by act, in the audit
KEPT_ENDED = 50
FED_AT_ONCE = 1_024  # steps

log = logging.getLogger(__name__)


class State(GateTold):
    """What is stored of gate and guard."""

    trial: TrialState | None = None
    guard: GuardState | None = None


class Evidence(NamedTuple):
    """What the partitions have seen since."""

    duels: Duels  # of all partitions, of steps that were not fed yet
    over: Sequence[int]  # those of these steps that are over, in their order
    running: frozenset[int]  # versions, anywhere
    clock: int | None  # step of event time by which an hour is complete; None: no pair yet


class Judging:
    """Judges who is tried and who answers, and lets the registry follow."""

    def __init__(
        self, store: StateDesk, registry: VersionDesk, verdict_of: Callable[[int], Verdict | None], limits: Limits
    ) -> None:
        self._store = store
        self._registry = registry
        self._verdict_of = verdict_of
        self._limits = limits
        self._revision = 0
        self._stored = b""
        self.state = State()

    def open(self) -> None:
        """Take up what whoever led before left.

        Raises:
            ServiceUnreachable: Redis did not answer.
            LedgerError: another format.
        """
        self._revision, self._stored = self._store.state("gate")
        self.state = read_gate(self._stored, State)

    def look(self, evidence: Evidence, now_ms: int) -> None:
        """Take in what is new, and decide; at most FED_AT_ONCE steps at a time.

        Raises:
            FencedError, OffsetConflict: another monitor leads, or Redis lost its tail: open anew.
            ServiceUnreachable: Redis did not answer: open anew.
        """
        self._carry_out(now_ms)
        aliases = self._registry.aliases()
        self._follow_candidate(aliases, now_ms)
        self._follow_incumbent(aliases, evidence.running)
        self._feed(evidence)
        self._settle(aliases)
        self._save()
        self._carry_out(now_ms)
        self._save()

    def _follow_candidate(self, aliases: Aliases, now_ms: int) -> None:
        """Begin the trial of a candidate that is new, end that of one that is none any more."""
        state, version, answers = self.state, aliases.candidate, aliases.incumbent
        trial = state.trial
        if trial is not None and trial.version != version:
            entry = self._registry.last("nominate", "promote", version=trial.version)
            outcome: Outcome = "promoted" if answers == trial.version else "ended"
            self._end(outcome, f"version {trial.version} is no longer the candidate: {entry}", now_ms)
        elif trial is not None and trial.against != answers and trial.decision is None:
            trial.decision = self._stale(trial.version, trial.against, answers)
        state.watched = version if state.trial is None else None
        if version is None or state.trial is not None or any(one.version == version for one in state.ended):
            return  # a verdict is worth one trial: who is nominated again is for people to decide on
        verdict = self._verdict(version)
        if verdict is not None and verdict.trial is not None:
            state.trial = gate.begin(verdict, version, verdict.trial)
            state.watched = None
            if verdict.incumbent != answers:
                state.trial.decision = self._stale(version, verdict.incumbent, answers)
            log.info("the trial of version %d begins", version, extra={"action": "trial", "version": version})

    def _follow_incumbent(self, aliases: Aliases, running: frozenset[int]) -> None:
        """Watch over the version that answers as long as the one before runs on."""
        state, version, previous = self.state, aliases.incumbent, aliases.previous
        now = None if previous is None or version is None or previous not in running else (version, previous)
        if state.guard is not None and now != (state.guard.version, state.guard.previous):
            log.info("the guard of version %d is over", state.guard.version, extra={"action": "guard-over"})
            state.guard = None
        if state.guard is None and now is not None:
            state.guard = guard.begin(*now, self._verdict(now[0]), self._limits)
            log.info("the guard watches over version %d, beside %d", *now, extra={"action": "guard"})

    def _feed(self, evidence: Evidence) -> None:
        trial, watch, limits = self.state.trial, self.state.guard, self._limits
        if trial is not None and trial.decision is None:
            trial.decision = gate.fault(trial, evidence.duels, limits)
        if watch is not None and watch.decision is None and watch.state != "refused":
            watch.decision = guard.fault(watch, evidence.duels, limits)
        tried = between(evidence.duels, trial.version, trial.against) if trial is not None else {}
        watched = between(evidence.duels, watch.version, watch.previous) if watch is not None else {}
        for step in evidence.over[:FED_AT_ONCE]:
            if trial is not None and trial.decision is None:
                gate.feed(trial, step, tried.get(step), limits)
            if watch is not None and watch.decision is None:
                guard.feed(watch, watched.get(step), limits)
            self.state.step = step
        behind = len(evidence.over) > FED_AT_ONCE
        if trial is not None and evidence.clock is not None and not behind:  # else its evidence would come too late
            gate.pass_time(trial, evidence.clock - limits.ahead_steps)

    def _settle(self, aliases: Aliases) -> None:
        """Let a trial that was won lead to a promotion, unless people have to agree first."""
        trial = self.state.trial
        if trial is not None:
            unsigned = self._limits.approval and aliases.approved != trial.version
            waits = bool(trial.won) and (aliases.paused or unsigned)
            gate.tell(trial, "running" if not waits else "paused" if aliases.paused else "waits for approval")
            if trial.won and not waits and trial.decision is None:
                entry = self._registry.last("approve", version=trial.version) if self._limits.approval else None
                signed = f"; signed off by {entry.actor}: {entry.reason}" if entry is not None else ""
                trial.decision = Decision("promote", trial.won + signed)
        if self.state.guard is not None:
            guard.tell(self.state.guard)

    def _carry_out(self, now_ms: int) -> None:
        """Do what was decided; what somebody else has overtaken is let go, and looked at anew."""
        trial, watch = self.state.trial, self.state.guard
        if watch is not None and watch.decision is not None:
            done, refused = self._change(watch.version, watch.decision, now_ms)
            if done:
                self._note("rolled back", watch.version, watch.decision.sentence, now_ms)
                self.state.guard = None
            elif refused:
                watch.state, watch.words = "refused", f"{watch.decision.sentence}; but {refused}"
            watch.decision = None
        if trial is not None and trial.decision is not None:
            decided, trial.decision = trial.decision, None
            done, refused = self._change(trial.version, decided, now_ms)
            if done:
                self._end("promoted" if decided.act == "promote" else "ended", decided.sentence, now_ms)
            elif refused:
                trial.decision = Decision("end", f"{decided.sentence}; but {refused}")

    def _change(self, version: int, decision: Decision, now_ms: int) -> tuple[bool, str]:
        """Whether the registry follows, by this call or one before, and why it never will; neither: look anew."""
        registry, actor = self._registry, GUARD if decision.act == "rollback" else GATE
        trial, watch = self.state.trial, self.state.guard
        if self._was_done(actor, version, decision):
            return True, ""  # and that was not stored; who changed something since then has decided otherwise
        try:
            if decision.act == "promote" and trial is not None:
                registry.promote(
                    version, expected=trial.against, actor=actor, reason=decision.sentence, now_ms=now_ms,
                    automatic=True,
                )  # fmt: skip
            elif decision.act == "rollback" and watch is not None:
                registry.rollback(
                    watch.previous, expected=version, actor=actor, reason=decision.sentence, now_ms=now_ms
                )
            else:
                registry.nominate(None, expected=version, actor=actor, reason=decision.sentence, now_ms=now_ms)
        except StaleCommand as error:
            if self._was_done(actor, version, decision):
                return True, ""  # between the two looks, by a call that was believed lost
            log.warning("%s was overtaken: %s", actor, error, extra={"action": "overtaken", "version": version})
            return False, ""
        except VersionError as error:
            log.warning("%s can't: %s", actor, error, extra={"action": "refused", "version": version})
            return False, str(error)
        level = logging.WARNING if decision.act == "rollback" else logging.INFO
        log.log(level, "%s: %s", actor, decision.sentence, extra={"action": decision.act, "version": version})
        return True, ""

    def _was_done(self, actor: str, version: int, decision: Decision) -> bool:
        """Whether the audit says that this very decision was carried out."""
        wanted = (EVENTS[decision.act], actor, printable(decision.sentence))
        return any(
            (entry.event, entry.actor, entry.reason) == wanted and version in (entry.version, entry.before)
            for entry in self._registry.audit()
        )

    def _end(self, outcome: Outcome, sentence: str, now_ms: int) -> None:
        """A trial is over."""
        if self.state.trial is not None:
            self._note(outcome, self.state.trial.version, sentence, now_ms)
            self.state.trial = None

    def _note(self, outcome: Outcome, version: int, sentence: str, now_ms: int) -> None:
        state = self.state
        state.counts[outcome] = state.counts.get(outcome, 0) + 1
        state.ended.append(Ended(version=version, outcome=outcome, sentence=sentence, time_ms=now_ms))
        del state.ended[:-KEPT_ENDED]

    def _stale(self, version: int, against: int, answers: int | None) -> Decision:
        entry = self._registry.last("promote", "rollback")
        told = f"version {version} was made from version {against}, and version {answers} answers by now"
        return Decision("end", f"{told}: {entry}" if entry is not None else told)

    def _verdict(self, version: int) -> Verdict | None:
        try:
            return self._verdict_of(version)
        except LedgerError as error:
            log.warning(
                "version %d has no trial: %s", version, error, extra={"action": "no-verdict", "version": version}
            )
            return None

    def _save(self) -> None:
        """Put down what changed."""
        state = msgspec.msgpack.encode(self.state)
        if state != self._stored:
            self._store.change("gate", self._revision, state)
            self._revision, self._stored = self._revision + 1, state
