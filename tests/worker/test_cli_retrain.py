"""`killick retrain`, `verdicts`, `approve` and `reject` on a real Redis."""

from __future__ import annotations

import io
import json
import threading
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from models.registry import Registry
from models.server import connect
from tests.models.versions import register
from tests.streams import architecture_of
from tests.worker.test_settling import verdict
from worker import cli
from worker.requests import Progress, RequestStore
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from models.server import Client

MODEL = "weather"
WHY = ("--reason", "a new winter", "--actor", "ann")
pytestmark = pytest.mark.services


@pytest.fixture(autouse=True)
def _environment(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder and an empty Redis."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KILLICK_REDIS__URL", redis_url)
    monkeypatch.setenv("KILLICK_MODEL__NAME", MODEL)


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    """A client of the empty Redis."""
    found = connect(redis_url)
    yield found
    found.close()


@pytest.fixture
def registry(client: Client) -> Registry:
    """Version 1 answers, 2 and 3 were made from it."""
    found = Registry(client, MODEL)
    for seed, parent in enumerate((None, 1, 1)):
        register(found, architecture_of(), seed, parent)
    return found


def killick(*words: str) -> tuple[int, str]:
    """The exit code, and what was printed to either stream."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = cli.run(list(words), said)
    return code, said.getvalue()


def test_a_request_waits_and_can_be_taken_back(client: Client) -> None:
    """Who asked and why goes with it; the list shows it until it is taken back."""
    code, said = killick("retrain", *WHY)
    (waits,) = RequestStore(client, MODEL).waiting()
    assert code == 0
    assert said.splitlines()[0] == f"asked: request {waits.request.id}"
    assert (waits.request.trigger, waits.request.why) == ("operator", "a new winter (ann)")
    code, said = killick("verdicts")
    assert said.splitlines()[:2] == [
        f"request {waits.request.id[:8]}  operator: a new winter (ann)", "    waits for a retrainer",
    ]  # fmt: skip
    short = waits.request.id[:8]
    assert killick("retrain", *WHY, "--cancel", short) == (0, f"request {waits.request.id} is taken back\n")
    code, said = killick("retrain", *WHY, "--cancel", waits.request.id)
    assert (code, said.partition(":")[0]) == (1, "killick")
    assert "no request" in said


def test_who_waits_sees_the_progress_and_the_verdict(client: Client, registry: Registry) -> None:
    """The exit code says whether there is one; a verdict on another request is not ours."""
    del registry
    found: list[tuple[int, str]] = []
    waits = threading.Thread(target=lambda: found.append(killick("retrain", *WHY, "--wait", "--timeout", "20s")))
    waits.start()
    store, verdicts = RequestStore(client, MODEL, "w1"), VerdictStore(client, MODEL)
    while not (asked := store.waiting()):
        pass
    (entry,) = store.claim([asked[0].entry], 1)
    name = asked[0].request.id
    store.keep([entry], Progress(worker="w1", requests=(name,), began_ms=1, done=3, total=9, note="control"), 9_000)
    threading.Event().wait(0.8)
    made = msgspec.structs.replace(verdict(), id=name, requests=(name,), version=2)
    verdicts.write(made, "w1", [entry], before=0.0, spends=0.0)
    store.answered([entry])
    waits.join(20)
    code, said = found[0]
    assert code == 0
    assert "3 of 9 trainings: control" in said
    assert said.splitlines()[-2:] == [
        "promote: better by far", "version 2 is the candidate; `killick report 2` shows why",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("retrain",), 2, "Missing option '--reason'"),
        (("retrain", "--reason", " "), 2, "killick: a retraining needs a reason: say why: --reason TEXT"),
        (("retrain", *WHY, "--wait", "--timeout", "1s"), 1, "does a `killick retrainer` run? the request waits on"),
        (("retrain", *WHY, "--wait", "--timeout", "soon"), 2, "soon"),
        (("retrain", *WHY, "--goal", "profit"), 2, "'profit' is not one of"),
        (("approve", "2", *WHY), 1, "version 2 is not the candidate (that is: 3)"),
        (("approve", "9", *WHY), 1, "model 'weather' has no version 9"),
        (("approve", "two", *WHY), 2, "'two' is not a valid integer"),
        (("reject", "2", *WHY), 1, "version 2 is not the candidate: the candidate is version 3"),
        (("reject", "3"), 2, "Missing option '--reason'"),
        (("verdicts", "-n", "0"), 2, "0 is not in the range"),
    ],
)
def test_what_can_not_be_is_refused(registry: Registry, words: tuple[str, ...], code: int, said: str) -> None:
    """With what was wrong, and what to do."""
    registry.nominate(3, expected=None, actor="ann", reason="try", now_ms=5)
    found, text = killick(*words)
    assert found == code
    assert said in text


def test_a_candidate_is_signed_off_and_sent_away(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stakeholder's sign-off, and its counterpart; where none is required the command says so."""
    registry.nominate(2, expected=None, actor="retrainer", reason="better", now_ms=5)
    assert killick("approve", "2", *WHY) == (
        0,
        'version 2 is approved\njudgement.approval is "automatic": its trial alone decides, and needs no sign-off\n',
    )
    assert registry.aliases().approved == 2
    assert killick("reject", "2", *WHY) == (0, "version 2 is no candidate any more\n")
    assert (registry.aliases().candidate, registry.aliases().approved) == (None, None)
    registry.nominate(3, expected=None, actor="retrainer", reason="better", now_ms=6)
    monkeypatch.setenv("KILLICK_JUDGEMENT__APPROVAL", "required")
    assert killick("approve", "3", *WHY) == (0, "version 3 is approved\n")


def test_the_list_is_the_same_as_json(client: Client, registry: Registry) -> None:
    """What waits, what is tried, what was decided; all of a verdict."""
    assert killick("verdicts")[1].startswith("no verdict yet")
    made = verdict()
    VerdictStore(client, MODEL).write(made, "w1", [], before=0.0, spends=0.01)
    registry.nominate(3, expected=None, actor="ann", reason="try", now_ms=6)
    lines = killick("verdicts")[1].splitlines()
    assert lines == [
        "version 3 is the candidate; its trial begins when a `killick monitor` sees it",
        "live trials have spent 0.01 of their budget of 0.2 (judgement.budget)",
        "1970-01-01T00:00:00Z  a           promote                   schedule: better by far",
    ]
    found: dict[str, Any] = json.loads(killick("verdicts", "--json")[1])
    assert (found["candidate"], found["alpha_spent"], found["requests"]) == (3, 0.01, [])
    assert found["verdicts"][0]["sentence"] == "better by far"
