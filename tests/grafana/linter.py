"""The seventeen rules that grafana/dashboard-linter publishes (docs/index.md there), written anew for our dashboards.

Each is a function from a dashboard to its findings. They are stricter than the originals in one thing: they look at
panels of every type, where the linter leaves some out. Validity of PromQL is promtool's word.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import yaml

from tests.grafana.promql import selectors
from tests.grafana.queries import queries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.grafana.queries import Json

# Of Grafana's units those that a service's dashboard may need.
UNITS = {
    "none", "string", "short", "percent", "percentunit", "bytes", "decbytes", "Bps", "s", "ms", "dtdurations",
    "dateTimeAsIso", "dateTimeFromNow", "cps", "ops", "reqps", "bool", "bool_yes_no", "bool_on_off",
}  # fmt: skip
WITHOUT_QUERIES = {"row", "text", "alertlist", "dashlist"}
RATES = {"rate", "irate"}
QUESTIONS = {"label_names", "label_values", "metrics", "query_result"}


def variables(page: Json, kind: str) -> list[Json]:
    """The variables of one kind."""
    return [v for v in page["templating"]["list"] if v["type"] == kind]


def panels(page: Json) -> list[Json]:
    """The panels that ask for data."""
    return [p for p in page["panels"] if p["type"] not in WITHOUT_QUERIES]


def targets(page: Json) -> Iterator[tuple[str, Json]]:
    """Every panel's title and each of its queries."""
    return ((p["title"], t) for p in panels(page) for t in p.get("targets") or ())


def template_datasource(page: Json) -> list[str]:
    """The data source is a variable with the usual name and label."""
    found = variables(page, "datasource")
    if not found:
        return ["there is no variable for the data source"]
    named = [v for v in found if v["name"] not in {"datasource", "prometheus_datasource"}]
    labelled = [v for v in found if v["label"] not in {"Data source", "Prometheus data source"}]
    return [f"the data source's variable is named {v['name']}" for v in named] + [
        f"the data source's variable is labelled {v['label']}" for v in labelled
    ]


def template_job(page: Json) -> list[str]:
    """Jobs can be chosen, several or all."""
    return _template(page, "job")


def template_instance(page: Json) -> list[str]:
    """Instances can be chosen, several or all."""
    return _template(page, "instance")


def _template(page: Json, name: str) -> list[str]:
    one = next((v for v in page["templating"]["list"] if v["name"] == name), None)
    if one is None:
        return [f"there is no variable {name}"]
    wanted = {"type": "query", "label": name.title(), "multi": True, "allValue": ".+"}
    wrong = [
        f"{name}: {key} is {one.get(key)!r}, not {value!r}" for key, value in wanted.items() if one.get(key) != value
    ]
    if (one.get("datasource") or {}).get("uid") not in {"$datasource", "${datasource}"}:
        wrong.append(f"{name} does not ask the chosen data source")
    return wrong


def template_label_promql(page: Json) -> list[str]:
    """Variables ask by a function that Grafana knows."""
    wrong = []
    for variable in variables(page, "query"):
        asked = re.match(r"([a-z_]+)\((.+)\)", variable["query"]["query"])
        if asked is None or asked[1] not in QUESTIONS:
            wrong.append(f"variable {variable['name']}: {variable['query']['query']}")
    return wrong


def template_on_time_change_reload(page: Json) -> list[str]:
    """Variables are asked again when the shown span changes."""
    return [f"variable {v['name']}: refresh {v['refresh']}" for v in variables(page, "query") if v["refresh"] != 2]


def panel_datasource(page: Json) -> list[str]:
    """Panels and their queries ask the chosen data source."""
    chosen = {f"${v['name']}" for v in variables(page, "datasource")}
    chosen |= {f"${{{v['name']}}}" for v in variables(page, "datasource")}
    asking = [(p["title"], p) for p in panels(page)] + list(targets(page))
    return [f"{title!r} asks {one.get('datasource')}" for title, one in asking if _uid(one) not in chosen]


def _uid(one: Json) -> str:
    return str((one.get("datasource") or {}).get("uid"))


def panel_title_description(page: Json) -> list[str]:
    """Panels have a title and a description."""
    wanted = [p for p in page["panels"] if p["type"] != "row"]
    return [f"panel {p['id']}: {p.get('title')!r}" for p in wanted if not p.get("title") or not p.get("description")]


def panel_units(page: Json) -> list[str]:
    """Panels have units that Grafana knows."""
    wrong = []
    for panel in panels(page):
        config = panel.get("fieldConfig", {})
        units = [config.get("defaults", {}).get("unit", "")]
        units += [p["value"] for o in config.get("overrides", ()) for p in o["properties"] if p["id"] == "unit"]
        wrong += [f"{panel['title']!r}: unit {unit!r}" for unit in units if unit not in UNITS]
    return wrong


def panel_no_targets(page: Json) -> list[str]:
    """Panels ask for something."""
    return [f"{p['title']!r} asks nothing" for p in panels(page) if not p.get("targets")]


def target_logql(page: Json) -> list[str]:
    """Queries to Loki are valid: here there are none."""
    return [f"{title!r} asks Loki" for title, t in targets(page) if (t.get("datasource") or {}).get("type") == "loki"]


def target_logql_auto(page: Json) -> list[str]:
    """Queries to Loki look back over $__auto: a range of a fixed length is a finding."""
    return [
        f"{title!r}: {t['expr']}"
        for title, t in targets(page)
        if (t.get("datasource") or {}).get("type") == "loki" and re.search(r"\[(?!\$__auto)", t["expr"])
    ]


def target_promql(page: Json, folder: Path, promtool: str) -> list[str]:
    """Queries are valid: promtool reads each as a recording rule, those of annotations and variables too."""
    rules = [
        {"record": f"query:{index}", "expr": expr, "labels": {"where": where}}
        for index, (where, expr) in enumerate(queries_of(page, {}))
    ]
    path = folder / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    words = [promtool, "check", "rules", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return [] if done.returncode == 0 else [line for line in done.stderr.splitlines() if "could not parse" in line]


def target_rate_interval(page: Json) -> list[str]:
    """Rates look back over $__rate_interval."""
    return [
        f"{title!r}: {one.caller} over {one.range}"
        for title, t in targets(page)
        for one in selectors(t["expr"])
        if one.range and one.caller in RATES and one.range not in {"$__rate_interval", "${__rate_interval}"}
    ]


def target_job(page: Json) -> list[str]:
    """Every selector has the chosen jobs."""
    return _matcher(page, "job")


def target_instance(page: Json) -> list[str]:
    """Every selector has the chosen instances."""
    return _matcher(page, "instance")


def _matcher(page: Json, name: str) -> list[str]:
    wanted = (name, "=~", f"${name}")
    return [
        f"{title!r}: {one.metric} without {name}"
        for title, t in targets(page)
        for one in selectors(t["expr"])
        if wanted not in one.matchers
    ]


def target_counter_agg(page: Json) -> list[str]:
    """Counters are read by rate, irate or increase only."""
    return [
        f"{title!r}: {one.metric} by {one.caller or 'nothing'}"
        for title, t in targets(page)
        for one in selectors(t["expr"])
        if one.metric.endswith("_total") and not (one.range and one.caller in RATES | {"increase"})
    ]


def uneditable_dashboard(page: Json) -> list[str]:
    """The dashboard can't be edited."""
    return [] if page.get("editable") is False else ["it can be edited"]


RULES: dict[str, Callable[[Json], list[str]]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": template_job,
    "template-instance-rule": template_instance,
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-logql-rule": target_logql,
    "target-logql-auto-rule": target_logql_auto,
    # target-promql-rule: target_promql, which needs promtool
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": target_job,
    "target-instance-rule": target_instance,
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable_dashboard,
}
