"""What `killick tune` tries: one table of settings with their values, and how a choice of them becomes settings.

Values are text as TOML writes it, or numbers of a range, so that what is tried is what is pasted at the end. The
values in force are always among them.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from models.choices import LAMBDA
from models.errors import ConfigError, KillickError
from worker import contradictions
from worker.sections import MAX_LAGS, ModelSettings, NetworkSettings, TrainingSettings
from worker.settings_text import toml_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker.sections import Section
    from worker.settings import Settings

Params = dict[str, str | float]  # by "section.name": TOML text of a choice, a number of a range
DIGITS = 3  # of a number that is drawn
MOST_VALUES = 64

SECTIONS: dict[str, type[Section]] = {"model": ModelSettings, "network": NetworkSettings, "training": TrainingSettings}
# Settings of [network] and [training] that no search is over by itself, and why; --vary takes them all the same.
LEFT_ALONE = {
    "network.threads": "says how fast, not how good",
    "network.series": "for the series of the file alone: whether others come is not known here",
    "training.epochs": "a limit: validation stops the training",
    "training.patience": "a limit: more is never worse, and takes longer",
    "training.closing_epochs": "matters little beside the luck of the seed",
    "training.validation": "says what is measured, not what is trained",
    "training.evaluation": "says what is measured, not what is trained",
    "training.seed": "luck: each configuration is tried with several",
}
NEVER = ("training.seed", "training.evaluation", "training.validation", "network.threads")


@dataclass(frozen=True)
class Dimension:
    """One setting with the values it may take: a few, or a range of numbers.

    With `when`, a setting and some of its values, it counts only beside these; else it is `idle`.
    """

    key: str
    choices: tuple[str, ...] = ()  # TOML text
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    when: tuple[str, tuple[str, ...]] | None = None
    idle: str = ""

    @property
    def is_range(self) -> bool:
        """Whether it is a range of numbers."""
        return not self.choices

    def including(self, value: object) -> Dimension:
        """The same with a value among those it may take; an idle one counts for nothing."""
        text = toml_value(value)
        if text == self.idle and self.when:
            return self
        if not self.is_range:
            return self if text in self.choices else replace(self, choices=(text, *self.choices))
        number = float(str(value))
        if self.log and number <= 0:
            raise ConfigError(f"{self.key} is {value} and a range of {self.low:g} to {self.high:g} is drawn by its log",
                              f"give values: --vary {self.key}={value},{self.low:g},{self.high:g}")  # fmt: skip
        return replace(self, low=min(self.low, number), high=max(self.high, number))

    def rounded(self, value: float) -> float:
        """A number of the range with few digits, for people to paste."""
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def present(self, value: object) -> str | float:
        """How the value in force is written here."""
        return float(str(value)) if self.is_range else toml_value(value)


def table(settings: Settings) -> tuple[Dimension, ...]:
    """All that is searched by itself, over what [network] and [training] can say."""
    period, horizon = settings.period_steps, settings.model.horizon
    lags = sorted({0, *(min(MAX_LAGS, max(1, round(period * share))) for share in (0.25, 0.5, 1.0))})
    cycle = [[*range(1, 1 + min(most, period - 1))] for most in (1, 4, horizon)]
    every = max(1, period // 12)
    cycle.append([*range(every, period, every)])  # over the whole period
    shares = ("0.0", "0.05", "0.1", "0.2", "0.3")
    penalties = ("0.0", "1e-06", "1e-05", "0.0001", "0.001")
    return (
        _options("network.cell"),
        _few("network.units", [16], [32], [64], [128], [32, 32], [64, 64]),
        _options("network.activation"),
        _options("network.form"),
        _options("network.transform"),
        replace(
            _few("network.transform_lambda", 0.0, 0.25, 0.5, 0.75),
            when=("network.transform", ('"yeo-johnson"',)),
            idle=text(LAMBDA),
        ),
        _few("network.level", True, False),
        _few("network.delta", True, False),
        _few("network.lags", *lags),
        _few("network.season_lags", *_once([[], *cycle])),
        _few("network.season_mean", 0, 7, 14),
        _few("network.calendar", True, False),
        _few("network.missing", True, False),
        Dimension("network.squash", low=1.0, high=10.0, log=True),
        _few("network.head_inputs", True, False),
        Dimension("training.rate", low=2e-4, high=2e-2, log=True),
        _options("training.schedule"),
        _options("training.optimiser"),
        replace(_few("training.momentum", 0.0, 0.5, 0.9, 0.99), when=("training.optimiser", ('"sgd"',)), idle="0.0"),
        replace(
            _few("training.weight_decay", 0.0001, 0.001, 0.01, 0.1),
            when=("training.optimiser", ('"adamw"',)),
            idle="0.0",
        ),
        _options("training.start"),
        _options("training.head_start"),
        Dimension("training.clip_norm", low=0.1, high=10.0, log=True),
        _options("training.loss"),
        _few("training.segments", 4, 8, 16, 32),
        _few("training.chunk", 24, 48, 96, 192),
        _few("training.burn_in_chunks", 0, 1, 2),
        _few("training.batch_lanes", 8, 16, 32, 64, 256),
        Dimension("training.dropout", shares),
        Dimension("training.recurrent_dropout", shares),
        Dimension("training.l1", penalties),
        Dimension("training.l2", penalties),
        _few("training.max_norm", 0.0, 1.0, 2.0, 4.0),
    )


def space(settings: Settings, vary: Sequence[str], keep: Sequence[str]) -> tuple[Dimension, ...]:
    """What is searched: the table, or what `vary` names of it or otherwise, without what `keep` names.

    An entry of `vary` is "section.name", "section.name=V1,V2,…" or, of numbers, "section.name=LOW..HIGH".

    Raises:
        ConfigError: an entry names no setting that can be searched, or values that it can't have.
    """
    known = {one.key: one for one in table(settings)}
    asked = dict(_asked(entry, known) for entry in vary)
    for key in keep:
        _check_key(key)
        if key in asked:
            raise ConfigError(f"{key} is to be varied and to be kept", "leave it out of --vary or of --keep")
    wanted = asked or known
    chosen = [one for one in known.values() if one.key in wanted and one.key not in keep]
    chosen = [asked.get(one.key, one) for one in chosen] + [one for key, one in asked.items() if key not in known]
    found = [one.including(_value(settings, one.key)) for one in chosen]
    keys = [one.key for one in found]
    for one in tuple(found):
        if one.when and one.when[0] not in keys and toml_value(_value(settings, one.when[0])) not in one.when[1]:
            if one.key in asked:
                raise ConfigError(
                    f"{one.key} does nothing while {one.when[0]} = {toml_value(_value(settings, one.when[0]))}",
                    f"vary {one.when[0]} too, or set it to {' or '.join(one.when[1])}",
                )
            found.remove(one)
    if not found:
        raise ConfigError("there is nothing left to search", "leave out some --keep")
    return tuple(found)


def present(settings: Settings, dimensions: Sequence[Dimension]) -> Params:
    """The settings in force as a choice of the space: trial 0."""
    return drawn(dimensions, lambda one: one.present(_value(settings, one.key)))


def drawn(dimensions: Sequence[Dimension], draw: Callable[[Dimension], str | float]) -> Params:
    """A value for each setting, by `draw`; those that would count for nothing have none."""
    params: Params = {}
    for one in dimensions:
        if one.when is None or one.when[0] not in params or params[one.when[0]] in one.when[1]:
            params[one.key] = draw(one)
    return params


def applied(settings: Settings, dimensions: Sequence[Dimension], params: Mapping[str, str | float]) -> Settings:
    """The settings with a choice of the space in them.

    Raises:
        ConfigError: they can't be, alone or together.
    """
    changes: dict[str, dict[str, Any]] = {}
    for one in dimensions:
        section, name = one.key.split(".")
        if one.key in params:
            changes.setdefault(section, {})[name] = plain(params[one.key])
        elif one.idle:
            changes.setdefault(section, {})[name] = plain(one.idle)
    try:
        made = {
            section: type(before).model_validate(before.model_dump() | changes[section])
            for section, before in _sections(settings).items()
            if section in changes
        }
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False)
        raise ConfigError(f"{'.'.join(map(str, first['loc'][:1]))} = {first['input']}: {first['msg']}") from error
    found = settings.model_copy(update=made)
    problems = [
        *contradictions.of_model(found.model),
        *contradictions.of_network(found.network, found.period_steps, found.ring_steps, found.ring_steps_needed),
        *contradictions.of_training(found.training),
    ]
    if problems:
        raise ConfigError(problems[0])
    return found


def possible(settings: Settings, dimensions: Sequence[Dimension], params: Mapping[str, str | float]) -> bool:
    """Whether a choice of the space can be at all."""
    try:
        found = applied(settings, dimensions, params)
        found.architecture(gain=(1.0,) * found.model.horizon)
    except KillickError:
        return False
    return True


def values_of(settings: Settings, dimensions: Sequence[Dimension]) -> dict[str, Any]:
    """The values of what is searched, as JSON has them, by "section.name"."""
    return {one.key: plain(toml_value(_value(settings, one.key))) for one in dimensions}


def toml(changed: Mapping[str, Any]) -> str:
    """Settings by "section.name" as TOML to paste; "" for none."""
    lines: list[str] = []
    for section in SECTIONS:
        named = {key: value for key, value in changed.items() if key.startswith(f"{section}.")}
        if named:
            lines += [f"[{section}]", *(f"{key.split('.')[1]} = {text(value)}" for key, value in named.items()), ""]
    return "\n".join(lines)


def text(value: object) -> str:
    """A value as JSON has it, as TOML writes it."""
    return toml_value(tuple(value) if isinstance(value, list) else value)


def plain(value: str | float) -> Any:
    """The value that a choice stands for: what its TOML text says, a number as it is."""
    if isinstance(value, str):
        return tomllib.loads(f"value = {value}")["value"]
    return value


def _few(key: str, *values: object) -> Dimension:
    return Dimension(key, tuple(text(value) for value in values))


def _options(key: str) -> Dimension:
    """A setting over all the words that it may be."""
    section, name = key.split(".")
    return _few(key, *get_args(SECTIONS[section].model_fields[name].annotation))


def _once(values: Sequence[list[int]]) -> list[list[int]]:
    """Each list once, in their order."""
    return [json.loads(one) for one in dict.fromkeys(map(json.dumps, values))]


def _sections(settings: Settings) -> dict[str, Section]:
    return {"model": settings.model, "network": settings.network, "training": settings.training}


def _value(settings: Settings, key: str) -> object:
    section, name = key.split(".")
    return getattr(_sections(settings)[section], name)


def _check_key(key: str) -> None:
    known = [f"{section}.{name}" for section, kind in SECTIONS.items() for name in kind.model_fields]
    searched = [one for one in known if not one.startswith("model.") or one == "model.half_life"]
    if key not in searched:
        why = "is fixed once a ledger exists, or says what is forecast" if key in known else "is not a setting"
        near = difflib.get_close_matches(key, searched, n=1, cutoff=0.5)
        raise ConfigError(f"{key!r} {why}", f"did you mean {near[0]}?" if near else f"known are {', '.join(searched)}")


def _asked(entry: str, known: Mapping[str, Dimension]) -> tuple[str, Dimension]:
    """A setting to vary, and over what."""
    key, equals, given = (part.strip() for part in entry.partition("="))
    _check_key(key)
    if key in NEVER:
        raise ConfigError(f"{key} can't be varied ({LEFT_ALONE[key]})", "leave it out")
    before = known.get(key, Dimension(key))
    if not equals:
        if key not in known:
            raise ConfigError(f"{key} has no values of its own to vary", f"give some: --vary {key}=V1,V2")
        return key, before
    low, dots, high = given.partition("..")
    if dots:
        return key, replace(_range(key, low, high), when=before.when, idle=before.idle)
    values = tuple(_texts(key, given))
    if not 1 <= len(values) <= MOST_VALUES:
        raise ConfigError(f"{key} is given {len(values)} values", f"give 1 to {MOST_VALUES}")
    return key, Dimension(key, values, when=before.when, idle=before.idle)


def _range(key: str, low: str, high: str) -> Dimension:
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = math.nan, math.nan
    if not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1]):
        raise ConfigError(f"{key}={low}..{high} is no range of numbers", "write LOW..HIGH, as in 0.0001..0.01")
    section, name = key.split(".")
    if SECTIONS[section].model_fields[name].annotation is not float:
        raise ConfigError(f"{key} is not a setting of any number", f"give values: --vary {key}=V1,V2")
    log = ends[0] > 0 and ends[1] / ends[0] >= 10
    for end in ends:
        _validated(key, end)
    return Dimension(key, low=ends[0], high=ends[1], log=log)


def _texts(key: str, given: str) -> list[str]:
    """The values that are given as TOML, words without quotes too, each as the setting writes it.

    Raises:
        ConfigError: one of them can't be.
    """
    found: list[Any] = []
    for part in _parts(given):
        try:
            found.append(tomllib.loads(f"value = {part}")["value"])
        except tomllib.TOMLDecodeError:
            found.append(part)
    return list(dict.fromkeys(toml_value(_validated(key, value)) for value in found))


def _parts(given: str) -> list[str]:
    """What stands between the commas that are not inside brackets."""
    parts, depth = [""], 0
    for sign in given:
        depth += (sign == "[") - (sign == "]")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _validated(key: str, value: object) -> object:
    section, name = key.split(".")
    kind = SECTIONS[section]
    try:
        return getattr(kind.model_validate({name: value}), name)
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False)
        raise ConfigError(f"{key} = {value}: {first['msg'].replace('Input should', 'should')}",
                          "give values that the setting can have: `killick config schema`") from error  # fmt: skip
