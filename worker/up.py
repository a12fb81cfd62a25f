"""The processes of killick on one machine: started together, watched, started again, stopped together.

What a process writes comes out line by line under its name. One that refuses its settings (exit code 2) ends them
all; one that ends for another reason is started again, later each time. None outlives this process.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple

from models.errors import ConfigError
from worker.child import bound, free_port
from worker.settings_reading import environment_with

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import FrameType
    from typing import BinaryIO

    from worker.settings import Settings

POLL_S = 0.1
STOP_S = 20.0  # what all processes together have to end in order
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
STEADY_S = 60.0  # who ran for so long before a crash is started again at once
REFUSED = ConfigError.exit_code
TAIL_LINES = 40
LINE_BYTES = 1 << 16  # a longer line comes out in pieces
WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on

log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """A command that runs as a process, the setting of its port, and whether there may be more than one."""

    command: str
    port: str
    several: bool = False


# They are stopped in this order: first nothing new is asked for, then the monitor sees what consumers committed last,
# and who trains, which may take a while to give up, does so when the rest is in order.
KINDS = (
    Kind("api", "api.port"),
    Kind("consumer", "http.port", several=True),
    Kind("monitor", "monitor.port"),
    Kind("retrainer", "retraining.port", several=True),
)


@dataclass(frozen=True)
class Part:
    """One process to run: its name, its kind (a command), its command line, its settings, where its pages are."""

    name: str
    kind: str
    words: tuple[str, ...]
    settings: Mapping[str, str]
    host: str
    port: int

    @property
    def address(self) -> str:
        """Where Prometheus finds it: host:port."""
        host = "127.0.0.1" if self.host in WILDCARDS else f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parts(settings: Settings, counts: Mapping[str, int], words: Sequence[str]) -> list[Part]:
    """What is to run: so many of each kind, each with a port of its own; `words` begin their command lines.

    The first of a kind takes the port of its setting, the next ones those above it that none has; 0 takes free ones.

    Raises:
        ConfigError: the settings allow one consumer only.
    """
    if counts.get("consumer", 0) > 1 and settings.kafka.assignment == "manual":
        raise ConfigError(
            f'--consumers {counts["consumer"]} with kafka.assignment = "manual": each would take all partitions',
            'run one, or set kafka.assignment = "group"',
        )
    wanted = {
        "api": settings.api.port,
        "consumer": settings.http.port,
        "monitor": settings.monitor.port,
        "retrainer": settings.retraining.port,
    }
    taken = {wanted[kind.command] for kind in KINDS if counts.get(kind.command)}
    found = []
    for kind in KINDS:
        count = counts.get(kind.command, 0)
        for number in range(1, count + 1):
            port = _port(wanted[kind.command], taken, first=number == 1)
            taken.add(port)
            name = f"{kind.command}-{number}" if kind.several else kind.command
            given = {kind.port: str(port)}
            if kind.command == "consumer" and settings.kafka.instance and count > 1:
                given["kafka.instance"] = f"{settings.kafka.instance}-{number}"
            line = (*words, kind.command)
            found.append(Part(name, kind.command, line, given, settings.http.host, port))
    return found


def _port(wanted: int, taken: set[int], *, first: bool) -> int:
    if wanted == 0:
        return free_port()
    return wanted if first else next(port for port in range(wanted + 1, 65_536) if port not in taken)


def write_targets(folder: Path, running: Iterable[Part]) -> None:
    """Write where the pages are, as Prometheus reads it (`file_sd_configs`): a file for each kind, as consumers.yml.

    JSON is YAML too.

    Raises:
        ConfigError: they can't be written.
    """
    addresses: dict[str, list[str]] = {kind.command: [] for kind in KINDS}
    for part in running:
        addresses[part.kind].append(part.address)
    for kind, found in addresses.items():
        path = folder / f"{kind}s.yml"
        aside = path.with_name(path.name + ".new")
        try:
            aside.write_text(json.dumps([{"targets": found}]) + "\n", encoding="utf-8")
            aside.replace(path)  # Prometheus never reads half a file
        except OSError as error:
            raise ConfigError(
                f"the targets can't be written to {str(path)!r} ({error.strerror})", "name a folder that is there"
            ) from error


class Lines:
    """Where the processes' lines come out, whole, each under its process's name; from any thread.

    With `json_lines` a name is one more field, so that the lines stay JSON.
    """

    def __init__(self, output: BinaryIO, names: Iterable[str], *, json_lines: bool) -> None:
        self._output, self._json = output, json_lines
        self._width = max((len(name) for name in names), default=0)
        self._lock = threading.Lock()

    def write(self, name: str, line: bytes) -> None:
        """Put one line out; where nobody reads any more it is dropped, so that the processes go on."""
        line = line.rstrip(b"\r\n")
        if not self._json:
            line = f"{name:<{self._width}} | ".encode() + line
        elif line.startswith(b"{"):
            line = b'{"process_name":' + json.dumps(name).encode() + b"," + line[1:]
        else:
            line = json.dumps({"process_name": name, "message": line.decode(errors="replace")}).encode()
        with self._lock, suppress(OSError, ValueError):
            self._output.write(line + b"\n")
            self._output.flush()


class Process:
    """A part at work, and what became of its runs so far. Start it from a thread that stays: it dies with it."""

    def __init__(self, part: Part, lines: Lines) -> None:
        self.part = part
        self.crashes = 0
        self._row = 0  # crashes since it last ran steadily
        self._lines = lines
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._began_s = 0.0
        self._again_s = 0.0

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    def look(self, now_s: float) -> None:
        """Start it if it is time to; if it has ended, settle when it is started again. `now_s` is monotonic.

        Raises:
            ConfigError: it refused its settings.
        """
        if self._process is None:
            if now_s >= self._again_s:
                self._start(now_s)
        elif self._process.poll() is not None:
            self._ended(self._process.returncode, now_s)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill it and wait until it is gone and its last line is out."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._read_out()

    def _start(self, now_s: float) -> None:
        self._began_s = now_s
        self._tail.clear()
        self._process = subprocess.Popen(  # noqa: S603 - the command is made by our own code
            bound(self.part.words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment_with(self.part.settings),
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
        )
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        log.info(
            "%s started, process %d: metrics at http://%s/metrics",
            self.part.name,
            self._process.pid,
            self.part.address,
            extra={"action": "process-started", "process_name": self.part.name, "pid": self._process.pid},
        )

    def _ended(self, code: int, now_s: float) -> None:
        self._read_out()
        self._process = None
        if code == REFUSED:
            raise ConfigError(f"{self.part.name} refused to run (exit code {code}): {self._last_words()}")
        self.crashes += 1
        self._row = 1 if now_s - self._began_s >= STEADY_S else self._row + 1
        wait_s = min(FIRST_WAIT_S * 2 ** min(self._row - 1, 16), LONGEST_WAIT_S)
        self._again_s = now_s + wait_s
        log.error(
            "%s ended by itself, with %s, after %.1f s: crash %d; it is started again in %g s",
            self.part.name,
            _described(code),
            now_s - self._began_s,
            self.crashes,
            wait_s,
            extra={"action": "process-crashed", "process_name": self.part.name, "crashes": self.crashes},
        )

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(LINE_BYTES):
                self._tail.append(line.decode(errors="replace").rstrip())
                self._lines.write(self.part.name, line)

    def _read_out(self) -> None:
        if self._reader is not None:
            self._reader.join(1.0)  # what it started itself may hold the pipe for longer

    def _last_words(self) -> str:
        """Its error message, which may have several lines; else its last line."""
        said = list(self._tail)
        begins = [at for at, line in enumerate(said) if line.startswith("killick: ")]
        if begins:
            return "\n".join(said[begins[-1] :]).removeprefix("killick: ")
        return said[-1] if said else "it said nothing"


class Supervisor:
    """Runs the parts until it is told to stop."""

    def __init__(self, wanted: Sequence[Part], lines: Lines, *, stop_s: float = STOP_S) -> None:
        self.processes = [Process(part, lines) for part in wanted]
        self._stop_s = stop_s
        self._stopping, self._hurrying = threading.Event(), threading.Event()

    def stop(self) -> None:
        """Ask `run` to finish; asked twice, it kills what still runs. From any thread, or a signal."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    def run(self) -> bool:
        """Whether, after being asked to stop, all ended in order and in time. Call it from the main thread.

        Raises:
            ConfigError: a process refused its settings; the others are stopped.
        """
        try:
            while not self._stopping.is_set():
                now_s = time.monotonic()
                for process in self.processes:
                    process.look(now_s)
                self._stopping.wait(POLL_S)
        finally:
            killed = self._stop_all()
        crashes = sum(process.crashes for process in self.processes)
        log.info("all stopped; crashes meanwhile: %d", crashes, extra={"action": "stopped", "crashes": crashes})
        return not killed

    def _stop_all(self) -> list[str]:
        """Stop kind by kind, in the order of the parts; the names of those that had to be killed."""
        deadline_s = time.monotonic() + self._stop_s
        killed = []
        for kind in dict.fromkeys(process.part.kind for process in self.processes):
            ending = [process for process in self.processes if process.part.kind == kind]
            for process in ending:
                process.terminate()
            while any(process.running for process in ending) and time.monotonic() < deadline_s:
                if self._hurrying.wait(POLL_S):
                    break
            killed += [process.part.name for process in ending if process.running]
            for process in ending:
                process.kill()
        if killed:
            log.error("%s did not end in time and had to be killed", ", ".join(killed), extra={"action": "killed"})
        return killed


def _described(code: int) -> str:
    """An exit code for people."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def serve(settings: Settings, counts: Mapping[str, int], words: Sequence[str], targets: Path | None) -> bool:
    """Run so many processes of each kind until SIGTERM, SIGINT or SIGHUP; whether all ended in order.

    Raises:
        ConfigError: the settings can't be used, or a process refused them.
    """
    wanted = parts(settings, counts, words)
    if targets is not None:
        write_targets(targets, wanted)
    lines = Lines(sys.stderr.buffer, [part.name for part in wanted], json_lines=settings.log.format == "json")
    supervisor = Supervisor(wanted, lines)

    def stop(_number: int, _frame: FrameType | None) -> None:
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` has SIGHUP ignored
            signal.signal(number, stop)
    return supervisor.run()
