"""Skill on a held-out tail: the version is run by the stream core over the whole history, as the service would.

Only forecasts issued inside the tail count: their labels lie there too, and training has seen none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from consumers.roster import Seat
from consumers.stream import Partition, Version, fold
from models.network import Network
from models.skill import ErrorSums, mean_skill, persistence, seasonal_naive, skill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from models.architecture import Architecture, Weights
    from models.blocks import Block
    from models.scaling import SeriesForm
    from models.sequences import Spans

BLOCK = 8192  # observations a fold
NUMBER = 1  # the version's number here; it is not registered yet
LEAST_UNIT = 1e-12


@dataclass(frozen=True)
class TailRow:
    """One line of the summary."""

    lead: str
    pairs: int
    mse: float
    persistence: float
    seasonal: float


@dataclass(frozen=True)
class TailSkill:
    """Error sums over the tail's pairs, `(H,)`; each reference with the version over the same pairs."""

    version: ErrorSums
    persistence: tuple[ErrorSums, ErrorSums]  # version, reference
    seasonal: tuple[ErrorSums, ErrorSums]

    def rows(self, leads: Sequence[int]) -> Iterator[TailRow]:
        """The named leads that there are, the last one, and the mean over all."""
        horizon = len(self.version.count)
        by_persistence = skill(self.persistence[0].mse, self.persistence[1].mse)
        by_season = skill(self.seasonal[0].mse, self.seasonal[1].mse)
        for lead in sorted({*(k for k in leads if k <= horizon), horizon}):
            i = lead - 1
            yield TailRow(
                str(lead),
                int(self.version.count[i]),
                float(self.version.mse[i]),
                float(by_persistence[i]),
                float(by_season[i]),
            )
        mse = self.version.mse
        yield TailRow(
            "mean",
            int(self.version.count.sum()),
            float(np.mean(mse[np.isfinite(mse)])) if np.isfinite(mse).any() else float("nan"),
            mean_skill(self.persistence[0].mse, self.persistence[1].mse),
            mean_skill(self.seasonal[0].mse, self.seasonal[1].mse),
        )

    def as_json(self) -> dict[str, Any]:
        """Skill by lead against both references, None where there is no pair."""
        return {
            "pairs": self.version.count.tolist(),
            "mse": _plain(self.version.mse),
            "persistence": _plain(skill(self.persistence[0].mse, self.persistence[1].mse)),
            "seasonal_naive": _plain(skill(self.seasonal[0].mse, self.seasonal[1].mse)),
        }


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [round(value, 6) if np.isfinite(value) else None for value in values.tolist()]


def tail_skill(
    architecture: Architecture,
    weights: Weights,
    form: SeriesForm,
    block: Block,
    first_step: int,
    spans: Spans,
) -> TailSkill:
    """The skill of forecasts issued from `spans.validation_end` on; `block` is the whole history.

    Raises:
        VersionError: the network's bits depend on how it is called on this machine.
    """
    network = Network(architecture, weights)
    network.self_test()
    partition = Partition(form, architecture.series)  # the history's series, where there are inputs for them
    dense = _run(Version(NUMBER, architecture, network), partition, block, first_step, spans.end)
    unit = _units(dense, spans.train_end)
    horizon = architecture.horizon
    leads = np.arange(1, horizon + 1)
    in_tail = np.arange(spans.end)[:, None] - leads >= spans.validation_end  # by the time of issue
    sums: list[list[ErrorSums]] = []
    for s in range(len(unit)):
        actual = dense.x[s][:, None]
        errors = (dense.pairs[s] - actual) / unit[s]
        paired = ~np.isnan(dense.pairs[s]) & in_tail
        series = [ErrorSums.over(errors, paired)]
        last = persistence(dense.x[s], dense.taken[s], horizon)
        season = seasonal_naive(dense.x[s], dense.taken[s], horizon, form.period_steps)
        for values, valid in (last, season):
            both = paired & valid
            series += [ErrorSums.over(errors, both), ErrorSums.over((values - actual) / unit[s], both)]
        sums.append(series)
    version, a, b, c, d = (_total([series[i] for series in sums]) for i in range(5))
    return TailSkill(version, (a, b), (c, d))


def _total(parts: list[ErrorSums]) -> ErrorSums:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


@dataclass(frozen=True)
class _Dense:
    """Pairs and values by series and step of the common clock."""

    pairs: NDArray[np.float32]  # (S, T, H) NaN: none
    x: NDArray[np.float64]  # (S, T) the target, its last value where missing
    observed: NDArray[np.bool_]  # (S, T)
    taken: NDArray[np.bool_]  # (S, T) the series takes this step


def _run(version: Version, partition: Partition, block: Block, first_step: int, steps: int) -> _Dense:
    form = partition.form
    series = int(block.slot.max()) + 1
    partition.seat((Seat(NUMBER, "incumbent", 0, 0),), {NUMBER: version})
    pairs = np.full((series, steps, version.architecture.horizon), np.nan, np.float32)
    for begin in range(0, len(block), BLOCK):
        piece = block.take(np.arange(begin, min(begin + BLOCK, len(block))))
        (folded,) = fold([(partition, piece)], {NUMBER: version})
        pairs[piece.slot, piece.step - first_step] = folded.block.pairs[NUMBER]
    rows = Partition(form).series.look(block.slot, block.step, block.values, block.present)
    at = (rows.slot[rows.lane], rows.step - first_step)
    x = np.zeros((series, steps))
    observed, taken = np.zeros((series, steps), np.bool_), np.zeros((series, steps), np.bool_)
    x[at] = rows.x[:, form.target_index]
    observed[at] = rows.present[:, form.target_index]
    taken[at] = True
    return _Dense(pairs, x, observed, taken)


def _units(dense: _Dense, train_end: int) -> NDArray[np.float64]:
    """Each series' standard deviation over the training span; 1 where it did not move."""
    units = np.ones(len(dense.x))
    for s in range(len(units)):
        seen = dense.x[s, :train_end][dense.observed[s, :train_end]]
        spread = float(seen.std()) if len(seen) > 1 else 0.0
        units[s] = spread if spread > LEAST_UNIT else 1.0
    return units
