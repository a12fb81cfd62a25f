"""Numbers, times and lengths of a verdict as people read them."""

from __future__ import annotations

import math
import re

from models.times import DAY_MS, rfc3339
from worker.durations import Duration

MINUTE_S, HOUR_S = 60, 3_600
LEAST_P = 0.0001
LEAST_PLAIN, MOST_PLAIN = 1e-4, 1e9  # beyond them a number is written with an exponent
MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


def figure(value: float | None) -> str:
    """Four significant digits; a dash where there is no number."""
    return _digits(value, 4, "")


def signed(value: float | None) -> str:
    """Three significant digits with a sign; a dash where there is no number."""
    return _digits(value, 3, "+")


def p_words(value: float | None) -> str:
    """A p-value; the least ones only as less than a limit."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"< {LEAST_P}" if value < LEAST_P else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def skill_words(value: float | None) -> str:
    """A skill."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", MINUS)  # + 0.0: what rounds to nothing has no minus


def percent(value: float | None) -> str:
    """A share as a signed percentage."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{100 * value:+.1f} %".replace("-", MINUS)


def share_words(share: float) -> str:
    """A share without its sign: whole per cents from ten on."""
    size = abs(100 * share)
    return f"{size:,.0f} %" if size >= 9.95 else f"{size:.1f} %"


def less_words(share: float) -> str:
    """So much less of something, or more."""
    return f"{share_words(share)} {'less' if share >= 0 else 'more'}"


def less_interval(low: float, high: float) -> str:
    """An interval of a share that something is less by; empty where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    if low >= 0:
        return f"{share_words(low)} to {share_words(high)} less"
    if high <= 0:
        return f"{share_words(high)} to {share_words(low)} more"
    return f"{share_words(low)} more to {share_words(high)} less"


def count_words(value: float | None) -> str:
    """A mean of counts; a dash where there is none."""
    return NONE if value is None else f"{value:,.1f}".removesuffix(".0")


def rate_words(rate: float) -> str:
    """A learning rate."""
    return f"{rate:.6f}".rstrip("0") if rate >= LEAST_P else f"{rate:.3g}"


def step_words(step: int, interval_ms: int) -> str:
    """The time of a step."""
    return rfc3339(step * interval_ms)[:16].replace("T", " ")


def moment_words(time_ms: int) -> str:
    """A time to the minute."""
    return f"{rfc3339(time_ms)[:16].replace('T', ' ')} UTC"


def length_words(steps: int, interval_ms: int) -> str:
    """A number of steps as a length of event time, from a day on in days."""
    ms = steps * interval_ms
    if ms >= DAY_MS:
        return f"{ms / DAY_MS:,.1f} d".replace(".0 d", " d")
    return re.sub(r"(\d+)", r"\1 ", str(Duration(ms)))


def recent_words(steps: int | None, interval_ms: int) -> str:
    """How much of the new data counted as recent."""
    return "all new data" if steps is None else length_words(steps, interval_ms)


def clock_words(seconds: float) -> str:
    """A length of time of the clock."""
    if seconds < MINUTE_S:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S} s"
    return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S} min"


def _digits(value: float | None, digits: int, sign: str) -> str:
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if value and not LEAST_PLAIN <= size < MOST_PLAIN:
        text = f"{value:{sign}.{digits - 1}e}"
    else:
        decimals = max(0, digits - 1 - math.floor(math.log10(size))) if value else digits - 1
        text = f"{value:{sign},.{decimals}f}"
    return text.replace("-", MINUS, 1) if value < 0 else text
