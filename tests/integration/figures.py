"""What pandas makes of observations and of `killick pairs`: skill, MAE, RMSE, bias, MASE, pairs, by window and lead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator

WINDOWS = {"1h": "1h", "1d": "1D", "7d": "7D", "30d": "30D", "life": "100000D"}
REFERENCES = ("persistence", "seasonal")
LEADS = (1, 2, 3, 6, 12, 18, 24, 48, 72, 96, 168, 336, 720)
Words = tuple[str, ...]  # as in /metrics: a name, then the values of its labels, in the order of their names


def references(observed: pd.DataFrame, interval: pd.Timedelta, max_gap: int, period: int, horizon: int) -> pd.DataFrame:
    """What was known at the time of issue, by series and time: `persistence_1`, `seasonal_1`, and so on.

    `observed`: series, time, value of all that was accepted. A value that is missing, or bridged, is the one before.
    """
    parts = []
    for _, seen in observed.sort_values("time").groupby("series"):
        run = (seen["time"].diff() > (max_gap + 1) * interval).cumsum()
        for _, part in seen.groupby(run):
            at = part.set_index("time")
            every = at["value"].reindex(pd.date_range(at.index[0], at.index[-1], freq=interval)).ffill()
            columns = {"series": at["series"]}
            for lead in range(1, horizon + 1):
                columns[f"persistence_{lead}"] = every.shift(lead).reindex(at.index)
                columns[f"seasonal_{lead}"] = every.shift(-(-lead // period) * period).reindex(at.index)
            parts.append(pd.DataFrame(columns).rename_axis("time").reset_index())
    return pd.concat(parts)


def by_lead(pairs: pd.DataFrame, past: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """One row for each forecast that met its observation: version, time, lead, errors of all three, scale.

    A scale counts once the value one period before is known.
    """
    wide = pairs.merge(past, on=["series", "time"], how="left", validate="many_to_one", indicator=True)
    assert (wide["_merge"] == "both").all()
    parts = []
    for lead in range(1, horizon + 1):
        errors = {"error": wide[f"lead_{lead}"].astype(np.float64) - wide["value"]}
        errors |= {name: wide[f"{name}_{lead}"] - wide["value"] for name in REFERENCES}
        scale = wide["scale"].astype(np.float64).where(wide["seasonal_1"].notna() & (wide["scale"] > 0))
        part = wide[["series", "time", "version"]].assign(lead=lead, scale=scale, **errors)
        parts.append(part[part["error"].notna()])
    return pd.concat(parts, ignore_index=True)


def figures(table: pd.DataFrame, newest: pd.Timestamp) -> dict[Words, float]:
    """Every figure that there is a pair for; windows end with the last complete hour before `newest`."""
    end = newest.floor("h")
    found: dict[Words, float] = {}
    for version, mine in table.groupby("version"):
        horizon = int(mine["lead"].max())
        leads = {str(k): [k] for k in {*(k for k in LEADS if k < horizon), horizon}} | {"all": range(1, horizon + 1)}
        for window, length in WINDOWS.items():
            inside = mine if window == "life" else mine[mine["time"].between(end - pd.Timedelta(length), end, "left")]
            found["pairs", str(version), window] = float(len(inside[["series", "time"]].drop_duplicates()))
            for scaling in ("scaled", "unscaled"):
                errors = inside[["lead", "error", *REFERENCES]]
                if scaling == "scaled":
                    columns = ["error", *REFERENCES]
                    errors = errors[["lead"]].join(errors[columns].div(inside["scale"], axis=0))
                    errors = errors[errors["error"].notna()]
                naive = errors.loc[errors["lead"] == 1, "persistence"].abs().mean()
                for lead, of in leads.items():
                    for (name, *more), value in _of(errors[errors["lead"].isin(of)], naive):
                        # labels in the order of their names: lead, (reference,) scaling, version, window
                        found[name, lead, *more, scaling, str(version), window] = value
    return {words: value for words, value in found.items() if not np.isnan(value)}


def _of(errors: pd.DataFrame, naive: float) -> Iterator[tuple[Words, float]]:
    yield ("mae",), errors["error"].abs().mean()
    yield ("rmse",), np.sqrt((errors["error"] ** 2).mean())
    yield ("bias",), errors["error"].mean()
    yield ("mase_ratio",), errors["error"].abs().mean() / naive
    for name in REFERENCES:
        both = errors[errors[name].notna()]
        yield ("skill_score", name), 1 - (both["error"] ** 2).mean() / (both[name] ** 2).mean()


def differing(found: dict[Words, float], wanted: dict[Words, float]) -> list[str]:
    """Which figures are missing, too many, or other than those wanted by more than 1e-9 of the errors' size."""
    wrong = [f"only there: {words}" for words in sorted(found.keys() - wanted.keys())]
    wrong += [f"missing: {words}" for words in sorted(wanted.keys() - found.keys())]
    for words in sorted(found.keys() & wanted.keys()):
        size = abs(wanted[words])
        if words[0] == "bias":
            size = wanted["mae", *words[1:]]
        if words[0] == "skill_score":
            size = abs(1 - wanted[words])
        if not abs(found[words] - wanted[words]) <= 1e-9 * size:
            wrong.append(f"{words}: {found[words]!r}, pandas has {wanted[words]!r}")
    return wrong
