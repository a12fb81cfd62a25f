"""What tests of pages share: reading one, what none may do, and a browser to look with."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 6_000_000  # bytes of a page
HOSTILE = "</script><img src=x onerror=alert(1)>&\"'{%}\u202e\x1b[2J\n`"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
    "--virtual-time-budget=20000",
)  # fmt: skip


class Read(HTMLParser):
    """What a page holds: words, tables by caption, tags with attributes, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tables: dict[str, list[list[list[str | float]]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._within: list[str] = []
        self._caption = ""
        self._cell: list[str | float] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag; begin a script, a row, a cell; a number goes into its cell."""
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "meta":
            return
        self._within.append(tag)
        if tag == "script":
            self.scripts.append((given, ""))
        elif tag == "caption":
            self._caption = ""
        elif tag == "tr":
            self.tables[self._caption].append([])
        elif tag in ("td", "th"):
            self._cell = []
            self.tables[self._caption][-1].append(self._cell)
        elif tag == "data":
            self._cell.append(float(given["value"] or "nan"))

    def handle_endtag(self, tag: str) -> None:
        """What begins last ends first; a caption names the table that follows."""
        assert self._within.pop() == tag
        if tag == "caption":
            assert self._caption not in self.tables
            self.tables[self._caption] = []

    def handle_data(self, data: str) -> None:
        """Note the words of what is read; those of a cell that stand outside of numbers belong to it."""
        within = self._within[-1] if self._within else ""
        if within == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif within != "style":
            self.words.append(data)
        if within == "caption":
            self._caption += data
        elif within in ("td", "th"):
            self._cell.append(data)

    def rows(self, caption: str) -> dict[str, list[float]]:
        """The numbers of a table by the heading of their row."""
        found = next(rows for name, rows in self.tables.items() if name.startswith(caption))
        return {str(row[0][0]): [x for cell in row[1:] for x in cell if isinstance(x, float)] for row in found[1:]}

    @property
    def text(self) -> str:
        """All words."""
        return " ".join(self.words)

    def data(self, name: str) -> Any:
        """What a script of data holds."""
        return json.loads(next(text for given, text in self.scripts if given.get("id") == name))


def check_loads_nothing(text: str) -> None:
    """No element names another file; the policy allows nothing but the page's own scripts, by digest."""
    read = Read(text)
    assert len(text.encode()) < LIMIT
    loading = {"src", "href", "srcset", "action", "data", "poster", "background", "xlink:href", "formaction"}
    assert [(tag, given) for tag, given in read.tags if loading & given.keys()] == []
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in read.tags}
    assert not any(name.startswith("on") for _, given in read.tags for name in given)
    policy = next(given["content"] for _, given in read.tags if given.get("http-equiv") == "Content-Security-Policy")
    run = [text for given, text in read.scripts if given.get("type") != "application/json"]
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in run]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src " + " ".join(f"'sha256-{one}'" for one in digests) + ";")
    assert "unsafe-eval" not in policy
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def check_figures(read: Read) -> None:
    """Every property of every figure is known to plotly; each place has its figure, and says what it shows."""
    figures = read.data("figures")
    for figure in figures.values():
        go.Figure(figure)
    places = [given for _, given in read.tags if "data-figure" in given]
    assert sorted(str(given["data-figure"]) for given in places) == sorted(figures)
    assert all(given["role"] == "img" and len(given["aria-label"] or "") > 30 for given in places)


def check_drawn(text: str, folder: Path) -> None:
    """A browser without a network draws all figures under the page's own policy, and runs nothing else."""
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={folder}/profile", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    read = Read(text)
    drawn = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)
    assert len(re.findall(r'class="plot[^"]*js-plotly-plot', drawn)) == len(read.data("figures"))
    traces = [one["type"] for figure in read.data("figures").values() for one in figure["data"]]
    for kind, mark in (("scatter", 'class="trace scatter'), ("box", 'class="trace boxes"'), ("heatmap", 'class="hm"')):
        assert drawn.count(mark) == traces.count(kind)
    assert "onerror=" not in re.sub(r"&lt;[^<>]*|\"[^\"]*\"", "", drawn)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []


def check_reads_well(text: str) -> None:
    """Nothing is loaded, figures are plotly's, no programmer's word is read, and how it was measured is said."""
    check_loads_nothing(text)
    read = Read(text)
    check_figures(read)
    assert not re.search(r"\b(None|nan|inf|null|undefined)\b", read.text)
    assert "How this was measured" in read.text
