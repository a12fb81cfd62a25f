"""What the doctor says of servers, topics and sums."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from click.testing import CliRunner
from redis import Redis

from models.errors import DataError, ServiceUnreachable
from models.server import connect, promise, server_facts
from tests.conftest import require
from tests.services.redis import REDIS_MISSING, VALKEY_MISSING, RedisServer, redis_binary, valkey_binary
from worker import cli, doctor, executors
from worker.cli_doctor import guarded, of_retraining, of_token
from worker.doctor import Finding, of_monitor
from worker.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models.server import Promise
    from tests.conftest import NewRedis
    from tests.services.kafka import KafkaBroker
    from worker.settings import Settings

GOOD = {
    "redis_version": "7.2.4",
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "appendfsync": "everysec",
}
LOAD = doctor.Load(
    features=2,
    horizon=5,
    series=1_000,
    interval_ms=60_000,
    retention_ms=3_600_000,
    series_state_bytes=500,
    carried_bytes=300,
)


@pytest.mark.parametrize(
    ("change", "promised", "subject", "status"),
    [
        ({}, "on request", "redis durability", "ok"),
        ({"redis_version": "6.2.0"}, "none", "redis version", "fail"),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.0"}, "on request", "redis version", "ok"),
        ({}, "none", "redis durability", "warn"),
        ({"appendfsync": "always"}, "always", "redis durability", "ok"),
        ({b"appendonly": b"no", "appendonly": "no"}, "none", "redis durability", "warn"),
        ({"appendfsync": "no"}, "none", "redis durability", "warn"),
        ({"maxmemory-policy": "allkeys-lru"}, "none", "redis eviction", "fail"),
        ({"aof-load-truncated": "yes"}, "always", "redis repair", "warn"),
        ({"aof-load-truncated": "no"}, "always", "redis repair", "ok"),
        ({"aof-load-truncated": "yes", "valkey_version": "9.1.2"}, "always", "redis repair", "ok"),
        ({"aof-load-truncated": "yes", "valkey_version": "8.0.0"}, "always", "redis repair", "warn"),
    ],
)
def test_judges_what_the_server_says(change: dict[str, str], promised: Promise, subject: str, status: str) -> None:
    """Version, eviction and durability are judged from the server's facts, with their cure."""
    findings = {finding.subject: finding for finding in doctor.of_redis(GOOD | change, promised, 0, 0)}
    assert findings[subject].status == status
    assert bool(findings[subject].cure) == (status != "ok")


def test_warns_of_clocks_that_differ() -> None:
    """Two seconds between the clocks are let through, more are not."""
    for now_ms, server_ms, status in ((0, 2_000, "ok"), (2_001, 0, "warn")):
        findings = doctor.of_redis(GOOD, "none", now_ms, server_ms)
        assert [finding.status for finding in findings if finding.subject == "clocks"] == [status]


@pytest.mark.parametrize(
    ("kind", "fsync", "status", "said"),
    [
        ("redis", "always", "ok", "are on disk when they are acknowledged"),
        ("valkey", "always", "ok", "are on disk when they are acknowledged"),
        ("redis", "everysec", "warn", "no WAITAOF that waits"),
        ("valkey", "everysec", "warn", "may forget a swap .*that of Valkey 9.1 does not"),
        ("valkey", "no", "warn", "may forget a swap .*: set appendfsync always; or run"),
    ],
)
def test_says_what_a_real_server_promises(
    kind: str, fsync: Literal["always", "everysec", "no"], status: str, said: str
) -> None:
    """Each server with each setting says what a power cut costs: nothing, commits that are read again, or a swap."""
    require("" if valkey_binary() else VALKEY_MISSING)
    require("" if redis_binary() else REDIS_MISSING)
    with RedisServer(valkey_binary() if kind == "valkey" else redis_binary(), fsync) as server:
        finding = durability(server)
    assert finding.status == status
    assert re.search(said, f"{finding.message}: {finding.cure}")


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_warns_of_a_server_that_halves_what_a_broken_file_ends_with(kind: str) -> None:
    """An append-only file is broken off in the midst of a commit: who warns is who has half of it at the next start."""
    require("" if valkey_binary() else VALKEY_MISSING)
    require("" if redis_binary() else REDIS_MISSING)
    with RedisServer(valkey_binary() if kind == "valkey" else redis_binary(), "always") as server:
        with connect(server.url) as client:
            assert isinstance(client, Redis)
            begin = server.log.stat().st_size
            together(client, "a", "b", "c")
        content = server.log.read_bytes()
        server.kill()
        os.truncate(server.log, content.rindex(b"SET", begin) + 1)
        for number in range(2):
            server.restart()
            with connect(server.url) as client:
                found = client.mget("a", "b", "c")
                assert number == 1 or found == [None] * 3
                client.set("x", number)
                together(client, "d", "e")
        finding = told(server, "redis repair")
    assert (finding.status == "warn") == (found == [b"1", b"1", None])
    assert (finding.status == "ok") == (found == [None] * 3)


def together(client: Redis, *keys: str) -> None:
    """Set keys in one transaction, as a function's writes are."""
    pipe = client.pipeline(transaction=True)
    for key in keys:
        pipe.set(key, 1)
    pipe.execute()


def durability(server: RedisServer) -> Finding:
    """What the doctor says of the server's durability."""
    return told(server, "redis durability")


def told(server: RedisServer, subject: str) -> Finding:
    """What the doctor says of one subject."""
    client = connect(server.url)
    found = doctor.of_redis(server_facts(client), promise(client), 0, 0)
    finding = next(finding for finding in found if finding.subject == subject)
    client.close()
    return finding


STANDINGS = [(True, 7, True), (False, 0, True), (False, 7, False), (False, 0, False)]  # runs, behind, kept


def test_warns_of_blocks_that_wait_for_a_monitor() -> None:
    """One that stopped makes Redis keep what it has not counted; one that never ran, or is not to run, does not."""
    assert of_monitor(runs=False, behind=7, kept=True).status == "warn"
    assert "7 records wait" in of_monitor(runs=False, behind=7, kept=True).message
    assert {of_monitor(runs=r, behind=b, kept=k).status for r, b, k in STANDINGS} == {"ok"}


def test_exit_code_tells_failed_from_unreachable() -> None:
    """Warnings are 0, failures 1, and 3 where a service did not answer."""
    warn, fail = Finding("warn", "a", "b"), Finding("fail", "a", "b")
    away = doctor.failure("a", ServiceUnreachable("b"))
    assert [doctor.exit_code(found) for found in ([], [warn], [warn, fail], [fail, away])] == [0, 0, 1, 3]
    assert doctor.exit_code([doctor.failure("a", DataError("b"))]) == 1


def test_sum_of_memory() -> None:
    """Retention times rate times bytes is what Redis holds, and a warning where it does not fit."""
    assert LOAD.bytes_per_observation == 8 * 2 + 4 * 5 + 10
    assert LOAD.retained_bytes == 60 * (1_000 * 46 + 250)
    assert [finding.status for finding in doctor.of_sizing(LOAD, 1 << 30)] == ["ok", "ok"]
    short, _ = doctor.of_sizing(LOAD, 2_000_000)
    assert short.status == "warn"
    assert "1.9 MiB are full after 26.1 minutes" in short.message  # (2e6 - 8e5) / (1000 / 60 * 46) s


def test_limit_is_the_servers_own_before_the_machines() -> None:
    """Maxmemory counts before the machine's memory; 0 means none."""
    assert doctor.memory_limit({"maxmemory": "0", "total_system_memory": 7}) == 7
    assert doctor.memory_limit({"maxmemory": b"5", "total_system_memory": 7}) == 5
    assert doctor.memory_limit({}) == 0


def examined(environment: dict[str, str], *options: str) -> tuple[int, dict[str, str]]:
    """Exit code and {subject: status} of `killick doctor --json`."""
    result = CliRunner().invoke(cli.killick, ["doctor", "--json", *options], env=environment)
    body = json.loads(result.stdout)
    assert body["exit_code"] == result.exit_code
    return result.exit_code, {finding["subject"]: finding["status"] for finding in body["findings"]}


def test_doctor_finds_creates_and_tests(
    kafka: KafkaBroker, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing topics fail, --create-topics creates them, and this machine's bits are tested."""
    monkeypatch.chdir(tmp_path)
    names = {name: f"doctor-{tmp_path.name}-{name}" for name in ("observations", "predictions", "dead_letters")}
    environment = {
        "KILLICK_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KILLICK_REDIS__URL": redis_server.url,
        **{f"KILLICK_KAFKA__{name.upper()}": topic for name, topic in names.items()},
    }
    code, found = examined(environment, "--skip-network-test")
    assert code == 1
    assert {found[f"topic {topic}"] for topic in names.values()} == {"fail"}
    code, found = examined(environment, "--create-topics", "--partitions", "2")
    assert code == 0
    assert {found[f"topic {topic}"] for topic in names.values()} == {"ok"}
    assert found["network"] == found["redis version"] == found["redis functions"] == "ok"
    assert found["monitor"] == found["archive"] == "ok"
    (tmp_path / "file").touch()
    code, found = examined(environment | {"KILLICK_ARCHIVE__PATH": str(tmp_path / "archive")}, "--skip-network-test")
    assert (code, found["archive"]) == (0, "ok")
    assert list((tmp_path / "archive").glob("*/*")) == []
    code, found = examined(environment | {"KILLICK_ARCHIVE__PATH": "/dev/null/archive"}, "--skip-network-test")
    assert (code, found["archive"]) == (1, "fail")


def test_doctor_says_that_services_are_away(
    new_redis: NewRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that does not answer is exit code 3, and what can still be asked is asked."""
    monkeypatch.chdir(tmp_path)
    server = new_redis({"appendonly": "no"})
    environment = {"KILLICK_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "KILLICK_REDIS__URL": server.url}
    wrong = {"KILLICK_API__TOKEN": "short", "KILLICK_RETRAINING__EXECUTOR": "tcp://127.0.0.1:1"}
    code, found = examined(environment | wrong, "--skip-network-test")
    assert (code, found["kafka"], found["redis durability"]) == (3, "fail", "warn")
    assert (found["retraining"], found["api token"]) == ("fail", "fail")


@pytest.fixture
def about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finding]:
    """What the doctor says of what neither Kafka nor Redis is asked for, with these settings alone."""
    monkeypatch.chdir(tmp_path)

    def told_of(of: Callable[[Settings], Iterator[Finding]], **settings: str) -> Finding:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(f"KILLICK_{name}", value)
            (found,) = guarded("it", of(Session(config=None, log_level=None).load().settings))
        return found

    return told_of


def test_knocks_where_trainings_are_to_run(about: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine needs no look; of a cluster a port that listens is enough, and its client is not loaded."""
    assert about(of_retraining).status == "ok"
    with socket.create_server(("127.0.0.1", 0)) as scheduler:
        address = f"tcp://127.0.0.1:{scheduler.getsockname()[1]}"
        found = about(of_retraining, RETRAINING__EXECUTOR=address)
        assert (found.status, found.message.split()[:2]) == ("ok", [address, "listens;"])
    found = about(of_retraining, RETRAINING__EXECUTOR=address)
    assert (found.status, found.unreachable) == ("fail", True)
    assert found.message == f"the Dask cluster at {address} does not answer ([Errno 111] Connection refused)"
    assert found.cure == "is its scheduler running? retraining.executor"
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as scheduler:
        assert about(of_retraining, RETRAINING__EXECUTOR=f"tls://[::1]:{scheduler.getsockname()[1]}").status == "ok"
    monkeypatch.setattr(executors, "find_spec", lambda _: None)
    found = about(of_retraining, RETRAINING__EXECUTOR=address)
    assert (found.status, found.unreachable) == ("fail", False)
    assert found.cure.startswith("pip install 'killick[dask]'")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x" * 15, "has 15 characters, it needs 16 to 1024"),
        ("x" * 1_025, "has 1025 characters, it needs 16 to 1024"),
        ("", "has no token"),
        ("a token with blanks", "holds blanks"),
        (None, "token_file = '{file}' can't be read"),
    ],
)
def test_finds_a_token_that_lets_nobody_in(
    about: Callable[..., Finding], tmp_path: Path, content: str | None, said: str
) -> None:
    """As `killick api` would say when it starts; in a file or not."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content + "\n")
    found = about(of_token, API__TOKEN_FILE=str(file))
    assert found.status == "fail"
    assert said.format(file=file) in found.message
    assert found.cure
    if content:
        assert about(of_token, API__TOKEN=content) == found


def test_a_token_is_not_needed_and_never_shown(about: Callable[..., Finding], tmp_path: Path) -> None:
    """Without one there is no API, which fails nothing; of one that is good its length is told."""
    assert "none is set" in about(of_token).message
    assert about(of_token, API__TOKEN="").status == "ok"
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    found = about(of_token, API__TOKEN_FILE=file.name)
    assert (found.status, found.message) == ("ok", "16 characters")


def test_the_doctor_loads_neither_the_api_nor_dask(tmp_path: Path) -> None:
    """What takes long to import is left to those who need it."""
    code = (
        "import sys\n"
        "from worker.cli_doctor import guarded, of_retraining, of_token\n"
        "from worker.session import Session\n"
        "settings = Session(config=None, log_level=None).load().settings\n"
        "for of in (of_retraining, of_token):\n"
        "    print([finding.status for finding in guarded('it', of(settings))])\n"
        "print(*sys.modules)\n"
    )
    environment = {
        "KILLICK_API__TOKEN": "0123456789abcdef",
        "KILLICK_RETRAINING__EXECUTOR": "tcp://127.0.0.1:1",
        "PYTHONPATH": str(Path(cli.__file__).parents[1]),
    }
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    *statuses, loaded = done.stdout.splitlines()
    assert statuses == ["['fail']", "['ok']"]
    assert not {"fastapi", "distributed", "tensorflow"} & set(loaded.split())
