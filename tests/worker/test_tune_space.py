"""The space of a tuning: what is searched, how it is said, and that what is pasted is what was tried."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.errors import ConfigError
from worker import settings_reading as reading
from worker.sections import NetworkSettings, TrainingSettings
from worker.tune_space import (
    LEFT_ALONE,
    applied,
    drawn,
    possible,
    present,
    space,
    table,
    toml,
    values_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from worker.settings import Settings
    from worker.tune_space import Dimension, Params


def settings_of(folder: Path, content: str = "") -> Settings:
    """The settings of a file with this content."""
    path = folder / "killick.toml"
    path.write_text(content)
    return reading.load(path, environment=False).settings


def at_random(dimensions: tuple[Dimension, ...], seed: int) -> Params:
    """A choice of the space, each value as likely as the next."""
    rng = np.random.default_rng(seed)

    def draw(one: Dimension) -> str | float:
        if one.is_range:
            return one.rounded(float(np.exp(rng.uniform(np.log(one.low), np.log(one.high)))))
        return one.choices[rng.integers(len(one.choices))]

    return drawn(dimensions, draw)


def test_every_setting_of_network_and_training_is_searched_or_left_alone_for_a_reason(tmp_path: Path) -> None:
    """A new setting is either in the table, or said why it is not."""
    known = {f"network.{name}" for name in NetworkSettings.model_fields}
    known |= {f"training.{name}" for name in TrainingSettings.model_fields}
    searched = {one.key for one in table(settings_of(tmp_path))}
    assert searched | set(LEFT_ALONE) == known
    assert not searched & set(LEFT_ALONE)


@pytest.mark.parametrize("key", [one.key for one in table(reading.load(None, environment=False).settings)])
def test_every_value_of_the_table_can_be(tmp_path: Path, key: str) -> None:
    """Each value of each setting makes settings and an architecture, beside what it needs."""
    settings = settings_of(tmp_path)
    dimensions = table(settings)
    (one,) = (dimension for dimension in dimensions if dimension.key == key)
    base = present(settings, dimensions)
    if one.when is not None:
        base[one.when[0]] = one.when[1][0]
    for value in (one.low, one.high) if one.is_range else one.choices:
        params = base | {key: value}
        params |= {other.key: other.choices[0] for other in dimensions if other.when == (key, (value,))}
        found = applied(settings, dimensions, params)
        expected = value if one.is_range else tomllib.loads(f"value = {value}")["value"]
        assert values_of(found, [one])[key] == expected
        found.architecture(gain=(1.0,) * found.model.horizon)


def test_most_of_the_space_is_possible(tmp_path: Path) -> None:
    """Drawn at random, configurations can be built: settings do not contradict each other by chance."""
    settings = settings_of(tmp_path)
    dimensions = space(settings, (), ())
    found = [possible(settings, dimensions, at_random(dimensions, seed)) for seed in range(200)]
    assert np.mean(found) > 0.8


@pytest.mark.parametrize(
    ("content", "key", "value"),
    [
        ("[network]\nunits = [48, 24]\n", "network.units", [48, 24]),
        ("[training]\nrate = 0.1234567\n", "training.rate", 0.1234567),
        ('[training]\noptimiser = "sgd"\nmomentum = 0.8\n', "training.momentum", 0.8),
        ("[training]\nchunk = 33\n", "training.chunk", 33),
    ],
)
def test_the_settings_in_force_are_among_what_is_tried(tmp_path: Path, content: str, key: str, value: Any) -> None:
    """Trial 0 is the settings as they are to the last digit, be they ever so odd."""
    settings = settings_of(tmp_path, content)
    dimensions = space(settings, (), ())
    found = applied(settings, dimensions, present(settings, dimensions))
    assert (found.network, found.training, found.model) == (settings.network, settings.training, settings.model)
    assert values_of(found, dimensions)[key] == value


@pytest.mark.parametrize("seed", range(20))
def test_what_is_pasted_is_what_was_tried(tmp_path: Path, seed: int) -> None:
    """The TOML of what changed, read as a settings file, gives the settings that were trained."""
    before = "[model]\nhorizon = 6\n"
    settings = settings_of(tmp_path, before)
    dimensions = space(settings, (), ())
    tried = applied(settings, dimensions, at_random(dimensions, seed))
    values, first = values_of(tried, dimensions), values_of(settings, dimensions)
    pasted = toml({key: value for key, value in values.items() if value != first[key]})
    read = settings_of(tmp_path, before + pasted)
    assert (read.network, read.training) == (tried.network, tried.training)


def test_a_setting_that_does_nothing_is_not_searched(tmp_path: Path) -> None:
    """Momentum is drawn beside sgd only; another optimiser gets none, though the settings have some."""
    settings = settings_of(tmp_path, '[training]\noptimiser = "sgd"\nmomentum = 0.9\n')
    dimensions = space(settings, ("training.optimiser", "training.momentum"), ())
    assert present(settings, dimensions) == {"training.optimiser": '"sgd"', "training.momentum": "0.9"}
    other = drawn(dimensions, lambda one: '"adam"' if one.key == "training.optimiser" else one.choices[0])
    assert other == {"training.optimiser": '"adam"'}
    assert applied(settings, dimensions, other).training.momentum == 0.0
    kept = space(settings_of(tmp_path), (), ("training.optimiser",))
    assert not {"training.momentum", "training.weight_decay"} & {one.key for one in kept}


def test_vary_and_keep_say_what_is_searched(tmp_path: Path) -> None:
    """Only what is varied, over the values given and the one in force; what is kept is left out."""
    settings = settings_of(tmp_path)
    found = space(settings, ("network.units=[8],[8, 8]", "training.rate=0.001..0.01", "training.loss=mae"), ())
    assert {one.key: (one.choices, one.low, one.high) for one in found} == {
        "network.units": (("[32]", "[8]", "[8, 8]"), 0.0, 0.0),
        "training.rate": ((), 0.001, 0.01),
        "training.loss": (('"huber"', '"mae"'), 0.0, 0.0),
    }
    everything = {one.key for one in space(settings, (), ())}
    assert {one.key for one in space(settings, (), ("network.cell",))} == everything - {"network.cell"}
    (half_life,) = space(settings, ("model.half_life=2d,14d",), ())
    assert half_life.choices == ('"7d"', '"2d"', '"14d"')
    assert applied(settings, [half_life], {"model.half_life": '"2d"'}).half_life_steps == 48


@pytest.mark.parametrize(
    ("vary", "keep", "said"),
    [
        (("network.unit",), (), "did you mean network.units"),
        (("model.horizon=3,6",), (), "says what is forecast"),
        (("training.seed=1,2",), (), "can't be varied"),
        (("training.rate=fast",), (), "training.rate = fast"),
        (("training.rate=2",), (), "less than or equal to 1"),
        (("training.rate=0.1..0.01",), (), "no range of numbers"),
        (("training.chunk=8..64",), (), "give values: --vary training.chunk=V1,V2"),
        (("training.rate=1e-9..1e-2",), (), "greater than or equal to"),
        (("training.momentum=0.5",), (), 'does nothing while training.optimiser = "adam"'),
        (("model.half_life",), (), "has no values of its own"),
        (("network.cell=",), (), "is given 0 values"),
        (("network.cell",), ("network.cell",), "to be varied and to be kept"),
        ((), ("kafka.group",), "is not a setting"),
    ],
)
def test_what_can_not_be_searched_is_refused(
    tmp_path: Path, vary: tuple[str, ...], keep: tuple[str, ...], said: str
) -> None:
    """A wrong name, a wrong value, and what makes no sense are refused with what to write instead."""
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")):
        space(settings_of(tmp_path), vary, keep)


def test_keeping_everything_leaves_nothing_to_search(tmp_path: Path) -> None:
    """A space without settings is refused."""
    settings = settings_of(tmp_path)
    with pytest.raises(ConfigError, match="nothing left to search"):
        space(settings, (), tuple(one.key for one in table(settings)))
