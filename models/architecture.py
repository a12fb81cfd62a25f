"""What a version's network is (JSON) and what it weighs (safetensors): checked values, no TensorFlow.

The two are stored apart. Names and shapes of the weights are those that `keras.layers.LSTM` and
`keras.layers.GRU(reset_after=True)` use, so that plain Keras can load them as they are:

    layer{i}.kernel     (fan_in, G·U)              G = 4 gates i,f,c,o (LSTM) or 3 gates z,r,h (GRU)
    layer{i}.recurrent  (U, G·U)
    layer{i}.bias       (4·U,) LSTM, (2, 3·U) GRU
    head.kernel         (U_top [+ I], H)
    head.bias           (H,)
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.choices import (
    ACTIVATIONS,
    CELLS,
    FORMS,
    LAMBDA,
    TRANSFORMS,
    Activation,
    Cell,
    Form,
    TransformName,
    of_transform,
)
from models.errors import VersionError
from models.transforms import Transform

ARCHITECTURE_FORMAT = 1
MAX_JSON_BYTES = 1 << 20
MAX_UNITS = 1024
MAX_LAYERS = 8
MAX_HORIZON = 1024
MAX_FEATURES = 256
MAX_SERIES = 256
MAX_SERIES_CHARS = 200  # as the stream takes them
MAX_LAGS = 4096
MAX_PERIOD_STEPS = 1_000_000
MAX_SEASON_MEAN = 366
MAX_SQUASH = 100.0

# Fields that came later: they are written only where they say something, so that what is stored keeps its digest.
LATER: dict[str, Any] = {
    "activation": "tanh",
    "transform": "none",
    "transform_lambda": LAMBDA,
    "series": (),
    "season_mean": 0,
}

Float32 = NDArray[np.float32]
Weights = dict[str, Float32]


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which numbers the network sees at each step, all derived from the series state.

    `lags` counts differences to the target's last values, (x_{t-k} - x_t)/S for k = 1…lags;
    `season_lags` names the k of (x_{t+k-p} - x_t)/S, one period p back. `squash` is the c of c·tanh(·/c).
    """

    level: bool = True
    delta: bool = True
    lags: int = 24
    season_lags: tuple[int, ...] = ()
    calendar: bool = True
    missing: bool = True
    squash: float = 3.0


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network of a version, without its weights.

    `units` holds one number a stacked layer, bottom first. `gain` holds g_k, one a lead: in the
    "correction" form a forecast is x_t + S_t·g_k·f_k, in the "season" form it corrects the value one period (or as many
    as it takes) before the lead's time instead of x_t, in the "plain" form it is level_t + S_t·f_k. With a `transform`
    all that is said of the target, inputs included, is said of what `models.transforms` makes of it.
    `activation` is that of a cell's candidate and, in an LSTM, of its output; all that there are have bounds, since
    a memory that is never reset could grow without end. `series` are the names that have an input each, which is 1 for
    that series and else 0; one of another name has none. With `season_mean` D there is an input for k = 0 and each k of
    `inputs.season_lags`, (mean of x_{t+k-p}, …, x_{t+k-Dp} - x_t)/S: what the time of day is like.

    Raises:
        VersionError: a value is outside what this killick can run.
    """

    format: int = ARCHITECTURE_FORMAT
    cell: Cell = "lstm"
    units: tuple[int, ...] = (32,)
    horizon: int
    form: Form = "correction"
    features: tuple[str, ...]
    target: str
    inputs: Inputs = Inputs()
    gain: tuple[float, ...]
    interval_ms: int
    period_steps: int
    head_inputs: bool = True
    activation: Activation = "tanh"
    transform: TransformName = "none"
    transform_lambda: float = LAMBDA
    series: tuple[str, ...] = ()
    season_mean: int = 0

    def __post_init__(self) -> None:
        _check_format(self.format)
        named = {"cell": CELLS, "form": FORMS, "activation": ACTIVATIONS, "transform": TRANSFORMS}
        for name, allowed in named.items():
            if getattr(self, name) not in allowed:
                raise VersionError(f"{name} is {getattr(self, name)!r}", f"use one of {', '.join(allowed)}")
        for problem, cure in of_transform(self.transform, self.transform_lambda):
            raise VersionError(problem, cure)
        _within("number of layers", len(self.units), 1, MAX_LAYERS)
        for layer, units in enumerate(self.units):
            _within(f"units of layer {layer}", units, 1, MAX_UNITS)
        _within("horizon", self.horizon, 1, MAX_HORIZON)
        _within("interval_ms", self.interval_ms, 1, 1 << 53)
        _within("period_steps", self.period_steps, 1, MAX_PERIOD_STEPS)
        _check_features(self.features, self.target)
        _check_inputs(self.inputs, self.period_steps)
        _check_series(self.series)
        _within("season_mean", self.season_mean, 0, MAX_SEASON_MEAN)
        if self.form == "season" and self.period_steps == 1:
            raise VersionError("form is 'season' and period_steps is 1", "use 'correction': it is the same there")
        if len(self.gain) != self.horizon:
            raise VersionError(f"gain has {len(self.gain)} values for {self.horizon} leads", "give one value a lead")
        for lead, gain in enumerate(self.gain, 1):
            if not (math.isfinite(gain) and 0.0 < gain <= 1e6):
                raise VersionError(f"gain of lead {lead} is {gain}", "it must be above 0 and at most 1e6")
        if self.input_size == 0:
            raise VersionError("the network has no inputs", "switch at least one kind of input on")

    def input_names(self) -> tuple[str, ...]:
        """The names of the I inputs in the order in which the network takes them."""
        chosen = self.inputs
        names: list[str] = []
        if chosen.level:
            names += [f"level.{feature}" for feature in self.features]
        if chosen.delta:
            names += [f"delta.{feature}" for feature in self.features]
        names += [f"lag.{k}" for k in range(1, chosen.lags + 1)]
        names += [f"season.{k}" for k in chosen.season_lags]
        names += [f"season_mean.{k}" for k in self.season_mean_lags]
        if chosen.calendar:
            names += ["hour.sin", "hour.cos", "weekday.sin", "weekday.cos"]
        if chosen.missing:
            names += [f"missing.{feature}" for feature in self.features]
        names += [f"series.{name}" for name in self.series]
        return tuple(names)

    @property
    def input_size(self) -> int:
        """The number of inputs, I."""
        chosen = self.inputs
        per_feature = int(chosen.level) + int(chosen.delta) + int(chosen.missing)
        named = chosen.lags + len(chosen.season_lags) + 4 * int(chosen.calendar) + len(self.series)
        return per_feature * len(self.features) + named + len(self.season_mean_lags)

    @property
    def season_mean_lags(self) -> tuple[int, ...]:
        """The leads k for which there is a mean over the last periods as an input."""
        return (0, *self.inputs.season_lags) if self.season_mean else ()

    @property
    def ring_steps_needed(self) -> int:
        """How many steps before the present one the series state must keep for these inputs."""
        chosen = self.inputs
        season = [self.period_steps - k for k in chosen.season_lags]
        return max([int(chosen.delta), chosen.lags, *season, *self.base_lags, self.season_mean * self.period_steps])

    @property
    def base_lags(self) -> tuple[int, ...]:
        """How many steps before the present one the value lies that each lead's forecast corrects, `(H,)`."""
        period = self.period_steps if self.form == "season" else 1
        return tuple(-lead % period for lead in range(1, self.horizon + 1))

    @property
    def has_gain(self) -> bool:
        """Whether forecasts are corrections, whose size at each lead the gain gives."""
        return self.form != "plain"

    @property
    def seen_by(self) -> Transform:
        """How the target is seen."""
        return Transform.of(self.transform, self.transform_lambda)

    @property
    def states_per_unit(self) -> int:
        """2 for an LSTM (h and c), 1 for a GRU (h)."""
        return 2 if self.cell == "lstm" else 1

    @property
    def carried_size(self) -> int:
        """Numbers carried per series, S: [layer0.h, layer0.c, layer1.h, …]."""
        return self.states_per_unit * sum(self.units)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every weight, in the order of the module's docstring."""
        gates = 4 if self.cell == "lstm" else 3
        shapes: dict[str, tuple[int, ...]] = {}
        fan_in = self.input_size
        for layer, units in enumerate(self.units):
            shapes[f"layer{layer}.kernel"] = (fan_in, gates * units)
            shapes[f"layer{layer}.recurrent"] = (units, gates * units)
            shapes[f"layer{layer}.bias"] = (4 * units,) if self.cell == "lstm" else (2, 3 * units)
            fan_in = units
        head_in = fan_in + (self.input_size if self.head_inputs else 0)
        shapes["head.kernel"] = (head_in, self.horizon)
        shapes["head.bias"] = (self.horizon,)
        return shapes

    @property
    def parameter_count(self) -> int:
        """The number of trained numbers."""
        return sum(math.prod(shape) for shape in self.weight_shapes().values())

    def to_json(self) -> bytes:
        """The architecture as JSON, always the same bytes for the same values."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return msgspec.json.encode({k: v for k, v in fields.items() if k not in LATER or getattr(self, k) != LATER[k]})

    @classmethod
    def from_json(cls, data: bytes) -> Architecture:
        """The architecture that `to_json` wrote.

        Raises:
            VersionError: not JSON, an unknown format or field, or a value out of range.
        """
        if len(data) > MAX_JSON_BYTES:
            raise VersionError(f"an architecture of {len(data)} bytes, the limit is {MAX_JSON_BYTES}")
        try:
            _check_format(msgspec.json.decode(data, type=_Format).format)
            return msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise VersionError(f"the architecture can't be read: {error}") from error

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json()).hexdigest()


class _Format(msgspec.Struct):
    """The one field that is read before all others."""

    format: int


def _check_format(number: int) -> None:
    if number != ARCHITECTURE_FORMAT:
        raise VersionError(
            f"architecture format {number}, this killick reads {ARCHITECTURE_FORMAT}",
            "use the killick that wrote it, or a newer one",
        )


def _within(subject: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise VersionError(f"{subject} is {value}", f"it must be {lowest} to {highest}")


def _check_features(features: tuple[str, ...], target: str) -> None:
    _within("number of features", len(features), 1, MAX_FEATURES)
    if len(set(features)) != len(features):
        raise VersionError(f"features {list(features)} repeat a name", "name each feature once")
    for name in features:
        if not 1 <= len(name) <= 200:
            raise VersionError(f"a feature's name has {len(name)} characters", "it must have 1 to 200")
    if target not in features:
        raise VersionError(f"target {target!r} is not among the features {list(features)}", "add it to them")


def _check_series(series: tuple[str, ...]) -> None:
    if len(series) > MAX_SERIES:
        raise VersionError(
            f"{len(series):,} series would have an input each, the limit is {MAX_SERIES}",
            "fit fewer series, or set network.series = false",
        )
    if len(set(series)) != len(series):
        raise VersionError(f"series {_repeated(series)!r} has more than one input", "name each once")
    for name in series:
        if not 1 <= len(name) <= MAX_SERIES_CHARS:
            raise VersionError(
                f"the name of a series has {len(name)} characters", f"it must have 1 to {MAX_SERIES_CHARS}"
            )


def _repeated(names: tuple[str, ...]) -> str:
    return next(name for at, name in enumerate(names) if name in names[:at])


def _check_inputs(inputs: Inputs, period_steps: int) -> None:
    _within("inputs.lags", inputs.lags, 0, MAX_LAGS)
    if len(inputs.season_lags) > MAX_LAGS:
        raise VersionError(f"inputs.season_lags has {len(inputs.season_lags)} values", f"at most {MAX_LAGS}")
    if len(set(inputs.season_lags)) != len(inputs.season_lags):
        raise VersionError(f"inputs.season_lags {list(inputs.season_lags)} repeat a lead", "name each once")
    for k in inputs.season_lags:
        _within("inputs.season_lags", k, 1, period_steps - 1)
    if not (math.isfinite(inputs.squash) and 0.0 < inputs.squash <= MAX_SQUASH):
        raise VersionError(f"inputs.squash is {inputs.squash}", f"it must be above 0 and at most {MAX_SQUASH:g}")
