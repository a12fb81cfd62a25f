"""One picture: the evidence of trials over time, as SVG."""

from __future__ import annotations

import math

import numpy as np

from benchmarks._judgement_gate import SETTINGS
from benchmarks._judgement_streams import World
from models.sequential import Wealth, calibrate, course_of

WIDTH, HEIGHT = 860, 420  # px
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 56, 52
STEPS, SPAN = 3_000, 500
LOWEST, HIGHEST = 0.05, 1e4  # e-values that are shown
PHI, SEED = 0.9, 5
CANDIDATES = ((0.5, "better by .5 sd", "#1a7f37"), (0.0, "no better", "#6b7280"), (-0.2, "worse by .2 sd", "#c2410c"))
INK, SOFT, RULE = "#1f2933", "#6b7280", "#e5e7eb"


def picture() -> str:
    """E-values of three candidates on the same stream, with the line that one has to reach."""
    stream = next(World(PHI).streams(1, SPAN + STEPS, SEED))
    calibration = calibrate([stream[:SPAN]])
    known = np.flatnonzero(~np.isnan(stream[SPAN:]))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="DejaVu Sans">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 24, "The evidence of a live trial, looked at after every step", 15, INK),
        _text(
            LEFT,
            42,
            f"three candidates on one stream (φ = {PHI:g}), blocks of {calibration.block_steps} steps",
            11,
            SOFT,
        ),
    ]
    for value in (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0):
        parts += [_line(0, value, STEPS, value, RULE), _text(LEFT - 8, _y(value) + 4, f"{value:g}", 11, SOFT, "end")]
    for step in range(0, STEPS + 1, 500):
        parts.append(_text(_x(step), HEIGHT - BOTTOM + 18, f"{step:,}", 11, SOFT, "middle"))
    parts.append(_text(_x(STEPS / 2), HEIGHT - 12, "steps since the trial began", 12, SOFT, "middle"))
    needed = 1.0 / SETTINGS.alpha
    parts.append(_line(0, needed, STEPS, needed, "#b91c1c", "7 5"))
    parts.append(_text(_x(STEPS) + 8, _y(needed) + 4, f"needed: 1/alpha = {needed:g}", 12, "#b91c1c"))
    for gain, words, color in CANDIDATES:
        course = course_of(Wealth(), calibration, stream[SPAN:] + gain)
        at = known[np.arange(1, len(course.blocks) + 1) * calibration.block_steps - 1] + 1
        values = np.clip(course.e_values, LOWEST, HIGHEST)
        proved = course.proved(SETTINGS.alpha)
        end = int(proved.argmax()) + 1 if proved.any() else len(at)
        places = [(_x(0), _y(1.0))]
        for step, value in zip(at[:end].tolist(), values[:end].tolist(), strict=True):
            places += [(_x(step), places[-1][1]), (_x(step), _y(value))]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        x, y = places[-1]
        said = f"{words}: promoted" if proved.any() else words
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>',
            _text(x + 9, y + (-8 if proved.any() else 4), said, 12, color),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _x(step: float) -> float:
    return LEFT + step / STEPS * (WIDTH - LEFT - RIGHT)


def _y(value: float) -> float:
    share = (math.log(value) - math.log(LOWEST)) / (math.log(HIGHEST) - math.log(LOWEST))
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _line(step: float, value: float, to_step: float, to_value: float, color: str, dash: str = "") -> str:
    place = f'x1="{_x(step):.1f}" y1="{_y(value):.1f}" x2="{_x(to_step):.1f}" y2="{_y(to_value):.1f}"'
    dashes = f' stroke-width="1.5" stroke-dasharray="{dash}"' if dash else ""
    return f'<line {place} stroke="{color}"{dashes}/>'


def _text(x: float, y: float, words: str, size: int, color: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" text-anchor="{anchor}">{words}</text>'
