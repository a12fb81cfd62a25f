"""The search: what is trained is what `killick fit` trains, what it decides, and that a kill changes nothing."""

from __future__ import annotations

import io
import tomllib
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

from models.errors import DataError
from models.sequences import Spans
from tests.streams import AtOnce
from tests.worker.tuning import SETTINGS, at_once, searched, searching, settings_of, timeless, wanted_of, waves
from worker.cli_history import plan_of
from worker.executors import PROCESSES, TrainingError, trainings
from worker.fit import fit
from worker.tune import OPEN
from worker.tune_figures import mean_of
from worker.tune_ground import splits_of
from worker.tune_space import text
from worker.tune_summary import About, tuned
from worker.tune_task import learn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.tune_told import Tuned


TRIALS = OPEN + 1  # the last one knows what came of the first


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A study that nothing disturbed."""
    folder = tmp_path_factory.mktemp("plain")
    return searched(folder / "study", settings_of(folder), wanted_of(trials=TRIALS, check=2, prune=True))


def test_every_trial_has_each_training_once(plain: Tuned) -> None:
    """Trial 0 is the settings as they are; each complete one has every split with every seed, the same for all."""
    assert plain.trials[0].changed == {}
    assert [one.number for one in plain.trials] == list(range(TRIALS))
    complete = [one for one in plain.trials if one.state == "complete"]
    assert len(complete) >= 2
    for one in complete:
        assert [(run.seed, run.split) for run in one.runs] == [(1, 0), (1, 1), (2, 0), (2, 1)]
        assert one.mse == mean_of(one.runs)
        assert all(run.curve and run.diagnosis and run.words for run in one.runs)
    assert len({str(one.settings) for one in plain.trials}) == TRIALS
    assert plain.ranking[0] == min(complete, key=lambda one: one.mse or 0.0).number


def test_the_check_is_the_very_fit_that_follows(plain: Tuned, tmp_path: Path) -> None:
    """The best settings pasted, `killick fit` on the same data reports the error of the check's first training."""
    assert plain.check is not None
    assert plain.toml
    pasted, best = tomllib.loads(SETTINGS), tomllib.loads(plain.toml)
    merged = {section: values | best.get(section, {}) for section, values in pasted.items()}
    lines = [
        line
        for section, values in merged.items()
        for line in (f"[{section}]", *(f"{name} = {text(value)}" for name, value in values.items()))
    ]
    settings = settings_of(tmp_path, "\n".join(lines))
    found = fit(waves(), plan_of(settings), Console(file=io.StringIO()), io.StringIO())
    assert float(np.mean(found.skill.version.mse)) == plain.check.best[0].mse
    assert tuple(found.skill.version.mse.tolist()) == plain.check.best[0].leads
    assert found.outcome.words == plain.check.best[0].words


def test_processes_give_the_same_study_as_one(plain: Tuned, tmp_path: Path) -> None:
    """Trainings side by side, in whatever order they end, change no trial, no decision and no bit."""
    wanted = wanted_of(trials=TRIALS, check=2, prune=True)
    with searching(tmp_path / "study", settings_of(tmp_path), wanted) as (search, study, ground):
        search.run(lambda: trainings(PROCESSES, 3), 3)
        found = tuned(study, ground, wanted, About("waves.csv", 3, ""))
    assert timeless(found) == timeless(plain)


class Killed(BaseException):
    """Stands for a kill: nothing that follows is done."""


@pytest.mark.parametrize("after", [0, 7, 25, 99])
def test_a_study_that_was_cut_off_goes_on_to_the_same_end(plain: Tuned, tmp_path: Path, after: int) -> None:
    """Cut off after so many trainings and begun again, it trains what is missing and comes to the same."""
    wanted, settings = wanted_of(trials=TRIALS, check=2, prune=True), settings_of(tmp_path)

    class Cut(AtOnce):
        left = after

        def submit(self, work: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
            if not self.left:
                raise Killed
            Cut.left -= 1
            return super().submit(work, *arguments, **options)

    @contextmanager
    def cut() -> Iterator[Executor]:
        yield Cut()

    with searching(tmp_path / "study", settings, wanted) as (search, _, _):
        try:
            search.run(cut, 1)
        except Killed:
            ended = False
        else:
            ended = True
    trained = after - Cut.left
    counted = Counting()
    with searching(tmp_path / "study", settings, wanted) as (search, study, ground):
        search.run(counted.pool, 1)
        found = tuned(study, ground, wanted, About("waves.csv", 1, ""))
    assert timeless(found) == timeless(plain)
    every = sum(len(one.runs) for one in plain.trials) + 4
    assert trained + counted.submitted == every
    assert ended == (after >= every)


class Counting:
    """Counts what an executor in this process is given."""

    def __init__(self) -> None:
        self.submitted = 0

    @contextmanager
    def pool(self) -> Iterator[Executor]:
        """The executor."""
        outer = self

        class Counted(AtOnce):
            def submit(self, work: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
                outer.submitted += 1
                return super().submit(work, *arguments, **options)

        yield Counted()


def test_an_ended_study_trains_nothing_and_a_longer_one_what_is_new(tmp_path: Path) -> None:
    """Called again it only reports; asked for one trial more, it trains that, and the first ones stay."""
    settings = settings_of(tmp_path)
    first = searched(tmp_path / "study", settings, wanted_of(trials=2))
    counted = Counting()
    for trials, trained in ((2, 0), (3, 4)):
        wanted = wanted_of(trials=trials)
        with searching(tmp_path / "study", settings, wanted) as (search, study, ground):
            search.run(counted.pool, 1)
            found = tuned(study, ground, wanted, About("waves.csv", 1, ""))
        assert counted.submitted == trained
        assert found.trials[:2] == tuple(
            replace_share(one, found.trials[one.number].best_share) for one in first.trials
        )


def replace_share(one: Any, share: float | None) -> Any:
    """The trial with another chance of being the best: that depends on all others."""
    import msgspec

    return msgspec.structs.replace(one, best_share=share)


def test_what_comes_after_a_split_changes_nothing_in_it(tmp_path: Path) -> None:
    """With garbage behind the evaluation span every figure of the training is the same, bit for bit."""
    with searching(tmp_path / "study", settings_of(tmp_path), wanted_of()) as (_, _, ground):
        plan, spans = plan_of(ground.settings), ground.splits[0]
        block = ground.block
    behind = block.step >= int(block.step.min()) + spans.end
    assert behind.any()
    garbage = replace(block, values=np.where(behind[:, None], -1e6, block.values))
    first, again = learn(block, plan, spans, 0), learn(garbage, plan, spans, 0)
    assert replace_seconds(first) == replace_seconds(again)
    within = (block.step >= int(block.step.min()) + spans.validation_end) & ~behind
    other = learn(replace(block, values=np.where(within[:, None], -1e6, block.values)), plan, spans, 0)
    assert other.curve == first.curve
    assert other.mse != first.mse


def replace_seconds(run: Any) -> Any:
    """The run without what the clock says."""
    import msgspec

    return msgspec.structs.replace(run, seconds=0.0)


def test_what_is_far_worse_is_given_up_early(tmp_path: Path) -> None:
    """A rate that learns nothing is given up after its first repeat, when a better one is known."""
    settings = settings_of(tmp_path)
    vary = ("training.rate=0.01,1e-8,2e-8,3e-8,4e-8,5e-8,6e-8,7e-8,8e-8",)
    pruned = searched(tmp_path / "pruned", settings, wanted_of(trials=OPEN + 2, repeats=3, prune=True), vary)
    given_up = [one for one in pruned.trials if one.state == "pruned"]
    assert [one.number for one in given_up] == [OPEN, OPEN + 1]
    assert all(len(one.runs) == 2 for one in given_up)
    assert "given up after 1 of 3 repeats" in given_up[0].words
    assert "above trial 0" in given_up[0].words
    assert pruned.ranking[0] == 0
    assert pruned.toml == ""


def test_a_training_that_explodes_ends_its_trial_alone(tmp_path: Path) -> None:
    """Its curve is kept with what went wrong; the trial is out, the search goes on."""
    content = SETTINGS + 'optimiser = "sgd"\nloss = "mse"\nclip_norm = 100000.0\nl2 = 1.0\n'
    found = searched(tmp_path / "study", settings_of(tmp_path, content), wanted_of(), ("training.rate=0.01,1.0",))
    exploded = [one for one in found.trials if one.state == "exploded"]
    assert [one.number for one in exploded] == [1]
    assert "exploded" in exploded[0].words
    assert any(run.mse is None and run.diagnosis == "exploded" for run in exploded[0].runs)
    assert exploded[0].number not in found.ranking
    assert found.trials[0].state == "complete"


def test_what_can_not_be_trained_on_this_data_is_refused_alone(tmp_path: Path) -> None:
    """A burn-in longer than the history holds no label: the trial says so, the search goes on."""
    found = searched(tmp_path / "study", settings_of(tmp_path), wanted_of(trials=2), ("training.burn_in_chunks=1,60",))
    assert [one.state for one in found.trials] == ["complete", "refused"]
    assert "hold no label to train on" in found.trials[1].words
    assert found.ranking == (0,)


def test_settings_that_can_not_be_trained_end_the_search(tmp_path: Path) -> None:
    """Trial 0 is what all are compared with: what is wrong with it is the user's to know."""
    settings = settings_of(tmp_path, SETTINGS + "burn_in_chunks = 60\n")
    with pytest.raises(DataError, match="hold no label to train on"):
        searched(tmp_path / "study", settings, wanted_of())


def test_a_small_space_is_tried_once_and_no_more(tmp_path: Path) -> None:
    """When nothing new is left the search ends, however many trials were asked for."""
    with searching(tmp_path / "study", settings_of(tmp_path), wanted_of(trials=50), ("network.calendar",)) as (
        search,
        study,
        _,
    ):
        search.run(at_once, 1)
        assert [one.params for one in study.trials] == [{"network.calendar": "true"}, {"network.calendar": "false"}]
        assert search.exhausted


def test_enough_is_enough(tmp_path: Path) -> None:
    """When time is up no trial begins, those under way are ended, and the check is made."""
    wanted = wanted_of(trials=50, check=1)
    with searching(tmp_path / "study", settings_of(tmp_path), wanted) as (search, study, ground):
        search._enough = lambda: len(study.trials) >= 2
        search.run(at_once, 1)
        found = tuned(study, ground, wanted, About("waves.csv", 1, ""))
    assert [one.state for one in found.trials] == ["complete", "complete"]
    assert found.check is not None


class Dying(AtOnce):
    """A pool whose processes die when they train with this rate, and take all that is under way with them."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.broken = False

    def submit(self, work: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        """The outcome; a future that fails, where the pool is broken."""
        self.broken |= arguments[1].training.rate == self.rate
        if not self.broken:
            return super().submit(work, *arguments, **options)
        future: Future[Any] = Future()
        future.set_exception(BrokenExecutor("a process died"))
        return future


def test_a_training_that_kills_its_process_is_found_and_refused(tmp_path: Path) -> None:
    """All that were under way run again one by one; the one that kills is refused, the others are complete."""
    wanted = wanted_of(trials=3)

    @contextmanager
    def pool() -> Iterator[Executor]:
        yield Dying(0.002)

    with searching(tmp_path / "study", settings_of(tmp_path), wanted, ("training.rate=0.002,0.003",)) as (
        search,
        study,
        _,
    ):
        search.run(pool, 4)
        ends = {one.params["training.rate"]: (one.state, one.words) for one in study.trials}
    assert ends["0.002"] == ("refused", "the process that trained it died: was there too little memory?")
    assert {state for rate, (state, _) in ends.items() if rate != "0.002"} == {"complete"}


def test_a_search_whose_first_training_kills_its_process_ends(tmp_path: Path) -> None:
    """The settings as they are can't be refused."""

    @contextmanager
    def pool() -> Iterator[Executor]:
        yield Dying(0.01)

    with (
        searching(tmp_path / "study", settings_of(tmp_path), wanted_of()) as (search, _, _),
        pytest.raises(TrainingError, match="trial 0 died"),
    ):
        search.run(pool, 2)


def test_splits_follow_each_other_and_train_on_all_before() -> None:
    """Evaluation spans of one length, without a gap, up to the span held out; validation as in a fit."""
    held = Spans(700, 850, 1000)
    found = splits_of(held, 3, horizon=5)
    assert [spans.end for spans in found] == [510, 680, 850]
    assert [spans.validation_end for spans in found] == [340, 510, 680]
    for spans in found:
        assert spans.train_end / spans.validation_end == pytest.approx(700 / 850, abs=0.002)
    with pytest.raises(DataError, match="the validation span of split 1 of 3 has 60 steps, at least 63"):
        splits_of(held, 3, horizon=21)


def test_the_splits_lie_before_what_a_fit_holds_out(plain: Tuned) -> None:
    """The check's span begins where the last split ends: the search never sees it."""
    assert plain.check is not None
    assert plain.splits[-1].end_ms == plain.check.split.validation_ms
    assert plain.check.split.end_ms == plain.end_ms
