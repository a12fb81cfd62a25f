"""`killick promote`, `rollback`, `pause`, `resume`, `audit` and `versions` on a real Redis."""

from __future__ import annotations

import io
import json
import time
from contextlib import redirect_stderr, redirect_stdout
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from consumers.ledger import Commit, Ledger, PartitionState
from consumers.roster import Seat
from models.blocks import empty_block
from models.registry import Registry
from models.server import connect
from tests.conftest import require
from tests.models.versions import register
from tests.services.redis import VALKEY_MISSING, RedisServer, valkey_binary
from tests.streams import architecture_of
from worker import cli
from worker.actor import this_actor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from models.server import Client
    from tests.conftest import NewRedis
    from tests.services.kafka import KafkaBroker

MODEL = "weather"
WHY = ("--reason", "better in winter", "--actor", "ann")


@pytest.fixture(autouse=True)
def _environment(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, an empty Redis, and a Kafka that is not asked who is in the group."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KILLICK_REDIS__URL", redis_url)
    monkeypatch.setenv("KILLICK_MODEL__NAME", MODEL)
    monkeypatch.setenv("KILLICK_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("KILLICK_KAFKA__ASSIGNMENT", "manual")


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    """A client of the empty Redis."""
    found = connect(redis_url)
    yield found
    found.close()


@pytest.fixture
def registry(client: Client) -> Registry:
    """A model with versions 1 (the incumbent), 2 and 3."""
    found = Registry(client, MODEL)
    for seed in range(3):
        register(found, architecture_of(), seed)
    return found


def killick(*words: str) -> tuple[int, str]:
    """Exit code of a command, and what it printed, its errors among it."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        code = cli.run(list(words), printed)
    return code, printed.getvalue()


def seat(client: Client, registry: Registry, *versions: int) -> list[Ledger]:
    """Ledgers of so many partitions, in which these versions answer."""
    registry.set_partitions(len(versions))
    ledgers = [Ledger(client, MODEL, number, f"token {number}") for number in range(len(versions))]
    for ledger, version in zip(ledgers, versions, strict=True):
        ledger.take(start=0, form="f", topic_id="t", partitions=len(versions), chunk_slots=2)
        follow(ledger, version, 1)
    return ledgers


def follow(ledger: Ledger, version: int, generation: int) -> None:
    """What a consumer commits when a partition changes over."""
    head = ledger.head()
    assert head is not None
    roster = [Seat(version, "incumbent", 0, head.next)]
    ledger.commit(Commit(head.next, empty_block(head.next, 1), roster=roster, generation=generation))
    ledger.note(PartitionState("running", generation))


def test_a_promotion_and_a_rollback_say_what_they_did(registry: Registry) -> None:
    """Who answers, who did, and, where no consumer ever ran, that the partitions will follow."""
    code, said = killick("promote", "2", *WHY)
    assert code == 0
    assert said.splitlines()[0] == (
        "version 2 is the incumbent of model 'weather'; version 1 is the previous one (generation 2)"
    )
    assert "no consumer is running: the partitions will follow when one starts (`killick consumer`)" in said
    code, said = killick("rollback", "--reason", "worse at night")
    assert code == 0
    assert said.splitlines()[:2] == [
        "version 1 is the incumbent of model 'weather'; version 2 is withdrawn (generation 3)",
        "automatic promotion is paused until `killick resume`",
    ]
    entry = registry.audit(1)[0]
    assert (entry.event, entry.before, entry.after, entry.reason) == ("rollback", 2, 1, "worse at night")
    assert entry.actor == this_actor()
    assert abs(entry.time_ms - time.time() * 1000) < 60_000


def test_a_rollback_goes_to_a_version_by_its_number(registry: Registry) -> None:
    """`--to V` needs no previous version."""
    assert killick("rollback", "--to", "3", *WHY)[0] == 0
    assert registry.aliases().incumbent == 3
    assert registry.statuses() == {1: "withdrawn"}


WRONG: list[tuple[tuple[str, ...], int, str]] = [
    (("promote", "9", *WHY), 1, "model 'weather' has no version 9: it has [1, 2, 3]"),
    (
        ("promote", "1", *WHY),
        1,
        "version 1 is withdrawn (rolled back by bob at 2026-03-01T12:00:00Z: worse): choose an",
    ),
    (("promote", "2", *WHY), 1, "version 2 already answers (rolled back by bob at 2026-03-01T12:00:00Z: worse): there"),
    (("promote", "3", "--expected", "1", *WHY), 1, "version 2 answers, not 1 as expected (rolled back by bob at 2026"),
    (("promote", "2"), 2, "Missing option '--reason'"),
    (("promote", "3", "--reason", " "), 2, "promote needs a reason: say why: --reason TEXT; it goes into the audit"),
    (("promote", *WHY), 2, "Missing argument 'VERSION'"),
    (("promote", "new", *WHY), 2, "'new' is not a valid integer"),
    (("promote", "0", *WHY), 2, "0 is not in the range x>=1"),
    (("promote", "3", "--timeout", "soon", *WHY), 2, "'soon' is not"),
    (("rollback", *WHY), 1, "version 2 answers, and there is no previous version to go back to (rolled back by bob at"),
    (("rollback", "--to", "1", *WHY), 1, "version 1 is withdrawn (rolled back by bob"),
    (("rollback", "--to", "2", *WHY), 1, "version 2 already answers (rolled back by bob"),
    (("rollback", "--expected", "1", *WHY), 1, "version 2 answers, not 1 as expected (rolled back by bob"),
    (("rollback",), 2, "Missing option '--reason'"),
    (("pause", *WHY), 1, "automatic promotion of model 'weather' is paused already (rolled back by bob"),
    (("pause",), 2, "Missing option '--reason'"),
    (("resume",), 2, "Missing option '--reason'"),
    (("versions", "retire", "2", *WHY), 1, "version 2 is the incumbent: retire it when it no longer is"),
    (("versions", "retire", "9", *WHY), 1, "model 'weather' has no version 9"),
    (("versions", "export", "9", "--out", "x"), 1, "model 'weather' has no version 9"),
    (("audit", "-n", "0"), 2, "0 is not in the range"),
]


@pytest.mark.parametrize(("words", "code", "said"), WRONG)
def test_wrong_commands_are_refused_in_one_line(
    registry: Registry, words: tuple[str, ...], code: int, said: str
) -> None:
    """Exit code 1 for what the registry refuses, 2 for wrong words; the line says what is in the way; nothing moved."""
    registry.rollback(2, expected=1, actor="bob", reason="worse", now_ms=1_772_366_400_000)
    before = (registry.aliases(), registry.statuses(), len(registry.audit()))
    found, printed = killick(*words)
    assert found == code
    assert said in printed
    assert (registry.aliases(), registry.statuses(), len(registry.audit())) == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("promote", "1", *WHY), 1, "model 'weather' has no version 1: fit one: `killick fit FILE`"),
        (("rollback", *WHY), 1, "model 'weather' has no version to roll back: fit one: `killick fit FILE`"),
        (("versions",), 0, "model 'weather' has no version: fit one with `killick fit FILE`"),
        (("audit",), 0, "nothing has happened to model 'weather': fit a version with `killick fit FILE`"),
        (("status",), 0, "model weather: no version answers yet"),
    ],
)
def test_a_model_without_versions_is_told_how_to_get_one(words: tuple[str, ...], code: int, said: str) -> None:
    """Every command names `killick fit`."""
    found, printed = killick(*words)
    assert (found, said in printed) == (code, True), printed
    assert "killick fit" in printed


@pytest.mark.parametrize(
    "words",
    [
        ("promote", "2", *WHY),
        ("promote", "2", "--expected", "1", *WHY),
        ("rollback", *WHY),
        ("pause", *WHY),
        ("resume", *WHY),
        ("audit",),
        ("versions",),
        ("status",),
        ("versions", "retire", "1", *WHY),
    ],
)
def test_a_redis_that_is_away_is_exit_code_3(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the setting, for every command."""
    monkeypatch.setenv("KILLICK_REDIS__URL", "redis://127.0.0.1:1/0")
    code, said = killick(*words)
    assert code == 3
    assert said.count("\n") == 1
    assert "Redis did not answer" in said
    assert "see redis.url in the settings" in said


def test_pause_and_resume(registry: Registry) -> None:
    """Each says what is so from now on."""
    assert killick("pause", *WHY) == (0, "automatic promotion is paused until `killick resume`\n")
    assert registry.aliases().paused
    assert killick("resume", *WHY) == (0, "automatic promotion may go on\n")
    assert not registry.aliases().paused


def test_the_audit_is_printed_oldest_first(registry: Registry) -> None:
    """A line an entry for people, an object an entry for machines, the newest ones by number."""
    registry.promote(2, expected=1, actor="ann", reason="better", now_ms=1_772_366_400_000)
    registry.pause(actor="bob", reason="a holiday", now_ms=1_772_366_400_001)
    assert killick("audit", "-n", "2")[1].splitlines() == [
        "2026-03-01T12:00:00Z      promote    1 → 2        ann: better",
        "2026-03-01T12:00:00.001Z  pause                   bob: a holiday",
    ]
    lines = [json.loads(line) for line in killick("audit", "--json")[1].splitlines()]
    assert [line["event"] for line in lines] == ["register", "incumbent", "register", "register", "promote", "pause"]
    promoted = lines[4]
    assert (promoted["before"], promoted["after"], promoted["generation"]) == (1, 2, 2)
    assert (promoted["time"], promoted["time_ms"]) == ("2026-03-01T12:00:00Z", 1_772_366_400_000)


def test_versions_are_listed_with_role_and_status(registry: Registry) -> None:
    """Incumbent, previous, withdrawn and retired are told apart."""
    registry.promote(2, expected=1, actor="ann", reason="better", now_ms=1)
    registry.rollback(expected=2, actor="ann", reason="worse", now_ms=2)
    assert killick("versions", "retire", "3", *WHY) == (0, "version 3 is retired\n")
    rows = [line.split()[:2] for line in killick("versions")[1].splitlines()]
    assert rows == [["1", "incumbent"], ["2", "withdrawn"], ["3", "retired"]]
    lines = [json.loads(line) for line in killick("versions", "--json")[1].splitlines()]
    assert [(line["role"], line["status"]) for line in lines] == [("incumbent", ""), ("", "withdrawn"), ("", "retired")]
    assert "weights_sha256" in lines[0]


def test_it_waits_until_every_partition_follows(client: Client, registry: Registry) -> None:
    """The command ends with exit code 0 when the last ledger's roster has changed, and not before."""
    ledgers = seat(client, registry, 1, 1)

    def consume() -> None:
        for number, ledger in enumerate(ledgers):
            time.sleep(0.3)
            ledger.note(PartitionState("spinning-up", 2, 2))
            time.sleep(0.3)
            follow(ledger, 2, 2)
            assert number < 2

    began = time.monotonic()
    consumer = Thread(target=consume)
    consumer.start()
    code, said = killick("promote", "2", *WHY)
    consumer.join()
    assert time.monotonic() - began > 1.1
    assert code == 0
    assert "still spinning up: 0" in said
    assert said.splitlines()[-1] == "2 of 2 partitions follow"


def test_a_partition_that_diverged_is_exit_code_1(client: Client, registry: Registry) -> None:
    """It says which one and why, and does not wait any longer; an older divergence is not held against it."""
    ledgers = seat(client, registry, 1, 1, 1)
    ledgers[0].note(PartitionState("diverged", 1, 2, "an old failure"))

    def consume() -> None:
        time.sleep(0.5)
        follow(ledgers[0], 2, 2)

    consumer = Thread(target=consume)
    consumer.start()
    follow(ledgers[1], 2, 2)
    ledgers[2].note(PartitionState("diverged", 2, 2, "its weights have another SHA-256"))
    code, said = killick("promote", "2", *WHY)
    consumer.join()
    assert code == 1
    assert "2 of 3 partitions follow: 0, 1" in said
    assert "partition 2 diverged: its weights have another SHA-256" in said
    assert "old failure" not in said
    assert "the former version goes on answering" in said


def test_it_gives_up_when_the_time_is_up(client: Client, registry: Registry) -> None:
    """Exit code 1, and who is missing; the change stands. With --no-wait it does not wait at all."""
    ledgers = seat(client, registry, 1, 1, 1)
    ledgers[1].note(PartitionState("diverged", 2, 3, "not asked for here"))  # a candidate; 2 is on its way
    follow(ledgers[2], 2, 2)
    code, said = killick("promote", "2", "--timeout", "300ms", *WHY)
    assert code == 1
    assert "1 of 3 partitions follow: 2" in said
    assert "still spinning up: 1" in said
    assert "have not seen it yet: 0" in said
    assert "gave up waiting after 0 s; the change stands" in said
    assert registry.aliases().incumbent == 2
    began = time.monotonic()
    assert killick("rollback", "--no-wait", *WHY)[0] == 0
    assert time.monotonic() - began < 2


def test_a_change_that_is_overtaken_is_said(client: Client, registry: Registry) -> None:
    """Somebody rolls back while the command still waits: it ends, and says who answers now."""
    seat(client, registry, 1)

    def roll_back() -> None:
        time.sleep(0.5)
        registry.rollback(expected=2, actor="bob", reason="worse", now_ms=1)

    other = Thread(target=roll_back)
    other.start()
    code, said = killick("promote", "2", *WHY)
    other.join()
    assert code == 1
    assert "version 1 answers by now, before all partitions had followed to 2: see `killick audit`" in said


def test_it_does_not_wait_where_kafka_says_that_nobody_runs(
    client: Client, registry: Registry, kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group has no member: the partitions will follow, exit code 0."""
    monkeypatch.setenv("KILLICK_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("KILLICK_KAFKA__ASSIGNMENT", "group")
    seat(client, registry, 1, 1)
    code, said = killick("promote", "2", "--timeout", "30s", *WHY)
    assert code == 0
    assert said.splitlines()[-1].startswith("no consumer is running: the partitions will follow")


def test_a_server_that_promises_nothing_is_named(new_redis: NewRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line on standard error, where a power cut may undo the change; none where it is on disk."""
    doubt = "this Redis can't say what is on its disk"
    for fsync, doubtful in (("no", True), ("always", False)):
        server = new_redis({"appendfsync": fsync})
        assert (doubt in promoted(server, monkeypatch)) == doubtful
    require("" if valkey_binary() else VALKEY_MISSING)
    with RedisServer(valkey_binary(), "always") as valkey:
        assert doubt not in promoted(valkey, monkeypatch)


def promoted(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a promotion prints on this server."""
    monkeypatch.setenv("KILLICK_REDIS__URL", server.url)
    client = connect(server.url)
    registry = Registry(client, MODEL)
    for seed in range(2):
        register(registry, architecture_of(), seed)
    client.close()
    code, said = killick("promote", "2", *WHY)
    assert code == 0
    return said
