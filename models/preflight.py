"""Checks before a training that tell a broken set-up from a hard problem.

After A. Karpathy, "A Recipe for Training Neural Networks" (2019).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.sequences import Sequences, Spans, Walk
from models.training import Trainer, output_gain
from models.weights import fresh_weights

if TYPE_CHECKING:
    from models.architecture import Architecture
    from models.learning import TrainingSettings

LABELS_PER_PARAMETER = 10
INITIAL_LOSS_TOLERANCE = 1e-3  # relative
HANDFUL = 4  # sequences
HANDFUL_STEPS = 250
HANDFUL_RATE = 1e-2
HANDFUL_FALL = 0.5


@dataclass(frozen=True)
class Check:
    """One check: what was looked at, whether it passed, and the numbers in words."""

    name: str
    passed: bool
    words: str


@dataclass(frozen=True)
class PreflightReport:
    """All checks in their order."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def preflight(
    architecture: Architecture, sequences: Sequences, spans: Spans, settings: TrainingSettings
) -> PreflightReport:
    """The three checks on the training span; takes a second or two."""
    return PreflightReport(
        (
            check_size(architecture, sequences, spans.train_end),
            check_initial_loss(architecture, sequences, spans.train_end, settings),
            check_handful(architecture, sequences, spans.train_end, settings),
        )
    )


def check_size(architecture: Architecture, sequences: Sequences, end: int) -> Check:
    """Whether there are at least ten labels for each parameter."""
    labels, parameters = sequences.usable(0, end), architecture.parameter_count
    words = f"{parameters:,} parameters, {labels:,} labels ({labels / parameters:.1f} for each"
    enough = labels >= LABELS_PER_PARAMETER * parameters
    words += ")" if enough else f", fewer than {LABELS_PER_PARAMETER}: fewer units or a longer history)"
    return Check("size", enough, words)


def expected_loss(architecture: Architecture, sequences: Sequences, end: int, loss: str) -> float:
    """The mean loss of a network that outputs zero, straight from the labels that lie before `end`."""
    gain = output_gain(architecture).astype(np.float64)
    total, labels = 0.0, 0
    for k in range(1, sequences.horizon + 1):
        issued = slice(0, max(0, end - k))
        known = sequences.known[:, issued, k - 1]
        absolute = np.abs(sequences.targets[:, issued, k - 1][known] / gain[k - 1])
        if loss == "huber":
            each = np.where(absolute <= 1.0, 0.5 * absolute**2, absolute - 0.5)
        else:
            each = absolute if loss == "mae" else absolute**2
        total, labels = total + float(each.sum()), labels + len(absolute)
    return total / labels if labels else float("nan")


def check_initial_loss(architecture: Architecture, sequences: Sequences, end: int, settings: TrainingSettings) -> Check:
    """Whether the loss of the untrained network, its head at zero, is that of its reference, worked out without it."""
    trainer = Trainer(architecture, sequences, settings, fresh_weights(architecture, settings.seed, settings.start))
    found = trainer.evaluate(0, end)
    expected = expected_loss(architecture, sequences, end, settings.loss)
    passed = abs(found - expected) <= INITIAL_LOSS_TOLERANCE * max(abs(expected), 1e-9)
    return Check("initial loss", passed, f"{found:.5f} untrained, {expected:.5f} expected of the reference")


def check_handful(architecture: Architecture, sequences: Sequences, end: int, settings: TrainingSettings) -> Check:
    """Whether a few hundred steps on a handful of sequences bring their loss down by half.

    It tells of inputs, labels and the network alone: steps are Adam's, and nothing holds the weights back.
    """
    bare = replace(settings, dropout=0.0, recurrent_dropout=0.0, l1=0.0, l2=0.0, max_norm=0.0)
    bare = replace(bare, optimiser="adam", momentum=0.0, weight_decay=0.0)
    walk = Walk(sequences, end, settings.chunk, segments=max(settings.segments, HANDFUL))
    begin = max(0, min(settings.chunk, walk.longest - settings.chunk))
    whole = walk.batch(np.arange(walk.lanes), begin, begin + settings.chunk)
    fullest = np.argsort(-whole.known.sum(axis=(0, 2)), kind="stable")[:HANDFUL]
    batch = walk.batch(np.sort(fullest), begin, begin + settings.chunk)
    weights = fresh_weights(architecture, settings.seed, settings.start, settings.head_start)
    trainer = Trainer(architecture, sequences, bare, weights)
    carried = trainer.zero_state(len(batch.lanes))
    first = trainer.follow(batch, carried)[0]
    for _ in range(HANDFUL_STEPS):
        trainer.step(batch, carried, HANDFUL_RATE)
    last = trainer.follow(batch, carried)[0]
    labels = float(batch.known.sum())
    if first <= 0.0:
        return Check("overfit a handful", passed=True, words="the sequences don't move: nothing to learn from them")
    words = f"{len(batch.lanes)} sequences: loss {first / labels:.4f} → {last / labels:.4f} in {HANDFUL_STEPS} steps"
    return Check("overfit a handful", last <= HANDFUL_FALL * first, words)
