"""What the HTTP API answers, as its OpenAPI document says it: the schemas are made from these and from our own structs.

The answers themselves are made by what the commands print with `--json`; a test holds the two together.
"""

from __future__ import annotations

from typing import Any

import msgspec

from models.audit import AuditEntry
from models.registry import VersionInfo
from models.verdict import Verdict
from worker.api_problems import Problem
from worker.gate_told import Ended, GuardTold, TrialTold  # noqa: TC001 - msgspec reads the annotations
from worker.requests import Progress  # noqa: TC001 - as above
from worker.store import Request

REFERENCE = "#/components/schemas/{name}"


class VersionListed(VersionInfo, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version: `role` incumbent, candidate, previous or empty; `status` withdrawn, retired or empty."""

    role: str
    status: str


class Versions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every version of the model, oldest first."""

    model: str
    versions: list[VersionListed]


class AuditListed(AuditEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change, with its time also as text."""

    time: str


class Audit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest changes, oldest first."""

    model: str
    entries: list[AuditListed]


class Who(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is who. `approved` is the candidate, once a person has signed it off."""

    incumbent: int | None
    candidate: int | None
    previous: int | None
    approved: int | None
    generation: int
    paused: bool


class Changed(Who, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is who after a change; `on_disk` says whether a power cut can't undo it any more, null: Redis can't say."""

    model: str
    on_disk: bool | None


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for retraining that waits for a retrainer."""

    model: str
    request: Request


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a partition stands; `lag` is null where Kafka did not answer in time."""

    partition: int
    incumbent: int | None
    since_offset: int | None
    shadows: list[int]
    generation: int
    state: str | None
    state_version: int | None
    state_why: str
    next_offset: int
    published: int
    series: int
    counters: dict[str, int]
    lag: int | None
    monitored: int


class Status(Who, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who answers where, how far, and whether it follows the registry."""

    model: str
    paused_why: str
    monitor: bool
    partitions: list[PartitionStatus]
    requests: int  # that wait for a verdict
    retraining: str  # that is under way, in words; "" where none is
    trial: str  # of the candidate
    guard: str  # over the version that answers


class Counted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a partition is counted, as offsets."""

    partition: int
    counted: int
    next: int
    lag_records: int


class Watching(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the monitor has done."""

    ran: bool
    leads: bool
    observations: int
    lag_records: int
    partitions: list[Counted]


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Figures at one lead, null where there is none."""

    count: float | None
    skill_persistence: float | None
    skill_seasonal: float | None
    mae: float | None
    rmse: float | None
    bias: float | None
    mase: float | None


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Figures of a window by lead; `all` pools the leads."""

    pairs: float
    scaled: dict[str, Measured]
    unscaled: dict[str, Measured]


class Day(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Skill of a day against persistence."""

    day: str
    skill: float | None


class VersionSkill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How good a version is, by window."""

    version: int
    role: str
    windows: dict[str, Window]
    daily: list[Day]
    trends: dict[str, dict[str, Any]]


class Statistic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a detector is, and from where on it says that there is a drift."""

    statistic: float | None
    threshold: float | None


class DriftFound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A drift."""

    detector: str
    version: int
    at: str
    statistic: float | None
    threshold: float | None
    words: str


class DriftTold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the detectors say of the version that answers."""

    version: int | None
    statistics: dict[str, Statistic]
    counts: dict[str, int]
    drifts: list[DriftFound]


class Skill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Skill, errors, drift and what waits: `1 - MSE / MSE(reference)`, by version, window and lead."""

    model: str
    incumbent: int | None
    candidate: int | None
    previous: int | None
    newest: str | None
    until: str | None
    monitor: Watching
    versions: list[VersionSkill]
    drift: DriftTold
    requests: list[Request]


class RequestWaiting(Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request that no verdict has answered: who is at work on it, if anybody is, and how often it was taken up."""

    worker: str | None
    taken: int
    waits_for: str  # the cool-down, or data; empty where it is ready


class Updating(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for, trained and tried; what live trials have spent of their budget; verdicts, newest first."""

    candidate: int | None
    approved: int | None
    paused: bool
    requests: list[RequestWaiting]
    progress: Progress | None
    trial: TrialTold | None
    guard: GuardTold | None
    ended: list[Ended]
    alpha_spent: float
    alpha_budget: float
    verdicts: list[Verdict]


class Health(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the process waits for; empty: nothing."""

    waiting_for: str


DOCUMENTS = (Versions, Audit, Changed, Asked, Status, Skill, Updating, Verdict, Health, Problem)


def components() -> dict[str, Any]:
    """The schemas by name."""
    return msgspec.json.schema_components(DOCUMENTS, ref_template=REFERENCE)[1]


def reference(kind: type) -> dict[str, Any]:
    """The schema of one of `DOCUMENTS`, by its name."""
    return {"$ref": REFERENCE.format(name=kind.__name__)}
