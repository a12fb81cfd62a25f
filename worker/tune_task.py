"""One training of a tuning, in a process of its own: the training of `killick fit`, and its skill on what came after.

    block, plan, spans ──look, prepare──► sequences ──train──► weights ──fold, score──► Run

What is scored are the forecasts that the running service would issue in the evaluation span.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import VersionError
from models.learning import EXPLODED, known
from models.scaling import SeriesState
from models.skill import mean_skill
from worker.fit import prepared
from worker.quiet import start_tensorflow
from worker.tune_told import Learned, Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.blocks import Block
    from models.learning import EpochReport
    from models.sequences import Spans
    from worker.fit import FitPlan
    from worker.tail import TailSkill


def learn(block: Block, plan: FitPlan, spans: Spans, split: int) -> Run:
    """What a training on a split came to; an exploded one is a result too.

    `spans` count steps from the block's first one. What lies behind them is not looked at.

    Raises:
        DataError: there is nothing to train or to validate on.
    """
    start_tensorflow(plan.threads)
    from models.epochs import train  # noqa: PLC0415 - these bring TensorFlow
    from worker.tail import tail_skill  # noqa: PLC0415

    first = int(block.step.min())
    seen = block.take(np.flatnonzero(block.step < first + spans.end))
    rows = SeriesState(plan.form).look(seen.slot, seen.step, seen.values, seen.present)
    architecture, sequences = prepared(plan.architecture, plan.form, rows, spans)
    curve: list[EpochReport] = []
    try:
        outcome = train(architecture, sequences, spans, plan.training, curve.append)
    except VersionError as error:
        return _exploded(curve, str(error), split, plan.training.seed)
    skill = tail_skill(architecture, outcome.weights, plan.form, seen, first, spans)
    return Run(
        split=split,
        seed=plan.training.seed,
        **_scored(skill),
        untrained=_learned(outcome.reference_train_loss, outcome.reference_validation_loss),
        curve=tuple(_learned(one.train_loss, one.validation_loss) for one in outcome.curve),
        best_epoch=outcome.best_epoch,
        diagnosis=outcome.diagnosis,
        words=outcome.words,
        steps=outcome.steps,
        seconds=outcome.seconds,
    )


def _scored(skill: TailSkill) -> dict[str, Any]:
    """Errors and skill of a run, as its fields."""
    return {
        "mse": known(_mean(skill.version.mse)),
        "leads": tuple(known(value) for value in skill.version.mse.tolist()),
        "skill_persistence": known(mean_skill(skill.persistence[0].mse, skill.persistence[1].mse)),
        "skill_seasonal": known(mean_skill(skill.seasonal[0].mse, skill.seasonal[1].mse)),
        "pairs": int(skill.version.count.sum()),
        "persistence": known(_mean(skill.persistence[1].mse)),
        "seasonal": known(_mean(skill.seasonal[1].mse)),
    }


def _exploded(curve: list[EpochReport], words: str, split: int, seed: int) -> Run:
    return Run(
        split=split,
        seed=seed,
        mse=None,
        leads=(),
        skill_persistence=None,
        skill_seasonal=None,
        untrained=Learned(train_loss=None, validation_loss=None),
        curve=tuple(_learned(one.train_loss, one.validation_loss) for one in curve),
        best_epoch=0,
        diagnosis=EXPLODED,
        words=words,
        steps=0,
        seconds=sum(one.seconds for one in curve),
    )


def _learned(train_loss: float, validation_loss: float) -> Learned:
    return Learned(train_loss=known(train_loss), validation_loss=known(validation_loss))


def _mean(values: NDArray[np.float64]) -> float:
    """The mean over the leads that have a pair; NaN: none has."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else math.nan
