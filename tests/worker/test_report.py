"""A verdict's page: its numbers are the verdict's, hostile words stay words, it loads nothing, little is enough."""

from __future__ import annotations

import io
import json
import math
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd
import pytest
from rich.console import Console

from models.audit import AuditEntry
from models.strategies import CONTROL
from models.verdict import Epoch, Judged, Series, Verdict
from tests.worker import verdict_samples as samples
from tests.worker.pages import BROWSER, HOSTILE, LIMIT, Read, check_drawn, check_figures, check_loads_nothing
from worker.report import encoded, page
from worker.report_figures import by_lead, curves, sensitivity
from worker.report_picked import best, finalist, finalists, foremost
from worker.report_words import concerned, next_steps, plain_words, since_words, verdict_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAMPLES = [samples.promoted, samples.lonely, samples.rejected, samples.failed]


def hostile() -> Verdict:
    """A verdict whose every text wants to be markup."""
    verdict = samples.promoted()
    attempts = tuple(
        msgspec.structs.replace(one, strategy=HOSTILE, diagnosis=HOSTILE, words=HOSTILE) for one in verdict.attempts
    )
    names = {"update-on-all": HOSTILE}
    return msgspec.structs.replace(
        verdict, why=HOSTILE, goal=HOSTILE, trigger=HOSTILE, sentence=HOSTILE, model=HOSTILE, id=HOSTILE, unit=HOSTILE,
        requests=(HOSTILE,), notes=(HOSTILE,), chosen=HOSTILE, attempts=attempts,
        judged=tuple(msgspec.structs.replace(one, name=names.get(one.name, one.name)) for one in verdict.judged),
        compared=tuple(msgspec.structs.replace(one, name=names.get(one.name, one.name)) for one in verdict.compared),
    )  # fmt: skip


@pytest.fixture(scope="module")
def promoted() -> tuple[Verdict, Read]:
    """A verdict with everything in it, and its page."""
    verdict = samples.promoted()
    return verdict, Read(page(verdict, samples.audit(verdict)))


def test_every_contender_stands_with_its_own_numbers(promoted: tuple[Verdict, Read]) -> None:
    """Skill, errors, difference with its ends, statistic and p-values of each are the verdict's, to the last digit."""
    verdict, read = promoted
    rows = read.rows("Contenders over the evaluation span")
    held = {one.name: one for one in verdict.compared}
    assert list(rows) == [one.name for one in verdict.judged]
    for one in verdict.judged:
        wanted = [one.skill, one.mse, one.mae]
        if one.name in held:
            c = held[one.name]
            wanted += [c.difference, c.low, c.high, c.statistic, c.p_value, c.p_holm]
        assert rows[one.name] == [value for value in wanted if value is not None]


def test_spread_over_repeats_is_that_of_pandas(promoted: tuple[Verdict, Read]) -> None:
    """Count, mean and percentiles in the table are those of the repeats, and the boxes are drawn from the same."""
    verdict, read = promoted
    rows, drawn = read.rows("Error (scaled MSE) of the same training"), read.data("figures")["boxes"]["data"]
    boxes = {one["name"]: one for one in drawn if one["type"] == "box"}
    assert len(rows) == len(boxes) == 4
    for one in (one for one in verdict.judged if one.name in rows):
        repeats = pd.Series(one.repeats)
        wanted = repeats.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
        assert rows[one.name] == pytest.approx([5, repeats.mean(), *wanted], rel=1e-12)
        box = boxes[one.name]
        found = [box[part][0] for part in ("lowerfence", "q1", "median", "q3", "upperfence")]
        assert found == pytest.approx(wanted, rel=1e-12)
        assert box["mean"] == [pytest.approx(repeats.mean())]


def test_lines_of_the_boxes_are_incumbent_control_and_references(promoted: tuple[Verdict, Read]) -> None:
    """Each is a line at its own error; one far away is said to be so, and does not squeeze the boxes."""
    verdict, read = promoted
    figure = read.data("figures")["boxes"]
    lines = {one["name"].split()[0]: one for one in figure["data"] if one.get("mode") == "lines"}
    errors = {one.name: one.mse for one in verdict.judged}
    errors["control"] = errors.pop(CONTROL)
    for name in ("incumbent", "control", "persistence", "seasonal"):
        assert lines[name]["y"] == [errors[name]] * 2
    low, high = figure["layout"]["yaxis"]["range"]
    assert low < min(errors.values()) < errors["incumbent"] < high < errors["persistence"]
    assert lines["persistence"]["name"].endswith("above this")
    assert lines["incumbent"]["name"] == "incumbent"


def test_skill_by_lead_is_against_persistence_at_that_lead(promoted: tuple[Verdict, Read]) -> None:
    """Table and lines hold 1 - MSE / MSE(persistence) of each lead."""
    verdict, read = promoted
    errors = {one.name: one.by_lead for one in verdict.judged}
    shown = [name for name in errors if name != "persistence"]
    rows = read.rows("Skill against persistence by lead")
    lines = {one["name"]: one for one in read.data("figures")["by_lead"]["data"]}
    assert list(lines) == ["control" if name == CONTROL else name for name in shown]
    lines[CONTROL] = lines["control"]
    for at, lead in enumerate(verdict.leads):
        wanted = [1 - errors[name][at] / errors["persistence"][at] for name in shown]  # type: ignore[operator]
        assert rows[str(lead)] == pytest.approx(wanted, rel=1e-12)
        assert [lines[name]["y"][at] for name in shown] == pytest.approx(wanted, rel=1e-12)


def test_a_lead_without_a_pair_has_no_skill() -> None:
    """None and zero errors of the reference make a gap, not a number."""
    verdict = samples.promoted()
    contenders = [
        Judged(name="incumbent", mse=1.0, mae=1.0, skill=0.5, by_lead=(0.5, None, 0.5)),
        Judged(name="persistence", mse=1.0, mae=1.0, skill=0.0, by_lead=(1.0, 1.0, 0.0)),
    ]
    few = msgspec.structs.replace(verdict, leads=(1, 2, 3), judged=tuple(contenders), compared=(), chosen=None)
    figure = by_lead(few)
    assert figure is not None
    assert figure["data"][0]["y"] == [0.5, None, None]
    assert Read(page(few)).rows("Skill against persistence by lead") == {"1": [0.5], "2": [], "3": []}


def test_the_difference_over_time_is_drawn_at_its_times(promoted: tuple[Verdict, Read]) -> None:
    """Line and band are the verdict's series at the time of each step; the table has the same."""
    verdict, read = promoted
    series, figure = verdict.over_time, read.data("figures")["over_time"]
    assert series is not None
    low, high, line = figure["data"]
    assert (line["y"], low["y"], high["y"]) == (list(series.difference), list(series.low), list(series.high))
    times = pd.to_datetime(pd.Series(series.step) * verdict.interval_ms, unit="ms")
    assert pd.to_datetime(pd.Series(line["x"])).tolist() == times.tolist()
    assert figure["layout"]["yaxis"]["zeroline"] is True
    rows = read.rows("Loss difference over time")
    assert rows[times.iloc[3].strftime("%Y-%m-%d %H:%M")] == [series.difference[3], series.low[3], series.high[3]]
    assert len(rows) == len(series.step)


def test_every_attempt_is_listed(promoted: tuple[Verdict, Read]) -> None:
    """Rate, seed, validation error, steps and time of each, in order; one that exploded has no error."""
    verdict, read = promoted
    (table,) = (rows[1:] for name, rows in read.tables.items() if "the finalist of its strategy" in name)
    assert len(table) == len(verdict.attempts)
    for row, one in zip(table, verdict.attempts, strict=True):
        wanted = [one.rate, float(one.seed), one.validation_mse, float(one.gradient_steps), one.seconds]
        assert [x for cell in row for x in cell if isinstance(x, float)] == [x for x in wanted if x is not None]
        assert row[0] == [one.strategy]
        assert row[1] == [one.outcome]
    starred = [one for row, one in zip(table, verdict.attempts, strict=True) if "★" in str(row[2])]
    for strategy in dict.fromkeys(one.strategy for one in verdict.attempts):
        (chosen,) = (one for one in starred if one.strategy == strategy)
        like = [
            one for one in verdict.attempts
            if (one.strategy, one.rate, one.recent_steps) == (strategy, chosen.rate, chosen.recent_steps)
        ]  # fmt: skip
        assert chosen.validation_mse == min(one.validation_mse or math.inf for one in like)


def test_the_finalist_may_be_a_repeat_of_the_best() -> None:
    """The map marks the grid's best cell; the strong curve is of the best seed among the trainings of that cell."""
    verdict = samples.promoted()
    of_strategy = [one for one in verdict.attempts if one.strategy == "new-on-all"]
    cell = best(verdict, "new-on-all")
    assert cell is not None
    assert cell.seed == 1
    lucky = msgspec.structs.replace(cell, seed=99, validation_mse=0.1)
    elsewhere = msgspec.structs.replace(cell, seed=99, rate=0.5, validation_mse=0.01)
    more = msgspec.structs.replace(verdict, attempts=(*of_strategy, lucky, elsewhere))
    assert best(more, "new-on-all") is cell
    assert finalist(more, "new-on-all") is lucky


def test_the_map_holds_the_grid_and_marks_its_best(promoted: tuple[Verdict, Read]) -> None:
    """Each cell is the validation error at that rate and amount; exploded is said; one star a strategy."""
    verdict, read = promoted
    figure = read.data("figures")["amounts0"]["data"][0]
    assert figure["x"] == ["0.0001", "0.0005", "0.002"]
    assert figure["y"] == ["7 d", "30 d", "all"]
    cells = {(one.recent_steps, one.rate): one for one in verdict.attempts[:9]}
    wanted = [[cells[recent, rate].validation_mse for rate in samples.RATES] for recent in samples.RECENTS]
    assert figure["z"] == wanted
    assert figure["text"][0][2] == "exploded"
    least = min(value for row in wanted for value in row if value is not None)
    starred = [
        value for row, words in zip(wanted, figure["text"], strict=True)
        for value, word in zip(row, words, strict=True) if "★" in word
    ]  # fmt: skip
    assert starred == [least]
    assert sensitivity(samples.lonely(), "update-on-new") is None  # of one cell there is nothing to say


def test_summary_and_steps_say_the_decision_in_numbers(promoted: tuple[Verdict, Read]) -> None:
    """Skill before and after, the difference, p and the effect come before everything else; the five steps follow."""
    verdict, read = promoted
    text = re.sub(r"\s+", " ", read.text)
    head = text[: text.index("The five steps")]
    for words in (verdict.sentence, "+0.338 → +0.439", "after Holm over 4 finalists", "1,240 EUR", "saved a day"):
        assert words in re.sub(r"\s*→\s*", " → ", head)
    assert head.index("promote") < head.index(verdict.sentence) < head.index("What was to happen next")
    steps = next(rows for name, rows in read.tables.items() if name.startswith("What each step"))
    assert [row[0][0] for row in steps[1:]] == [
        "1. Collect new data",
        "2. Evaluate the existing model", "3. Develop updated models", "4. Compare", "5. Replace",
    ]  # fmt: skip
    assert "was promoted by gate" in str(steps[5][1])
    assert f"{len(verdict.attempts)} trainings by 4 strategies and the control" in str(steps[3][1])


def test_spans_are_dates(promoted: tuple[Verdict, Read]) -> None:
    """Where each span begins and what it ends before, with its length."""
    verdict, read = promoted
    rows = next(rows for name, rows in read.tables.items() if name.startswith("Spans"))
    cuts = verdict.cuts
    assert cuts is not None
    stamp = pd.Timestamp(cuts.evaluation_begin * verdict.interval_ms, unit="ms").strftime("%Y-%m-%d %H:%M")
    assert rows[4][:3] == [["evaluation"], ["is what the verdict rests on, used once"], [stamp]]
    assert rows[4][4:] == [[cuts.end - cuts.evaluation_begin], ["18.5 d"]]


@pytest.mark.parametrize("make", SAMPLES)
def test_figures_are_figures_of_plotly(make: Callable[[], Verdict]) -> None:
    """Every property of every figure is known to plotly; each place has its figure, and says what it shows."""
    check_figures(Read(page(make())))


@pytest.mark.parametrize("make", SAMPLES)
def test_a_page_loads_nothing_and_runs_only_what_is_in_it(make: Callable[[], Verdict]) -> None:
    """No element names another file; the policy allows nothing but the page's own scripts, by digest."""
    check_loads_nothing(page(make()))


@pytest.mark.parametrize("make", [*SAMPLES, hostile])
def test_json_is_the_verdict_again(make: Callable[[], Verdict]) -> None:
    """Nothing is lost on the way, and nothing is added."""
    verdict = make()
    assert msgspec.json.decode(encoded(verdict), type=Verdict) == verdict


def test_a_page_of_hundreds_of_trainings_stays_small() -> None:
    """Of the largest grid all trainings are listed, and some forty of each strategy drawn; the finalist always is."""
    verdict = samples.promoted()
    one = next(one for one in verdict.attempts if one.strategy == "new-on-all")
    epochs = tuple(Epoch(epoch=at + 1, train_loss=0.1 + at / 7, validation_loss=0.2 + at / 9) for at in range(60))
    many = tuple(
        msgspec.structs.replace(one, strategy=strategy, rate=at / 1e6, validation_mse=0.3 + at / 11, curve=epochs)
        for strategy in samples.STRATEGIES
        for at in range(150, 0, -1)
    )
    verdict = msgspec.structs.replace(verdict, attempts=many)
    text = page(verdict)
    assert len(text.encode()) < LIMIT
    (table,) = (rows for name, rows in Read(text).tables.items() if "the finalist of its strategy" in name)
    assert len(table) == 1 + 600
    figure = curves(verdict, "new-on-all")
    assert figure is not None
    faint, strong = figure["data"][:2]
    assert (faint["name"], strong["name"]) == ("others: validation", "finalist: validation")
    assert 30 <= sum(x is None for x in faint["x"]) <= 40
    assert strong["y"] == [epoch.validation_loss for epoch in epochs]


@pytest.mark.parametrize("make", SAMPLES)
def test_little_is_enough_for_a_page(make: Callable[[], Verdict]) -> None:
    """Whatever is missing, the decision and what happens next are there, and nothing that only a program says."""
    verdict = make()
    text = re.sub(r"\s+", " ", Read(page(verdict)).text)
    for words in (verdict.outcome, verdict.sentence, "What happens next", "The five steps", *verdict.notes):
        assert words in text
    assert not re.search(r"\b(None|nan|inf|null|undefined)\b", text)
    goes_on = f"version {verdict.incumbent} goes on answering"
    assert goes_on in text


def test_hostile_words_stay_words() -> None:
    """Names, reasons and actors can neither end an element nor begin one, in the page, its data and its pictures."""
    verdict = hostile()
    entry = AuditEntry(
        id="1-0", time_ms=1, event=HOSTILE, version=8, before=None, after=None, actor=HOSTILE, reason=HOSTILE,
        generation=1,
    )  # fmt: skip
    text = page(verdict, [entry])
    read, friendly = Read(text), Read(page(samples.promoted()))
    assert {tag for tag, _ in read.tags} <= {tag for tag, _ in friendly.tags} | {"ul", "li"}
    assert len(read.scripts) == len(friendly.scripts)
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "</script><img src=x onerror=alert(1)>&\"'{%}??[2J `" in read.text
    names = [one.get("name", "") for figure in read.data("figures").values() for one in figure["data"]]
    assert any("&lt;/script&gt;&lt;img" in name for name in names)
    assert not any("<img" in name for name in names)


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium to look with")
@pytest.mark.parametrize("make", [samples.promoted, samples.lonely, hostile])
def test_a_browser_without_a_network_draws_every_picture(make: Callable[[], Verdict], tmp_path: Path) -> None:
    """All figures are drawn under the page's own policy, and nothing is refused, missed or run that should not be."""
    text = page(make())
    assert len(Read(text).data("figures")) >= 2
    check_drawn(text, tmp_path)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (
            samples.promoted,
            "Version 8 is to be tried live: over 432 steps that no training had seen it forecast better",
        ),
        (samples.lonely, "Version 7 stays: a candidate looked better, but that may be luck."),
        (samples.rejected, "Version 7 stays: there was no candidate to compare it with."),
        (samples.failed, "Version 7 stays: the retraining failed."),
    ],
)
def test_the_decision_comes_first_in_plain_words(make: Callable[[], Verdict], wanted: str) -> None:
    """Who answers from now on, and why, before any figure; on the page and on a terminal."""
    verdict = make()
    text = Read(page(verdict)).text
    assert 0 < text.index(wanted) < text.index(verdict.sentence)
    trial = verdict.trial and msgspec.structs.replace(verdict.trial, mode="none")
    at_once = Read(page(msgspec.structs.replace(verdict, trial=trial))).text
    assert ("Version 8 is to answer: over" in at_once) == (verdict.trial is not None)
    worse = msgspec.structs.replace(samples.promoted(), outcome="reject", version=None)
    assert "Version 7 stays: no candidate was better." in Read(page(worse)).text


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("superiority", ["promoted once it is proved better: an e-value of 100", "720 steps (30 d)"]),
        ("harm", ["must not prove worse", "24 steps (1 d)", "an e-value of 100"]),
        ("none", ["no live trial"]),
    ],
)
def test_what_happens_next_has_the_numbers_of_the_trial(mode: Any, wanted: list[str]) -> None:
    """Each way of trying a candidate is told by its own limits, and always how it is signed off and undone."""
    verdict = samples.promoted()
    assert verdict.trial is not None
    trial = msgspec.structs.replace(verdict.trial, mode=mode)
    told = " ".join(next_steps(msgspec.structs.replace(verdict, trial=trial)))
    for words in (*wanted, "killick approve 8", "the guard rolls back"):
        assert words in told
    others = {"superiority": "must not prove worse", "harm": "proved better:", "none": "e-value"}
    assert others[mode] not in told


@pytest.mark.parametrize(
    ("event", "version", "before", "after", "wanted"),
    [
        ("nominate", 8, None, 8, "Version 8 was made the candidate by ann"),
        ("nominate", 9, 8, 9, "Version 8 stopped being the candidate, version 9 is, by ann"),
        ("nominate", None, 8, None, "Version 8 stopped being the candidate, no version is, by ann"),
        ("approve", 8, None, None, "Version 8 was signed off by ann"),
        ("promote", 8, 7, 8, "Version 8 was promoted by ann"),
        ("promote", 9, 8, 9, "Version 8 was followed by version 9, promoted by ann"),
        ("rollback", 7, 8, 7, "Version 8 was rolled back to version 7 by ann"),
        ("rollback", 8, 9, 8, "Version 8 was made to answer again by ann"),
        ("retire", 8, None, None, "Version 8 was retired by ann"),
        ("promote", 6, 5, 6, ""),
        ("pause", None, None, None, ""),
    ],
)
def test_what_became_of_the_version_is_told(
    event: str, version: int | None, before: int | None, after: int | None, wanted: str
) -> None:
    """The newest change that concerns it, from its own side; changes of others are none."""
    entry = AuditEntry(
        id="2-0", time_ms=2, event=event, version=version, before=before, after=after, actor="ann", reason="so",
        generation=3,
    )  # fmt: skip
    older = msgspec.structs.replace(entry, id="1-0", time_ms=1, event="register", version=8, before=None, after=None)
    told = since_words(samples.promoted(), [older, entry])
    assert told == (f"{wanted} at 1970-01-01 00:00 UTC: so" if wanted else "")
    assert concerned(samples.failed(), [older, entry]) == []


def test_losses_that_are_no_numbers_leave_gaps() -> None:
    """A curve that ran off is drawn as far as it went, and does not squeeze the others."""
    verdict = samples.promoted()
    exploded = next(one for one in verdict.attempts if one.outcome == "exploded")
    off = Epoch(epoch=4, train_loss=None, validation_loss=math.inf)
    gone = msgspec.structs.replace(exploded, curve=(*exploded.curve, off))
    others = tuple(gone if one is exploded else one for one in verdict.attempts)
    figure = curves(msgspec.structs.replace(verdict, attempts=others), "update-on-new")
    assert figure is not None
    assert figure["layout"]["yaxis"]["range"][1] < 1
    json.dumps(figure, allow_nan=False)


def test_what_the_control_gained_is_told_beside_the_finalist(promoted: tuple[Verdict, Read]) -> None:
    """It is no finalist; its gain over the incumbent stands beside the foremost one's."""
    verdict, read = promoted
    errors = {one.name: one.mse for one in verdict.judged}
    control, best_one = (100 * (errors[name] / errors["incumbent"] - 1) for name in (CONTROL, "update-on-all"))
    words = f"Its error is {control:+.1f} % against the incumbent's, that of update-on-all {best_one:+.1f} %."
    assert words.replace("-1", "\N{MINUS SIGN}1") in read.text
    assert [one.name for one in finalists(verdict)] == list(samples.STRATEGIES)
    assert "control" not in Read(page(samples.lonely())).text.lower().replace("and the control", "")


def test_the_foremost_finalist_is_the_chosen_one_or_the_best() -> None:
    """Without a choice it is who gained most, never a reference or the control."""
    verdict = samples.promoted()
    assert foremost(verdict) == "update-on-all"
    assert foremost(msgspec.structs.replace(verdict, chosen="new-on-all")) == "new-on-all"
    ahead = tuple(
        msgspec.structs.replace(one, difference=9.0) if one.name in (CONTROL, "seasonal") else one
        for one in verdict.compared
    )
    assert foremost(msgspec.structs.replace(verdict, chosen=None, compared=ahead)) == "update-on-all"
    assert foremost(samples.rejected()) is None


def test_an_empty_series_draws_nothing() -> None:
    """A verdict without a difference over time has no such section."""
    bare = Series(step=(), difference=(), low=(), high=())
    verdict = msgspec.structs.replace(samples.promoted(), over_time=bare)
    assert "over_time" not in Read(page(verdict)).data("figures")


@pytest.mark.parametrize("make", SAMPLES)
def test_a_terminal_shows_decision_contenders_and_what_is_next(make: Callable[[], Verdict]) -> None:
    """One line each, with the figures of the page, the chosen one marked."""
    verdict = make()
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(verdict_lines(verdict))
    text = console.export_text()
    assert text.startswith(verdict.outcome)
    assert " ".join(plain_words(verdict).split()) in " ".join(text.split())
    assert " ".join(verdict.sentence.split()) in " ".join(text.split())
    rows = [line.split() for line in text.splitlines()]
    for one in verdict.judged:
        row = next(row for row in reversed(rows) if one.name in row[:2])
        assert (row[0] == "▸") == (one.name == verdict.chosen)
    assert next_steps(verdict)[0][:40] in text


def test_a_reference_that_is_far_off_does_not_press_the_others_into_a_line() -> None:
    """The axis of skill by lead is that of the versions; the reference leaves the picture where it has to."""
    verdict = samples.promoted()
    far = tuple(
        msgspec.structs.replace(one, by_lead=tuple(100.0 * (x or 0.0) for x in one.by_lead))
        if one.name == "seasonal" else one
        for one in verdict.judged
    )  # fmt: skip
    near, moved = by_lead(verdict), by_lead(msgspec.structs.replace(verdict, judged=far))
    assert near is not None
    assert moved is not None
    assert moved["layout"]["yaxis"]["range"] == near["layout"]["yaxis"]["range"]
    low, high = near["layout"]["yaxis"]["range"]
    incumbent = next(trace for trace in near["data"] if trace["name"] == "incumbent")
    assert low < min(incumbent["y"]) <= max(incumbent["y"]) < high
