"""The whole gate over simulated streams, with the code that runs: calibrated, looked at after every step, decided.

Every function gives back rows for a table. Delays are in steps of event time, steps without a difference included.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._judgement_streams import World, alternating, struck
from models.comparison import diebold_mariano, holm, screen_p_value
from models.decision import JudgementLimits, trial_of
from models.duels import Duel
from models.sequential import Wealth, calibrate, course_of
from models.times import HOUR_MS
from models.verdict import Calibration, Trial, Verdict
from worker import gate
from worker.sections_updating import JudgementSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks._judgement_streams import Floats

Rows = list[dict[str, Any]]

STEPS = 10_000
PHIS = (0.0, 0.5, 0.9, 0.97)
SPANS = (168, 500, 2_000)  # steps that are calibrated on
LEVELS = (0.05, 0.01)
NEVER = math.inf
SEED = 1
NAIVE_STREAMS = 400  # that are also looked at in the way that fails
SETTINGS = JudgementSettings()
DAY, MONTH = 24, 720
DEADLINES = {"by_month": MONTH, "by_quarter": 3 * MONTH, "by_end": STEPS}
LIMITS = gate.Limits(
    interval_ms=HOUR_MS, ahead_steps=1, approval=False, guard_alpha=SETTINGS.guard_alpha,
    breaker_ratio=SETTINGS.breaker_ratio, breaker_steps=SETTINGS.breaker_steps,
)  # fmt: skip


VERDICT = Verdict(
    id="1", requests=(), trigger="drift", goal="", why="", model="", interval_ms=HOUR_MS, created_ms=0, seconds=0.0,
    incumbent=1, outcome="promote", sentence="",
)  # fmt: skip


def first_proofs(calibration: Calibration, differences: Floats, levels: tuple[float, ...]) -> list[float]:
    """The step after which B first counts as better, looked at after each, for each level; infinite: never."""
    course = course_of(Wealth(), calibration, differences)
    known = np.flatnonzero(~np.isnan(differences))
    proofs = []
    for alpha in levels:
        found = course.proved(alpha)
        last = (int(found.argmax()) + 1) * calibration.block_steps - 1  # of the block that proved it
        proofs.append(float(known[last] + 1) if found.any() else NEVER)
    return proofs


def first_proof(calibration: Calibration, differences: Floats, alpha: float = SETTINGS.alpha) -> float:
    """The same for one level."""
    return first_proofs(calibration, differences, (alpha,))[0]


def calibrated(world: World, count: int, span: int, steps: int) -> Iterator[tuple[Calibration, Floats]]:
    """Streams of `steps`, each with its calibration on the `span` steps before it."""
    for stream in world.streams(count, span + steps, SEED):
        yield calibrate([stream[:span]]), stream[span:]


def worlds() -> list[World]:
    """What streams without a true difference are like."""
    plain = [World(phi, series) for series in (1, 7, 50) for phi in PHIS]
    tails = [World(phi, 1, tail) for tail in ("heavy", "disasters") for phi in PHIS]
    return [*plain, *tails, World(0.0, 1, "slow part")]


def false_promotions(count: int, spans: tuple[int, ...] = SPANS) -> Rows:
    """Of streams without a true difference: the share that is ever promoted."""
    rows = []
    for number, world in enumerate(worlds()):
        proofs: dict[int, list[list[float]]] = {span: [] for span in spans}
        blocks: dict[int, list[int]] = {span: [] for span in spans}
        naive: list[float] = []
        for stream in world.streams(count, max(SPANS) + STEPS, seed=number):
            before, after = stream[: max(SPANS)], stream[max(SPANS) :]
            for span in spans:
                calibration = calibrate([before[-span:]])
                blocks[span].append(calibration.block_steps)
                proofs[span].append(first_proofs(calibration, after, LEVELS))
            if len(naive) >= NAIVE_STREAMS:
                continue
            single = Calibration(block_steps=1, scale=float(np.nanstd(before)), lag1=0.0, steps=len(before))
            naive.append(first_proof(single, after, LEVELS[0]))
        for span in spans:
            shares = (np.array(proofs[span]) < NEVER).mean(axis=0).tolist()
            rows.append(
                {
                    **asdict(world),
                    "streams": count,
                    "calibrated_on": span,
                    "block": float(np.median(blocks[span])),
                    **{f"false_{alpha:g}": share for alpha, share in zip(LEVELS, shares, strict=True)},
                    "false_single_steps": float(np.mean(np.array(naive) < NEVER)),
                }
            )
    return rows


def power(count: int, gains: tuple[float, ...] = (0.2, 0.5, 1.0)) -> Rows:
    """Of streams with a true difference: how soon, and how often by a deadline, it is proved at the default level."""
    rows = []
    for phi in PHIS:
        for gain in gains:
            for span in SPANS[1:]:
                found = np.array(
                    [
                        first_proof(calibration, stream + gain, SETTINGS.alpha)
                        for calibration, stream in calibrated(World(phi), count, span, STEPS)
                    ]
                )
                by = {name: float((found <= steps).mean()) for name, steps in DEADLINES.items()}
                row = {"phi": phi, "gain": gain, "calibrated_on": span, "streams": count, **by}
                rows.append({**row, "median": _middle(found)})
    return rows


def disasters(count: int) -> Rows:
    """A candidate that gains on most steps and is worse for its rare disasters, of a kind no calibration has seen."""
    rows = []
    for phi in (0.0, 0.5, 0.9):
        for gain in (0.1, 0.3):
            for share in (1 / 20, 1 / 100, 1 / 500, 1 / 1_000):
                rng = np.random.default_rng(3)
                found, single = [], []
                for calibration, quiet in calibrated(World(phi), count, SPANS[1], STEPS):
                    stream = struck(quiet, gain, share, -0.02, rng)
                    found.append(first_proof(calibration, stream, SETTINGS.alpha))
                    ones = Calibration(block_steps=1, scale=1.0, lag1=0.0, steps=SPANS[1])
                    single.append(bool((course_of(Wealth(), ones, stream).e_values >= 1 / SETTINGS.alpha).any()))
                rows.append(
                    {
                        "phi": phi,
                        "gain": gain,
                        "every": round(1 / share),
                        "size": (gain + 0.02) / share,
                        "by_end": float(np.mean(np.array(found) < NEVER)),
                        "by_month": float(np.mean(np.array(found) <= MONTH)),
                        "bets_alone_on_single_steps": float(np.mean(single)),
                    }
                )
    return rows


def seasons(count: int) -> Rows:
    """A candidate that is better for 60 days and as much worse for the next 60: no better over a year."""
    rows = []
    for phi in PHIS:
        for gain in (0.2, 0.5):
            rng = np.random.default_rng(4)
            found = [
                first_proof(calibration, alternating(quiet, gain, 2 * MONTH, rng), SETTINGS.alpha)
                for calibration, quiet in calibrated(World(phi), count, SPANS[1], STEPS)
            ]
            shares = {name: float(np.mean(np.array(found) <= steps)) for name, steps in DEADLINES.items()}
            rows.append({"phi": phi, "gain": gain, **shares})
    return rows


def lifetime(count: int, trials: int = 100) -> Rows:
    """Trial upon trial of candidates that are no better, each to its deadline, by the budget of levels that is left."""
    rows = []
    for deadline in (MONTH, 3 * MONTH):
        for phi in (0.0, 0.5, 0.9):
            promoted, spent_in_all = 0, 0.0
            for stream in World(phi).streams(count, SPANS[1] + trials * deadline, seed=9):
                spent, won = 0.0, False
                for begin in range(SPANS[1], len(stream), deadline):
                    calibration = calibrate([stream[begin - SPANS[1] : begin]])
                    trial, spends = trial_of("schedule", calibration, _limits(deadline), spent)
                    spent += spends
                    won = won or first_proof(calibration, stream[begin : begin + deadline], trial.alpha) < NEVER
                promoted, spent_in_all = promoted + won, spent
            row = {"phi": phi, "deadline": deadline, "trials": trials, "streams": count}
            rows.append({**row, "promoted": promoted / count, "spent": spent_in_all})
    return rows


def _limits(deadline: int) -> JudgementLimits:
    return JudgementLimits(
        gate="both",
        screen=SETTINGS.screen,
        alpha=SETTINGS.alpha,
        budget=SETTINGS.budget,
        harm_alpha=SETTINGS.guard_alpha,
        harm_steps=DAY,
        deadline_steps=deadline,
    )


def harm(count: int, watched: tuple[int, ...] = (DAY, 168)) -> Rows:
    """After a drift: what a trial for harm lets through, and how long the guard takes to undo it."""
    rows = []
    for phi in PHIS:
        for worse in (0.0, 0.5, 1.0, 2.0):
            for steps in watched:
                ended, undone = 0, []
                for calibration, quiet in calibrated(World(phi), count, SPANS[1], 2 * steps + 3 * MONTH):
                    stream = quiet + worse  # the candidate's loss less that of the incumbent before it
                    came = _let_through(calibration, stream, steps)
                    if came is None:
                        ended += 1
                    else:
                        undone.append(first_proof(calibration, stream[came:], SETTINGS.guard_alpha))
                back = np.array(undone)
                rows.append(
                    {
                        "phi": phi,
                        "worse_by": worse,
                        "harm_steps": steps,
                        "ended": ended / count,
                        "undone_in_a_week": float((back <= 168).sum() / count),
                        "undone_in_a_month": float((back <= MONTH).sum() / count),
                        "median_delay": _middle(back),
                    }
                )
    return rows


def _let_through(calibration: Calibration, stream: Floats, steps: int) -> int | None:
    """The step after which the gate's own trial for harm lets a candidate through; None: it ends it."""
    trial = Trial(mode="harm", alpha=SETTINGS.guard_alpha, calibration=calibration, harm_steps=steps, deadline_steps=0)
    one = gate.begin(VERDICT, 2, trial)
    for step, difference in enumerate(stream.tolist()):
        duel = None if math.isnan(difference) else Duel(1.0, max(difference, 0.0), max(-difference, 0.0))
        gate.feed(one, step, duel, LIMITS)
        if one.decision is not None:
            return None
        if one.won:
            return step + 1
    raise AssertionError(f"undecided after {len(stream)} steps")


def _middle(delays: Floats) -> float | None:
    """The median; None where there is nothing, or more than half never come to an end."""
    middle = float(np.median(delays)) if len(delays) else NEVER
    return None if middle == NEVER else middle


def screen(count: int) -> Rows:
    """The level and the power of the comparison on recorded losses, of four finalists, by both p-values."""
    rows = []
    for steps in (100, 300, 1_000):
        for phi in PHIS[1:]:
            wins = {(name, gain): 0 for name in ("one", "holm", "screen") for gain in (0.0, 0.5)}
            four = World(phi).streams(4 * count, steps, seed=6)
            shared = World(phi).streams(count, steps, seed=7)
            for common in shared:
                finalists = [math.sqrt(0.5) * (next(four) + common) for _ in range(4)]
                for gain in (0.0, 0.5):
                    plain = [diebold_mariano(one + gain, DAY)[1] for one in finalists]
                    slow = [screen_p_value(one + gain, DAY) for one in finalists]
                    wins["one", gain] += plain[0] <= SETTINGS.screen
                    wins["holm", gain] += min(holm(plain)) <= SETTINGS.screen
                    wins["screen", gain] += min(holm(slow)) <= SETTINGS.screen
            row: dict[str, Any] = {"steps": steps, "phi": phi, "spans": count}
            for (name, gain), number in wins.items():
                row[f"{name}_{gain:g}"] = number / count
            rows.append(row)
    return rows
