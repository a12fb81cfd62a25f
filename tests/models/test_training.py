"""Training: what it learns, what it may not see, and that it repeats."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from models.architecture import Architecture, Inputs
from models.choices import ACTIVATIONS, Activation
from models.epochs import train
from models.errors import DataError, VersionError
from models.learning import EpochReport, TrainingSettings
from models.network import Network, call, configure
from models.preflight import check_handful, check_initial_loss, check_size, expected_loss, preflight
from models.sequences import Batch, Sequences, Spans, Walk
from models.training import Moments, Recipe, Trainer, _compiled_step, _moved
from models.weights import fresh_weights

HORIZON = 3
STEPS = 700
SPANS = Spans(train_end=500, validation_end=600, end=700)
QUICK = TrainingSettings(epochs=4, chunk=16, segments=4, rate=1e-2, closing_epochs=1)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    configure(threads=1)


def architecture_of(**changes: object) -> Architecture:
    """An architecture with 5 inputs: level, delta and 3 lags."""
    values: dict[str, object] = {
        "horizon": HORIZON,
        "features": ("x",),
        "target": "x",
        "gain": (0.5, 0.8, 1.0),
        "interval_ms": 60_000,
        "period_steps": 20,
        "units": (8,),
        "inputs": Inputs(lags=3, calendar=False, missing=False),
    } | changes
    return Architecture(**values)  # type: ignore[arg-type]


def learnable(seed: int = 0, series: int = 3) -> Sequences:
    """Waves of unknown phase in noise, seen with a delay: only what is remembered tells where a wave goes."""
    rng = np.random.default_rng(seed)
    time = np.arange(STEPS)
    phase = rng.uniform(0, 2 * np.pi, (series, 1))
    wave = np.sin(2 * np.pi * time / 20 + phase) + rng.normal(scale=0.1, size=(series, STEPS))
    inputs = np.stack([np.roll(wave, k, axis=1) for k in range(2)] + [rng.normal(size=wave.shape)] * 3, axis=2)
    targets = np.stack([np.roll(wave, -k, axis=1) - wave for k in range(1, HORIZON + 1)], axis=2)
    known = rng.random(targets.shape) < 0.95
    for k in range(1, HORIZON + 1):
        known[:, STEPS - k :, k - 1] = False
    fresh = np.zeros((series, STEPS), np.bool_)
    fresh[:, 0] = True
    return Sequences(
        inputs=inputs.astype(np.float32),
        targets=np.where(known, targets, 0).astype(np.float32),
        known=known,
        active=np.ones((series, STEPS), np.bool_),
        fresh=fresh,
        first_step=0,
    )


def assert_equal_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Fail unless two sets of weights have the same bytes."""
    assert {name: w.tobytes() for name, w in a.items()} == {name: w.tobytes() for name, w in b.items()}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_training_learns_what_can_be_learned(cell: str) -> None:
    """On noisy waves the loss on labels never trained on falls to a fraction of the untrained network's."""
    architecture = architecture_of(cell=cell, units=(8, 6))
    sequences = learnable()
    outcome = train(architecture, sequences, SPANS, replace(QUICK, epochs=15))
    assert outcome.best.validation_loss < 0.35 * outcome.reference_validation_loss
    assert outcome.diagnosis == "good fit"
    trainer = Trainer(architecture, sequences, QUICK, outcome.weights)
    assert trainer.evaluate(600, 700) < 0.35 * expected_loss(architecture, sequences, STEPS, "huber")


def test_noise_is_not_called_a_good_fit() -> None:
    """Targets that nothing explains end in underfit or overfit."""
    sequences = learnable()
    noise = np.random.default_rng(5).normal(size=sequences.targets.shape).astype(np.float32)
    outcome = train(architecture_of(), replace(sequences, targets=noise), SPANS, replace(QUICK, epochs=6))
    assert outcome.diagnosis in {"underfit", "overfit"}


def test_the_same_seed_gives_the_same_bits_and_another_seed_gives_others() -> None:
    """Training repeats bit for bit, dropout and phases included."""
    settings = replace(QUICK, dropout=0.2, recurrent_dropout=0.1)
    runs = [train(architecture_of(), learnable(), SPANS, replace(settings, seed=seed)).weights for seed in (1, 1, 2)]
    assert_equal_bits(runs[0], runs[1])
    assert runs[0]["head.kernel"].tobytes() != runs[2]["head.kernel"].tobytes()


def test_nothing_after_the_validation_span_touches_a_version() -> None:
    """Other inputs and labels there give the same weights; other labels before its end give other ones."""
    sequences = learnable()
    end = SPANS.validation_end
    changed = replace(sequences, inputs=sequences.inputs.copy(), targets=sequences.targets.copy())
    changed.inputs[:, end:] = 9.0
    for k in range(1, HORIZON + 1):
        changed.targets[:, end - k :, k - 1] = -7.0
    plain, other = (train(architecture_of(), data, SPANS, QUICK) for data in (sequences, changed))
    assert_equal_bits(plain.weights, other.weights)
    changed.targets[:, end - 2, 0] = -7.0
    assert train(architecture_of(), changed, SPANS, QUICK).weights["head.bias"].tobytes() != (
        plain.weights["head.bias"].tobytes()
    )


def test_labels_of_the_validation_span_do_not_train_before_the_closing_epochs() -> None:
    """With other validation labels the training losses are the same and the validation losses are not."""
    sequences = learnable()
    changed = replace(sequences, targets=sequences.targets.copy())
    for k in range(1, HORIZON + 1):
        changed.targets[:, SPANS.train_end - k + 1 :, k - 1] += 1.0
    settings = replace(QUICK, closing_epochs=0, patience=10)
    plain, other = (train(architecture_of(), data, SPANS, settings) for data in (sequences, changed))
    assert [e.train_loss for e in plain.curve] == [e.train_loss for e in other.curve]
    assert [e.validation_loss for e in plain.curve] != [e.validation_loss for e in other.curve]


def test_the_loss_is_that_of_the_running_network_with_its_state_carried_through() -> None:
    """What validation measures equals a NumPy calculation on the outputs of `Network.scan` from the start."""
    architecture = architecture_of(period_steps=600)  # the spin-up then covers all before the validation span
    sequences = learnable(series=8)
    weights = train(architecture, sequences, SPANS, QUICK).weights
    found = Trainer(architecture, sequences, QUICK, weights).evaluate(SPANS.train_end, SPANS.validation_end)
    carried = np.zeros((8, architecture.carried_size), np.float32)
    x = np.ascontiguousarray(np.swapaxes(sequences.inputs, 0, 1))
    outputs, _ = Network(architecture, weights).scan(x, np.ones((STEPS, 8), np.bool_), carried)
    error = np.abs(np.swapaxes(outputs, 0, 1) - sequences.targets / np.array(architecture.gain))
    huber = np.where(error <= 1, 0.5 * error**2, error - 0.5)
    issued = np.arange(STEPS)[None, :, None]
    leads = np.arange(1, HORIZON + 1)
    inside = (issued >= SPANS.train_end) & (issued + leads < SPANS.validation_end) & sequences.known
    assert found == pytest.approx(huber[inside].mean(), rel=1e-5)


@pytest.mark.parametrize("loss", ["huber", "mae", "mse"])
def test_a_step_goes_against_the_numeric_gradient(loss: Literal["huber", "mae", "mse"]) -> None:
    """Adam's first step moves each weight by the rate against the sign of a finite difference of the loss."""
    architecture = architecture_of(units=(4, 3), cell="lstm")
    sequences = learnable()
    settings = replace(QUICK, loss=loss, clip_norm=1e6)
    rng = np.random.default_rng(2)
    start = {
        name: (w + rng.normal(scale=0.3, size=w.shape)).astype(np.float32)
        for name, w in fresh_weights(architecture, 1).items()
    }
    walk = Walk(sequences, 500, 16, 1)
    batch = walk.batch(np.arange(3), 40, 56)
    carried = rng.normal(scale=0.5, size=(3, architecture.carried_size)).astype(np.float32)
    trainer = Trainer(architecture, sequences, settings, start)
    trainer.step(batch, carried, rate=1e-3)
    moved = trainer.moments.as_arrays(architecture)
    agreed = compared = 0
    for name, before in start.items():
        for index in [tuple(rng.integers(0, n) for n in before.shape) for _ in range(6)]:
            losses = []
            for sign in (1, -1):
                nudged = {key: w.copy() for key, w in start.items()}
                nudged[name][index] += sign * 3e-3
                total, labels, _ = Trainer(architecture, sequences, settings, nudged).follow(batch, carried)
                losses.append(total / labels)
            slope = (losses[0] - losses[1]) / 6e-3
            if abs(slope) > 2e-4:
                compared += 1
                agreed += bool(np.isclose(moved[name][index] - before[index], -1e-3 * np.sign(slope), rtol=0.02))
    assert compared > 20
    assert agreed == compared


OPTIMISERS: list[tuple[dict[str, object], str, dict[str, object]]] = [
    ({}, "Adam", {}),
    ({"optimiser": "adamw", "weight_decay": 0.2}, "AdamW", {"weight_decay": 0.2}),
    ({"optimiser": "rmsprop"}, "RMSprop", {}),
    ({"optimiser": "sgd"}, "SGD", {}),
    ({"optimiser": "sgd", "momentum": 0.9}, "SGD", {"momentum": 0.9}),
]


@pytest.mark.parametrize(("changes", "name", "options"), OPTIMISERS)
def test_an_optimiser_goes_where_that_of_keras_goes(
    changes: dict[str, object], name: str, options: dict[str, object]
) -> None:
    """Over thirty steps on the same gradients, at a rate that changes; biases don't decay."""
    import keras
    import tensorflow as tf

    architecture = architecture_of()
    recipe = Recipe.of(architecture, replace(QUICK, **changes))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    start = {k: rng.normal(size=w.shape).astype(np.float32) for k, w in fresh_weights(architecture, 1).items()}
    at = Moments.of(architecture, start)
    theirs = [keras.Variable(w, name=key.replace(".", "_")) for key, w in start.items()]
    optimiser = getattr(keras.optimizers, name)(learning_rate=1e-2, **options)
    if name == "AdamW":
        optimiser.exclude_from_weight_decay(var_names=["bias"])
    for number in range(1, 31):
        gradients = [tf.constant(rng.normal(size=w.shape).astype(np.float32)) for w in start.values()]
        rate = 1e-2 if number < 15 else 3e-3
        at = Moments(*_moved(recipe, at._replace(steps=number), gradients, np.float32(rate)), number)
        optimiser.learning_rate = rate
        optimiser.apply(gradients, theirs)
    for (key, mine), other in zip(at.as_arrays(architecture).items(), theirs, strict=True):
        assert np.abs(mine - start[key]).max() > 1e-2
        np.testing.assert_allclose(mine, np.asarray(other), atol=1e-6, rtol=5e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "adamw", "weight_decay": 0.1},
        {"optimiser": "rmsprop", "rate": 3e-3},
        {"optimiser": "sgd", "rate": 0.1, "momentum": 0.9},
        {"start": "he", "head_start": "drawn"},
        {"start": "orthogonal"},
    ],
)
def test_training_learns_by_other_ways_too(changes: dict[str, object]) -> None:
    """Each optimiser and start ends well below the untrained network, whose loss is that with the head at zero."""
    architecture, sequences = architecture_of(), learnable()
    settings = replace(QUICK, **(dict[str, object](epochs=12) | changes))  # type: ignore[arg-type]
    assert preflight(architecture_of(units=(2,)), sequences, SPANS, settings).passed
    outcome = train(architecture, sequences, SPANS, settings)
    assert outcome.best.validation_loss < 0.5 * outcome.reference_validation_loss
    plain = train(architecture, sequences, SPANS, replace(QUICK, epochs=1))
    assert outcome.reference_train_loss == plain.reference_train_loss
    assert outcome.weights["layer0.kernel"].tobytes() != plain.weights["layer0.kernel"].tobytes()


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_training_learns_with_other_activations(activation: Activation) -> None:
    """The step of training goes through the same activation as the running network."""
    architecture, sequences = architecture_of(activation=activation), learnable()
    outcome = train(architecture, sequences, SPANS, replace(QUICK, epochs=10))
    assert outcome.best.validation_loss < 0.5 * outcome.reference_validation_loss


def test_state_flows_from_chunk_to_chunk_and_a_fresh_series_starts_from_zero() -> None:
    """Following two chunks equals following their union; a mark of a fresh start cuts what came before."""
    architecture = architecture_of()
    sequences = learnable()
    weights = train(architecture, sequences, SPANS, replace(QUICK, epochs=1)).weights
    trainer = Trainer(architecture, sequences, QUICK, weights)
    walk = Walk(sequences, 500, 16, 1)
    lanes = np.arange(3)
    zero = trainer.zero_state(3)
    whole = trainer.follow(walk.batch(lanes, 0, 60), zero)
    first = trainer.follow(walk.batch(lanes, 0, 33), zero)
    second = trainer.follow(walk.batch(lanes, 33, 60), first[2])
    assert whole[0] == pytest.approx(first[0] + second[0], rel=1e-5)
    np.testing.assert_allclose(whole[2], second[2], atol=1e-6)
    batch = walk.batch(lanes, 100, 130)
    batch.fresh[10, 1] = True
    _, _, one = trainer.follow(batch, zero)
    _, _, two = trainer.follow(batch, zero + np.float32(0.7))
    assert one[1].tobytes() == two[1].tobytes()
    assert one[0].tobytes() != two[0].tobytes()
    _, _, trained = trainer.step(batch, zero + np.float32(0.7), rate=0.0)
    np.testing.assert_allclose(trained, two, atol=1e-6)


def test_an_epoch_carries_each_segment_s_state_from_chunk_to_chunk() -> None:
    """At rate 0 the state at the end of a segment is that of the running network over it."""
    architecture = architecture_of()
    sequences = learnable(series=2)
    weights = train(architecture, sequences, SPANS, replace(QUICK, epochs=1)).weights
    trainer = Trainer(architecture, sequences, replace(QUICK, batch_lanes=3), weights)
    walk = trainer.walk(SPANS.train_end)
    assert walk.lanes == 8
    zero = trainer.zero_state(8)
    _, labels, carried = trainer.epoch(walk.tour(np.random.default_rng(0), 3, 0), zero, 0.0)
    assert labels == sequences.usable(0, SPANS.train_end)
    for lane in range(8):
        segment = sequences.inputs[walk.series[lane], walk.start[lane] : walk.stop[lane]]
        x = np.repeat(segment[:, None], 8, axis=1)
        _, expected = Network(architecture, weights).scan(x, np.ones(x.shape[:2], np.bool_), zero)
        np.testing.assert_allclose(carried[lane], expected[0], atol=1e-5)


def test_an_epoch_starts_segments_from_where_the_last_one_left_the_ones_before() -> None:
    """At a vanishing rate the loss becomes that of an uninterrupted run, one segment further each epoch."""
    architecture = architecture_of()
    sequences = learnable()
    weights = train(architecture, sequences, SPANS, replace(QUICK, epochs=3)).weights
    standing = replace(QUICK, epochs=4, patience=4, rate=1e-8, chunk=4, segments=20, burn_in_chunks=0, closing_epochs=0)
    curve = train(architecture, sequences, SPANS, standing, weights=weights).curve
    whole = Trainer(architecture, sequences, standing, weights).evaluate(0, SPANS.train_end)
    assert curve[0].train_loss > 1.5 * whole
    assert curve[3].train_loss == pytest.approx(whole, rel=1e-3)


def test_burn_in_moves_the_state_and_trains_nothing() -> None:
    """With as many burn-in chunks as there are but one, an epoch takes one step for each batch."""
    sequences = learnable()
    trainer = Trainer(architecture_of(), sequences, QUICK, fresh_weights(architecture_of(), 1))
    walk = trainer.walk(SPANS.train_end)
    chunks = len(walk.boundaries(np.random.default_rng(4)))
    trainer.epoch(walk.tour(np.random.default_rng(4), 256, chunks - 1), trainer.zero_state(walk.lanes), 1e-3)
    assert trainer.moments.steps == 1


def test_gradients_are_clipped_and_weights_decay() -> None:
    """A tiny limit of the norm changes what the second step does; L2 pulls kernels towards zero."""
    sequences = learnable()
    walk = Walk(sequences, 500, 16, 1)
    batch = walk.batch(np.arange(3), 40, 56)
    architecture = architecture_of()
    start = train(architecture, sequences, SPANS, replace(QUICK, epochs=2)).weights
    ends = {}
    for name, settings in {
        "plain": QUICK,
        "clipped": replace(QUICK, clip_norm=1e-6),
        "decaying": replace(QUICK, l2=1.0),
    }.items():
        trainer = Trainer(architecture, sequences, settings, start)
        for _ in range(5):
            trainer.step(batch, trainer.zero_state(3), 1e-2)
        ends[name] = trainer.moments.as_arrays(architecture)["layer0.recurrent"]
    moved = {name: float(np.abs(w - start["layer0.recurrent"]).sum()) for name, w in ends.items()}
    assert moved["clipped"] < 0.7 * moved["plain"]
    assert np.abs(ends["decaying"]).sum() < np.abs(ends["plain"]).sum()


def test_absolute_weights_are_drawn_to_zero_and_norms_are_bounded() -> None:
    """L1 leaves biases alone and kernels smaller; no unit's incoming weights are longer than `max_norm`."""
    sequences = learnable()
    batch = Walk(sequences, 500, 16, 1).batch(np.arange(3), 40, 56)
    blind = replace(batch, known=np.zeros_like(batch.known))  # so that nothing but the penalty moves weights
    for cell in ("lstm", "gru"):
        architecture = architecture_of(cell=cell)
        rng = np.random.default_rng(1)
        start = {
            name: rng.normal(size=w.shape).astype(np.float32) for name, w in fresh_weights(architecture, 1).items()
        }
        for l1, l2 in ((0.1, 0.0), (0.0, 0.1)):
            trainer = Trainer(architecture, sequences, replace(QUICK, l1=l1, l2=l2, clip_norm=1e6), start)
            trainer.step(blind, trainer.zero_state(3), 1e-3)
            for (name, w), first in zip(start.items(), trainer.moments.first, strict=True):
                gradient = 0.0 if name.endswith("bias") else l1 * np.sign(w) + 2 * l2 * w
                np.testing.assert_allclose(first, 0.1 * gradient, rtol=1e-5)
        trainer = Trainer(architecture, sequences, replace(QUICK, max_norm=1.5), start)
        trainer.step(batch, trainer.zero_state(3), 1e-2)
        for name, bounded in trainer.moments.as_arrays(architecture).items():
            norms = np.sqrt((bounded.astype(float) ** 2).sum(axis=0))
            assert name.endswith("bias") or norms.max() == pytest.approx(1.5, rel=1e-5)
    short = {name: w * np.float32(1e-2) for name, w in start.items()}
    ends = []
    for most in (0.0, 1.5):
        trainer = Trainer(architecture, sequences, replace(QUICK, max_norm=most), short)
        trainer.step(batch, trainer.zero_state(3), 1e-2)
        ends.append(trainer.moments.as_arrays(architecture))
    assert_equal_bits(*ends)  # what is short enough is left as it is


def test_a_training_that_diverges_ends_at_once() -> None:
    """Far above the loss it began with, it is given up, and what it says is a cure."""
    sequences = learnable()
    weights = train(architecture_of(), sequences, SPANS, replace(QUICK, epochs=15)).weights
    wild = replace(QUICK, rate=1.0, epochs=50, patience=50)
    told: list[EpochReport] = []
    with pytest.raises(
        VersionError, match=r"exploded: the validation loss .* more than 10 times .* lower training.rate"
    ):
        train(architecture_of(), sequences, SPANS, wild, told.append, weights)
    assert len(told) < 10


def test_training_stops_early_and_keeps_the_best_weights() -> None:
    """After `patience` epochs without a better validation loss it ends with the weights of the best one."""
    sequences = learnable()
    noise = np.random.default_rng(5).normal(size=sequences.targets.shape).astype(np.float32)
    sequences = replace(sequences, targets=noise)
    told: list[EpochReport] = []
    settings = replace(QUICK, epochs=50, patience=3, closing_epochs=0, rate=3e-2)
    outcome = train(architecture_of(), sequences, SPANS, settings, told.append)
    assert tuple(told) == outcome.curve
    assert len(told) == outcome.best_epoch + 3 < 50
    assert outcome.best.validation_loss == min(e.validation_loss for e in told)
    kept = Trainer(architecture_of(), sequences, settings, outcome.weights)
    assert kept.evaluate(SPANS.train_end, SPANS.validation_end) == outcome.best.validation_loss


def test_an_exploded_training_says_so() -> None:
    """A loss that is not finite any more ends the attempt with its step and rate."""
    sequences = learnable()
    sequences.targets[:] *= 1e25
    with pytest.raises(VersionError, match="exploded: the loss is inf at step 1"):
        train(architecture_of(), sequences, SPANS, replace(QUICK, loss="mse"))


def test_spans_without_labels_are_refused() -> None:
    """Nothing to train on, or to validate on, is said by name."""
    sequences = learnable()
    blind = replace(sequences, known=sequences.known.copy())
    blind.known[:, SPANS.train_end :] = False
    with pytest.raises(DataError, match="validation span holds no label"):
        train(architecture_of(), blind, SPANS, QUICK)
    blind = replace(sequences, known=sequences.known.copy())
    blind.known[:, : SPANS.train_end] = False
    with pytest.raises(DataError, match="hold no label to train on"):
        train(architecture_of(), blind, SPANS, QUICK)


def test_preflight_passes_on_sound_data_and_counts_what_it_says() -> None:
    """All three checks pass on waves; the expected loss is the mean over the labels."""
    sequences = learnable()
    report = preflight(architecture_of(units=(2,)), sequences, SPANS, QUICK)
    assert [check.passed for check in report.checks] == [True, True, True]
    assert report.passed
    usable = sequences.usable(0, SPANS.train_end)
    assert f"{usable:,} labels" in report.checks[0].words
    mask = sequences.known & (np.arange(STEPS)[:, None] + np.arange(1, HORIZON + 1) < SPANS.train_end)
    error = np.abs(sequences.targets / np.array([0.5, 0.8, 1.0], np.float32))[mask]
    mse = expected_loss(architecture_of(), sequences, SPANS.train_end, "mse")
    assert mse == pytest.approx(float(np.mean(error.astype(float) ** 2)), rel=1e-6)


def test_a_handful_is_overfit_without_what_is_there_to_prevent_it() -> None:
    """Penalties, bounds and dropout of the training are left out of that check."""
    strict = replace(QUICK, l1=0.5, l2=0.5, max_norm=0.01, dropout=0.8, recurrent_dropout=0.8)
    assert check_handful(architecture_of(), learnable(), SPANS.train_end, strict).passed


def test_preflight_notices_what_is_wrong() -> None:
    """Too many parameters, targets that don't fit their gain's form, and inputs without content fail."""
    sequences = learnable()
    assert not check_size(architecture_of(units=(64,)), sequences, SPANS.train_end).passed
    contradictory = replace(
        sequences,
        inputs=np.zeros_like(sequences.inputs),
        targets=np.random.default_rng(0).normal(size=sequences.targets.shape).astype(np.float32),
    )
    found = check_handful(architecture_of(head_inputs=False), contradictory, SPANS.train_end, QUICK)
    assert not found.passed
    still = replace(sequences, targets=np.zeros_like(sequences.targets))
    assert "don't move" in check_handful(architecture_of(), still, SPANS.train_end, QUICK).words
    poisoned = replace(sequences, targets=sequences.targets.copy())
    poisoned.targets[0, 200, 0] = np.inf
    assert not check_initial_loss(architecture_of(), poisoned, SPANS.train_end, QUICK).passed


def _batch(*, idle: bool, fresh_later: bool) -> Batch:
    """Eleven lanes of 20 steps, two of which begin with the batch."""
    rng = np.random.default_rng(0)
    architecture = architecture_of()
    active, fresh = np.ones((20, 11), np.bool_), np.zeros((20, 11), np.bool_)
    fresh[0, [1, 4]] = True
    active[15:, 3] = not idle
    fresh[7, 2] = fresh_later
    horizon = architecture.horizon
    return Batch(
        lanes=np.arange(11),
        inputs=rng.normal(size=(20, 11, architecture.input_size)).astype(np.float32),
        active=active,
        fresh=fresh,
        targets=rng.normal(size=(20, 11, horizon)).astype(np.float32),
        known=(rng.random((20, 11, horizon)) < 0.8).astype(np.float32),
    )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_step_on_lanes_that_are_alike_gives_the_bits_of_any_other(cell: str, dropout: float) -> None:
    """Where all lanes are always active the step is another function; weights, moments, loss and state are equal."""
    architecture = architecture_of(cell=cell, units=(6, 5))
    settings = replace(QUICK, dropout=dropout, recurrent_dropout=dropout)
    trainer = Trainer(architecture, learnable(), settings, fresh_weights(architecture, 1))
    batch = _batch(idle=False, fresh_later=False)
    rng = np.random.default_rng(1)
    for _ in range(3):
        carried = rng.normal(size=(11, architecture.carried_size)).astype(np.float32)
        before = trainer.moments
        flat = [*before.weights, *before.first, *before.second]
        seed = np.array([settings.seed, before.steps], np.int32)
        arguments = [*trainer._data(batch, carried), *flat, np.float32(before.steps + 1), np.float32(0.01), seed]
        *moved, total, labels, after = call(_compiled_step(Recipe.of(architecture, settings), plain=False), arguments)
        found = trainer.step(batch, carried, 0.01)
        assert found[:2] == (float(total), float(labels))
        assert found[2].tobytes() == after.numpy().tobytes()
        now = trainer.moments
        for mine, other in zip([*now.weights, *now.first, *now.second], moved, strict=True):
            assert mine.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("fresh_later", [False, True])
def test_a_burn_in_leaves_the_state_that_following_leaves(*, idle: bool, fresh_later: bool) -> None:
    """Bit for bit, with lanes that end and lanes that begin, at once or on the way."""
    architecture = architecture_of()
    trainer = Trainer(architecture, learnable(), QUICK, fresh_weights(architecture, 1))
    carried = np.random.default_rng(1).normal(size=(11, architecture.carried_size)).astype(np.float32)
    batch = _batch(idle=idle, fresh_later=fresh_later)
    assert trainer.burn_in(batch, carried).tobytes() == trainer.follow(batch, carried)[2].tobytes()
