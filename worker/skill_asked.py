"""What a `killick skill` was asked for, and how it is answered: as tables, as one JSON object, as CSV."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.errors import ConfigError
from models.windows import POOLED, WINDOWS
from worker.skill_report import CSV_HEAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

    from models.windows import Scaling
    from worker.skill_report import Scores

NEEDED_WINDOW = "7d"  # where none is asked for, but one is needed


@dataclass(frozen=True)
class Asked:
    """The options.

    Raises:
        ConfigError: they can't be had together, or name no window.
    """

    version: int | None
    window: str | None
    lead: str | None
    by_lead: bool
    scaling: Scaling
    as_json: bool
    as_csv: bool

    def __post_init__(self) -> None:
        if self.as_json and self.as_csv:
            raise ConfigError("--json and --csv can't be had at once", "choose one")
        if self.by_lead and self.lead is not None:
            raise ConfigError("--lead and --leads can't be had at once", "choose one")
        if self.window is not None:
            one_of("window", self.window, WINDOWS)

    def windows(self, all_windows: Sequence[str] = WINDOWS) -> Sequence[str]:
        """The windows to be shown."""
        return [self.window] if self.window is not None else all_windows

    def one_lead(self, leads: Sequence[int]) -> str:
        """The lead to be shown, of those that have figures.

        Raises:
            ConfigError: it has none.
        """
        return POOLED if self.lead is None else one_of("lead", self.lead, [*map(str, leads), POOLED])

    def answer(self, body: Mapping[str, Any], scores: Mapping[int, Scores], windows: Sequence[str]) -> bool:
        """Whether JSON or CSV was asked for: then it was written."""
        if self.as_json:
            write_json(body)
        elif self.as_csv:
            write_csv(CSV_HEAD, (row for number, one in scores.items() for row in one.rows(number, windows)))
        return self.as_json or self.as_csv

    def show(self, console: Console, heading: str, scores: Scores, windows: Sequence[str], trend: str = "") -> None:
        """Print the tables of one version."""
        from worker.skill_view import (  # noqa: PLC0415 - rich
            daily_line,
            leads_table,
            print_whole,
            title,
            trend_line,
            windows_table,
        )

        console.print()
        if self.by_lead:
            window = self.window or (NEEDED_WINDOW if NEEDED_WINDOW in windows else windows[-1])
            console.print(title(heading, f"window {window}, {self.scaling} errors"))
            print_whole(console, leads_table(scores, window, self.scaling))
            return
        lead = self.one_lead(scores.leads)
        console.print(title(heading, f"lead {lead}, {self.scaling} errors"))
        print_whole(console, windows_table(scores, windows, lead, self.scaling))
        at = [*map(str, scores.leads), POOLED].index(lead)
        console.print(daily_line(scores.daily(at, self.scaling), console.width))
        if trend:
            console.print(trend_line(trend))


def one_of(what: str, word: str, known: Sequence[str]) -> str:
    """The word.

    Raises:
        ConfigError: it is none of those that are known.
    """
    if word in known:
        return word
    near = ""
    if word.isdecimal():
        numbers = [one for one in known if one.isdecimal()]
        near = min(numbers, key=lambda one: abs(int(one) - int(word)), default="")
    nearest = f"; the nearest is {near}" if near else ""
    raise ConfigError(f"{what} {word!r} has no figures", f"known are {', '.join(known)}{nearest}")


def write_json(body: Mapping[str, Any]) -> None:
    """Write one object to standard output."""
    sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")


def write_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows to standard output; what is None is left empty."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)


def terminal() -> Console:
    """Standard output, for rich."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only needed for tables

    return Console(highlight=False)
