"""What the three dashboards share: variables, annotations, links between them, and how panels are laid out."""

from __future__ import annotations

from dataclasses import dataclass

from grafana.panels import DATASOURCE, Json
from grafana.promql import INCUMBENT, most, of

SCHEMA = 42  # of Grafana 13 (@grafana/schema 13.2)
TAG = "killick"
WIDTH = 24  # of Grafana's grid
DATASOURCE_UID = "killick-prometheus"  # grafana/provisioning/datasources
WINDOWS = ("1h", "1d", "7d", "30d", "life")
REFERENCES = ("persistence", "seasonal")
SCALINGS = ("scaled", "unscaled")


Panels = tuple[tuple[int, Json], ...]  # each with its width


@dataclass(frozen=True)
class Row:
    """A heading and the panels under it."""

    title: str
    height: int
    panels: Panels


@dataclass(frozen=True)
class Page:
    """One dashboard: the question that it answers is its title."""

    uid: str
    title: str
    description: str
    since: str  # the span that is shown first
    refresh: str
    variables: tuple[Json, ...]
    rows: tuple[Row, ...]


def dashboard(page: Page) -> Json:
    """The dashboard as Grafana reads it."""
    return {
        "uid": page.uid,
        "title": page.title,
        "description": page.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": page.since, "to": "now"},
        "refresh": page.refresh,
        "timezone": "browser",
        "timepicker": {},
        "links": [_links_between()],
        "templating": {"list": list(page.variables)},
        "annotations": {"list": _annotations()},
        "panels": _laid_out(page.rows),
    }


def common_variables() -> tuple[Json, ...]:
    """What is looked at: data source, model, job and instance."""
    here = 'killick_redis_up{model="$model"}'
    return (
        {
            "type": "datasource",
            "name": "datasource",
            "label": "Data source",
            "description": "The Prometheus that scrapes Killick.",
            "query": "prometheus",
            "regex": "",
            "multi": False,
            "includeAll": False,
            "hide": 0,
            "refresh": 1,
            "options": [],
            "current": {"text": "Killick", "value": DATASOURCE_UID, "selected": True},
        },
        _asked("model", "Model", "The named stream.", "label_values(killick_redis_up, model)"),
        _several("job", "Job", "Consumers, monitor, retrainer, HTTP API.", f"label_values({here}, job)"),
        _several("instance", "Instance", "Single processes.", f'label_values({here[:-1]}, job=~"$job"}}, instance)'),
    )


def skill_variables() -> tuple[Json, ...]:
    """Which skill is looked at: of which versions, at which lead, over which window, against whom, in which unit."""
    return (
        _several("version", "Version", "Versions to show.", f"label_values({of('pairs')}, version)", sort=4),
        _asked(
            "lead",
            "Lead",
            "Steps ahead; all: every lead pooled.",
            f"label_values({of('mae')}, lead)",
            sort=3,
            first="all",
        ),
        _listed("window", "Window", "Event time, in complete hours.", WINDOWS, "1d"),
        _listed("reference", "Reference", "The forecast to beat.", REFERENCES, "persistence"),
        _listed("scaling", "Scaling", "Errors over their series' scale, or in the target's unit.", SCALINGS, "scaled"),
    )


def _asked(name: str, label: str, description: str, query: str, *, sort: int = 1, first: str = "") -> Json:
    chosen = {"current": {"text": first, "value": first, "selected": True}} if first else {}
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": DATASOURCE,
        "query": {"qryType": 5, "query": query, "refId": f"variable-{name}"},
        "regex": "",
        "refresh": 2,
        "sort": sort,
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "options": [],
        **chosen,
    }


def _several(name: str, label: str, description: str, query: str, *, sort: int = 1) -> Json:
    everything = {"text": ["All"], "value": ["$__all"], "selected": True}
    more = {"multi": True, "includeAll": True, "allValue": ".+", "current": everything}
    return _asked(name, label, description, query, sort=sort) | more


def _listed(name: str, label: str, description: str, values: tuple[str, ...], first: str) -> Json:
    options = [{"text": value, "value": value, "selected": value == first} for value in values]
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "description": description,
        "query": ",".join(values),
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "options": options,
        "current": next(option for option in options if option["selected"]),
    }


def _links_between() -> Json:
    return {
        "type": "dashboards",
        "title": "Killick",
        "url": "",
        "icon": "external link",
        "tooltip": "The other questions",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
    }


def _annotations() -> list[Json]:
    """Marks over every panel; a query that is above zero marks that time."""
    incumbent = of("version_info", INCUMBENT)
    return [
        {
            "builtIn": 1,
            "name": "Annotations & Alerts",
            "datasource": {"type": "grafana", "uid": "-- Grafana --"},
            "enable": True,
            "hide": True,
            "iconColor": "rgba(0, 211, 255, 1)",
            "type": "dashboard",
        },
        _mark(
            "New incumbent",
            "blue",
            f"max by (version) ({incumbent}) unless max by (version) ({incumbent} offset 5m)",
            "version {{version}} answers",
        ),
        _mark("Promotions", "green", _moved("promotions_total"), "promoted"),
        _mark("Rollbacks", "red", _moved("rollbacks_total", "actor"), "rolled back by {{actor}}"),
        _mark("Drifts", "orange", _moved("drifts_total", "detector"), "drift: {{detector}}"),
        _mark(
            "Alerts",
            "dark-red",
            'max by (alertname, severity) (ALERTS{alertstate="firing", alertname=~"Killick.*"})',
            "{{alertname}}",
        ),
    ]


def _moved(counter: str, *by: str) -> str:
    return f"{most(*by)} (increase({of(counter)}[5m])) > 0"


def _mark(name: str, color: str, expr: str, words: str) -> Json:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "target": {"refId": "Anno", "editorMode": "code", "expr": expr, "legendFormat": "", "range": True},
        "titleFormat": name,
        "textFormat": words,
        "useValueForTime": False,
    }


def _laid_out(rows: tuple[Row, ...]) -> list[Json]:
    """The panels with their places and numbers, each row under the one before."""
    placed: list[Json] = []
    y = 0
    for row in rows:
        heading = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        placed.append(
            {
                "type": "row",
                "id": len(placed) + 1,
                "title": row.title,
                "collapsed": False,
                "gridPos": heading,
                "panels": [],
            }
        )
        y, x = y + 1, 0
        for width, panel in row.panels:
            place = {"h": row.height, "w": width, "x": x, "y": y}
            placed.append({"id": len(placed) + 1, "gridPos": place, **panel})
            x += width
            if x == WIDTH:
                x, y = 0, y + row.height
        if x:
            raise ValueError(f"the panels under {row.title!r} do not fill their last line of {WIDTH} columns")
    return placed
