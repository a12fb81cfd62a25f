"""The process `killick consumer`: wires the loop, serves its pages, and steps until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from models.errors import ServiceUnreachable
from worker import wiring
from worker.metrics import ConsumerMetrics, Health, Pages
from worker.serving import Away, run_until_told

if TYPE_CHECKING:
    from consumers.loop import Consumer
    from worker.settings import Settings

SILENT_S = 60.0  # without a step for so long, the process is not well
FIRST_WAIT_S = 0.5

log = logging.getLogger(__name__)


class Service:
    """A consumer with its metrics and pages, in the thread that calls `run`."""

    def __init__(self, settings: Settings, *, accept_gap: bool = False) -> None:
        self._settings = settings
        self._limits = wiring.limits(settings, accept_gap=accept_gap)
        self._stopping = threading.Event()
        self._away = Away(self._stopping, log, FIRST_WAIT_S)
        self.metrics = ConsumerMetrics(settings.model.name)
        self.consumer: Consumer | None = None
        self.pages = Pages(settings.http.host, settings.http.port, self.metrics.registry, self.health)

    def stop(self) -> None:
        """Ask `run` to finish; from any thread, or a signal."""
        self._stopping.set()

    def run(self) -> None:
        """Consume until asked to stop.

        Raises:
            KillickError: what waiting can't mend.
        """
        try:
            self._consume()
            log.info("stopped", extra={"action": "stopped"})
        finally:
            self.pages.close()

    def health(self) -> Health:
        """What /healthz and /readyz say."""
        consumer = self.consumer
        if consumer is None:
            return Health(alive=True, waiting_for=self._away.trouble, details={})
        silent = time.monotonic() - consumer.last_step_at
        opening = consumer.opening
        waiting_for = consumer.trouble or (f"partitions {opening} are being opened" if opening else "")
        if not consumer.held and not waiting_for:
            waiting_for = "no partition is assigned yet"
        held = list(consumer.held.items())  # the loop's thread may change it meanwhile
        unwritten = [number for number, holding in held if holding.disk]
        if unwritten and not waiting_for:
            waiting_for = f"Redis has a change of version of partitions {unwritten} not on its disk yet"
        details = {"partitions": {str(n): {"next_offset": h.next, "published": h.mark} for n, h in held}}
        return Health(alive=silent < SILENT_S, waiting_for=waiting_for, details=details)

    def _consume(self) -> None:
        """Build what is needed, waiting for what is not there yet, and step until it is time to stop."""
        while not self._stopping.is_set():
            try:
                with ExitStack() as stack:
                    self._step(stack, self._build(stack))
            except ServiceUnreachable as error:
                if self.consumer is not None:
                    raise
                self._away.tell(error)
                self._away.wait()

    def _build(self, stack: ExitStack) -> Consumer:
        """A consumer; `stack` closes what it uses, the last first."""
        settings = self._settings
        client = stack.enter_context(closing(wiring.redis_client(settings)))
        sink = stack.enter_context(closing(wiring.sink(settings)))
        loading = ThreadPoolExecutor(1, "loading")
        stack.callback(loading.shutdown, wait=False, cancel_futures=True)
        consumer = wiring.consumer(settings, client, loading, sink, self._limits, self.metrics)
        log.info("consuming %s as %s", settings.kafka.observations, settings.kafka_group, extra={"action": "started"})
        return consumer

    def _step(self, stack: ExitStack, consumer: Consumer) -> None:
        consumer.last_step_at = time.monotonic()
        self.consumer = consumer
        stack.callback(consumer.close)
        while not self._stopping.is_set():
            consumer.step(time.monotonic())
        log.info("stopping", extra={"action": "stopping"})


def serve(settings: Settings, *, accept_gap: bool = False) -> None:
    """Run one consumer until SIGTERM or SIGINT."""
    run_until_told(Service(settings, accept_gap=accept_gap))
