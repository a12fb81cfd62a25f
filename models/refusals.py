"""What the registry's functions refuse, in words: one for each kind of reply that is not `ok`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from models.errors import ConfigError, StaleCommand, VersionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.audit import AuditEntry

OF_INCUMBENT = ("incumbent", "promote", "rollback")
OF_CANDIDATE = ("nominate", "promote", "rollback")
_NOTHING = "there is nothing to do"
_LOOK = "see `killick audit`, and decide again"
_ANOTHER = "choose another one: `killick versions` lists them"


@dataclass(frozen=True)
class Why:
    """A refusal."""

    message: str  # takes the reply's words by number
    cure: str
    events: tuple[str, ...]  # the newest change of these kinds explains it
    of_version: bool = False  # only changes of the version that is the first word
    error: type[VersionError] = StaleCommand


REFUSALS: dict[str, Why] = {
    "answers already": Why("version {0} already answers", _NOTHING, OF_INCUMBENT),
    "another answers": Why("version {0} answers, not {1} as expected", _LOOK, OF_INCUMBENT),
    "no previous": Why(
        "version {0} answers, and there is no previous version to go back to",
        "name one: `killick rollback --to V`; `killick versions` lists them",
        OF_INCUMBENT,
    ),
    "candidate already": Why("the candidate is {0} already", _NOTHING, OF_CANDIDATE),
    "no candidate": Why("there is no candidate", _NOTHING, OF_CANDIDATE),
    "another candidate": Why("the candidate is {0}, not {1} as expected", _LOOK, OF_CANDIDATE),
    "answers": Why("version {0} answers, so it is no candidate", _ANOTHER, OF_INCUMBENT),
    "not the candidate": Why("version {0} is not the candidate (that is: {1})", _LOOK, OF_CANDIDATE),
    "approved already": Why("version {0} is approved already", _NOTHING, ("approve",), of_version=True),
    "stale": Why(
        "version {0} was made from version {1}, and version {2} answers by now",
        "ask for a new one: `killick retrain`; or let it answer all the same: `killick promote {0}`",
        OF_INCUMBENT,
    ),
    "withdrawn": Why("version {0} is withdrawn", _ANOTHER, ("rollback",), of_version=True, error=VersionError),
    "retired": Why("version {0} is retired", _ANOTHER, ("retire",), of_version=True, error=VersionError),
    "retired already": Why("version {0} is retired already", _NOTHING, ("retire",), of_version=True),
    "named": Why("version {0} is the {1}", "retire it when it no longer is", (), error=VersionError),
    "paused": Why(
        "automatic promotion of {model} is paused", "`killick resume` when it may go on", ("pause", "rollback")
    ),
    "paused already": Why("automatic promotion of {model} is paused already", _NOTHING, ("pause", "rollback")),
    "not paused": Why("automatic promotion of {model} is not paused", _NOTHING, ("resume",)),
}


class Last(Protocol):
    """Looks into the audit."""

    def __call__(self, *events: str, version: int | None = None) -> AuditEntry | None:
        """The newest change of these kinds, of that version if one is given."""


def refusal(kind: str, words: Sequence[str], model: str, last: Last) -> VersionError:
    """A refusal with the reply's words, and with who did what is in the way."""
    why = REFUSALS[kind]
    entry = last(*why.events, version=int(words[0]) if why.of_version else None)
    message = why.message.format(*words, model=f"model {model!r}")
    return why.error(f"{message} ({entry})" if entry else message, why.cure.format(*words))


def unknown_version(model: str, version: int, known: Sequence[int]) -> VersionError:
    """That there is no such version, and which there are."""
    return VersionError(
        f"model {model!r} has no version {version}", f"it has {known}" if known else "fit one: `killick fit FILE`"
    )


def check_reason(event: str, reason: str) -> None:
    """Refuse a change that nobody gives a reason for.

    Raises:
        ConfigError: it is blank.
    """
    if not reason.strip():
        raise ConfigError(f"{event} needs a reason", "say why: --reason TEXT; it goes into the audit")
