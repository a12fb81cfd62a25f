"""`killick report`."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from models.errors import ConfigError, DataError, VersionError
from worker.outputs import PAGE, check_file

if TYPE_CHECKING:
    from models.registry import Registry
    from models.verdict import Verdict
    from worker.session import Session
    from worker.verdicts import VerdictStore

SUFFIXES = {True: (".json",), False: PAGE}  # by whether JSON is asked for
NEWEST = 5  # verdicts that an error names
LONGEST = 9  # digits of a version: what is longer is an id
SHORTEST = 4  # signs of the beginning of an id
MOST = 1_000  # verdicts that an id's beginning is looked for among: more than are kept


@click.command()
@click.argument("verdict", metavar="[V|ID]", required=False)
@click.option("--out", metavar="FILE", help="File to write: verdict.html.")
@click.option("--json", "as_json", is_flag=True, help="The verdict as JSON, to standard output or --out verdict.json.")
@click.pass_obj
def report(session: Session, verdict: str | None, out: str | None, as_json: bool) -> None:
    """Show a verdict: what was decided, by which figures, and what happens next; --out writes it as one HTML page.

    V is the version that the verdict registered, ID a verdict's own, or its beginning; without one it is the newest.
    The page opens without a network.

    \b
    killick report                             the newest, in short
    killick report --out verdict.html          the same with all figures and pictures
    killick report 8 --out verdict.html        the one that version 8 came from
    killick report 8 --json                    its figures
    """  # noqa: D301 - click wants the control character itself
    from worker import wiring
    from worker.report import encoded, page
    from worker.verdicts import VerdictStore

    _check(out, as_json)
    settings = session.settings()
    with closing(wiring.redis_client(settings)) as client:
        registry = wiring.registry(settings, client)
        found = _found(VerdictStore(client, settings.model.name), registry, settings.model.name, verdict)
        entries = registry.audit() if out is not None and not as_json else []
    if out is None and not as_json:
        from rich.console import Console

        from worker.report_words import verdict_lines

        Console(highlight=False).print(verdict_lines(found))
        return
    data = encoded(found) + b"\n" if as_json else page(found, entries).encode()
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        Path(out).write_bytes(data)
    except OSError as error:
        raise DataError(f"--out {out!r} can't be written ({error.strerror})", "choose another --out") from error
    click.echo(f"verdict {found.id} is in {out}: {found.outcome}")


def _check(out: str | None, as_json: bool) -> None:
    if out is None:
        return
    if Path(out).suffix.lower() in SUFFIXES[not as_json]:
        cure = "leave --json out" if as_json else "add --json"
        raise ConfigError(f"--out {out!r} is no file for {'JSON' if as_json else 'a page'}", cure)
    check_file("--out", out, SUFFIXES[as_json])


def _found(store: VerdictStore, registry: Registry, model: str, asked: str | None) -> Verdict:
    """The verdict that is asked for; the beginning of an id is enough where no other begins so.

    Raises:
        VersionError: there is none, or more than one.
    """
    if asked is None:
        newest = store.recent(1)
        if newest:
            return newest[0]
        raise VersionError(f"model {model!r} has no verdict yet", "ask for one: `killick retrain --reason TEXT`")
    number = int(asked) if asked.isdecimal() and len(asked) <= LONGEST else None
    found = store.get(asked) if number is None else store.of_version(number)
    if found is not None:
        return found
    kept = store.recent(MOST)
    alike = [one for one in kept if len(asked) >= SHORTEST and one.id.startswith(asked)]
    if len(alike) == 1:
        return alike[0]
    known = ", ".join(map(_name, alike or kept[:NEWEST])) or "none; `killick retrain --reason TEXT` asks for one"
    if alike:
        raise VersionError(f"{len(alike)} verdicts of model {model!r} begin with {asked!r}", f"choose one: {known}")
    if number is None:
        raise VersionError(f"model {model!r} has no verdict {asked!r}", f"choose among the newest verdicts: {known}")
    info = registry.info(number)
    if info is None:
        raise VersionError(f"model {model!r} has no version {asked}", f"choose among the newest verdicts: {known}")
    raise VersionError(
        f"version {asked} of model {model!r} has no verdict: {info.actor} registered it ({info.reason})",
        f"choose among the newest verdicts: {known}",
    )


def _name(verdict: Verdict) -> str:
    made = "" if verdict.version is None else f" (version {verdict.version})"
    return f"{verdict.id}{made}"
