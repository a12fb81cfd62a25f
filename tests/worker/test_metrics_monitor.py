"""What Prometheus reads of a monitor: figures of the versions that run, and nothing of what is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from models.tally import COLUMNS, reported_leads
from models.windows import Book, figures
from worker.gate_told import GateTold, GuardTold, TrialTold
from worker.metrics_monitor import MonitorMetrics
from worker.monitoring import Shown, rollbacks_by_actor

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

LEADS = reported_leads(4)
HOUR = 500


def book_of(*versions: int) -> Book:
    """A book in which these versions have pairs in the last complete hour."""
    book = Book()
    for version in versions:
        sums = np.random.default_rng(version).uniform(1, 2, (1, len(LEADS) + 1, len(COLUMNS)))
        book.add(version, LEADS, np.array([HOUR - 1]), sums)
    return book


def families(told: MonitorMetrics) -> dict[str, Metric]:
    """What is exported, by name without its beginning."""
    found = text_string_to_metric_families(generate_latest(told.registry).decode())
    return {family.name.removeprefix("killick_"): family for family in found}


def samples(told: MonitorMetrics, name: str) -> dict[tuple[str, ...], float]:
    """The values of a family by its labels, in the order of their names and without the model."""
    family = families(told).get(name)
    assert family is None or family.documentation
    rows = family.samples if family is not None else []
    assert all(row.labels["model"] == "m" for row in rows)
    return {tuple(v for k, v in sorted(row.labels.items()) if k != "model"): row.value for row in rows}


def test_who_stands_by_shows_only_that() -> None:
    """Two processes never show one figure: whoever reads them need not choose."""
    told = MonitorMetrics("m")
    assert (samples(told, "monitor_leader"), samples(told, "redis_up")) == ({(): 0}, {(): 0})
    told.show(Shown(redis_up=True, book=book_of(1), versions=frozenset({1}), observations=9))
    assert set(families(told)) == {"monitor_leader", "redis_up"}
    assert samples(told, "redis_up") == {(): 1}


def test_every_figure_of_a_version_that_runs() -> None:
    """By lead, window, reference and scaling, as `models.windows` makes them of the sums."""
    told, book = MonitorMetrics("m"), book_of(3)
    told.show(Shown(leads=True, book=book, versions=frozenset({3}), newest_hour=HOUR))
    wanted = figures(book.window(3, "1h", HOUR), LEADS, "unscaled")
    skill, mae = samples(told, "skill_score"), samples(told, "mae")
    assert len(skill) == 5 * 2 * 2 * 5
    assert len(mae) == 5 * 2 * 5
    assert skill["all", "seasonal", "unscaled", "3", "7d"] == pytest.approx(wanted.skill["seasonal"][-1])
    for name, values in (
        ("mae", wanted.mae),
        ("rmse", wanted.rmse),
        ("bias", wanted.bias),
        ("mase_ratio", wanted.mase),
    ):
        assert samples(told, name)["2", "unscaled", "3", "life"] == pytest.approx(values[1])
    assert samples(told, "pairs") == {("3", window): wanted.pairs for window in ("1h", "1d", "7d", "30d", "life")}


def test_what_has_no_pair_has_no_figure() -> None:
    """A window without pairs shows none, rather than NaN or an old number; its pairs are 0."""
    told = MonitorMetrics("m")
    told.show(Shown(leads=True, book=book_of(3), versions=frozenset({3}), newest_hour=HOUR + 5))
    assert {words[-1] for words in samples(told, "mae")} == {"1d", "7d", "30d", "life"}
    assert samples(told, "pairs")["3", "1h"] == 0
    assert "NaN" not in generate_latest(told.registry).decode()


def test_versions_that_left_are_gone() -> None:
    """Nothing of a version stays that runs nowhere, nor of a partition or detector that is not there any more."""
    told, book = MonitorMetrics("m"), book_of(1, 2)
    told.show(
        Shown(leads=True, book=book, versions=frozenset({1, 2}), newest_hour=HOUR, lags={0: 1, 1: 2},
              statistics={"adwin": (1.0, None), "ks": (0.1, 0.25)})
    )  # fmt: skip
    assert {words[-2] for words in samples(told, "mae")} == {"1", "2"}
    assert samples(told, "drift_statistic") == {("adwin",): 1.0, ("ks",): 0.1}
    assert samples(told, "drift_threshold") == {("ks",): 0.25}
    told.show(Shown(leads=True, book=book, versions=frozenset({2, 9}), newest_hour=HOUR, lags={0: 5}))
    assert {words[-2] for words in samples(told, "mae")} == {"2"}
    assert samples(told, "monitor_lag_records") == {("0",): 5}
    assert samples(told, "drift_statistic") == {}


def test_counters_are_there_before_they_count() -> None:
    """Each detector and each who rolls back, so that the first one is a rise that an alert sees."""
    told = MonitorMetrics("m")
    told.show(Shown(leads=True, drifts={"ks": 2}, rollbacks={"ann": 2, "bob": 1, "guard": 1}, promotions=4))
    drifts = {("adwin",): 0, ("page_hinkley",): 0, ("ks",): 2, ("psi",): 0, ("trend",): 0}
    assert samples(told, "drifts") == drifts
    assert samples(told, "rollbacks") == {("person",): 3, ("gate",): 0, ("guard",): 1}
    assert samples(told, "promotions") == {(): 4}


def test_people_and_parts_are_told_apart() -> None:
    """From the audit: who promoted does not matter, who rolled back does."""
    events = [("promote", "ann"), ("rollback", "guard"), ("promote", "gate"), ("pause", "ann"), ("rollback", "ann")]
    assert rollbacks_by_actor(events) == (2, {"guard": 1, "ann": 1})
    assert rollbacks_by_actor([]) == (0, {})


def test_trial_and_guard_are_shown_while_they_last() -> None:
    """Evidence and what is needed, by version; what ended is counted, and there before it counts; so is the budget."""
    told = MonitorMetrics("m")
    trial = TrialTold(
        version=4, against=3, verdict="v", mode="superiority", alpha=0.02, e_value=7.5, needed=50, steps=12
    )
    guard = GuardTold(version=3, previous=2, e_value=0.25, needed=100.0)
    gate = GateTold(trial=trial, guard=guard, counts={"ended": 2, "rolled back": 1})
    told.show(Shown(leads=True, gate=gate, alpha_spent=0.03, alpha_budget=0.2))
    figures_of = {
        "evidence": {("4",): 7.5}, "evidence_threshold": {("4",): 50}, "trial_steps": {("4",): 12},
        "guard_evidence": {("3",): 0.25}, "guard_evidence_threshold": {("3",): 100},
    }  # fmt: skip
    assert {name: samples(told, name) for name in figures_of} == figures_of
    assert samples(told, "approval_waiting") == {("4",): 0}
    gate.trial = msgspec.structs.replace(trial, state="waits for approval")
    told.show(Shown(leads=True, gate=gate, alpha_spent=0.03, alpha_budget=0.2))
    assert samples(told, "approval_waiting") == {("4",): 1}
    assert samples(told, "trials") == {("promoted",): 0, ("ended",): 2}
    assert (samples(told, "alpha_spent"), samples(told, "alpha_budget")) == ({(): 0.03}, {(): 0.2})
    told.show(Shown(leads=True))
    assert {name: samples(told, name) for name in figures_of} == {name: {} for name in figures_of}
