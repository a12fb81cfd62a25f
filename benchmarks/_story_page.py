"""The tables of docs/story.md, made from what the benchmark found; each data set between marks of its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DOC = Path(__file__).parents[1] / "docs" / "story.md"
HEADS = ("skill: persistence", "skill: seasonal", "MSE, scaled", "MAE")
TOLD = ("verdict", "trial", "promote", "rollback", "pause", "resume")  # others are counted alone


def put(name: str, lines: Sequence[str], picture: str, doc: Path = DOC) -> None:
    """Put a data set's tables between its marks in the page, and its picture beside the others."""
    begin, end = f"<!-- story {name}: begin -->", f"<!-- story {name}: end -->"
    before, rest = doc.read_text(encoding="utf-8").split(begin)
    text = "\n".join(lines)
    doc.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")
    (doc.parent / "pictures" / f"story-{name}.svg").write_text(picture, encoding="utf-8")


def tables(found: dict[str, Any]) -> Iterator[str]:
    """One data set's part of the page, line by line."""
    yield from (f"## {found['title']}", "", f"![Skill over time](pictures/story-{found['name']}.svg)", "")
    yield from _sum(found)
    yield from _versions(found)
    yield from _series(found["series"])
    yield from _events(found["events"])
    yield from _months(found["months"])


def _sum(found: dict[str, Any]) -> Iterator[str]:
    seconds = found["seconds"]
    outcomes = Counter(e["words"].partition(":")[0] for e in found["events"] if e["kind"] == "verdict")
    moves = Counter(e["kind"] for e in found["events"])
    drifts = Counter(e["words"].partition(":")[0] for e in found["events"] if e["kind"] == "drift")
    verdicts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()) or "none"
    alarms = ", ".join(f"{count} {detector}" for detector, count in drifts.most_common()) or "none"
    whole = found["gain"]["whole"]
    yield (
        f"- **{_gained(whole)}** over the whole stream: mean squared scaled error {whole['killick']:.4f} with Killick, "
        f"{whole['frozen']:.4f} of version 1 alone, {whole['steps']:,} hours."
    )
    if "since_promotion" in found["gain"]:
        yield f"- Since the first promotion: {_gained(found['gain']['since_promotion'])}."
    yield (
        f"- {found['records']:,} observations from {_day(found['since'])} to {_day(found['until'])}, "
        f"{found['refused']} refused. Drifts: {alarms}."
    )
    yield (
        f"- Verdicts: {verdicts}. Promotions: {moves['promote']}, rollbacks: {moves['rollback']}. {found['trainings']} "
        f"trainings in {found['training_s']:,.0f} s (the first fit: {seconds['fit_s']:.0f} s); the stream itself took "
        f"{seconds['stream_s']:,.0f} s."
    )
    yield (
        f"- {found['compared']:,} figures of `killick skill --json` equal pandas' to {found['largest_difference']:.0e} "
        "of their size."
    )
    yield ""


def _gained(span: dict[str, float]) -> str:
    what = "less" if span["percent"] >= 0 else "more"
    signs = sorted((span["low"], span["high"]))
    interval = f"95 % interval of what is saved: {signs[0]:+.1f} to {signs[1]:+.1f} %"
    return f"{abs(span['percent']):.1f} % {what} loss ({interval})"


def _versions(found: dict[str, Any]) -> Iterator[str]:
    yield from ("### What each version answered, and version 1 over the same pairs", "")
    yield f"| version | answered | forecasts met | {' | '.join(f'{head} | version 1' for head in HEADS)} |"
    yield "|---:|---|" + "---:|" * 9
    whole = {"version": "all", "since": found["since"], "until": found["until"], **found["whole"]}
    for row in [*found["versions"], whole]:
        span = f"{_day(row['since'])} … {_day(row['until'])}"
        yield f"| {row['version']} | {span} | {row['killick']['cells']:,} {_figures(row)} |"
    yield ""


def _series(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Where there are several series: one alone may make a mean."""
    if len(rows) == 1:
        return
    yield from ("<details><summary>By series</summary>", "")
    yield f"| series | {' | '.join(f'{head} | version 1' for head in HEADS)} |"
    yield "|---|" + "---:|" * 8
    for row in rows:
        yield f"| {row['series']} {_figures(row)} |"
    yield from ("", "</details>", "")


def _figures(row: dict[str, Any]) -> str:
    forms = {"persistence": "+.3f", "seasonal": "+.3f", "mse": ".4f", "mae": ".3f"}
    return " ".join(_both(row, name, form) for name, form in forms.items())


def _months(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from ("<details><summary>By month</summary>", "")
    yield "| month | versions | skill: persistence | version 1 | skill: seasonal | version 1 |"
    yield "|---|---|---:|---:|---:|---:|"
    for row in rows:
        versions = ", ".join(map(str, row["versions"]))
        yield f"| {row['month']} | {versions} {_both(row, 'persistence', '+.3f')} {_both(row, 'seasonal', '+.3f')} |"
    yield from ("", "</details>")


def _events(events: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from ("### What happened", "", "| event time | what | why |", "|---|---|---|")
    for event in sorted(events, key=lambda one: one["time"]):
        if event["kind"] in TOLD and not (event["kind"] == "trial" and " promoted: " in event["words"]):  # told below
            asked = f" ({event['trigger']}, {event['trainings']} trainings, {event['seconds']:.0f} s)"
            what = event["kind"] + (asked if event["kind"] == "verdict" else "")
            yield f"| {_day(event['time'])} | {what} | {event['words'].replace('|', chr(92) + '|')} |"
    yield ""


def _both(row: dict[str, Any], name: str, form: str) -> str:
    return f"| {row['killick'][name]:{form}} | {row['frozen'][name]:{form}}"


def _day(time: str) -> str:
    return time[:10]
