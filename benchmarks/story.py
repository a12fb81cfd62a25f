"""The story on real data: fit on the first months, stream the rest, and see what updating did, beside none.

Through real Kafka and Redis by the real processes, with settings that were committed before the first run
(benchmarks/story/*.toml): what was asked for, trained, judged, promoted and rolled back; skill by version, equal to a
pandas calculation; and version 1, never updated, over the same pairs. `--write` puts tables and pictures into
docs/story.md. `--keep FOLDER` keeps what the figures are made of, `--from FOLDER` makes them again from there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._story_sets import SETS
from models.errors import ConfigError
from tests.services.kafka import KafkaBroker, missing
from tests.services.redis import REDIS_MISSING, RedisServer, redis_binary

if TYPE_CHECKING:
    from benchmarks._story_sets import DataSet


def run(chosen: DataSet, path: Path, folder: Path, days: int | None) -> None:
    """Fit, stream, and leave in `folder` what the figures are made of."""
    from benchmarks._story_kept import keep
    from benchmarks._story_stream import Story, fit, settings_of
    from tests.integration.harness import Stack

    with ExitStack() as scope:
        directory = Path(scope.enter_context(tempfile.TemporaryDirectory()))
        kafka, redis = scope.enter_context(KafkaBroker()), scope.enter_context(RedisServer(redis_binary()))
        settings = settings_of(chosen, directory)
        stack = scope.enter_context(
            Stack(kafka.bootstrap_servers, redis.url, directory, partitions=chosen.partitions, settings=settings)
        )
        fit_s = fit(stack, path, chosen)
        history = chosen.stream(path, days)
        with Story(stack) as story:
            played = story.play(history)
        keep(stack, folder, history, played, {"name": chosen.name, "title": chosen.title, "fit_s": fit_s})


def main() -> int:
    """Run it; print the tables, write them into the page, or print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of ETTh2.csv and Beijing's")
    parser.add_argument("--only", choices=[one.name for one in SETS], action="append", help="this one; may be repeated")
    parser.add_argument("--days", type=int, help="of the stream, at most: to try it out")
    parser.add_argument("--keep", type=Path, help="folder that keeps what the figures are made of")
    parser.add_argument("--from", dest="kept", type=Path, help="such a folder: nothing is run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help="put tables and pictures into docs/story.md")
    words = parser.parse_args()
    chosen = [one for one in SETS if words.only is None or one.name in words.only]
    lacking = "" if words.kept else missing() or ("" if redis_binary() else REDIS_MISSING)
    if lacking:
        print(lacking, file=sys.stderr)
        return 3
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for one in chosen:
            folder = (words.kept or words.keep or Path(temporary)) / one.name
            if words.kept is None:
                try:
                    run(one, one.path(words.data), folder, words.days)
                except ConfigError as error:
                    print(error, file=sys.stderr)
                    return 2
            found[one.name] = tell(folder, write=words.write, quiet=words.json)
    if words.json:
        print(json.dumps(found))
    return 0


def tell(folder: Path, *, write: bool, quiet: bool) -> dict[str, Any]:
    """The figures of a run, printed as tables; and in the page, if it is to be written."""
    from benchmarks._story_figures import figures
    from benchmarks._story_page import put, tables
    from benchmarks._story_picture import picture

    found = figures(folder)
    lines = list(tables(found))
    if write:
        put(found["name"], lines, picture(found))
    if not quiet:
        print("\n".join(lines))
    return found


if __name__ == "__main__":
    sys.exit(main())
