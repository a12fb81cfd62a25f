"""`fit`: what it prints, what it registers, and its skill against a calculation in pandas."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from consumers.history import History
from consumers.roster import Seat
from consumers.stream import Partition, Version, fold
from models.architecture import Architecture, Inputs
from models.drift_inputs import trained_inputs
from models.errors import DataError, ServiceUnreachable
from models.learning import TrainingSettings
from models.network import Network
from models.registry import Registry
from models.scaling import SeriesForm
from models.server import connect
from models.weights import weights_from_bytes
from worker.fit import FitPlan, Fitted, digest, fit, fit_first_version, observations

if TYPE_CHECKING:
    from tests.conftest import NewRedis

HOUR_MS = 3_600_000
HORIZON = 6
FORM = SeriesForm(
    features=("temp", "dewp"),
    target="temp",
    interval_ms=HOUR_MS,
    period_steps=24,
    half_life_steps=100.0,
    ring_steps=32,
    max_gap_steps=3,
)
PLAN = FitPlan(
    form=FORM,
    architecture=Architecture(
        horizon=HORIZON,
        features=("temp", "dewp"),
        target="temp",
        gain=(1.0,) * HORIZON,
        interval_ms=HOUR_MS,
        period_steps=24,
        units=(8,),
        inputs=Inputs(lags=6),
    ),
    training=TrainingSettings(epochs=4, chunk=16, rate=1e-2, closing_epochs=1),
)


def days_of(days: int = 30, seed: int = 0) -> History:
    """Two series by the hour with a daily wave, missing values, a bridged gap and one too long for that."""
    rng = np.random.default_rng(seed)
    rows = []
    walk = np.zeros(2)
    for step in range(24 * days):
        walk += rng.normal(scale=0.3, size=2)
        for series in range(2):
            short_gap = series == 0 and step % 200 in (50, 51)
            long_gap = series == 1 and step % 300 in range(280, 290)
            if not (short_gap or long_gap):
                wave = 10 * series + 3 * np.sin(2 * np.pi * step / 24) + walk[series]
                rows.append((series, step * HOUR_MS, wave, wave - 5 + rng.normal()))
    table = np.array(rows)
    present = rng.random((len(rows), 2)) < 0.97
    return History(
        series=("A", "B"),
        features=("temp", "dewp"),
        series_index=table[:, 0].astype(np.int64),
        time_ms=table[:, 1].astype(np.int64),
        values=np.where(present, table[:, 2:], 0.0),
        present=present,
    )


def shown() -> tuple[Console, io.StringIO]:
    """A console that is no terminal, and what it printed."""
    printed = io.StringIO()
    return Console(file=printed, width=100), printed


@pytest.fixture(scope="module")
def fitted() -> tuple[Fitted, str, str]:
    """One fit, its summary and its progress."""
    console, printed = shown()
    progressed = io.StringIO()
    return fit(days_of(), PLAN, console, progressed), printed.getvalue(), progressed.getvalue()


def issued_and_values(found: Fitted, history: History) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every forecast of the stream core, one row a lead, and every observed value."""
    partition, block = observations(history, FORM, shown()[0])
    weights = weights_from_bytes(found.weights, found.architecture)
    version = Version(1, found.architecture, Network(found.architecture, weights))
    partition.seat((Seat(1, "incumbent", 0, 0),), {1: version})
    (folded,) = fold([(partition, block)], {1: version})
    leads = np.arange(1, HORIZON + 1)
    count = len(block)
    forecasts = pd.DataFrame(
        {
            "series": np.repeat(block.slot, HORIZON),
            "issued": np.repeat(block.step, HORIZON),
            "lead": np.tile(leads, count),
            "forecast": folded.forecasts[1].astype(float).ravel(),
        }
    )
    forecasts["step"] = forecasts["issued"] + forecasts["lead"]
    values = pd.DataFrame({"series": block.slot, "step": block.step, "value": block.values[:, 0]})
    values["present"] = block.present[:, 0]
    gap = values.groupby("series")["step"].diff()
    values["life"] = (gap > FORM.max_gap_steps + 1).groupby(values["series"]).cumsum()
    values["last"] = values["value"].where(values["present"]).groupby([values["series"], values["life"]]).ffill()
    return forecasts, values


def test_the_skill_on_the_tail_equals_a_calculation_in_pandas(fitted: tuple[Fitted, str, str]) -> None:
    """Joined by series, time and lead, errors and skill of forecasts issued in the tail are those reported."""
    found = fitted[0]
    forecasts, values = issued_and_values(found, days_of())
    spans = found.training["spans"]
    joined = forecasts.merge(values, on=["series", "step"]).merge(
        values[["series", "step", "life", "last"]].rename(columns={"step": "issued", "last": "persistence"}),
        on=["series", "issued"],
        suffixes=("", "_issued"),
    )
    kept = joined[
        joined["present"]
        & (joined["life"] == joined["life_issued"])
        & joined["forecast"].notna()
        & (joined["issued"] >= spans["validation_end"])
    ].copy()
    trained = values[(values["step"] < spans["train_end"]) & values["present"]]
    unit = trained.groupby("series")["value"].std(ddof=0)
    for name in ("forecast", "persistence"):
        kept[name] = ((kept[name] - kept["value"]) / kept["series"].map(unit)) ** 2
    by_lead = kept.groupby("lead")
    reported = found.training["skill"]
    assert by_lead.size().tolist() == reported["pairs"]
    np.testing.assert_allclose(reported["mse"], by_lead["forecast"].mean(), atol=1e-5)
    expected = 1 - by_lead["forecast"].mean() / by_lead["persistence"].mean()
    np.testing.assert_allclose(reported["persistence"], expected, atol=1e-5)
    assert expected.mean() > 0.1


def test_the_summary_names_spans_checks_losses_and_skill(fitted: tuple[Fitted, str, str]) -> None:
    """One finds preflight, both losses, a diagnosis and the table; progress comes as plain lines."""
    found, printed, progressed = fitted
    for words in (
        "2 series",
        "training   1970-01-01T00:00:00Z … 1970-01-22T00:00:00Z",
        "held out",
        "initial loss",
        "overfit a handful",
        "diagnosis",
        "against persistence",
        "against seasonal naive",
        "mean",
    ):
        assert words in printed
    assert f"validation {found.outcome.best.validation_loss:.4f}" in printed
    assert "training: 1 of 4, loss" in progressed
    assert "\x1b" not in printed + progressed


def test_what_is_kept_of_a_training_says_which_data_it_saw(fitted: tuple[Fitted, str, str]) -> None:
    """Digest and span of the data, settings and curve are kept; the digest follows every column."""
    kept = fitted[0].training
    history = days_of()
    assert kept["data"]["sha256"] == digest(history)
    assert kept["data"]["since"] == "1970-01-01T00:00:00Z"
    assert kept["data"]["until"] == "1970-01-30T23:00:00Z"
    assert kept["settings"]["rate"] == PLAN.training.rate
    assert len(kept["curve"]) == len(fitted[0].outcome.curve)
    others = [
        replace(history, values=history.values + 1),
        replace(history, time_ms=history.time_ms + 1),
        replace(history, present=~history.present),
        replace(history, series=("A", "C")),
        replace(history, series_index=1 - history.series_index),
    ]
    assert len({digest(other) for other in (*others, history)}) == 6


def test_what_is_kept_of_a_training_says_how_its_inputs_were_distributed(fitted: tuple[Fitted, str, str]) -> None:
    """Counts of every feature's present values in the training span alone, as pandas cuts them; JSON can carry it."""
    kept = msgspec.json.decode(msgspec.json.encode(fitted[0].training))
    inputs = trained_inputs(kept)
    assert inputs is not None
    assert inputs.window_steps == PLAN.recent_steps
    history = days_of()
    trained = history.time_ms // HOUR_MS < kept["spans"]["train_end"]
    for f, feature in enumerate(FORM.features):
        values = pd.Series(history.values[trained & history.present[:, f], f])
        one = inputs.features[feature]
        cut = pd.cut(values, [-np.inf, *one.edges, np.inf]).value_counts(sort=False)
        assert one.counts == cut.tolist()
        assert 0 < one.usual_ks < 1


def test_gains_come_from_the_training_span_and_the_plain_form_has_none(fitted: tuple[Fitted, str, str]) -> None:
    """In the correction form gains grow with the lead here; the plain form keeps ones, and fits too."""
    gain = fitted[0].architecture.gain
    assert gain[0] < gain[3] < gain[5]
    architecture = msgspec.structs.replace(PLAN.architecture, form="plain", cell="gru")
    plain = fit(days_of(), replace(PLAN, architecture=architecture), shown()[0], io.StringIO())
    assert plain.architecture.gain == (1.0,) * HORIZON
    assert plain.checks.checks[1].passed


def test_records_that_the_service_would_refuse_are_left_out_and_counted() -> None:
    """Duplicates, late and contradictory observations are judged as in the stream, and named."""
    history = days_of(3)
    index = np.array([*range(50), 20, 48, 49, *range(50, len(history))])
    values = history.values.copy()
    twisted = replace(
        history,
        series=("A", "[/B]"),
        series_index=history.series_index[index],
        time_ms=history.time_ms[index],
        values=values[index],
        present=history.present[index],
    )
    twisted.values[52] += 1.0
    console, printed = shown()
    _, block = observations(twisted, FORM, console)
    assert len(block) == len(history)
    assert "exact duplicates" in printed.getvalue()
    assert "left out as contradiction: 1, the first: series '[/B]' already has other values" in printed.getvalue()


def test_a_history_that_is_too_short_is_refused_with_its_length() -> None:
    """Three horizons a span are the least."""
    with pytest.raises(DataError, match=r"(held-out|validation) span"):
        fit(days_of(4), PLAN, shown()[0], io.StringIO())


def test_a_history_without_any_label_is_refused() -> None:
    """A target that is never there teaches nothing."""
    history = days_of()
    blind = replace(history, present=history.present & np.array([False, True]))
    with pytest.raises(DataError, match="holds no label"):
        fit(blind, PLAN, shown()[0], io.StringIO())


def test_the_first_fit_becomes_incumbent_and_the_next_does_not(redis_url: str) -> None:
    """What is registered loads again with equal bytes; the summary says who answers."""
    registry = Registry(connect(redis_url), "weather")
    console, printed = shown()
    numbers = [
        fit_first_version(
            days_of(),
            replace(PLAN, training=replace(PLAN.training, seed=seed)),
            registry,
            actor="ann",
            now_ms=1_700_000_000_000,
            console=console,
            progress_stream=io.StringIO(),
        )
        for seed in (1, 2)
    ]
    assert numbers == [1, 2]
    assert registry.aliases().incumbent == 1
    assert "registered version 1: it is the incumbent" in printed.getvalue()
    assert "registered version 2; the incumbent stays version 1" in printed.getvalue()
    infos = registry.versions()
    assert [info.training["settings"]["seed"] for info in infos] == [1, 2]
    assert {info.training["data"]["sha256"] for info in infos} == {digest(days_of())}
    architecture, _, weights = registry.load(2)
    Network(architecture, weights).self_test()


def test_redis_is_asked_before_the_training_starts() -> None:
    """Without Redis no time is spent on training."""
    console, printed = shown()
    registry = Registry(connect("redis://127.0.0.1:1/0", timeout_s=1.0), "weather")
    with pytest.raises(ServiceUnreachable):
        fit_first_version(
            days_of(), PLAN, registry, actor="ann", now_ms=0, console=console, progress_stream=io.StringIO()
        )
    assert printed.getvalue() == ""


def test_a_training_is_not_lost_because_redis_was_away_at_its_end(
    new_redis: NewRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops while a version is trained is waited for, and the version is registered once."""
    server = new_redis()

    class Killing(io.StringIO):
        def write(self, text: str) -> int:
            if "preflight" in text:
                server.kill()
            return super().write(text)

    class Restarting(io.StringIO):
        def write(self, text: str) -> int:
            if "waiting for up to 600 s: Redis did not answer" in text:
                server.restart()
            return super().write(text)

    monkeypatch.setattr("sys.stderr", Restarting())
    registry = Registry(connect(server.url, timeout_s=1.0), "weather")
    console = Console(file=Killing())
    number = fit_first_version(
        days_of(), PLAN, registry, actor="ann", now_ms=0, console=console, progress_stream=io.StringIO()
    )
    assert number == 1
    assert len(registry.versions()) == 1


def test_the_series_state_of_the_partition_is_not_moved_by_looking() -> None:
    """`observations` gives a partition that is ready to fold the block."""
    partition, block = observations(days_of(2), FORM, shown()[0])
    assert isinstance(partition, Partition)
    assert partition.names == ["A", "B"]
    assert len(block) == len(days_of(2))
