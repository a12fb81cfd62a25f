"""Who is who in a verdict: finalists, the one to show first, each strategy's trials and the best of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.strategies import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.verdict import Attempted, Compared, Judged, Verdict

INCUMBENT = "incumbent"
REFERENCES = ("persistence", "seasonal")


def judged(verdict: Verdict, name: str | None) -> Judged | None:
    """How that contender did over the evaluation span; None where it was not judged."""
    return next((one for one in verdict.judged if one.name == name), None)


def compared(verdict: Verdict, name: str | None) -> Compared | None:
    """That contender against the incumbent; None where it was not compared."""
    return next((one for one in verdict.compared if one.name == name), None)


def finalists(verdict: Verdict) -> list[Judged]:
    """The contenders that could have been promoted, in the verdict's order."""
    return [one for one in verdict.judged if one.name not in (INCUMBENT, CONTROL, *REFERENCES)]


def foremost(verdict: Verdict) -> str | None:
    """The finalist whose figures come first: the chosen one, else the one with the largest difference."""
    if verdict.chosen is not None:
        return verdict.chosen
    names = {one.name for one in finalists(verdict)}
    of_finalists = [one for one in verdict.compared if one.name in names]
    return max(of_finalists, key=lambda one: one.difference).name if of_finalists else None


def strategies(verdict: Verdict) -> list[str]:
    """What was trained, the control last."""
    found = dict.fromkeys(one.strategy for one in verdict.attempts)
    return sorted(found, key=CONTROL.__eq__)


def grid(verdict: Verdict, strategy: str) -> list[Attempted]:
    """The attempts that a strategy's best was chosen from: all with the first one's seed; repeats have others."""
    attempts = [one for one in verdict.attempts if one.strategy == strategy]
    return [one for one in attempts if one.seed == attempts[0].seed]


def best(verdict: Verdict, strategy: str) -> Attempted | None:
    """The attempt whose rate and recent data did best in the grid; None: no training came to an end."""
    return _least(grid(verdict, strategy))


def finalist(verdict: Verdict, strategy: str) -> Attempted | None:
    """The attempt that was judged: of those like the best, with any seed, the least error on the validation span."""
    chosen = best(verdict, strategy)
    if chosen is None:
        return None
    return _least(one for one in verdict.attempts if one.strategy == strategy and _same(one, chosen))


def _same(one: Attempted, other: Attempted) -> bool:
    return (one.rate, one.recent_steps) == (other.rate, other.recent_steps)


def _least(attempts: Iterable[Attempted]) -> Attempted | None:
    trained = [one for one in attempts if one.outcome == "trained" and one.validation_mse is not None]
    return min(trained, key=lambda one: one.validation_mse or 0.0) if trained else None
