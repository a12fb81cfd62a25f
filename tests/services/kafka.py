"""A real Apache Kafka: one process, broker and controller (KRaft), with its data in a temporary directory."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.scoped import Scoped
from worker.child import Child, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBS = Path(__file__).parents[2] / ".kafka" / "libs"
START_S = 90.0
MISSING = (
    "needs Apache Kafka: install Java 17 and Maven (apt-get install openjdk-17-jre-headless maven), then `make test`"
)

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={directory}/data
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=2
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=16777216
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# a killed broker may come back as soon as its old session has run out
broker.heartbeat.interval.ms=400
broker.session.timeout.ms=1500
"""

# A second listener, whose clients are told the port of a proxy: all that they say goes through it.
_PROXIED = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},PROXIED://127.0.0.1:{behind}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxied}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
"""

_LOGGING = """\
status=ERROR
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c{1})%n
rootLogger.level=INFO
rootLogger.appenderRef.console.ref=console
"""


def missing() -> str:
    """What has to be installed before a broker can be started here; empty when all is there."""
    if shutil.which("java") is None or not (LIBS / ".ready").exists():
        return MISSING
    return ""


class KafkaBroker(Scoped):
    """One broker on 127.0.0.1, a context manager. `restart` keeps port and data, `close` removes both.

    With the port of a proxy as `proxied`, there is a second listener, at port `behind`, for that proxy.
    """

    def __init__(
        self, properties: Mapping[str, str] | None = None, heap: str = "512m", *, proxied: int | None = None
    ) -> None:
        self.port, self.behind, controller = free_port(), free_port(), free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="killick-kafka-"))
        text = _PROPERTIES.format(port=self.port, controller=controller, directory=self.directory)
        if proxied is not None:
            text += _PROXIED.format(port=self.port, controller=controller, behind=self.behind, proxied=proxied)
        text += "".join(f"{name}={value}\n" for name, value in (properties or {}).items())
        self._config = self.directory / "server.properties"
        self._config.write_text(text, encoding="utf-8")
        logging = self.directory / "log4j2.properties"
        logging.write_text(_LOGGING, encoding="utf-8")
        self._java = [
            shutil.which("java") or "java",
            f"-Xmx{heap}",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Dlog4j2.configurationFile={logging}",
            "-cp",
            f"{LIBS}/*",
        ]
        command = [*self._java, "kafka.Kafka", str(self._config)]
        self.process = Child("Kafka", command, self.directory / "server.log", self.directory)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients find the broker: `127.0.0.1:port`."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the broker, with formatted storage, and return when it serves."""
        if not (self.directory / "data").exists():
            self._format()
        self.process.start(lambda: self.process.logged("Kafka Server started"), START_S)

    def stop(self) -> None:
        """Shut the broker down in order."""
        self.process.stop()

    def kill(self) -> None:
        """Kill the broker at once (SIGKILL)."""
        self.process.kill()

    def restart(self) -> None:
        """Start the broker again on the same port and data; stop it first when it runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill the broker and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _format(self) -> None:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        words = ["kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(self._config)]
        subprocess.run([*self._java, *words], check=True, capture_output=True, timeout=START_S)
