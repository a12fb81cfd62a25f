"""The routes of the HTTP API.

What they read is what the commands print with `--json`, what they change is changed by the same calls. Handlers are
plain functions, which FastAPI runs in threads: none keeps another waiting.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from models.errors import ServiceUnreachable
from models.windows import WINDOWS
from worker import wiring, wiring_updating
from worker.api_documents import (
    ASKED,
    AUDIT,
    CHANGED,
    FAILED,
    REFUSED,
    SKILL,
    STATUS,
    VERDICT,
    VERDICTS,
    VERSIONS,
)
from worker.api_problems import Refused, about, problem
from worker.api_queries import check_names
from worker.changes import by
from worker.requests import asked_by
from worker.skill_report import read_report
from worker.status_report import LogEnds, read_status
from worker.updating_view import updating_json
from worker.version_report import aliases_as_json, entry_as_json, versions_as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models.registry import Aliases, Registry
    from models.server import Client
    from worker.changes import Disk
    from worker.settings import Settings

MOST_CHARACTERS_OF_ACTOR = 200
MOST_CHARACTERS = 2_000
MOST_VERSION = 2**31 - 1
MOST_ENTRIES = 1_000
MOST_VERDICTS = 100
VISIBLE = r"[^\s\x00-\x1f\x7f-\x9f]"  # somewhere in a text

log = logging.getLogger(__name__)

Number = Annotated[int, Field(ge=1, le=MOST_VERSION, examples=[13])]


class RedisSeen(Protocol):
    """Who is told whether Redis answers."""

    def redis_up(self, *, up: bool) -> None:
        """Whether the last call was answered."""


@dataclass(frozen=True)
class Here:
    """What the handlers share."""

    settings: Settings
    client: Client
    log_ends: LogEnds
    disk: Disk
    seen: RedisSeen

    @property
    def model(self) -> str:
        """The model that is served."""
        return self.settings.model.name

    @property
    def registry(self) -> Registry:
        """Its registry."""
        return wiring.registry(self.settings, self.client)

    @contextmanager
    def about(self, subject: str = "", *, write: bool = False) -> Iterator[None]:
        """As `api_problems.about`, of the model if of nothing else; whether Redis answered is told.

        Raises:
            Refused: what killick refused within.
        """
        try:
            with about(subject or f"model {self.model}", write=write):
                yield
        except Refused as error:
            self.seen.redis_up(up=not isinstance(error.__cause__, ServiceUnreachable))
            raise
        self.seen.redis_up(up=True)


def here(request: Request, m: Annotated[str, Path(description="The model: model.name of the settings.")]) -> Here:
    """What the handlers share.

    Raises:
        Refused: it is of another model.
    """
    found: Here = request.app.state.here
    if m != found.model:
        detail = f"this process serves model {found.model!r}, not {m!r}"
        cure = "one model has one process: ask the process of that model"
        raise Refused(problem("unknown", 404, f"model {m}", detail, cure))
    return found


Served = Annotated[Here, Depends(here)]


class Change(BaseModel):
    """Who changes something, and why; both go into the audit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    actor: str = Field(
        min_length=1,
        max_length=MOST_CHARACTERS_OF_ACTOR,
        pattern=VISIBLE,
        description="Who asks for it.",
        examples=["ann"],
    )
    reason: str = Field(
        min_length=1, max_length=MOST_CHARACTERS, pattern=VISIBLE, description="Why.", examples=["worse at night"]
    )


class OfVersion(Change):
    """A change of one version."""

    version: Number = Field(description="The version.")


class Promotion(OfVersion):
    """Lets a version answer."""

    expected: Number = Field(
        description="The version that answers now, as you believe: if another one does, nothing is changed.",
        examples=[12],
    )


class Rollback(Change):
    """Withdraws the version that answers; automatic promotion is paused until it is resumed."""

    expected: Number = Field(
        description="The version that answers now, as you believe: if another one does, nothing is changed."
    )
    to: Number | None = Field(
        default=None, description="The version to go back to; without it the previous one.", examples=[12]
    )


class Retraining(Change):
    """Asks for a retraining."""

    goal: Literal["restore", "improve", "investigate"] = Field(default="restore", description="What it is for.")


NAMED = [Depends(check_names)]
reads = APIRouter(prefix="/v1/models/{m}", tags=["read"], responses=REFUSED, dependencies=NAMED)
changes = APIRouter(prefix="/v1/models/{m}", tags=["change"], responses={**REFUSED, **FAILED}, dependencies=NAMED)


@reads.get("/versions", summary="The versions", responses=VERSIONS)
def versions(served: Served) -> Response:
    """Every version, oldest first: what made it, from which parent, and what it is now."""
    with served.about():
        return told({"model": served.model, "versions": versions_as_json(served.registry)})


@reads.get("/skill", summary="How good the forecasts are", responses=SKILL)
def skill(
    served: Served,
    version: Annotated[int | None, Query(ge=1, le=MOST_VERSION, description="Only this version.")] = None,
    window: Annotated[Literal["1h", "1d", "7d", "30d", "life"] | None, Query(description="Only this window.")] = None,
) -> Response:
    """Skill and errors by version, window and lead, as the monitor keeps them; drift; the requests that wait."""
    with served.about():
        report = read_report(served.settings, served.client)
        if version is not None and version not in report.versions():
            check_known(served, version)
            cure = f"versions with pairs: {', '.join(map(str, report.versions())) or 'none'}"
            raise Refused(problem("unknown", 404, f"version {version}", f"version {version} has no pairs yet", cure))
        chosen = report.versions() if version is None else [version]
        return told(report.as_json(chosen, WINDOWS if window is None else [window]))


@reads.get("/audit", summary="Who changed what, and why", responses=AUDIT)
def audit(
    served: Served,
    count: Annotated[int, Query(ge=1, le=MOST_ENTRIES, description="The newest so many.")] = 100,
) -> Response:
    """The newest changes, oldest first: who, when, why, from which version to which."""
    with served.about():
        found = [entry_as_json(entry) for entry in served.registry.audit(count)]
        return told({"model": served.model, "entries": found})


@reads.get("/status", summary="Who answers where", responses=STATUS)
def status(served: Served) -> Response:
    """Who answers in each partition, how far it is, whether it follows the registry, and what was counted."""
    with served.about():
        return told(read_status(served.settings, served.client, served.log_ends.ask()))


@reads.get("/verdicts", summary="What is under way, and the newest verdicts", responses=VERDICTS)
def verdicts(
    served: Served,
    count: Annotated[int, Query(ge=1, le=MOST_VERDICTS, description="The newest so many verdicts.")] = 10,
) -> Response:
    """What is asked for, trained and tried at present, and what retrainings came to, newest first."""
    with served.about():
        return told(updating_json(wiring_updating.updating(served.settings, served.client, count)))


@reads.get("/verdicts/{name}", summary="A verdict", responses=VERDICT)
def verdict(served: Served, name: Annotated[str, Path(description="Its id, as GET …/verdicts lists it.")]) -> Response:
    """One verdict: what was tried, how it compared, what was decided and why."""
    subject = f"verdict {name}"
    with served.about(subject):
        found = wiring_updating.verdicts(served.settings, served.client).get(name)
        if found is None:
            detail = f"model {served.model!r} has no verdict {name!r}"
            raise Refused(problem("unknown", 404, subject, detail, "GET …/verdicts lists them"))
        return told(found)


@changes.post("/promote", summary="Let a version answer", responses=CHANGED)
def promote(served: Served, asked: Promotion) -> Response:
    """Lets `version` answer in place of `expected`. Each partition changes over as soon as it has spun it up."""
    return changed(
        served,
        asked,
        "promote",
        lambda registry, who: registry.promote(asked.version, expected=asked.expected, **who),
        versions=(asked.version,),
    )


@changes.post("/rollback", summary="Let the version before answer again", responses=CHANGED)
def rollback(served: Served, asked: Rollback) -> Response:
    """Withdraws `expected`, lets the previous version (or `to`) answer, and pauses automatic promotion."""
    return changed(
        served,
        asked,
        "rollback",
        lambda registry, who: registry.rollback(asked.to, expected=asked.expected, **who),
        versions=() if asked.to is None else (asked.to,),
    )


@changes.post("/approve", summary="Sign the candidate off", responses=CHANGED)
def approve(served: Served, asked: OfVersion) -> Response:
    """Signs the candidate off: it is promoted once it has proved itself."""
    return changed(
        served,
        asked,
        "approve",
        lambda registry, who: registry.approve(asked.version, **who),
        versions=(asked.version,),
    )


@changes.post("/reject", summary="Send the candidate away", responses=CHANGED)
def reject(served: Served, asked: OfVersion) -> Response:
    """Ends the candidate's trial: it is no candidate any more. What answers goes on."""
    return changed(
        served,
        asked,
        "reject",
        lambda registry, who: registry.nominate(None, expected=asked.version, **who),
        versions=(asked.version,),
    )


@changes.post("/pause", summary="Stop automatic promotion", responses=CHANGED)
def pause(served: Served, asked: Change) -> Response:
    """From now on people promote, and nobody else."""
    return changed(served, asked, "pause", lambda registry, who: registry.pause(**who))


@changes.post("/resume", summary="Let automatic promotion go on", responses=CHANGED)
def resume(served: Served, asked: Change) -> Response:
    """Automatic promotion is possible again."""
    return changed(served, asked, "resume", lambda registry, who: registry.resume(**who))


@changes.post("/retrain", summary="Ask for a retraining", status_code=202, responses=ASKED)
def retrain(served: Served, asked: Retraining) -> Response:
    """Puts a request into the queue; a retrainer answers it with a verdict, which names it."""
    wanted = asked_by("http", asked.goal, asked.reason, asked.actor)
    with served.about("retraining", write=True):
        wiring_updating.requests(served.settings, served.client).ask(wanted)
    noted("retrain", asked)
    return told({"model": served.model, "request": wanted}, 202)


def changed(
    served: Here,
    asked: Change,
    what: str,
    change: Callable[[Registry, dict[str, Any]], Aliases],
    *,
    versions: tuple[int, ...] = (),
) -> Response:
    """Who is who after the change, and whether that is on the disk.

    Raises:
        Refused: it was not made, or nobody knows; 404 where one of the `versions` that it names is not known.
    """
    subject = f"version {versions[0]}" if versions else f"model {served.model}"
    for version in versions:
        check_known(served, version)
    with served.about(subject, write=True):
        aliases = change(served.registry, by(asked.actor, asked.reason))
    noted(what, asked)
    try:
        there = served.disk.reached()
    except ServiceUnreachable:  # the change was made; whether it is on the disk nobody says
        there = None
    return told({**aliases_as_json(aliases), "model": served.model, "on_disk": there})


def check_known(served: Here, version: int) -> None:
    """Nothing where there is such a version: none goes away again.

    Raises:
        Refused: there is none.
    """
    with served.about():
        if served.registry.info(version) is not None:
            return
        known = [info.version for info in served.registry.versions()]
    if version not in known:
        cure = f"it has {', '.join(map(str, known))}" if known else "fit one: `killick fit FILE`"
        detail = f"model {served.model!r} has no version {version}"
        raise Refused(problem("unknown", 404, f"version {version}", detail, cure))


def noted(what: str, asked: Change) -> None:
    """One line in the log for each change; all else is in the audit."""
    log.info("%s, asked for by %r", what, asked.actor, extra={"action": what, "actor": asked.actor})


def told(body: Any, status: int = 200) -> Response:
    """The body as JSON."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")
