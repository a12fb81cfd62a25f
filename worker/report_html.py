"""HTML that can't be broken by what is written into it: text is escaped unless it is `Html` already.

The page loads nothing: plotly.js, style and drawing are in it, and its policy allows these scripts alone, by digest.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from models.audit import printable
from models.errors import DataError
from worker.report_numbers import NONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STYLE = resources.files("worker").joinpath("report.css")
DRAWING = resources.files("worker").joinpath("report.js")
VOID = {"meta"}
UNSAFE_IN_SCRIPT = re.compile(r"[<>&]|[^\n -~]")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: str) -> Html:
    """The text as HTML: nothing in it is markup, turns the line round or breaks it."""
    if isinstance(text, Html):
        return text
    before, after = (" " if text[end : end + 1 or None].isspace() else "" for end in (0, -1))
    return Html(f"{before}{html.escape(printable(text))}{after}" if text.strip() else before)


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """An element; `class_` is the attribute class, `data_x` is data-x; an empty value leaves an attribute out."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(value))}"'
        for key, value in attributes.items()
        if value
    )
    return Html(f"<{name}{words}>" + ("" if name in VOID else f"{joined(children)}</{name}>"))


def joined(parts: Iterable[str]) -> Html:
    """The parts one after the other."""
    return Html("".join(escaped(part) for part in parts))


def number(value: float | None, words: str) -> Html:
    """A number as people read it, with all its digits for programs; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return Html(NONE)
    return tag("data", words, value=repr(value))


def table(
    caption: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    texts: int = 1,
    strong: int | None = None,
    stacks: bool = False,
) -> Html:
    """A table that scrolls by itself where it is too wide; the first cell of a row is its heading.

    `texts`: how many of the first columns are set as text. `strong`: the row to set off. `stacks`: on a narrow
    screen cells stand below each other.
    """
    head = tag("tr", *(tag("th", one, scope="col", class_="t" if i < texts else "") for i, one in enumerate(headings)))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, class_="t" if i < texts else "") for i, cell in enumerate(row[1:], 1)),
            class_="strong" if index == strong else "",
        )
        for index, row in enumerate(rows)
    ]
    inner = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag(
        "div", inner, class_="scroll stacks" if stacks else "scroll", role="region", tabindex="0", aria_label=caption
    )


def tile(name: str, value: str, more: str) -> Html:
    """One of the few numbers that matter, with what it is and what to know about it."""
    return tag(
        "div", tag("span", name, class_="name"), tag("span", value, class_="value"), tag("span", more, class_="more")
    )


def picture(name: str, figure: Mapping[str, Any], alt: str, *, caption: str = "") -> Html:
    """The place that a figure is drawn into."""
    style = f"min-height:{figure['layout']['height']}px"
    place = tag("div", class_="plot", data_figure=name, role="img", aria_label=alt, style=style)
    return tag("figure", place, tag("figcaption", caption) if caption else "")


class Pictures:
    """The figures that sections ask for, by the names of their places."""

    def __init__(self) -> None:
        self.figures: dict[str, Mapping[str, Any]] = {}

    def place(self, name: str, figure: Mapping[str, Any] | None, alt: str, caption: str = "") -> Html:
        """The place that the figure is drawn into; nothing where there is no figure."""
        if figure is None:
            return Html()
        self.figures[name] = figure
        return picture(name, figure, alt, caption=caption)


def section(title: str, *parts: str) -> Html:
    """A section; nothing where it has no parts."""
    return tag("section", tag("h2", title), *parts) if any(parts) else Html()


def document(title: str, body: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page."""
    scripts = [*([_plotly()] if figures else []), DRAWING.read_text(encoding="utf-8")]
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        Html(f"<style>{STYLE.read_text(encoding='utf-8')}</style>"),
    )
    data = [
        f'<script type="application/json" id="figures">{_in_script(orjson.dumps(figures))}</script>',
        *(f"<script>{script}</script>" for script in scripts),
    ]
    return f'<!doctype html>\n<html lang="en">{head}<body>{escaped(body)}{"".join(data)}</body></html>\n'


def _in_script(encoded: bytes) -> str:
    """JSON in plain letters, which end no element and turn no line round."""
    return UNSAFE_IN_SCRIPT.sub(_in_letters, encoded.decode())


def _in_letters(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _plotly() -> str:
    """plotly.js; nothing in it may end the element that it stands in."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # noqa: PLC0415 - slow, and only here

    return str(get_plotlyjs()).replace("</script", "<\\/script")


def write(path: str | Path, text: str) -> None:
    """Write a page; what was there stays until the new one is whole.

    Raises:
        DataError: it can't be written there.
    """
    aside = Path(f"{path}.part")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise DataError(f"{str(path)!r} can't be written ({error})", "choose another --report") from error
