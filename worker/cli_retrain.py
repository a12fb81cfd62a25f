"""Commands on updating: `killick retrainer`, `retrain`, `approve`, `reject`, `verdicts`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from models.errors import ConfigError, DataError, ServiceUnreachable, StaleCommand
from worker.actor import this_actor
from worker.changes import by
from worker.cli_versions import of_change, opened
from worker.durations import parse_duration
from worker.updating_view import short

if TYPE_CHECKING:
    from models.verdict import Verdict
    from worker.requests import RequestStore
    from worker.session import Session
    from worker.verdicts import VerdictStore

GOALS = ("restore", "improve", "investigate")
LOOK_S = 0.5


@click.command()
@click.pass_obj
def retrainer(session: Session) -> None:
    """Work requests off: train candidates, compare them with the incumbent, nominate the one that is better.

    Start as many as you like: one is at work, the others take over when it falls silent. Stops on SIGTERM or Ctrl-C,
    and another one takes up what it was at.
    """
    from worker.retrainer_service import serve

    serve(session.settings())


@click.command()
@click.option("--goal", type=click.Choice(GOALS), default="restore", show_default=True, help="What the update is for.")
@click.option("--wait", is_flag=True, help="Wait for the verdict, and show it.")
@click.option("--timeout", metavar="TIME", default="2h", show_default=True, help="Longest wait.")
@click.option("--cancel", metavar="ID", help="Take this request back; a retraining that answers it alone is given up.")
@of_change
@click.pass_obj
def retrain(
    session: Session, reason: str, actor: str | None, *, goal: str, wait: bool, timeout: str, cancel: str | None
) -> int:
    """Ask for a retraining: with --wait, stay until its verdict.

    What a person asks for waits neither for a cool-down nor for data; a killick retrainer has to run.
    """
    from worker import wiring_updating
    from worker.requests import asked_by

    if not reason.strip():
        raise ConfigError("a retraining needs a reason", "say why: --reason TEXT; it goes into the verdict")
    timeout_s = parse_duration(timeout).seconds
    with opened(session) as (settings, client, _):
        requests = wiring_updating.requests(settings, client)
        if cancel is not None:
            name = _whole(requests, cancel)
            requests.cancel(name)
            click.echo(f"request {name} is taken back")
            return 0
        request = asked_by("operator", goal, reason, actor or this_actor())
        requests.ask(request)
        click.echo(f"asked: request {request.id}")
        tried = wiring_updating.tried(settings, client)
        if tried is not None:
            click.echo(f"version {tried} is on trial: a candidate that comes of this would take its place there")
        if not wait:
            click.echo("`killick verdicts` shows how far it is, and what came of it")
            return 0
        verdict = _await(requests, wiring_updating.verdicts(settings, client), request.id, timeout_s)
    click.echo(f"{verdict.outcome}: {verdict.sentence}")
    if verdict.version is not None:
        click.echo(f"version {verdict.version} is the candidate; `killick report {verdict.version}` shows why")
    return 1 if verdict.outcome == "failed" else 0


def _whole(requests: RequestStore, name: str) -> str:
    """The id of the one request that is called so in short, or begins so; else the name itself."""
    ids = [one.request.id for one in requests.waiting()]
    alike = [one for one in ids if name in {one, short(one)}] or [one for one in ids if one.startswith(name)]
    return alike[0] if len(alike) == 1 else name


def _await(requests: RequestStore, verdicts: VerdictStore, request: str, timeout_s: float) -> Verdict:
    """The verdict on a request, with its progress on standard error.

    Raises:
        StaleCommand: the request was taken back.
        DataError: there is none in time.
    """
    deadline, said = time.monotonic() + timeout_s, ""
    while time.monotonic() < deadline:
        try:
            found, note = _look(requests, verdicts, request)
        except ServiceUnreachable as error:
            found, note = None, f"waits: {error}"
        if found is not None:
            return found
        if note != said:
            click.echo(note, err=True)
            said = note
        time.sleep(LOOK_S)
    raise DataError(
        f"no verdict on request {request} after {timeout_s:g} s", "does a `killick retrainer` run? the request waits on"
    )


def _look(requests: RequestStore, verdicts: VerdictStore, request: str) -> tuple[Verdict | None, str]:
    """The verdict on a request; or how far it is.

    Raises:
        StaleCommand: it was taken back.
        ServiceUnreachable: Redis did not answer.
    """
    if all(one.request.id != request for one in requests.waiting()):
        found = next((one for one in verdicts.recent(20) if request in one.requests), None)
        if found is None:
            raise StaleCommand(f"request {request} was taken back", "see `killick verdicts`")
        return found, ""
    now = requests.progress()
    if now is None or request not in now.requests:
        return None, "waits for a retrainer"
    return None, f"{now.done} of {now.total} trainings: {now.note}"


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@of_change
@click.pass_obj
def approve(session: Session, version: int, reason: str, actor: str | None) -> None:
    """Sign the candidate VERSION off: with judgement.approval = "required" it is promoted only then.

    It is promoted when it has won its live trial, at once if it has won already.
    """
    with opened(session) as (settings, _, registry):
        registry.approve(version, **by(actor or this_actor(), reason))
        needed = settings.judgement.approval == "required"
    click.echo(f"version {version} is approved")
    if not needed:
        click.echo('judgement.approval is "automatic": its trial alone decides, and needs no sign-off')


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@of_change
@click.pass_obj
def reject(session: Session, version: int, reason: str, actor: str | None) -> None:
    """End the live trial of the candidate VERSION: it is a candidate no more."""
    with opened(session) as (_, _, registry):
        candidate = registry.aliases().candidate
        if candidate != version:
            now = f"the candidate is version {candidate}" if candidate else "there is no candidate"
            raise StaleCommand(f"version {version} is not the candidate: {now}", "see `killick versions`")
        registry.nominate(None, expected=version, **by(actor or this_actor(), reason))
    click.echo(f"version {version} is no candidate any more")


@click.command()
@click.option(
    "-n", "count", metavar="N", type=click.IntRange(min=1), default=10, show_default=True, help="The newest N."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: what waits, what is tried, the verdicts.")
@click.pass_obj
def verdicts(session: Session, count: int, as_json: bool) -> None:
    """Show what is asked for, what is trained and tried at present, and the verdicts; newest first."""
    from worker import wiring_updating
    from worker.updating_view import lines, updating_json

    with opened(session) as (settings, client, _):
        view = wiring_updating.updating(settings, client, count)
    if as_json:
        click.echo(json.dumps(updating_json(view)))
        return
    for line in lines(view):
        click.echo(line)
