"""A backtest's page: its numbers are those of its runs, its advice follows from them, and little is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import StationaryBootstrap

from models.errors import DataError
from tests.worker import backtest_samples as samples
from tests.worker.pages import BROWSER, HOSTILE, Read, check_drawn, check_loads_nothing, check_reads_well
from worker.backtest_appraisal import Appraisal
from worker.backtest_told import Happening, ScoreSet
from worker.report_backtest import page, write_page
from worker.report_backtest_words import more_words, outcome_words, plain_words, span_words, when_words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from worker.backtest_told import Backtested

EMPTY = ScoreSet(
    pairs=0, mse=None, mae=None, mape=None, skill_persistence=None, skill_seasonal=None, leads=(), daily=(), series=()
)


def never() -> Backtested:
    """The frozen LSTM alone, with one seed."""
    return samples.only(["never"], seeds=1)


def hostile() -> Backtested:
    """A backtest whose every text wants to be markup."""
    told = samples.told()
    runs = tuple(
        msgspec.structs.replace(
            one,
            policy=HOSTILE if one.policy == "on-drift" else one.policy,
            happened=tuple(msgspec.structs.replace(event, words=HOSTILE) for event in one.happened),
        )
        for one in told.runs
    )
    return msgspec.structs.replace(told, file=HOSTILE, model=HOSTILE, target=HOSTILE, runs=runs)


def empty() -> Backtested:
    """A run and a baseline in whose span nothing could be paired."""
    run = msgspec.structs.replace(samples.run("never", 1), scores=EMPTY, versions=(), happened=())
    return msgspec.structs.replace(samples.told(), runs=(run,), baselines={"persistence": EMPTY}, leads=(), seeds=1)


def nothing() -> Backtested:
    """Neither runs nor baselines."""
    return msgspec.structs.replace(samples.told(), runs=(), baselines={}, fit_s=(), seeds=0)


MAKERS = [samples.told, never, empty, nothing, hostile]


@pytest.fixture(scope="module")
def read() -> Read:
    """The page of all policies."""
    return Read(page(samples.told()))


def errors() -> pd.Series[float]:
    """The mean squared error of every policy over its seeds, and of the baselines."""
    runs = pd.DataFrame([(one.policy, one.scores.mse) for one in samples.told().runs], columns=["name", "mse"])
    means: pd.Series[float] = runs.groupby("name")["mse"].mean()
    baselines = pd.Series({name: float(one.mse or 0.0) for name, one in samples.told().baselines.items()})
    return pd.concat([means, baselines])


def daily(name: str) -> pd.DataFrame:
    """Pairs, errors of a way to forecast and of persistence by day, as means over seeds."""
    sets = [one.scores for one in samples.told().runs if one.policy == name] or [samples.told().baselines[name]]
    days = pd.concat([pd.DataFrame([msgspec.structs.asdict(day) for day in scores.daily]) for scores in sets])
    return days.groupby("day").mean()


def test_every_way_to_forecast_stands_with_its_means_over_seeds(read: Read) -> None:
    """Error with its deviation, both skills, MAE and MAPE are pandas' over the runs; the least error stands first."""
    rows = read.rows("Errors over the online span")
    assert list(rows) == errors().sort_values().index.tolist()
    for name in samples.POLICIES:
        sets = pd.DataFrame([msgspec.structs.asdict(one.scores) for one in samples.told().runs if one.policy == name])
        fields = ["mse", "skill_persistence", "skill_seasonal", "mae", "mape"]
        means = sets[fields].astype(float).mean()
        wanted = [means["mse"], sets["mse"].astype(float).std(), *means[fields[1:]]]
        assert rows[name] == pytest.approx(wanted, rel=1e-12)
    assert rows["persistence"][:2] == [samples.told().baselines["persistence"].mse, 0.0]


def test_shares_of_gain_and_training_are_against_always(read: Read) -> None:
    """Gain is the error below that of never, cost the gradient steps, each as a share of what always has."""
    rows, means = read.rows("Gain and cost of each policy"), errors()
    steps = {one.policy: one.gradient_steps for one in samples.told().runs if one.seed == 1}
    for name in samples.POLICIES:
        gain = (means["never"] - means[name]) / (means["never"] - means["always"])
        assert rows[name][2:4] == pytest.approx([gain, steps[name] / steps["always"]], abs=1e-12)
        assert rows[name][4] == len(samples.refits(name))


def test_skill_over_time_is_of_the_days_up_to_each_point(read: Read) -> None:
    """Every line is 1 - error / error of persistence over seven days, weighed by pairs, as pandas counts it."""
    lines = {one.get("name"): one for one in read.data("figures")["skill_over_time"]["data"] if one["mode"] == "lines"}
    assert set(lines) == {*samples.POLICIES, "seasonal"}
    for name, line in lines.items():
        days = daily(name)
        mine, theirs = ((days["pairs"] * days[part]).rolling(7).sum() for part in ("mse", "persistence"))
        wanted = (1 - mine / theirs).dropna()
        assert line["y"] == pytest.approx(wanted.tolist(), rel=1e-9)
        assert pd.to_datetime(pd.Series(line["x"])).tolist() == pd.to_datetime(wanted.index, unit="D").tolist()


def test_versions_are_marks_on_the_axis(read: Read) -> None:
    """Each policy that updates has a row of marks, at the times from which its versions answered; drifts stand by."""
    figure = read.data("figures")["skill_over_time"]
    names = figure["layout"]["yaxis2"]["ticktext"]
    assert sorted(names) == sorted(set(samples.POLICIES) - {"never"})
    rows = [one for one in figure["data"] if one.get("yaxis") == "y2" and one["marker"]["symbol"] == "line-ns"]
    for name, row in zip(names, rows, strict=True):
        run = samples.run(name, 1)
        wanted = pd.to_datetime([step * samples.HOUR_MS for _, step in run.versions], unit="ms")
        assert pd.to_datetime(pd.Series(row["x"])).tolist() == wanted.tolist()
        assert row["text"] == [f"version {version}" for version, _ in run.versions]
        assert set(row["y"]) == {names.index(name)}
    (drifts,) = (one for one in figure["data"] if one["marker" if "marker" in one else "line"].get("symbol") ==
                 "triangle-down")  # fmt: skip
    assert len(drifts["x"]) == sum(one.kind == "drift" for one in samples.run("on-drift", 1).happened) > 0
    assert "drift: the error grew by half" in drifts["text"]
    assert "began to answer (triangle: drift)." in read.text


def test_what_was_judged_and_rolled_back_is_marked_with_its_words() -> None:
    """Verdicts and rollbacks have signs of their own, versions say why; drifts not heeded have none."""
    run = samples.run("periodic:7d", 1)
    (version, step) = run.versions[2]
    kinds: list[tuple[Any, str]] = [("drift", "grown"), ("verdict", "no"), ("promote", "why"), ("rollback", "bad")]
    happened = tuple(Happening(step=step, kind=kind, words=words, version=version) for kind, words in kinds)
    told = msgspec.structs.replace(never(), runs=(*never().runs, msgspec.structs.replace(run, happened=happened)))
    read = Read(page(told))
    rows = [one for one in read.data("figures")["skill_over_time"]["data"] if one.get("yaxis") == "y2"]
    assert [one["marker"]["symbol"] for one in rows] == ["line-ns", "circle-open", "x"]
    assert rows[0]["text"][2] == f"version {version}: why"
    assert [one["text"] for one in rows[1:]] == [["retrained: no"], ["rollback: bad"]]
    assert "(circle: retrained and judged, cross: rolled back)" in read.text


def test_what_was_spared_adds_up_to_the_gain(read: Read) -> None:
    """The line of each policy ends at the share of the frozen LSTM's error that it spared over all days."""
    lines = {one["name"]: one["y"] for one in read.data("figures")["spared"]["data"]}
    frozen = daily("never")
    whole = (frozen["pairs"] * frozen["mse"]).sum()
    assert set(lines) == {*samples.POLICIES, "persistence"} - {"never"}
    for name, y in lines.items():
        spared = (frozen["pairs"] * (frozen["mse"] - daily(name)["mse"])).cumsum() / whole * 100
        assert y == pytest.approx(spared.tolist(), rel=1e-9, abs=1e-9)


def test_boxes_are_of_the_seeds(read: Read) -> None:
    """Percentiles of each box are pandas' over the seeds, its dots the seeds themselves; baselines are lines."""
    drawn = read.data("figures")["over_seeds"]["data"]
    boxes = {one["name"]: one for one in drawn if one["type"] == "box"}
    assert set(boxes) == set(samples.POLICIES)
    for name, box in boxes.items():
        seeds = pd.Series([one.scores.mse for one in samples.told().runs if one.policy == name], dtype=float)
        found = [box[part][0] for part in ("lowerfence", "q1", "median", "q3", "upperfence")]
        assert found == pytest.approx(seeds.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).tolist(), rel=1e-12)
    lines = {one["name"].split()[0]: one["y"] for one in drawn if one.get("mode") == "lines"}
    assert lines == {name: [one.mse] * 2 for name, one in samples.told().baselines.items()}


def test_cost_is_drawn_against_error(read: Read) -> None:
    """Each policy is a dot at its share of always' training and its error, with the deviation over seeds."""
    dots = {one["text"][0]: one for one in read.data("figures")["by_cost"]["data"] if "text" in one}
    rows = read.rows("Gain and cost of each policy")
    for name, (mse, deviation, _, cost, *_) in rows.items():
        assert dots[name]["x"] == [pytest.approx(100 * cost)]
        assert (dots[name]["y"], dots[name]["error_y"]["array"]) == ([mse], [deviation])


def test_leads_and_series_have_their_own_numbers(read: Read) -> None:
    """Means up to each lead and errors of each series are the runs' means; series with most error come first."""
    upto, by_series = read.rows("Error, mean over leads 1 to k"), read.rows("Error (scaled MSE) by series")
    for name in samples.POLICIES:
        sets = [one.scores for one in samples.told().runs if one.policy == name]
        wanted = np.array([[lead.upto for lead in scores.leads] for scores in sets], float).mean(axis=0)
        assert upto[name] == pytest.approx(wanted.tolist(), rel=1e-12)
    (headings, *rows) = next(rows for name, rows in read.tables.items() if name.startswith("Error (scaled MSE) by"))
    names = [str(cell[0]) for cell in headings[2:]]
    frozen = {name: by_series[name][1 + names.index("never")] for name in samples.NAMES}
    assert list(by_series) == sorted(frozen, key=lambda name: -frozen[name])
    assert [row[1][0] for row in rows] == pytest.approx([frozen[n] / sum(frozen.values()) for n in by_series])
    own = [one.scores.series[0].mse for one in samples.told().runs if one.policy == "always"]
    assert by_series[samples.NAMES[0]][1 + names.index("always")] == pytest.approx(np.mean(own))  # type: ignore[arg-type]


def test_the_interval_is_that_of_a_resampled_ratio() -> None:
    """Made linear, the interval of a share of error is near that of resampling both errors together (arch)."""
    told = samples.swapped(persistence=0.9)
    faced = Appraisal(told).faced("never", "persistence")
    assert faced is not None
    mine, theirs = daily("never"), daily("persistence")
    both = np.stack([mine["pairs"] * mine["mse"], 0.9 * theirs["pairs"] * theirs["mse"]], axis=1)
    resampled = StationaryBootstrap(8, both, seed=3).conf_int(
        lambda x: np.array([1 - x[:, 0].sum() / x[:, 1].sum()]), reps=2_000, method="percentile"
    )
    low, high = resampled[:, 0].tolist()
    assert (faced.low, faced.high) == pytest.approx((low, high), abs=0.25 * (high - low))
    assert 0.05 < faced.high - faced.low < 1


@pytest.mark.parametrize("factor", [0.02, 0.5, 50.0])
def test_it_is_as_sure_who_is_worse_as_who_is_better(factor: float) -> None:
    """Seen from the other side an interval is turned, by however much the errors differ."""
    appraisal = Appraisal(samples.swapped(persistence=factor))
    one, other = appraisal.faced("never", "persistence"), appraisal.faced("persistence", "never")
    assert one is not None
    assert other is not None
    assert (1 - other.low, 1 - other.high) == pytest.approx((1 / (1 - one.high), 1 / (1 - one.low)))
    assert one.clear == other.clear


def test_errors_that_go_together_leave_no_doubt() -> None:
    """Of one that always makes half of the other's error the share is certain, however much both change."""
    runs = [one for one in samples.told().runs if one.policy == "never"]
    halves = (msgspec.structs.replace(one, policy="always", scores=samples.times(one.scores, 0.5)) for one in runs)
    faced = Appraisal(msgspec.structs.replace(samples.told(), runs=(*runs, *halves))).faced("always", "never")
    assert faced is not None
    assert (faced.low, faced.share, faced.high) == pytest.approx((0.5, 0.5, 0.5), abs=1e-9)
    assert (faced.better_weeks, faced.better_seeds, faced.clear) == (20, 3, True)


@pytest.mark.parametrize(
    ("make", "advice", "chosen", "wanted"),
    [
        (samples.told, "updating", "on-drift", "Update when drift is found (on-drift): "),
        (lambda: samples.swapped(on_drift=1.5), "updating", "periodic:7d", "Update every 7 days (periodic:7d): "),
        (lambda: samples.swapped(never=0.1), "frozen", "never", "Leave the LSTM frozen: no policy that updates"),
        (lambda: samples.swapped(persistence=0.01), "baseline", "persistence", "Take persistence: the best LSTM, "),
        (lambda: samples.swapped(persistence=0.2), "updating", "always", "Update once a day (always): "),
        (lambda: samples.swapped(persistence=0.15), "undecided", None, ", which may be luck; and has to"),
        (lambda: samples.only(["never"]), "lstm", "never", "Take the frozen LSTM: it makes "),
        (lambda: samples.only(["always"]), "lstm", "always", "Update once a day (always): it makes "),
        (lambda: samples.only(["never"], baselines={}), "lstm", "never", "Take the frozen LSTM."),
        (lambda: samples.only(["control"]), "baseline", "persistence", "No policy was scored; of the baselines"),
        (nothing, "nothing", None, "No policy was scored."),
        (empty, "nothing", None, "No policy was scored."),
    ],
)
def test_the_advice_follows_from_the_errors(
    make: Callable[[], Backtested], advice: str, chosen: str | None, wanted: str
) -> None:
    """The cheapest policy that gains nearly as much as the best; else frozen; a baseline where that has less error."""
    appraisal = Appraisal(make())
    assert (appraisal.advised.advice, appraisal.advised.chosen) == (advice, chosen)
    assert wanted in plain_words(appraisal)
    read = Read(page(make()))
    head = read.text[: read.text.index("How this was measured")]
    assert head.index(outcome_words(appraisal)) < head.index(plain_words(appraisal))


def _two_seeds(*factors: float) -> Backtested:
    """Never and on-drift, whose errors are multiplied by a factor a seed."""
    told = samples.only(["never", "on-drift"], seeds=2, baselines={})
    runs = tuple(
        msgspec.structs.replace(one, scores=samples.times(one.scores, factors[one.seed - 1]))
        if one.policy == "on-drift" else one
        for one in told.runs
    )  # fmt: skip
    return msgspec.structs.replace(told, runs=runs)


def test_a_difference_that_the_seeds_do_not_share_is_no_advice() -> None:
    """Where one seed gains nearly nothing the days alone, however clear, decide nothing: the page says luck."""
    appraisal = Appraisal(_two_seeds(0.2, 3.3))
    faced = appraisal.advised.against_frozen
    assert faced is not None
    assert (faced.better_seeds, faced.seeds, faced.clear) == (2, 2, False)
    assert faced.low > 0.2
    assert appraisal.advised.advice == "frozen"
    assert any("That may be luck." in words for words in more_words(appraisal))


def test_two_seeds_leave_open_what_the_days_say() -> None:
    """The policy with the least error is named, with what to run; one that a baseline beats is not."""
    two = _two_seeds(0.2, 0.9)
    appraisal = Appraisal(two)
    assert outcome_words(appraisal) == "too few seeds to tell"
    assert "but 2 seeds can't tell that from luck: run it with --seeds 5." in plain_words(appraisal)
    assert "Updating does not pay either." not in more_words(appraisal)
    beaten = msgspec.structs.replace(two, baselines={"rls": samples.times(two.runs[0].scores, 0.01)})
    assert outcome_words(Appraisal(beaten)) != "too few seeds to tell"


def test_what_more_training_alone_gains_is_told() -> None:
    """Against the control the gain is due to what is new; where the control does as well, the page says so."""
    told = samples.told()
    found = more_words(Appraisal(told))
    steps = {one.policy: one.gradient_steps for one in told.runs}
    chosen = Appraisal(told).advised.against_control
    assert chosen is not None
    much = steps[chosen.name] / steps["control"]
    assert any("gradient steps, and the control" in words for words in found) == (not 2 / 3 <= much <= 1.5)
    runs = tuple(msgspec.structs.replace(one, gradient_steps=100) for one in told.runs)
    even = more_words(Appraisal(msgspec.structs.replace(told, runs=runs)))
    assert any("So much is due to what is new." in words for words in even)
    runs = tuple(
        msgspec.structs.replace(one, gradient_steps=100 + 900 * (one.policy != "control")) for one in told.runs
    )
    uneven = more_words(Appraisal(msgspec.structs.replace(told, runs=runs)))
    assert any("But it took 1,000 gradient steps, and the control 100" in words for words in uneven)
    alike = samples.swapped(control=0.25)
    assert any("may come from more training" in words for words in more_words(Appraisal(alike)))


def test_what_was_added_up_in_another_order_is_no_gain() -> None:
    """Policies whose updates never came into service differ by rounding: nobody gains, and the frozen one is first."""
    told = samples.told()
    frozen = {one.seed: one.scores for one in told.runs if one.policy == "never"}
    runs = tuple(
        msgspec.structs.replace(one, scores=samples.times(frozen[one.seed], 1 - 1e-15), promotions=0)
        if one.policy != "never" else one
        for one in told.runs
    )  # fmt: skip
    appraisal = Appraisal(msgspec.structs.replace(told, runs=runs, gate=True))
    assert next(one.name for one in appraisal.standings if one.policy) == "never"
    assert [one.gain_share for one in appraisal.standings] == [None] * len(appraisal.standings)
    faced = appraisal.faced("always", "never")
    assert faced is not None
    assert (faced.clear, faced.better_weeks, faced.better_seeds) == (False, 0, 0)
    assert appraisal.advised.lstm == "never"
    assert any("The gate let nothing through: " in words for words in more_words(appraisal))
    assert not any("The gate let nothing through: " in words for words in more_words(Appraisal(told)))


def test_retrainings_that_failed_are_told_with_their_reason() -> None:
    """Where every verdict is a failure there is nothing that the gate could have let through."""
    happened = tuple(
        Happening(step=7, kind="verdict", version=None, words=f"failed: number {n}, at least 8 are needed")
        for n in (1, 2)
    )
    run = msgspec.structs.replace(
        samples.run("on-drift", 1), retrainings=2, promotions=0, gradient_steps=0, happened=happened
    )
    told = msgspec.structs.replace(samples.only(["never"], seeds=1), gate=True)
    words = more_words(Appraisal(msgspec.structs.replace(told, runs=(*told.runs, run))))
    assert "The gate let nothing through: 2 retrainings, no promotion." in words
    assert "2 of 2 verdicts failed, the last one so: number 2, at least 8 are needed." in words
    assert not any("--gate off" in one for one in words)


def test_a_span_shorter_than_days_is_told_in_hours_and_minutes() -> None:
    """A stream by the second is over within the hour, and too short for an interval over days."""
    told = samples.only(["never"], seeds=1)
    told = msgspec.structs.replace(told, begin_ms=told.online_ms - 1_200_000, end_ms=told.online_ms + 5_400_000)
    assert span_words(told) == "20 min 0 s to learn from, then 1 h 30 min forecast as a live stream"
    assert "The online span has 1 h 30 min: too little to rest much on." in more_words(Appraisal(told))
    short = [msgspec.structs.replace(one, scores=msgspec.structs.replace(one.scores, daily=())) for one in told.runs]
    assert "on too few days to tell skill from luck" in plain_words(
        Appraisal(msgspec.structs.replace(told, runs=tuple(short)))
    )


def test_few_days_and_seeds_are_named() -> None:
    """A short span and one seed are reasons for doubt that stand in the head."""
    told = samples.only(["never"], seeds=1)
    assert any("With 1 seed luck" in words for words in more_words(Appraisal(told)))
    short = msgspec.structs.replace(told, end_ms=told.online_ms + 9 * samples.DAY_MS)
    assert any("has 9 days: too little" in words for words in more_words(Appraisal(short)))
    assert not any("seed luck" in words or "too little" in words for words in more_words(Appraisal(samples.told())))


def test_periods_are_read_as_people_say_them() -> None:
    """A day is once a day; whole days are counted; anything else keeps its length."""
    names = ["periodic:1d", "periodic:7d", "periodic:36h", "never"]
    assert [when_words(name) for name in names] == ["once a day", "every 7 days", "every 36h", ""]


def test_many_series_are_listed_up_to_a_limit() -> None:
    """Of thousands of series the loudest are listed and fewer drawn, the page says so and stays small."""
    told = never()
    (run,) = told.runs
    one = run.scores.series[0]
    many = tuple(msgspec.structs.replace(one, series=f"s{at}", mse=1.0 + at) for at in range(2_000))
    scores = msgspec.structs.replace(run.scores, series=many)
    told = msgspec.structs.replace(told, runs=(msgspec.structs.replace(run, scores=scores),), series=2_000)
    text = page(told)
    read = Read(text)
    check_loads_nothing(text)
    rows = read.rows("Error (scaled MSE) by series")
    assert (len(rows), next(iter(rows))) == (500, "s1999")
    assert "The first 500 of 2,000 are listed" in read.text
    assert all(len(one["y"]) == 30 for one in read.data("figures")["by_series"]["data"])


def test_what_happened_is_listed_by_time(read: Read) -> None:
    """Every event of the first seed stands with its time, kind, version and words."""
    (rows,) = (rows[1:] for name, rows in read.tables.items() if name == "What happened to on-drift, seed 1")
    found = samples.run("on-drift", 1).happened
    times = pd.to_datetime([one.step * samples.HOUR_MS for one in found], unit="ms").strftime("%Y-%m-%d %H:%M")
    assert rows == [
        [[time], [one.kind], [str(one.version)], [one.words]] for time, one in zip(times, found, strict=True)
    ]
    many = tuple(Happening(step=at, kind="update", words="", version=None) for at in range(400))
    told = msgspec.structs.replace(never(), runs=(msgspec.structs.replace(samples.run("never", 1), happened=many),))
    assert "400 events, the first 300 of them" in Read(page(told)).text


@pytest.mark.parametrize("make", MAKERS)
def test_a_page_loads_nothing_and_says_no_programmers_words(make: Callable[[], Backtested]) -> None:
    """Whatever is missing: figures are plotly's, nothing is loaded, and no None, nan or inf is read."""
    check_reads_well(page(make()))


def test_hostile_words_stay_words() -> None:
    """Files, policies and events can neither end an element nor begin one."""
    text = page(hostile())
    read, friendly = Read(text), Read(page(samples.told()))
    assert {tag for tag, _ in read.tags} == {tag for tag, _ in friendly.tags}
    assert len(read.scripts) == len(friendly.scripts)
    assert "\u202e" not in text
    assert "\x1b" not in text
    names: list[Any] = [one.get("name", "") for figure in read.data("figures").values() for one in figure["data"]]
    assert any("&lt;/script&gt;" in name for name in names)
    assert not any("<img" in name for name in names)


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium to look with")
@pytest.mark.parametrize("make", [samples.told, never, hostile])
def test_a_browser_without_a_network_draws_every_picture(make: Callable[[], Backtested], tmp_path: Path) -> None:
    """All figures are drawn under the page's own policy, and nothing is refused, missed or run that should not be."""
    check_drawn(page(make()), tmp_path)


def test_the_page_is_written_or_the_place_named(tmp_path: Path) -> None:
    """The file holds the page; where it can't be written the error says which and what to do."""
    path = tmp_path / "out.html"
    write_page(path, never())
    assert path.read_text(encoding="utf-8") == page(never())
    with pytest.raises(DataError, match=r"gone.*choose another --report"):
        write_page(tmp_path / "gone" / "out.html", never())
