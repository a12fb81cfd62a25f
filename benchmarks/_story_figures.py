"""The figures of one run of `benchmarks.story`, by a plain pandas calculation on the files that it left.

A *cell* is a forecast that met its observation: series, time, lead. Of each the errors of the forecast and of both
references are known, and the series' scale; everything else is a sum over cells.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks._story_kept import FIRST
from models.comparison import bootstrap_interval
from models.tally import reported_leads
from tests.integration.figures import references

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

REFERENCES = ("persistence", "seasonal")
SCALINGS = ("scaled", "unscaled")
TOLERANCE = 1e-9
SEED = 1
WEEKS = 4  # that a point of the picture spans


def figures(folder: Path) -> dict[str, Any]:
    """All that page and picture show.

    Raises:
        ArithmeticError: a figure of `killick skill` is not what pandas has.
    """
    kept: dict[str, Any] = json.loads((folder / "story.json").read_text(encoding="utf-8"))
    horizon = kept["horizon"]
    tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("observed", "pairs", "frozen", "answers")}
    interval = pd.Timedelta(kept["interval_ms"], "ms")
    seen = tables["observed"].drop_duplicates(["series", "time"])
    past = references(seen, interval, kept["max_gap_steps"], kept["period_steps"], horizon)
    checked = Checked()
    for version, pairs in tables["pairs"].groupby("version"):
        told = next(one for one in kept["skill"]["versions"] if one["version"] == version)
        checked.compare(f"version {version}", cells(pairs, past, horizon), told["windows"]["life"], horizon)
    again = kept["skill_again"]
    frozen = tables["frozen"].sort_values(["series", "time"], ignore_index=True)
    until = pd.Timestamp(again["until"])
    ended = frozen[frozen["time"] < until]
    checked.compare("version 1, made again", cells(ended, past, horizon), again["windows"]["life"], horizon)
    ours = cells(answered(tables["answers"], frozen, horizon, interval), past, horizon)
    theirs = cells(frozen, past, horizon)
    both = (ours["error"].notna() & theirs["error"].notna()).to_numpy()
    ours, theirs = ours[both], theirs[both]
    return {
        **{name: kept[name] for name in ("name", "title", "horizon", "events", "records", "refused")},
        "seconds": {name: round(kept[name], 1) for name in ("fit_s", "stream_s", "waited_s")},
        "trainings": sum(event["trainings"] for event in kept["events"]),
        "training_s": round(sum(event["seconds"] for event in kept["events"]), 1),
        "since": str(seen["time"].min()),
        "until": str(seen["time"].max()),
        "compared": checked.compared,
        "largest_difference": checked.largest,
        "answering": answering(tables["answers"]),
        "versions": by_version(ours, theirs),
        "whole": beside(ours, theirs),
        "series": by_series(ours, theirs),
        "months": by_month(ours, theirs),
        "weeks": by_week(ours, theirs),
        "gain": gain(ours, theirs),
    }


def cells(wide: pd.DataFrame, past: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """One row for each observation and lead, whether there is a forecast or not; in the order of `wide` at each lead.

    `wide` as `killick pairs` has it. A scale counts once the value one period before is known.
    """
    found = wide.merge(past, on=["series", "time"], how="left", validate="many_to_one")
    scale = found["scale"].astype(np.float64)
    scale = scale.where(found["seasonal_1"].notna() & (scale > 0))
    parts = []
    for lead in range(1, horizon + 1):
        of = found["version"] if "version" in found else found[f"version_{lead}"]
        part = {"series": found["series"], "time": found["time"], "version": of, "lead": lead, "scale": scale}
        part["error"] = found[f"lead_{lead}"].astype(np.float64) - found["value"]
        part |= {name: found[f"{name}_{lead}"] - found["value"] for name in REFERENCES}
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def answered(answers: pd.DataFrame, observed: pd.DataFrame, horizon: int, interval: pd.Timedelta) -> pd.DataFrame:
    """What was published, beside the observations that it was for: lead_k and version_k, as issued k steps earlier."""
    by_issue = answers.set_index(["series", "time"])
    columns: dict[str, Any] = {name: observed[name] for name in ("series", "time", "value", "scale")}
    for lead in range(1, horizon + 1):
        issued = pd.MultiIndex.from_arrays([observed["series"], observed["time"] - lead * interval])
        there = by_issue[[f"lead_{lead}", "version"]].reindex(issued)
        columns[f"lead_{lead}"] = there[f"lead_{lead}"].to_numpy()
        columns[f"version_{lead}"] = there["version"].to_numpy()
    return pd.DataFrame(columns)


def sums(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Sums over cells, by some of their columns: what all figures are made of."""
    table = table[table["error"].notna()]
    found = {name: table[name] for name in by}
    for scaling in SCALINGS:
        divisor = table["scale"] if scaling == "scaled" else 1.0
        error = table["error"] / divisor
        found[f"{scaling}.count"] = error.notna()
        found[f"{scaling}.error"], found[f"{scaling}.absolute"] = error, error.abs()
        found[f"{scaling}.squared"] = error**2
        for name in REFERENCES:
            other = table[name] / divisor
            found[f"{scaling}.{name}.own"] = (error**2).where(other.notna())
            found[f"{scaling}.{name}.squared"] = (other**2).where(error.notna())
            first = (other.abs()).where(error.notna() & (table["lead"] == 1))
            found[f"{scaling}.{name}.first"] = first
            found[f"{scaling}.{name}.firsts"] = first.notna()
    return pd.DataFrame(found).groupby(by).sum()


def total(summed: pd.DataFrame) -> dict[str, float]:
    """Sums over all rows, by column."""
    return {str(name): float(value) for name, value in summed.sum().items()}


def measures(row: Mapping[str, float], scaling: str) -> dict[str, float]:
    """Mean errors and skill of summed cells, by the names that `killick skill --json` has."""
    n = row[f"{scaling}.count"]
    if not n:
        return {}
    found = {f"skill_{name}": skill(row, scaling, name) for name in REFERENCES}
    squared = row[f"{scaling}.squared"] / n
    return {
        **found,
        "count": float(n),
        "mae": row[f"{scaling}.absolute"] / n,
        "rmse": math.sqrt(squared),
        "bias": row[f"{scaling}.error"] / n,
    }


def skill(row: Mapping[str, float], scaling: str, name: str) -> float:
    """1 - MSE / MSE of a reference, over the cells that both have."""
    other = row[f"{scaling}.{name}.squared"]
    return 1.0 - row[f"{scaling}.{name}.own"] / other if other else math.nan


class Checked:
    """Compares figures of `killick skill --json` with those of pandas."""

    def __init__(self) -> None:
        self.compared = 0
        self.largest = 0.0  # difference, relative to the size of what it is of

    def compare(self, what: str, table: pd.DataFrame, told: Mapping[str, Any], horizon: int) -> None:
        """Compare all figures of one version.

        Raises:
            ArithmeticError: one differs by more than TOLERANCE.
        """
        by_lead = sums(table, ["lead"])
        known = (lead for lead in reported_leads(horizon) if lead in by_lead.index)
        rows = {str(lead): total(by_lead.loc[[lead]]) for lead in known}
        rows["all"] = total(by_lead)
        for scaling in SCALINGS:
            for lead, row in rows.items():
                mine = measures(row, scaling)
                for name, value in mine.items():
                    theirs = told[scaling][lead][name]
                    if math.isnan(value) and theirs is None:
                        continue
                    size = {"bias": mine["mae"]}.get(name, 1.0 - value if name.startswith("skill") else value)
                    differs = abs(value - theirs) / abs(size) if size else abs(value - theirs)
                    if not differs <= TOLERANCE:
                        raise ArithmeticError(f"{what}, {scaling}, lead {lead}: {name} {theirs!r}, pandas {value!r}")
                    self.compared, self.largest = self.compared + 1, max(self.largest, differs)


def answering(answers: pd.DataFrame) -> list[tuple[str, int]]:
    """Since when which version answered, in order: the one that most series had at each time."""
    most = answers.groupby("time")["version"].agg(lambda versions: int(versions.mode().iloc[0]))
    changed = most[most.diff().fillna(1.0) != 0.0]
    return [(str(time), int(version)) for time, version in changed.items()]


def by_version(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[dict[str, Any]]:
    """Each version over what it answered, in order, and version 1 over the same cells."""
    found = []
    for version in pd.unique(ours.sort_values("time", kind="stable")["version"]).tolist():
        mine = (ours["version"] == version).to_numpy()
        span = ours.loc[mine, "time"]
        answered_by = {"version": int(version), "since": str(span.min()), "until": str(span.max())}
        found.append({**answered_by, **beside(ours[mine], theirs[mine])})
    return found


def by_series(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[dict[str, Any]]:
    """Each series."""
    names = ours["series"].to_numpy()
    return [{"series": name, **beside(ours[names == name], theirs[names == name])} for name in sorted(set(names))]


def by_month(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[dict[str, Any]]:
    """Each month of event time."""
    month = ours["time"].dt.strftime("%Y-%m").to_numpy()
    found = []
    for name in np.unique(month).tolist():
        rows = month == name
        versions = sorted(set(ours.loc[rows, "version"].astype(int)))
        found.append({"month": name, "versions": versions, **beside(ours[rows], theirs[rows])})
    return found


def beside(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """Figures of what answered, and of version 1 over the same cells."""
    found: dict[str, Any] = {}
    for who, table in (("killick", ours), ("frozen", theirs)):
        row = total(sums(table, ["lead"]))
        found[who] = {
            "cells": int(row["unscaled.count"]),
            "mse": row["scaled.squared"] / row["scaled.count"] if row["scaled.count"] else math.nan,
            "mae": row["unscaled.absolute"] / row["unscaled.count"],
            **{name: skill(row, "scaled", name) for name in REFERENCES},
        }
    return found


def by_week(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[dict[str, Any]]:
    """Skill against persistence over the last four weeks, at the end of each week, of both."""
    first = ours["time"].min()
    found = {}
    for who, table in (("killick", ours), ("frozen", theirs)):
        weeks = sums(table.assign(week=(table["time"] - first) // pd.Timedelta(days=7)), ["week"])
        recent = weeks.reindex(range(int(weeks.index.max()) + 1), fill_value=0.0).rolling(WEEKS, min_periods=1).sum()
        found[who] = 1.0 - recent["scaled.persistence.own"] / recent["scaled.persistence.squared"]
    ends = (first + pd.Timedelta(days=7) * (week + 1) for week in found["killick"].index)
    columns = zip(ends, found["killick"], found["frozen"], strict=True)
    return [{"time": str(end), "killick": one, "frozen": other} for end, one, other in columns]


def gain(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """How much lower the mean loss of an hour is than version 1's, whole stream and since the first promotion.

    The loss of an hour is the mean of the squared scaled errors of its cells; the interval is that of the mean
    difference by the stationary block bootstrap, in parts of version 1's loss.
    """
    losses = pd.DataFrame(
        {
            "time": ours["time"],
            "killick": (ours["error"] / ours["scale"]) ** 2,
            "frozen": (theirs["error"] / theirs["scale"]) ** 2,
        }
    )
    losses = losses.dropna().groupby("time").mean()
    updated = ours.loc[ours["version"] != FIRST, "time"].min()
    spans = {"whole": losses, "since_promotion": losses[losses.index >= updated]}
    return {name: dict(_gain(span)) for name, span in spans.items() if len(span)}


def _gain(losses: pd.DataFrame) -> Iterator[tuple[str, float]]:
    difference = (losses["frozen"] - losses["killick"]).to_numpy()
    frozen = float(losses["frozen"].mean())
    low, high = bootstrap_interval(difference, seed=SEED)
    yield "steps", len(losses)
    yield "frozen", frozen
    yield "killick", float(losses["killick"].mean())
    yield "percent", 100.0 * float(difference.mean()) / frozen
    yield "low", 100.0 * low / frozen
    yield "high", 100.0 * high / frozen
