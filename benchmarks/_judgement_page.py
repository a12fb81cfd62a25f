"""The tables of docs/judgement.md, made from what the benchmark found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Rows = list[dict[str, Any]]


def tables(found: dict[str, Rows]) -> Iterator[str]:
    """The page's tables, line by line."""
    yield from _false(found["false"])
    yield from _real(found["real"])
    yield from _power(found["power"])
    yield from _lifetime(found["lifetime"])
    yield from _harm(found["harm"])
    yield from _screen(found["screen"])
    yield from _disasters(found["disasters"])
    yield from _seasons(found["seasons"])


def _false(rows: Rows) -> Iterator[str]:
    spans = list(dict.fromkeys(row["calibrated_on"] for row in rows))
    yield from _heading(f"No true difference: promoted within 10,000 steps, of {rows[0]['streams']:,} streams")
    heads = [f"calibrated on {span:,}: alpha = .05" for span in spans]
    lines = []
    for world in dict.fromkeys((row["series"], row["tails"], row["phi"]) for row in rows):
        of = [row for row in rows if (row["series"], row["tails"], row["phi"]) == world]
        cells = [_share(row[f"false_{alpha}"]) for alpha in ("0.05", "0.01") for row in of]
        blocks = " / ".join(f"{row['block']:.0f}" for row in of)
        lines.append([world[0], world[1], f"{world[2]:g}", *cells, blocks, _share(of[0]["false_single_steps"])])
    heads += [f"{span:,}: alpha = .01" for span in spans]
    yield from _table(
        ["series", "tails", "φ", *heads, "block, steps (median)", "blocks of one step, alpha = .05"], lines, words=2
    )


def _real(rows: Rows) -> Iterator[str]:
    yield from _heading("A/A on real data: the same version with another seed as candidate; promotions per trial")
    lines = [
        [
            row["data"],
            row["horizon"],
            f"{row['calibrated_on']:,}",
            f"{row['deadline']:,}",
            f"{row['trials']:,}",
            f"{row['block']:.0f}",
            f"{row['differ_by']:.3f} sd",
            *(_share(row[f"{name}_{alpha}"]) for name in ("even", "worse", "better") for alpha in ("0.05", "0.01")),
        ]
        for row in rows
    ]
    heads = [
        "data",
        "horizon",
        "calibrated on",
        "deadline, steps",
        "trials",
        "block, steps (median)",
        "seeds differ by",
    ]
    shares = [f"{name}, alpha = {alpha}" for name in ("mean taken out", "the worse", "the better")
              for alpha in (".05", ".01")]  # fmt: skip
    yield from _table([*heads, *shares], lines)


def _power(rows: Rows) -> Iterator[str]:
    yield from _heading("A candidate that is better: promoted at alpha = .01")
    lines = [
        [
            f"{row['phi']:g}",
            f"{row['gain']:g} sd",
            f"{row['calibrated_on']:,}",
            *(_share(row[name]) for name in ("by_month", "by_quarter", "by_end")),
            _steps(row["median"]),
        ]
        for row in rows
    ]
    within = [f"within {steps:,} steps" for steps in (720, 2_160, 10_000)]
    yield from _table(["φ", "better by", "calibrated on", *within, "median, steps"], lines, words=0)


def _lifetime(rows: Rows) -> Iterator[str]:
    yield from _heading("The lifetime budget: trials of candidates that are no better, one after another")
    lines = [
        [
            f"{row['phi']:g}",
            row["trials"],
            f"{row['deadline']:,}",
            row["streams"],
            f"{row['spent']:.3f}",
            _share(row["promoted"]),
        ]
        for row in rows
    ]
    heads = ["φ", "trials", "steps each", "streams", "of the budget of .2 spent", "streams with any promotion"]
    yield from _table(heads, lines, words=0)


def _harm(rows: Rows) -> Iterator[str]:
    yield from _heading("After a drift: a candidate that is worse, its trial for harm, and the guard")
    lines = [
        [
            f"{row['phi']:g}",
            f"{row['worse_by']:g} sd",
            row["harm_steps"],
            _share(row["ended"]),
            _share(1.0 - row["ended"]),
            _share(row["undone_in_a_week"]),
            _share(row["undone_in_a_month"]),
            _steps(row["median_delay"]),
        ]
        for row in rows
    ]
    heads = ["φ", "worse by", "trial, steps", "ended", "promoted", "and undone within 168 steps", "within 720"]
    yield from _table([*heads, "guard's median, steps"], lines, words=0)


def _screen(rows: Rows) -> Iterator[str]:
    yield from _heading("The comparison on recorded losses, horizon 24, level .05")
    lines = [
        [
            f"{row['steps']:,}",
            f"{row['phi']:g}",
            *(_share(row[f"{name}_0"]) for name in ("one", "holm", "screen")),
            *(_share(row[f"{name}_0.5"]) for name in ("holm", "screen")),
        ]
        for row in rows
    ]
    heads = ["steps", "φ", "no difference: DM, one finalist", "DM and Holm, four", "screen and Holm, four"]
    yield from _table([*heads, "all better by .5 sd: DM and Holm", "screen and Holm"], lines, words=0)


def _disasters(rows: Rows) -> Iterator[str]:
    yield from _heading("Worse by .02 sd through rare disasters of a kind that calibration has not seen, alpha = .01")
    lines = [
        [
            f"{row['phi']:g}",
            f"{row['gain']:g} sd",
            f"{row['every']:,} steps",
            f"{row['size']:.0f} sd",
            _share(row["by_month"]),
            _share(row["by_end"]),
            _share(row["bets_alone_on_single_steps"]),
        ]
        for row in rows
    ]
    heads = ["φ", "gains on most steps", "a disaster every", "of", "promoted within 720 steps", "within 10,000"]
    yield from _table([*heads, "bets alone, on single steps"], lines, words=0)


def _seasons(rows: Rows) -> Iterator[str]:
    yield from _heading("Better for 60 days, as much worse for the next 60, alpha = .01")
    lines = [
        [f"{row['phi']:g}", f"± {row['gain']:g} sd", _share(row["by_month"]), _share(row["by_end"])] for row in rows
    ]
    yield from _table(["φ", "difference", "promoted within 720 steps", "within 10,000"], lines, words=0)


def _heading(words: str) -> Iterator[str]:
    yield from (f"### {words}", "")


def _table(heads: Sequence[str], lines: Sequence[Sequence[object]], words: int = 1) -> Iterator[str]:
    """A table whose first `words` columns are words, the rest numbers."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join(['---'] * words + ['---:'] * (len(heads) - words))}|"
    for line in lines:
        yield f"| {' | '.join(map(str, line))} |"
    yield ""


def _share(value: float) -> str:
    return "0" if value == 0.0 else f"{100 * value:.{1 if value < 0.1 else 0}f} %"


def _steps(value: float | None) -> str:
    return "longer" if value is None else f"{value:,.0f}"
