"""What a run of `benchmarks.story` leaves in a folder: all that its figures are made of, as files.

story.json         events, seconds, what `killick skill --json` said, of version 1 made again too
pairs.parquet      `killick pairs`
frozen.parquet     the same of version 1 alone over the whole stream, by a replay of what is recorded
answers.parquet    the predictions topic: series, time (of issue), version, lead_1 …
observed.parquet   what was sent: series, time, value (of the target)
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from consumers.messages import Prediction
from consumers.pairs import pair_tables
from tests.integration.harness import read_topic
from worker import wiring
from worker.backfill import PastReplay

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks._story_stream import Played
    from consumers.history import History
    from tests.integration.harness import Stack

FIRST = 1  # the version that is never replaced in a world without Killick
READ_S = 900.0


def keep(stack: Stack, folder: Path, history: History, played: Played, facts: dict[str, Any]) -> None:
    """Write the files, from what the servers hold."""
    folder.mkdir(parents=True, exist_ok=True)
    observed(history, stack.settings.model.target).to_parquet(folder / "observed.parquet")
    answers(stack).to_parquet(folder / "answers.parquet")
    parquet.write_table(frozen(stack), folder / "frozen.parquet")
    stack.output("pairs", "--format", "parquet", "--out", str(folder / "pairs.parquet"))
    model, interval_ms = stack.settings.model, stack.settings.interval_ms
    since = str(int(history.time_ms[0]))
    found = {
        **facts,
        **asdict(played),
        "horizon": model.horizon,
        "period_steps": model.period.ms // interval_ms,
        "max_gap_steps": model.max_gap.ms // interval_ms,
        "interval_ms": interval_ms,
        "refused": len(stack.dead_letters()),
        "skill": json.loads(stack.output("skill", "--json", "--window", "life")),
        "skill_again": json.loads(
            stack.output("skill", "--backfill", "--version", str(FIRST), "--since", since, "--json", "--window", "life")
        ),
    }
    (folder / "story.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def observed(history: History, target: str) -> pd.DataFrame:
    """The target as it was sent: series, time, value."""
    at = history.features.index(target)
    return pd.DataFrame(
        {
            "series": np.array(history.series, dtype=object)[history.series_index],
            "time": pd.to_datetime(history.time_ms, unit="ms", utc=True),
            "value": np.where(history.present[:, at], history.values[:, at], np.nan),
        }
    )


def answers(stack: Stack) -> pd.DataFrame:
    """The predictions topic: each forecast once."""
    decode = msgspec.json.Decoder(Prediction).decode
    parts = read_topic(stack.servers, stack.settings.kafka.predictions, READ_S)
    known = {(record.key, (one := decode(record.value)).issued_at): one for part in parts for record in part}
    found = list(known.values())
    values = np.array([[np.nan if x is None else x for x in one.values] for one in found], np.float32)
    columns = {f"lead_{k + 1}": values[:, k] for k in range(values.shape[1])}
    issued = pd.to_datetime([one.issued_at for one in found], utc=True)
    heads = {"series": [one.series for one in found], "time": issued, "version": [one.version for one in found]}
    return pd.DataFrame({**heads, **columns})


def frozen(stack: Stack) -> pa.Table:
    """What version 1 would have forecast had it never been replaced: as `killick pairs` prints it."""
    settings = stack.settings
    version = wiring.loader(settings, stack.registry)(FIRST)
    archive, form = wiring.archive(settings), settings.series_form()
    tables: list[pa.Table] = []
    for ledger in wiring.ledgers(settings, stack.redis):
        replay = PastReplay(ledger, archive, form, version)
        tables += pair_tables(ledger, form, blocks=replay.run(0, settings.spin_up_steps))
    return pa.concat_tables(tables)
