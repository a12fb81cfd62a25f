"""`killick up` runs its processes, names their lines, starts what crashed again, and leaves nobody behind."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from models.errors import ConfigError
from tests.services.processes import alive, children, gone
from worker import up
from worker.settings_reading import load
from worker.up import Lines, Part, Supervisor, parts, write_targets

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.settings import Settings

ROOT = Path(__file__).parents[2]
STAYS = "import time; print('here', flush=True); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
WORDS = ("/bin/killick",)


def part(name: str, program: str, kind: str = "consumer") -> Part:
    """A process that runs a Python program."""
    return Part(name, kind, (sys.executable, "-c", program), {}, "127.0.0.1", 9464)


class Running:
    """A supervisor with its output, stopped as a signal would; `run` is in the thread that calls it."""

    def __init__(self, *wanted: Part, stop_s: float = up.STOP_S, json_lines: bool = False) -> None:
        self.output = io.BytesIO()
        lines = Lines(self.output, [one.name for one in wanted], json_lines=json_lines)
        self.supervisor = Supervisor(wanted, lines, stop_s=stop_s)

    @property
    def lines(self) -> list[str]:
        """What came out so far."""
        return self.output.getvalue().decode().splitlines()

    def until(self, ready: Callable[[], bool], timeout_s: float = 20.0) -> bool:
        """Run until `ready`, then stop; whether all ended in order."""

        def wait() -> None:
            deadline = time.monotonic() + timeout_s
            while not ready() and time.monotonic() < deadline:
                time.sleep(0.02)
            self.supervisor.stop()

        waiting = threading.Thread(target=wait)
        waiting.start()
        try:
            return self.supervisor.run()
        finally:
            waiting.join()


def settings_of(text: str, folder: Path) -> Settings:
    """The settings of a file with this content."""
    file = folder / "killick.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, environment=False).settings


def test_every_line_comes_out_under_its_process_name() -> None:
    """Lines of several processes come out whole, each with its name before it."""
    running = Running(part("consumer-1", STAYS), part("monitor", STAYS.replace("here", "there")))
    assert running.until(lambda: len(running.lines) >= 2)
    assert sorted(running.lines) == ["consumer-1 | here", "monitor    | there"]


def test_json_lines_stay_json() -> None:
    """Where logs are JSON the name is one more field, and what is not JSON becomes a message."""
    program = 'print(\'{"level": "INFO"}\'); print(\'plain "words"\', flush=True); import time; time.sleep(60)'
    running = Running(part("consumer-1", program), json_lines=True)
    running.until(lambda: len(running.lines) >= 2)
    assert [json.loads(line) for line in running.lines] == [
        {"process_name": "consumer-1", "level": "INFO"},
        {"process_name": "consumer-1", "message": 'plain "words"'},
    ]


def test_a_process_that_refuses_its_settings_ends_all_with_its_message() -> None:
    """Exit code 2 is no crash: the others are stopped, and the error says who refused what, on all its lines."""
    refusing = "import sys; print('killick: settings can not be used:\\n  x is not a setting'); sys.exit(2)"
    running = Running(part("consumer-1", STAYS), part("monitor", refusing, "monitor"))
    with pytest.raises(ConfigError) as caught:
        running.supervisor.run()
    assert str(caught.value) == (
        "monitor refused to run (exit code 2): settings can not be used:\n  x is not a setting"
    )
    assert not any(process.running for process in running.supervisor.processes)


def test_a_crash_is_counted_and_its_process_started_again_later_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three crashes in a row are three loud lines with growing waits; the others run on."""
    monkeypatch.setattr(up, "FIRST_WAIT_S", 0.2)
    running = Running(part("consumer-1", "print('up', flush=True); raise SystemExit(1)"), part("consumer-2", STAYS))
    crashing, steady = running.supervisor.processes
    began = time.monotonic()
    assert running.until(lambda: crashing.crashes >= 3)
    assert time.monotonic() - began >= 0.2 + 0.4
    assert running.lines.count("consumer-1 | up") == 3
    assert steady.crashes == 0
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [line.rpartition(": ")[2] for line in said] == [
        "crash 1; it is started again in 0.2 s",
        "crash 2; it is started again in 0.4 s",
        "crash 3; it is started again in 0.8 s",
    ]
    assert "with exit code 1" in said[0]


def test_waits_are_bounded_and_begin_anew_after_a_steady_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that crashes for the twentieth time waits a minute, one that had run for long a second."""
    process = up.Process(part("consumer-1", "raise SystemExit(1)"), Lines(io.BytesIO(), [], json_lines=False))
    waits = []
    now_s = 0.0
    for run_s in [0.0] * 8 + [up.STEADY_S, 0.0]:
        process.look(now_s)
        while process.running:
            time.sleep(0.01)
        process.look(now_s + run_s)
        waits.append(process._again_s - now_s - run_s)
        now_s = process._again_s
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 1, 2]


def test_a_process_killed_by_a_signal_is_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    """The line says which signal it was."""
    running = Running(part("consumer-1", "import os; os.kill(os.getpid(), 9)"))
    running.until(lambda: running.supervisor.processes[0].crashes >= 1)
    assert any("with SIGKILL" in record.getMessage() for record in caplog.records)


def test_processes_are_stopped_kind_by_kind() -> None:
    """Consumers end before the monitor is asked to: what they committed last is seen."""
    slow = (
        "import signal, sys, time\n"
        "def stop(*_): time.sleep(0.5); print('consumer ends', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop); print('ready', flush=True); time.sleep(60)"
    )
    quick = (
        "import signal, sys, time\n"
        "def stop(*_): print('monitor ends', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop); print('ready', flush=True); time.sleep(60)"
    )
    running = Running(part("consumer-1", slow), part("monitor", quick, "monitor"))
    assert running.until(lambda: sum("ready" in line for line in running.lines) == 2)
    assert [line.split(" | ")[1] for line in running.lines[-2:]] == ["consumer ends", "monitor ends"]


def test_who_does_not_end_in_time_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    """The time to end is bounded for all together, and the result says that it was not in order."""
    running = Running(part("consumer-1", DEAF), part("monitor", DEAF, "monitor"), stop_s=0.5)
    began: list[float] = []

    def ready() -> bool:
        if sum("deaf" in line for line in running.lines) == 2:
            began.append(time.monotonic())
        return bool(began)

    assert running.until(ready) is False
    assert time.monotonic() - began[0] < 5
    assert "consumer-1, monitor did not end in time" in caplog.text
    assert not any(process.running for process in running.supervisor.processes)


def test_asked_twice_it_does_not_wait() -> None:
    """A second Ctrl-C kills what still runs."""
    running = Running(part("consumer-1", DEAF), stop_s=60)

    def ready() -> bool:
        if running.lines:
            running.supervisor.stop()
            return True
        return False

    began = time.monotonic()
    assert running.until(ready) is False
    assert time.monotonic() - began < 30


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's own")
def test_no_process_outlives_a_kill() -> None:
    """When `up` itself is killed, its processes go with it."""
    program = (
        "import sys\n"
        "from worker.up import Lines, Part, Supervisor\n"
        "show = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "def part(name): return Part(name, 'j', (sys.executable, '-c', show), {}, '127.0.0.1', 1)\n"
        "wanted = [part('a'), part('b')]\n"
        "Supervisor(wanted, Lines(sys.stdout.buffer, [], json_lines=False)).run()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline().split("|")[1]) for _ in range(2)]
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
    assert gone(pids)


def test_ports_are_counted_up_past_those_of_others(tmp_path: Path) -> None:
    """The second consumer does not take the monitor's port, nor the second retrainer that of the API."""
    wanted = parts(settings_of("", tmp_path), {"monitor": 1, "consumer": 3, "retrainer": 2, "api": 1}, WORDS)
    assert [(one.name, one.port, dict(one.settings)) for one in wanted] == [
        ("api", 9467, {"api.port": "9467"}),
        ("consumer-1", 9464, {"http.port": "9464"}),
        ("consumer-2", 9468, {"http.port": "9468"}),
        ("consumer-3", 9469, {"http.port": "9469"}),
        ("monitor", 9465, {"monitor.port": "9465"}),
        ("retrainer-1", 9466, {"retraining.port": "9466"}),
        ("retrainer-2", 9470, {"retraining.port": "9470"}),
    ]
    assert [one.words for one in wanted[3:5]] == [("/bin/killick", "consumer"), ("/bin/killick", "monitor")]
    assert [one.port for one in parts(settings_of("", tmp_path), {"consumer": 3}, WORDS)] == [9464, 9465, 9466]


def test_port_0_takes_free_ones(tmp_path: Path) -> None:
    """With http.port 0 every consumer has a port of its own that is known beforehand."""
    wanted = parts(settings_of("[http]\nport = 0\n", tmp_path), {"consumer": 3}, WORDS)
    assert len({one.port for one in wanted} | {0}) == 4


def test_static_members_have_names_of_their_own(tmp_path: Path) -> None:
    """Two consumers with one instance name would throw each other out of the group."""
    settings = settings_of('[kafka]\ninstance = "here"\n', tmp_path)
    wanted = parts(settings, {"consumer": 2}, WORDS)
    assert [one.settings["kafka.instance"] for one in wanted] == ["here-1", "here-2"]
    assert "kafka.instance" not in parts(settings, {"consumer": 1}, WORDS)[0].settings


def test_partitions_by_hand_allow_one_consumer(tmp_path: Path) -> None:
    """Two consumers that each take all partitions are refused before anything runs."""
    settings = settings_of('[kafka]\nassignment = "manual"\n', tmp_path)
    assert len(parts(settings, {"consumer": 1}, WORDS)) == 1
    with pytest.raises(ConfigError, match=r"--consumers 2 with kafka.assignment"):
        parts(settings, {"consumer": 2}, WORDS)


def test_targets_are_what_prometheus_reads(tmp_path: Path) -> None:
    """One file a job; a wildcard is reached at this machine; what does not run is listed nowhere."""
    settings = settings_of('[http]\nhost = "0.0.0.0"\n', tmp_path)
    folder = tmp_path / "targets"
    with pytest.raises(ConfigError, match="name a folder that is there"):
        write_targets(folder, parts(settings, {"consumer": 1}, WORDS))
    folder.mkdir()
    write_targets(folder, parts(settings, {"consumer": 2, "monitor": 1, "retrainer": 1}, WORDS))
    assert read_yaml(folder) == {
        "apis.yml": [{"targets": []}],
        "consumers.yml": [{"targets": ["127.0.0.1:9464", "127.0.0.1:9467"]}],
        "monitors.yml": [{"targets": ["127.0.0.1:9465"]}],
        "retrainers.yml": [{"targets": ["127.0.0.1:9466"]}],
    }
    write_targets(folder, parts(settings, {"consumer": 1}, WORDS))
    assert read_yaml(folder)["monitors.yml"] == [{"targets": []}]


def read_yaml(folder: Path) -> dict[str, object]:
    """All files of a folder, by name."""
    return {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in folder.iterdir()}


def test_an_address_of_ipv6_is_bracketed(tmp_path: Path) -> None:
    """An address with colons is told from its port."""
    settings = settings_of('[http]\nhost = "fd00::1"\n', tmp_path)
    assert parts(settings, {"consumer": 1}, WORDS)[0].address == "[fd00::1]:9464"


def test_the_command_ends_with_the_message_of_a_process_that_refused(tmp_path: Path) -> None:
    """`killick up` with a port that is taken ends with exit code 2 and the consumer's own words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = killick_up(tmp_path, f"[http]\nport = {port}\n", "--no-monitor", "--retrainers", "0")
    assert done.returncode == 2, done.stderr
    assert f"killick: consumer-1 refused to run (exit code 2): the pages can't be served on 127.0.0.1:{port}" in (
        done.stderr
    )


# Becomes the command, with signals as a terminal gives them: under nohup SIGHUP is ignored, and `up` keeps to that.
HEARING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_command_ends_in_order_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    """Asked to end, also by a terminal that closes, `killick up` stops its monitor and ends with exit code 0."""
    file = tmp_path / "killick.toml"
    file.write_text('[monitor]\nport = 0\n[redis]\nurl = "redis://127.0.0.1:1"\n', encoding="utf-8")
    command = [sys.executable, "-c", HEARING, "-m", "worker.cli", "--config", str(file), "up", "--consumers", "0"]
    command += ["--retrainers", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("monitor | ") and "waiting: " in line:
                break
        pids = children(process.pid)
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(30) == 0, said
    assert "monitor | " in said
    assert "all stopped; crashes meanwhile: 0" in said
    assert pids
    assert gone(pids)


def test_nothing_to_run_is_wrong_usage(tmp_path: Path) -> None:
    """No process at all is refused."""
    done = killick_up(tmp_path, "", "--consumers", "0", "--no-monitor", "--retrainers", "0")
    assert done.returncode == 2
    assert "nothing is left to run" in done.stderr


def killick_up(folder: Path, settings: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`killick up` with a settings file of this content."""
    file = folder / "killick.toml"
    file.write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "worker.cli", "--config", str(file), "up", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


ONLY_API = ("--consumers", "0", "--no-monitor", "--retrainers", "0")


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        (
            "[api]\nport = {port}\ntoken_file = '{file}'\n",
            (),
            "api refused to run (exit code 2): the HTTP API can't listen",
        ),
        ("[api]\nport = {port}\n", ("--api",), "api refused to run (exit code 2): the HTTP API has no token"),
        ("[api]\nport = {port}\n", (), "nothing is left to run"),
        ("[api]\nport = {port}\ntoken_file = '{file}'\n", ("--no-api",), "nothing is left to run"),
        ("[api]\ntoken_file = '/nowhere/token'\n", (), "api.token_file = '/nowhere/token' can't be read"),
    ],
)
def test_the_api_runs_where_it_has_a_token(
    tmp_path: Path, redis_url: str, settings: str, words: tuple[str, ...], said: str
) -> None:
    """It is started where a token is configured, or when it is asked for; nobody need have one to run the rest."""
    file = tmp_path / "token"
    file.write_text("x" * 32)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = settings.format(port=taken.getsockname()[1], file=file) + f"[redis]\nurl = '{redis_url}'\n"
        done = killick_up(tmp_path, text, *ONLY_API, *words)
    assert done.returncode == 2
    assert said in done.stderr
