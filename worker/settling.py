"""The last steps of a retraining, each of which can be done again: by whoever takes over, too.

verdict kept aside ─► version registered ─► verdict written ─► candidate nominated ─► requests answered
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from models.architecture import Architecture
from models.decision import trial_of
from models.errors import StaleCommand, VersionError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from models.decision import JudgementLimits
    from models.verdict import Verdict
    from worker.desks import RequestDesk, VerdictDesk, VersionDesk
    from worker.requests import Waiting

ACTOR = "retrainer"
TRIES = 10  # where others change the same thing meanwhile

log = logging.getLogger(__name__)


class Made(NamedTuple):
    """The network that a verdict chose."""

    architecture: bytes  # JSON
    weights: bytes  # safetensors
    training: dict[str, Any]  # what the registry keeps


class Settler:
    """Ends the retrainings of one worker."""

    def __init__(
        self,
        worker: str,
        requests: RequestDesk,
        verdicts: VerdictDesk,
        registry: VersionDesk,
        limits: JudgementLimits,
    ) -> None:
        self._worker = worker
        self._requests = requests
        self._verdicts = verdicts
        self._registry = registry
        self._limits = limits

    def settle(self, verdict: Verdict, made: Made | None, entries: Sequence[str]) -> Verdict:
        """The verdict as it was written, its requests answered; `made` is registered and nominated.

        Where no answer came, call again with the same words.

        Raises:
            FencedError: another worker has taken the requests up.
            ServiceUnreachable: Redis did not answer.
        """
        if made is not None:
            verdict = self._still_wanted(verdict)
        if made is not None and verdict.outcome == "promote":
            registered = self._registered({verdict.id})
            if registered is not None:  # by whoever was at work on it before, and was slow rather than dead
                return self._finish(registered, entries)
            self._verdicts.draft(verdict, self._worker, entries)
            version = self._registry.register(
                Architecture.from_json(made.architecture),
                made.weights,
                training={**made.training, "verdict": verdict.id},
                parent=verdict.incumbent,
                actor=ACTOR,
                reason=f"{verdict.chosen}: {verdict.why}",
                now_ms=verdict.created_ms,
            )
            verdict = msgspec.structs.replace(verdict, version=version)
        return self._finish(verdict, entries)

    def resume(self, claimed: Sequence[Waiting]) -> Verdict | None:
        """The verdict on one of these requests that a worker left half settled, settled; None: there is none.

        Raises:
            FencedError, ServiceUnreachable: as `settle`.
        """
        by_id = {one.request.id: one.entry for one in claimed}
        found = next((v for v in map(self._verdicts.get, by_id) if v is not None), None) or self._registered(by_id)
        if found is None:
            return None
        return self._finish(found, [by_id[one] for one in found.requests if one in by_id])

    def _registered(self, verdicts: Collection[str]) -> Verdict | None:
        """The one of these verdicts that was kept aside, with its version; None: it has none."""
        draft = self._verdicts.drafted()
        if draft is None or draft.id not in verdicts:
            return None
        versions = [info.version for info in self._registry.versions() if info.training.get("verdict") == draft.id]
        return msgspec.structs.replace(draft, version=versions[0]) if versions else None

    def _finish(self, verdict: Verdict, entries: Sequence[str]) -> Verdict:
        """Write, nominate, answer."""
        written = self._written(verdict, entries)
        if written.version is not None:
            self._nominate(written, written.version)
        self._requests.answered(entries)
        log.info(
            "verdict %s: %s: %s", written.id, written.outcome, written.sentence,
            extra={"action": "verdict", "outcome": written.outcome, "version": written.version},
        )  # fmt: skip
        return written

    def _still_wanted(self, verdict: Verdict) -> Verdict:
        """The verdict; inconclusive where another version answers by now, or no trial can be paid for."""
        answers, why = self._registry.aliases().incumbent, ""
        trial, limits = verdict.trial, self._limits
        if answers != verdict.incumbent:
            why = f"but version {answers} answers by now, and it was compared with version {verdict.incumbent}"
        elif trial is not None and trial.mode == "superiority" and self._verdicts.spent() >= limits.budget:
            why = f"but the live trials have spent their budget of {limits.budget:g}: raise judgement.budget"
        if not why:
            return verdict
        return msgspec.structs.replace(
            verdict, outcome="inconclusive", sentence=f"{verdict.sentence}; {why}", chosen=None, trial=None
        )

    def _written(self, verdict: Verdict, entries: Sequence[str]) -> Verdict:
        before = self._verdicts.get(verdict.id)
        if before is not None:
            return before
        for _ in range(TRIES):
            spent, spends = self._verdicts.spent(), 0.0
            if verdict.trial is not None:
                trial, spends = trial_of(verdict.trigger, verdict.trial.calibration, self._limits, spent)
                verdict = msgspec.structs.replace(verdict, trial=trial)
            try:
                self._verdicts.write(verdict, self._worker, entries, before=spent, spends=spends)
            except StaleCommand:
                continue  # another trial has spent of the budget meanwhile
            break
        return self._verdicts.get(verdict.id) or verdict  # it was there, if another worker was faster

    def _nominate(self, verdict: Verdict, version: int) -> None:
        if self._registry.last("nominate", version=version) is not None:
            return
        for _ in range(TRIES):
            aliases = self._registry.aliases()
            try:
                self._registry.nominate(
                    version,
                    expected=aliases.candidate,
                    actor=ACTOR,
                    reason=verdict.sentence,
                    now_ms=verdict.created_ms,
                    automatic=True,
                )
            except StaleCommand as error:
                if self._registry.aliases().candidate != aliases.candidate:
                    continue  # somebody else nominated in between
                log.warning("version %d is no candidate: %s", version, error, extra={"action": "stale"})
            except VersionError as error:
                log.warning("version %d is no candidate: %s", version, error, extra={"action": "unfit"})
            return
