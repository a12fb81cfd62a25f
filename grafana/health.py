"""Is it healthy? The dashboard of the stream, the ledger, Redis, the monitor and the archive."""

from __future__ import annotations

from grafana import api
from grafana.frame import Page, Panels, Row, common_variables, dashboard
from grafana.panels import (
    BLUE,
    GREEN,
    HEIGHT,
    LOW,
    RED,
    YELLOW,
    Json,
    Look,
    Query,
    Text,
    alerts,
    bar_gauge,
    dashed,
    lines,
    override,
    stat,
    states,
)
from grafana.promql import happened, mean_over_range, of, quantile, rate

SECONDS = Look("s", 3, least=0.0)
RECORDS = Look("short", 0, least=0.0)
PER_SECOND = Look("cps", least=0.0)
ANY_IS_BAD = Look("short", 0, steps=((None, GREEN), (1.0, RED)), none="0")
UP = Look("none", words={"0": ("down", RED), "1": ("up", GREEN)}, none="no process runs")
YES_NO = Look("none", words={"0": ("follows", GREEN), "1": ("diverged", RED)}, none="no swap yet")
LEADS = Look("none", words={"0": ("stands by", BLUE), "1": ("leads", GREEN)}, none="no monitor runs")
OURS = 'up{job=~"$job", job=~"killick-.+", instance=~"$instance"}'

OUTCOMES = of("observations_total")
REFUSED = of("observations_total", 'outcome="refused"')
SHARE = f"sum(increase({REFUSED}[$__range])) / sum(increase({OUTCOMES}[$__range]))"
BROKEN = " + ".join(
    f"(sum(increase({of(name)}[$__range])) or vector(0))"
    for name in ("ledger_rewinds_total", "replay_mismatches_total", "lost_records_total")
)
ANSWER: Panels = (
    (
        3,
        stat(
            Text("Processes down", "Processes that Prometheus can't scrape.", "KillickConsumerDown"),
            ANY_IS_BAD,
            Query(f"count({OURS} == 0) or vector(0)", "down", instant=True),
        ),
    ),
    (
        4,
        stat(
            Text("Forecasts a second", "Forecasts issued and committed, of all consumers.", "KillickForecastsStopped"),
            PER_SECOND,
            Query(rate(of("forecasts_total")), "forecasts"),
        ),
    ),
    (
        4,
        stat(
            Text(
                "Latency, 99 %",
                "From poll to acknowledged forecast: 99 % took no longer.",
                "KillickLatencyHigh",
            ),
            Look("s", 3, steps=((None, GREEN), (0.25, YELLOW), (2.5, RED)), none="no forecasts"),
            Query(quantile(0.99, "forecast_latency_seconds"), "99 %"),
        ),
    ),
    (
        4,
        stat(
            Text("Lag", "Records in the log that no consumer polled yet, all partitions.", "KillickConsumerLag"),
            Look("short", 0, steps=((None, GREEN), (10_000.0, YELLOW), (100_000.0, RED)), none="no partition"),
            Query(f"sum(max by (partition) ({of('consumer_lag_records')}))", "records"),
        ),
    ),
    (
        3,
        stat(
            Text(
                "Refused",
                "Share of the records in the span that is shown that became dead letters.",
                "KillickDeadLetters",
            ),
            Look("percentunit", 2, steps=((None, GREEN), (0.001, YELLOW), (0.01, RED)), none="0 %"),
            Query(f"{SHARE} or vector(0)", "refused", instant=True),
        ),
    ),
    (
        3,
        stat(
            Text("Redis", "Whether the last call to Redis was answered, for every process.", "KillickRedisDown"),
            UP,
            Query(f"min({of('redis_up')})", "Redis", instant=True),
        ),
    ),
    (
        3,
        stat(
            Text(
                "Must stay 0",
                "Ledger rewinds, replay mismatches and records that the log deleted unread, in the shown span.",
                "KillickLedgerRewound",
            ),
            ANY_IS_BAD,
            Query(f"round({BROKEN})", "events", instant=True),
        ),
    ),
)

BRIDGED = [
    Query(f"sum(increase({of(name)}[$__rate_interval]))", words)
    for name, words in (
        ("gaps_bridged_total", "gaps bridged"),
        ("series_resets_total", "series begun anew"),
        ("lost_records_total", "records lost"),
    )
]
STREAM: Panels = (
    (
        8,
        alerts(
            Text(
                "Alerts",
                "Alerts of Killick's rules that fire or are about to; each links to its runbook.",
                "KillickForecastsStopped",
            )
        ),
    ),
    (
        8,
        lines(
            Text("Records by outcome", "What became of the records that were read.", "KillickObservationsStopped"),
            PER_SECOND,
            Query(rate(of("observations_total"), "outcome"), "{{outcome}}"),
            stacked=True,
        ),
    ),
    (
        8,
        lines(
            Text("Refusals by reason", "Dead letters, by what was wrong with them.", "KillickDeadLetters"),
            Look("short", least=0.0),
            Query(f"sum by (reason) (increase({of('dead_letters_total')}[$__rate_interval]))", "{{reason}}"),
            bars=True,
            stacked=True,
        ),
    ),
    (
        8,
        lines(
            Text(
                "Latency",
                "From poll to acknowledged forecast, weighted by forecast.",
                "KillickLatencyHigh",
            ),
            SECONDS,
            Query(quantile(0.5, "forecast_latency_seconds"), "50 %"),
            Query(quantile(0.99, "forecast_latency_seconds"), "99 %"),
        ),
    ),
    (
        8,
        lines(
            Text("Lag by partition", "Records in the log that were not polled yet.", "KillickConsumerLag"),
            RECORDS,
            Query(f"max by (partition) ({of('consumer_lag_records')})", "partition {{partition}}"),
        ),
    ),
    (
        8,
        lines(
            Text("Forecasts by version", "Who answers, and how much.", "KillickForecastsStopped"),
            PER_SECOND,
            Query(rate(of("forecasts_total"), "version"), "version {{version}}"),
            stacked=True,
        ),
    ),
    (
        12,
        lines(
            Text(
                "Observations in a block",
                "A block is what one poll brought for one partition: full ones mean that the consumer catches up.",
                "KillickForecastsStopped",
            ),
            RECORDS,
            Query(quantile(0.5, "block_observations"), "50 %"),
            Query(quantile(0.99, "block_observations"), "99 %"),
        ),
    ),
    (
        12,
        lines(
            Text(
                "Gaps, resets, losses",
                "Gaps that were bridged, series that began anew after a long gap, records that the log deleted "
                "before they were read.",
                "KillickRecordsLost",
            ),
            Look("short", least=0.0),
            *BRIDGED,
            bars=True,
        ),
    ),
)

ZERO = [
    Query(f"sum(increase({of(name)}[$__rate_interval]))", words)
    for name, words in (("ledger_rewinds_total", "rewinds"), ("replay_mismatches_total", "mismatches"))
]
LEDGER: Panels = (
    (
        8,
        lines(
            Text("Time of a commit", "One call to Redis for each block.", "KillickRedisDown"),
            SECONDS,
            Query(quantile(0.5, "ledger_commit_seconds"), "50 %"),
            Query(quantile(0.99, "ledger_commit_seconds"), "99 %"),
        ),
    ),
    (
        8,
        lines(
            Text(
                "Memory of Redis",
                "What it uses, and its limit (dashed; 0: it has none). What is full refuses to commit.",
                "KillickRedisMemoryHigh",
            ),
            Look("bytes", 1, least=0.0),
            Query(f"max({of('redis_memory_bytes')})", "used"),
            Query(f"max({of('redis_memory_limit_bytes')})", "limit"),
            overrides=(dashed("limit"),),
        ),
    ),
    (
        8,
        lines(
            Text(
                "Blocks in the ledger",
                "Blocks that Redis keeps of each partition: they fall when they are trimmed or archived.",
                "KillickRedisMemoryHigh",
            ),
            RECORDS,
            Query(f"max by (partition) ({of('ledger_blocks')})", "partition {{partition}}"),
        ),
    ),
    (
        12,
        states(
            Text("Redis, as each process sees it", "Whether its last call was answered.", "KillickRedisDown"),
            UP,
            Query(f"min by (job, instance) ({of('redis_up')})", "{{job}} {{instance}}"),
        ),
    ),
    (
        12,
        lines(
            Text(
                "Rewinds and mismatches",
                "Times that Redis had lost what was committed, and replayed blocks that gave other bits.",
                "KillickReplayMismatch",
            ),
            Look("short", 0, least=0.0),
            *ZERO,
            bars=True,
        ),
    ),
)

MONITOR: Panels = (
    (
        6,
        lines(
            Text(
                "Lag of the monitor",
                "Observations in the ledger that are not scored yet: skill is that much behind.",
                "KillickMonitorBehind",
            ),
            RECORDS,
            Query(f"max by (partition) ({of('monitor_lag_records')})", "partition {{partition}}"),
        ),
    ),
    (
        6,
        lines(
            Text("Observations scored", "By the monitor that leads.", "KillickMonitorBehind"),
            PER_SECOND,
            Query(rate(of("monitor_observations_total")), "observations"),
        ),
    ),
    (
        6,
        states(
            Text("Who leads", "One monitor leads; others stand by and take over.", "KillickMonitorNoLeader"),
            LEADS,
            Query(f"max by (instance) ({of('monitor_leader')})", "{{instance}}"),
        ),
    ),
    (
        6,
        stat(
            Text(
                "Newest observation",
                "Event time of the newest observation that the monitor has scored; windows end at its hour.",
                "KillickObservationsStopped",
            ),
            Look("dateTimeAsIso", steps=((None, BLUE),), none="none yet"),
            Query(f"max({of('event_time_seconds')}) * 1000", "newest", instant=True),
        ),
    ),
    (
        8,
        lines(
            Text(
                "Lag of the archive",
                "Observations in the ledger that are not in the archive yet: they can't be trimmed.",
                "KillickArchiveFailing",
            ),
            Look("short", 0, least=0.0, none="no archive"),
            Query(f"max by (partition) ({of('archive_lag_records')})", "partition {{partition}}"),
        ),
    ),
    (
        8,
        lines(
            Text("Observations archived", "Written to Parquet, a second.", "KillickArchiveFailing"),
            Look("cps", least=0.0, none="no archive"),
            Query(rate(of("archived_records_total")), "observations"),
        ),
    ),
    (
        8,
        lines(
            Text(
                "Failures of the archive",
                "Times that a file could not be written. The monitor tries again; nothing is trimmed meanwhile.",
                "KillickArchiveFailing",
            ),
            Look("short", 0, least=0.0, none="no archive"),
            Query(f"sum(increase({of('archive_failures_total')}[$__rate_interval]))", "failures"),
            bars=True,
        ),
    ),
)

CHANGES: Panels = (
    (
        8,
        stat(
            Text(
                "Swaps and spin-ups",
                "How many there were in the span that is shown, and how long they took on average: a swap from the "
                "registry's change to the other version's seat, a spin-up to give a version its carried state.",
                "KillickPartitionDiverged",
            ),
            Look("s", 2, steps=((None, BLUE),), none="none"),
            Query(f"round(sum(increase({of('swap_seconds_count')}[$__range])))", "swaps", instant=True),
            Query(mean_over_range("swap_seconds"), "a swap", instant=True),
            Query(f"round(sum(increase({of('spin_up_seconds_count')}[$__range])))", "spin-ups", instant=True),
            Query(mean_over_range("spin_up_seconds"), "a spin-up", instant=True),
            overrides=(override("swaps", unit="short", decimals=0), override("spin-ups", unit="short", decimals=0)),
        ),
    ),
    (
        8,
        states(
            Text(
                "Partitions that follow",
                "Whether each partition could follow the registry at the last change; else the former "
                "version goes on answering.",
                "KillickPartitionDiverged",
            ),
            YES_NO,
            Query(f"max by (partition) ({of('partition_diverged')})", "partition {{partition}}"),
        ),
    ),
    (
        8,
        bar_gauge(
            Text(
                "Promotions and rollbacks",
                "In the span that is shown; rollbacks by who did them.",
                "KillickRolledBack",
            ),
            Look("short", 0, steps=((None, BLUE),), least=0.0),
            Query(happened(of("promotions_total")), "promotions", instant=True),
            Query(happened(of("rollbacks_total"), "actor"), "rolled back by {{actor}}", instant=True),
        ),
    ),
)


def page() -> Json:
    """The whole dashboard."""
    return dashboard(
        Page(
            uid="killick-health",
            title="Killick: is it healthy?",
            description="Rate, refusals, latency, lag, ledger, Redis, monitor and archive, and the alerts that fire.",
            since="now-6h",
            refresh="30s",
            variables=common_variables(),
            rows=(
                Row("The answer", LOW, ANSWER),
                Row("The stream", HEIGHT, STREAM),
                Row("Ledger and Redis", HEIGHT, LEDGER),
                Row("Monitor and archive", HEIGHT, MONITOR),
                Row("Changes of version", HEIGHT - 2, CHANGES),
                Row("HTTP API", HEIGHT - 2, api.PANELS),
            ),
        )
    )
