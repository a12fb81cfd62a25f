"""What `killick skill` makes of numbers: signs for days, cells, detectors beside thresholds, trends of all versions."""

from __future__ import annotations

import io
import json
import math

import msgspec
import numpy as np
import pytest
from rich.console import Console

from models.drift_limits import Drift, DriftLimits
from models.errors import LedgerError
from models.registry import Aliases, Registry
from models.server import connect
from models.tally import COLUMNS
from models.windows import DAY_HOURS, Book, daily_skill
from worker.drift_told import Found, Told, read_told
from worker.drifting import DriftWatch, State
from worker.skill_asked import Asked
from worker.skill_report import Report, Scores, finite
from worker.skill_view import bar, daily_line, drift_table, newest_drifts, sparkline, windows_table
from worker.store import ModelStore

LEADS = (1, 2)
LIMITS = DriftLimits()


def sums(skill: float, reference: float = 4.0, count: float = 2.0) -> np.ndarray:
    """Sums of a lead after which skill against persistence is so much; there is nothing of seasonal naive."""
    row = np.zeros(len(COLUMNS))
    row[[COLUMNS["count"], COLUMNS["scaled_count"], COLUMNS["pairs"]]] = count
    for scaled in ("", "scaled_"):
        row[COLUMNS[f"persistence.{scaled}reference_squared"]] = reference
        row[COLUMNS[f"persistence.{scaled}squared"]] = (1 - skill) * reference
    return np.tile(row, (len(LEADS) + 1, 1))


def book_of(days: dict[int, float], version: int = 1) -> Book:
    """The sums of days with such skill, all in the first hour of the day."""
    book = Book()
    book.add(version, LEADS, np.array([day * DAY_HOURS for day in days]), np.stack([sums(s) for s in days.values()]))
    return book


def text_of(thing: object, width: int = 80) -> str:
    """What a terminal of this width shows."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(thing)
    return console.export_text()


def test_a_day_without_pairs_is_a_gap_and_a_lost_one_is_red() -> None:
    """Skill between 0 and 1 rises in eight signs; below 0 the least sign is red; nothing known, nothing shown."""
    line = sparkline([0.0, 0.13, 0.99, 1.0, math.nan, -3.0])
    assert line.plain == "▁▂██ ▁"
    assert [span.style for span in line.spans] == ["cyan"] * 4 + ["red"]


def test_the_line_of_days_ends_with_the_newest_and_fits() -> None:
    """The newest days that there is room for stand between their dates; it begins with the first day that has skill."""
    found = text_of(daily_line({0: math.nan, 2: 0.5, 4: 0.9}, 80))
    assert found.split() == ["by", "day", "1970-01-03", "▅", "█", "1970-01-05"]
    assert "▅ █" in found
    for width in (80, 100, 120):
        lines = text_of(daily_line(dict.fromkeys(range(400), 0.5), width), width).splitlines()
        assert len(lines) == 1
        assert lines[0].endswith("1971-02-04")
        assert lines[0].count("▅") == min(60, width - 36)
    assert "no day is complete yet" in text_of(daily_line({}, 80))


@pytest.mark.parametrize(("share", "wanted"), [(0.5, "██"), (2.0, "████"), (0.28, "█▏"), (-1.0, ""), (math.nan, "")])
def test_a_bar_is_as_long_as_its_share(share: float, wanted: str) -> None:
    """In eighths of a sign, full from 1 on, empty where there is nothing."""
    assert bar(share, 4) == wanted


def test_what_is_not_known_is_a_dash_and_null() -> None:
    """A figure without pairs is no number: a dash in the table, null in JSON, and nothing that JSON does not know."""
    report = Report("m", Aliases(1, None, None, 0), {}, newest_ms=3 * 86_400_000, book=book_of({1: 0.5, 3: 0.9}))
    body = json.loads(json.dumps(report.as_json([1], ["1h", "7d", "life"])), parse_constant=pytest.fail)
    windows = body["versions"][0]["windows"]
    assert windows["7d"]["scaled"]["all"] == {
        "count": 2, "skill_persistence": 0.5, "skill_seasonal": None,
        "mae": 0.0, "rmse": 0.0, "bias": 0.0, "mase": None,
    }  # fmt: skip
    assert windows["1h"]["unscaled"]["2"]["mae"] is None
    assert windows["1h"]["pairs"] == 0
    rows = text_of(windows_table(report.scores(1), ["1h", "7d"], "all", "scaled")).splitlines()[-2:]
    assert rows[0].split() == ["1h", "0", *["-"] * 6]
    assert rows[1].split() == ["7d", "2", "+0.500", "-", "0.000", "0.000", "+0.000", "-"]


@pytest.mark.parametrize(
    ("mae", "shown"),
    [(0.25, "0.250"), (3e-7, "3.0e-07"), (123_456.7, "123,457"), (0.0, "0.000"), (3e44, "3.0e+44")],
)
def test_errors_of_any_size_can_be_read(mae: float, shown: str) -> None:
    """Three decimals where they say something; else the power of ten, or whole numbers."""
    row = sums(0.5)
    row[:, COLUMNS["absolute"]] = 2 * mae
    table = windows_table(Scores(LEADS, {"life": row}, {}), ["life"], "1", "unscaled")
    assert text_of(table).splitlines()[-1].split()[4] == shown


def test_a_narrow_terminal_cuts_no_number() -> None:
    """Where the table is wider than the terminal, its lines are longer than that; and so is no ratio, however bad."""
    scores = Scores(LEADS, {"life": sums(-1e57)}, {})
    asked = Asked(None, "life", None, by_lead=False, scaling="scaled", as_json=False, as_csv=False)
    shown = {}
    for width in (40, 80):
        console = Console(width=width, file=io.StringIO(), record=True)
        asked.show(console, "version 1", scores, ["life"])
        shown[width] = next(line for line in console.export_text().splitlines() if line.startswith("  life"))
    assert shown[40].split() == shown[80].split()
    assert shown[40].split()[2] == "-1.0e+57"


def test_a_detector_is_shown_beside_its_threshold() -> None:
    """The bar is the share of the threshold that is reached; without one the detector learns."""
    told = Told(version=1, counts={"ks": 2}, statistics={"ks": (0.5, 0.25), "adwin": (0.2, None)})
    rows = [line.split() for line in text_of(drift_table(told)).splitlines()[1:]]
    assert rows == [["ks", "0.5", "0.25", "2", "█" * 20], ["adwin", "0.2", "learns", "0"]]


def test_the_newest_drifts_come_first_and_long_words_stay_in_their_column() -> None:
    """Five at most; what does not fit goes on under where it began."""
    found = [
        Found(Drift(detector="ks", statistic=1, threshold=1, words=f"number {i} " + "long words " * 9), 1, i * 60_000)
        for i in range(8)
    ]
    lines = text_of(newest_drifts(Told(found=found))).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("  1970")] == [
        "00:07",
        "00:06",
        "00:05",
        "00:04",
        "00:03",
    ]
    assert all(line.startswith(("  1970", " " * 24)) for line in lines)


def test_a_window_that_nobody_asked_for_is_the_one_that_is_there() -> None:
    """--leads shows 7d, or the only window that there is."""
    scores = Report("m", Aliases(1, None, None, 0), {}, newest_ms=0, book=book_of({0: 0.5})).scores(1)
    asked = Asked(None, None, None, by_lead=True, scaling="scaled", as_json=False, as_csv=False)
    for windows, shown in ((["1h", "7d", "life"], "7d"), (["1h", "1d"], "1d")):
        console = Console(width=80, file=io.StringIO(), record=True)
        asked.show(console, "version 1", scores, windows)
        assert f"window {shown}, scaled errors" in console.export_text()


@pytest.mark.services
def test_every_version_has_a_trend_and_only_the_one_that_answers_asks(redis_url: str) -> None:
    """A shadow whose skill falls is told so, from the next day on and after a restart, and asks for nothing."""
    falling = {day: 0.9 - 0.02 * day for day in range(30)}
    steady = {day: 0.5 + 0.01 * (-1) ** day for day in range(30)}
    book = book_of(steady)
    book.merge([book_of(steady), book_of(falling, version=2), book_of({-900: 0.5}, version=3)])
    client = connect(redis_url)
    Registry(client, "m").set_partitions(1)
    store = ModelStore(client, "m", "mine")
    assert store.lease(60_000)
    watch = DriftWatch(store, LIMITS, 3_600_000)
    watch.open()
    watch.judge_trend(book, 1, 30 * DAY_HOURS, 0, 0)
    watch.save()
    told = read_told(store.drift()[1], Told)
    assert told.trends["30d"].direction == 0
    assert told.others.keys() == {2}
    assert told.others[2]["30d"].direction == -1
    assert told.others[2]["30d"].slope == pytest.approx(-0.02)
    assert store.requests() == []
    assert np.isnan(daily_skill(book, 3, 30 * DAY_HOURS, 30)).all()
    watch.state.others = {}
    watch.judge_trend(book, 1, 30 * DAY_HOURS + 23, 0, 0)
    assert watch.state.others == {}  # still the same day
    watch.judge_trend(book, 1, 31 * DAY_HOURS, 0, 0)
    assert watch.state.others.keys() == {2}
    client.close()


def test_what_is_told_is_read_without_the_detectors_own_state() -> None:
    """A state that detectors stored gives all that people are told; nothing stored gives nothing."""
    state = State(version=4, counts={"ks": 1}, raised={"ks": True}, statistics={"ks": (1.0, None)})
    told = read_told(msgspec.msgpack.encode(state), Told)
    assert (told.version, told.counts, told.statistics) == (4, {"ks": 1}, {"ks": (1.0, None)})
    assert read_told(b"", Told) == Told()


@pytest.mark.parametrize("data", [b"rubbish", msgspec.msgpack.encode({"step": "late"})])
def test_a_state_that_can_not_be_read_says_so(data: bytes) -> None:
    """Damaged bytes, or fields of another kind, are a clear error and no traceback."""
    with pytest.raises(LedgerError, match=r"the detectors' state can't be read .* restore Redis"):
        read_told(data, Told)


def test_a_state_of_another_format_says_so() -> None:
    """A newer killick wrote it: upgrade."""
    with pytest.raises(LedgerError, match="has format 9, known is 1: upgrade killick"):
        read_told(msgspec.msgpack.encode(Told(format=9)), State)


def test_numbers_that_are_none_become_null() -> None:
    """NaN and infinity are no JSON; words and whole numbers stay."""
    assert [finite(value) for value in (math.nan, math.inf, 1.5, 2, "a", None)] == [None, None, 1.5, 2, "a", None]
