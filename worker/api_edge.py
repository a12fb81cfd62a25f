"""The outermost of the HTTP API: every request is counted, and none is larger or slower than it may be."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from worker.api_problems import answer, problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 16_384  # of a body
BODY_S = 10.0  # that a client has to send it
HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class Counts(Protocol):
    """Who is told of every request."""

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is empty where none fits."""


class Counted:
    """Tells of each request, and adds the headers that every answer has."""

    def __init__(self, inner: ASGIApp, counts: Counts) -> None:
        self._inner = inner
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        began_s = time.monotonic()
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            await self._inner(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "")
            self._counts.request(route, status, time.monotonic() - began_s)


class Bounded:
    """Passes requests on with their whole body, if that is not too large and comes in time."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        subject = f"{scope['method']} {scope['path']}"
        try:
            async with asyncio.timeout(BODY_S):
                body = await _body(receive)
        except TimeoutError:
            late = problem("late", 408, subject, f"the body did not come within {BODY_S:g} s", "send it at once")
            await answer(late)(scope, receive, send)
            return
        if body is None:
            large = problem("too-large", 413, subject, f"the body has more than {MOST_BYTES:,} bytes", "shorten it")
            await answer(large, {"Connection": "close"})(scope, receive, send)
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def whole() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._inner(scope, whole, send)


async def _body(receive: Receive) -> bytes | None:
    """The body; None: it is too large, or nobody waits for an answer any more."""
    found = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        found += message.get("body", b"")
        if len(found) > MOST_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(found)
