"""The command line: exit codes, one line for each failure, and how fast it is there."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from consumers.messages import KINDS
from models.errors import ConfigError, DataError, ServiceUnreachable
from worker import cli, logs

HEAVY = ("tensorflow", "pandas", "kafka", "redis", "numpy")


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and error output of a command line."""
    errors = io.StringIO()
    return cli.run(list(arguments), errors), errors.getvalue()


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes `killick doctor` end with that error."""

    def fail() -> None:
        raise error

    command = click.Command("doctor", callback=fail)
    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: command)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            DataError("weather.csv is torn", "send it again"),
            1,
            "killick: weather.csv is torn: send it again\n",
        ),
        (ConfigError("no such key"), 2, "killick: no such key\n"),
        (ServiceUnreachable("Redis did not answer"), 3, "killick: Redis did not answer\n"),
        (KeyboardInterrupt(), 130, ""),
        (OSError(28, "No space left on device"), 1, "has no room ([Errno 28] No space left on device): make some"),
        (
            ZeroDivisionError("by 0"),
            1,
            "ZeroDivisionError: by 0: this is a defect: run again with --log-level DEBUG",
        ),
    ],
)
def test_failures_are_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    """Every failure ends in its exit code and one line with the cure, without a traceback."""
    failing(monkeypatch, error)
    found, written = run("doctor")
    assert found == code
    assert said in written
    assert "Traceback" not in written
    assert written.count("\n") <= 1


def test_a_defect_shows_its_traceback_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --log-level DEBUG a defect comes with its traceback."""
    failing(monkeypatch, ZeroDivisionError("by 0"))
    assert "Traceback" in run("--log-level", "debug", "doctor")[1]


def test_wrong_usage_is_exit_code_2() -> None:
    """Unknown commands, options and values are wrong usage."""
    assert run("nothing")[0] == 2
    assert run("config", "show", "--loud")[0] == 2
    assert run("config", "schema", "everything")[0] == 2
    assert run("produce", "a.csv", "--speed", "-1")[0] == 2


def test_unusable_settings_are_exit_code_2() -> None:
    """A settings file that is not there, or can't be used, is wrong configuration."""
    code, said = run("--config", "none.toml", "config", "check")
    assert code == 2
    assert said.startswith("killick: settings file 'none.toml' can't be read (No such file or directory): ")


def test_config_init_check_and_show_work_together(tmp_path: Path) -> None:
    """The file that init writes passes check, show names it, and init does not write over it."""
    runner = CliRunner()
    assert run("config", "init")[0] == 0
    assert run("config", "check")[0] == 0
    assert run("config", "init")[0] == 2
    assert run("config", "init", "--force")[0] == 0
    shown = runner.invoke(cli.killick, ["config", "show", "--json"], env={"KILLICK_MODEL__HORIZON": "3"})
    rows = {row["setting"]: row for row in json.loads(shown.output)}
    assert (rows["model.horizon"]["value"], rows["model.horizon"]["origin"]) == (3, "environment")
    assert rows["model.name"]["origin"] == "file"
    assert rows["redis.password"]["origin"] == "default"


@pytest.mark.parametrize("kind", ["settings", *KINDS])
def test_schemas_are_printed(kind: str) -> None:
    """Every schema is JSON, and describes each of its fields."""
    result = CliRunner().invoke(cli.killick, ["config", "schema", kind])
    schema = json.loads(result.output)
    for part in (schema, *schema.get("$defs", {}).values()):
        assert part["properties"]
        assert all("description" in field or "$ref" in field for field in part["properties"].values())


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("produce", "  Wide:  killick produce ETTh1.csv --time date --series-from-columns --speed 3600"),
        ("fit", "  killick fit weather.csv --time time_hour --series origin --values temp,dewp --until 56d"),
    ],
)
def test_examples_in_help_stand_on_lines_of_their_own(command: str, line: str) -> None:
    """The examples that `--help` shows can be copied: nothing breaks them, no mark of the source is left."""
    shown = CliRunner().invoke(cli.killick, [command, "--help"], terminal_width=100).output
    assert line in shown.splitlines()
    assert "\\b" not in shown


def test_help_is_there_at_once_and_imports_nothing_heavy() -> None:
    """`killick --help` loads no client, no NumPy and no TensorFlow; nor do the settings."""
    script = (
        "import sys, io; from worker import cli; code = cli.run(['--help'], sys.stderr); "
        "from worker import settings_reading; settings_reading.load(None); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], code)"
    )
    began = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(cli.__file__).parents[1],
    )
    assert found.stdout.splitlines()[-1] == "[] 0"
    assert all(name in found.stdout for name in cli.COMMANDS)
    assert time.monotonic() - began < 5


def test_every_command_can_be_loaded_and_explains_itself() -> None:
    """Every line of the command table leads to a command with help for each of its options."""
    context = click.Context(cli.killick)
    for name in cli.COMMANDS:
        command = cli.killick.get_command(context, name)
        assert command is not None
        assert command.help
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or parameter.help, (name, parameter.name)


def test_json_lines_hold_message_extra_and_traceback() -> None:
    """A JSON log line holds time, level, the fields of `extra`, and a traceback in one line."""
    stream = io.StringIO()
    logs.configure("INFO", "json", stream)
    extra = {"action": "fenced", "path": Path("/x")}
    logging.getLogger("killick").error("partition %s", 3, extra=extra, exc_info=ValueError("no"))
    line = json.loads(stream.getvalue())
    assert (line["message"], line["level"], line["action"], line["path"]) == (
        "partition 3",
        "ERROR",
        "fenced",
        "/x",
    )
    assert line["time"].endswith("Z")
    assert "ValueError: no" in line["traceback"]


def test_text_lines_have_utc_times_and_keep_the_level() -> None:
    """Text lines start with a UTC time; neither lower levels are written nor the client's retries."""
    stream = io.StringIO()
    logs.configure("INFO", "text", stream)
    logging.getLogger("killick").debug("unseen")
    logging.getLogger("kafka.net.manager").error("unseen")
    logging.getLogger("kafka.producer.sender").warning("unseen")
    logging.getLogger("consumers.loop").warning("seen")
    assert "unseen" not in stream.getvalue()
    logging.getLogger("worker").info("retraining: %s", "red \x1b[31m\nERROR forged")
    assert stream.getvalue().splitlines()[-1].endswith("worker: retraining: red ?[31m?ERROR forged")
    stamp = time.strptime(stream.getvalue().split()[0], "%Y-%m-%dT%H:%M:%SZ")
    assert abs(time.mktime(stamp) - time.mktime(time.gmtime())) < 60
