"""The story of updating in the demo: what is told of it, what the producer waits for, and what came of it in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.verdict import Verdict
    from worker.demo_scene import Mood, Scene
    from worker.requests import Progress
    from worker.updating_view import Updating

RECOVERED_DAYS = 28
PAUSED = "automatic promotion is paused until `killick resume`"


def waits_for(scene: Scene) -> str:
    """Why nothing is to be sent now; "" sends on. A year passes in a minute here, and training takes real seconds."""
    now = scene.updating
    if now is not None and now.progress is not None:
        return "candidates are trained"
    if now is not None and "" in now.waits_for and scene.stage == "streaming":
        return "a retrainer takes the request up"
    if now is not None and now.aliases.candidate is not None and now.aliases.candidate not in scene.shadows:
        return f"version {now.aliases.candidate} spins up"
    if now is not None and scene.answering and set(scene.answering) != {now.aliases.incumbent}:
        return f"version {now.aliases.incumbent} takes over"
    return ""


def on_trial(scene: Scene) -> bool:
    """Whether a candidate is tried live now."""
    return scene.updating is not None and scene.updating.gate.trial is not None


class Story:
    """Tells what is new in updating."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._told: set[tuple[str, str]] = set()

    def tell(self, now: Updating) -> None:
        """Take over how it stands now, and say what was not said before."""
        scene = self._scene
        scene.updating = now
        for key, text, mood in self._happened(now):
            if key not in self._told:
                self._told.add(key)
                scene.say(text, mood=mood)
        answers = set(scene.answering)
        if len(answers) == 1 and answers != {version for _, version in scene.swaps[-1:]}:
            (version,) = answers
            if scene.swaps:
                scene.say(f"version {version} answers in every partition", mood="good")
            scene.swaps.append((scene.now_ms, version))

    def _happened(self, now: Updating) -> Iterator[tuple[tuple[str, str], str, Mood]]:
        first = next((one.request for one in now.waiting), None)
        if first is not None:
            yield ("request", first.trigger), f"asked for: an update, because of a {first.trigger}", "plain"
        if now.progress is not None:
            yield ("trained", now.progress.requests[0]), "the retrainer takes it up; the producer waits", "good"
        for verdict in reversed(now.verdicts):
            mood: Mood = "good" if verdict.outcome == "promote" else "bad"
            yield ("verdict", verdict.id), f"verdict, {verdict.outcome}: {verdict.sentence}", mood
        candidate, trial = now.aliases.candidate, now.gate.trial
        if candidate is not None:
            yield ("candidate", str(candidate)), f"version {candidate} is the candidate: it spins up beside", "plain"
        if trial is not None and trial.version in self._scene.shadows:
            words = f"version {trial.version} reads along as a shadow: its live trial; the producer goes slower"
            yield ("trial", str(trial.version)), words, "good"
        for end in now.gate.ended:
            mood = "good" if end.outcome == "promoted" else "bad"
            yield (
                ("ended", f"{end.version} {end.outcome}"),
                f"version {end.version} {end.outcome}: {end.sentence}",
                mood,
            )
        found = self._scene.beside()
        if found is not None and found.days >= RECOVERED_DAYS:
            yield ("recovered", str(found.after)), f"{found.days} days on: {beside_words(self._scene)}", "good"


def beside_words(scene: Scene) -> str:
    """The skill of both versions since the promotion."""
    found = scene.beside()
    if found is None:
        return "no day yet on which both versions forecast"
    before, after = found.skill()
    return (
        f"skill {after:+.2f} of version {found.after}, {before:+.2f} of version {found.before}, "
        f"on the same pairs of {found.days} days"
    )


def outcome(scene: Scene) -> str:
    """What came of updating, in one sentence."""
    now = scene.updating
    verdicts: Sequence[Verdict] = now.verdicts if now is not None else ()
    if scene.promoted is not None:
        return beside_words(scene)
    if now is None or not (verdicts or now.waiting):
        return "nothing asked for an update"
    if not verdicts:
        return "an update was asked for, and still waits for data"
    if now.gate.ended:
        end = now.gate.ended[-1]
        return f"version {end.version} was tried live, and the evidence did not justify a promotion: {end.sentence}"
    if verdicts[0].outcome == "promote":
        return f"version {verdicts[0].version} is better on recorded data; its live trial was not over at the end"
    return f"the evidence did not justify a promotion: {verdicts[0].sentence}"


def steps(scene: Scene) -> list[tuple[str, str]]:
    """The steps of updating with how each stands: request, training, verdict, live."""
    now = scene.updating
    if now is None:
        return [(name, "") for name in ("request", "training", "verdict", "live")]
    return [
        ("request", _request(now)),
        ("training", _training(now.progress, now.verdicts)),
        ("verdict", f"{now.verdicts[0].outcome}: {now.verdicts[0].sentence}" if now.verdicts else ""),
        ("live", _live(scene, now)),
    ]


def _request(now: Updating) -> str:
    first = next((one.request for one in now.waiting), None)
    if first is None:
        return "none: a drift asks for one" if not now.verdicts else f"answered; it was a {now.verdicts[0].trigger}'s"
    if now.progress is not None:
        return f"taken up: {first.why}"
    return f"{first.trigger}; waits for {now.waits_for[0] or 'a retrainer'}: {first.why}"


def _training(progress: Progress | None, verdicts: Sequence[Verdict]) -> str:
    if progress is not None:
        return f"{progress.done} of {progress.total}: {progress.note}"
    if not verdicts:
        return ""
    last = verdicts[0]
    best = min(
        (one for one in last.attempts if one.validation_mse is not None),
        key=lambda one: one.validation_mse or 0.0,
        default=None,
    )
    if best is None:
        return f"{len(last.attempts)} in {last.seconds:.0f} s, none came to an end"
    won = f"{best.strategy}, rate {best.rate:g} (loss {best.validation_mse:.3f})"
    return f"{len(last.attempts)} in {last.seconds:.0f} s; best validated: {won}"


def _live(scene: Scene, now: Updating) -> str:
    """The trial, or the guard, with its evidence and what would be needed."""
    trial, guard, ended = now.gate.trial, now.gate.guard, now.gate.ended
    if trial is not None:
        verdict = next((one for one in now.verdicts if one.id == trial.verdict), None)
        length = verdict.trial.harm_steps if verdict is not None and verdict.trial is not None else 0
        of = f" of {length:,}" if trial.mode == "harm" and length else ""
        proof = "harm" if trial.mode == "harm" else "being better"
        evidence = f"evidence of {proof} {trial.e_value:.2g} of {trial.needed:g}"
        return f"trial of version {trial.version}: {evidence}, {trial.steps:,}{of} steps"
    if guard is not None:
        evidence = f"evidence for {guard.previous} {guard.e_value:.2g} of {guard.needed:g}"
        return f"guard over version {guard.version}: {evidence}, {guard.steps:,} steps"
    told = f"version {ended[-1].version} {ended[-1].outcome}" if ended else ""
    if scene.audit and scene.audit[-1].event == "rollback":
        told = f"version {scene.audit[-1].before} rolled back by {scene.audit[-1].actor}"
    return "; ".join(filter(None, [told, PAUSED if now.aliases.paused else ""]))
