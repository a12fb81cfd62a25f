"""Who may ask the HTTP API: who bears the token, and has not guessed too often; and how the process starts and ends."""

from __future__ import annotations

import hmac
import io
import json
import logging
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

from models.errors import ConfigError
from tests.integration.harness import wait
from tests.services.proxy import Proxy
from tests.worker.api_served import BEARS, BY, TOKEN, make_model, path, served, settings_file, settings_of
from worker import api_auth, cli
from worker.api_auth import Failures, address_of, borne
from worker.api_problems import Problem
from worker.api_token import check_token
from worker.child import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import NewRedis

pytestmark = pytest.mark.services
ROOT = Path(__file__).parents[2]
OPEN = ("/healthz", "/readyz", "/metrics")


@pytest.fixture
def http(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of an API that refuses after 100 failures; it bears no token."""
    make_model(redis_url)
    with served(settings_of(settings_file(tmp_path, redis_url, failures=100))) as client:
        del client.headers["Authorization"]
        yield client


WRONG = {
    "none": [],
    "empty": [("Authorization", "")],
    "another": [("Authorization", "Bearer " + TOKEN[::-1])],
    "a part of it": [("Authorization", "Bearer " + TOKEN[:-1])],
    "more than it": [("Authorization", f"Bearer {TOKEN}x")],
    "of another kind": [("Authorization", f"Basic {TOKEN}")],
    "alone": [("Authorization", TOKEN)],
    "other letters": [("Authorization", f"Bearer {TOKEN.upper()}")],
    "twice": [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")],
    "elsewhere": [("X-Token", TOKEN)],
    "as a cookie": [("Cookie", f"token={TOKEN}")],
    "very long": [("Authorization", "Bearer " + "x" * 10_000)],
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_who_does_not_bear_the_token_is_refused(http: httpx.Client, headers: list[tuple[str, str]]) -> None:
    """Reading, writing, the document and what is not there: 401, and what to send."""
    for method, name in (
        ("GET", path("status")),
        ("POST", path("rollback")),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("GET", "/healthz/"),
        ("GET", "//healthz"),
        ("GET", f"{path('status')}?token={TOKEN}"),
    ):
        answer = http.request(method, name, headers=headers, json={**BY, "expected": 1} if method == "POST" else None)
        assert answer.status_code == 401, (method, name)
        assert answer.headers["www-authenticate"] == 'Bearer realm="killick"'
        found = msgspec.json.decode(answer.content, type=Problem)
        assert (found.type, found.subject) == ("urn:killick:problem:unauthorized", "token")
        assert TOKEN not in answer.text


def test_who_bears_the_token_is_answered(http: httpx.Client) -> None:
    """However the word Bearer is written; the document is one of the answers."""
    for word in ("Bearer", "bearer", "BEARER "):
        assert http.get(path("status"), headers={"Authorization": f"{word} {TOKEN}"}).status_code == 200
    assert http.get("/openapi.json", headers=BEARS).json()["openapi"].startswith("3.1")


def test_three_pages_are_open(http: httpx.Client) -> None:
    """Whether it lives, whether it is ready, and its metrics; nothing else says more than that."""
    for name in OPEN:
        assert http.get(name).status_code == 200
    assert http.get("/readyz").json() == {"waiting_for": ""}
    assert http.post("/healthz").status_code == 405
    assert http.get("/docs").status_code == 401


def test_the_comparison_takes_the_same_time(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token, right or wrong, short or long, is compared in constant time with bytes of the same length."""
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def noting(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    for token in (f"Bearer {TOKEN}", "Bearer x", "Bearer " + "x" * 5_000, "Bearer"):
        http.get(path("status"), headers={"Authorization": token})
    assert len(compared) == 4
    assert {(len(one), len(other)) for one, other in compared} == {(32, 32)}
    assert [one == other for one, other in compared] == [True, False, False, False]


def test_who_guesses_has_to_wait_and_nobody_else(redis_url: str, tmp_path: Path) -> None:
    """After three failures an address is refused whatever it bears, and told for how long; others are answered."""
    make_model(redis_url)
    with served(settings_of(settings_file(tmp_path, redis_url, failures=3))) as http:
        other = httpx.Client(
            base_url=http.base_url, headers=BEARS, transport=httpx.HTTPTransport(local_address="127.0.0.2")
        )
        with other:
            for _ in range(3):
                assert http.get(path("status"), headers={"Authorization": "Bearer guess"}).status_code == 401
            for headers in (BEARS, {"Authorization": "Bearer guess"}):
                late = http.get(path("status"), headers=headers)
                assert late.status_code == 429
                assert 50 <= int(late.headers["retry-after"]) <= 60
                assert msgspec.json.decode(late.content, type=Problem).type == "urn:killick:problem:failures"
            assert http.get("/healthz").status_code == 200
            assert other.get(path("status")).status_code == 200


def test_proxies_say_who_asks(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a proxy says that is named in the settings counts; what anybody else says does not."""
    make_model(redis_url)
    file = settings_file(tmp_path, redis_url, failures=1)
    guess = {"Authorization": "Bearer guess"}
    for proxies, status in (("", 429), ("127.0.0.0/8", 200)):
        monkeypatch.setenv("KILLICK_API__PROXIES", proxies)
        with served(settings_of(file)) as http:
            http.get(path("status"), headers={**guess, "X-Forwarded-For": "203.0.113.7"})
            assert http.get(path("status"), headers={"X-Forwarded-For": "203.0.113.8"}).status_code == status
            assert http.get(path("status"), headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 429


def test_failures_are_forgotten_after_a_minute() -> None:
    """The window moves: as many failures as are allowed in any minute, not in every one of the clock."""
    failures = Failures(3)
    for now_s in (0.0, 30.0, 50.0):
        assert failures.wait_s("a", now_s) == 0
        failures.note("a", now_s)
    assert failures.wait_s("a", 50.0) == 10.0
    assert failures.wait_s("b", 50.0) == 0
    assert failures.wait_s("a", 60.0) == 0
    failures.note("a", 60.0)
    assert failures.wait_s("a", 60.0) == 30.0


def test_the_memory_of_failures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that failed longest ago is forgotten first."""
    monkeypatch.setattr(api_auth, "MOST_ADDRESSES", 2)
    failures = Failures(1)
    for at, address in enumerate(("a", "b", "a", "c")):
        failures.note(address, float(at))
    assert [failures.wait_s(address, 3.0) > 0 for address in "abc"] == [True, False, True]


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 1), "2001:db8:1:2::/64"),
        (("::1", 1), "::/64"),
        (None, ""),
        (("a socket", 0), "a socket"),
    ],
)
def test_failures_are_counted_by_address(client: tuple[str, int] | None, address: str) -> None:
    """By the network where one client has many addresses."""
    assert address_of({"client": client}) == address


def test_a_token_is_what_follows_bearer() -> None:
    """Bytes of any kind, as a header may hold them."""
    assert borne({"headers": [(b"authorization", b"Bearer  \xff\x00 ")]}) == b"\xff\x00"
    assert borne({"headers": [(b"authorization", b"Bearer")]}) == b""


BAD = {
    "": "no token",
    "x" * 15: "has 15 characters",
    "x" * 1_025: "has 1025 characters",
    "a token with blanks": "blanks",
    "ein-gehörig-langes-Wort": "not ASCII",
}


@pytest.mark.parametrize(("token", "words"), BAD.items())
def test_a_token_that_can_not_be_used_is_refused(token: str, words: str) -> None:
    """None, too short, too long, or one that no header can hold; one that can be used is handed back."""
    with pytest.raises(ConfigError, match=words) as caught:
        check_token(token)
    assert "openssl rand" in caught.value.cure
    assert token not in caught.value.message or not token
    assert check_token("x" * 16) == "x" * 16


@pytest.mark.parametrize("token", ["", "too-short"])
def test_it_does_not_start_without_a_token(token: str, tmp_path: Path, redis_url: str) -> None:
    """Exit code 2, and a line that says where a token comes from."""
    file = settings_file(tmp_path, redis_url)
    (tmp_path / "token").write_text(token)
    said = io.StringIO()
    assert cli.run(["--config", str(file), "api"], said) == 2
    assert "KILLICK_API__TOKEN" in said.getvalue()


def test_a_port_that_is_taken_is_told(tmp_path: Path, redis_url: str) -> None:
    """Exit code 2 and the setting's name."""
    file = settings_file(tmp_path, redis_url)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file.write_text(file.read_text().replace("port = 0", f"port = {taken.getsockname()[1]}"))
        said = io.StringIO()
        assert cli.run(["--config", str(file), "api"], said) == 2
    assert "choose another api.port" in said.getvalue()


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)])  # noqa: S104
def test_others_than_this_machine_are_warned_of(
    tmp_path: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    host: str,
    warned: bool,  # noqa: FBT001
) -> None:
    """Where others can listen, a line in the log says that there is no TLS."""
    monkeypatch.setenv("KILLICK_HTTP__HOST", host)
    with caplog.at_level(logging.WARNING), served(settings_of(settings_file(tmp_path, redis_url))):
        assert ("without TLS" in caplog.text) == warned


def test_redis_may_be_away(new_redis: NewRedis, tmp_path: Path) -> None:
    """503, and when to ask again; a write says that it may have been done; it is there again as Redis is."""
    server = new_redis()
    make_model(server.url)
    with served(settings_of(settings_file(tmp_path, server.url))) as http:
        assert http.get(path("status")).status_code == 200
        server.kill()
        for answer in (
            http.get(path("status")),
            http.post(path("pause"), json=BY),
            http.post(path("retrain"), json=BY),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            found = msgspec.json.decode(answer.content, type=Problem)
            assert found.type == "urn:killick:problem:unreachable"
            assert found.detail.startswith("Redis did not answer")
            assert ("…/audit says whether it was done" in found.cure) == (answer.request.method == "POST")
        assert http.get("/healthz").status_code == 200
        unready = http.get("/readyz")
        assert unready.status_code == 503
        assert unready.json()["waiting_for"].startswith("Redis did not answer")
        assert 'killick_redis_up{model="weather"} 0.0' in http.get("/metrics").text
        server.start()
        assert http.get("/readyz").status_code == 200
        assert http.post(path("pause"), json=BY).status_code == 200


def test_who_waits_for_redis_keeps_nobody_waiting(redis_url: str, tmp_path: Path) -> None:
    """While Redis is silent and five clients wait for it, others are answered at once."""
    make_model(redis_url)
    proxy = Proxy()
    try:
        proxy.target = int(redis_url.rpartition(":")[2].partition("/")[0])
        with served(settings_of(settings_file(tmp_path, f"redis://{proxy.address}/0"))) as http:
            assert http.get(path("versions")).status_code == 200
            proxy.silence()
            with ThreadPoolExecutor(5) as waiting:
                began = time.monotonic()
                answers = [waiting.submit(http.get, path("versions")) for _ in range(5)]
                time.sleep(0.3)
                assert http.get("/healthz").status_code == 200
                assert http.get(path("versions"), headers={"Authorization": "Bearer x"}).status_code == 401
                assert time.monotonic() - began < 1.5  # redis.timeout is 2 s
                assert not any(answer.done() for answer in answers)
                assert {answer.result().status_code for answer in answers} == {503}
            proxy.open()
    finally:
        proxy.close()


def test_a_request_is_answered_before_the_process_ends(redis_url: str, tmp_path: Path) -> None:
    """SIGTERM in the middle of a request: it is answered, new ones are not taken, and the exit code is 0."""
    make_model(redis_url)
    port = free_port()
    file = settings_file(tmp_path, redis_url)
    file.write_text(file.read_text().replace("port = 0", f"port = {port}"))
    words = [sys.executable, "-m", "worker.cli", "--config", str(file), "api"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait(lambda: _answers(url), 30.0, lambda: "the API to answer")
            body = json.dumps(BY).encode()
            head = f"POST {path('pause')} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            with socket.create_connection(("127.0.0.1", port)) as line:
                line.sendall(head.encode() + body[:5])
                time.sleep(0.3)
                process.terminate()
                wait(lambda: not _answers(url), 10.0, lambda: "new requests to be refused")
                assert process.poll() is None
                line.sendall(body[5:])
                line.settimeout(10.0)
                assert line.recv(65_536).startswith(b"HTTP/1.1 200 OK")
            _, said = process.communicate(timeout=20.0)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "stopped" in said.splitlines()[-1]


def test_it_starts_without_tensorflow() -> None:
    """Neither the application nor its document need the network's library, or what plots."""
    program = "import sys, worker.api; print({'tensorflow', 'keras', 'pandas', 'plotly'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False
