"""The process `killick retrainer`: wires a retrainer, serves its pages, and steps until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import LedgerError, ServiceUnreachable
from worker import wiring, wiring_updating
from worker.metrics import Health, Pages
from worker.metrics_retrainer import RetrainerMetrics
from worker.report import page
from worker.retrainer import Stopped
from worker.serving import Away, run_until_told

if TYPE_CHECKING:
    from models.registry import Registry
    from models.verdict import Verdict
    from worker.retrainer import Retrainer
    from worker.settings import Settings

POLL_S = 1.0
FAILED_S = 5.0  # before it tries again what it could not read

log = logging.getLogger(__name__)


class RetrainerService:
    """A retrainer with its metrics and pages, in the thread that calls `run`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._away = Away(self._stopping, log, POLL_S)
        self.metrics = RetrainerMetrics(settings.model.name)
        self.pages = Pages(
            settings.http.host, settings.retraining.port, self.metrics.registry, self.health, "retraining.port"
        )

    def stop(self) -> None:
        """Ask `run` to finish; from any thread, or a signal."""
        self._stopping.set()

    def health(self) -> Health:
        """What /healthz and /readyz say."""
        return Health(alive=True, waiting_for=self._away.trouble, details={})

    def run(self) -> None:
        """Work requests off until asked to stop.

        Raises:
            KillickError: what waiting can't mend.
        """
        client = wiring.redis_client(self._settings)
        try:
            retrainer = wiring_updating.retrainer(self._settings, client, self._stopping.is_set)
            self.metrics.watch(lambda: None if (now := retrainer.progress) is None else now.done)
            log.info("retraining model %s", self._settings.model.name, extra={"action": "started"})
            self._work(retrainer, wiring.registry(self._settings, client))
            log.info("stopped", extra={"action": "stopped"})
        finally:
            client.close()
            self.pages.close()

    def _work(self, retrainer: Retrainer, registry: Registry) -> None:
        while not self._stopping.is_set():
            try:
                verdict = retrainer.step(int(time.time() * 1000))
            except Stopped:
                return
            except ServiceUnreachable as error:
                self._away.tell(error)
                self.metrics.redis_up(up=False)
                self._away.wait()
                continue
            except LedgerError as error:
                log.error("%s", error, extra={"action": "failed"})  # noqa: TRY400 - the message says it all
                self._stopping.wait(FAILED_S)
                continue
            self._away.over()
            self.metrics.redis_up(up=True)
            if verdict is not None:
                self.metrics.ended(verdict.trigger, verdict.outcome, verdict.seconds)
                self._report(verdict, registry)
            else:
                self._stopping.wait(POLL_S)

    def _report(self, verdict: Verdict, registry: Registry) -> None:
        """Write the verdict's page; one that can't be written is missed by nobody but people."""
        folder = self._settings.retraining.reports
        if not folder:
            return
        path = Path(folder) / f"{verdict.id}.html"
        aside = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(page(verdict, registry.audit()), encoding="utf-8")
            aside.replace(path)
        except (OSError, ServiceUnreachable) as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            cure = f"`killick report {verdict.id} --out FILE.html` writes it again"
            log.warning("the report was not written to %s: %s: %s", path, error, cure, extra={"action": "no-report"})
        else:
            log.info("report: %s", path, extra={"action": "report"})


def serve(settings: Settings) -> None:
    """Run one retrainer until SIGTERM or SIGINT."""
    run_until_told(RetrainerService(settings))
