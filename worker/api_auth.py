"""Who may ask: a bearer token, compared in constant time; who fails too often from an address has to wait."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import math
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from worker.api_problems import answer, problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

WINDOW_S = 60.0
MOST_ADDRESSES = 4_096  # of which failures are remembered: the memory of an attack is bounded
OPEN = frozenset({"/healthz", "/readyz", "/metrics"})  # without a token
PREFIX_V6 = 64  # one customer of a provider has at least as many addresses

log = logging.getLogger(__name__)


class Failures:
    """How often each address failed in the last minute."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def note(self, address: str, now_s: float) -> None:
        """The address failed."""
        times = self._times.setdefault(address, deque(maxlen=self._most))
        times.append(now_s)
        self._times.move_to_end(address)
        if len(self._times) > MOST_ADDRESSES:
            self._times.popitem(last=False)

    def wait_s(self, address: str, now_s: float) -> float:
        """For how long the address has to wait; 0: it may ask."""
        times = self._times.get(address)
        if times is None or len(times) < self._most:
            return 0.0
        return max(0.0, times[0] + WINDOW_S - now_s)


class Guard:
    """Lets through who bears the token.

    An address that failed too often is refused whatever it bears, else its guesses would go on; others are not: who
    guesses keeps out nobody but the addresses that he has.
    """

    def __init__(self, inner: ASGIApp, token: str, failures: int) -> None:
        self._inner = inner
        self._token = _digest(token.encode())
        self._failures = Failures(failures)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in OPEN:
            address = address_of(scope)
            now_s = time.monotonic()
            wait_s = self._failures.wait_s(address, now_s)
            if wait_s > 0:
                seconds = str(math.ceil(wait_s))
                found = problem(
                    "failures", 429, "token", "too many requests from this address bore no right token",
                    f"wait for {seconds} s; requests from other addresses are answered",
                )  # fmt: skip
                await answer(found, {"Retry-After": seconds})(scope, receive, send)
                return
            given = borne(scope)
            if not hmac.compare_digest(_digest(given), self._token):
                self._failures.note(address, now_s)
                log.warning(
                    "a request from %s bears %s token: %s %s",
                    address,
                    "a wrong" if given else "no",
                    scope["method"],
                    scope["path"][:200].encode("unicode_escape").decode(),
                    extra={"action": "unauthorized", "address": address},
                )
                found = problem(
                    "unauthorized", 401, "token", "the request bears no token, or a wrong one",
                    "send `Authorization: Bearer TOKEN` with the token of killick api (api.token_file)",
                )  # fmt: skip
                await answer(found, {"WWW-Authenticate": 'Bearer realm="killick"'})(scope, receive, send)
                return
        await self._inner(scope, receive, send)


def borne(scope: Scope) -> bytes:
    """The token that a request bears; empty: none, or in a way that is not known, or more than one."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(found) != 1:
        return b""
    kind, _, token = found[0].partition(b" ")
    return token.strip(b" ") if kind.lower() == b"bearer" else b""


def address_of(scope: Scope) -> str:
    """Whom failures are counted for: the client's address, its network where it has many by IPv6."""
    host = str((scope.get("client") or ("",))[0])
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found), PREFIX_V6), strict=False))
    return str(found)


def _digest(token: bytes) -> bytes:
    """Of one length, whatever the token: the comparison takes the same time."""
    return hashlib.sha256(token).digest()
