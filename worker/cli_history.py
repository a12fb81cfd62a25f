"""Commands that read a file of observations: `killick produce`, `killick fit`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from models.errors import ConfigError, DataError
from worker.actor import this_actor
from worker.durations import parse_duration
from worker.patience import patiently

if TYPE_CHECKING:
    from consumers.history import History
    from worker.fit import FitPlan
    from worker.session import Session
    from worker.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])
EARLIEST_MS, LATEST_MS = -62_135_596_800_000, 253_402_300_799_000  # the years 1 to 9999
_FROM_FILE = "An ISO time (UTC unless it says otherwise), epoch milliseconds, or a length such as 56d from its start."


def of_history(command: Command) -> Command:
    """Gives a command the argument FILE and the options that say which column is what."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS: list[Callable[[Any], Any]] = [
    click.argument("file", type=click.Path()),
    click.option(
        "--time",
        "time_columns",
        metavar="COL[,COL…]",
        default="time",
        show_default=True,
        help="Column of the time, or the columns of year, month, day, hour, … in this order.",
    ),
    click.option("--series", metavar="COL", help="Column that names the series; without it FILE is one series."),
    click.option("--series-from-columns", is_flag=True, help="Each column of values is a series of its own."),
    click.option(
        "--values",
        metavar="A[,B=COL…]",
        help="Columns of the features, B=COL where B stands in COL; without it the features' own names. "
        "With --series-from-columns the columns that are series; without it all.",
    ),
    click.option("--timezone", metavar="ZONE", default="UTC", show_default=True, help="Of times that have no offset."),
    click.option(
        "--epoch-unit",
        type=click.Choice(["ms", "s"]),
        default="ms",
        show_default=True,
        help="Of times that are numbers.",
    ),
    click.option("--since", metavar="TIME", help=f"Leave out what is before. {_FROM_FILE}"),
    click.option("--until", metavar="TIME", help=f"Leave out this time and what is after it. {_FROM_FILE}"),
]


def read(
    settings: Settings,
    file: str,
    *,
    time_columns: str,
    series: str | None,
    series_from_columns: bool,
    values: str | None,
    timezone: str,
    epoch_unit: Literal["ms", "s"],
    since: str | None,
    until: str | None,
) -> History:
    """The observations that the options of `of_history` name.

    Raises:
        DataError: the file can't be used, or nothing of it is left.
        ConfigError: the options don't fit the file or the model.
    """
    from consumers.observations import Columns, parse_values, read_history

    columns = Columns(
        time=tuple(name.strip() for name in time_columns.split(",")),
        series=series,
        series_from_columns=series_from_columns,
        value_columns=parse_values(values) if values is not None else None,
        timezone=timezone,
        epoch_unit=epoch_unit,
    )
    history = read_history(file, columns, features=settings.model.features, target=settings.model.target)
    if len(history) == 0:
        raise DataError(f"{file!r} holds no observations", "name a file with at least one row")
    first_ms = int(history.time_ms[0])
    history = history.since(moment_ms(since, first_ms)) if since is not None else history
    history = history.until(moment_ms(until, first_ms)) if until is not None else history
    if len(history) == 0:
        raise DataError(f"{file!r} has no observations since {since} until {until}", "choose a wider span")
    return history


def moment_ms(text: str, first_ms: int | None = None) -> int:
    """Epoch milliseconds of an ISO time, of epoch milliseconds, or of a length counted from `first_ms`, if given.

    Raises:
        ConfigError: none of these, or beyond the years that have four digits.
    """
    moment = _moment_ms(text, first_ms)
    if not EARLIEST_MS <= moment <= LATEST_MS:
        raise ConfigError(f"{text!r} is no time between the years 1 and 9999", "write 2013-03-01 or 56d")
    return moment


def _moment_ms(text: str, first_ms: int | None) -> int:
    """As `moment_ms`, at any distance."""
    from datetime import UTC, datetime

    if text.strip().isdigit() and len(text.strip()) > len("20130101"):
        return int(text)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        if first_ms is None:
            raise ConfigError(f"{text!r} is not a time", "write 2013-03-01 or 2013-03-01T06:00:00Z") from None
        try:
            return first_ms + parse_duration(text).ms
        except ConfigError:
            raise ConfigError(f"{text!r} is not a time", "write 2013-03-01, 2013-03-01T06:00:00Z or 56d") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


class Speed(click.ParamType[float | None]):
    """A multiple of event time, or "max"."""

    name = "speed"

    def convert(
        self, value: str | float | None, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """The multiple; None for "max"."""
        if value is None or value == "max":
            return None
        try:
            speed = float(value)
        except ValueError:
            speed = 0.0
        if not 0 < speed < float("inf"):
            self.fail(f'{value!r} is neither "max" nor a number above 0', param, ctx)
        return speed


@click.command()
@of_history
@click.option(
    "--speed",
    type=Speed(),
    metavar="X",
    default="max",
    show_default=True,
    help="Multiple of the observations' own pace: 1 is live, 3600 an hour a second, max as fast as it goes.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Send the first N only.")
@click.option(
    "--wait", metavar="LENGTH", default="1min", show_default=True, help="Longest wait for Kafka at the start."
)
@click.pass_obj
def produce(session: Session, /, file: str, speed: float | None, limit: int | None, wait: str, **options: Any) -> None:
    """Send FILE (CSV, .csv.gz or Parquet) to the topic of observations, sorted by time.

    \b
    Long:  killick produce weather.csv --time time_hour --series origin --values temp,dewp
    Wide:  killick produce ETTh1.csv --time date --series-from-columns --speed 3600
    Parts: killick produce pm25.csv --time year,month,day,hour --values pm=pm2.5
    """  # noqa: D301 - click wants the control character itself
    from worker import wiring
    from worker.produce import Producer
    from worker.progress import progress

    settings = session.settings()
    history = read(settings, file, **options)
    history = history.slice(0, limit) if limit else history
    topic = settings.kafka.observations
    patience_s = parse_duration(wait).seconds
    patiently(lambda: _require_topic(settings), patience_s)
    sink = patiently(lambda: wiring.sink(settings), patience_s)
    try:
        with progress(f"sending to {topic}", len(history), sys.stderr) as report:
            producer = Producer(sink, topic, speed, report)
            try:
                sent = producer.run(history)
            except KeyboardInterrupt:
                sink.flush(timeout_s=5.0)
                click.echo(f"interrupted: sent {producer.sent:,} of {len(history):,} observations", err=True)
                raise
    finally:
        sink.close()
    click.echo(f"sent {sent.observations:,} observations in {sent.seconds:.1f} s, {sent.per_second:,.0f} a second")


def _require_topic(settings: Settings) -> None:
    from worker import wiring

    topic = settings.kafka.observations
    admin = wiring.admin(settings)
    try:
        if admin.partitions(topic) is None:
            raise ConfigError(f"topic {topic!r} is not there", "create it: `killick doctor --create-topics`")
    finally:
        admin.close()


@click.command()
@of_history
@click.option("--actor", metavar="NAME", help="Who asks for it, for the registry; without it user@host.")
@click.pass_obj
def fit(session: Session, /, file: str, actor: str | None, **options: Any) -> None:
    """Train a version on FILE and register it; the first one becomes the incumbent.

    The settings of [network] and [training] say what is trained, and how. The end of the span is held out:
    the summary shows the skill there against persistence and the seasonal naive forecast. With archive.path
    set, what the version was trained on is kept there.

    \b
    killick fit weather.csv --time time_hour --series origin --values temp,dewp --until 56d
    """  # noqa: D301 - click wants the control character itself
    from rich.console import Console

    from worker import wiring
    from worker.fit import digest, fit_first_version

    settings = session.settings()
    history = read(settings, file, **options)
    histories = wiring.histories(settings)
    if histories is not None:  # before the training: that takes long, and the archive may not be writable
        histories.write(history, digest(history))
    client = wiring.redis_client(settings)
    try:
        fit_first_version(
            history,
            plan_of(settings),
            wiring.registry(settings, client),
            actor=actor or this_actor(),
            now_ms=int(time.time() * 1_000),
            console=Console(),
            progress_stream=sys.stderr,
        )
    finally:
        client.close()


def plan_of(settings: Settings) -> FitPlan:
    """What the settings of [model], [network] and [training] ask a fit for."""
    from worker.fit import FitPlan
    from worker.wiring_updating import training_settings

    training = settings.training
    return FitPlan(
        form=settings.series_form(),
        architecture=settings.architecture(gain=(1.0,) * settings.model.horizon),
        training=training_settings(settings),
        validation=training.validation,
        evaluation=training.evaluation,
        threads=settings.network.threads,
        recent_steps=settings.recent_steps,
        series_inputs=settings.network.series,
    )
