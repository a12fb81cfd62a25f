"""The verdicts of a model in Redis, each written once, with what its trial spends.

verdicts          hash: id → JSON, packed
verdict_order     sorted set: id by time
verdict_versions  hash: version → id of the verdict that it was registered by
verdict_draft     one whose version is about to be registered
alpha_spent       what the live trials have spent of the budget, for good
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgspec

from models.errors import LedgerError, StaleCommand
from models.registry import model_tag
from models.server import Client, call_function, calling
from models.verdict import FORMAT, Verdict
from worker.requests import CODE, LIBRARY, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = 400


class VerdictStore:
    """The verdicts of one model."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model
        self._tag = model_tag(model)

    def get(self, verdict: str) -> Verdict | None:
        """A verdict by its id; None: there is none, or it was let go long ago.

        Raises:
            LedgerError: it can't be read.
            ServiceUnreachable: Redis did not answer.
        """
        found = calling(self._client.hget, self._tag + "verdicts", verdict)
        return None if found is None else decode_verdict(found, verdict)

    def of_version(self, version: int) -> Verdict | None:
        """The verdict that a version was registered by; None: it was made in another way."""
        found = calling(self._client.hget, self._tag + "verdict_versions", str(version))
        return None if found is None else self.get(found.decode())

    def recent(self, count: int) -> list[Verdict]:
        """The newest verdicts, newest first."""
        ids = calling(self._client.zrevrange, self._tag + "verdict_order", 0, count - 1)
        if not ids:
            return []
        found = calling(self._client.hmget, self._tag + "verdicts", ids)
        return [decode_verdict(data, i.decode()) for i, data in zip(ids, found, strict=True) if data is not None]

    def spent(self) -> float:
        """What the live trials have spent of the budget of false promotions."""
        return float(calling(self._client.get, self._tag + "alpha_spent") or 0)

    def draft(self, verdict: Verdict, worker: str, entries: Sequence[str]) -> None:
        """Keep a verdict whose version is about to be registered: who takes over can go on from it.

        Raises:
            FencedError: another worker has taken the requests up.
            ServiceUnreachable: Redis did not answer.
        """
        names = [self._tag + key for key in ("requests", "verdict_draft")]
        judge(call_function(self._client, CODE, f"{LIBRARY}_draft", names, [worker, encode_verdict(verdict), *entries]))

    def drafted(self) -> Verdict | None:
        """The verdict that was kept so, if its requests are not answered yet."""
        found = calling(self._client.get, self._tag + "verdict_draft")
        return None if found is None else decode_verdict(found, "draft")

    def write(self, verdict: Verdict, worker: str, entries: Sequence[str], *, before: float, spends: float) -> None:
        """Write a verdict on requests; `before` was spent, its trial spends so much more.

        Where no answer came, call again with the same words.

        Raises:
            FencedError, TakenBack: another worker has taken the requests up, or all were taken back.
            StaleCommand: something else was spent meanwhile: judge anew.
            ServiceUnreachable: Redis did not answer.
        """
        keys = ["requests", "verdicts", "verdict_order", "verdict_versions", "alpha_spent"]
        version = "" if verdict.version is None else verdict.version
        words: list[bytes | str | int] = [worker, verdict.id, encode_verdict(verdict), verdict.created_ms, version]
        words += [repr(before), repr(spends), KEPT, *entries]
        names = [self._tag + key for key in keys]
        reply = call_function(self._client, CODE, f"{LIBRARY}_write", names, words)
        judge(reply)
        if reply[0] == b"spent":
            raise spent_meanwhile(reply[1].decode(), before)


def spent_meanwhile(spent: str, before: float) -> StaleCommand:
    """That another trial has spent of the budget."""
    return StaleCommand(f"{spent} of the budget is spent, {before} was expected", "judge anew")


def encode_verdict(verdict: Verdict) -> bytes:
    """JSON, packed."""
    return zlib.compress(msgspec.json.encode(verdict))


def decode_verdict(data: bytes, verdict: str) -> Verdict:
    """The verdict of that id.

    Raises:
        LedgerError: another format, or bytes that can't be read.
    """
    try:
        found = msgspec.json.decode(zlib.decompress(data), type=Verdict)
    except (msgspec.DecodeError, zlib.error) as error:
        raise LedgerError(f"verdict {verdict} can't be read ({error})", "restore Redis from a backup") from error
    if found.format != FORMAT:
        raise LedgerError(f"verdict {verdict} has format {found.format}, known is {FORMAT}", "upgrade killick")
    return found
