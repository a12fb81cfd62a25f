"""Is it keeping its skill? The dashboard of the score, the errors and the drift."""

from __future__ import annotations

from grafana.frame import WINDOWS, Page, Panels, Row, common_variables, dashboard, skill_variables
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
from grafana.promql import IN_WINDOW, SEEN, answering, happened, of, scored, skill

SCORE = Look("none", 2, steps=((None, RED), (0.0, YELLOW), (0.1, GREEN)), none="no version answers")
ERROR = Look("none", 3, least=0.0)
TREND = Look("none", words={"-1": ("falling", RED), "0": ("steady", BLUE), "1": ("rising", GREEN)}, none="not yet")
COUNT = Look("short", 0, steps=((None, GREEN),))
ANY_IS_BAD = Look("short", 0, steps=((None, GREEN), (1.0, RED)))
RATIO = Look("percentunit", 0, steps=((None, GREEN), (1.0, RED)), least=0.0)
NO_TREND = 'detector!="trend"'
SINGLE = 'lead!="all"'
INPUTS = 'detector=~"ks|psi"'
LOSSES = (("ADWIN", 'detector="adwin"'), ("Page-Hinkley", 'detector="page_hinkley"'))

BELOW = f"count({answering(skill(lead=SINGLE), 'version', 'lead')} < 0)"
ANSWER: Panels = (
    (
        6,
        stat(
            Text(
                "Skill of the version that answers",
                "1 - MSE / MSE of the reference, at the lead and over the window that are chosen. "
                "Above 0 it beats the reference; 0.3 means a mean squared error 30 % smaller.",
                "KillickSkillBelowReference",
            ),
            SCORE,
            Query(answering(skill()), "skill"),
        ),
    ),
    (
        6,
        stat(
            Text(
                "Trend of skill",
                "Whether daily skill is falling, steady or rising over the last 7 and 30 days "
                "(Theil-Sen slope; Mann-Kendall test, corrected for autocorrelation).",
                "KillickSkillFalling",
            ),
            TREND,
            Query(f"max by (window) ({of('skill_trend')})", "{{window}}", instant=True),
        ),
    ),
    (
        4,
        stat(
            Text(
                "Leads below the reference",
                "At how many leads the version that answers is worse than the reference over the window.",
                "KillickSkillBelowReference",
            ),
            ANY_IS_BAD,
            Query(f"{BELOW} or vector(0)", "leads", instant=True),
        ),
    ),
    (
        4,
        stat(
            Text(
                "Drifts",
                "Drifts in the span that is shown, of all detectors together.",
                "KillickLossDrift",
            ),
            Look("short", 0, steps=((None, GREEN), (1.0, YELLOW)), none="0"),
            Query(f"sum({happened(of('drifts_total'), 'detector')}) or vector(0)", "drifts", instant=True),
        ),
    ),
    (
        4,
        stat(
            Text(
                "Pairs in the window",
                "Observations of the window that the version that answers had a forecast for: "
                "with few of them a score says little.",
                "KillickMonitorBehind",
            ),
            COUNT,
            Query(answering(of("pairs", IN_WINDOW), "version"), "pairs", instant=True),
        ),
    ),
)

BY_WINDOW = tuple(
    Query(answering(skill(lead=SINGLE, window=f'window="{window}"'), "lead"), table=True) for window in WINDOWS
)
SKILL: Panels = (
    (
        15,
        lines(
            Text(
                "Skill by version",
                "The score of each version at the lead and over the window that are chosen; shadows too. "
                "The dashed line is the reference.",
                "KillickSkillBelowReference",
            ),
            Look("none", 2, steps=((None, "transparent"), (0.0, GREY))),
            Query(f"max by (version) ({skill(SEEN)})", "version {{version}}"),
            limit=True,
        ),
    ),
    (
        9,
        table(
            Text(
                "Skill by lead and window",
                "The version that answers, at each lead and over each window: where skill goes first.",
                "KillickSkillBelowReference",
            ),
            SCORE,
            Columns({"lead": "Lead"}, WINDOWS),
            *BY_WINDOW,
            colored=True,
        ),
    ),
    (
        12,
        lines(
            Text(
                "Against both references",
                "The version that answers against persistence (the last value) and seasonal naive "
                "(the value a period earlier). A stream where one of them gets better makes skill fall by itself.",
                "KillickSkillBelowReference",
            ),
            Look("none", 2, steps=((None, "transparent"), (0.0, GREY))),
            Query(answering(skill(reference='reference=~".+"'), "reference"), "{{reference}}"),
            limit=True,
        ),
    ),
    (
        12,
        lines(
            Text(
                "Over each window",
                "The version that answers over short and long windows: a short one below the long ones "
                "is skill that falls now.",
                "KillickSkillBelowReference",
            ),
            Look("none", 2, steps=((None, "transparent"), (0.0, GREY))),
            Query(answering(skill(window='window=~"1d|7d|30d"'), "window"), "{{window}}"),
            limit=True,
        ),
    ),
)

TOLD = (
    ("rmse", "RMSE", "Root of the mean squared error: large errors count most.", ERROR),
    ("mae", "MAE", "Mean absolute error.", ERROR),
    ("bias", "Bias", "Mean of forecast - observed: above 0 the forecasts are too high.", Look("none", 3)),
    (
        "mase_ratio",
        "MASE",
        "Mean absolute error over that of persistence at lead 1 in the same window.",
        Look("none", 2, least=0.0),
    ),
)
ERRORS: Panels = tuple(
    (
        6,
        lines(
            Text(
                f"{title} by version",
                f"{words} At the lead, window and scaling that are chosen; scaled errors are in units of "
                "their series' scale.",
                "KillickSkillBelowReference",
            ),
            look,
            Query(f"max by (version) ({scored(metric, SEEN)})", "version {{version}}"),
        ),
    )
    for metric, title, words, look in TOLD
)

STATISTIC = f"max by (detector) ({of('drift_statistic', NO_TREND)})"
THRESHOLD = f"max by (detector) ({of('drift_threshold', NO_TREND)})"
DRIFT: Panels = (
    (
        12,
        lines(
            Text(
                "How near each detector is",
                "Its statistic as a share of its threshold: at 100 % it reports a drift. "
                "A detector that still calibrates has no threshold and no line.",
                "KillickLossDrift",
            ),
            RATIO,
            Query(f"{STATISTIC} / {THRESHOLD}", "{{detector}}"),
            limit=True,
        ),
    ),
    (
        12,
        table(
            Text(
                "Detectors now",
                "Statistic, threshold and the drifts in the span that is shown.",
                "KillickLossDrift",
            ),
            Look("none", 3),
            Columns({"detector": "Detector"}, ("Statistic", "Threshold", "Drifts"), numeric=False),
            Query(f"max by (detector) ({of('drift_statistic')})", table=True),
            Query(f"max by (detector) ({of('drift_threshold')})", table=True),
            Query(happened(of("drifts_total"), "detector"), table=True),
            overrides=(override("Drifts", decimals=0),),
        ),
    ),
    *(
        (
            6,
            lines(
                Text(
                    f"{title} on the loss",
                    f"{title} watches the loss of the version that answers, one value per step of event time. "
                    "Dashed: its threshold, calibrated on the quiet losses after the promotion.",
                    "KillickLossDrift",
                ),
                Look("none", 2),
                Query(f"max by (detector) ({of('drift_statistic', only)})", "{{detector}}"),
                Query(f"max by (detector) ({of('drift_threshold', only)})", "{{detector}} threshold"),
                overrides=(dashed(".* threshold"),),
            ),
        )
        for title, only in LOSSES
    ),
    (
        6,
        lines(
            Text(
                "On the inputs",
                "Distance between the inputs of training and recent ones: Kolmogorov-Smirnov and the population "
                "stability index of the feature that moved most. Dashed: thresholds (drift.ks, drift.psi).",
                "KillickInputDrift",
            ),
            Look("none", 2, least=0.0),
            Query(f"max by (detector) ({of('drift_statistic', INPUTS)})", "{{detector}}"),
            Query(f"max by (detector) ({of('drift_threshold', INPUTS)})", "{{detector}} threshold"),
            overrides=(dashed(".* threshold"),),
        ),
    ),
    (
        6,
        states(
            Text(
                "Trend of skill over time",
                "What the test of daily skill said, over 7 and over 30 days.",
                "KillickSkillFalling",
            ),
            TREND,
            Query(f"max by (window) ({of('skill_trend')})", "{{window}}"),
        ),
    ),
)

PAIRS: Panels = (
    (
        12,
        lines(
            Text(
                "Pairs by version",
                "Pairs in the window, version by version: two scores compare only where both have many.",
                "KillickMonitorBehind",
            ),
            Look("short", 0, least=0.0),
            Query(f"max by (version) ({of('pairs', SEEN, IN_WINDOW)})", "version {{version}}"),
        ),
    ),
    (
        12,
        bar_gauge(
            Text(
                "Pairs by window",
                "Pairs of the version that answers in each window.",
                "KillickMonitorBehind",
            ),
            Look("short", 0, steps=((None, BLUE),), least=0.0),
            *(
                Query(answering(of("pairs", f'window="{window}"'), "window"), "{{window}}", instant=True)
                for window in WINDOWS
            ),
        ),
    ),
)


def page() -> Json:
    """The whole dashboard."""
    return dashboard(
        Page(
            uid="killick-skill",
            title="Killick: is it keeping its skill?",
            description="Skill of each version against persistence and seasonal naive, errors, and what drifts.",
            since="now-7d",
            refresh="1m",
            variables=(*common_variables(), *skill_variables()),
            rows=(
                Row("The answer", LOW, ANSWER),
                Row("Skill", HEIGHT + 1, SKILL),
                Row("Errors", HEIGHT, ERRORS),
                Row("Drift", HEIGHT, DRIFT),
                Row("What it is computed from", HEIGHT, PAIRS),
            ),
        )
    )
