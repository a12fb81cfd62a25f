"""Forecasts a second on a real Kafka and Redis that it starts itself; then `killick bench throughput`."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.services.kafka import KafkaBroker
from tests.services.redis import RedisServer, redis_binary


def main() -> int:
    """Start both servers, and run the command with the words that were given."""
    with KafkaBroker(heap="1g") as broker, RedisServer(redis_binary()) as store:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KILLICK_")}
        environment |= {
            "KILLICK_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "KILLICK_REDIS__URL": store.url,
        }
        words = [sys.executable, "-m", "worker.cli", "bench", "throughput", *sys.argv[1:]]
        return subprocess.run(words, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
