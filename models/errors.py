"""The one tree of errors that killick raises on purpose.

    KillickError
    ├── ConfigError          the settings, or a command's words, can't be used  (exit 2)
    ├── DataError            a file or a record can't be used as it is
    ├── ArchiveError         the archive can't be read or written, or does not hold what it should
    ├── VersionError         a version can't be loaded, or doesn't fit the model
    │   └── StaleCommand     a change that another one has overtaken
    ├── ServiceUnreachable   Kafka or Redis did not answer                      (exit 3, retriable)
    │   └── NotReady         what is needed is not there yet: a topic, a version (exit 2)
    └── LedgerError          a partition's record in Redis refuses
        ├── FencedError      another consumer has taken the partition
        └── OffsetConflict   the ledger stands at another offset

A message names the subject, the value and the limit; `cure` says what to do about it.
"""

from __future__ import annotations

from typing import ClassVar


class KillickError(Exception):
    """Everything that killick refuses, with its cure."""

    exit_code: ClassVar[int] = 1
    retriable: ClassVar[bool] = False

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message}: {self.cure}" if self.cure else self.message


class ConfigError(KillickError):
    """The settings, or the words of a command, can't be used."""

    exit_code = 2


class DataError(KillickError):
    """A file or a record can't be used as it is."""


class ArchiveError(KillickError):
    """The archive can't be read or written, or does not hold what it should."""


class VersionError(KillickError):
    """A version can't be loaded, or doesn't fit the model."""


class StaleCommand(VersionError):
    """A change of the registry that another one has overtaken, or that was already made: nothing was changed."""


class ServiceUnreachable(KillickError):
    """Kafka or Redis did not answer."""

    exit_code = 3
    retriable = True


class NotReady(ServiceUnreachable):
    """What is needed is not there yet: a version, a topic. A process waits for it; a command fails."""

    exit_code = 2


class LedgerError(KillickError):
    """A partition's record in Redis refuses what was asked of it."""


class FencedError(LedgerError):
    """Another consumer has taken the partition: abandon it until it is assigned again."""


class OffsetConflict(LedgerError):
    """The ledger stands at another offset than the caller: reload and seek."""

    def __init__(self, message: str, cure: str = "", *, next_offset: int) -> None:
        super().__init__(message, cure)
        self.next_offset = next_offset
