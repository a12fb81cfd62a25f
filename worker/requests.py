"""The requests for retraining in Redis: who asks, who is at work on which, and how far; changed by `updating.lua`.

    requests    stream, with a consumer group: what is asked, until a verdict answers it
    progress    how far the retraining is that is under way; gone when its worker is silent

A model is retrained by one worker at a time: what others asked for meanwhile waits, and is answered together.
"""

from __future__ import annotations

import time
import uuid
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from models.audit import printable
from models.errors import FencedError, KillickError, VersionError
from models.registry import model_tag
from models.server import Client, call_function, calling
from worker.store import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

LIBRARY = "killick_updating_v1"
CODE = resources.files("worker").joinpath("updating.lua")


class Waiting(NamedTuple):
    """A request, and who is at work on it."""

    entry: str  # of the stream
    request: Request
    worker: str  # "" while it waits
    silent_ms: int  # since the worker last said that it lives
    taken: int  # how often it was taken up


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a retraining is."""

    worker: str
    requests: tuple[str, ...]
    began_ms: int
    done: int  # trainings
    total: int
    note: str


class TakenBack(KillickError):
    """Nobody asks any more for what is being done."""


class RequestStore:
    """The requests of one model."""

    def __init__(self, client: Client, model: str, worker: str = "") -> None:
        """`worker` names who takes requests up; none is needed to ask and to look."""
        self._client = client
        self._model = model
        self._tag = model_tag(model)
        self._worker = worker

    def ask(self, request: Request) -> None:
        """Ask for a retraining. Where no answer came, call again with the same request.

        Raises:
            ServiceUnreachable: Redis did not answer.
        """
        self._call("ask", ["requests"], [msgspec.json.encode(request)])

    def waiting(self) -> list[Waiting]:
        """Every request that no verdict has answered, oldest first."""
        return [
            Waiting(entry.decode(), msgspec.json.decode(request, type=Request), worker.decode(), int(idle), int(taken))
            for entry, request, worker, idle, taken in self._call("waiting", ["requests"], [])[1:]
        ]

    def claim(self, entries: Sequence[str], silent_ms: int) -> list[str]:
        """The entries that are ours to work on now; none while another worker is at work and not silent for so long."""
        reply = self._call("claim", ["requests"], [self._worker, silent_ms, *entries])
        return [] if reply[0] == b"busy" else [entry.decode() for entry in reply[1:]]

    def keep(self, entries: Sequence[str], progress: Progress, alive_ms: int) -> list[str]:
        """Those entries that are still asked for; says for so long that we are at work on them.

        Raises:
            FencedError: another worker has taken them up.
            ServiceUnreachable: Redis did not answer; the work may go on until it does.
        """
        words: list[bytes | str | int] = [self._worker, msgspec.json.encode(progress), alive_ms, *entries]
        reply = self._call("keep", ["requests", "progress"], words)
        judge(reply)
        return [entry.decode() for entry in reply[1:]]

    def tell(self, progress: Progress, alive_ms: int) -> None:
        """Let people see for so long what keeps requests waiting."""
        calling(self._client.set, self._tag + "progress", msgspec.json.encode(progress), px=alive_ms)

    def leave(self, entries: Sequence[str]) -> None:
        """Let requests wait for any worker again."""
        self._call("leave", ["requests", "progress"], [self._worker, *entries])

    def answered(self, entries: Sequence[str]) -> None:
        """Take requests from the queue that a verdict has answered.

        Raises:
            FencedError: another worker has taken them up.
            ServiceUnreachable: Redis did not answer; call again.
        """
        judge(self._call("answered", ["requests", "progress", "verdict_draft"], [self._worker, *entries]))

    def cancel(self, request: str) -> None:
        """Take a request back; a retraining that answers it alone is given up.

        Raises:
            VersionError: it does not wait.
            ServiceUnreachable: Redis did not answer.
        """
        if self._call("cancel", ["requests"], [request])[0] != b"ok":
            raise not_waiting(request, self._model)

    def progress(self) -> Progress | None:
        """How far the retraining is that is under way; None: there is none."""
        found = calling(self._client.get, self._tag + "progress")
        return msgspec.json.decode(found, type=Progress) if found else None

    def _call(self, function: str, keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> list[Any]:
        names = [self._tag + key for key in keys]
        return call_function(self._client, CODE, f"{LIBRARY}_{function}", names, arguments)


def asked_by(trigger: str, goal: str, reason: str, actor: str) -> Request:
    """What a person asks for, in one line whatever they write."""
    return Request(
        id=uuid.uuid4().hex,
        trigger=trigger,
        goal=goal,
        why=printable(f"{reason} ({actor.strip()})"),
        evidence={},
        created_ms=int(time.time() * 1_000),
    )


def not_waiting(request: str, model: str) -> VersionError:
    """That nobody asks for this."""
    return VersionError(f"no request {request!r} waits for model {model!r}", "`killick verdicts` shows what waits")


def judge(reply: Sequence[Any]) -> None:
    """Refuse what another worker has taken up, or nobody asks for any more.

    Raises:
        FencedError, TakenBack: it is so.
    """
    if reply[0] == b"taken back":
        raise TakenBack("the requests were taken back", "nothing is to be done")
    if reply[0] == b"fenced":
        raise FencedError(f"the requests are worked on by {reply[1].decode()}", "this worker was silent for too long")
