"""Settings: where they come from, what is refused, what follows from them."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

from models.errors import ConfigError
from models.learning import TrainingSettings
from worker import settings_text
from worker.settings import keys
from worker.settings_reading import Loaded, load, variable
from worker.wiring_updating import training_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)


def loaded(tmp_path: Path, text: str) -> Loaded:
    """The settings of a file with that text."""
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def refusal(tmp_path: Path, text: str) -> str:
    """What is said about a file with that text."""
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, text)
    assert error.value.exit_code == 2
    return str(error.value)


def test_without_a_file_the_defaults_hold() -> None:
    """With neither file nor variables every setting is its default."""
    found = load()
    assert found.path is None
    assert set(found.origins.values()) == {"default"}
    assert found.settings.kafka_group == "killick-demo"
    assert (found.settings.interval_ms, found.settings.period_steps, found.settings.max_gap_steps) == (
        3_600_000,
        24,
        6,
    )


def test_the_file_in_this_folder_is_found(tmp_path: Path) -> None:
    """./killick.toml is read where no other file is named."""
    (tmp_path / "killick.toml").write_text("[model]\nhorizon = 5\n")
    assert load().settings.model.horizon == 5


def test_environment_wins_over_file_wins_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable overrides one setting of a section and leaves its neighbours to the file."""
    monkeypatch.setenv("KILLICK_MODEL__HORIZON", "7")
    monkeypatch.setenv("KILLICK_MODEL__FEATURES", "temp, dewp")
    monkeypatch.setenv("KILLICK_NETWORK__UNITS", "[64, 32]")
    found = loaded(tmp_path, '[model]\nhorizon = 5\ntarget = "temp"\ninterval = "30min"\n')
    model = found.settings.model
    assert (model.horizon, model.target, model.features, str(model.interval)) == (
        7,
        "temp",
        ("temp", "dewp"),
        "30min",
    )
    assert found.settings.network.units == (64, 32)
    origins = [found.origins[key] for key in ("model.horizon", "model.interval", "model.period")]
    assert origins == ["environment", "file", "default"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[model]\nhorizn = 3\n", "model.horizn is not a setting: did you mean model.horizon?"),
        ("[modle]\nhorizon = 3\n", "'modle' is not a section: did you mean model?"),
        ("horizon = 3\n", "'horizon' is not a section: it belongs under a heading: model.horizon"),
        ("model = 3\n", "'model' is a section, not a value"),
        ("[model]\nhorizon = 0\n", "model.horizon = 0: should be greater than or equal to 1"),
        ("[model]\nhorizon = 1025\n", "model.horizon = 1025: should be less than or equal to 1024"),
        ('[model]\ninterval = "0s"\n', "model.interval"),
        ('[model]\ninterval = "1 fortnight"\n', "is not a duration"),
        ("[model]\ninterval = 3600\n", "a duration is text with a unit"),
        ('[model]\ntarget = "temp"\n', "model.target = 'temp' is not among model.features = value"),
        ('[model]\nfeatures = ["value", "value"]\n', "a name stands there twice"),
        ("[model]\nfeatures = []\n", "model.features = []"),
        ('[model]\ninterval = "7h"\n', "is not a multiple of model.interval = 7h"),
        ('[model]\nmax_gap = "1d"\n', "model.max_gap = 1d is not below model.period = 1d"),
        ('[model]\nhalf_life = "1min"\n', "model.half_life = 1min is below model.interval"),
        ("[model]\nring = 10\n", "model.ring = 10 is below the 25"),
        ("[network]\nseason_lags = [24]\n", "network.season_lags = 24 is not below the period of 24 steps"),
        (
            "[network]\ntransform_lambda = 0.2\n",
            "network.transform_lambda is 0.2 and transform is 'none': only 'yeo-johnson' takes it",
        ),
        ("[model]\nperiod = '1h'\nmax_gap = '0s'\n[network]\nform = 'season'\n", "the period is one step"),
        ("[model]\nring = 20\n[network]\nform = 'season'\nlags = 2\n", "model.ring = 20 is below the 24"),
        ("[network]\nactivation = 'relu'\n", "network.activation = 'relu': should be 'tanh', 'softsign'"),
        ("[training]\nmomentum = 0.9\n", "training.momentum is 0.9 and optimiser is 'adam': only 'sgd'"),
        ("[training]\noptimiser = 'adamw'\n", "weight_decay is 0: set weight_decay above 0, or use 'adam'"),
        ("[network]\nsquash = nan\n", "network.squash = nan"),
        ("[network]\nunits = [2000]\n", "network.units = 2000"),
        ("[training]\nrate = inf\n", "training.rate = inf"),
        ('[kafka]\npredictions = "observations"\n', "two are the same"),
        ('[kafka]\nsecurity_protocol = "SASL_SSL"\n', "kafka.username is empty"),
        ('[redis]\nurl = "http://here"\n', "redis.url = 'http://here'"),
        ('[redis]\npassword = "secret"\n', "redis.password stands in the file: set KILLICK_REDIS__PASSWORD"),
        ('[redis]\nurl = "redis://:secret@here/0"\n', "redis.url holds a password"),
        ('[monitor]\nlease = "1s"\n', "monitor.lease = 1s is below twice monitor.poll = 1s"),
        ("[retraining]\nvalidation = 0.3\nevaluation = 0.4\n", "validation + retraining.evaluation = 0.7 is above 0.6"),
        ("[judgement]\nalpha = 0.3\n", "judgement.alpha = 0.3 is above judgement.budget = 0.2"),
        ('[judgement]\ngate = "offline"\ntrial = "harm"\n', 'judgement.trial = "harm" is of no effect'),
        ('[judgement]\nharm = "91d"\n', "judgement.harm = 91d is above judgement.deadline = 90d"),
        (
            '[retraining]\nexecutor = "dask"\n',
            "retraining.executor = 'dask': should be \"processes\", or tcp://host:port",
        ),
        ('[retraining]\nexecutor = "tcp://here:65536"\n', "retraining.executor = 'tcp://here:65536': should be"),
        ('[retraining]\nhistory = "1d"\n', "retraining.history = 1d is below retraining.new_data = 30d"),
        ("[retraining]\nrates = []\n", "retraining.rates = []: the list should have at least 1 item"),
        ('[retraining]\nrecents = ["7d", "everything"]\n', "retraining.recents"),
        ("[training]\nvalidation = 0.4\nevaluation = 0.4\n", "is above 0.6 of the span"),
        ("[model\n", "is not TOML"),
    ],
)
def test_refuses_with_subject_value_and_limit(tmp_path: Path, text: str, said: str) -> None:
    """Every unknown key and impossible value is refused by name; secrets are never repeated."""
    message = refusal(tmp_path, text)
    assert said in message
    assert "secret" not in message


def test_lists_everything_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run names all values to repair, also those of the environment by their variable."""
    monkeypatch.setenv("KILLICK_LOG__LEVEL", "LOUD")
    message = refusal(tmp_path, "[model]\nhorizon = 0\nmax_series = 0\n")
    assert "3 to repair" in message
    assert "KILLICK_LOG__LEVEL = 'LOUD'" in message


def test_refuses_unknown_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is refused with the nearest name; the two that are no settings are let through."""
    monkeypatch.setenv("KILLICK_CONFIG", "x")
    monkeypatch.setenv("KILLICK_REQUIRE_SERVICES", "1")
    load()
    monkeypatch.setenv("KILLICK_MODEL__HORIZN", "3")
    with pytest.raises(
        ConfigError, match="KILLICK_MODEL__HORIZN is not a setting: did you mean KILLICK_MODEL__HORIZON"
    ):
        load()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that is named must be there."""
    with pytest.raises(ConfigError, match=r"none\.toml.*can't be read"):
        load(tmp_path / "none.toml")


def test_secrets_come_from_environment_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password is read from the variable or from a file without its line end; both at once are refused."""
    held = tmp_path / "password"
    held.write_text("geheim\n")
    monkeypatch.setenv("KILLICK_KAFKA__PASSWORD", "hush")
    text = f'[redis]\npassword_file = "{held}"\n[kafka]\nsecurity_protocol = "SASL_SSL"\nusername = "u"\n'
    found = loaded(tmp_path, text)
    assert found.settings.redis_password() == "geheim"
    assert "hush" in found.settings.kafka_security().values()
    for shown in (settings_text.in_force(found), repr(found), str(settings_text.in_force_rows(found))):
        assert "hush" not in shown
        assert "geheim" not in shown
    monkeypatch.setenv("KILLICK_REDIS__PASSWORD", "other")
    assert "both set" in refusal(tmp_path, text)


def test_a_password_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """A password file that can't be read is refused when the password is needed."""
    found = loaded(tmp_path, '[redis]\npassword_file = "/nowhere/it/is"\n')
    with pytest.raises(ConfigError, match="/nowhere/it/is"):
        found.settings.redis_password()


def test_what_follows_reaches_series_form_and_architecture(tmp_path: Path) -> None:
    """Steps, ring and inputs of the settings are those of the series form and the architecture."""
    found = loaded(
        tmp_path,
        '[model]\ninterval = "15min"\nhorizon = 3\nfeatures = ["a", "b"]\ntarget = "b"\n'
        '[network]\nlags = 12\nseason_lags = [1, 4]\ncell = "gru"\nactivation = "softsign"\n'
        'form = "season"\ntransform = "yeo-johnson"\ntransform_lambda = 0.2\n',
    ).settings
    form = found.series_form()
    assert (form.period_steps, form.ring_steps, form.max_gap_steps) == (96, 97, 24)
    assert form.half_life_steps == 672.0
    architecture = found.architecture(gain=(1.0, 2.0, 3.0))
    assert (architecture.cell, architecture.horizon, architecture.target) == ("gru", 3, "b")
    assert (architecture.activation, architecture.form) == ("softsign", "season")
    assert (architecture.transform, architecture.transform_lambda) == ("yeo-johnson", 0.2)
    assert architecture.inputs.season_lags == (1, 4)
    assert architecture.ring_steps_needed < form.ring_steps


def test_the_least_ring_serves_what_the_network_needs(tmp_path: Path) -> None:
    """The least ring that is let through is one that the architecture and the series form accept."""
    found = loaded(tmp_path, "[model]\nring = 25\nhorizon = 1\n[network]\nlags = 24\n").settings
    assert found.architecture(gain=(1.0,)).ring_steps_needed < found.series_form().ring_steps == 25


def test_the_fresh_file_says_what_the_defaults_are(tmp_path: Path) -> None:
    """`config init` writes TOML that reads back as the defaults and holds every setting that is no secret."""
    text = settings_text.fresh_file()
    held = tomllib.loads(text)
    named = {f"{section}.{name}" for section, entries in held.items() for name in entries}
    assert named == set(keys()) - {"kafka.password", "redis.password", "api.token"}
    assert loaded(tmp_path, text).settings == load().settings
    assert all(variable(key) for key in keys())


def test_what_is_in_force_reads_back_the_same(tmp_path: Path) -> None:
    """What `config show` prints is TOML of the same settings, and names each origin."""
    found = loaded(tmp_path, '[model]\nname = "öl"\n'.replace("öl", "oil") + "[network]\nseason_lags = [1, 2]\n")
    shown = settings_text.in_force(found)
    assert "season_lags = [1, 2]  # file" in shown
    assert loaded(tmp_path, shown).settings == found.settings


def test_a_training_has_every_setting_that_it_knows(tmp_path: Path) -> None:
    """[training] has a setting for each field of a training, with its default, and hands it over."""
    default = load().settings.training
    for field in fields(TrainingSettings):
        assert getattr(default, field.name) == field.default, field.name
    text = "[training]\noptimiser = 'sgd'\nmomentum = 0.5\nstart = 'he'\nhead_start = 'drawn'\n"
    found = training_settings(loaded(tmp_path, text).settings)
    assert (found.optimiser, found.momentum, found.start, found.head_start) == ("sgd", 0.5, "he", "drawn")
