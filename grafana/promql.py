"""The queries' common parts: selectors that every panel narrows in the same way, and who answers now."""

from __future__ import annotations

IN_WINDOW = 'window="$window"'
INCUMBENT = 'role="incumbent"'
SEEN = 'version=~"$version"'
CHOSEN = ('model="$model"', 'job=~"$job"', 'instance=~"$instance"')


def of(metric: str, *matchers: str) -> str:
    """The selector of one of Killick's metrics, without its prefix, among what the dashboard's variables chose."""
    return f"killick_{metric}{{{', '.join((*CHOSEN, *matchers))}}}"


def scored(metric: str, *matchers: str, lead: str = 'lead="$lead"', window: str = IN_WINDOW) -> str:
    """The selector of a figure of skill, with the lead, window and scaling that were chosen."""
    return of(metric, *matchers, lead, window, 'scaling="$scaling"')


def skill(
    *matchers: str,
    lead: str = 'lead="$lead"',
    window: str = IN_WINDOW,
    reference: str = 'reference="$reference"',
) -> str:
    """The selector of the skill score."""
    return scored("skill_score", *matchers, reference, lead=lead, window=window)


def answering(selector: str, *by: str) -> str:
    """What `selector` says of the version that answers, by some labels: one value each, whoever else exports it."""
    incumbent = f"max by (version) ({of('version_info', INCUMBENT)})"
    kept = f"{most(*by, *(() if 'version' in by else ('version',)))} ({selector}) and on (version) {incumbent}"
    return kept if "version" in by else f"{most(*by)} ({kept})"


def happened(counter: str, *by: str, over: str = "$__range") -> str:
    """How often something happened, by some labels.

    Every monitor counts what it reads of the registry, so that the most is the truth, not the sum.
    """
    return f"{most(*by)} (round(increase({counter}[{over}])))"


def most(*by: str) -> str:
    """The aggregation to the largest value, by some labels."""
    return f"max by ({', '.join(by)})" if by else "max"


def rate(counter: str, *by: str) -> str:
    """Events a second of all processes together, by some labels."""
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate({counter}[$__rate_interval]))"


def quantile(share: float, histogram: str) -> str:
    """The time or size that a share of what a histogram counted recently does not exceed."""
    return f"histogram_quantile({share}, sum by (le) (rate({of(histogram + '_bucket')}[$__rate_interval])))"


def mean_over_range(histogram: str) -> str:
    """The mean of what a histogram counted in the span that is shown."""
    total, count = (f"sum (increase({of(histogram + end)}[$__range]))" for end in ("_sum", "_count"))
    return f"{total} / {count}"
