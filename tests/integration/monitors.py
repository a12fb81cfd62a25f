"""`killick monitor` as a process of a test."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.harness import DONE_S, ROOT, START_S, ConsumerProcess, wait
from worker.child import Child, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class MonitorProcess(ConsumerProcess):
    """One `killick monitor`, started when it is made; with a log of its own."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        """`words`: those of `killick monitor` on some settings; its port is a free one."""
        self.port = free_port()
        self.log = log
        command = [shutil.which("env") or "env", f"KILLICK_MONITOR__PORT={self.port}", *words]
        self.told_to_end = False
        self._child = Child(log.stem, command, log, ROOT)
        self._child.start(lambda: self.page("/metrics")[0] == 200 or not self.running, START_S)

    def samples(self) -> dict[tuple[str, ...], float]:
        """What /metrics says now: (name without killick_, values of the labels but for model, by name) → value."""
        found = {}
        for family in text_string_to_metric_families(self.page("/metrics")[1]):
            for sample in family.samples:
                words = [value for name, value in sorted(sample.labels.items()) if name != "model"]
                found[sample.name.removeprefix("killick_"), *words] = float(sample.value)
        return found

    def leads(self) -> bool:
        """Whether it says so."""
        return self.samples().get(("monitor_leader",)) == 1

    def counted(self) -> int:
        """Observations that were counted, by whomever; 0 where this one stands by."""
        return int(self.samples().get(("monitor_observations_total",), 0))

    def reach(self, observations: int, timeout_s: float = DONE_S) -> None:
        """Wait until so many are counted."""
        wait(
            lambda: self.counted() >= observations,
            timeout_s,
            lambda: f"{observations} observations to be counted, now {self.counted()}:\n{self._child.log_tail()}",
        )
