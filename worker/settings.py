"""The settings: read once from killick.toml and the environment, refused when unknown or impossible.

The environment (`KILLICK_SECTION__NAME`) wins over the file, the file over the defaults. This is the
only module that reads the environment.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from models.errors import ConfigError
from worker import contradictions
from worker.sections import (
    AUTO_RING_STEPS,
    ArchiveSettings,
    DriftSettings,
    HttpSettings,
    KafkaSettings,
    LedgerSettings,
    LogSettings,
    ModelSettings,
    MonitorSettings,
    NetworkSettings,
    RedisSettings,
    Section,
    SwapSettings,
    TrainingSettings,
)
from worker.sections_backtest import UpdateSettings
from worker.sections_updating import ApiSettings, ImpactSettings, JudgementSettings, RetrainingSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from models.architecture import Architecture
    from models.scaling import SeriesForm

DEFAULT_FILE = "killick.toml"
PREFIX = "KILLICK_"
OTHER_VARIABLES = ("KILLICK_CONFIG", "KILLICK_REQUIRE_SERVICES")
SECRETS = ("kafka.password", "redis.password", "api.token")

Origin = Literal["default", "file", "environment"]


class Settings(BaseSettings):
    """All settings of one model, with the numbers that follow from them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,
        frozen=True,
        extra="forbid",
        title="killick",
    )

    model: ModelSettings = Field(default=ModelSettings(), description=ModelSettings.about)
    kafka: KafkaSettings = Field(default=KafkaSettings(), description=KafkaSettings.about)
    redis: RedisSettings = Field(default=RedisSettings(), description=RedisSettings.about)
    ledger: LedgerSettings = Field(default=LedgerSettings(), description=LedgerSettings.about)
    swap: SwapSettings = Field(default=SwapSettings(), description=SwapSettings.about)
    monitor: MonitorSettings = Field(default=MonitorSettings(), description=MonitorSettings.about)
    drift: DriftSettings = Field(default=DriftSettings(), description=DriftSettings.about)
    archive: ArchiveSettings = Field(default=ArchiveSettings(), description=ArchiveSettings.about)
    network: NetworkSettings = Field(default=NetworkSettings(), description=NetworkSettings.about)
    training: TrainingSettings = Field(default=TrainingSettings(), description=TrainingSettings.about)
    retraining: RetrainingSettings = Field(default=RetrainingSettings(), description=RetrainingSettings.about)
    judgement: JudgementSettings = Field(default=JudgementSettings(), description=JudgementSettings.about)
    update: UpdateSettings = Field(default=UpdateSettings(), description=UpdateSettings.about)
    impact: ImpactSettings = Field(default=ImpactSettings(), description=ImpactSettings.about)
    api: ApiSettings = Field(default=ApiSettings(), description=ApiSettings.about)
    http: HttpSettings = Field(default=HttpSettings(), description=HttpSettings.about)
    log: LogSettings = Field(default=LogSettings(), description=LogSettings.about)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then what `read` hands over from the file."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @property
    def interval_ms(self) -> int:
        """Length of one step in milliseconds."""
        return self.model.interval.ms

    @property
    def period_steps(self) -> int:
        """Length of the cycle in steps."""
        return self.model.period.ms // self.interval_ms

    @property
    def half_life_steps(self) -> float:
        """Half-life of the level and scale statistics in steps."""
        return self.model.half_life.ms / self.interval_ms

    @property
    def max_gap_steps(self) -> int:
        """Longest gap that is bridged, in steps left out; 0 bridges none."""
        return self.model.max_gap.ms // self.interval_ms

    @property
    def spin_up_steps(self) -> int:
        """The past that a version is given before it runs, in steps."""
        return max(self.swap.spin_up_steps, self.swap.spin_up.ms // self.interval_ms)

    @property
    def guard_steps(self) -> int:
        """How long the version before reads along after a promotion, in steps."""
        return self.swap.guard.ms // self.interval_ms

    @property
    def recent_steps(self) -> int:
        """The span of inputs that is compared with those of the training, in steps."""
        return max(1, self.drift.recent.ms // self.interval_ms)

    @property
    def max_ahead_ms(self) -> int:
        """How far an observation may lie beyond its record's timestamp, in milliseconds."""
        return self.model.max_ahead.ms

    @property
    def ahead_steps(self) -> int:
        """How far an observation may lie ahead, in steps; at least one."""
        return max(1, self.max_ahead_ms // self.interval_ms)

    @property
    def ring_steps_needed(self) -> int:
        """Steps that the scale and the inputs of the [network] section look back on, this one included."""
        season = [self.period_steps - lead for lead in self.network.season_lags]
        season += [self.period_steps - 1] if self.network.form == "season" else []
        season.append(self.network.season_mean * self.period_steps)
        return 1 + max(1, self.period_steps // 4, self.network.lags, *season)

    @property
    def ring_steps(self) -> int:
        """Recent steps kept for each series."""
        if self.model.ring == "auto":
            return max(self.ring_steps_needed, self.period_steps + 1, AUTO_RING_STEPS)
        return self.model.ring

    @property
    def kafka_group(self) -> str:
        """The consumer group."""
        return self.kafka.group or f"killick-{self.model.name}"

    def kafka_security(self) -> dict[str, str]:
        """How to speak to the brokers: keyword arguments of `Source`, `Sink` and `Admin`.

        Raises:
            ConfigError: the password's file can't be read.
        """
        kafka = self.kafka
        security = {"security_protocol": kafka.security_protocol, "ca_file": kafka.ca_file}
        if kafka.security_protocol.startswith("SASL"):
            security["sasl_mechanism"] = kafka.sasl_mechanism
            security["username"] = kafka.username
            security["password"] = _secret("kafka.password", kafka.password, kafka.password_file)
        return security

    def redis_password(self) -> str:
        """The password for Redis; "" where there is none, or it stands in the URL.

        Raises:
            ConfigError: the password's file can't be read.
        """
        return _secret("redis.password", self.redis.password, self.redis.password_file)

    def api_token(self) -> str:
        """The token that requests to the HTTP API bear; "" where there is none.

        Raises:
            ConfigError: the token's file can't be read.
        """
        return _secret("api.token", self.api.token, self.api.token_file)

    def series_form(self) -> SeriesForm:
        """The form of the series state that these settings ask for."""
        from models.scaling import SeriesForm  # noqa: PLC0415 - brings NumPy, which most commands do without

        return SeriesForm(
            features=self.model.features,
            target=self.model.target,
            interval_ms=self.interval_ms,
            period_steps=self.period_steps,
            half_life_steps=self.half_life_steps,
            ring_steps=self.ring_steps,
            max_gap_steps=self.max_gap_steps,
        )

    def architecture(self, gain: tuple[float, ...]) -> Architecture:
        """The architecture that the [network] section asks for; `gain` (H,) comes from the training span."""
        from models.architecture import Architecture, Inputs  # noqa: PLC0415 - as above

        network = self.network
        inputs = Inputs(
            level=network.level,
            delta=network.delta,
            lags=network.lags,
            season_lags=network.season_lags,
            calendar=network.calendar,
            missing=network.missing,
            squash=network.squash,
        )
        return Architecture(
            cell=network.cell,
            units=network.units,
            horizon=self.model.horizon,
            form=network.form,
            features=self.model.features,
            target=self.model.target,
            inputs=inputs,
            gain=gain,
            interval_ms=self.interval_ms,
            period_steps=self.period_steps,
            head_inputs=network.head_inputs,
            activation=network.activation,
            transform=network.transform,
            transform_lambda=network.transform_lambda,
            season_mean=network.season_mean,
        )


class _OfFile(Settings):
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What `load` hands over from the file, and nothing else."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


@dataclass(frozen=True)
class Loaded:
    """Settings with where each came from: `origins["model.horizon"]` is default, file or environment."""

    settings: Settings
    origins: Mapping[str, Origin]
    path: Path | None


def sections() -> dict[str, type[Section]]:
    """The sections by name, in their order."""
    found = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, Section)}


def keys() -> tuple[str, ...]:
    """Every setting as "section.name", in their order."""
    return tuple(f"{section}.{name}" for section, kind in sections().items() for name in kind.model_fields)


def variable(key: str) -> str:
    """The environment's name of the setting "section.name"."""
    return PREFIX + key.replace(".", "__").upper()


def environment_without_settings() -> dict[str, str]:
    """The environment for a process of ours that must see no setting but those of its file."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}


def environment_with(values: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process of ours that is given some settings, by "section.name", besides."""
    return {**os.environ, **{variable(key): value for key, value in values.items()}}


def load(path: str | Path | None = None, *, environment: bool = True) -> Loaded:
    """The settings of the file and the environment (of the file alone, if `environment` is false).

    `path` None means ./killick.toml if it is there, else the defaults.

    Raises:
        ConfigError: no such file, not TOML, a key that is not known, or a value that can't be.
    """
    chosen = _choose(path)
    content = _read_toml(chosen) if chosen else {}
    from_environment = {
        name.upper(): value for name, value in os.environ.items() if environment and name.upper().startswith(PREFIX)
    }
    problems = [*_unknown_in_file(content), *_secrets_in_file(content), *_unknown_variables(from_environment)]
    _refuse(problems, chosen)
    origins = {key: _origin(key, content, from_environment) for key in keys()}
    try:
        settings = (Settings if environment else _OfFile)(**content)
    except ValidationError as error:
        _refuse(_impossible(error, origins), chosen)
        raise
    _refuse(list(_contradictions(settings)), chosen)
    return Loaded(settings, origins, chosen)


def _choose(path: str | Path | None) -> Path | None:
    if path is not None:
        return Path(path)
    here = Path(DEFAULT_FILE)
    return here if here.exists() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"settings file {str(path)!r} can't be read ({error.strerror})",
            "`killick config init` writes one",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"settings file {str(path)!r} is not TOML: {error}", "text stands in double quotes"
        ) from error


def _refuse(problems: list[str], path: Path | None) -> None:
    """Raises one ConfigError that lists the problems, if there are any."""
    if not problems:
        return
    where = f"settings ({path} and environment)" if path else "settings (environment; no file)"
    listed = "".join(f"\n  {problem}" for problem in problems)
    raise ConfigError(f"{where} can't be used, {len(problems)} to repair:{listed}")


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _unknown_in_file(content: Mapping[str, Any]) -> Iterator[str]:
    known = sections()
    for section, entries in content.items():
        if section not in known:
            owners = [key for key in keys() if key.endswith(f".{section}")]
            cure = f"it belongs under a heading: {' or '.join(owners)}" if owners else _nearest(section, tuple(known))
            yield f"{section!r} is not a section: {cure}"
        elif not isinstance(entries, dict):
            yield f"{section!r} is a section, not a value: write [{section}] on a line and its settings below"
        else:
            for name in set(entries) - set(known[section].model_fields):
                nearest = _nearest(f"{section}.{name}", tuple(key for key in keys() if key.startswith(f"{section}.")))
                yield f"{section}.{name} is not a setting: {nearest}"


def _secrets_in_file(content: Mapping[str, Any]) -> Iterator[str]:
    for key in SECRETS:
        if _lookup(content, key) is not None:
            yield f"{key} stands in the file: set {variable(key)} or {key}_file instead"
    url = _lookup(content, "redis.url")
    if isinstance(url, str) and password_of(url):
        yield f"redis.url holds a password in the file: set {variable('redis.password')} instead"


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    known = (*(variable(key) for key in keys()), *OTHER_VARIABLES)
    for name in environment:
        if name not in known:
            yield f"environment variable {name} is not a setting: {_nearest(name, known)}"


def _lookup(content: Mapping[str, Any], key: str) -> object:
    section, name = key.split(".")
    entries = content.get(section)
    return entries.get(name) if isinstance(entries, dict) else None


def _origin(key: str, content: Mapping[str, Any], environment: Mapping[str, str]) -> Origin:
    if variable(key) in environment:
        return "environment"
    return "default" if _lookup(content, key) is None else "file"


def _impossible(error: ValidationError, origins: Mapping[str, Origin]) -> list[str]:
    """One line for each value that can't be: subject, value, limit and what the setting is."""
    lines = []
    problems = error.errors(include_url=False)
    inside = {problem["loc"][:2] for problem in problems if len(problem["loc"]) > 2}
    for problem in problems:
        if problem["type"] == "too_short" and problem["loc"] in inside:
            continue  # what is wrong inside of it is said already
        key = ".".join(str(part) for part in problem["loc"][:2])
        section, _, name = key.partition(".")
        about = sections()[section].model_fields[name].description if name else ""
        value = "***" if key in SECRETS else masked(repr(problem["input"]))
        named = variable(key) if origins.get(key) == "environment" else key
        limit = (
            problem["msg"].removeprefix("Value error, ").replace("Input should", "should").replace("Tuple", "the list")
        )
        lines.append(f"{named} = {value}: {limit} ({about})")
    return list(dict.fromkeys(lines))


def _contradictions(settings: Settings) -> Iterator[str]:
    """Values that are possible alone and not together."""
    yield from contradictions.of_model(settings.model)
    yield from contradictions.of_network(
        settings.network, settings.period_steps, settings.ring_steps, settings.ring_steps_needed
    )
    yield from contradictions.of_services(settings.kafka, settings.redis)
    yield from contradictions.of_monitor(settings.monitor)
    yield from contradictions.of_training(settings.training)
    yield from contradictions.of_updating(settings.retraining, settings.judgement, settings.api)


def password_of(url: str) -> str | None:
    """The password inside a URL, None if there is none."""
    try:
        return urlsplit(url).password
    except ValueError:
        return None


def masked(text: str) -> str:
    """`text` with the password of a URL in it, if there is one, as ***."""
    return re.sub(r"(://[^/\s:@]*:)[^/\s]*@", r"\1***@", text)


def _secret(key: str, given: SecretStr | None, file: str) -> str:
    if given is not None:
        return given.get_secret_value()
    if not file:
        return ""
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}_file = {file!r} can't be read ({error})", "name a file of text") from error
