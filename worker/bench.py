"""`killick bench throughput`: forecasts a second on real Kafka and Redis, beside a ceiling from the same run.

The ceiling is the same loop without model and ledger: poll, decode, encode a forecast, send, acknowledged.
Each row has its own topics and model name; both are removed at the end. Loops run in child processes, so that
memory is theirs alone; ceiling and service take turns, and medians are reported.
"""

from __future__ import annotations

import multiprocessing
import resource
import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from consumers.observer import Observer
from models.errors import KillickError, ServiceUnreachable
from models.times import HOUR_MS
from worker import wiring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from consumers.kafka_sink import Sink
    from worker.settings import Settings

HORIZON = 5
UNITS = (64, 64)
PARTITIONS = 2
START_STEP = 400_000
PACED_RATE = 2_000  # observations a second while latency is measured
PATIENCE_S = 120.0
WARM_UP = 2_048  # observations before the clock starts


@dataclass(frozen=True)
class Row:
    """What one row measures: so many series, so many observations in a burst, then some at an even pace."""

    series: int
    burst: int
    paced: int


ROWS = (
    Row(1_000, 100_000, 10_000),
    Row(20_000, 120_000, 10_000),
    Row(200_000, 400_000, 10_000),
    Row(7, 100_000, 10_000),
)
QUICK = (Row(1_000, 20_000, 2_000),)


class Pipe(Protocol):
    """How a loop reports, and hears what comes next."""

    def send(self, obj: Any, /) -> None:
        """Report."""

    def recv(self) -> Any:
        """What comes next."""

    def poll(self) -> bool:
        """Whether anything came."""


class Timings(Observer):
    """An observer that keeps latencies."""

    def __init__(self) -> None:
        self.latencies: list[tuple[float, int]] = []

    def acknowledged(self, seconds: float, forecasts: int) -> None:
        """From poll to acknowledgement, for so many forecasts."""
        self.latencies.append((seconds, forecasts))

    def quantile_ms(self, q: float) -> float:
        """A quantile of the latencies in milliseconds, every forecast counted."""
        seconds = np.repeat([s for s, _ in self.latencies], [n for _, n in self.latencies])
        return float(np.quantile(seconds, q) * 1000) if len(seconds) else float("nan")


def throughput(
    settings: Settings, rows: tuple[Row, ...], repeats: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One dictionary per row, as `killick bench throughput --json` prints them.

    Raises:
        ServiceUnreachable: Kafka or Redis did not answer, or a loop did not end.
    """
    found = []
    for row in rows:
        with prepared(settings, row, say) as own:
            found.append(_measure(own, row, repeats, say))
    return found


@contextmanager
def prepared(settings: Settings, row: Row, say: Callable[[str], None]) -> Iterator[Settings]:
    """Settings with topics, a model name and a registered version of their own, and the burst in Kafka."""
    token = f"bench-{secrets.token_hex(4)}"
    kafka = {"observations": token, "predictions": f"{token}-out", "dead_letters": f"{token}-dead", "group": ""}
    model = {"name": token, "features": ("value",), "target": "value", "horizon": HORIZON}
    own = settings.model_copy(
        update={
            "model": settings.model.model_copy(update=model),
            "kafka": settings.kafka.model_copy(update=kafka),
            "network": settings.network.model_copy(update={"units": UNITS}),
        }
    )
    topics = [own.kafka.observations, own.kafka.predictions, own.kafka.dead_letters]
    admin = wiring.admin(own)
    client = wiring.redis_client(own)
    try:
        for topic in topics:
            admin.create_topic(topic, PARTITIONS)
        _register(own)
        say(f"{row.series:,} series: writing {row.burst + WARM_UP:,} observations")
        with closing(wiring.sink(own)) as sink:
            _send(sink, own.kafka.observations, row, 0, row.burst + WARM_UP)
            if not sink.flush(PATIENCE_S):
                raise ServiceUnreachable("Kafka did not take the observations in time")
        yield own
    finally:
        admin.delete_topics(topics)
        admin.close()
        keys = list(client.scan_iter(f"killick:{{{token}*", count=10_000))
        for key in keys:
            client.unlink(key)
        client.close()


def _register(own: Settings) -> None:
    from models.weights import fresh_weights, weights_to_bytes

    architecture = own.architecture(gain=(1.0,) * HORIZON)
    weights = fresh_weights(architecture, seed=1)
    rng = np.random.default_rng(1)
    weights["head.kernel"] = rng.normal(scale=0.1, size=weights["head.kernel"].shape).astype(np.float32)
    with closing(wiring.redis_client(own)) as client:
        wiring.registry(own, client).register(
            architecture, weights_to_bytes(weights, architecture), training={}, parent=None,
            actor="bench", reason="benchmark", now_ms=int(time.time() * 1000),
        )  # fmt: skip


def _send(sink: Sink, topic: str, row: Row, begin: int, end: int, rate: float | None = None) -> None:
    """Observations number `begin … end - 1`, series by series; at `rate` a second, or as fast as it goes."""
    values = np.random.default_rng(begin).normal(size=end - begin).round(3)
    began = time.monotonic()
    for i, value in enumerate(values.tolist()):
        step, series = divmod(begin + i, row.series)
        time_ms = (START_STEP + step) * HOUR_MS
        sink.send(topic, b"s%d" % series, b'{"time":%d,"values":{"value":%r}}' % (time_ms, value))
        if rate is not None:
            ahead = began + i / rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)


def _measure(own: Settings, row: Row, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    ceilings, rates = [], []
    answer: dict[str, Any] = {}
    for turn in range(repeats):
        say(f"{row.series:,} series: turn {turn + 1} of {repeats}, ceiling")
        ceilings.append(_in_child(_run_ceiling, own, row, None)["rate"])
        say(f"{row.series:,} series: turn {turn + 1} of {repeats}, killick")
        last = turn == repeats - 1
        name = own.model.model_copy(update={"name": f"{own.model.name}.{turn}"})
        turned = own.model_copy(update={"model": name})
        _register(turned)
        answer = _in_child(run_service, turned, row, row.paced if last else None)
        rates.append(answer.pop("rate"))
    rate, ceiling = statistics.median(rates), statistics.median(ceilings)
    return {
        "client": "kafka-python",
        "series": row.series,
        "processes": 1,
        "forecasts_per_s": round(rate),
        "ceiling_per_s": round(ceiling),
        "ratio": round(rate / ceiling, 3),
        **answer,
    }


def _in_child(
    work: Callable[[Settings, Row, Connection], None], own: Settings, row: Row, paced: int | None
) -> dict[str, Any]:
    """What a child process reports; observations at an even pace are sent once it has drained the burst.

    Raises:
        ServiceUnreachable: it did not report in time.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=work, args=(own, row, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        answer = _receive(ours, child)
        if paced is not None:
            with closing(wiring.sink(own)) as sink:
                first = row.burst + WARM_UP
                _send(sink, own.kafka.observations, row, first, first + paced, PACED_RATE)
                sink.flush(PATIENCE_S)
            ours.send(paced)
            answer |= _receive(ours, child)
        else:
            ours.send(None)
        child.join(PATIENCE_S)
    finally:
        if child.is_alive():
            child.kill()
            child.join()
    return answer


def _receive(pipe: Connection, child: Any) -> dict[str, Any]:
    if not pipe.poll(PATIENCE_S):
        raise ServiceUnreachable(f"the loop of the benchmark did not end in {PATIENCE_S:.0f} s")
    try:
        answer: dict[str, Any] = pipe.recv()
    except EOFError as error:
        child.join(1.0)
        raise KillickError(f"the loop of the benchmark ended with exit code {child.exitcode}") from error
    return answer


def _run_ceiling(own: Settings, row: Row, pipe: Pipe) -> None:
    """The loop without model and ledger."""
    from collections import deque

    from consumers.codec import Decoder, Encoder

    form = own.series_form()
    decoder, zeros = Decoder(form, own.max_ahead_ms), np.full((row.burst, HORIZON), 0.123456, np.float32)
    topics = own.kafka
    wanted = row.burst + WARM_UP
    hand = own.model_copy(update={"kafka": topics.model_copy(update={"assignment": "manual"})})
    with closing(wiring.source(hand)) as source, closing(wiring.sink(own)) as sink:
        for number in range(PARTITIONS):
            source.start(number, 0)
        encoders = [Encoder(form, own.model.name, topics.observations, number) for number in range(PARTITIONS)]
        slots: list[dict[str, int]] = [{} for _ in range(PARTITIONS)]
        done, began = 0, 0.0
        waiting: deque[Any] = deque()
        while done < wanted or waiting:
            for number, records in source.poll(0.1 if not waiting else 0.005).items():
                arrivals = decoder.decode(records, records[0].offset, records[-1].offset + 1)
                known = slots[number]
                slot = np.array([known.setdefault(name, len(known)) for name in arrivals.series])
                encoded = encoders[number].encode(1, list(known), slot, arrivals.step, zeros[: len(records)])
                for record, (key, value) in zip(records, encoded, strict=True):
                    headers = encoders[number].headers(record.offset)
                    waiting.append(sink.send(topics.predictions, key, value, headers))
                done += len(records)
            while waiting and waiting[0].done:
                waiting.popleft()
            if not began and done >= WARM_UP:
                began, warm = time.monotonic(), done
        pipe.send({"rate": (done - warm) / (time.monotonic() - began)})
        pipe.recv()


def run_service(own: Settings, row: Row, pipe: Pipe) -> None:
    """The consumer as `killick consumer` runs it, without its pages."""
    timings = Timings()
    with (
        closing(wiring.redis_client(own)) as client,
        closing(wiring.sink(own)) as sink,
        ThreadPoolExecutor(1) as loading,
    ):
        consumer = wiring.consumer(own, client, loading, sink, wiring.limits(own), timings)
        began, warm = 0.0, 0

        def published() -> int:
            return sum(holding.mark for holding in consumer.held.values())

        def folded() -> int:
            return sum(holding.next for holding in consumer.held.values())

        wanted = row.burst + WARM_UP
        while published() < wanted:
            consumer.step(time.monotonic())
            if not began and folded() >= WARM_UP and len(consumer.held) == PARTITIONS:
                began, warm = time.monotonic(), folded()
        rate = (wanted - warm) / (time.monotonic() - began)
        per_series = _bytes_per_series(consumer)
        timings.latencies.clear()
        pipe.send({"rate": rate})
        while not pipe.poll():
            consumer.step(time.monotonic())
        paced = pipe.recv()
        if paced is not None:
            while published() < wanted + paced:
                consumer.step(time.monotonic())
            pipe.send(
                {
                    "p50_ms": round(timings.quantile_ms(0.5), 2),
                    "p99_ms": round(timings.quantile_ms(0.99), 2),
                    "redis_bytes_per_pair": round(_redis_bytes_per_pair(own, consumer), 1),
                    "bytes_per_series": round(per_series),
                    "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                }
            )
        consumer.close()


def _bytes_per_series(consumer: Any) -> float:
    total = series = 0
    for holding in consumer.held.values():
        partition = holding.partition
        arrays = [*partition.series.arrays().values()]
        for carried in partition.carried.values():
            arrays += carried.arrays().values()
        total += sum(array.nbytes // len(array) * len(partition.names) for array in arrays if len(array))
        series += len(partition.names)
    return total / max(series, 1)


def _redis_bytes_per_pair(own: Settings, consumer: Any) -> float:
    """Bytes of the blocks that the ledger still holds, by the pairs in them."""
    from consumers.ledger import Ledger

    with closing(wiring.redis_client(own)) as client:
        ledgers = [Ledger(client, own.model.name, number) for number in consumer.held]
        size = sum(
            int(client.memory_usage(f"killick:{{{own.model.name}/{ledger.partition}}}:blocks", samples=0) or 0)
            for ledger in ledgers
        )
        return size / max(1, sum(len(block) for ledger in ledgers for block in ledger.blocks()))
