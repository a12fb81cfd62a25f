"""What `killick status` shows and the HTTP API tells: who answers where, how far, whether it follows the registry."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from worker import wiring
from worker.gate_told import GateTold, read_gate
from worker.requests import RequestStore
from worker.standing import Aside, standing_of
from worker.store import ModelStore
from worker.version_report import aliases_as_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumers.ledger import Ledger
    from models.server import Client
    from worker.settings import Settings

LAG_S = 0.2  # how long Kafka has to say where its logs end
ASK_AGAIN_S = 1.0


class LogEnds:
    """Where the logs of the observations' topic end, asked beside what comes next; of many threads one asks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._asking: tuple[float, Aside[dict[int, int]]] | None = None

    def ask(self) -> Aside[dict[int, int]]:
        """What is asked for now, or was a moment ago."""
        with self._lock:
            now = time.monotonic()
            if self._asking is None or (now - self._asking[0] > ASK_AGAIN_S and self._asking[1].over):
                self._asking = (now, Aside(lambda: _log_ends(self._settings)))
            return self._asking[1]


def read_status(settings: Settings, client: Client, log_ends: Aside[dict[int, int]]) -> dict[str, Any]:
    """What is there now; `lag` is None where Kafka did not answer in time.

    Raises:
        ServiceUnreachable: Redis did not answer.
        LedgerError: it is of another format.
    """
    registry = wiring.registry(settings, client)
    aliases = registry.aliases()
    paused = str(registry.last("pause", "rollback") or "") if aliases.paused else ""
    partitions = [found for ledger in wiring.ledgers(settings, client) if (found := _look(ledger)) is not None]
    monitored = wiring.monitored(settings, client)
    ends: Mapping[int, int] = (log_ends.found(LAG_S) or {}) if partitions else {}
    for part in partitions:
        end = ends.get(part["partition"])
        part["lag"] = None if end is None else max(0, end - part["next_offset"])
        part["monitored"] = monitored.offsets[part["partition"]]
    return {
        "model": settings.model.name,
        **aliases_as_json(aliases),
        "paused_why": paused,
        "monitor": monitored.runs,
        "partitions": partitions,
        **_updating(settings, client),
    }


def _updating(settings: Settings, client: Client) -> dict[str, Any]:
    """What is under way to replace the version that answers, in words; `killick verdicts` tells all of it."""
    queue = RequestStore(client, settings.model.name)
    store = ModelStore(client, settings.model.name)
    now, gate = queue.progress(), read_gate(store.state("gate")[1], GateTold)
    return {
        "requests": store.waiting()[0],
        "retraining": f"{now.done} of {now.total} trainings done, {now.note}" if now is not None else "",
        "trial": f"{gate.trial.words} ({gate.trial.state})" if gate.trial is not None else "",
        "guard": f"{gate.guard.words} ({gate.guard.state})" if gate.guard is not None else "",
    }


def _log_ends(settings: Settings) -> dict[int, int]:
    admin = wiring.admin(settings)
    try:
        topic = settings.kafka.observations
        return admin.log_ends(topic, admin.partitions(topic) or 0, LAG_S)
    finally:
        admin.close()


def _look(ledger: Ledger) -> dict[str, Any] | None:
    standing = standing_of(ledger)
    if standing is None:
        return None
    state, seat = standing.state, standing.incumbent
    return {
        "partition": standing.partition,
        "incumbent": seat.version if seat else None,
        "since_offset": seat.join_offset if seat else None,
        "shadows": standing.shadows,
        "generation": standing.generation,
        "state": state.kind if state else None,
        "state_version": state.version if state else None,
        "state_why": state.why if state else "",
        "next_offset": standing.head.next,
        "published": standing.head.mark,
        "series": ledger.series_count(),
        "counters": ledger.counters(),
    }
