"""docker-compose.yml holds what it promises, as far as that can be seen without a Docker engine.

Every rule is a function from the file's content to findings. One test runs them all over the file, one breaks the
content in every way that a rule is there for: a rule that finds nothing because it looks at nothing is found out.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

from models.server import connect, promise, server_facts
from tests.conftest import require
from tests.services import redis as redis_service
from tests.services.processes import gone
from worker import cli, doctor
from worker.child import Child, answers_ping, free_port
from worker.settings import keys
from worker.settings_reading import OTHER_VARIABLES, load, variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker-compose.yml"
PINNED = re.compile(r"^[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z0-9.]+)?(@sha256:[0-9a-f]{64})?$")
INTERPOLATED = re.compile(r"\$\{(\w+)(:[-?][^}]*)?\}")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_AUTH$")
OF_THE_USER = ("./killick.toml", "${DATA:-./data}")  # mounted, and made by whoever runs it
FOR_PEOPLE = {"api"}  # one is enough, and it is asked from this machine
WRITES_ITS_ROOT = {"kafka"}  # its start script writes the configuration into the image's folders

PORTS = {
    "consumer": "KILLICK_HTTP__PORT",
    "monitor": "KILLICK_MONITOR__PORT",
    "retrainer": "KILLICK_RETRAINING__PORT",
    "api": "KILLICK_API__PORT",
}

Compose = dict[str, Any]


def content() -> Compose:
    """The file's content, anchors resolved."""
    found: Compose = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def ours(compose: Compose) -> Iterator[tuple[str, Any]]:
    """The services that run killick."""
    for name, service in compose["services"].items():
        if str(service.get("image", "")).startswith("killick:"):
            yield name, service


def mounts(service: Any) -> Iterator[tuple[str, str]]:
    """Source and target of each mount, from either way to write one; a source in ${} may hold a colon."""
    for volume in service.get("volumes", []):
        if isinstance(volume, dict):
            yield volume["source"], volume["target"]
        else:
            head = INTERPOLATED.match(volume)
            source = head[0] if head else volume.partition(":")[0]
            yield source, volume[len(source) + 1 :].partition(":")[0]


def pins(compose: Compose) -> Iterator[str]:
    """Images without a full version."""
    for name, service in compose["services"].items():
        if not PINNED.match(service.get("image", "")):
            yield f"{name}: image {service.get('image')!r} is not pinned"


def checks(compose: Compose) -> Iterator[str]:
    """Services that run on and nobody asks whether they are well; waits for what is never so."""
    services = compose["services"]
    once = {name for name, service in services.items() if service.get("restart") == "no"}
    asked = {name for name, service in services.items() if service.get("healthcheck", {}).get("test")}
    yield from (f"{name}: no health check" for name in services if name not in once | asked)
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            condition = wait["condition"]
            possible = {"service_healthy": asked, "service_completed_successfully": once}.get(condition, set())
            if other not in possible:
                yield f"{name}: waits for {condition} of {other}, which never is"
        if not service.get("stop_grace_period") and name not in once:
            yield f"{name}: no time to stop in order"


def limits(compose: Compose) -> Iterator[str]:
    """Services without limits, or with more rights than they need."""
    for name, service in compose["services"].items():
        bounds = service.get("deploy", {}).get("resources", {}).get("limits", {})
        yield from (f"{name}: no limit of {what}" for what in ("cpus", "memory", "pids") if what not in bounds)
        if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name}: keeps rights"
        if service.get("privileged") or service.get("cap_add") or service.get("user") in ("root", "0", 0):
            yield f"{name}: has rights"
        if not service.get("read_only") and name not in WRITES_ITS_ROOT:
            yield f"{name}: its root can be written"
        if "restart" not in service:
            yield f"{name}: nobody says whether it is started again"


def volumes(compose: Compose) -> Iterator[str]:
    """Mounts of what is not there, and volumes that nobody mounts."""
    used = set()
    for name, service in compose["services"].items():
        for source, _ in mounts(service):
            if source in OF_THE_USER:
                continue
            if source.startswith("."):
                if not (ROOT / source).is_dir():
                    yield f"{name}: mounts {source}, which is not there"
            elif source not in compose["volumes"]:
                yield f"{name}: mounts {source}, which is no volume"
            used.add(source)
    yield from (f"volume {name}: nobody mounts it" for name in compose["volumes"] if name not in used)


def passwords(compose: Compose) -> Iterator[str]:
    """Secrets that have a value here, or a default."""
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) and not re.fullmatch(r"\$\{\w+:\?[^}]+\}", value):
                yield f"{name}: {key} is not demanded from the environment"
    grafana = compose["services"]["grafana"]["environment"]
    if grafana.get("GF_AUTH_ANONYMOUS_ENABLED") != "false" or "GF_SECURITY_ADMIN_PASSWORD" not in grafana:
        yield "grafana: lets anybody in"
    if "requirepass" not in str(compose["services"]["redis"]["command"]):
        yield "redis: asks for no password"


def doors(compose: Compose) -> Iterator[str]:
    """Ports that others than this machine reach; what can't be scaled; who reaches whom without need."""
    services = compose["services"]
    for name, service in services.items():
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{name}: port {port} is open to others"
        if "container_name" in service:
            yield f"{name}: a name of its own can't be scaled"
    yield from (
        f"{name}: a port of the machine can't be scaled"
        for name, one in ours(compose)
        if one.get("ports") and name not in FOR_PEOPLE
    )
    if services["redis"].get("ports"):
        yield "redis: is published"
    for name in ("grafana", "prometheus"):
        if "stream" in services[name]["networks"]:
            yield f"{name}: reaches Redis and Kafka without need"


def commands(compose: Compose) -> Iterator[str]:
    """Command lines that killick does not know."""
    for name, service in ours(compose):
        words = [INTERPOLATED.sub("6", word) for word in service["command"]]
        if words == ["--help"]:
            continue
        command = cli.killick.get_command(click.Context(cli.killick), words[0])
        if command is None:
            yield f"{name}: killick has no command {words[0]}"
            continue
        try:
            command.make_context(words[0], words[1:])
        except click.ClickException as error:
            yield f"{name}: {error.message}"


def settings(compose: Compose) -> Iterator[str]:
    """Variables that are no settings; and killick elsewhere than the others look for it."""
    known = {variable(key) for key in keys()} | set(OTHER_VARIABLES)
    for name, service in ours(compose):
        given = service["environment"]
        yield from (f"{name}: {key} is not a setting" for key in given if key not in known)
        if given["KILLICK_CONFIG"] not in [target for _, target in mounts(service)]:
            yield f"{name}: {given['KILLICK_CONFIG']} is not mounted"
        servers = given["KILLICK_KAFKA__BOOTSTRAP_SERVERS"]
        if f"INSIDE://{servers}," not in compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]:
            yield f"{name}: Kafka does not listen at {servers}"
        if name in ("monitor", "retrainer", "killick") and given["KILLICK_ARCHIVE__PATH"] not in [
            t for _, t in mounts(service)
        ]:
            yield f"{name}: the archive is in no volume"
        if name == "retrainer" and given["KILLICK_RETRAINING__REPORTS"] not in [t for _, t in mounts(service)]:
            yield f"{name}: its reports are in no volume"


def watching(compose: Compose) -> Iterator[str]:
    """Prometheus looks where nobody is, and Grafana's provisioning lacks what it reads."""
    services = compose["services"]
    prometheus = services["prometheus"]
    file = next(w.split("=", 1)[1] for w in prometheus["command"] if w.startswith("--config.file="))
    path = _on_this_side(prometheus, file)
    if path is None or not path.is_file():
        yield f"prometheus: {file} is not mounted"
        return
    yield from scraping(compose, path)
    grafana = services["grafana"]
    here = _on_this_side(grafana, "/etc/grafana/provisioning")
    texts = [file.read_text(encoding="utf-8") for file in here.rglob("*.yml")] if here else []
    for text in texts:
        for name in set(INTERPOLATED.findall(text)):
            if name[0] not in grafana["environment"]:
                yield f"grafana: its provisioning reads {name[0]}, which is not set"
    dashboards = _on_this_side(grafana, grafana["environment"].get("KILLICK_DASHBOARDS", ""))
    if not texts or dashboards is None or not list(dashboards.glob("*.json")):
        yield "grafana: no provisioning, or no dashboards"


def scraping(compose: Compose, path: Path) -> Iterator[str]:
    """Processes that Prometheus does not find, or that are asked for their health elsewhere than they answer."""
    services = compose["services"]
    scraped: dict[str, int] = {}
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["scrape_configs"]:
        scraped |= {name: found["port"] for found in job["dns_sd_configs"] for name in found["names"]}
    given = {name: service["environment"] for name, service in ours(compose)}
    for name, setting in PORTS.items():
        if str(scraped.pop(name, "")) != given[name].get(setting):
            yield f"prometheus: does not look for {name} at {given[name].get(setting)}"
        if "watch" not in services[name]["networks"]:
            yield f"prometheus: can't reach {name}"
        if f"http://127.0.0.1:{given[name].get(setting)}/healthz" not in str(services[name]["healthcheck"].get("test")):
            yield f"{name}: its health is asked for elsewhere than at {given[name].get(setting)}"
    yield from (f"prometheus: looks for {name}, which is no service" for name in scraped)


def _on_this_side(service: Any, path: str) -> Path | None:
    """The file or folder of the repository that a service sees as `path`."""
    for source, target in mounts(service):
        if source.startswith("./") and f"{path}/".startswith(f"{target}/"):
            return ROOT / source / path[len(target) :].lstrip("/")
    return None


RULES: tuple[Callable[[Compose], Iterator[str]], ...] = (
    pins, checks, limits, volumes, passwords, doors, commands, settings, watching,
)  # fmt: skip


def findings(compose: Compose) -> list[str]:
    """What all rules find."""
    return [finding for rule in RULES for finding in rule(compose)]


def test_the_file_keeps_every_rule() -> None:
    """Pinned, checked, limited, without default passwords, and in agreement with settings, Prometheus and Grafana."""
    assert findings(content()) == []


BREAKS: dict[str, tuple[str, Any]] = {  # finding: what is set where (None: taken away)
    "kafka: image 'apache/kafka:latest' is not pinned": ("services.kafka.image", "apache/kafka:latest"),
    "redis: image 'valkey/valkey:9' is not pinned": ("services.redis.image", "valkey/valkey:9"),
    "monitor: no health check": ("services.monitor.healthcheck", {"disable": True}),
    "consumer: waits for service_completed_successfully of topics, which never is": (
        "services.topics.restart",
        "always",
    ),
    "consumer: waits for service_started of kafka, which never is": (
        "services.consumer.depends_on.kafka.condition",
        "service_started",
    ),
    "consumer: no time to stop in order": ("services.consumer.stop_grace_period", None),
    "grafana: no limit of memory": ("services.grafana.deploy.resources.limits", {"cpus": "1", "pids": 1}),
    "prometheus: keeps rights": ("services.prometheus.cap_drop", []),
    "redis: has rights": ("services.redis.user", "root"),
    "consumer: its root can be written": ("services.consumer.read_only", None),
    "kafka: nobody says whether it is started again": ("services.kafka.restart", None),
    "grafana: mounts ./grafana/nowhere, which is not there": ("services.grafana.volumes", ["./grafana/nowhere:/x:ro"]),
    "redis: mounts other, which is no volume": ("services.redis.volumes", ["other:/data"]),
    "volume spare: nobody mounts it": ("volumes.spare", {}),
    "grafana: GF_SECURITY_ADMIN_PASSWORD is not demanded from the environment": (
        "services.grafana.environment.GF_SECURITY_ADMIN_PASSWORD",
        "${GRAFANA_ADMIN_PASSWORD:-admin}",
    ),
    "redis: VALKEYCLI_AUTH is not demanded from the environment": (
        "services.redis.environment.VALKEYCLI_AUTH",
        "${KILLICK_REDIS__PASSWORD}",
    ),
    "grafana: lets anybody in": ("services.grafana.environment.GF_AUTH_ANONYMOUS_ENABLED", "true"),
    "redis: asks for no password": ("services.redis.command", ["valkey-server"]),
    "prometheus: port 9090:9090 is open to others": ("services.prometheus.ports", ["9090:9090"]),
    "consumer: a port of the machine can't be scaled": ("services.consumer.ports", ["127.0.0.1:9464:9464"]),
    "consumer: a name of its own can't be scaled": ("services.consumer.container_name", "one"),
    "redis: is published": ("services.redis.ports", ["127.0.0.1:6379:6379"]),
    "grafana: reaches Redis and Kafka without need": ("services.grafana.networks", ["watch", "stream"]),
    "monitor: killick has no command watcher": ("services.monitor.command", ["watcher"]),
    "topics: No such option '--create-everything'.": ("services.topics.command", ["doctor", "--create-everything"]),
    "consumer: KILLICK_HTTP__PROT is not a setting": ("services.consumer.environment.KILLICK_HTTP__PROT", "1"),
    "topics: /etc/killick/killick.toml is not mounted": ("services.topics.volumes", []),
    "consumer: Kafka does not listen at kafka:9999": (
        "services.consumer.environment.KILLICK_KAFKA__BOOTSTRAP_SERVERS",
        "kafka:9999",
    ),
    "monitor: the archive is in no volume": ("services.monitor.environment.KILLICK_ARCHIVE__PATH", "/elsewhere"),
    "prometheus: /etc/prometheus/other.yml is not mounted": (
        "services.prometheus.command",
        ["--config.file=/etc/prometheus/other.yml"],
    ),
    "prometheus: does not look for consumer at 9999": ("services.consumer.environment.KILLICK_HTTP__PORT", "9999"),
    "prometheus: does not look for retrainer at 9999": (
        "services.retrainer.environment.KILLICK_RETRAINING__PORT",
        "9999",
    ),
    "api: its health is asked for elsewhere than at 9999": ("services.api.environment.KILLICK_API__PORT", "9999"),
    "api: KILLICK_API__TOKEN is not demanded from the environment": (
        "services.api.environment.KILLICK_API__TOKEN",
        "${KILLICK_API__TOKEN:-none}",
    ),
    "api: port 9467:9467 is open to others": ("services.api.ports", ["9467:9467"]),
    "retrainer: its reports are in no volume": (
        "services.retrainer.environment.KILLICK_RETRAINING__REPORTS",
        "reports",
    ),
    "retrainer: the archive is in no volume": ("services.retrainer.environment.KILLICK_ARCHIVE__PATH", "/elsewhere"),
    "prometheus: can't reach monitor": ("services.monitor.networks", ["stream"]),
    "grafana: its provisioning reads KILLICK_PROMETHEUS_URL, which is not set": (
        "services.grafana.environment.KILLICK_PROMETHEUS_URL",
        None,
    ),
    "grafana: no provisioning, or no dashboards": ("services.grafana.environment.KILLICK_DASHBOARDS", "/nowhere"),
}


@pytest.mark.parametrize("finding", BREAKS)
def test_what_breaks_a_rule_is_found(finding: str) -> None:
    """A content that is broken in one place gives that finding."""
    place, value = BREAKS[finding]
    broken = copy.deepcopy(content())  # anchors are one object in many places
    *path, last = place.split(".")
    at = broken
    for name in path:
        at[name] = copy.copy(at[name])
        at = at[name]
    if value is None:
        del at[last]
    else:
        at[last] = value
    assert finding in findings(broken)


def test_the_settings_can_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the services are given in the environment is accepted beside a fresh settings file."""
    file = tmp_path / "killick.toml"
    file.write_text("", encoding="utf-8")
    for name, service in ours(content()):
        for key, value in service["environment"].items():
            monkeypatch.setenv(key, INTERPOLATED.sub("abc" * 8, value))
        found = load(file).settings
        assert (found.redis_password(), found.http.port, found.monitor.port) == ("abc" * 8, 9464, 9465), name
        assert (found.retraining.port, found.api.port) == (9466, 9467), name
        assert found.api_token() == ("abc" * 8 if name == "api" else ""), name
        monkeypatch.delenv("KILLICK_API__TOKEN", raising=False)


def test_the_example_names_every_variable() -> None:
    """.env.example has what the file reads from the environment, and nothing else; the passwords are empty."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(given) == {name for name, _ in INTERPOLATED.findall(FILE.read_text(encoding="utf-8"))}
    assert [name for name, value in given.items() if not value] == [name for name in given if SECRET.search(name)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The service `redis`, started by its own command line on this machine's Valkey, in other folders."""
    require("" if redis_service.valkey_binary() else redis_service.VALKEY_MISSING)
    port = free_port()
    shell, options, script = content()["services"]["redis"]["command"]
    script = script.replace("$$", "$").replace("/run/valkey", str(tmp_path)).replace("/data", str(tmp_path))
    script = script.replace("exec valkey-server", f"exec {redis_service.valkey_binary()}").rstrip() + f" --port {port}"
    words = [shutil.which("env") or "env", "VALKEYCLI_AUTH=abc123", shell, options, script]
    process = Child("redis", words, tmp_path / "log", tmp_path)
    process.start(lambda: process.logged("Ready to accept connections"), 20)
    yield f"redis://127.0.0.1:{port}/0"
    pid = process.pid
    process.stop()
    assert gone([pid])


def test_redis_is_started_as_doctor_wants_it(server: str) -> None:
    """Its command line runs; it asks for the password; doctor has nothing to say against it."""
    assert not answers_ping(int(server.rpartition(":")[2].partition("/")[0]))  # not without the password
    client = connect(server, password="abc123")  # noqa: S106 - made up above
    now_ms = int(time.time() * 1_000)
    found = list(doctor.of_redis(server_facts(client), promise(client), now_ms, now_ms))
    assert {finding.status for finding in found} == {"ok"}, found
    assert doctor.memory_limit(server_facts(client)) == 1536 << 20
    client.close()


def compose_command() -> list[str]:
    """The machine's `docker compose`; empty where it has none."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(words[0])
            and not subprocess.run([*words, "version"], capture_output=True, check=False).returncode
        ):
            return words
    return []


def test_docker_compose_accepts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a `docker compose`, it accepts the file with every secret, and refuses it without one of them."""
    words = compose_command()
    if not words:
        pytest.skip("no docker compose here: the rules above have looked at the file")
    command = [*words, "--file", str(FILE), "--env-file", "/dev/null", "--profile", "tools", "config", "--quiet"]
    names = [name for name, rest in INTERPOLATED.findall(FILE.read_text(encoding="utf-8")) if rest.startswith(":?")]
    for missing in (*names, None):
        for name in names:
            monkeypatch.setenv(name, "" if name == missing else "abc")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (missing is None), done.stderr
        assert missing is None or f"{missing} is missing a value" in done.stderr
