"""Panels as Grafana's JSON has them: each has a title, a description, a unit and a link to what it means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
RED, YELLOW, GREEN, BLUE, GREY = "red", "yellow", "green", "blue", "text"
# Prometheus serves docs/runbooks (--web.user-assets), and Grafana passes on what its data source serves.
RUNBOOKS = "/api/datasources/proxy/uid/${datasource}/user"
HEIGHT = 8  # of a panel that shows time, in rows of Grafana's grid
LOW = 4  # of a number


@dataclass(frozen=True)
class Query:
    """One query and what its results are called; `table` asks for one row per series, now."""

    expr: str
    legend: str = ""
    instant: bool = False
    table: bool = False

    def target(self, index: int) -> Json:
        """The query as a panel's target."""
        return {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "format": "table" if self.table else "time_series",
            "instant": self.instant or self.table,
            "range": not (self.instant or self.table),
            "legendFormat": self.legend or "__auto",
        }


@dataclass(frozen=True)
class Text:
    """What a panel says of itself: its title, what it shows and how to read it, and the runbook."""

    title: str
    description: str
    page: str  # the runbook: an alert's name


@dataclass(frozen=True)
class Look:
    """How values are written and coloured: unit, decimals, colours from a value on, words for values."""

    unit: str
    decimals: int | None = None
    steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    words: dict[str, tuple[str, str]] = field(default_factory=dict)  # value → (word, colour)
    least: float | None = None
    most: float | None = None
    none: str = ""  # what stands where there is no value

    def defaults(self, color: str, custom: Json) -> Json:
        """The defaults of a panel's fields."""
        made: Json = {
            "unit": self.unit,
            "color": {"mode": color},
            "custom": custom,
            "thresholds": {"mode": "absolute", "steps": [{"color": c, "value": v} for v, c in self.steps]},
        }
        if self.words:
            options = {
                value: {"text": word, "color": shade, "index": i}
                for i, (value, (word, shade)) in enumerate(self.words.items())
            }
            made["mappings"] = [{"type": "value", "options": options}]
        given = {"decimals": self.decimals, "min": self.least, "max": self.most, "noValue": self.none or None}
        return made | {name: value for name, value in given.items() if value is not None}


def override(name: str, **properties: Any) -> Json:
    """Other properties for one result, by its name; `custom__x` stands for `custom.x`."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def dashed(pattern: str) -> Json:
    """Results whose name matches are dashed lines: thresholds, limits."""
    return {
        "matcher": {"id": "byRegexp", "options": pattern},
        "properties": [
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}},
            {"id": "custom.fillOpacity", "value": 0},
        ],
    }


def stat(text: Text, look: Look, *queries: Query, name: bool = False, overrides: tuple[Json, ...] = ()) -> Json:
    """The last value of each query as a number; with `name` the result's name is the answer, not its value."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "auto",
        "colorMode": "value",
        "graphMode": "none" if queries[0].instant or look.words else "area",
        "justifyMode": "auto",
        "textMode": "name" if name else "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }
    return _panel("stat", text, look.defaults("thresholds", {}), options, queries, overrides=overrides)


def lines(
    text: Text,
    look: Look,
    *queries: Query,
    bars: bool = False,
    stacked: bool = False,
    limit: bool = False,
    logarithmic: bool = False,
    overrides: tuple[Json, ...] = (),
) -> Json:
    """Values over time; `limit` draws the look's thresholds as lines."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1 if bars else 2,
        "fillOpacity": 60 if bars else 15 if stacked else 0,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if limit else "off"},
        "scaleDistribution": {"type": "log", "log": 10} if logarithmic else {"type": "linear"},
    }
    options = {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    color = "palette-classic-by-name"
    return _panel("timeseries", text, look.defaults(color, custom), options, queries, overrides=overrides)


def states(text: Text, look: Look, *queries: Query) -> Json:
    """Which state held when, one row per result."""
    options = {
        "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
        "showValue": "auto",
        "rowHeight": 0.8,
        "mergeValues": True,
        "alignValue": "left",
    }
    custom = {"fillOpacity": 75, "lineWidth": 0}
    return _panel("state-timeline", text, look.defaults("thresholds", custom), options, queries)


def bar_gauge(text: Text, look: Look, *queries: Query) -> Json:
    """The last value of each result as a bar."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "namePlacement": "left",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 16,
        "maxVizHeight": 60,
        "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
    }
    return _panel("bargauge", text, look.defaults("thresholds", {}), options, queries)


@dataclass(frozen=True)
class Columns:
    """A table's key and its further columns: one for each query, in their order."""

    keys: dict[str, str]  # label → heading
    values: tuple[str, ...]  # headings
    numeric: bool = True  # whether the first key is a number, and sorts as one
    descending: bool = False


def table(
    text: Text, look: Look, columns: Columns, *queries: Query, colored: bool = False, overrides: tuple[Json, ...] = ()
) -> Json:
    """One row per key, now: the results of all queries side by side."""
    names = {f"Value #{chr(ord('A') + i)}": heading for i, heading in enumerate(columns.values)}
    if len(queries) == 1:
        names = {"Value": columns.values[0]}
    shown = {**columns.keys, **names}
    first, heading = next(iter(columns.keys.items()))
    changes: list[Json] = [{"id": "merge", "options": {}}]
    if columns.numeric:
        conversions = [{"targetField": first, "destinationType": "number"}]
        changes.append({"id": "convertFieldType", "options": {"conversions": conversions, "fields": {}}})
    order = {name: place for place, name in enumerate(shown)}
    organized = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": shown}
    changes += [
        {"id": "organize", "options": organized},
        {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": heading, "desc": columns.descending}]}},
    ]
    plain = {"align": "auto", "inspect": False, "cellOptions": {"type": "auto"}}
    cells = {**plain, "cellOptions": {"type": "color-text" if colored else "auto"}}
    keys = [
        override(name, custom__cellOptions={"type": "auto"}, unit="none" if columns.numeric else "string")
        for name in columns.keys.values()
    ]
    options = {"showHeader": True, "cellHeight": "sm", "frameIndex": 0}
    made = _panel("table", text, look.defaults("thresholds", cells), options, queries, (*keys, *overrides))
    return made | {"transformations": changes}


def alerts(text: Text) -> Json:
    """The alerts that fire or are about to, with their runbooks: Grafana asks its data sources for them."""
    options = {
        "viewMode": "list",
        "groupMode": "default",
        "groupBy": [],
        "maxItems": 20,
        "sortOrder": 3,
        "dashboardAlerts": False,
        "alertName": "Killick",
        "alertInstanceLabelFilter": "",
        "stateFilter": {"firing": True, "pending": True, "noData": False, "normal": False, "error": True},
    }
    made = _panel("alertlist", text, {}, options, ())
    del made["targets"], made["datasource"]
    return made


def _panel(
    kind: str, text: Text, defaults: Json, options: Json, queries: tuple[Query, ...], overrides: tuple[Json, ...] = ()
) -> Json:
    return {
        "type": kind,
        "title": text.title,
        "description": text.description,
        "links": [link("What it means, and what to do", f"{RUNBOOKS}/{text.page}.md")],
        "datasource": DATASOURCE,
        "targets": [query.target(index) for index, query in enumerate(queries)],
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
    }


def link(title: str, url: str) -> Json:
    """A link to a page, in a tab of its own."""
    return {
        "type": "link",
        "title": title,
        "url": url,
        "icon": "doc",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": False,
        "targetBlank": True,
    }
