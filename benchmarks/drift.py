"""False alarms, delays and misses of the loss detectors: AR(1) errors, labelled series, quiet weather, speed.

`--write` puts the tables into docs/drift.md. Labelled series: `--data FOLDER` of the Numenta Anomaly Benchmark.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from scipy import stats
from scipy.signal import lfilter

from benchmarks._drift_series import labelled, weather, weather_losses
from models.drift import LossDrift
from models.drift_inputs import TrainedInputs, counts, input_statistics, inputs_of
from models.drift_limits import DriftLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

DOC = Path(__file__).parents[1] / "docs" / "drift.md"
BEGIN, END = "<!-- drift: begin -->", "<!-- drift: end -->"
PHI = 0.9
QUIET = {"long": 4_000, "short": 672}
AFTER = 1_500  # steps after the change; a drift that is found later was missed
FACTORS = (1.5, 2.0)
WEEK = 168
FEATURES = ("temp", "dewp", "humid", "wind_speed", "pressure", "visib")
LOSSES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {"abs(e)": np.abs, "e²": np.square}


def ar_errors(steps: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Stationary Gaussian AR(1) errors `(steps,)` of standard deviation 1."""
    noise = rng.normal(size=steps + 200) * np.sqrt(1.0 - PHI**2)
    return np.asarray(lfilter([1.0], [1.0, -PHI], noise)[200:])


def watched(detectors: LossDrift, losses: Sequence[float]) -> tuple[int, int]:
    """False alarms, and the steps at which there could have been any."""
    alarms = steps = 0
    for loss in losses:
        steps += detectors.state.calibration is not None
        alarms += bool(detectors.add(loss))
    return alarms, steps


def delay(detectors: LossDrift, losses: Sequence[float]) -> tuple[int | None, tuple[str, ...]]:
    """Steps until the first alarm and who raised it; None if none did."""
    for step, loss in enumerate(losses, 1):
        drifts = detectors.add(loss)
        if drifts:
            return step, tuple(drift.detector for drift in drifts)
    return None, ()


def one_run(loss: str, quiet_steps: int, seed: int) -> dict[str, Any]:
    """One quiet stream, and from its end on each kind of change, on restored detectors."""
    rng = np.random.default_rng(seed)
    of = LOSSES[loss]
    detectors = LossDrift(DriftLimits())
    alarms, steps = watched(detectors, of(ar_errors(quiet_steps, rng)).tolist())
    while detectors.state.calibration is None:  # a false alarm lies behind: wait until it watches again
        detectors.add(float(of(ar_errors(1, rng))[0]))
    errors = ar_errors(AFTER, rng)
    changes = {f"sd x {factor}": of(errors * factor) for factor in FACTORS}
    changes["loss + 1 sd"] = of(errors) + of(ar_errors(100_000, np.random.default_rng(0))).std()
    found: dict[str, Any] = {"alarms": alarms, "steps": steps}
    for name, losses in changes.items():
        restored = LossDrift(DriftLimits(), detectors.state, detectors.losses)
        found[name] = delay(restored, losses.tolist())
    return found


def ar_table(repetitions: int) -> list[dict[str, Any]]:
    """Rows by loss, length of the quiet span and change."""
    rows = []
    for loss in LOSSES:
        for length, quiet_steps in QUIET.items():
            runs = [one_run(loss, quiet_steps, seed) for seed in range(repetitions)]
            alarms, steps = sum(r["alarms"] for r in runs), sum(r["steps"] for r in runs)
            for change in [key for key in runs[0] if key not in {"alarms", "steps"}]:
                delays = [r[change][0] for r in runs]
                known = [AFTER + 1 if d is None else d for d in delays]
                by = [name for r in runs for name in set(r[change][1])]
                rows.append(
                    {
                        "loss": loss,
                        "quiet": quiet_steps,
                        "change": change,
                        "runs": repetitions,
                        "alarms": alarms,
                        "steps": steps,
                        "false_per_1000": 1_000.0 * alarms / steps,
                        "median_delay": float(np.median(known)),
                        "p90_delay": float(np.percentile(known, 90)),
                        "misses": sum(d is None for d in delays),
                        "by": {name: by.count(name) for name in sorted(set(by))},
                    }
                )
            print(f"{loss}, {length}: {1_000 * alarms / steps:.2f} false alarms", file=sys.stderr)
    return rows


def labelled_table(folder: Path) -> list[dict[str, Any]]:
    """One row a labelled file: alarms within and outside its windows."""
    rows = []
    for name, losses, inside in labelled(folder):
        detectors = LossDrift(DriftLimits())
        hits: list[int] = []
        outside = steps = 0
        for step, loss in enumerate(losses):
            steps += detectors.state.calibration is not None
            if detectors.add(loss):
                hits.append(step)
                outside += not inside[step]
        windows = _windows(inside)
        rows.append(
            {
                "file": name,
                "steps": len(losses),
                "watched": steps,
                "alarms": len(hits),
                "outside": outside,
                "windows": len(windows),
                "windows_found": sum(any(a <= h < b for h in hits) for a, b in windows),
            }
        )
    return rows


def _windows(inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def weather_table() -> list[dict[str, Any]]:
    """One row a lead: alarms over a year of weather that nobody changed."""
    rows = []
    for name, losses in weather_losses():
        detectors = LossDrift(DriftLimits())
        alarms, steps = watched(detectors, losses.tolist())
        rows.append({"losses": name, "steps": len(losses), "watched": steps, "alarms": alarms})
    return rows


def inputs_table() -> list[dict[str, Any]]:
    """One row a feature: in how many weeks of the second half year it lies beyond the limits, trained on the first."""
    table = weather()
    steps = ((table["at"] - table["at"].min()) // np.timedelta64(1, "h")).to_numpy(np.int64)
    middle = int(steps.max()) // 2
    rows = []
    for feature in FEATURES:
        values = table[[feature]].to_numpy(np.float64)
        known, past = ~np.isnan(values), steps < middle
        made = inputs_of([feature], values[past], known[past], steps[past], window_steps=WEEK)
        trained = msgspec.convert(made, TrainedInputs).features[feature]
        found = []
        for begin in range(middle, int(steps.max()) - WEEK, WEEK):
            week = values[(steps >= begin) & (steps < begin + WEEK) & known[:, 0], 0]
            recent = counts(week, np.asarray(trained.edges))
            judged = input_statistics(trained, recent, DriftLimits())
            p_value = stats.ks_2samp(values[past & known[:, 0], 0], week).pvalue
            found.append((p_value < 0.05, judged["ks"][0] > DriftLimits().ks, *(s > t for s, t in judged.values())))
        names = ("by_p_value", "beyond_setting", "ks", "psi")
        share = dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))
        rows.append({"feature": feature, "weeks": len(found), **share})
    return rows


def speed() -> dict[str, float]:
    """Seconds of the first and of the longest calibration, and steps a second between them."""
    losses = np.abs(ar_errors(3_000, np.random.default_rng(1))).tolist()
    detectors = LossDrift(DriftLimits())
    spent: list[tuple[int, float]] = []
    plain = []
    for loss in losses:
        before, began = detectors.state.calibration, time.perf_counter()
        detectors.add(loss)
        took = time.perf_counter() - began
        after = detectors.state.calibration
        if after is not before and after is not None:
            spent.append((after.steps, took))
        elif before is not None:
            plain.append(took)
    began = time.perf_counter()
    detectors.statistics()
    shown = time.perf_counter() - began
    return {
        "steps_per_s": 1.0 / float(np.mean(plain)),
        "calibration_s": max(took for _, took in spent),
        "statistics_ms": 1e3 * shown,
    }


def tables(found: dict[str, Any]) -> Iterator[str]:
    """The page's tables, line by line."""
    yield "### AR(1) errors"
    yield ""
    yield "| loss | quiet steps | false alarms per 1,000 | change | median delay | 90 % within | misses | first by |"
    yield "|---|---:|---:|---|---:|---:|---:|---|"
    for row in found["ar"]:
        by = ", ".join(f"{name} {count}" for name, count in row["by"].items())
        yield (
            f"| {row['loss']} | {row['quiet']:,} | {row['false_per_1000']:.2f} ({row['alarms']} in {row['steps']:,}) "
            f"| {row['change']} | {row['median_delay']:.0f} | {row['p90_delay']:.0f} "
            f"| {row['misses']} of {row['runs']} | {by} |"
        )
    if found["labelled"]:
        yield from ("", "### Labelled series", "")
        yield "| file | steps watched | alarms | of them outside every window | per 1,000 | windows found |"
        yield "|---|---:|---:|---:|---:|---:|"
        files = found["labelled"]
        keys = ("watched", "alarms", "outside", "windows", "windows_found")
        total: dict[str, Any] = {"file": "**all**", **{key: sum(row[key] for row in files) for key in keys}}
        for row in [*files, total]:
            rate = 1_000 * row["outside"] / max(row["watched"], 1)
            yield (
                f"| {row['file']} | {row['watched']:,} | {row['alarms']} | {row['outside']} "
                f"| {rate:.2f} | {row['windows_found']} of {row['windows']} |"
            )
    yield from ("", "### Weather that nobody changed", "")
    yield "| losses | steps watched | alarms | per 1,000 |"
    yield "|---|---:|---:|---:|"
    for row in found["weather"]:
        rate = 1_000 * row["alarms"] / row["watched"]
        yield f"| {row['losses']} | {row['watched']:,} | {row['alarms']} | {rate:.2f} |"
    yield from ("", "### Inputs: weeks of July to December that lie beyond the limits, trained on January to June", "")
    yield "| feature | weeks | p < .05 | KS distance > .25 | KS, with what was usual in training | PSI, the same |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row in found["inputs"]:
        shares = " | ".join(f"{100 * row[key]:.0f} %" for key in ("by_p_value", "beyond_setting", "ks", "psi"))
        yield f"| {row['feature']} | {row['weeks']} | {shares} |"
    yield from ("", "### Speed", "")
    yield (
        f"{found['speed']['steps_per_s']:,.0f} steps a second; the longest calibration took "
        f"{found['speed']['calibration_s']:.1f} s, the numbers for a scrape {found['speed']['statistics_ms']:.1f} ms."
    )


def main() -> None:
    """Run it; print the tables, write them into the page, or print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=25, help="runs on AR(1) errors")
    parser.add_argument("--data", type=Path, help="folder of labelled series, with combined_windows.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{DOC.name}")
    words = parser.parse_args()
    found = {
        "weather": weather_table(),
        "inputs": inputs_table(),
        "labelled": labelled_table(words.data) if words.data else [],
        "speed": speed(),
        "ar": ar_table(words.repetitions),
    }
    lines = "\n".join(tables(found))
    if words.write:
        before, rest = DOC.read_text(encoding="utf-8").split(BEGIN)
        DOC.write_text(f"{before}{BEGIN}\n{lines}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(json.dumps(found) if words.json else lines)


if __name__ == "__main__":
    main()
