"""The HTTP API answers what the commands print, changes what they change, and says why where it refuses."""

from __future__ import annotations

import io
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.registry import Registry
from models.server import connect
from tests.worker.api_served import BY, MODEL, make_model, path, served, settings_file, settings_of, verdict
from worker import api_edge, cli
from worker.api_problems import Problem
from worker.api_schemas import DOCUMENTS, Asked, Audit, Changed, Skill, Status, Updating, Versions
from worker.requests import RequestStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import NewRedis

pytestmark = pytest.mark.services


@pytest.fixture
def redis(new_redis: NewRedis) -> str:
    """A Redis of the test's own, whose writes are on the disk at once, with the model in it."""
    url = new_redis({"appendfsync": "always"}).url
    make_model(url)
    return url


@pytest.fixture
def file(redis: str, tmp_path: Path) -> Path:
    """The settings file."""
    return settings_file(tmp_path, redis)


@pytest.fixture
def http(file: Path) -> Iterator[httpx.Client]:
    """A client that bears the token."""
    with served(settings_of(file)) as client:
        yield client


@pytest.fixture
def registry(redis: str) -> Iterator[Registry]:
    """The registry that is served."""
    with closing(connect(redis)) as client:
        yield Registry(client, MODEL)


def killick(file: Path, *words: str) -> str:
    """What a command prints."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(io.StringIO()) as errors:
        assert cli.run(["--config", str(file), *words], errors) == 0, errors.getvalue()
    return printed.getvalue()


def refusal(answer: httpx.Response, status: int, kind: str) -> Problem:
    """The problem of an answer, which has this status and this kind."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    found = msgspec.json.decode(answer.content, type=Problem)
    assert (found.type, found.status) == (f"urn:killick:problem:{kind}", status)
    assert found.title
    assert found.subject
    assert found.detail
    assert found.cure
    return found


def test_what_is_read_is_what_the_commands_print(http: httpx.Client, file: Path) -> None:
    """Status, skill, verdicts, versions and audit are those of `--json`."""
    for name in ("status", "skill", "verdicts"):
        assert http.get(path(name)).json() == json.loads(killick(file, name, "--json"))
    for name, key in (("versions", "versions"), ("audit", "entries")):
        lines = [json.loads(line) for line in killick(file, name, "--json").splitlines()]
        assert len(lines) >= 3
        assert http.get(path(name)).json() == {"model": MODEL, key: lines}
    assert http.get(path("audit"), params={"count": 1}).json()["entries"] == lines[-1:]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("status", Status), ("skill", Skill), ("versions", Versions), ("audit", Audit), ("verdicts", Updating)],
)
def test_what_is_read_is_what_the_document_says(http: httpx.Client, name: str, kind: type) -> None:
    """No field is missing, has another type, or is not named there, and there is something."""
    found: Any = msgspec.json.decode(http.get(path(name)).content, type=kind)
    lists = [value for value in msgspec.structs.asdict(found).values() if isinstance(value, list)]
    assert any(lists)


def test_skill_is_narrowed(http: httpx.Client) -> None:
    """To a version and to a window; a version without pairs, or that is not there, is not found."""
    found = http.get(path("skill"), params={"version": 2, "window": "1d"}).json()
    assert [(one["version"], list(one["windows"])) for one in found["versions"]] == [(2, ["1d"])]
    assert "has no pairs yet" in refusal(http.get(path("skill"), params={"version": 3}), 404, "unknown").detail
    assert "has no version 9" in refusal(http.get(path("skill"), params={"version": 9}), 404, "unknown").detail
    refusal(http.get(path("skill"), params={"window": "2d"}), 422, "invalid")


@pytest.mark.parametrize(
    ("method", "name", "asked", "said"),
    [
        ("GET", "skill", "?windw=1d", "query.windw: is not known: did you mean window?"),
        ("GET", "skill", "?window=1d&Version=2", "query.Version: is not known: did you mean version?"),
        ("GET", "skill", "?limit=3&x=", "query.limit: is not known: known are version, window; query.x: is not known"),
        ("GET", "status", "?count=3", "query.count: is not known: this path takes no parameters"),
        ("GET", "verdicts/first", "?count=3", "query.count: is not known: this path takes no parameters"),
        ("GET", "audit", "?Count=3&Count=4", "query.Count: is not known: did you mean count?"),
        ("GET", "audit", "?m=weather", "query.m: is not known: known are count"),
        ("POST", "pause", "?dry-run=1", "query.dry-run: is not known: this path takes no parameters"),
    ],
)
def test_a_parameter_that_is_not_known_is_refused(
    http: httpx.Client, method: str, name: str, asked: str, said: str
) -> None:
    """Where it would have been overlooked: the nearest name is told, and nothing is done."""
    before = http.get(path("audit")).json()
    found = refusal(http.request(method, path(name) + asked, json=BY if method == "POST" else None), 422, "invalid")
    assert found.detail.startswith(said)
    assert [f"{fault.where}: {fault.message}" for fault in found.faults] == found.detail.split("; ")
    assert http.get(path("audit")).json() == before


def test_many_unknown_parameters_are_answered_shortly(http: httpx.Client) -> None:
    """A request may have thousands; without the token none is looked at."""
    asked = "?" + "&".join(f"x{number}" for number in range(5_000))
    assert len(refusal(http.get(path("skill") + asked), 422, "invalid").faults) == 10
    assert http.get(path("skill") + asked, headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_verdicts_are_read(http: httpx.Client) -> None:
    """The newest, and one by its id, whole; one that is not there is not found."""
    wanted = json.loads(msgspec.json.encode(verdict("first", 2)))
    found = http.get(path("verdicts")).json()
    assert (found["verdicts"], found["alpha_spent"], found["alpha_budget"]) == ([wanted], 0.01, 0.2)
    assert [request["why"] for request in found["requests"]] == ["it lost"]
    assert http.get(path("verdicts/first")).json() == wanted
    assert refusal(http.get(path("verdicts/second")), 404, "unknown").subject == "verdict second"


CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("promote", {"version": 3, "expected": 1}, {"incumbent": 3, "previous": 1, "candidate": 2}, "promote"),
    ("rollback", {"to": 3, "expected": 1}, {"incumbent": 3, "previous": None, "paused": True}, "rollback"),
    ("approve", {"version": 2}, {"candidate": 2, "approved": 2}, "approve"),
    ("reject", {"version": 2}, {"candidate": None, "incumbent": 1}, "nominate"),
    ("pause", {}, {"paused": True}, "pause"),
]


@pytest.mark.parametrize(("name", "body", "changed", "event"), CHANGES, ids=[one[0] for one in CHANGES])
def test_a_change_is_made_and_written_down(
    http: httpx.Client, registry: Registry, name: str, body: dict[str, Any], changed: dict[str, Any], event: str
) -> None:
    """Who is who now, on the disk; who asked for it and why stands in the audit."""
    answer = http.post(path(name), json={**BY, **body})
    assert answer.status_code == 200, answer.text
    found = msgspec.json.decode(answer.content, type=Changed)
    assert {key: getattr(found, key) for key in changed} == changed
    assert (found.model, found.on_disk) == (MODEL, True)
    aliases = registry.aliases()
    assert (aliases.incumbent, aliases.candidate, aliases.paused) == (found.incumbent, found.candidate, found.paused)
    (entry,) = registry.audit(1)
    assert (entry.event, entry.actor, entry.reason) == (event, "ann", "better in winter")


def test_a_promotion_is_rolled_back_and_promotion_resumed(http: httpx.Client) -> None:
    """Without `to` the previous version answers again; the pause that follows is ended."""
    http.post(path("promote"), json={**BY, "version": 2, "expected": 1}).raise_for_status()
    found = http.post(path("rollback"), json={**BY, "expected": 2}).raise_for_status().json()
    assert (found["incumbent"], found["previous"], found["paused"]) == (1, None, True)
    assert http.post(path("resume"), json=BY).raise_for_status().json()["paused"] is False


def test_a_retraining_is_asked_for(http: httpx.Client, redis: str) -> None:
    """The request waits with its reason, who asked and what it is to do."""
    answer = http.post(path("retrain"), json={**BY, "goal": "improve"})
    assert answer.status_code == 202
    asked = msgspec.json.decode(answer.content, type=Asked).request
    assert (asked.trigger, asked.goal, asked.why) == ("http", "improve", "better in winter (ann)")
    with closing(connect(redis)) as client:
        assert asked in [one.request for one in RequestStore(client, MODEL).waiting()]


REFUSALS: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("promote", {"version": 9, "expected": 1}, 404, "unknown", "has no version 9"),
    ("promote", {"version": 3, "expected": 2}, 409, "conflict", "version 1 answers, not 2 as expected"),
    ("promote", {"version": 1, "expected": 1}, 409, "conflict", "version 1 already answers"),
    ("rollback", {"expected": 1}, 409, "conflict", "there is no previous version"),
    ("rollback", {"expected": 1, "to": 9}, 404, "unknown", "has no version 9"),
    ("approve", {"version": 3}, 409, "conflict", "version 3 is not the candidate (that is: 2)"),
    ("reject", {"version": 3}, 409, "conflict", "the candidate is 2, not 3 as expected"),
    ("resume", {}, 409, "conflict", "is not paused"),
    ("promote", {"version": 3}, 422, "invalid", "body.expected: Field required"),
    ("rollback", {}, 422, "invalid", "body.expected: Field required"),
    ("promote", {"version": "3", "expected": 1}, 422, "invalid", "body.version: "),
    ("promote", {"version": 0, "expected": 1}, 422, "invalid", "body.version: "),
    ("promote", {"version": 3**31, "expected": 1}, 422, "invalid", "body.version: "),
    ("promote", {"version": True, "expected": 1}, 422, "invalid", "body.version: "),
    ("pause", {"who": "ann"}, 422, "invalid", "body.who: "),
    ("pause", {"actor": " "}, 422, "invalid", "body.actor: "),
    ("pause", {"reason": "\n\t"}, 422, "invalid", "body.reason: "),
    ("pause", {"reason": "x" * 2_001}, 422, "invalid", "body.reason: "),
    ("pause", {"actor": None}, 422, "invalid", "body.actor: "),
    ("retrain", {"goal": "win"}, 422, "invalid", "body.goal: "),
]


@pytest.mark.parametrize(("name", "body", "status", "kind", "words"), REFUSALS)
def test_what_can_not_be_done_is_refused(
    http: httpx.Client, registry: Registry, name: str, body: dict[str, Any], status: int, kind: str, words: str
) -> None:
    """With what is wrong; and nothing has changed."""
    before = registry.aliases()
    assert words in refusal(http.post(path(name), json={**BY, **body}), status, kind).detail
    assert registry.aliases() == before


@pytest.mark.parametrize("name", ["promote", "rollback", "approve", "reject", "retrain", "pause", "resume"])
@pytest.mark.parametrize("missing", ["actor", "reason"])
def test_nothing_is_changed_by_nobody_or_for_no_reason(http: httpx.Client, name: str, missing: str) -> None:
    """Actor and reason are required wherever something is changed."""
    body = {"version": 2, "expected": 1, **BY}
    del body[missing]
    found = refusal(http.post(path(name), json=body), 422, "invalid")
    assert f"body.{missing}" in {fault.where for fault in found.faults}


def test_a_version_that_must_not_be_used_stays_so(http: httpx.Client, registry: Registry) -> None:
    """Who rolled it back, and why, is told to whoever wants it again."""
    http.post(path("rollback"), json={**BY, "to": 3, "expected": 1}).raise_for_status()
    found = refusal(http.post(path("promote"), json={**BY, "version": 1, "expected": 3}), 409, "conflict")
    assert found.subject == "version 1"
    assert "version 1 is withdrawn (rolled back by ann at " in found.detail
    assert registry.aliases().incumbent == 3


def test_of_two_operators_one_is_told_that_the_other_was_faster(http: httpx.Client, registry: Registry) -> None:
    """Both believe that version 2 answers, and roll it back at the same time: it is rolled back once."""
    http.post(path("promote"), json={**BY, "version": 2, "expected": 1}).raise_for_status()
    bodies = [{"actor": actor, "reason": "worse", "expected": 2} for actor in ("ann", "bob")]
    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda body: http.post(path("rollback"), json=body), bodies))
    done, late = sorted(answers, key=lambda answer: answer.status_code)
    assert done.status_code == 200
    winner = registry.audit(1)[0].actor
    assert f"version 1 answers, not 2 as expected (rolled back by {winner} at " in refusal(late, 409, "conflict").detail
    assert [entry.event for entry in registry.audit()].count("rollback") == 1


def test_while_promotion_is_paused_people_promote(http: httpx.Client) -> None:
    """Pausing twice is a conflict that names who paused; a promotion by hand is possible."""
    http.post(path("pause"), json=BY).raise_for_status()
    assert "paused by ann at " in refusal(http.post(path("pause"), json=BY), 409, "conflict").detail
    assert "paused by ann at " in http.get(path("status")).json()["paused_why"]
    found = http.post(path("promote"), json={**BY, "version": 3, "expected": 1}).raise_for_status().json()
    assert (found["incumbent"], found["paused"]) == (3, True)


def test_another_model_and_another_path_are_not_found(http: httpx.Client) -> None:
    """One process serves one model; what takes another method says which."""
    assert refusal(http.get("/v1/models/other/status"), 404, "unknown").subject == "model other"
    assert refusal(http.post("/v1/models/other/pause", json=BY), 404, "unknown").subject == "model other"
    refusal(http.get("/v2"), 404, "unknown")
    wrong = http.put(path("status"), json={})
    assert "takes GET" in refusal(wrong, 405, "method").cure
    assert wrong.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "invalid", 422),
        (b"[" * 16_000, "malformed", 400),
        (b'"text"', "invalid", 422),
        (b"", "invalid", 422),
        (b"\xff", "malformed", 400),
        (b'{"actor": "\\ud800", "reason": "x"}', "invalid", 422),
        (b'{"actor": "a", "reason": "b"}' + b" " * 16_384, "too-large", 413),
    ],
)
def test_a_body_that_is_none_is_refused(
    http: httpx.Client, registry: Registry, content: bytes, kind: str, status: int
) -> None:
    """Broken, nested without end, not Unicode, or too large: a problem each time."""
    refusal(http.post(path("pause"), content=content, headers={"Content-Type": "application/json"}), status, kind)
    refusal(http.post(path("pause"), content=b'{"actor":"a","reason":"b"}'), 422, "invalid")  # of no type
    assert not registry.aliases().paused


def test_a_body_that_is_too_large_in_pieces_is_refused(http: httpx.Client) -> None:
    """However long it says that it is."""
    pieces = (b" " * 4_096 for _ in range(8))
    refusal(http.post(path("pause"), content=pieces), 413, "too-large")


def test_a_body_that_does_not_come_is_not_waited_for(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is silent in the middle of its body gets an answer, and holds nothing."""
    monkeypatch.setattr(api_edge, "BODY_S", 0.2)

    def pieces() -> Iterator[bytes]:
        yield b"{"
        assert httpx.get(http.base_url.join("/healthz")).status_code == 200
        time.sleep(0.5)
        yield b"}"

    refusal(http.post(path("pause"), content=pieces()), 408, "late")


def test_every_answer_is_kept_by_nobody(http: httpx.Client) -> None:
    """No cache keeps it, no browser guesses what it is."""
    for answer in (http.get(path("status")), http.get("/nowhere"), http.get("/healthz")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers


def test_requests_are_counted_by_route_and_status(http: httpx.Client) -> None:
    """By the route's pattern, not by what a client made up; and whether Redis answered."""
    http.get(path("status"))
    http.get("/v1/models/other/status")
    for name in range(3):
        http.get(f"/nowhere/{name}")
    text = http.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=")
    found = {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "model")): sample.value
        for family in text_string_to_metric_families(text.text)
        for sample in family.samples
        if sample.labels["model"] == MODEL
    }
    requests = {words[1:]: value for words, value in found.items() if words[0] == "killick_api_requests_total"}
    assert requests == {("/v1/models/{m}/status", "200"): 1, ("/v1/models/{m}/status", "404"): 1, ("", "404"): 3}
    assert found["killick_redis_up",] == 1
    assert found["killick_api_seconds_count",] == 5


def test_the_document_says_what_there_is(file: Path) -> None:
    """Every route with its answers, each described; examples are what they are examples of; the token is asked for."""
    document = json.loads(killick(file, "api", "--openapi"))
    routes = {(method, name) for name, one in document["paths"].items() for method in one}
    named = {name.rpartition("/")[2] for _, name in routes}
    assert named == {
        "versions", "skill", "audit", "status", "verdicts", "{name}", "rollback", "promote", "approve", "reject",
        "retrain", "pause", "resume", "healthz", "readyz", "metrics",
    }  # fmt: skip
    assert document["security"] == [{"bearer": []}]
    kinds = {kind.__name__: kind for kind in DOCUMENTS}
    examples = 0
    for name, one in document["paths"].items():
        for operation in one.values():
            assert operation["summary"]
            assert operation["description"]
            assert operation["tags"]
            assert (operation.get("security") == []) == (not name.startswith("/v1"))
            for answer in operation["responses"].values():
                assert answer["description"]
                for content in answer["content"].values():
                    if "example" in content:
                        kind = kinds[content["schema"]["$ref"].rpartition("/")[2]]
                        msgspec.convert(content["example"], kind)
                        examples += 1
    assert examples > 50
    for schema in document["components"]["schemas"].values():
        assert schema["description"]
    assert set(_references(document)) == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_the_page_about_it_names_every_route_and_every_refusal(file: Path) -> None:
    """docs/api.md has a word on each, and on each kind of problem."""
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    document = json.loads(killick(file, "api", "--openapi"))
    for name in document["paths"]:
        last = name.rpartition("/")[2]
        assert re.search(rf"(…|`|, `)/?{last if last != '{name}' else 'verdicts/ID'}`", page), name
    problems = {
        content["example"]["type"].rpartition(":")[2]: status
        for one in document["paths"].values()
        for operation in one.values()
        for status, answer in operation["responses"].items()
        for media, content in answer["content"].items()
        if media == "application/problem+json"
    }
    for kind, status in problems.items():
        assert re.search(rf"^\| {status} \| `{kind}` \|", page, flags=re.MULTILINE), kind


def _references(thing: Any) -> Iterator[str]:
    if isinstance(thing, dict):
        if isinstance(thing.get("$ref"), str):
            yield thing["$ref"]
        for one in thing.values():
            yield from _references(one)
    elif isinstance(thing, list):
        for one in thing:
            yield from _references(one)
