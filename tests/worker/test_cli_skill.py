"""`killick skill`: its figures are those of pandas, from Redis and from what is recorded; what is not there is said."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from consumers.archive import Archive
from consumers.ledger import Commit, Ledger
from consumers.roster import Seat
from models.blocks import empty_block
from models.drift_limits import Drift, Trend
from models.errors import KillickError
from models.registry import Registry
from models.server import connect
from tests.integration.figures import by_lead, figures, references
from tests.models.versions import register
from tests.streams import FORM, MAX_GAP, Stream, architecture_of
from tests.worker.following import count_all, follower, live, walks
from worker import cli, settings_reading, wiring
from worker.backfill import backfilled
from worker.drift_told import Found
from worker.drifting import State
from worker.skill_recorded import Records, Span
from worker.store import ModelStore, PartitionStore, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from models.server import Client

pytestmark = pytest.mark.services
MODEL = "m"
RECORDS = 900
FILE = 20  # records in a file of the archive: fewer hours than the references look back
HOUR_MS = 3_600_000
CONFIG = """
[model]
name = "m"
features = ["v", "w"]
target = "v"
interval = "1h"
horizon = 4
period = "8h"
max_gap = "3h"
half_life = "12h"
"""


@dataclass
class World:
    """A model of two partitions that were counted; what is old lies in the archive alone."""

    client: Client
    config: Path
    streams: list[Stream]

    def skill(self, *words: str) -> str:
        """What `killick skill` prints."""
        done = CliRunner().invoke(cli.killick, ["--config", str(self.config), "skill", *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *words: str) -> Any:
        """What it prints with --json."""
        return json.loads(self.skill("--json", *words), parse_constant=_no_json)

    def error(self, *words: str) -> KillickError:
        """What it fails with."""
        with pytest.raises(KillickError) as caught:
            self.skill(*words)
        return caught.value

    def observed(self) -> pd.DataFrame:
        """Series, time and value of all that was accepted."""
        parts = [
            pd.DataFrame(
                {
                    "series": stream.series,
                    "time": pd.to_datetime(stream.step * HOUR_MS, unit="ms", utc=True),
                    "value": np.where(stream.present[:, 0], stream.values[:, 0], np.nan),
                }
            )
            for stream in self.streams
        ]
        return pd.concat(parts)

    def table(self, pairs: pd.DataFrame | None = None) -> pd.DataFrame:
        """The errors of every forecast that met its observation, by pandas from what `killick pairs` prints."""
        if pairs is None:
            done = CliRunner().invoke(cli.killick, ["--config", str(self.config), "pairs"], catch_exceptions=False)
            singles = dict.fromkeys(["scale", *(f"lead_{k + 1}" for k in range(4))], np.float32)
            pairs = pd.read_csv(io.StringIO(done.stdout), parse_dates=["time"], dtype=singles)
        return by_lead(pairs, references(self.observed(), pd.Timedelta("1h"), MAX_GAP, FORM.period_steps, 4), 4)

    @property
    def newest(self) -> pd.Timestamp:
        """The time of the newest observation."""
        return pd.Timestamp(self.observed()["time"].max())


def _no_json(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


@pytest.fixture
def world(redis_url: str, tmp_path: Path) -> Iterator[World]:
    """Version 1 answers, version 2 (of two leads) reads along from the middle on."""
    client = connect(redis_url)
    Registry(client, MODEL).set_partitions(2)
    config = tmp_path / "killick.toml"
    config.write_text(f'{CONFIG}[redis]\nurl = "{redis_url}"\n[archive]\npath = "{tmp_path}/archive"\n')
    made = World(client, config, [])
    for number in range(2):
        stream = walks(RECORDS, seed=number)
        stream = replace(stream, series=[f"{name}/{number}" for name in stream.series])
        made.streams.append(stream)
        consumer = live(client, MODEL, number)
        for begin in range(0, RECORDS, 10):
            if begin == RECORDS // 2:
                consumer.seat([Seat(1, "incumbent", 0, 0), Seat(2, "shadow", begin, begin)])
            consumer.take(stream, begin, begin + 10)
        consumer.publish()
        consumer.snapshot([0, 2])
        count_all(follower(client, MODEL, number))
        archive = Archive(str(tmp_path / "archive"), MODEL)
        for until in range(FILE, RECORDS - 4 * FILE, FILE):
            blocks = list(consumer.ledger.blocks(until - FILE, until))
            archive.write(number, blocks, consumer.ledger.names(), FORM, roster=consumer.ledger.roster())
        store = PartitionStore(client, MODEL, number, "whoever lets go")
        store.take()
        store.need("monitor", None)
        assert consumer.ledger.trim(RECORDS - 8 * FILE) > 0
    yield made
    client.close()


def words_of(body: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
    """The figures of a JSON object as pandas has them; what is null is left out."""
    found: dict[tuple[str, ...], float | None] = {}
    for one in body["versions"]:
        version = str(one["version"])
        for window, figures_of in one["windows"].items():
            found["pairs", version, window] = figures_of["pairs"]
            for scaling in ("scaled", "unscaled"):
                for lead, values in figures_of[scaling].items():
                    found |= _of_lead(values, lead, (scaling, version, window))
    return {words: value for words, value in found.items() if value is not None}


def _of_lead(values: Mapping[str, Any], lead: str, words: tuple[str, ...]) -> dict[tuple[str, ...], float | None]:
    found: dict[tuple[str, ...], float | None] = {
        (name, lead, *words): values[name] for name in ("mae", "rmse", "bias")
    }
    found["mase_ratio", lead, *words] = values["mase"]
    for reference in ("persistence", "seasonal"):
        found["skill_score", lead, reference, *words] = values[f"skill_{reference}"]
    return found


def same(found: Mapping[tuple[str, ...], float], wanted: Mapping[tuple[str, ...], float]) -> None:
    """Every figure is there, none is too many, and all are equal."""
    wanted = {words: value for words, value in wanted.items() if words[0] != "pairs" or value}
    found = {words: value for words, value in found.items() if words[0] != "pairs" or value}
    assert found.keys() == wanted.keys()
    for words, value in wanted.items():
        assert found[words] == pytest.approx(value, rel=1e-9, abs=1e-9), words


def test_every_figure_is_in_the_json_and_that_of_pandas(world: World) -> None:
    """All versions, windows, leads and scalings; the line of each day is the skill of its pairs."""
    body = world.json()
    table = world.table()
    same(words_of(body), figures(table, world.newest))
    assert [one["version"] for one in body["versions"]] == [2, 1]  # nobody answers: the newest first
    assert body["until"] == world.newest.isoformat().replace("+00:00", "Z")
    assert body["monitor"]["lag_records"] == 0
    assert body["monitor"]["observations"] == 2 * RECORDS
    daily = {one["day"]: one["skill"] for one in body["versions"][1]["daily"] if one["skill"] is not None}
    assert daily == pytest.approx(skill_by_day(table[table["version"] == 1], world.newest), rel=1e-9)


def skill_by_day(table: pd.DataFrame, newest: pd.Timestamp) -> dict[str, float]:
    """The skill against persistence of scaled errors, all leads pooled, of each complete day."""
    table = table[(table["time"] < newest.floor("D")) & table["scale"].notna() & table["persistence"].notna()]
    squares = (table[["error", "persistence"]].div(table["scale"], axis=0) ** 2).groupby(table["time"].dt.date).sum()
    return {str(day): float(value) for day, value in (1 - squares["error"] / squares["persistence"]).items()}


def test_csv_holds_what_json_holds(world: World) -> None:
    """One line for each figure of each version, window, lead and scaling; null is empty."""
    rows = pd.read_csv(io.StringIO(world.skill("--csv")), dtype={"lead": str})
    assert list(rows.columns) == ["version", "window", "lead", "scaling", "measure", "value"]
    values = rows[rows["measure"] != "pairs"].set_index(["version", "window", "lead", "scaling", "measure"])["value"]
    count = 0
    for one in world.json()["versions"]:
        for window, of_window in one["windows"].items():
            for scaling in ("scaled", "unscaled"):
                for lead, measures in of_window[scaling].items():
                    for measure, value in measures.items():
                        count += 1
                        found = values[one["version"], window, lead, scaling, measure]
                        assert found == value or (np.isnan(found) and value is None)
    assert len(values) == count == (5 + 3) * 5 * 2 * 7


def test_what_is_asked_for_narrows_what_is_printed(world: World) -> None:
    """A version, a window, a lead, all leads: the tables and the objects hold these alone."""
    assert [one["version"] for one in world.json("--version", "1", "--window", "1d")["versions"]] == [1]
    assert list(world.json("--window", "1d")["versions"][0]["windows"]) == ["1d"]
    table = world.table()
    wanted = figures(table, world.newest)
    text = world.skill("--version", "1", "--lead", "2", "--unscaled")
    row = next(line for line in text.splitlines() if line.startswith("  7d"))
    assert row.split()[2] == f"{wanted['skill_score', '2', 'persistence', 'unscaled', '1', '7d']:+.3f}"
    assert "version 2" not in text
    by_leads = world.skill("--leads", "--window", "30d")
    rows = [line.split() for line in by_leads.splitlines() if line.startswith(("  1 ", "  4 "))]
    assert [row[0] for row in rows] == ["1", "1", "4"]  # version 2 has two leads
    assert rows[2][2] == f"{wanted['skill_score', '4', 'persistence', 'scaled', '1', '30d']:+.3f}"


def test_one_series_is_that_of_pandas(world: World) -> None:
    """By window and by day, from archive and ledger, in either partition."""
    table = world.table()
    for name in ("s0/0", "s3/1"):
        mine = table[table["series"] == name]
        body = world.json("--series", name)
        wanted = figures(mine, world.newest)
        same(words_of(body), {words: value for words, value in wanted.items() if words[-1] != "life"})
        assert body["partition"] == int(name[-1])
        whole = words_of(world.json("--series", name, "--window", "life"))
        same(whole, {words: value for words, value in wanted.items() if words[-1] == "life"})
        week = world.json("--series", name, "--window", "7d", "--version", "1")["versions"][0]["daily"]
        days = skill_by_day(mine[mine["version"] == 1], world.newest)
        wanted_days = {day: value for day, value in days.items() if day >= week[0]["day"]}
        assert {one["day"]: one["skill"] for one in week if one["skill"] is not None} == pytest.approx(wanted_days)
        assert wanted_days
        text = world.skill("--series", name, "--version", "1")
        daily = skill_by_day(mine[mine["version"] == 1], world.newest)
        assert f"by day   {min(daily)}" in text
    rows = pd.read_csv(io.StringIO(world.skill("--series", "s0/0", "--csv")))
    assert set(rows["window"]) == {"1h", "1d", "7d", "30d"}


@pytest.mark.parametrize(
    ("window", "lead", "scaling", "against"),
    [("1d", "all", "scaled", "persistence"), ("7d", "2", "unscaled", "seasonal"), ("life", "4", "scaled", "seasonal")],
)
def test_worst_series_and_quantiles_are_those_of_pandas(
    world: World, window: str, lead: str, scaling: str, against: str
) -> None:
    """Which series have the least skill, their figures, and the quantiles of skill over all."""
    words = ["--window", window, "--lead", lead, "--against", against, *(["--unscaled"] * (scaling == "unscaled"))]
    body = world.json("--worst", "3", *words)
    table = world.table()
    assert (body["window"], body["lead"], body["scaling"], body["against"]) == (window, lead, scaling, against)
    for one in body["versions"]:
        mine = table[table["version"] == one["version"]]
        wanted = {name: figures(part, world.newest) for name, part in mine.groupby("series")}
        at = ("skill_score", lead, against, scaling, str(one["version"]), window)
        skill = pd.Series({name: found.get(at, np.nan) for name, found in wanted.items()}).dropna()
        quantiles = skill.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
        assert list(one["quantiles"].values()) == pytest.approx(quantiles, rel=1e-9)
        assert [row["series"] for row in one["worst"]] == list(skill.sort_values().index[:3])
        for row in one["worst"]:
            of_series = wanted[row["series"]]
            for name, value in _of_lead(row, lead, (scaling, str(one["version"]), window)).items():
                assert value == pytest.approx(of_series[name], rel=1e-9), name
    assert {one["version"] for one in body["versions"]} == ({1} if lead == "4" else {1, 2})
    text = world.skill("--worst", "3", *words)
    assert all(row["series"] in text for one in body["versions"] for row in one["worst"])
    rows = pd.read_csv(io.StringIO(world.skill("--worst", "3", "--csv", *words)))
    assert list(rows["series"]) == [row["series"] for one in body["versions"] for row in one["worst"]]


def test_a_short_window_reads_few_blocks(world: World) -> None:
    """Of the archive only those files are read that the window, and the look back before it, reach."""
    settings = settings_reading.load(str(world.config)).settings
    newest_hour = int(world.newest.timestamp()) // 3_600
    read = []
    for window in ("1h", "7d", "life"):
        records = Records(settings, world.client)
        span = Span.of_window(window, newest_hour)
        for ledger in records.ledgers:
            assert [len(block) for block in records.blocks(ledger, span)]
        assert records.read <= records.total(records.ledgers, span)
        read.append(records.read)
    assert read[0] < read[1] < read[2] == 2 * RECORDS


def test_a_backfill_counts_what_is_made_again(world: World) -> None:
    """Of a version that never ran: pandas over the replayed pairs gives the same, and it is said to be regenerated."""
    registry = Registry(world.client, MODEL)
    version = register(registry, architecture_of())
    since = (world.newest - pd.Timedelta("6D")).floor("D")
    settings = settings_reading.load(str(world.config)).settings
    parts = []
    for partition, block in backfilled(settings, world.client, version, int(since.timestamp()) * 1000):
        if version in block.pairs:
            names = np.array(wiring.ledgers(settings, world.client)[partition].names())
            frame = pd.DataFrame(block.pairs[version], columns=[f"lead_{k + 1}" for k in range(4)])
            frame["series"], frame["value"], frame["scale"] = names[block.slot], block.values[:, 0], block.scale
            frame["time"] = pd.to_datetime(block.step * HOUR_MS, unit="ms", utc=True)
            parts.append(frame)
    pairs = pd.concat(parts).assign(version=version).dropna(subset=["lead_1", "lead_2", "lead_3", "lead_4"], how="all")
    until = world.newest - pd.Timedelta("1D")
    table = world.table(pairs)
    table = table[(table["time"] >= since) & (table["time"] < until)]
    words = ["--backfill", "--version", str(version), "--since", since.isoformat(), "--until", until.isoformat()]
    body = world.json(*words)
    same(words_of({"versions": [body]}), figures(table, until))
    assert (body["regenerated"], body["since"]) == (True, since.isoformat().replace("+00:00", "Z"))
    text = world.skill(*words)
    assert text.startswith("regenerated, not live: what version 1 of model m would have")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--version", "7"], r"^version 7 of model 'm' does not exist: versions with pairs: 1, 2$"),
        (["--lead", "9"], r"^lead '9' has no figures: known are 1, 2, 3, 4, all; the nearest is 4$"),
        (["--window", "2d"], r"^window '2d' has no figures: known are 1h, 1d, 7d, 30d, life$"),
        (["--series", "s7/1"], r"^series 's7/1' is not known: there are 8; the nearest is 's\d/1'$"),
        (["--series", "s1/1", "--version", "7"], r"^series 's1/1' has no pairs of version 7 in 30d: ask for a longer"),
        (["--worst", "2", "--version", "7"], r"^no series has pairs of version 7 at lead all in 7d: ask for a longer"),
        (["--worst", "2", "--leads"], r"^--worst goes by one lead: choose it with --lead$"),
        (["--json", "--csv"], r"^--json and --csv can't be had at once: choose one$"),
        (["--lead", "1", "--leads"], r"^--lead and --leads can't be had at once"),
        (["--series", "s1/1", "--worst", "2"], r"can't be had at once: choose one$"),
        (["--since", "2015-01-01"], r"^--since and --until say what --backfill counts: add --backfill"),
        (["--against", "seasonal"], r"^--against says what --worst goes by: add --worst N$"),
        (["--backfill", "--version", "1"], r"^--backfill makes the past of one version again: add --version V and"),
        (["--backfill", "--version", "7", "--since", "2015-01-01"], r"^model 'm' has no version 7"),
    ],
)
def test_what_can_not_be_shown_is_said(world: World, words: list[str], message: str) -> None:
    """Unknown versions, leads, windows and series are named beside those that are known; so are wrong combinations."""
    found = world.error(*words)
    assert found.exit_code in (1, 2)
    with pytest.raises(KillickError, match=message):
        raise found


def test_a_version_without_pairs_is_told_from_one_that_is_not_there(world: World) -> None:
    """A version that is registered and has no pairs does exist."""
    registry = Registry(world.client, MODEL)
    assert [register(registry, architecture_of(), seed) for seed in (1, 2, 3)] == [1, 2, 3]
    assert str(world.error("--version", "3")) == ("version 3 of model 'm' has no pairs yet: versions with pairs: 1, 2")
    assert world.skill().splitlines()[0].startswith("model m: version 1 answers; complete hours up to ")
    assert "version 1 incumbent" in world.skill()


def test_drifts_detectors_trends_and_requests_are_told(world: World) -> None:
    """What the monitor found is there with its time and its sentence; so is how far it is behind."""
    drift = Drift(detector="adwin", statistic=1.5, threshold=1.0, words="the level of the loss has risen", at_step=0)
    trends = [
        Trend(direction=-1, slope=slope, p_value=0.01, days=30, goal="restore", words=f"skill falls by {-slope} a day")
        for slope in (-0.25, -0.125)
    ]
    state = State(
        version=1, counts={"adwin": 1}, found=[Found(drift, 1, 1_500_000_000_000)],
        statistics={"adwin": (0.5, 1.0), "psi": (0.125, None)}, trends={"30d": trends[0]},
        others={2: {"30d": trends[1]}},
    )  # fmt: skip
    import msgspec

    store = ModelStore(world.client, MODEL, "mine")
    assert store.lease(60_000)
    request = Request(
        id="1", trigger="drift", goal="restore", why="the loss has risen", evidence={"p": float("nan")}, created_ms=0
    )
    store.change_drift(0, msgspec.msgpack.encode(state), [], 0, [request])
    live_again = follower(world.client, MODEL, 0)
    assert live_again.step(None) == 0
    body = world.json()
    assert body["drift"]["drifts"] == [
        {
            "detector": "adwin", "version": 1, "at": "2017-07-14T02:40:00Z", "statistic": 1.5, "threshold": 1.0,
            "words": "the level of the loss has risen",
        }
    ]  # fmt: skip
    assert body["drift"]["statistics"]["psi"] == {"statistic": 0.125, "threshold": None}
    assert [one["trends"]["30d"]["slope"] for one in body["versions"]] == [-0.125, -0.25]
    assert body["requests"][0]["why"] == "the loss has risen"
    assert body["monitor"]["leads"] is True
    text = " ".join(world.skill().split())
    assert "a monitor is at work; nothing left to count" in text
    assert "over 30d: skill falls by 0.125 a day" in text
    assert "over 30d: skill falls by 0.25 a day" in text
    assert "2017-07-14 02:40 UTC adwin, version 1: the level of the loss has risen" in text
    assert "adwin 0.5 1 1 ██████████" in text
    assert "psi 0.125 learns 0" in text
    assert "1970-01-01 00:00 UTC restore, because of drift: the loss has risen" in text


def test_a_model_that_nobody_watched_says_what_to_start(redis_url: str, tmp_path: Path) -> None:
    """Without a consumer, without a monitor, without pairs: each says what is missing, and JSON is whole."""
    client = connect(redis_url)
    config = tmp_path / "killick.toml"
    config.write_text(f'{CONFIG}[redis]\nurl = "{redis_url}"\n')
    empty = World(client, config, [])
    assert "nothing is recorded yet: start `killick consumer`" in empty.skill()
    assert str(empty.error("--worst", "2")) == "nothing is recorded yet: start `killick consumer` and send observations"
    Registry(client, MODEL).set_partitions(1)
    consumer = live(client, MODEL)
    consumer.take(walks(40), 0, 1)
    assert "no monitor has counted here yet: start `killick monitor`" in " ".join(empty.skill().split())
    monitor = follower(client, MODEL)
    count_all(monitor)
    assert "no pairs yet: none of 1 observations had been forecast" in empty.skill()
    consumer.take(walks(40), 1, 31)
    assert "no monitor is at work: `killick monitor`; 30 records behind" in empty.skill()
    body = empty.json()
    assert (body["versions"], body["monitor"]["lag_records"], body["monitor"]["ran"]) == ([], 30, True)
    assert empty.skill("--csv") == "version,window,lead,scaling,measure,value\n"
    client.close()


def test_records_that_were_refused_are_nothing_to_count(world: World) -> None:
    """They make no block: `killick skill` says the same as `killick status`."""
    ledger = Ledger(world.client, MODEL, 1, "again")
    head = ledger.head()
    assert head is not None
    ledger.take(start=0, form=head.form, topic_id=head.topic_id, partitions=1, chunk_slots=head.chunk_slots)
    ledger.commit(Commit(head.next, replace(empty_block(head.next, 2), end=head.next + 4)))
    partition = world.json()["monitor"]["partitions"][1]
    assert (partition["counted"], partition["next"], partition["lag_records"]) == (head.next + 4, head.next + 4, 0)


def test_figures_by_series_need_no_monitor(redis_url: str, tmp_path: Path) -> None:
    """Where none ever counted, the newest observation is found in what is recorded."""
    client = connect(redis_url)
    config = tmp_path / "killick.toml"
    config.write_text(f'{CONFIG}[redis]\nurl = "{redis_url}"\n')
    Registry(client, MODEL).set_partitions(1)
    unwatched = World(client, config, [walks(300)])
    live(client, MODEL).take(unwatched.streams[0], 0, 300)
    body = unwatched.json("--series", "s1", "--window", "7d")
    table = unwatched.table()
    wanted = figures(table[table["series"] == "s1"], unwatched.newest)
    same(words_of(body), {words: value for words, value in wanted.items() if words[-1] == "7d"})
    client.close()


def test_a_redis_that_is_away_is_exit_code_3(tmp_path: Path) -> None:
    """One line, and the code of a service that can't be reached."""
    config = tmp_path / "killick.toml"
    config.write_text(f'{CONFIG}[redis]\nurl = "redis://127.0.0.1:1/0"\n')
    errors = io.StringIO()
    assert cli.run(["--config", str(config), "skill"], errors) == 3
    assert errors.getvalue().startswith("killick: Redis did not answer")
