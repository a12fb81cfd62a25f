"""A request's parameters are those that the document names for its route: a slip of the pen is not overlooked."""

from __future__ import annotations

import difflib

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation

MOST_FAULTS = 10  # that are told of one request


def check_names(request: Request) -> None:
    """Refuse parameters that the route does not know. For routers, as a dependency.

    Raises:
        RequestValidationError: there are some.
    """
    given = dict.fromkeys(request.query_params)
    if not given:
        return
    operation = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    known = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    unknown = [name for name in given if name not in known][:MOST_FAULTS]
    if unknown:
        raise RequestValidationError([{"loc": ("query", name), "msg": _cure(name, known)} for name in unknown])


def _cure(name: str, known: list[str]) -> str:
    if not known:
        return "is not known: this path takes no parameters"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"is not known: did you mean {near[0]}?" if near else f"is not known: known are {', '.join(known)}"
