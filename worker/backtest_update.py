"""The first fit of a backtest, and its plain updates: both by the trainings of the service, on what was known by then.

whole file ─► series state ─► sequences ──until(step)──► what was known ─► train (once) or update (again and again)
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from models.draws import Windows
from models.epochs import train, update
from models.scaling import SeriesState
from models.sequences import Sequences, Spans, gains, sequences_of
from worker.backtest_scene import First
from worker.fit import with_gain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.architecture import Architecture, Weights
    from models.blocks import Block
    from models.epochs import Updated
    from models.learning import EpochReport, TrainingSettings
    from models.scaling import SeriesForm
    from worker.backtest_scene import UpdateRules

SEED_STRIDE = 7_919  # between the updates of a run


class Material:
    """Everything that can be learned from a file, by when it was known."""

    def __init__(self, block: Block, names: Sequence[str], form: SeriesForm, architecture: Architecture) -> None:
        """Prepare it; slot i of the block is `names[i]`, and `architecture` may have any gain.

        Raises:
            DataError: it would not fit into memory.
        """
        rows = SeriesState(form).look(block.slot, block.step, block.values, block.present)
        self._whole = sequences_of(architecture, form, rows, names=[names])

    def until(self, step: int) -> Sequences:
        """What was known before a step: no input, and no label, is of that step or later."""
        whole = self._whole
        end = min(max(step - whole.first_step, 0), whole.steps)
        known = whole.known[:, :end].copy()
        for lead in range(1, min(whole.horizon, end) + 1):
            known[:, end - lead :, lead - 1] = False
        return Sequences(
            inputs=whole.inputs[:, :end],
            targets=whole.targets[:, :end],
            known=known,
            active=whole.active[:, :end],
            fresh=whole.fresh[:, :end],
            first_step=whole.first_step,
        )

    def fit(
        self,
        architecture: Architecture,
        settings: TrainingSettings,
        online_step: int,
        validation: float,
        on_epoch: Callable[[EpochReport], None] | None = None,
    ) -> First:
        """The first version, fitted on what is before `online_step`; validated on this share of it, its end.

        Raises:
            DataError: it is too little, or holds no label.
            VersionError: the training exploded.
        """
        began = time.monotonic()
        sequences = self.until(online_step)
        spans = Spans.by_share(sequences.steps, validation, 0.0, architecture.horizon)
        architecture = with_gain(architecture, gains(sequences, spans.train_end))
        outcome = train(architecture, sequences, spans, settings, on_epoch)
        return First(architecture, outcome.weights, time.monotonic() - began)

    def update(
        self,
        first: First,
        weights: Weights,
        settings: TrainingSettings,
        rules: UpdateRules,
        *,
        step: int,
        number: int,
        old_end: int | None = None,
    ) -> Updated:
        """Weights updated on what was known before `step`, as the `number`-th time.

        With `old_end` it is the control: on what was known before that alone.

        Raises:
            DataError: there is no label to train on.
        """
        sequences = self.until(step if old_end is None else old_end)
        end = sequences.steps
        begin = max(0, end - rules.recent_steps)
        if old_end is None:
            windows = Windows(sequences, rules.chunk, (begin, end), (0, begin), least_steps=1)
            windows.mix(rules.recent_share)
        else:
            windows = Windows(sequences, rules.chunk, (0, 0), (0, end), least_steps=1)
            like = Windows(sequences, rules.chunk, (begin, end))
            windows.old_windows = round(like.recent_windows() / rules.recent_share) if end else 0
        seed = (settings.seed + SEED_STRIDE * number) % 2**31
        learning = replace(settings, rate=rules.rate, batch_lanes=rules.windows, seed=seed)
        return update(first.architecture, sequences, windows, learning, weights, rules.passes)
