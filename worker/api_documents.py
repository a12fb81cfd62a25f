"""The OpenAPI document of the HTTP API: what each route answers, with examples."""

from __future__ import annotations

from http import HTTPStatus
from importlib import metadata
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi.openapi.utils import get_openapi

from models.verdict import Verdict
from worker.api_problems import MEDIA, Problem, problem
from worker.api_schemas import (
    Asked,
    Audit,
    Changed,
    Health,
    Skill,
    Status,
    Updating,
    Versions,
    components,
    reference,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

Responses = dict[int | str, dict[str, Any]]

TITLE = "Killick"
ABOUT = """\
Reads and changes one model of Killick: who answers, how good it is, what was changed by whom, and why.

Every request bears the token: `Authorization: Bearer TOKEN`. Whoever changes something says who he is (`actor`) and
why (`reason`): both go into the append-only audit. Refusals are `application/problem+json`: `subject` is what the
refusal is about, `detail` what is wrong, `cure` what to do about it; `type` never changes its meaning.
"""
TAGS = [
    {"name": "read", "description": "What is there: the same as the commands print with `--json`."},
    {"name": "change", "description": "What people decide. Nothing is done in part: refused is not done."},
    {"name": "process", "description": "Of this process: without a token."},
]
OPEN: dict[str, Any] = {"security": []}

# FastAPI leaves out of examples what is null
_WHO = {"incumbent": 13, "candidate": 14, "previous": 12, "approved": 14, "generation": 27, "paused": False}
_INFO = {
    "version": 13,
    "weights_sha256": "9f2c…",
    "architecture_sha256": "41d7…",
    "parent": 12,
    "created_ms": 1_772_366_400_000,
    "actor": "retrainer",
    "reason": "update-on-new: 6.1 % less squared error than version 12",
    "training": {"strategy": "update-on-new"},
}
_ENTRY = {
    "id": "1772366400000-0",
    "time_ms": 1_772_366_400_000,
    "event": "promote",
    "version": 13,
    "before": 12,
    "after": 13,
    "actor": "ann",
    "reason": "better in winter",
    "generation": 27,
    "time": "2026-03-01T12:00:00Z",
}
_ASKED = {
    "id": "5f0c2d9f8a4b4c0e9a3d7e6b1c2f3a4d",
    "trigger": "http",
    "goal": "improve",
    "why": "a new sensor (ann)",
    "evidence": {},
    "created_ms": 1_772_366_400_000,
}


def _told(kind: type, description: str, example: Any = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": reference(kind)}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}}


def _refusal(description: str, status: int, kind: str, subject: str, detail: str, cure: str) -> dict[str, Any]:
    example = msgspec.to_builtins(problem(kind, status, subject, detail, cure))
    found: dict[str, Any] = {
        "description": description,
        "content": {MEDIA: {"schema": reference(Problem), "example": example}},
    }
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        found["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return found


_READ = "GET /v1/models/weather/versions"
_WRITE = "POST /v1/models/weather/rollback"
REFUSED: Responses = {  # by every route
    401: _refusal(
        "No token, or a wrong one.", 401, "unauthorized",
        "token", "the request bears no token, or a wrong one",
        "send `Authorization: Bearer TOKEN` with the token of killick api (api.token_file)",
    ),
    404: _refusal(
        "This process serves no such model, or the model has no such thing.", 404, "unknown",
        "version 99", "model 'weather' has no version 99", "it has 1, 2, 3",
    ),
    405: _refusal(
        "The path takes another method: see `Allow`.", 405, "method",
        _READ.replace("GET", "PUT"), "Method Not Allowed", "this path takes GET",
    ),
    422: _refusal(
        "The request can't be meant so: see `faults`.", 422, "invalid",
        _WRITE, "body.expected: Field required", "see /openapi.json for what it takes",
    ),
    429: _refusal(
        "Too many requests from this address bore no right token.", 429, "failures",
        "token", "too many requests from this address bore no right token",
        "wait for 41 s; requests from other addresses are answered",
    ),
    503: _refusal(
        "Redis did not answer: ask again.", 503, "unreachable",
        "model weather", "Redis did not answer (ConnectionError: …)", "is it running? see redis.url in the settings",
    ),
}  # fmt: skip
FAILED: Responses = {  # and by those that change something, besides
    400: _refusal(
        "The body can't be read.", 400, "malformed",
        _WRITE, "There was an error parsing the body", "send JSON, with Content-Type: application/json",
    ),
    408: _refusal(
        "The body came too slowly.", 408, "late", _WRITE, "the body did not come within 10 s", "send it at once"
    ),
    409: _refusal(
        "Another change was faster, or the version must not be used.", 409, "conflict",
        "version 13", "version 14 answers, not 13 as expected (promoted by bob at 2026-03-01T12:00:00Z: less bias)",
        "see `killick audit`, and decide again",
    ),
    413: _refusal(
        "The body is too large.", 413, "too-large", _WRITE, "the body has more than 16,384 bytes", "shorten it"
    ),
}  # fmt: skip
_LISTED = {"model": "weather", "versions": [{**_INFO, "role": "incumbent", "status": ""}]}
VERSIONS: Responses = {200: _told(Versions, "Every version, oldest first.", _LISTED)}
AUDIT: Responses = {200: _told(Audit, "The newest changes, oldest first.", {"model": "weather", "entries": [_ENTRY]})}
SKILL: Responses = {200: _told(Skill, "Skill, errors and drift.")}
STATUS: Responses = {
    200: _told(
        Status,
        "Who answers where.",
        {
            "model": "weather",
            **_WHO,
            "paused_why": "",
            "monitor": True,
            "partitions": [],
            "requests": 0,
            "retraining": "",
            "trial": "",
            "guard": "",
        },
    )
}
VERDICTS: Responses = {200: _told(Updating, "What is under way, and the newest verdicts, newest first.")}
VERDICT: Responses = {200: _told(Verdict, "The verdict.")}
CHANGED: Responses = {200: _told(Changed, "It is done; who is who now.", {**_WHO, "model": "weather", "on_disk": True})}
ASKED: Responses = {202: _told(Asked, "It waits for a retrainer.", {"model": "weather", "request": _ASKED})}
HEALTH: Responses = {
    200: _told(Health, "It is well.", {"waiting_for": ""}),
    503: _told(Health, "It waits for something.", {"waiting_for": "Redis did not answer"}),
}
METRICS: Responses = {
    200: {"description": "For Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}},
}


def install(application: FastAPI, model: str) -> None:
    """Let /openapi.json say what is answered here."""

    def document() -> Mapping[str, Any]:
        if application.openapi_schema is None:
            application.openapi_schema = made(application, model)
        return application.openapi_schema

    application.openapi = document  # type: ignore[method-assign, assignment] # FastAPI's own way to extend it


def made(application: FastAPI, model: str) -> dict[str, Any]:
    """The document; `model` is the only one that the paths take."""
    found = get_openapi(
        title=TITLE,
        version=_release(),
        summary="The HTTP API of `killick api`.",
        description=ABOUT,
        routes=application.routes,
        tags=TAGS,
    )
    parts = found.setdefault("components", {})
    parts.setdefault("schemas", {}).update(components())
    parts["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "The token of `killick api`."}
    }
    found["security"] = [{"bearer": []}]
    for path in found["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "m":
                    parameter["schema"] |= {"enum": [model]}
    return found


def _release() -> str:
    """Killick's number; 0 where it runs from its source, and is not installed."""
    try:
        return metadata.version("killick")
    except metadata.PackageNotFoundError:
        return "0"
