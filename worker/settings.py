"""The settings of one model: its sections, and the numbers that follow from them.

How they are read from a file and the environment is `worker/settings_reading.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from models.errors import ConfigError
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
    from models.architecture import Architecture
    from models.scaling import SeriesForm

SECRETS = ("kafka.password", "redis.password", "api.token")


class Settings(BaseModel):
    """All settings of one model, with the numbers that follow from them."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="killick")

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


def sections() -> dict[str, type[Section]]:
    """The sections by name, in their order."""
    found = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, Section)}


def keys() -> tuple[str, ...]:
    """Every setting as "section.name", in their order."""
    return tuple(f"{section}.{name}" for section, kind in sections().items() for name in kind.model_fields)


def _secret(key: str, given: SecretStr | None, file: str) -> str:
    if given is not None:
        return given.get_secret_value()
    if not file:
        return ""
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}_file = {file!r} can't be read ({error})", "name a file of text") from error
