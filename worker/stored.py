"""What is stored as MessagePack with a format number: read again, or refused."""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

from models.errors import LedgerError


class Formatted(Protocol):
    """A struct that says by which format it was written; new ones have the one that is known."""

    format: int


Stored = TypeVar("Stored", bound=Formatted)


def read_stored(data: bytes, kind: type[Stored], what: str) -> Stored:
    """What was stored, as `kind`; a new one where nothing was stored yet. `what` names it in errors.

    Raises:
        LedgerError: another format, or bytes that can't be read.
    """
    new = kind()
    try:
        found = msgspec.msgpack.decode(data, type=kind) if data else new
    except (msgspec.DecodeError, ValueError) as error:
        raise LedgerError(f"{what} can't be read ({error})", "restore Redis from a backup") from error
    if found.format != new.format:
        raise LedgerError(f"{what} has format {found.format}, known is {new.format}", "upgrade killick")
    return found
