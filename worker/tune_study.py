"""What a study keeps, in a folder, and what it would try next: the door to Optuna.

The folder holds Optuna's journal, a file of JSON lines that is only appended to; each line is on disk before the next
thing happens, so a killed study lacks nothing but what was under way. One process at a time works on a study.

What is tried next is drawn by a sampler that is made anew for each trial, from the trials it may know of: so it
depends neither on how many processes there are nor on when they were killed.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from models.errors import DataError
from worker.tune_space import drawn
from worker.tune_told import Run, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from worker.tune_space import Dimension, Params

FORMAT = 1
FILE, LOCK = "study.jsonl", "lock"
NAME = "killick"
STARTUP = 10  # trials that are drawn at random before the sampler learns from them
TOP = 0.25  # of the trials: what importance is about
LEAST_FOR_IMPORTANCE = 20
STATES: dict[State, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "exploded": TrialState.PRUNED,  # for the sampler the worst there is: it should keep away
    "refused": TrialState.PRUNED,
}


@dataclass
class Kept:
    """A trial as the study holds it; `state` None: it has not ended."""

    number: int
    params: Params
    state: State | None = None
    words: str = ""
    value: float | None = None
    runs: dict[tuple[int, int], Run] = field(default_factory=dict)  # by split and seed


class Study:
    """The trials of a study; every change is on disk before the call returns."""

    def __init__(self, storage: JournalStorage, study_id: int, dimensions: Sequence[Dimension]) -> None:
        self._storage = storage
        self._id = study_id
        self._dimensions = tuple(dimensions)
        self._distributions = {one.key: _distribution(one) for one in dimensions}
        self._trial_ids: dict[int, int] = {}
        self.trials: list[Kept] = []
        self.checks: dict[tuple[int, int], Run] = {}  # by trial and seed
        for trial in storage.get_all_trials(study_id):
            self._trial_ids[trial.number] = trial._trial_id  # noqa: SLF001 - what the storage's methods ask for
            self.trials.append(_kept(trial.number, trial.params, trial.user_attrs, ended=trial.state.is_finished()))
        for key, value in storage.get_study_user_attrs(study_id).items():
            kind, *numbers = key.split(".")
            if kind == "check":
                self.checks[int(numbers[0]), int(numbers[1])] = msgspec.convert(value, Run)

    def add(self, params: Params) -> Kept:
        """A new trial, with the next number."""
        trial = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions={key: self._distributions[key] for key in params},
        )
        trial_id = self._storage.create_new_trial(self._id, template_trial=trial)
        kept = Kept(self._storage.get_trial(trial_id).number, params)
        self._trial_ids[kept.number] = trial_id
        self.trials.append(kept)
        return kept

    def keep_run(self, trial: Kept, run: Run) -> None:
        """Keep a training of a trial that has not ended."""
        key = f"run.{run.split}.{run.seed}"
        self._storage.set_trial_user_attr(self._trial_ids[trial.number], key, msgspec.to_builtins(run))
        trial.runs[run.split, run.seed] = run

    def keep_check(self, number: int, run: Run) -> None:
        """Keep a training of a trial's configuration on the span that is held out."""
        self._storage.set_study_user_attr(self._id, f"check.{number}.{run.seed}", msgspec.to_builtins(run))
        self.checks[number, run.seed] = run

    def end(self, trial: Kept, state: State, value: float | None, words: str) -> None:
        """End a trial; `value` is what it came to, as far as it came."""
        trial_id = self._trial_ids[trial.number]
        told = {"state": state, "words": words, "value": value}
        self._storage.set_trial_user_attr(trial_id, "ended", told)
        if value is not None and state == "pruned":
            self._storage.set_trial_intermediate_value(trial_id, 0, value)
        self._storage.set_trial_state_values(trial_id, STATES[state], None if value is None else [value])
        trial.state, trial.words, trial.value = state, words, value

    def suggest(self, known: Sequence[Kept], begun: Sequence[Kept], seed: tuple[int, ...]) -> Params:
        """What to try next, by what came of `known` and while `begun` are under way; the same for the same seed.

        A tree-structured Parzen estimator over all settings together (Bergstra et al. 2011, NeurIPS).
        """
        number = int(np.random.default_rng(seed).integers(2**31))
        sampler = TPESampler(n_startup_trials=STARTUP, multivariate=True, constant_liar=True, seed=number)
        study = optuna.create_study(sampler=sampler)
        study.add_trials([self._frozen(one, one.state) for one in known])
        study.add_trials([self._frozen(one, None) for one in begun])
        trial = study.ask()

        def draw(one: Dimension) -> str | float:
            if one.is_range:
                return one.rounded(trial.suggest_float(one.key, one.low, one.high, log=one.log))
            return trial.suggest_categorical(one.key, one.choices)

        return drawn(self._dimensions, draw)

    def importance(self) -> dict[str, float]:
        """The share that each setting has in being among the best quarter, the greatest first; {}: too few trials.

        Watanabe et al. (2023), "PED-ANOVA", arXiv:2304.10255.
        """
        valued = [one for one in self.trials if one.value is not None]
        if len(valued) < LEAST_FOR_IMPORTANCE:
            return {}
        study = optuna.create_study()
        study.add_trials([self._frozen(one, "complete") for one in valued])
        evaluator = PedAnovaImportanceEvaluator(target_quantile=TOP)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return {name: float(share) for name, share in found.items() if np.isfinite(share)}

    def _frozen(self, one: Kept, state: State | None) -> optuna.trial.FrozenTrial:
        """A trial for the sampler, with no more than the given state lets it know."""
        distributions = {key: self._distributions[key] for key in one.params}
        if state is None:
            return create_trial(state=TrialState.RUNNING, params=one.params, distributions=distributions)
        found = STATES[state]
        value = None if one.value is None else float(one.value)
        return create_trial(
            state=found,
            value=value if found is TrialState.COMPLETE else None,
            params=one.params,
            distributions=distributions,
            intermediate_values={} if value is None or found is TrialState.COMPLETE else {0: value},
        )


@contextmanager
def opened(folder: Path, plan: Mapping[str, Any], dimensions: Sequence[Dimension]) -> Iterator[Study]:
    """The study in a folder, made if there is none.

    Raises:
        DataError: another process works on it, it was begun with another plan, or can't be read or written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("ab")
    except OSError as error:
        raise DataError(f"study {str(folder)!r} can't be written ({error})", "choose another --study") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                f"another process works on the study {str(folder)!r}", "wait for it, or choose another --study"
            ) from error
        as_json = msgspec.json.decode(msgspec.json.encode({"format": FORMAT, **plan}))
        yield _read(folder, as_json, dimensions)


def _read(folder: Path, plan: dict[str, Any], dimensions: Sequence[Dimension]) -> Study:
    path = folder / FILE
    for left in folder.glob(f"{FILE}.lock*"):  # Optuna's own, of a process that was killed: nobody else is here
        left.unlink()
    try:
        if path.exists():
            _repair(path)
        storage = JournalStorage(JournalFileBackend(str(path)))
        studies = {one.study_name: one._study_id for one in storage.get_all_studies()}  # noqa: SLF001 - as above
        study_id = studies.get(NAME)
        if study_id is None:
            study_id = storage.create_new_study([StudyDirection.MINIMIZE], NAME)
        attributes = storage.get_study_user_attrs(study_id)
        if "plan" not in attributes:
            storage.set_study_user_attr(study_id, "plan", plan)
        else:
            _check(folder, attributes["plan"], plan)
        return Study(storage, study_id, dimensions)
    except (ValueError, KeyError, TypeError, AssertionError) as error:  # the last is Optuna's, of a line unknown to it
        raise DataError(
            f"study {str(folder)!r} can't be read ({type(error).__name__}: {error})",
            f"choose another --study, or repair {FILE}",
        ) from error


def _repair(path: Path) -> None:
    """Cut off a last line that was not written to its end: nothing that counts ever was in it.

    Raises:
        ValueError: the last whole line is no JSON: Optuna would overlook it and write after it.
    """
    *whole, torn = path.read_bytes().split(b"\n")
    if torn:
        with path.open("r+b") as file:
            file.truncate(file.seek(0, os.SEEK_END) - len(torn))
    if whole:
        msgspec.json.decode(whole[-1])


def _check(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to mix what can't be compared."""
    if before.get("format") != now["format"]:
        raise DataError(
            f"study {str(folder)!r} has format {before.get('format')}, this killick reads {now['format']}",
            "choose another --study, or use the killick that began it",
        )
    for name in now:
        if before.get(name) != now[name]:
            old, new = _differing(before.get(name), now[name])
            raise DataError(
                f"study {str(folder)!r} was begun with {name}{old}, now it is{new}",
                "choose another --study, or call it as it was",
            )


def _differing(old: Any, new: Any) -> tuple[str, str]:
    """What differs in two values of a plan, in words: the first entry, of tables."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in (*new, *old):
            if old.get(key) != new.get(key):
                return f".{key} = {old.get(key)}", f" {new.get(key)}"
    return f" {old}", f" {new}"


def _distribution(one: Dimension) -> BaseDistribution:
    if one.is_range:
        return FloatDistribution(one.low, one.high, log=one.log)
    return CategoricalDistribution(one.choices)


def _kept(number: int, params: dict[str, Any], attributes: Mapping[str, Any], *, ended: bool) -> Kept:
    """A trial as it was stored."""
    kept = Kept(number, dict(params))
    for key, value in attributes.items():
        if key.startswith("run."):
            run = msgspec.convert(value, Run)
            kept.runs[run.split, run.seed] = run
    if ended:
        told = attributes["ended"]
        kept.state, kept.words, kept.value = told["state"], told["words"], told["value"]
    return kept
