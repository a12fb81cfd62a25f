"""The settings by section: names, limits, defaults and the one line that documents each.

Reading them (file, environment, refusals) is `worker/settings_reading.py`; nothing here does I/O.
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    WithJsonSchema,
)

from models.choices import LAMBDA, Activation, Cell, Form, HeadStart, Optimiser, Start, TransformName
from models.errors import ConfigError
from models.times import DAY_MS, HOUR_MS, WEEK_MS
from worker.durations import PATTERN, Duration, parse_duration

MAX_HORIZON = 1_024
MAX_FEATURES = 256
MAX_LAGS = 1_024
AUTO_RING_STEPS = 25


def _read_duration(value: object) -> Duration:
    if isinstance(value, Duration):
        return value
    if not isinstance(value, str):
        raise ValueError('a duration is text with a unit, such as "15min"')  # noqa: TRY004 - pydantic's protocol
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _above_zero(value: Duration) -> Duration:
    if value.ms <= 0:
        raise ValueError("must be longer than 0")
    return value


def read_list(value: object) -> object:
    """A list as it is; from text (the environment) either JSON or names with commas between them."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",")] if value.strip() else []


Length = Annotated[
    Duration,
    PlainValidator(_read_duration),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN}),
]
PositiveLength = Annotated[Length, AfterValidator(_above_zero)]
Names = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], BeforeValidator(read_list)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(read_list)]
Units = Annotated[tuple[Annotated[int, Field(ge=1, le=1_024)], ...], BeforeValidator(read_list)]
Topic = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class Section(BaseModel):
    """Settings that stand under one heading of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    about: ClassVar[str] = ""


class ModelSettings(Section):
    """What is observed and what is forecast."""

    about: ClassVar[str] = "What is observed and what is forecast. Fixed once a ledger exists, but for `max_ahead`."

    name: str = Field(
        default="demo", pattern=r"^[a-zA-Z0-9._-]{1,100}$", description="name of the model; one model a file"
    )
    features: Names = Field(
        default=("value",),
        min_length=1,
        max_length=MAX_FEATURES,
        description="values that are inputs, the target among them",
    )
    target: str = Field(default="value", description="the feature that is forecast")
    interval: PositiveLength = Field(default=Duration(HOUR_MS), description="length of one step")
    horizon: int = Field(
        default=24, ge=1, le=MAX_HORIZON, description="forecasts at each observation: leads 1…horizon, steps"
    )
    period: PositiveLength = Field(
        default=Duration(DAY_MS), description="length of the cycle: a multiple of the interval"
    )
    half_life: PositiveLength = Field(
        default=Duration(WEEK_MS), description="half-life of the level and scale statistics"
    )
    max_gap: Length = Field(
        default=Duration(6 * HOUR_MS),
        description="longest gap that is bridged; after a longer one the series starts anew",
    )
    max_ahead: Length = Field(
        default=Duration(DAY_MS),
        description="how far an observation may lie beyond its record's timestamp",
    )
    max_series: int = Field(default=1_000_000, ge=1, le=100_000_000, description="most series in one partition")
    ring: Literal["auto"] | int = Field(
        default="auto",
        description='recent steps kept for each series; "auto": a period, what [network] looks back on, at least 25',
    )


class KafkaSettings(Section):
    """The broker, the topics and how the consumer joins."""

    about: ClassVar[str] = "The broker, the topics and how the consumer joins."

    bootstrap_servers: str = Field(
        default="localhost:9092",
        min_length=1,
        description="brokers to ask first: host:port, with commas between them",
    )
    observations: Topic = Field(default="observations", description="topic that is read")
    predictions: Topic = Field(default="predictions", description="topic that the forecasts go to")
    dead_letters: Topic = Field(default="observations.deadletter", description="topic that refused records go to")
    group: str = Field(
        default="", max_length=249, description='consumer group; "" means killick- and the name of the model'
    )
    instance: str = Field(
        default="", max_length=249, description='static membership: this consumer\'s own name; "" joins anew'
    )
    assignment: Literal["group", "manual"] = Field(
        default="group",
        description="partitions by consumer group, or all of them without one (one consumer only)",
    )
    session_timeout: PositiveLength = Field(
        default=Duration(45_000), description="silence after which a consumer's partitions move on"
    )
    max_poll_records: int = Field(default=4_096, ge=1, le=1_000_000, description="most records in one block")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="how to speak to the brokers"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="how to log in, where the protocol is a SASL one"
    )
    username: str = Field(default="", description="user name for SASL")
    password: SecretStr | None = Field(default=None, description="password for SASL: by the environment only")
    password_file: str = Field(default="", description="file that holds the password for SASL")
    ca_file: str = Field(default="", description='certificates to trust, PEM; "" means those of the system')


class RedisSettings(Section):
    """The server that holds ledger and registry."""

    about: ClassVar[str] = "The server that holds ledger and registry: Redis 7 or later, or Valkey."

    url: str = Field(
        default="redis://localhost:6379/0",
        pattern=r"^(redis|rediss|unix)://",
        description="redis://, rediss:// (TLS) or unix://",
    )
    password: SecretStr | None = Field(default=None, description="password: by the environment only")
    password_file: str = Field(default="", description="file that holds the password")
    cluster: bool = Field(default=False, description="whether the URL names a node of a Redis Cluster")
    timeout: PositiveLength = Field(default=Duration(5_000), description="how long one call may take")


class LedgerSettings(Section):
    """What a partition's record keeps, and for how long."""

    about: ClassVar[str] = "What a partition's record keeps. Nothing is trimmed that is still needed."

    retention: PositiveLength = Field(
        default=Duration(30 * DAY_MS), description="event time that observations and pairs are kept"
    )
    retention_blocks: int = Field(default=1_000_000, ge=1_000, description="most blocks that are kept in a partition")
    snapshot_every: int = Field(default=20_000, ge=100, description="observations of a partition between two snapshots")


class SwapSettings(Section):
    """How versions follow each other in the running stream."""

    about: ClassVar[str] = "How versions follow each other in the running stream."

    spin_up_steps: int = Field(
        default=64, ge=1, le=1_000_000, description="least past that a version is given before it runs, steps"
    )
    spin_up: Length = Field(
        default=Duration(DAY_MS), description="the same as a length of event time; the longer of the two counts"
    )
    guard: Length = Field(
        default=Duration(WEEK_MS),
        description="event time that the version before reads along after a promotion",
    )
    poll: PositiveLength = Field(default=Duration(200), description="how often consumers look at the registry")


class MonitorSettings(Section):
    """The drift monitor."""

    about: ClassVar[str] = "The drift monitor: one leads, others stand by."

    port: int = Field(
        default=9465, ge=0, le=65_535, description="port of its /metrics, /healthz and /readyz; 0 takes a free one"
    )
    poll: PositiveLength = Field(default=Duration(1_000), description="how often it looks for new blocks")
    lease: PositiveLength = Field(
        default=Duration(15_000), description="silence after which one that stands by takes over"
    )


class DriftSettings(Section):
    """When losses and inputs count as drifted."""

    about: ClassVar[str] = "When losses and inputs count as drifted."

    false_alarms: float = Field(
        default=0.2,
        gt=0,
        le=100,
        description="false alarms that both loss detectors together may raise in 1,000 steps of a quiet stream",
    )
    calibration_steps: int = Field(
        default=336,
        ge=100,
        le=6_000,
        description="steps of a new version whose losses count as quiet: thresholds come from them",
    )
    ks: float = Field(
        default=0.25, gt=0, le=1, description="Kolmogorov-Smirnov distance from which an input has drifted"
    )
    psi: float = Field(default=0.25, gt=0, le=100, description="population stability index from which it has")
    recent: PositiveLength = Field(
        default=Duration(WEEK_MS), description="event time that inputs are compared over with those of training"
    )
    trend_p: float = Field(default=0.05, gt=0, lt=0.5, description="p-value below which skill has a trend")


class ArchiveSettings(Section):
    """Where blocks go that Redis no longer keeps."""

    about: ClassVar[str] = "Where blocks go that Redis no longer keeps, as Parquet."

    path: str = Field(
        default="",
        description='folder, or s3://bucket/folder, gs://…; "" keeps no archive: what is trimmed is gone',
    )
    rows: int = Field(default=250_000, ge=100, le=10_000_000, description="observations in a file, about")
    after: Length = Field(
        default=Duration(DAY_MS),
        description="event time after which blocks go there, in files that are not full too",
    )


class NetworkSettings(Section):
    """The network that `killick fit` builds."""

    about: ClassVar[str] = "The network that `killick fit` builds; versions that exist keep their own."

    cell: Cell = Field(default="lstm", description="kind of recurrent cell")
    units: Units = Field(default=(32,), min_length=1, max_length=8, description="units of each layer, the lowest first")
    form: Form = Field(
        default="correction",
        description="forecasts are corrections to the last value, to that a period before, or plain values",
    )
    transform: TransformName = Field(default="none", description="how the target is seen, in units of its scale")
    transform_lambda: float = Field(
        default=LAMBDA, ge=0, le=2, description="λ of yeo-johnson: below 1 what is large counts less"
    )
    level: bool = Field(default=True, description="input: each feature's distance from its level")
    delta: bool = Field(default=True, description="input: each feature's last change")
    lags: int = Field(default=24, ge=0, le=MAX_LAGS, description="input: the target 1…lags steps ago, steps")
    season_lags: Counts = Field(
        default=(), description="input: the target one period before lead k, for each k here, steps"
    )
    season_mean: int = Field(
        default=0,
        ge=0,
        le=366,
        description="input: the target's mean over so many periods, now and at each of season_lags; 0: none",
    )
    calendar: bool = Field(default=True, description="input: hour and day of the week as sine and cosine")
    missing: bool = Field(default=True, description="input: a mark for each feature that is missing")
    series: bool = Field(default=False, description="input: which of the fit's series it is; for up to 256 of them")
    squash: float = Field(default=3.0, gt=0, le=100, description="bound c of the inputs: c·tanh(input/c)")
    head_inputs: bool = Field(default=True, description="the last layer sees the inputs too")
    activation: Activation = Field(
        default="tanh", description="bound of a cell's candidate and of an LSTM's output; relu6 is 0…6"
    )
    threads: int = Field(default=1, ge=1, le=256, description="threads of one network step")


class TrainingSettings(Section):
    """How networks are trained."""

    about: ClassVar[str] = "How networks are trained: by `killick fit`, and when candidates are made."

    epochs: int = Field(default=60, ge=1, le=10_000, description="most passes over the training span")
    patience: int = Field(
        default=8, ge=1, le=10_000, description="epochs without a better validation loss before it stops"
    )
    closing_epochs: int = Field(
        default=3,
        ge=0,
        le=1_000,
        description="epochs at its end, at a quarter of the rate, with validation span",
    )
    rate: float = Field(default=2e-3, ge=1e-8, le=1, description="learning rate of the optimiser")
    schedule: Literal["constant", "cosine", "decaying"] = Field(
        default="constant",
        description="how the rate falls: not, to 5 % along a cosine, or as 1/(1 + epoch/8)",
    )
    optimiser: Optimiser = Field(default="adam", description="what makes steps of gradients; adamw wants weight_decay")
    momentum: float = Field(default=0.0, ge=0, le=0.999, description="share of the step before, with sgd alone")
    weight_decay: float = Field(
        default=0.0, ge=0, le=1, description="share of the weights, times the rate, that adamw takes off at each step"
    )
    start: Start = Field(
        default="glorot", description="how first weights are drawn; those from state to state are orthogonal"
    )
    head_start: HeadStart = Field(
        default="zero", description="the last layer's first weights: zero begins as the reference forecast"
    )
    clip_norm: float = Field(default=1.0, ge=1e-6, le=1e6, description="limit of the gradient's norm")
    loss: Literal["huber", "mae", "mse"] = Field(default="huber", description="loss on scaled errors; Huber's δ is 1")
    segments: int = Field(default=8, ge=1, le=1_024, description="stretches that each series is cut into, side by side")
    chunk: int = Field(default=48, ge=2, le=4_096, description="steps between two updates of the weights")
    burn_in_chunks: int = Field(default=1, ge=0, le=64, description="first chunks of a stretch that update nothing")
    batch_lanes: int = Field(
        default=256, ge=1, le=65_536, description="most stretches that one update looks at, side by side"
    )
    dropout: float = Field(default=0.0, ge=0, le=0.9, description="share of a layer's inputs left out")
    recurrent_dropout: float = Field(default=0.0, ge=0, le=0.9, description="share of a layer's state left out")
    l1: float = Field(default=0.0, ge=0, le=1, description="weight of the absolute weights in the loss")
    l2: float = Field(default=0.0, ge=0, le=1, description="weight of the squared weights in the loss")
    max_norm: float = Field(default=0.0, ge=0, le=1e6, description="bound of a unit's incoming weights; 0 is none")
    validation: float = Field(
        default=0.15, gt=0, lt=0.5, description="share of the span that stops training, after it in time"
    )
    evaluation: float = Field(
        default=0.15, gt=0, lt=0.5, description="share of the span held out at its end for the skill"
    )
    seed: int = Field(default=1, ge=0, le=2**31 - 1, description="seed of first weights and of the order")


class HttpSettings(Section):
    """Where a process serves /metrics, /healthz and /readyz."""

    about: ClassVar[str] = "Where a process serves /metrics, /healthz and /readyz."

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=9464, ge=0, le=65_535, description="port to listen on; 0 takes a free one")


class LogSettings(Section):
    """What is logged, and how."""

    about: ClassVar[str] = "What is logged, and how, to standard error."

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="least level that is logged"
    )
    format: Literal["text", "json"] = Field(default="text", description="lines for people or JSON lines")
