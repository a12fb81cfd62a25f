"""Commands on records: `killick pairs`, `killick deadletters`."""

from __future__ import annotations

import itertools
import json
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import click

from models.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from consumers.archive import Hole
    from consumers.deadletters import Letter
    from worker.session import Session
    from worker.settings import Settings

FLUSH_S = 30.0


@click.command()
@click.option("--series", multiple=True, metavar="S", help="Only this series; may be repeated. Default: all.")
@click.option("--since", metavar="TIME", help="From this time on: ISO (UTC unless it says otherwise) or epoch ms.")
@click.option("--until", metavar="TIME", help="Before this time.")
@click.option("--version", "wanted", multiple=True, type=int, metavar="V", help="Only this version; may be repeated.")
@click.option(
    "--format", "form", type=click.Choice(["csv", "json", "parquet"]), default="csv", show_default=True,
    help="json: one object a line.",
)  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False), help="File to write; default: standard output.")
@click.pass_obj
def pairs(
    session: Session,
    series: Sequence[str],
    since: str | None,
    until: str | None,
    wanted: Sequence[int],
    form: Literal["csv", "json", "parquet"],
    out: str | None,
) -> None:
    """Print observations beside what had been forecast for them, from Redis and from the archive.

    Columns: series, time, value, scale, version, lead_1 … lead_H; lead_k was forecast k steps earlier.
    """
    from worker.cli_history import moment_ms

    settings = session.settings()
    bounds = {
        "since_ms": moment_ms(since) if since is not None else None,
        "until_ms": moment_ms(until) if until is not None else None,
    }
    tables = _tables(settings, series, wanted, bounds)
    first = next(tables, None)  # what can't be read is said before anything is written
    if first is None:
        asked = [f"series {', '.join(series)}"] if series else []
        asked += [f"version {', '.join(map(str, wanted))}"] if wanted else []
        click.echo(f"no pairs of {' and '.join(asked) or 'this model'} in this span: see `killick status`", err=True)
    with _output(out, form) as stream:
        every = itertools.chain([] if first is None else [first], tables)
        {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}[form](every, stream, settings)


def _tables(
    settings: Settings, series: Sequence[str], wanted: Sequence[int], bounds: Mapping[str, int | None]
) -> Iterator[pa.Table]:
    from consumers.pairs import pair_tables
    from consumers.recorded import recorded_blocks
    from worker import wiring

    archive, form = wiring.archive(settings), settings.series_form()
    with closing(wiring.redis_client(settings)) as client:
        for ledger in wiring.ledgers(settings, client):
            holes: list[Hole] = []
            blocks = recorded_blocks(ledger, archive, holes=holes)
            yield from pair_tables(ledger, form, blocks=blocks, series=series, versions=wanted, **bounds)
            for hole in holes if archive is not None else ():
                click.echo(
                    f"partition {ledger.partition}: what ended after offset {max(hole.after, 0)} and up to {hole.until}"
                    " is neither in Redis nor in the archive",
                    err=True,
                )


@contextmanager
def _output(path: str | None, form: str) -> Iterator[BinaryIO]:
    if path is None:
        if form == "parquet" and sys.stdout.isatty():
            raise ConfigError("Parquet is not for a terminal", "name a file with --out")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with Path(path).open("wb") as stream:
            yield stream
    except OSError as error:
        raise DataError(f"{path!r} can't be written ({error})", "choose another --out") from error


def _header(settings: Settings) -> list[str]:
    return [
        "series",
        "time",
        "value",
        "scale",
        "version",
        *(f"lead_{k + 1}" for k in range(settings.model.horizon)),
    ]


def _write_csv(tables: Iterator[pa.Table], stream: BinaryIO, settings: Settings) -> None:
    stream.write((",".join(_header(settings)) + "\n").encode())
    for table in tables:
        _with_text_time(_aligned(table, settings)).to_pandas().to_csv(stream, index=False, header=False)


def _write_json(tables: Iterator[pa.Table], stream: BinaryIO, settings: Settings) -> None:
    import orjson

    del settings
    for table in tables:
        columns = _with_text_time(table).to_pydict()
        singles = {name: table[name].to_numpy() for name in table.column_names if name[:4] in ("lead", "scal")}
        for i in range(len(table)):
            row = {name: singles[name][i] if name in singles else column[i] for name, column in columns.items()}
            stream.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def _write_parquet(tables: Iterator[pa.Table], stream: BinaryIO, settings: Settings) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    single = [pa.field(name, pa.float32()) for name in _header(settings)[5:]]
    schema = pa.schema(
        [
            ("series", pa.string()), ("time", pa.timestamp("ms", "UTC")), ("value", pa.float64()),
            ("scale", pa.float32()), ("version", pa.int64()), *single,
        ]
    )  # fmt: skip
    with parquet.ParquetWriter(stream, schema) as writer:
        for table in tables:
            writer.write_table(_aligned(table, settings))


def _aligned(table: pa.Table, settings: Settings) -> pa.Table:
    """The table with a column for every lead of the header; a version may have another horizon.

    Raises:
        ConfigError: it has more leads than the header.
    """
    import pyarrow as pa

    header = _header(settings)
    if table.num_columns > len(header):
        raise ConfigError(
            f"version {table['version'][0]} has {table.num_columns - 5} leads, model.horizon is"
            f" {settings.model.horizon}",
            "set model.horizon to the longest, or choose with --version",
        )
    for name in header[table.num_columns :]:
        table = table.append_column(name, pa.nulls(len(table), pa.float32()))
    return table


def _with_text_time(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    from models.times import rfc3339

    moments = table["time"].combine_chunks().cast(pa.int64()).dictionary_encode()
    text = pa.array([rfc3339(ms) for ms in moments.dictionary.to_pylist()]).take(moments.indices)
    return table.set_column(1, "time", text)


@click.group()
def deadletters() -> None:
    """Look at refused records, and send repaired ones again."""


@deadletters.command("list")
@click.option("--reason", help="Only those refused for this reason, as late or malformed.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line; may be edited, then resent.")
@click.pass_obj
def list_letters(session: Session, reason: str | None, limit: int | None, as_json: bool) -> None:
    """List the refused records, with what their producer should know."""
    from consumers.deadletters import as_json as letter_json

    count = 0
    for letter in _letters(session.settings(), reason, limit):
        count += 1
        if as_json:
            click.echo(json.dumps(letter_json(letter), ensure_ascii=False))
        else:
            encoded = f"base64:{letter.value_base64}" if letter.value_base64 is not None else "none"
            value = letter.value if letter.value is not None else encoded
            click.echo(f"{letter.topic}[{letter.partition}]@{letter.offset}  {letter.reason}: {letter.error}")
            click.echo(f"    key {letter.key!r}, value {value[:200]}")
    if count == 0 and not as_json:
        click.echo("no dead letters")


@deadletters.command()
@click.option("--reason", help="Only those refused for this reason.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option(
    "--from",
    "file",
    type=click.Path(),
    help="Letters as `list --json` prints them, edited; - is standard input.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def resend(session: Session, reason: str | None, limit: int | None, file: str | None, yes: bool) -> None:
    """Send refused records to the observations again, as they were or as --from has them.

    What is of the past then goes to the history, for training; what is right now is forecast like any other.
    """
    from consumers.deadletters import resent
    from worker import wiring

    settings = session.settings()
    letters = list(_from_file(file) if file else _letters(settings, reason, limit))
    if file and reason:
        letters = [letter for letter in letters if letter.reason == reason]
    letters = letters[:limit]
    if not letters:
        click.echo("nothing to send")
        return
    if not yes and sys.stdin.isatty():
        click.confirm(f"send {len(letters)} records to {settings.kafka.observations!r} again?", abort=True)
    messages = [resent(letter) for letter in letters]
    with closing(wiring.sink(settings)) as sink:
        sent = [sink.send(settings.kafka.observations, key, value, headers) for key, value, headers in messages]
        sink.flush(FLUSH_S)
        failed = [delivery.error for delivery in sent if delivery.error is not None or not delivery.done]
    if failed:
        raise DataError(f"{len(failed)} of {len(sent)} records were not taken ({failed[0]})", "try again")
    click.echo(f"{len(sent)} records were sent to {settings.kafka.observations!r} again")


def _letters(settings: Settings, reason: str | None, limit: int | None) -> Iterator[Letter]:
    from consumers.deadletters import read_letters
    from consumers.kafka import Source

    kafka = settings.kafka
    source = Source(
        kafka.bootstrap_servers,
        kafka.dead_letters,
        "",
        manual=True,
        **settings.kafka_security(),  # type: ignore[arg-type]
    )
    count = 0
    with closing(source):
        for letter in read_letters(source):
            if reason is None or letter.reason == reason:
                yield letter
                count += 1
            if limit is not None and count >= limit:
                return


def _from_file(path: str) -> Iterator[Letter]:
    from consumers.deadletters import from_line

    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield from_line(line, number)
    except OSError as error:
        raise DataError(
            f"{path!r} can't be read ({error})", "name a file of `killick deadletters list --json`"
        ) from error
