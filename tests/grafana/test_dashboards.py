"""The dashboards: made by the program that is here, by the published rules, of metrics that there are."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from grafana import build
from grafana.frame import DATASOURCE_UID, REFERENCES, SCALINGS, SCHEMA, WINDOWS
from models import tally, windows
from tests.grafana import linter
from tests.grafana.exported import OF_EVERY_SERIES, exported
from tests.grafana.promql import bare_names, grouped_labels, selectors
from tests.grafana.queries import all_queries, dashboards, panels_of, queries_of, written_queries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.grafana.queries import Json

PAGES = dashboards()
ROOT = build.FOLDER.parents[1]


def spoiled(change: Callable[[Json], object]) -> Json:
    """A dashboard that a change made wrong."""
    page = copy.deepcopy(PAGES["health"])
    change(page)
    return page


def variable(page: Json, name: str) -> Json:
    """One variable of a dashboard."""
    return next(v for v in page["templating"]["list"] if v["name"] == name)


def panel(page: Json, kind: str = "timeseries") -> Json:
    """The first panel of a kind."""
    return next(p for p in page["panels"] if p["type"] == kind)


def query(expr: str, **more: Any) -> Callable[[Json], object]:
    """A change that gives a panel another query."""
    return lambda page: panel(page)["targets"][0].update(expr=expr, **more)


BROKEN: dict[str, list[Callable[[Json], object]]] = {
    "template-datasource-rule": [
        lambda page: page["templating"]["list"].pop(0),
        lambda page: variable(page, "datasource").update(name="ds"),
        lambda page: variable(page, "datasource").update(label="Source"),
    ],
    "template-job-rule": [
        lambda page: page["templating"]["list"].remove(variable(page, "job")),
        lambda page: variable(page, "job").update(multi=False),
        lambda page: variable(page, "job").update(allValue=".*"),
        lambda page: variable(page, "job").update(datasource={"uid": "other"}),
    ],
    "template-instance-rule": [lambda page: variable(page, "instance").update(label="Process")],
    "template-label-promql-rule": [
        lambda page: variable(page, "model")["query"].update(query="labels(killick_redis_up, model)"),
        lambda page: variable(page, "model")["query"].update(query="killick_redis_up"),
    ],
    "template-on-time-change-reload-rule": [lambda page: variable(page, "model").update(refresh=1)],
    "panel-datasource-rule": [
        lambda page: panel(page).update(datasource={"type": "prometheus", "uid": "mine"}),
        lambda page: panel(page)["targets"][0].pop("datasource"),
    ],
    "panel-title-description-rule": [
        lambda page: panel(page).update(title=""),
        lambda page: panel(page, "stat").pop("description"),
    ],
    "panel-units-rule": [
        lambda page: panel(page)["fieldConfig"]["defaults"].pop("unit"),
        lambda page: panel(page, "stat")["fieldConfig"]["defaults"].update(unit="furlongs"),
    ],
    "panel-no-targets-rule": [lambda page: panel(page, "stat").update(targets=[])],
    "target-logql-rule": [query('{app="killick"}', datasource={"type": "loki", "uid": "${datasource}"})],
    "target-logql-auto-rule": [
        query('rate({app="killick"}[5m])', datasource={"type": "loki", "uid": "${datasource}"}),
    ],
    "target-rate-interval-rule": [
        query('sum(rate(killick_forecasts_total{job=~"$job", instance=~"$instance"}[5m]))'),
    ],
    "target-job-rule": [
        query('killick_paused{instance=~"$instance"}'),
        query('killick_paused{job="$job", instance=~"$instance"}'),
    ],
    "target-instance-rule": [query('killick_paused{job=~"$job"}')],
    "target-counter-agg-rule": [
        query('killick_drifts_total{job=~"$job", instance=~"$instance"}'),
        query('delta(killick_drifts_total{job=~"$job", instance=~"$instance"}[$__range])'),
    ],
    "uneditable-dashboard": [lambda page: page.update(editable=True), lambda page: page.pop("editable")],
}


def test_the_committed_dashboards_are_what_the_program_writes() -> None:
    """Nobody edited the JSON by hand or forgot to write it anew, and there is no file beside the three."""
    assert build.stale() == []


def test_a_changed_dashboard_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with other text, one that is missing and one that nobody writes are told."""
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    (tmp_path / "health.json").write_text(json.dumps(PAGES["health"]), encoding="utf-8")
    (tmp_path / "mine.json").write_text("{}", encoding="utf-8")
    assert build.stale() == ["health.json", "mine.json", "retraining.json", "skill.json"]


@pytest.mark.parametrize("name", sorted(PAGES))
@pytest.mark.parametrize("rule", sorted(linter.RULES))
def test_the_dashboards_keep_the_published_rules(rule: str, name: str) -> None:
    """None of the linter's rules that need no PromQL parser finds anything."""
    assert linter.RULES[rule](PAGES[name]) == []


@pytest.mark.parametrize(("rule", "change"), [(rule, change) for rule, changes in BROKEN.items() for change in changes])
def test_what_breaks_a_published_rule_is_found(rule: str, change: Callable[[Json], object]) -> None:
    """Each rule finds the dashboard that breaks it."""
    assert linter.RULES[rule](spoiled(change)) != []


def test_every_published_rule_is_here() -> None:
    """All seventeen rules are checked, and each of them has a dashboard that breaks it."""
    assert len(linter.RULES) + 1 == 17
    assert set(BROKEN) == set(linter.RULES)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_query_is_valid(name: str, tmp_path: Path, promtool: str) -> None:
    """Promtool parses every query of panels, variables and annotations."""
    assert linter.target_promql(PAGES[name], tmp_path, promtool) == []


def test_an_invalid_query_is_found(tmp_path: Path, promtool: str) -> None:
    """A parenthesis that is not closed, in one panel, is told with its query's place."""
    assert linter.target_promql(spoiled(query('max(killick_paused{job=~"$job"}')), tmp_path, promtool) != []


def unknown(page: Json) -> list[str]:
    """Metrics and labels that a dashboard asks for and no process has; metrics that are written without braces."""
    there, wrong = exported(), []
    labels = frozenset[str]().union(*there.values())
    for where, written in written_queries(page):
        asked = re.fullmatch(r"label_values\((.+),\s*(\w+)\)", written)
        expr = re.sub(r"^(\w+)$", r"\1{}", asked[1]) if asked else written
        wrong += [f"{where}: {name} has no braces" for name in bare_names(expr)]
        wrong += [f"{where}: grouped by {label}" for label in grouped_labels(expr) if label not in labels]
        for one in selectors(expr):
            mine = there.get(one.metric, frozenset())
            wanted = {label for label, _, _ in one.matchers} | ({asked[2]} if asked else set())
            wrong += [f"{where}: no process has {one.metric}{{{label}}}" for label in sorted(wanted - mine)]
            wrong += [f"{where}: no process has {one.metric}"] * (one.metric not in there)
    return wrong


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_query_asks_for_what_there_is(name: str) -> None:
    """Every metric is one that our processes or Prometheus export, with the labels that the query uses."""
    assert unknown(PAGES[name]) == []


@pytest.mark.parametrize(
    "expr",
    [
        'killick_backtests_total{job=~"$job"}',
        'killick_paused{window="1d"}',
        "max by (weather) (killick_paused{})",
        "killick_paused > 0",
        "label_values(killick_redis_up{}, version)",
    ],
)
def test_a_query_for_what_nobody_exports_is_found(expr: str) -> None:
    """A metric, a matcher, a grouping or a variable's label that no process has is a finding; so is a bare metric."""
    assert unknown(spoiled(query(expr)))


def test_every_metric_is_shown() -> None:
    """Whatever our processes export, some panel shows."""
    shown = {one.metric for _, expr in all_queries() for one in selectors(expr)}
    missing = {name for name in exported() if name.startswith("killick_")} - shown
    assert {name for name in missing if not name.endswith(("_bucket", "_count", "_sum"))} == set()


def test_variables_are_replaced() -> None:
    """No query that is sent has a variable left, and a value that is given stands in all of them."""
    sent = all_queries({"model": "weather", "lead": "24"})
    assert sent
    assert not [expr for _, expr in sent if "$" in expr]
    assert [expr for _, expr in sent if 'model="weather"' in expr and 'lead="24"' in expr]
    assert not [expr for _, expr in sent if 'model="demo"' in expr]


def test_a_variable_that_is_not_there_is_found() -> None:
    """A query for a variable that its dashboard lacks can't be sent."""
    with pytest.raises(KeyError, match="weather"):
        list(queries_of(spoiled(query('killick_paused{model="$weather"}')), {}))


def test_what_can_be_chosen_is_what_there_is() -> None:
    """Windows, references and scalings are those of the monitor, in its order."""
    assert (WINDOWS, REFERENCES, SCALINGS) == (windows.WINDOWS, tally.REFERENCES, windows.SCALINGS)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_panel_has_a_runbook(name: str) -> None:
    """Each panel links to the page of an alert, which is there."""
    for one in panels_of(PAGES[name]):
        (link,) = one["links"]
        page = re.fullmatch(r"/api/datasources/proxy/uid/\$\{datasource\}/user/(Killick\w+\.md)", link["url"])
        assert page, one["title"]
        assert (ROOT / "docs" / "runbooks" / page[1]).is_file(), link["url"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_legends_name_labels_that_there_are(name: str) -> None:
    """`{{label}}` in a legend is one that the query keeps."""
    for one in panels_of(PAGES[name]):
        for target in one.get("targets", ()):
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= grouped_labels(target["expr"]) | OF_EVERY_SERIES, (one["title"], target["legendFormat"])


@pytest.mark.parametrize("name", sorted(PAGES))
def test_panels_stand_side_by_side(name: str) -> None:
    """Panels have numbers of their own, lie within the grid, and none lies on another."""
    panels = PAGES[name]["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for at in (one["gridPos"] for one in panels):
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_dashboards_know_each_other() -> None:
    """Each has an identifier of its own, the schema's number, and a link to the others by their tag."""
    assert {page["uid"] for page in PAGES.values()} == {"killick-skill", "killick-health", "killick-retraining"}
    for page in PAGES.values():
        (link,) = page["links"]
        assert set(link["tags"]) <= set(page["tags"])
        assert link["includeVars"]
        assert link["keepTime"]
        assert page["schemaVersion"] == SCHEMA


def test_provisioning_gives_what_the_dashboards_ask_for() -> None:
    """The data source that is provisioned is the one that the dashboards open with; nothing can be edited."""
    folder = ROOT / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    providers = yaml.safe_load((folder / "dashboards" / "killick.yml").read_text(encoding="utf-8"))
    (source,), (provider,) = sources["datasources"], providers["providers"]
    assert (source["uid"], source["type"], source["editable"]) == (DATASOURCE_UID, "prometheus", False)
    assert (provider["allowUiUpdates"], provider["disableDeletion"]) == (False, True)
    for page in PAGES.values():
        assert variable(page, "datasource")["current"]["value"] == source["uid"]
