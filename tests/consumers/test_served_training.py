"""What training measures is what the running stream's forecasts come to, in every form and by every transform.

In the "season" form the version has an input for each of some series, in another order than their slots.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from consumers.stream import Version
from models.choices import FORMS, Activation, Form, TransformName
from models.epochs import train
from models.learning import TrainingSettings
from models.network import Network, configure
from models.scaling import SeriesState
from models.sequences import Spans, gains, sequences_of
from models.training import Trainer
from tests.streams import FORM, architecture_of, run, stream_of

STEPS = 360
SPANS = Spans(train_end=240, validation_end=300, end=STEPS)
SETTINGS = TrainingSettings(epochs=3, patience=3, chunk=16, segments=2, rate=1e-2, closing_epochs=0)
CASES: list[tuple[Form, TransformName, Activation]] = [
    *((form, "none", "tanh") for form in FORMS),
    *((form, "log", "softsign") for form in FORMS),
    ("correction", "yeo-johnson", "tanh"),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    configure(threads=1)


@pytest.mark.parametrize(("form", "transform", "activation"), CASES)
def test_the_stream_errs_as_training_measured(form: Form, transform: TransformName, activation: Activation) -> None:
    """The mean squared error over a later span, of the target as the version sees it, agrees."""
    rng = np.random.default_rng(1)
    time = np.arange(STEPS)
    cycle = np.exp(1.2 * np.sin(2 * np.pi * time[:, None] / 8 + rng.uniform(0, 6, 3)))
    values = cycle * rng.uniform(0.9, 1.1, (STEPS, 3)) * np.array([1.0, 30.0, 1000.0])
    stream = stream_of([(f"s{i}", t, (values[t, i], 1.0)) for t in range(STEPS) for i in range(3)])
    slot = np.tile(np.arange(3), STEPS)
    rows = SeriesState(FORM).look(slot, stream.step, stream.values, stream.present)
    known = ("s2", "s0") if form == "season" else ()
    architecture = architecture_of(form=form, transform=transform, activation=activation, units=(6,), series=known)
    sequences = sequences_of(architecture, FORM, rows, names=[("s0", "s1", "s2")])
    if architecture.has_gain:
        architecture = msgspec.structs.replace(architecture, gain=gains(sequences, SPANS.train_end))
    outcome = train(architecture, sequences, SPANS, SETTINGS)
    assert np.abs(outcome.weights["head.kernel"]).max() > 0.01  # it says something of its own
    trainer = Trainer(architecture, sequences, replace(SETTINGS, batch_lanes=8), outcome.weights)
    measured = trainer.measure(SPANS.validation_end, SPANS.end).mse

    _, results = run(
        stream, [(0, 100), (100, 3 * STEPS)], {1: Version(1, architecture, Network(architecture, outcome.weights))}
    )
    issued = np.concatenate([folded.forecasts[1] for folded in results]).reshape(STEPS, 3, -1)
    at = rows.row_of.reshape(STEPS, 3)
    scale, level = rows.scale[at, 0], rows.level[at, 0]
    errors = []
    for k in range(1, architecture.horizon + 1):
        now = slice(SPANS.validation_end, STEPS - k)
        truth, forecast = values[SPANS.validation_end + k :], issued[now, :, k - 1].astype(float)
        seen = [architecture.seen_by.seen(one, scale[now]) for one in (truth, forecast)]
        errors.append((seen[1] - seen[0]) / architecture.seen_by.unit(scale[now], level[now]))
    assert measured == pytest.approx(np.mean(np.concatenate(errors) ** 2), rel=1e-4)
