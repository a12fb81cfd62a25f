"""The process `killick monitor`: wires the monitor, serves its pages, and steps until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from models.errors import LedgerError, ServiceUnreachable
from models.server import memory
from worker import wiring
from worker.metrics import Health, Pages
from worker.metrics_monitor import MonitorMetrics
from worker.monitoring import Shown
from worker.serving import Away, run_until_told
from worker.verdicts import VerdictStore

if TYPE_CHECKING:
    from models.server import Client
    from worker.monitoring import Monitor
    from worker.settings import Settings
    from worker.store import ModelStore

SILENT_S = 60.0  # without a step for so long, the process is not well
SHOW_S = 1.0  # between two looks at what there is to show, while it is busy

log = logging.getLogger(__name__)


class MonitorService:
    """A monitor with its metrics and pages, in the thread that calls `run`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._away = Away(self._stopping, log, settings.monitor.poll.ms / 1000)
        self._stepped_at = time.monotonic()
        self._shown_at = -SHOW_S
        self.metrics = MonitorMetrics(settings.model.name)
        self.pages = Pages(
            settings.http.host, settings.monitor.port, self.metrics.registry, self.health, "monitor.port"
        )

    def stop(self) -> None:
        """Ask `run` to finish; from any thread, or a signal."""
        self._stopping.set()

    def run(self) -> None:
        """Watch until asked to stop.

        Raises:
            KillickError: what waiting can't mend.
        """
        client = wiring.redis_client(self._settings)
        monitor, store = wiring.monitor(self._settings, client)
        log.info("watching model %s", self._settings.model.name, extra={"action": "started"})
        try:
            self._watch(monitor, store, client)
            with suppress(ServiceUnreachable, LedgerError):  # nothing is lost: a successor reads a little more
                monitor.close()
            log.info("stopped", extra={"action": "stopped"})
        finally:
            client.close()
            self.pages.close()

    def health(self) -> Health:
        """What /healthz and /readyz say."""
        silent = time.monotonic() - self._stepped_at
        return Health(alive=silent < SILENT_S, waiting_for=self._away.trouble, details={})

    def _watch(self, monitor: Monitor, store: ModelStore, client: Client) -> None:
        poll_s = self._settings.monitor.poll.ms / 1000
        verdicts = VerdictStore(client, self._settings.model.name)
        while not self._stopping.is_set():
            try:
                counted = monitor.step(time.monotonic(), int(time.time() * 1000))
                self._stepped_at = time.monotonic()
                if not counted or self._stepped_at - self._shown_at >= SHOW_S:
                    self.metrics.show(shown(monitor, store, verdicts, client, self._settings.judgement.budget))
                    self._shown_at = time.monotonic()
            except ServiceUnreachable as error:
                self._away.tell(error)
                self._stepped_at = time.monotonic()
                self.metrics.show(Shown())
                self._away.wait()
                continue
            self._away.over()
            if not counted:
                self._stopping.wait(poll_s)


def shown(monitor: Monitor, store: ModelStore, verdicts: VerdictStore, client: Client, budget: float) -> Shown:
    """What the metrics are to show now; `budget` is the level of all live trials together.

    Raises:
        ServiceUnreachable: Redis did not answer.
    """
    view = replace(monitor.view(), redis_up=True)
    if not view.leads:
        return view
    used, limit = memory(client)
    waiting, oldest_ms = store.waiting()
    return replace(
        view,
        alpha_spent=verdicts.spent(),
        alpha_budget=budget,
        requests=waiting,
        oldest_request_s=0.0 if oldest_ms is None else max(0.0, time.time() - oldest_ms / 1000),
        memory_bytes=used,
        memory_limit_bytes=limit,
    )


def serve(settings: Settings) -> None:
    """Run one monitor until SIGTERM or SIGINT."""
    run_until_told(MonitorService(settings))
