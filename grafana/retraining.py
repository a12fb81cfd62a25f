"""What did retraining do? The dashboard of requests, evidence, versions and who changed them."""

from __future__ import annotations

from grafana.frame import Page, Panels, Row, common_variables, dashboard, skill_variables
from grafana.panels import (
    BLUE,
    GREEN,
    GREY,
    HEIGHT,
    LOW,
    RED,
    YELLOW,
    Columns,
    Json,
    Look,
    Query,
    Text,
    lines,
    override,
    stat,
    states,
    table,
)
from grafana.promql import IN_WINDOW, INCUMBENT, SEEN, happened, of, skill

PAUSED = Look("none", words={"0": ("goes on", GREEN), "1": ("paused", YELLOW)}, none="no monitor runs")

ROLLED_BACK = f"sum({happened(of('rollbacks_total'), 'actor')})"
ANSWER: Panels = (
    (
        4,
        stat(
            Text("Version that answers", "The incumbent, in every partition.", "KillickRolledBack"),
            Look("none", steps=((None, BLUE),), none="no consumer runs"),
            Query(f"max by (version) ({of('version_info', INCUMBENT)})", "{{version}}", instant=True),
            name=True,
        ),
    ),
    (
        4,
        stat(
            Text("Promotions", "In the span that is shown.", "KillickRolledBack"),
            Look("short", 0, steps=((None, BLUE),), none="0"),
            Query(f"{happened(of('promotions_total'))} or vector(0)", "promotions", instant=True),
        ),
    ),
    (
        4,
        stat(
            Text("Rollbacks", "In the span that is shown, whoever did them.", "KillickRolledBack"),
            Look("short", 0, steps=((None, GREEN), (1.0, RED)), none="0"),
            Query(f"{ROLLED_BACK} or vector(0)", "rollbacks", instant=True),
        ),
    ),
    (
        4,
        stat(
            Text("Requests waiting", "Requests for retraining that nobody took yet.", "KillickRetrainingWaits"),
            Look("short", 0, steps=((None, GREEN), (1.0, YELLOW), (5.0, RED)), none="no monitor runs"),
            Query(f"max({of('retraining_queue')})", "requests", instant=True),
        ),
    ),
    (
        4,
        stat(
            Text(
                "Oldest request",
                "How long the oldest of them waits; 0: none does.",
                "KillickRetrainingWaits",
            ),
            Look("s", 0, steps=((None, GREEN), (3600.0, YELLOW), (86_400.0, RED)), none="no monitor runs"),
            Query(f"max({of('retraining_oldest_request_seconds')})", "age", instant=True),
        ),
    ),
    (
        4,
        stat(
            Text(
                "Automatic promotion",
                "A rollback pauses it until killick resume; people can promote meanwhile.",
                "KillickPromotionPaused",
            ),
            PAUSED,
            Query(f"max({of('paused')})", "automatic promotion", instant=True),
        ),
    ),
)

ROLES = Look("none", words={"1": ("at work", BLUE)}, none="no consumer runs")
VERSIONS: Panels = (
    (
        14,
        states(
            Text(
                "Versions and their roles",
                "Which version answered (incumbent) and which read along (shadow), when.",
                "KillickRolledBack",
            ),
            ROLES,
            Query(f"max by (version, role) ({of('version_info', SEEN)})", "version {{version}}: {{role}}"),
        ),
    ),
    (
        10,
        table(
            Text(
                "The versions now",
                "Skill and pairs at the chosen lead and window, and when a version began to answer.",
                "KillickRolledBack",
            ),
            Look("none", 2),
            Columns({"version": "Version"}, ("Skill", "Pairs", "Answers since"), descending=True),
            Query(f"max by (version) ({skill(SEEN)})", table=True),
            Query(f"max by (version) ({of('pairs', SEEN, IN_WINDOW)})", table=True),
            Query(f"max by (version) ({of('version_activated_timestamp_seconds', SEEN)}) * 1000", table=True),
            overrides=(
                override("Pairs", unit="short", decimals=0),
                override("Answers since", unit="dateTimeAsIso"),
            ),
        ),
    ),
    (
        12,
        lines(
            Text(
                "Did it help? Skill by version",
                "The score of each version at the lead and over the window that are chosen: "
                "a promotion was right where the new line runs above the old one.",
                "KillickSkillBelowReference",
            ),
            Look("none", 2, steps=((None, "transparent"), (0.0, GREY))),
            Query(f"max by (version) ({skill(SEEN)})", "version {{version}}"),
            limit=True,
        ),
    ),
    (
        12,
        lines(
            Text(
                "Evidence of the candidate",
                "Live pairs that the candidate has been judged on so far.",
                "KillickRetrainingWaits",
            ),
            Look("short", 0, least=0.0, none="no candidate"),
            Query(f"max by (version) ({of('evidence', SEEN)})", "version {{version}}"),
        ),
    ),
)

REQUESTS: Panels = (
    (
        8,
        lines(
            Text(
                "Requests waiting over time",
                "What drift, people and the clock asked for.",
                "KillickRetrainingWaits",
            ),
            Look("short", 0, least=0.0),
            Query(f"max({of('retraining_queue')})", "requests"),
        ),
    ),
    (
        8,
        lines(
            Text("Age of the oldest request", "It grows while no retrainer takes it.", "KillickRetrainingWaits"),
            Look("s", least=0.0),
            Query(f"max({of('retraining_oldest_request_seconds')})", "age"),
        ),
    ),
    (
        8,
        lines(
            Text(
                "Drifts by detector",
                "Each puts a request with its evidence into the queue.",
                "KillickLossDrift",
            ),
            Look("short", 0, least=0.0),
            Query(happened(of("drifts_total"), "detector", over="$__rate_interval"), "{{detector}}"),
            bars=True,
            stacked=True,
        ),
    ),
    (
        8,
        lines(
            Text(
                "Promotions and rollbacks",
                "Rollbacks by who did them: a person, the gate or the guard.",
                "KillickRolledBack",
            ),
            Look("short", 0, least=0.0),
            Query(happened(of("promotions_total"), over="$__rate_interval"), "promotions"),
            Query(happened(of("rollbacks_total"), "actor", over="$__rate_interval"), "rolled back by {{actor}}"),
            bars=True,
            stacked=True,
        ),
    ),
    (
        8,
        lines(
            Text(
                "Generation of the registry",
                "It moves with every change of an alias, whoever made it (killick audit).",
                "KillickRolledBack",
            ),
            Look("short", 0),
            Query(f"max({of('registry_generation')})", "generation"),
        ),
    ),
    (
        8,
        states(
            Text("Automatic promotion over time", "When it was paused.", "KillickPromotionPaused"),
            PAUSED,
            Query(f"max({of('paused')})", "automatic promotion"),
        ),
    ),
)


def page() -> Json:
    """The whole dashboard."""
    return dashboard(
        Page(
            uid="killick-retraining",
            title="Killick: what did retraining do?",
            description="Requests, what asked for them, evidence, promotions, rollbacks, and the versions over time.",
            since="now-30d",
            refresh="5m",
            variables=(*common_variables(), *skill_variables()),
            rows=(
                Row("The answer", LOW, ANSWER),
                Row("Versions", HEIGHT, VERSIONS),
                Row("Requests and verdicts", HEIGHT, REQUESTS),
            ),
        )
    )
