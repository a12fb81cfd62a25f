"""The demo's producer: the code of `killick produce` in a thread, with a few bad records on the way."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from worker.produce import Producer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumers.history import History
    from consumers.kafka_sink import Sink

WRONG_BY = 10.0
AT_FIRST = 1_000  # records, before anything is known of who reads them
BEHIND = "what was sent is not counted yet"
LATE_STEPS = 72  # so long ago that the series state no longer knows what was said then


@dataclass(frozen=True)
class BadRecord:
    """A record that no careful producer sends, and what it is."""

    what: str
    key: bytes
    value: bytes


def bad_records(history: History, series: str, target: str) -> list[BadRecord]:
    """Four records that repeat or spoil what `series` said last in `history`."""
    column = history.features.index(target)
    mine = np.flatnonzero(history.series_index == history.series.index(series))
    mine = mine[history.present[mine, column]]
    last, early = int(mine[-1]), int(mine[-1 - LATE_STEPS])
    other = history.values.copy()
    other[last, column] += WRONG_BY
    key, value = _message(history, last)
    return [
        BadRecord("cut off in its middle", key, value[: len(value) // 2]),
        BadRecord("sent once before", key, value),
        BadRecord(f"again, but with another {target}", *_message(replace(history, values=other), last)),
        BadRecord("three days old", *_message(history, early)),
    ]


def _message(history: History, row: int) -> tuple[bytes, bytes]:
    key, value, _ = next(history.slice(row, row + 1).messages())
    return key, bytes(msgspec.json.format(value, indent=-1))


class _Stopped(Exception):
    """Leaves the producer's loop."""


class Feed:
    """Sends the parts one after the other, the bad records between the first and the second."""

    def __init__(
        self, sink: Sink, topic: str, parts: Sequence[History], bad: Sequence[BadRecord], speed: float | None
    ) -> None:
        self._sink = sink
        self._parts = parts
        self._bad = bad
        self._reason = "starting"
        self._pause_s = 0.0
        self._most = AT_FIRST
        self._stopping = threading.Event()
        self._producer = Producer(sink, topic, speed, self._report, self._hold)
        self._topic = topic
        self._thread = threading.Thread(target=self._run, name="producer", daemon=True)
        self.note = ""
        self.bad_sent = 0
        self.failure: BaseException | None = None

    @property
    def sent(self) -> int:
        """Records that were handed over."""
        return self._producer.sent + self.bad_sent

    @property
    def total(self) -> int:
        """Records that will be."""
        return sum(len(part) for part in self._parts) + len(self._bad)

    @property
    def done(self) -> bool:
        """The broker has everything."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def start(self, reason: str) -> None:
        """Begin, by waiting for a reason."""
        self._reason = reason
        self._thread.start()

    def wait(self, reason: str) -> None:
        """Send nothing as long as there is a reason; "" goes on."""
        self._reason = reason

    def until(self, most: int) -> None:
        """Send no more than so many records, all in all."""
        self._most = most

    def slow(self, pause_s: float) -> None:
        """Rest so long before each step of event time; 0 goes on at full speed."""
        self._pause_s = pause_s

    def stop(self) -> None:
        """Leave what is not sent yet."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=2.0)

    def _run(self) -> None:
        try:
            for number, part in enumerate(self._parts):
                if number == 1:
                    self._send_bad()
                self._producer.run(part)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - the thread that watches raises it
            self.failure = error

    def _send_bad(self) -> None:
        for record in self._bad:
            self._sink.send(self._topic, record.key, record.value)
            self.bad_sent += 1

    def _hold(self) -> str:
        if self._stopping.is_set():
            raise _Stopped
        if self._reason:
            return self._reason
        if self.sent >= self._most:
            return BEHIND
        time.sleep(self._pause_s)
        return ""

    def _report(self, done: int, note: str = "") -> None:
        del done
        self.note = note
