"""The command `killick`: finds the command's module, and turns every failure into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 a service can't be reached, 130 interrupted.
"""

from __future__ import annotations

import errno
import gc
import importlib
import logging
import os
import sys
import traceback
from importlib import metadata
from typing import TextIO

import click

from models.errors import KillickError
from worker.session import Session

INTERRUPTED = 130
FAILED = 1
START_OBJECTS = 100_000
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

# name -> (module, attribute, line of help). The module is imported only when its command runs.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("worker.cli_demo", "demo", "See it work: a year of weather, on embedded servers."),
    "config": ("worker.cli_config", "config", "Write, check and show the settings."),
    "doctor": ("worker.cli_doctor", "doctor", "Check settings, services and this machine."),
    "produce": ("worker.cli_history", "produce", "Send a file of observations to Kafka."),
    "consumer": ("worker.cli_stream", "consumer", "Read observations, answer with forecasts, keep the pairs."),
    "up": ("worker.cli_up", "up", "All processes of killick on this machine, watched."),
    "monitor": ("worker.cli_monitor", "monitor", "Watch skill and drift; ask for retraining; archive."),
    "api": ("worker.cli_api", "api", "Serve the HTTP API: read, and change, for who bears the token."),
    "retrainer": ("worker.cli_retrain", "retrainer", "Train candidates on request, compare them, nominate the better."),
    "report": ("worker.cli_report", "report", "Write a verdict as one HTML page."),
    "skill": ("worker.cli_skill", "skill", "How good the forecasts are, by version and window; drift."),
    "status": ("worker.cli_stream", "status", "Who answers where, how far, and what was counted."),
    "versions": ("worker.cli_versions", "versions", "List the versions; export one, retire one."),
    "retrain": ("worker.cli_retrain", "retrain", "Ask for a retraining."),
    "verdicts": ("worker.cli_retrain", "verdicts", "What is asked for, trained and tried, and the verdicts."),
    "approve": ("worker.cli_retrain", "approve", "Sign the candidate off."),
    "reject": ("worker.cli_retrain", "reject", "End the candidate's trial."),
    "promote": ("worker.cli_versions", "promote", "Let a version answer from now on."),
    "rollback": ("worker.cli_versions", "rollback", "Let the previous version answer again; withdraw this one."),
    "pause": ("worker.cli_versions", "pause", "Stop automatic promotion."),
    "resume": ("worker.cli_versions", "resume", "Let automatic promotion go on."),
    "audit": ("worker.cli_versions", "audit", "Who changed what, when and why."),
    "pairs": ("worker.cli_records", "pairs", "Print observations beside their forecasts."),
    "deadletters": ("worker.cli_records", "deadletters", "List refused records; send repaired ones again."),
    "bench": ("worker.cli_bench", "bench", "Measure this installation."),
    "fit": ("worker.cli_history", "fit", "Train the first version on a file of observations."),
    "backtest": ("worker.cli_backtest", "backtest", "Say which update policy would have paid on a file."),
    "tune": ("worker.cli_tune", "tune", "Search for settings that forecast a file of observations better."),
}


class LazyGroup(click.Group):
    """The commands of `COMMANDS`, each imported when it is called and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None if there is none."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{attribute} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"killick {metadata.version('killick')}")
        ctx.exit()


@click.command("killick", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    metavar="FILE",
    envvar="KILLICK_CONFIG",
    show_envvar=True,
    help="Settings file; without it ./killick.toml if it is there, else the defaults.",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="Least level that is logged, before the setting log.level (KILLICK_LOG__LEVEL).",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
@click.pass_context
def killick(ctx: click.Context, config: str | None, log_level: str | None) -> None:
    """Forecasts for streams: observations from Kafka in, forecasts of an LSTM out, its memory never reset.

    Start with `killick demo`; for your own data `killick config init` and `killick doctor`.
    """
    ctx.obj = Session(config=config, log_level=log_level)


def run(arguments: list[str], errors: TextIO) -> int:
    """The exit code of the command that the arguments name; what went wrong is one line in `errors`."""
    try:
        code = killick.main(args=arguments, prog_name="killick", standalone_mode=False)
    except (KeyboardInterrupt, click.exceptions.Abort):  # Abort is click's name for an interrupt
        return INTERRUPTED
    except click.ClickException as error:
        error.show(file=errors)
        return error.exit_code
    except KillickError as error:
        print(f"killick: {error}", file=errors)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # noqa: BLE001 - the outermost edge: whatever is left is a defect of ours
        if logging.getLogger().isEnabledFor(logging.DEBUG) or "DEBUG" in (word.upper() for word in arguments):
            traceback.print_exception(error, file=errors)
        said = f"{type(error).__name__}: {error}: this is a defect: run again with --log-level DEBUG for the traceback"
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            said = f"what was to be written has no room ({error}): make some, or write elsewhere"
        print(f"killick: {said}", file=errors)
        return FAILED
    return code if isinstance(code, int) else 0


def main() -> None:
    """Runs the command line of this process and ends it with the exit code."""
    gc.set_threshold(START_OBJECTS)  # what is imported stays: looking it through again and again costs a fifth of it
    sys.exit(run(sys.argv[1:], sys.stderr))


if __name__ == "__main__":
    main()
