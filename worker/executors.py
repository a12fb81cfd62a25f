"""Where trainings run: in processes of this machine, or on a Dask cluster; all as `concurrent.futures.Executor`.

A service trains nothing itself: what a training takes of memory is given back with its process, and a training that is
not wanted any more is ended with it. A backtest, which has nothing else to do meanwhile, trains where it is.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import time
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from models.errors import ConfigError, KillickError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PROCESSES = "processes"
INLINE = "inline"  # in this process, one after the other: no setting says so
SET_PDEATHSIG = 1  # prctl(2)
END_S = 5.0  # what a process has to end by itself
CONNECT_S = 10
TICK_S = 0.5

Returned = TypeVar("Returned")


@contextmanager
def trainings(where: str, workers: int) -> Iterator[Executor]:
    """An executor of `workers` trainings side by side; nothing of it is left afterwards, whatever was under way.

    Raises:
        ConfigError: a cluster is asked for, and its client is not installed.
        ServiceUnreachable: the cluster does not answer.
    """
    if where == INLINE:
        yield Inline()
    elif where == PROCESSES:
        with _processes(workers) as executor:
            yield executor
    else:
        with _cluster(where) as executor:
            yield executor


class Inline(Executor):
    """Runs what it is given before it returns; Ctrl-C ends it there."""

    def submit(self, work: Callable[..., Returned], /, *arguments: Any, **options: Any) -> Future[Returned]:
        """The outcome, which is there already."""
        future: Future[Returned] = Future()
        try:
            future.set_result(work(*arguments, **options))
        except Exception as error:  # noqa: BLE001 - handed to whoever asks for the outcome
            future.set_exception(error)
        return future


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_bound, initargs=(os.getpid(),)
    )
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        ours = [child for child in multiprocessing.active_children() if child not in before]
        for child in ours:
            child.terminate()
        deadline = time.monotonic() + END_S
        for child in ours:
            child.join(max(0.0, deadline - time.monotonic()))
            if child.exitcode is None:
                child.kill()
                child.join()


def _bound(parent: int) -> None:
    """Called in each new process: it ends with its parent, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def knock(address: str) -> None:
    """Whether something listens at a cluster's address, asked without its client, which is slow to import.

    Raises:
        ConfigError: the cluster's client is not installed.
        ServiceUnreachable: nothing listens.
    """
    if find_spec("distributed") is None:
        raise _client_missing(address)
    host, _, port = address.partition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise _silent(address, error) from error


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        import distributed  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise _client_missing(address) from error
    try:
        made: Any = distributed.Client
        client = made(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise _silent(address, error) from error
    try:
        if not client.scheduler_info()["workers"]:
            raise ServiceUnreachable(f"the Dask cluster at {address} has no worker", "start some: `dask worker`")
        yield client.get_executor(pure=False)
    finally:
        with suppress(OSError, TimeoutError):
            client.close()


def _client_missing(address: str) -> ConfigError:
    return ConfigError(
        f"retraining.executor = {address!r} needs the extra `dask`, which is not installed",
        "pip install 'killick[dask]', or set retraining.executor = \"processes\"",
    )


def _silent(address: str, error: Exception) -> ServiceUnreachable:
    return ServiceUnreachable(
        f"the Dask cluster at {address} does not answer ({error})", "is its scheduler running? retraining.executor"
    )


class TrainingError(KillickError):
    """A training's process died, or all took too long."""


class Ended(KillickError):
    """A retraining that is not wanted any more."""


class Work:
    """Gives tasks to an executor and waits for them, telling meanwhile how far they are."""

    def __init__(
        self,
        executor: Executor,
        pulse: Callable[[int, int, str], None],
        deadline_s: float,
        when_short: str = "lower retraining.workers or retraining.series",
    ) -> None:
        """`pulse` is called with done, total and a note at least twice a second; it raises `Ended` to end it all.

        `deadline_s` is on the monotonic clock; `when_short` says what to do where memory was short.
        """
        self._executor = executor
        self._pulse = pulse
        self._deadline_s = deadline_s
        self._when_short = when_short
        self._done = self._total = 0

    def expect(self, count: int) -> None:
        """So many tasks more will come: what `pulse` is told as the total."""
        self._total += count

    def run(self, note: str, function: Callable[..., Returned], calls: Sequence[tuple[Any, ...]]) -> list[Returned]:
        """What the function gives for each call's arguments, in their order.

        Raises:
            Ended: it is not wanted any more.
            DataError, VersionError: as the function.
            TrainingError: a process died, or it takes too long.
        """
        futures = [self._executor.submit(function, *arguments) for arguments in calls]
        waiting, before = set(futures), self._done
        try:
            while waiting:
                done, waiting = wait(waiting, TICK_S, FIRST_COMPLETED)
                for future in done:
                    future.result()
                self._done = before + len(futures) - len(waiting)
                self._pulse(self._done, max(self._total, self._done), note)
                if time.monotonic() > self._deadline_s:
                    raise TrainingError(
                        "the retraining took too long", "raise retraining.timeout, or try less: rates, recents, repeats"
                    )
        except BrokenExecutor as error:
            raise TrainingError(
                f"the process of a training ended by force ({error})",
                f"was memory short? {self._when_short}",
            ) from error
        finally:
            for future in waiting:
                future.cancel()
        return [future.result() for future in futures]
