"""Verdicts like those that retraining writes, with figures computed from simulated losses."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from arch.bootstrap import StationaryBootstrap
from scipy import stats

from models.audit import AuditEntry
from models.decision import JudgementLimits, decide
from models.strategies import CONTROL
from models.verdict import Attempted, Calibration, Compared, Cuts, Epoch, Judged, Series, Trial, Verdict

HOUR_MS = 3_600_000
BEGIN = 380_000  # steps since 1970, of an hour: in May 2013
STEPS, LEADS = 432, 24
RATES = (1e-4, 5e-4, 2e-3)
RECENTS = (168, 720, None)
STRATEGIES = ("update-on-new", "update-on-all", "new-on-new", "new-on-all")
LEVELS = {
    "incumbent": 0.41, CONTROL: 0.405, "persistence": 0.62, "seasonal": 0.55,
    "update-on-new": 0.36, "update-on-all": 0.335, "new-on-new": 0.43, "new-on-all": 0.352,
}  # fmt: skip
CREATED_MS = (BEGIN + 1_500) * HOUR_MS

LIMITS = JudgementLimits(
    gate="both", screen=0.05, alpha=0.01, budget=0.2, harm_alpha=0.01, harm_steps=24, deadline_steps=720
)

Losses = dict[str, np.ndarray]


def losses(names: tuple[str, ...], seed: int = 1, **levels: float) -> Losses:
    """The loss of each contender at each step and lead, (T, L): alike from hour to hour and among contenders."""
    rng = np.random.default_rng(seed)
    curve = 0.3 + 0.7 * np.sqrt(np.arange(1, LEADS + 1) / LEADS)
    weather = np.exp(_walk(rng, 0.9, 0.25))
    found = {}
    for name in names:
        own = np.exp(_walk(rng, 0.5, 0.12))
        found[name] = (
            (levels.get(name, LEVELS[name]) * weather * own)[:, None]
            * curve
            / curve.mean()
            * rng.gamma(9, 1 / 9, (STEPS, LEADS))
        )
    return found


def _walk(rng: np.random.Generator, phi: float, scale: float) -> np.ndarray:
    noise = rng.normal(0, scale * math.sqrt(1 - phi**2), STEPS)
    found = np.zeros(STEPS)
    for step in range(1, STEPS):
        found[step] = phi * found[step - 1] + noise[step]
    return found - scale**2 / 2


def judged(found: Losses, seed: int = 2) -> tuple[Judged, ...]:
    """Every contender, with the spread of repeats of the finalists."""
    rng = np.random.default_rng(seed)
    reference = found["persistence"].mean() if "persistence" in found else None
    return tuple(
        Judged(
            name=name,
            mse=float(loss.mean()),
            mae=float(6.1 * np.sqrt(loss).mean()),
            skill=None if reference is None else float(1 - loss.mean() / reference),
            by_lead=tuple(loss.mean(axis=0).tolist()),
            repeats=(float(loss.mean()), *(loss.mean() * rng.normal(1.02, 0.02, 4)).tolist())
            if name in STRATEGIES
            else (),
        )
        for name, loss in found.items()
    )


def compared(found: Losses) -> tuple[Compared, ...]:
    """Every contender against the incumbent."""
    raw = []
    names = [name for name in found if name != "incumbent"]
    for name in names:
        difference = (found["incumbent"] - found[name]).mean(axis=1)
        deviation = difference - difference.mean()
        spread = sum(
            (1 if lag == 0 else 2 * (1 - lag / LEADS)) * float(deviation[lag:] @ deviation[: STEPS - lag]) / STEPS
            for lag in range(LEADS)
        )
        correction = math.sqrt((STEPS + 1 - 2 * LEADS + LEADS * (LEADS - 1) / STEPS) / STEPS)
        statistic = float(correction * difference.mean() / math.sqrt(spread / STEPS))
        low, high = StationaryBootstrap(24, difference, seed=3).conf_int(np.mean, 500, method="percentile")[:, 0]
        raw.append(
            (
                name,
                float(difference.mean()),
                float(low),
                float(high),
                statistic,
                float(stats.t.sf(statistic, STEPS - 1)),
            )
        )
    held = _holm({name: p for name, *_, p in raw if name in STRATEGIES})
    return tuple(
        Compared(name=name, difference=mean, low=low, high=high, statistic=statistic, p_value=p, p_holm=held.get(name))
        for name, mean, low, high, statistic, p in raw
    )


def _holm(values: dict[str, float]) -> dict[str, float]:
    held, most = {}, 0.0
    for rank, (name, p) in enumerate(sorted(values.items(), key=lambda one: one[1])):
        most = max(most, min(1.0, p * (len(values) - rank)))
        held[name] = most
    return held


def over_time(found: Losses, name: str, points: int = 140) -> Series:
    """The smoothed difference with an interval."""
    difference = (found["incumbent"] - found[name]).mean(axis=1)
    at = np.linspace(0, STEPS - 1, points).astype(int)
    parts = [difference[max(0, i - 18) : i + 18] for i in at]
    mean = np.array([part.mean() for part in parts])
    half = np.array([2.4 * part.std() / math.sqrt(len(part) / 4) for part in parts])
    steps = tuple(int(i) + CUTS.evaluation_begin for i in at)
    return Series(
        step=steps,
        difference=tuple(mean.tolist()),
        low=tuple((mean - half).tolist()),
        high=tuple((mean + half).tolist()),
    )


CUTS = Cuts(
    begin=BEGIN - 8_760, new_begin=BEGIN, train_end=BEGIN + 720, validation_begin=BEGIN + 744,
    validation_end=BEGIN + 1_032, evaluation_begin=BEGIN + 1_056, end=BEGIN + 1_056 + STEPS + 12,
)  # fmt: skip


def attempts(names: tuple[str, ...] = STRATEGIES, repeats: int = 4, seed: int = 4) -> tuple[Attempted, ...]:
    """A grid of trainings, the repeats of each strategy's best, and the control."""
    rng = np.random.default_rng(seed)
    found: list[Attempted] = []
    for name in names:
        rates = RATES if name.startswith("update") else (2e-3,)
        tried = [_attempt(rng, name, rate, recent, 1) for recent, rate in product(RECENTS, rates)]
        best = min(tried, key=lambda one: one.validation_mse or math.inf)
        found += tried
        found += [_attempt(rng, name, best.rate, best.recent_steps, 2 + i) for i in range(repeats)]
    return (*found, _attempt(rng, CONTROL, 5e-4, None, 1))


def _attempt(rng: np.random.Generator, strategy: str, rate: float, recent: int | None, seed: int) -> Attempted:
    fresh = strategy.startswith("new")
    size = {168: 0.03, 720: 0.005, None: 0.0}[recent] + 0.02 * abs(math.log10(rate / 7e-4))
    level = LEVELS.get(strategy, LEVELS[CONTROL]) * (1.0 + size + rng.normal(0, 0.006))
    if strategy == "update-on-new" and rate == 2e-3 and recent == 168:
        epochs = tuple(Epoch(epoch=i, train_loss=0.9 * 4**i, validation_loss=1.1 * 5**i) for i in (1, 2, 3))
        return Attempted(
            strategy=strategy, rate=rate, recent_steps=recent, seed=seed, outcome="exploded", validation_mse=None,
            diagnosis="exploded", words="exploded: the loss rose a hundredfold at epoch 3; try a smaller rate",
            best_epoch=1, gradient_steps=90, seconds=2.1, curve=epochs,
        )  # fmt: skip
    count, start = (24, 1.6) if fresh else (8, 1.15)
    pace = 0.18 if fresh else 0.25 * (rate / 5e-4) ** 0.5
    overfits = strategy == "new-on-new"
    curve = []
    for i in range(1, count + 1):
        fall = math.exp(-pace * i)
        rise = 0.004 * max(0, i - 9) if overfits else 0.0
        noise = rng.normal(0, 0.006, 2).tolist()
        curve.append(
            Epoch(
                epoch=i,
                train_loss=level * (0.92 + (start - 0.92) * fall + noise[0] - rise),
                validation_loss=level * (1.0 + (start - 1.0) * fall + noise[1] + 3 * rise),
            )
        )
    kept = min(curve, key=lambda one: one.validation_loss or math.inf)
    numbers = f"(validation loss {kept.validation_loss:.4f} at epoch {kept.epoch}, {level * start:.4f} untrained)"
    words = f"good fit, taken before it overfits {numbers}" if overfits else f"good fit {numbers}"
    return Attempted(
        strategy=strategy, rate=rate, recent_steps=recent, seed=seed, outcome="trained", validation_mse=level,
        diagnosis="good fit", words=words, best_epoch=kept.epoch, gradient_steps=30 * count,
        seconds=0.7 * count, curve=tuple(curve),
    )  # fmt: skip


CALIBRATION = Calibration(block_steps=24, scale=0.046, lag1=0.07, steps=STEPS, words="")


def promoted() -> Verdict:
    """A drift, four strategies, a control: the update on all data goes to its live trial."""
    found = losses(("incumbent", *STRATEGIES, CONTROL, "persistence", "seasonal"))
    held = compared(found)
    decided = decide(held, float(found["incumbent"].mean()), STEPS, LIMITS)
    return Verdict(
        id="5f0c1d9e7b2a4c3f8d6e9a1b2c3d4e5f", trigger="drift", goal="restore",
        requests=("5f0c1d9e7b2a4c3f8d6e9a1b2c3d4e5f", "9d4a5b3c1f6e8a7d2b0c3e5f60718293"),
        why="page_hinkley: the loss of version 7 has risen by 1.8 quiet standard deviations since 2013-05-09",
        model="weather", interval_ms=HOUR_MS, created_ms=CREATED_MS, seconds=412.6, incumbent=7,
        outcome=decided.outcome, sentence=decided.sentence, version=8, chosen=decided.chosen, cuts=CUTS,
        series=3, observations=31_104, steps=STEPS, leads=tuple(range(1, LEADS + 1)), attempts=attempts(),
        judged=judged(found), compared=held, over_time=over_time(found, "update-on-all"),
        trial=Trial(mode="harm", alpha=0.01, calibration=CALIBRATION, harm_steps=24, deadline_steps=720),
        cost=1_240.5, unit="EUR", notes=("1 of 41 trainings exploded and was left out",),
    )  # fmt: skip


def lonely() -> Verdict:
    """One strategy, one training, no repeats, no control, nothing known of costs: not enough to decide."""
    found = losses(("incumbent", "update-on-new"), seed=7, **{"update-on-new": 0.402})
    held = compared(found)
    decided = decide(held, float(found["incumbent"].mean()), STEPS, LIMITS)
    return Verdict(
        id="6a1d2e0f8c3b5d4a9e7f0b2c3d4e5f60", requests=("6a1d2e0f8c3b5d4a9e7f0b2c3d4e5f60",),
        trigger="operator", goal="improve", why="try", model="weather",
        interval_ms=HOUR_MS, created_ms=CREATED_MS, seconds=31.0, incumbent=7, outcome=decided.outcome,
        sentence=decided.sentence, chosen=decided.chosen, cuts=CUTS,
        series=1, observations=1_404, steps=STEPS, leads=(1, 6, 12), attempts=attempts(("update-on-new",), 0)[:1],
        judged=tuple(Judged(name=one.name, mse=one.mse, mae=one.mae, skill=None, by_lead=one.by_lead[:3])
                     for one in judged(found)),
        compared=held,
    )  # fmt: skip


def rejected() -> Verdict:
    """All attempts exploded: there is no finalist."""
    exploded = [one for one in attempts() if one.outcome == "exploded"]
    found = losses(("incumbent", "persistence", "seasonal"), seed=8)
    return Verdict(
        id="7b2e3f1a9d4c6e5b0f8a1c3d4e5f6071", requests=("7b2e3f1a9d4c6e5b0f8a1c3d4e5f6071",),
        trigger="schedule", goal="improve", why="a month is over",
        model="weather", interval_ms=HOUR_MS, created_ms=CREATED_MS, seconds=14.2, incumbent=7, outcome="reject",
        sentence="No training came to an end with weights that can be used.", cuts=CUTS, series=3, observations=31_104,
        steps=STEPS, leads=tuple(range(1, LEADS + 1)), attempts=tuple(exploded), judged=judged(found),
    )  # fmt: skip


def failed() -> Verdict:
    """The recorded data was too short: nothing was trained."""
    return Verdict(
        id="8c3f4a2b0e5d7f6c1a9b2d4e5f607182", requests=("8c3f4a2b0e5d7f6c1a9b2d4e5f607182",),
        trigger="http", goal="improve", why="asked for by ann",
        model="weather", interval_ms=HOUR_MS, created_ms=CREATED_MS, seconds=0.4, incumbent=7, outcome="failed",
        sentence="There are 200 steps of new data, 1,056 are needed.", notes=("set retraining.new_data to more",),
    )  # fmt: skip


def audit(verdict: Verdict) -> list[AuditEntry]:
    """What was done with its version, and with others."""
    number = verdict.version
    done = [
        ("register", 6, None, None, "killick fit", "first"),
        ("register", number, None, None, "retrainer", f"verdict {verdict.id}"),
        ("nominate", number, None, number, "retrainer", verdict.sentence),
        ("pause", None, None, None, "ann@desk", "maintenance"),
        ("resume", None, None, None, "ann@desk", "maintenance is over"),
        ("promote", number, 7, number, "gate", "24 steps without harm (e-value 0.4 of 100)"),
    ]
    return [
        AuditEntry(
            id=f"{at}-0", time_ms=verdict.created_ms + 1_000 + HOUR_MS * 5 * at, event=event, version=version,
            before=before, after=after, actor=actor, reason=reason, generation=at,
        )
        for at, (event, version, before, after, actor, reason) in enumerate(done)
    ]  # fmt: skip
