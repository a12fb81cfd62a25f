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
    bar_gauge,
    dashed,
    lines,
    override,
    stat,
    states,
    table,
)
from grafana.promql import IN_WINDOW, INCUMBENT, SEEN, happened, mean_over_range, of, skill

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
            Text(
                "Requests waiting",
                "Requests for retraining that no verdict has answered yet.",
                "KillickRetrainingWaits",
            ),
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
)

LEVEL = Look("percentunit", 1, steps=((None, GREEN), (0.5, YELLOW), (0.8, RED)), least=0.0, none="no monitor runs")
APPROVAL = Look("none", words={"0": ("not yet", BLUE), "1": ("waits", YELLOW)}, none="no trial")
TRIALS: Panels = (
    (
        8,
        lines(
            Text(
                "Evidence of the candidate",
                "The e-value of its live trial and the value that proves it (dashed), both on a log scale: that it is "
                "better; after a drift, that it is worse, which ends the trial.",
                "KillickApprovalWaits",
            ),
            Look("short", 2, none="no trial"),
            Query(f"max by (version) ({of('evidence', SEEN)})", "version {{version}}"),
            Query(f"max by (version) ({of('evidence_threshold', SEEN)})", "needed for version {{version}}"),
            logarithmic=True,
            overrides=(dashed("needed.*"),),
        ),
    ),
    (
        8,
        lines(
            Text(
                "Evidence of the guard",
                "The e-value that the version that answered before is better than the one that answers, and the value "
                "at which the guard rolls back (dashed), both on a log scale.",
                "KillickGuardRolledBack",
            ),
            Look("short", 2, none="no guard"),
            Query(f"max by (version) ({of('guard_evidence', SEEN)})", "against version {{version}}"),
            Query(f"max by (version) ({of('guard_evidence_threshold', SEEN)})", "rolls version {{version}} back"),
            logarithmic=True,
            overrides=(dashed("rolls.*"),),
        ),
    ),
    (
        8,
        lines(
            Text(
                "Steps of the trial",
                "Event-time steps in which candidate and incumbent both have live forecasts.",
                "KillickApprovalWaits",
            ),
            Look("short", 0, least=0.0, none="no trial"),
            Query(f"max by (version) ({of('trial_steps', SEEN)})", "version {{version}}"),
        ),
    ),
    (
        6,
        stat(
            Text(
                "Spent of the budget",
                "What live trials have spent of the level that all of them together may take (judgement.budget). "
                "What is spent is spent for good; trials get a tenth of what is left.",
                "KillickBudgetNearlySpent",
            ),
            LEVEL,
            Query(f"max({of('alpha_spent')} / {of('alpha_budget')})", "spent", instant=True),
        ),
    ),
    (
        6,
        lines(
            Text(
                "The budget over time",
                "What live trials have spent, and what they may spend in all (dashed).",
                "KillickBudgetNearlySpent",
            ),
            Look("percentunit", 1, least=0.0),
            Query(f"max({of('alpha_spent')})", "spent"),
            Query(f"max({of('alpha_budget')})", "budget"),
            overrides=(dashed("budget"),),
        ),
    ),
    (
        6,
        states(
            Text(
                "Sign-off",
                "Whether the candidate has won and waits for a person (killick approve).",
                "KillickApprovalWaits",
            ),
            APPROVAL,
            Query(f"max by (version) ({of('approval_waiting', SEEN)})", "version {{version}}"),
        ),
    ),
    (
        6,
        lines(
            Text(
                "Trials that are over",
                "Promoted, or ended: no better within the deadline, worse, or overtaken.",
                "KillickGuardRolledBack",
            ),
            Look("short", 0, least=0.0),
            Query(happened(of("trials_total"), "outcome", over="$__rate_interval"), "{{outcome}}"),
            bars=True,
            stacked=True,
        ),
    ),
)

ENDED = of("retrainings_total")
VERDICTS: Panels = (
    (
        8,
        lines(
            Text(
                "Verdicts",
                "How retrainings ended: promote (a candidate goes on trial), reject, inconclusive, failed.",
                "KillickRetrainingFails",
            ),
            Look("short", 0, least=0.0, none="no retrainer runs"),
            Query(f"sum by (outcome) (round(increase({ENDED}[$__rate_interval])))", "{{outcome}}"),
            bars=True,
            stacked=True,
        ),
    ),
    (
        8,
        bar_gauge(
            Text(
                "Outcomes by trigger",
                "In the span that is shown: what asked for a retraining, and what came of it.",
                "KillickRetrainingFails",
            ),
            Look("short", 0, steps=((None, BLUE),), least=0.0, none="none"),
            Query(
                f"sum by (trigger, outcome) (round(increase({ENDED}[$__range])))",
                "{{trigger}}: {{outcome}}",
                instant=True,
            ),
        ),
    ),
    (
        8,
        stat(
            Text(
                "Time of a retraining",
                "From taking a request up to its verdict, in the span that is shown: how many, and their mean.",
                "KillickRetrainingFails",
            ),
            Look("s", 0, steps=((None, BLUE),), none="none"),
            Query(f"round(sum(increase({of('retraining_seconds_count')}[$__range])))", "retrainings", instant=True),
            Query(mean_over_range("retraining_seconds"), "a retraining", instant=True),
            overrides=(override("retrainings", unit="short", decimals=0),),
        ),
    ),
    (
        12,
        states(
            Text("Retrainers", "Which of them is at work; the others stand by.", "KillickRetrainingWaits"),
            Look("none", words={"0": ("stands by", BLUE), "1": ("trains", GREEN)}, none="no retrainer runs"),
            Query(f"max by (instance) ({of('retraining_running')})", "{{instance}}"),
        ),
    ),
    (
        12,
        lines(
            Text(
                "Trainings done",
                "Of the retraining that is under way: a plan holds one for each strategy, learning rate and span, and "
                "repeats of the best.",
                "KillickRetrainingWaits",
            ),
            Look("short", 0, least=0.0, none="no retrainer runs"),
            Query(f"max by (instance) ({of('retraining_attempts')})", "{{instance}}"),
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
            Text("Age of the oldest request", "It grows while no retrainer answers it.", "KillickRetrainingWaits"),
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
        12,
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
        12,
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
            description="Requests, verdicts, live trials with their evidence, promotions, rollbacks, versions.",
            since="now-30d",
            refresh="5m",
            variables=(*common_variables(), *skill_variables()),
            rows=(
                Row("The answer", LOW, ANSWER),
                Row("Versions", HEIGHT, VERSIONS),
                Row("Live trial and guard", HEIGHT, TRIALS),
                Row("Retrainings and verdicts", HEIGHT, VERDICTS),
                Row("Requests and the registry", HEIGHT, REQUESTS),
            ),
        )
    )
