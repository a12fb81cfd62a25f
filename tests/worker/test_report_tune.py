"""A tuning's page: its numbers are those of the study, its advice follows from them, and little is enough."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from models.errors import DataError
from tests.worker import tune_samples as samples
from tests.worker.pages import BROWSER, HOSTILE, LIMIT, Read, check_drawn, check_reads_well
from worker.report_tune import page, write_page
from worker.report_tune_words import more_words, outcome, plain_words
from worker.tune_told import Learned

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from worker.tune_told import Tuned


def hostile() -> Tuned:
    """A tuning whose every text wants to be markup."""
    told = samples.told()
    trials = tuple(
        msgspec.structs.replace(
            one,
            words=HOSTILE,
            settings=one.settings | {"training.start": HOSTILE if one.number % 2 else "he"},
            changed=one.changed | {"training.start": HOSTILE},
            runs=tuple(msgspec.structs.replace(run, diagnosis=HOSTILE, words=HOSTILE) for run in one.runs),
        )
        for one in told.trials
    )
    return msgspec.structs.replace(
        told, file=HOSTILE, model=HOSTILE, target=HOSTILE, study=HOSTILE, toml=HOSTILE, trials=trials,
        importance={HOSTILE: 0.5, "training.start": 0.5},
    )  # fmt: skip


MAKERS = [samples.told, samples.one_repeat, samples.as_they_are, samples.nothing, hostile]


@pytest.fixture(scope="module")
def read() -> Read:
    """The page of a study with everything in it."""
    return Read(page(samples.told()))


def runs() -> pd.DataFrame:
    """All runs of complete trials."""
    return pd.DataFrame(
        [
            (one.number, run.split, run.seed, run.mse)
            for one in samples.told().trials if one.state == "complete"
            for run in one.runs
        ],
        columns=["trial", "split", "seed", "mse"],
    )  # fmt: skip


def test_trials_stand_by_their_error_with_the_luck_of_their_seeds(read: Read) -> None:
    """The least mean over splits comes first; error, gain and skill are the study's; what is as good has a sign."""
    told, rows = samples.told(), read.rows("The best trials")
    means = runs().groupby(["trial", "split"])["mse"].mean().groupby("trial").mean().sort_values()
    assert [int(name.split()[0]) for name in rows] == means.index.tolist()
    assert [int(name.split()[0]) for name in rows if "=" in name] == list(told.tied) != []
    for name, found in rows.items():
        one = told.trials[int(name.split()[0])]
        wanted = [means[one.number], one.error, one.deviation, one.gain, one.skill_persistence, one.skill_seasonal]
        assert found[:-2] == pytest.approx([x for x in wanted if x is not None], rel=1e-12)
        assert found[-1] == one.parameters
    assert told.trials[0].gain is None
    assert rows[f"{told.ranking[0]}"][3] == pytest.approx(1 - means.iloc[0] / means[0])


def test_boxes_are_of_the_runs_without_what_their_split_adds(read: Read) -> None:
    """Each box is of the runs less their split's mean over trials; its mean stays that of the trial."""
    drawn = read.data("figures")["boxes"]["data"]
    found = runs()
    level = found.groupby(["split", "trial"])["mse"].mean().groupby("split").mean()
    found["levelled"] = found["mse"] - found["split"].map(level) + level.mean()
    boxes = {int(one["name"].split()[1]): one for one in drawn if one["type"] == "box"}
    assert set(boxes) == set(samples.told().ranking)
    for number, box in boxes.items():
        own = found.loc[found["trial"] == number, "levelled"]
        wanted = own.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
        parts = [box[part][0] for part in ("lowerfence", "q1", "median", "q3", "upperfence")]
        assert parts == pytest.approx(wanted, rel=1e-9)
        assert box["mean"][0] == pytest.approx(samples.told().trials[number].mse)


def test_the_search_is_drawn_in_its_order_with_the_least_so_far(read: Read) -> None:
    """A dot for each scored trial at its number, and a line that never rises and ends at the best."""
    line, dots = read.data("figures")["searched"]["data"][:2]
    scored = [(one.number, one.mse or 0.0) for one in samples.told().trials if one.state == "complete"]
    assert list(zip(dots["x"], dots["y"], strict=True)) == scored
    assert line["y"] == np.minimum.accumulate([mse for _, mse in scored]).tolist()


def test_curves_are_those_of_the_runs(read: Read) -> None:
    """Validation and training of every run from before the first epoch on, and the epoch that was kept."""
    told = samples.told()
    best = told.trials[told.ranking[0]]
    validation, training, kept = read.data("figures")[f"curves{best.number}"]["data"]
    for part, line in (("validation_loss", validation), ("train_loss", training)):
        wanted = [[getattr(one, part) for one in (run.untrained, *run.curve)] + [None] for run in best.runs]
        assert line["y"] == [value for of in wanted for value in of]
    assert kept["x"] == [run.best_epoch for run in best.runs]
    rows = next(rows[1:] for name, rows in read.tables.items() if name == "Trainings of these configurations")
    assert [row[3] for row in rows[: len(best.runs)]] == [[run.diagnosis] for run in best.runs]
    assert [row[7][0] for row in rows[: len(best.runs)]] == [run.mse for run in best.runs]
    assert best.runs[0].words in read.text


def test_losses_that_are_no_numbers_leave_gaps() -> None:
    """A run that exploded is drawn as far as it went."""
    told = samples.told()
    gone = msgspec.structs.replace(
        told.trials[0].runs[0], curve=(Learned(train_loss=None, validation_loss=None),), best_epoch=0
    )
    first = msgspec.structs.replace(told.trials[0], runs=(gone, *told.trials[0].runs[1:]))
    figures = Read(page(msgspec.structs.replace(told, trials=(first, *told.trials[1:])))).data("figures")
    assert figures["curves0"]["data"][0]["y"][:3] == [gone.untrained.validation_loss, None, None]
    assert len(figures["curves0"]["data"][2]["x"]) == len(first.runs) - 1


def test_the_check_and_its_standard_errors_are_the_studys(read: Read) -> None:
    """Means and deviations of both, and the error of the mean by number of repeats beside theory."""
    check = samples.told().check
    assert check is not None
    rows = read.rows("Runs of the check")
    for name, found in (("the settings as they are", check.first), (list(rows)[1], check.best)):
        own = pd.Series([run.mse for run in found], dtype=float)
        assert rows[name] == pytest.approx([len(own), own.mean(), own.std()], rel=1e-12)
    errors = read.rows("Standard error of the best one's mean in the check")
    assert list(errors) == [f"{at}" for at in range(1, samples.CHECKED + 1)]
    drawn, theory = read.data("figures")["standard_error"]["data"]
    own = pd.Series([run.mse for run in check.best], dtype=float)
    assert theory["y"] == pytest.approx([own.std() / at**0.5 for at in range(1, samples.CHECKED + 1)])
    assert drawn["y"] == [row[0] for row in errors.values()]


def test_values_of_a_setting_are_beside_their_errors(read: Read) -> None:
    """For the setting that matters most every complete trial is a dot over its value."""
    told = samples.told()
    (dots,) = read.data("figures")["value0"]["data"]
    axis = read.data("figures")["value0"]["layout"]["xaxis"]
    assert axis["ticktext"] == ["6", "12", "20", "22", "24"]
    found = {(axis["ticktext"][x], y) for x, y in zip(dots["x"], dots["y"], strict=True)}
    assert found == {(f"{told.trials[n].settings['network.lags']}", told.trials[n].mse) for n in told.ranking}
    bars = read.data("figures")["importance"]["data"][0]
    assert dict(zip(bars["y"], bars["x"], strict=True)) == {key: 100 * x for key, x in told.importance.items()}


def test_a_setting_of_any_number_has_an_axis_of_numbers() -> None:
    """Many drawn numbers stand at their size, by powers of ten where they span as much."""
    told = samples.told()
    trials = tuple(
        msgspec.structs.replace(one, settings=one.settings | {"training.rate": 10 ** (-4 + one.number / 5)})
        for one in told.trials
    )
    figures = Read(page(msgspec.structs.replace(told, trials=trials))).data("figures")
    figure = next(figures[name] for name in figures if figures[name]["layout"]["xaxis"].get("type") == "log")
    assert figure["data"][0]["x"] == [10 ** (-4 + number / 5) for number in told.ranking]


def test_what_to_paste_stands_line_by_line(read: Read) -> None:
    """The TOML is whole, and beside it each setting as it is, as the best has it, and as the cheapest like it has."""
    told = samples.told()
    pasted = page(told).split("<pre>")[1].split("</pre>")[0]
    assert re.sub("<[^>]*>", "", pasted).strip() == told.toml.strip()
    (rows,) = (rows[1:] for name, rows in read.tables.items() if name == "What it changes")
    best, cheap = told.trials[told.ranking[0]], told.trials[told.cheapest or 0]
    assert best is not cheap
    assert [row[0][0] for row in rows] == list(best.changed)
    assert [row[2][0] for row in rows] == [f"{value}" for value in best.changed.values()]
    assert [row[3][0] for row in rows] == [f"{cheap.settings[key]}" for key in best.changed]


def test_splits_are_dates_with_their_errors(read: Read) -> None:
    """Where each is cut, and what the settings as they are, the best and the references came to there."""
    rows, found = read.rows("Splits, with errors"), runs()
    for at, split in enumerate(samples.told().splits):
        own = found[found["split"] == at].groupby("trial")["mse"].mean()
        wanted = [split.pairs, own[0], own[samples.told().ranking[0]], split.persistence, split.seasonal]
        assert rows[f"{at + 1}"] == pytest.approx(wanted, rel=1e-12)
    stamp = pd.Timestamp(samples.told().splits[0].end_ms, unit="ms").strftime("%Y-%m-%d %H:%M UTC")
    assert stamp in read.text


def test_every_trial_is_listed_with_how_it_ended(read: Read) -> None:
    """What exploded is said to have, and why; the number of trainings counts all of them."""
    (rows,) = (rows[1:] for name, rows in read.tables.items() if name == "Trials by number")
    told = samples.told()
    assert len(rows) == len(told.trials)
    exploded = next(one for one in told.trials if one.state == "exploded")
    assert rows[exploded.number][1][0] == "exploded"
    assert exploded.words in read.text
    assert told.trainings == sum(len(one.runs) for one in told.trials) + 2 * samples.CHECKED
    assert samples.as_they_are().trainings == len(told.trials[0].runs) + samples.CHECKED


def test_many_changes_are_folded_behind_those_that_matter() -> None:
    """Of a trial that changes a lot the settings with most importance stand open, and the rest is one click away."""
    told = samples.told()
    changed = {f"training.other{at}": at for at in range(9)} | {"network.lags": 24}
    trials = tuple(msgspec.structs.replace(one, changed=changed) for one in told.trials)
    read = Read(page(msgspec.structs.replace(told, trials=trials)))
    (_, row, *_) = next(rows for name, rows in read.tables.items() if name == "The best trials")
    assert row[1] == ["network.lags = 24, training.other0 = 0, training.other1 = 1"]
    assert read.text.count("and 7 more") == len(told.ranking) + len(told.trials)
    assert "training.other2 = 2, training.other3 = 3" in read.text


def checked(**changed: Any) -> Tuned:
    """A study whose check came to something else."""
    check = samples.told().check
    assert check is not None
    return msgspec.structs.replace(samples.told(), check=msgspec.structs.replace(check, **changed))


@pytest.mark.parametrize(
    ("make", "words", "wanted"),
    [
        (samples.told, "better settings found", "Paste what follows: it is better on the span that the search"),
        (lambda: checked(gain=0.01, gain_interval=(-0.01, 0.03)), "may be luck", "the difference is within luck"),
        (lambda: checked(gain=-0.01, gain_interval=(-0.03, 0.01)), "keep the settings", "they are not beaten"),
        (lambda: checked(skill_persistence=-0.1), "not worth a network", "No better than persistence"),
        (samples.one_repeat, "not tested", "nothing says how much of it is luck"),
        (samples.as_they_are, "keep the settings", "Keep the settings as they are: none of the others is better."),
        (samples.nothing, "nothing to use", "Nothing was found that could be used."),
    ],
)
def test_the_advice_follows_from_the_check(make: Callable[[], Tuned], words: str, wanted: str) -> None:
    """Better only where the interval leaves zero out; few words and the sentence say the same, before all else."""
    told = make()
    assert outcome(told).words == words
    assert wanted in plain_words(told)
    text = Read(page(told)).text
    assert text.index(words) < text.index(plain_words(told)) < text.index("How this was measured")


def test_what_a_search_without_a_check_says_is_doubted() -> None:
    """A gain on the spans that chose is said to be flattered; with a check that is not said."""
    assert any("flattered by the choice" in words for words in more_words(samples.one_repeat()))
    assert not any("flattered by the choice" in words for words in more_words(samples.told()))
    assert any("ask for --repeats 3" in words for words in more_words(samples.one_repeat()))


def test_a_page_of_hundreds_of_trials_stays_small() -> None:
    """Of a long study all trials are listed, twenty ranked, and a dozen boxed, trial 0 always among them."""
    told = samples.told()
    worst = told.trials[told.ranking[-1]]
    many = tuple(msgspec.structs.replace(worst, number=at, mse=1.0 + at / 1e3) for at in range(1, 400))
    first = msgspec.structs.replace(told.trials[0], mse=2.0)
    told = msgspec.structs.replace(
        told, trials=(first, *many), ranking=(*range(1, 400), 0), tied=(), cheapest=1, check=None, wanted=400
    )
    text = page(told)
    assert len(text.encode()) < LIMIT
    read = Read(text)
    assert len(read.tables["Trials by number"]) == 1 + 400
    assert len(read.rows("The best trials")) == 20 + 1
    labels = read.data("figures")["boxes"]["layout"]["xaxis"]["ticktext"]
    assert (len(labels), labels[-1]) == (13, "0")


@pytest.mark.parametrize("make", MAKERS)
def test_a_page_loads_nothing_and_says_no_programmers_words(make: Callable[[], Tuned]) -> None:
    """Whatever is missing: figures are plotly's, nothing is loaded, and no None, nan or inf is read."""
    check_reads_well(page(make()))


def test_hostile_words_stay_words() -> None:
    """Files, settings and diagnoses can neither end an element nor begin one."""
    text = page(hostile())
    read, friendly = Read(text), Read(page(samples.told()))
    assert {tag for tag, _ in read.tags} == {tag for tag, _ in friendly.tags}
    assert len(read.scripts) == len(friendly.scripts)
    assert "\u202e" not in text
    assert "\x1b" not in text
    shown = str(read.data("figures"))
    assert "&lt;/script&gt;" in shown
    assert "<img" not in shown


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium to look with")
@pytest.mark.parametrize("make", [samples.told, samples.one_repeat, hostile])
def test_a_browser_without_a_network_draws_every_picture(make: Callable[[], Tuned], tmp_path: Path) -> None:
    """All figures are drawn under the page's own policy, and nothing is refused, missed or run that should not be."""
    check_drawn(page(make()), tmp_path)


def test_the_page_is_written_or_the_place_named(tmp_path: Path) -> None:
    """The file holds the page; where it can't be written the error says which and what to do."""
    path = tmp_path / "tuning.html"
    write_page(path, samples.nothing())
    assert path.read_text(encoding="utf-8") == page(samples.nothing())
    with pytest.raises(DataError, match=r"gone.*choose another --report"):
        write_page(tmp_path / "gone" / "tuning.html", samples.nothing())
