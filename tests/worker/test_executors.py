"""Where trainings run: given back with all they took, ended when nobody wants them, on this machine or a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import distributed
import pytest

from models.errors import DataError, ServiceUnreachable
from worker.executors import INLINE, PROCESSES, Ended, TrainingError, Work, trainings
from worker.sections_updating import check_executor

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FAR_S = 1e9


def work(executor: object, *, deadline_s: float = FAR_S) -> Work:
    """Work that nobody ends."""
    return Work(executor, lambda *_: None, deadline_s)  # type: ignore[arg-type]


def pid(_number: int) -> int:
    """Where it runs."""
    time.sleep(0.05)
    return os.getpid()


def long() -> None:
    """Takes longer than anybody waits."""
    time.sleep(600)


def dies() -> None:
    """Ends its process as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def complains(number: int) -> int:
    """Refuses what is odd."""
    if number % 2:
        raise DataError(f"{number} is odd", "give an even one")
    return number


def interrupted() -> None:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


def alive(process: int) -> bool:
    """Whether it is there and no zombie."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(process: int) -> None:
    """Fail where it does not end."""
    deadline = time.monotonic() + 20
    while alive(process):
        assert time.monotonic() < deadline, f"process {process} is still there"
        time.sleep(0.02)


def test_trainings_run_in_processes_that_end_with_them() -> None:
    """Two side by side, neither ours; answers in the order of the calls; nothing is left."""
    with trainings(PROCESSES, 2) as executor:
        found = work(executor).run("pids", pid, [(number,) for number in range(8)])
    assert os.getpid() not in found
    assert 1 <= len(set(found)) <= 2
    for process in set(found):
        wait_until_gone(process)


def test_a_backtest_trains_where_it_is() -> None:
    """In this process, in order, one after the other; refusals come through, a signal is not swallowed."""
    with trainings(INLINE, 4) as executor:
        assert work(executor).run("pids", pid, [(0,), (1,)]) == [os.getpid()] * 2
        assert work(executor).run("evens", complains, [(4,), (2,)]) == [4, 2]
        with pytest.raises(DataError, match="3 is odd: give an even one"):
            work(executor).run("odd", complains, [(2,), (3,)])
        with pytest.raises(KeyboardInterrupt):
            work(executor).run("signal", interrupted, [()])
    with pytest.raises(ValueError, match='should be "processes"'):
        check_executor(INLINE)  # a retrainer, whose lease would run out meanwhile, must not


def test_a_refusal_comes_through_as_it_was() -> None:
    """The message and the cure of what a training refuses."""
    with trainings(PROCESSES, 1) as executor, pytest.raises(DataError, match="3 is odd: give an even one"):
        work(executor).run("odd", complains, [(2,), (3,)])


def test_a_process_that_is_killed_ends_the_retraining_with_words() -> None:
    """What the kernel does when memory is short."""
    with trainings(PROCESSES, 1) as executor, pytest.raises(TrainingError, match=r"by force .*: was memory short"):
        work(executor).run("death", dies, [()])


def test_what_nobody_wants_any_more_is_ended_at_once() -> None:
    """The pulse is asked at least twice a second; the process that was at work is gone."""
    pulses = 0

    def pulse(done: int, total: int, note: str) -> None:
        nonlocal pulses
        pulses += 1
        assert (done, total, note) == (0, 5, "long")
        if pulses == 2:
            raise Ended("not wanted", "nothing")

    began = time.monotonic()
    with trainings(PROCESSES, 1) as executor:
        process = executor.submit(os.getpid).result()
        one = Work(executor, pulse, FAR_S)
        one.expect(5)
        with pytest.raises(Ended):
            one.run("long", long, [()])
    wait_until_gone(process)
    assert time.monotonic() - began < 30


def test_what_takes_too_long_is_given_up() -> None:
    """The message says what to change."""
    with (
        trainings(PROCESSES, 1) as executor,
        pytest.raises(TrainingError, match=r"too long: raise retraining\.timeout, or try less"),
    ):
        work(executor, deadline_s=time.monotonic()).run("long", long, [()])


def test_a_training_ends_with_its_retrainer() -> None:
    """After a kill -9 of the process that asked for it none goes on."""
    code = (
        "import os, sys, time\n"
        "from worker.executors import trainings\n"
        "from tests.worker.test_executors import long\n"
        "if __name__ == '__main__':\n"
        "    with trainings('processes', 1) as executor:\n"
        "        print(executor.submit(os.getpid).result(), flush=True)\n"
        "        executor.submit(long)\n"
        "        time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        assert alive(process)
        parent.kill()
    wait_until_gone(process)


@pytest.fixture
def cluster() -> Iterator[str]:
    """A Dask cluster of two worker processes on this machine: its address."""
    made: type = distributed.LocalCluster
    with made(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50) as running:
        yield running.scheduler_address


def test_trainings_run_on_a_cluster(cluster: str) -> None:
    """Both workers have their share; refusals come through."""
    with trainings(cluster, 2) as executor:
        found = work(executor).run("pids", pid, [(number,) for number in range(12)])
        with pytest.raises(DataError, match="3 is odd"):
            work(executor).run("odd", complains, [(3,)])
    assert len(set(found)) == 2
    assert os.getpid() not in found


def test_a_cluster_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its address, and what to look at."""
    monkeypatch.setattr("worker.executors.CONNECT_S", 0.2)
    with (
        pytest.raises(ServiceUnreachable, match=r"the Dask cluster at tcp://127\.0\.0\.1:1 does not answer"),
        trainings("tcp://127.0.0.1:1", 1),
    ):
        pass
