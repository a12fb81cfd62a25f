"""A/A on real data: the same version trained with several seeds, whose differences are luck, tried one by another.

Fitted on the first months by the project's own training, replayed over the rest through the stream core, scored by
its Scorer. A trial for superiority begins anew every week, each version once as the candidate of each other.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._excess import VALIDATION, Stream, cut, plan_for, seat
from benchmarks._judgement_gate import LEVELS, MONTH, NEVER, first_proofs
from benchmarks.excess import DATA
from consumers.stream import Partition, Version, fold
from models.errors import DataError
from models.sequential import calibrate
from models.tally import Scorer
from worker.fit import with_gain
from worker.quiet import start_tensorflow

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks._judgement_streams import Floats
    from worker.fit import FitPlan

DATA_SETS = ("ETTh1", "ETTh2", "weather")
FITTED = 0.25  # of the steps
EVERY = 168  # steps from the beginning of one trial to that of the next
SPANS = (500, 2_000)
DEADLINES = (MONTH, 3 * MONTH)
PIECE = 512  # steps that are folded in one go


def real(folder: Path, seeds: int, names: tuple[str, ...] = DATA_SETS) -> list[dict[str, Any]]:
    """Rows by data set, horizon, steps that are calibrated on and deadline."""
    rows = []
    for name in names:
        for horizon in (1, 24):
            losses = step_losses(name, horizon, seeds, folder)
            rows += [{"data": name, "horizon": horizon, **row} for row in trials(losses)]
    return rows


def step_losses(name: str, horizon: int, seeds: int, folder: Path) -> Floats:
    """The loss of each version at each step after the span that it was fitted on, `(seeds, T)`; NaN: none."""
    data = DATA[name]
    plan = plan_for({**data.model, "horizon": horizon}, {}, 1)
    start_tensorflow(plan.threads)
    stream = Stream.of(data.read(folder), plan.form)
    versions = {seed: trained(stream, plan, seed) for seed in range(1, seeds + 1)}
    partition = Partition(plan.form)
    partition.seat([seat(seed, 0, "incumbent" if seed == 1 else "shadow") for seed in versions], versions)
    scorer = Scorer(plan.form, horizon)
    begin = round(FITTED * stream.steps)
    sums, cells = np.zeros((seeds, stream.steps)), np.zeros((seeds, stream.steps))
    for start in range(0, stream.steps, PIECE):
        (folded,) = fold([(partition, stream.piece(start, min(start + PIECE, stream.steps)))], versions)
        for scores in scorer.score([folded.block]):
            for seed, scored in scores.items():
                usable = scored.paired & (scored.per_scale > 0)  # (H, M)
                squared = np.where(usable, scored.errors * scored.per_scale, 0.0) ** 2
                at = scored.step - stream.first_step
                sums[seed - 1] += np.bincount(at, squared.sum(axis=0), stream.steps)
                cells[seed - 1] += np.bincount(at, usable.sum(axis=0), stream.steps)
    some = cells > 0
    losses = np.divide(sums, cells, out=np.full(sums.shape, np.nan), where=some)
    return np.asarray(losses[:, begin + horizon :])


def trained(stream: Stream, plan: FitPlan, seed: int) -> Version:
    """A version of the first part of a stream."""
    from models.epochs import train
    from models.network import Network
    from models.sequences import Spans, gains, sequences_of

    block = stream.block
    rows = Partition(plan.form).series.look(block.slot, block.step, block.values, block.present)
    early = cut(sequences_of(plan.architecture, plan.form, rows), 0, round(FITTED * stream.steps))
    architecture = with_gain(plan.architecture, gains(early, early.steps))
    spans = Spans(round((1.0 - VALIDATION) * early.steps), early.steps, early.steps)
    weights = train(architecture, early, spans, replace(plan.training, seed=seed)).weights
    return Version(seed, architecture, Network(architecture, weights))


def trials(losses: Floats) -> list[dict[str, Any]]:
    """Rows by calibration span and deadline: how many trials of the worse and of the better one of two were promoted.

    Two seeds are not quite equal: which one is better is told by the whole span, which no trial sees. "even": all
    trials once more with the mean difference over the whole span taken out, so that neither is better.
    """
    rows = []
    for span in SPANS:
        for deadline in DEADLINES:
            proofs: dict[str, list[list[float]]] = {"worse": [], "better": [], "even": []}
            blocks, sizes = [], []
            for a, b in permutations(range(len(losses)), 2):
                differences = losses[a] - losses[b]
                mean = float(np.nanmean(differences))
                sizes.append(abs(mean) / float(np.nanstd(differences)))
                for begin in range(SPANS[-1], len(differences) - deadline + 1, EVERY):
                    try:
                        calibration = calibrate([differences[begin - span : begin]])
                    except DataError:  # nothing was observed there
                        continue
                    blocks.append(calibration.block_steps)
                    live = differences[begin : begin + deadline]
                    proofs["better" if mean > 0.0 else "worse"].append(first_proofs(calibration, live, LEVELS))
                    proofs["even"].append(first_proofs(calibration, live - mean, LEVELS))
            row: dict[str, Any] = {"calibrated_on": span, "deadline": deadline, "trials": len(proofs["even"])}
            row |= {"block": float(np.median(blocks)), "differ_by": float(np.mean(sizes))}
            for name, found in proofs.items():
                shares = (np.array(found) < NEVER).mean(axis=0).tolist()
                row |= {f"{name}_{alpha:g}": share for alpha, share in zip(LEVELS, shares, strict=True)}
            rows.append(row)
    return rows
