"""Panels of the HTTP API, for the dashboard of health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.panels import BLUE, Look, Query, Text, bar_gauge, lines
from grafana.promql import of, quantile, rate

if TYPE_CHECKING:
    from grafana.frame import Panels

REQUESTS = of("api_requests_total")
PANELS: Panels = (
    (
        12,
        lines(
            Text(
                "HTTP API: answers by status",
                "401 and 429 are requests without the right token, 409 changes that another one has overtaken, "
                "503 that Redis did not answer.",
                "KillickRedisDown",
            ),
            Look("cps", least=0.0, none="no API runs"),
            Query(rate(REQUESTS, "status"), "{{status}}"),
            stacked=True,
        ),
    ),
    (
        6,
        bar_gauge(
            Text("HTTP API: requests by route", "In the span that is shown.", "KillickRedisDown"),
            Look("short", 0, steps=((None, BLUE),), least=0.0, none="none"),
            Query(f"sum by (route) (round(increase({REQUESTS}[$__range])))", "{{route}}", instant=True),
        ),
    ),
    (
        6,
        lines(
            Text("HTTP API: time of an answer", "Of all routes, metrics among them.", "KillickRedisDown"),
            Look("s", 3, least=0.0, none="no API runs"),
            Query(quantile(0.5, "api_seconds"), "50 %"),
            Query(quantile(0.99, "api_seconds"), "99 %"),
        ),
    ),
)
