"""What a dashboard's panels show, asked of a live Prometheus as Grafana would ask it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.grafana.queries import first_value, replaced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.grafana.queries import Json

TIMEOUT_S = 30.0
POINTS = 240  # of a line, about
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Span:
    """What is shown: from when to when, seconds, and how far apart the points are."""

    start: float
    end: float
    step: float

    @classmethod
    def until_now(cls, length_s: float, scrape_s: float) -> Span:
        """The last seconds, with points not denser than what was scraped."""
        step = max(scrape_s, round(length_s / POINTS))
        end = time.time() // step * step
        return cls(end - length_s, end, step)


@dataclass(frozen=True)
class Series:
    """One result of a query: what it is called, its labels, its points as (time, value)."""

    name: str
    labels: Mapping[str, str]
    points: Points

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


class Prometheus:
    """A Prometheus that answers over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def over(self, expr: str, span: Span) -> list[tuple[dict[str, str], Points]]:
        """The results of a query over a span."""
        asked = {"query": expr, "start": span.start, "end": span.end, "step": span.step}
        return [(one["metric"], _numbers(one["values"])) for one in self._ask("query_range", asked)["result"]]

    def now(self, expr: str, at: float) -> list[tuple[dict[str, str], Points]]:
        """The results of a query at one time."""
        found = self._ask("query", {"query": expr, "time": at})["result"]
        return [(one["metric"], _numbers([one["value"]])) for one in found]

    def values(self, label: str, selector: str) -> list[str]:
        """The values of a label among the series of a selector."""
        return list(self._ask(f"label/{label}/values", {"match[]": selector}))

    def alerts(self) -> list[Json]:
        """The alerts that fire or are about to."""
        return list(self._ask("alerts", {})["alerts"])

    def _ask(self, what: str, words: Mapping[str, object]) -> Any:
        address = f"{self._url}/api/v1/{what}?{urlencode(words)}"
        with urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the address is the user's own word
            return json.load(answer)["data"]


class Asked:
    """A dashboard's questions, with its variables as they are when it opens, or as given."""

    def __init__(
        self, prometheus: Prometheus, page: Json, span: Span, scrape_s: float, given: Mapping[str, str]
    ) -> None:
        models = prometheus.values("model", "killick_redis_up") or [""]
        self.variables = {v["name"]: first_value(v) for v in page["templating"]["list"]} | {"model": models[0], **given}
        rate = max(4 * scrape_s, span.step + scrape_s)
        times = {"__rate_interval": rate, "__interval": span.step, "__range": span.end - span.start}
        self._values = self.variables | {name: f"{max(1, round(value))}s" for name, value in times.items()}
        self._prometheus, self.page, self.span = prometheus, page, span

    def series(self, panel: Json) -> list[Series]:
        """The results of all queries of a panel, in their order."""
        return [one for target in panel["targets"] for one in self._answers(target)]

    def _answers(self, target: Json) -> list[Series]:
        expr = replaced(target["expr"], self._values)
        if target["instant"]:
            found = self._prometheus.now(expr, self.span.end)
        else:
            found = self._prometheus.over(expr, self.span)
        named = [Series(_name(target, labels), labels, points) for labels, points in found if points]
        return sorted(named, key=lambda one: _natural(one.name))

    def rows(self, panel: Json) -> tuple[list[str], list[list[str | float | None]]]:
        """A table's headings and rows: its queries merged by their labels, renamed, in order and sorted."""
        changes = {one["id"]: one["options"] for one in panel["transformations"]}
        merged: dict[tuple[tuple[str, str], ...], dict[str, str | float]] = {}
        for target in panel["targets"]:
            column = "Value" if len(panel["targets"]) == 1 else f"Value #{target['refId']}"
            for one in self._answers(target):
                key = tuple(sorted(one.labels.items()))
                merged.setdefault(key, dict(one.labels))[column] = one.last
        columns = sorted(changes["organize"]["indexByName"], key=changes["organize"]["indexByName"].__getitem__)
        sort = changes["sortBy"]["sort"][0]
        headings = [changes["organize"]["renameByName"][column] for column in columns]
        rows = [[row.get(column) for column in columns] for row in merged.values()]
        rows.sort(key=lambda row: _natural(str(row[headings.index(sort["field"])])), reverse=sort["desc"])
        return headings, rows

    def marks(self) -> list[tuple[float, str, str]]:
        """The annotations: when they began, their colour and their words."""
        found = []
        for one in self.page["annotations"]["list"]:
            if one.get("builtIn"):
                continue
            expr = replaced(one["target"]["expr"], self._values)
            for labels, points in self._prometheus.over(expr, self.span):
                above = [at for at, value in points if value > 0]
                begun = [at for i, at in enumerate(above) if i == 0 or at - above[i - 1] > 1.5 * self.span.step]
                words = _filled(one["textFormat"], labels)
                found += [(at, one["iconColor"], words) for at in begun if at > self.span.start + self.span.step]
        return sorted(found)

    def alerts(self) -> list[Json]:
        """The alerts of Prometheus' rules."""
        return self._prometheus.alerts()


def _name(target: Json, labels: Mapping[str, str]) -> str:
    if target["legendFormat"] != "__auto":
        return _filled(target["legendFormat"], labels)
    return ", ".join(labels.values()) or "value"


def _filled(text: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), text)


def _natural(text: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _numbers(points: list[tuple[float, str]]) -> Points:
    pairs = ((float(at), float(value)) for at, value in points)
    return [(at, value) for at, value in pairs if value == value and abs(value) != float("inf")]  # noqa: PLR0124 - NaN
