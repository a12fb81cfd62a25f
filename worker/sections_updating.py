"""The settings of updating, by section: retraining, judgement, its effect in the user's terms, the HTTP API.

As `worker/sections.py`, which the rest of the settings is in.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from models.times import DAY_MS, HOUR_MS, WEEK_MS
from worker.durations import Duration
from worker.sections import Length, PositiveLength, Section, read_list

LAST_PORT = 65_535
PROCESSES = "processes"  # of this machine: where trainings run unless a cluster is named

Item = TypeVar("Item")


def check_address(text: str) -> str:
    """The text, if it is an address or a network.

    Raises:
        ValueError: it is none.
    """
    ip_network(text, strict=False)
    return text


def check_executor(text: str) -> str:
    """The text, if trainings can be run there.

    Raises:
        ValueError: it names neither.
    """
    named = re.fullmatch(r"(tcp|tls)://[^\s/]+:(\d{1,5})", text)
    if text != PROCESSES and not (named and 0 < int(named[2]) <= LAST_PORT):
        raise ValueError(f'should be "{PROCESSES}", or tcp://host:port or tls://host:port of a Dask scheduler')
    return text


def once(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items, each the first time that it comes."""
    return tuple(dict.fromkeys(items))


Strategy = Literal["update-on-new", "update-on-all", "new-on-new", "new-on-all"]
Strategies = Annotated[tuple[Strategy, ...], BeforeValidator(read_list), AfterValidator(once)]
Rates = Annotated[tuple[Annotated[float, Field(ge=1e-8, le=1)], ...], BeforeValidator(read_list), AfterValidator(once)]
Addresses = Annotated[tuple[Annotated[str, AfterValidator(check_address)], ...], BeforeValidator(read_list)]
Recents = Annotated[tuple[Literal["all"] | PositiveLength, ...], BeforeValidator(read_list), AfterValidator(once)]
Executor = Annotated[str, AfterValidator(check_executor)]


class RetrainingSettings(Section):
    """When candidates are trained, on what and how."""

    about: ClassVar[str] = "When candidates are trained, on what, and how. Lengths of time are event time."

    port: int = Field(
        default=9466, ge=0, le=65_535, description="port of its /metrics, /healthz and /readyz; 0 takes a free one"
    )
    every: Length = Field(default=Duration(0), description='a request at least this often; "0s" asks for none')
    pairs: int = Field(default=0, ge=0, description="a request after so many new pairs; 0 asks for none")
    skill_drop: float = Field(
        default=0.0, ge=0, le=100,
        description="a request when the 7d error beside persistence's is this share above its least; 0 asks for none",
    )  # fmt: skip
    cooldown: Length = Field(
        default=Duration(DAY_MS), description="between a retraining and the next one that no person asked for, at least"
    )
    new_data: PositiveLength = Field(
        default=Duration(30 * DAY_MS),
        description="data since the last training, or since the drift, that a retraining waits for",
    )
    history: PositiveLength = Field(
        default=Duration(365 * DAY_MS), description="how far back data is looked at, at most; from ledger and archive"
    )
    series: int = Field(
        default=500, ge=1, le=1_000_000, description="most series that are trained and judged on, drawn at random"
    )
    validation: float = Field(
        default=0.2, gt=0, lt=0.5, description="share of the new data that chooses among candidates"
    )
    evaluation: float = Field(
        default=0.3, gt=0, lt=0.6, description="share of the new data, its end, that the verdict rests on"
    )
    strategies: Strategies = Field(
        default=("update-on-new", "update-on-all", "new-on-new", "new-on-all"),
        min_length=1,
        description="how candidates are made: from the incumbent's weights or fresh ones, on new data or on all",
    )
    rates: Rates = Field(
        default=(1e-4, 5e-4, 2e-3), min_length=1, max_length=12, description="learning rates that updates try"
    )
    recents: Recents = Field(
        default=(Duration(WEEK_MS), Duration(30 * DAY_MS), "all"),
        min_length=1,
        max_length=8,
        description='how much of the new data counts as recent, each tried: lengths, "all"',
    )
    recent_share: float = Field(
        default=0.5, gt=0, lt=1, description='share of recent data in what the "all" strategies train on'
    )
    epochs: int = Field(default=8, ge=1, le=1_000, description="most passes of an update; fresh weights: [training]")
    patience: int = Field(
        default=3, ge=1, le=1_000, description="epochs of an update without a better validation loss before it stops"
    )
    repeats: int = Field(
        default=3, ge=1, le=100, description="trainings of each strategy's best, with other seeds and chunk phases"
    )
    executor: Executor = Field(
        default=PROCESSES,
        description='where training runs: "processes" of this machine, or the tcp://host:port of a Dask cluster',
    )
    workers: int = Field(default=1, ge=1, le=256, description="trainings side by side")
    threads: int = Field(default=1, ge=1, le=256, description="threads of one training")
    reports: str = Field(
        default="reports", description='folder that a page is written to at every verdict; "" writes none'
    )
    timeout: PositiveLength = Field(
        default=Duration(2 * HOUR_MS), description="time of the clock after which a retraining is given up"
    )


class JudgementSettings(Section):
    """When a candidate may answer, and when it must stop."""

    about: ClassVar[str] = "When a candidate may answer, and when it must stop."

    gate: Literal["offline", "shadow", "both"] = Field(
        default="both", description="what a candidate has to pass: the verdict on recorded data, live evidence, or both"
    )
    trial: Literal["by-trigger", "superiority", "harm"] = Field(
        default="by-trigger",
        description="what a live trial asks: is it better, or does it do harm (no proof)? by-trigger: harm after drift",
    )
    approval: Literal["automatic", "required"] = Field(
        default="automatic", description="whether a person signs off before a promotion: `killick approve V`"
    )
    screen: float = Field(
        default=0.05, gt=0, lt=0.5, description="level of the verdict on recorded data, over all finalists together"
    )
    alpha: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="level of one live trial, or a tenth of what is left of the budget if that is less",
    )
    budget: float = Field(default=0.2, gt=0, lt=1, description="the level of all live trials together, for good")
    deadline: PositiveLength = Field(
        default=Duration(90 * DAY_MS), description="event time after which an undecided trial ends"
    )
    harm: PositiveLength = Field(
        default=Duration(3 * DAY_MS),
        description="event time without harm after which a candidate whose trial looks for harm is promoted",
    )
    guard_alpha: float = Field(
        default=0.01, gt=0, lt=0.5, description="level at which harm ends a trial, and the guard rolls back"
    )
    breaker_ratio: float = Field(
        default=4.0, gt=1, le=1e6, description="squared error, as a multiple of persistence's, that is a disaster"
    )
    breaker_steps: int = Field(default=12, ge=1, le=100_000, description="steps in a row that a disaster takes, steps")


class ImpactSettings(Section):
    """What an error costs the user."""

    about: ClassVar[str] = "What an error costs, so that reports speak in the user's own terms."

    cost_per_unit_error: float = Field(
        default=0.0, ge=0, description="cost of one unit of the target's absolute error in one forecast; 0: not known"
    )
    unit: str = Field(default="", max_length=20, description='what costs are counted in, such as "EUR"')


class ApiSettings(Section):
    """The HTTP API."""

    about: ClassVar[str] = "The HTTP API, `killick api`; it listens at http.host."

    port: int = Field(default=9467, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    token: SecretStr | None = Field(default=None, description="token that every request bears: by the environment only")
    token_file: str = Field(default="", description="file that holds the token")
    failures: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="requests without the right token from one address in a minute, after which it is refused",
    )
    proxies: Addresses = Field(
        default=(),
        max_length=32,
        description="addresses of the proxies in front, such as 10.0.0.7 or 10.0.0.0/8: they say who asks",
    )
