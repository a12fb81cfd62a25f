"""Sends recorded observations to Kafka: at their own pace, a multiple of it, or as fast as it goes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from models.errors import DataError, ServiceUnreachable

if TYPE_CHECKING:
    from consumers.history import History
    from worker.progress import Report

FLUSH_EVERY = 10_000  # records: bounds what is lost sight of while the broker is away
FLUSH_S = 2.0
RETRY_S = 1.0
NAP_S = 0.25


class Sends(Protocol):
    """What producing needs of a `consumers.kafka_sink.Sink`."""

    def send(self, topic: str, key: bytes | None, value: bytes | None) -> object:
        """Hand over one record."""

    def flush(self, timeout_s: float) -> bool:
        """Whether all that was handed over has arrived, or failed, in this time."""

    def failed(self) -> Exception | None:
        """The last failure that no waiting repairs."""


class Holds(Protocol):
    """Says why nothing may be sent now."""

    def __call__(self) -> str:
        """The reason to wait; "" sends on."""


@dataclass(frozen=True)
class Sent:
    """What was sent, and in what time."""

    observations: int
    seconds: float

    @property
    def per_second(self) -> float:
        """The rate over the whole time."""
        return self.observations / self.seconds if self.seconds > 0 else 0.0


def never() -> str:
    """No reason to wait."""
    return ""


@dataclass
class Producer:
    """Sends histories to one topic. `speed` is event time over real time; None sends as fast as it goes."""

    sink: Sends
    topic: str
    speed: float | None = None
    report: Report | None = None
    hold: Holds = never
    sent: int = 0

    def run(self, history: History) -> Sent:
        """Sends all of it, waiting while the broker is away; returns when the broker has it.

        Records bear the time of sending: Kafka's retention counts from it, and would delete records that bear
        the time of an old observation within minutes.

        Raises:
            DataError: the broker refused a record for good.
        """
        started_s = time.monotonic()
        first_ms = int(history.time_ms[0]) if len(history) else 0
        held_s = 0.0
        last_ms = first_ms - 1
        for key, value, time_ms in history.messages():
            if time_ms != last_ms:
                held_s += self._wait_while_held()
                if self.speed is not None:
                    self._wait_until(started_s + held_s + (time_ms - first_ms) / 1_000 / self.speed)
                last_ms = time_ms
            self._send(key, value)
            if self.sent % FLUSH_EVERY == 0:
                self.finish()
        self.finish()
        return Sent(self.sent, time.monotonic() - started_s)

    def finish(self) -> None:
        """Returns when the broker has all that was handed over.

        Raises:
            DataError: it refused a record for good.
        """
        while not self.sink.flush(FLUSH_S):
            self._say("waiting for Kafka to take what was sent")
        failure = self.sink.failed()
        if failure is not None:
            raise DataError(
                f"topic {self.topic!r} refused a record ({type(failure).__name__}: {failure})",
                "see the topic's limits, and the rights of this user",
            ) from failure
        self._say("")

    def _send(self, key: bytes, value: bytes) -> None:
        while True:
            try:
                self.sink.send(self.topic, key, value)
            except ServiceUnreachable as error:
                self._say(f"waiting for Kafka ({error.message})")
                time.sleep(RETRY_S)
            else:
                self.sent += 1
                return

    def _wait_while_held(self) -> float:
        """Seconds that a reason to wait took."""
        began_s = time.monotonic()
        while reason := self.hold():
            self._say(reason)
            time.sleep(NAP_S)
        return time.monotonic() - began_s

    def _wait_until(self, due_s: float) -> None:
        while (left_s := due_s - time.monotonic()) > 0:
            self._say("")
            time.sleep(min(left_s, NAP_S))

    def _say(self, note: str) -> None:
        if self.report is not None:
            self.report(self.sent, note)
