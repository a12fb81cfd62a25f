"""What the HTTP API answers where it refuses: one problem (RFC 9457), with what it is about and its cure."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from models.errors import ConfigError, KillickError, ServiceUnreachable, VersionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA = "application/problem+json"
RETRY_S = 2  # after which who found a service away may ask again
MAYBE = "; GET …/audit says whether it was done"

log = logging.getLogger(__name__)


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that is wrong with a request."""

    where: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A refusal: what it is about, what is wrong (`detail`) and what to do about it (`cure`)."""

    type: str
    title: str
    status: int
    detail: str
    subject: str
    cure: str
    faults: tuple[Fault, ...] = ()


class Refused(Exception):
    """Raised by whoever answers a request: this problem is the answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def problem(kind: str, status: int, subject: str, detail: str, cure: str, *faults: Fault) -> Problem:
    """A problem of a kind, which never changes its meaning: programs may go by it."""
    return Problem(
        type=f"urn:killick:problem:{kind}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        subject=subject,
        cure=cure,
        faults=faults,
    )


def answer(found: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The problem as a response."""
    return Response(msgspec.json.encode(found), found.status, headers, MEDIA)


@contextmanager
def about(subject: str, *, write: bool = False) -> Iterator[None]:
    """Turns what killick refuses within into a problem about `subject`, which says where a `write` may have been done.

    Raises:
        Refused: with the problem.
    """
    try:
        yield
    except KillickError as error:
        raise Refused(_of(error, subject, write=write)) from error


def _of(error: KillickError, subject: str, *, write: bool) -> Problem:
    if isinstance(error, ServiceUnreachable):
        return problem("unreachable", 503, subject, error.message, error.cure + (MAYBE if write else ""))
    if isinstance(error, VersionError):  # overtaken, or of a version that must not be used
        return problem("conflict", 409, subject, error.message, error.cure)
    if isinstance(error, ConfigError):  # of this process: what the request holds was checked before
        return problem("unreachable", 503, subject, error.message, error.cure)
    log.error("%s: %s", subject, error, extra={"action": "failed"})
    return problem("failed", 500, subject, error.message, error.cure or "see `killick doctor`")


def install(application: FastAPI) -> None:
    """Let the application answer with problems, whatever goes wrong."""
    application.add_exception_handler(Refused, _refused)
    application.add_exception_handler(RequestValidationError, _invalid)
    application.add_exception_handler(HTTPException, _http)
    application.add_exception_handler(Exception, _defect)


def _refused(_request: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise TypeError(type(error))
    away = error.problem.status == HTTPStatus.SERVICE_UNAVAILABLE
    return answer(error.problem, {"Retry-After": str(RETRY_S)} if away else None)


def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise TypeError(type(error))
    faults = [
        Fault(where=".".join(map(str, one["loc"])), message=one["msg"].removeprefix("Value error, "))
        for one in error.errors()
    ]
    detail = "; ".join(f"{fault.where}: {fault.message}" for fault in faults)
    subject = f"{request.method} {request.url.path}"
    return answer(problem("invalid", 422, subject, detail, "see /openapi.json for what it takes", *faults))


def _http(request: Request, error: Exception) -> Response:
    """What FastAPI refuses by itself: no such path, no such method, a body that can't be read."""
    if not isinstance(error, HTTPException):
        raise TypeError(type(error))
    subject = f"{request.method} {request.url.path}"
    kind, cure = {
        404: ("unknown", "see /openapi.json for the paths that there are"),
        405: ("method", f"this path takes {(error.headers or {}).get('Allow', 'another method')}"),
    }.get(error.status_code, ("malformed", "send JSON, with Content-Type: application/json"))
    return answer(problem(kind, error.status_code, subject, str(error.detail), cure), error.headers)


def _defect(request: Request, error: Exception) -> Response:
    del error  # it is logged, and none of the caller's business
    subject = f"{request.method} {request.url.path}"
    return answer(problem("defect", 500, subject, "this is a defect of killick", "see the log of killick api"))
