"""Draws the dashboards from a live Prometheus: `python -m benchmarks.pictures --prometheus URL --out docs/pictures`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._picture_data import Asked, Prometheus, Span
from benchmarks._picture_svg import WIDTH, drawn
from tests.grafana.queries import dashboards
from worker.durations import parse_duration

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
BROWSER_S = 120.0


def main() -> int:
    """Draw each dashboard as SVG, and as PNG where there is a Chromium."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("--prometheus", default="http://localhost:9090", help="address of Prometheus")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="folder of the pictures")
    parser.add_argument("--since", default="1h", help="how far back they look")
    parser.add_argument("--scraped-every", default="15s", help="the scrape interval of that Prometheus")
    parser.add_argument("--only", choices=sorted(dashboards()), action="append", help="this dashboard only")
    parser.add_argument("--variable", action="append", default=[], metavar="NAME=VALUE", help="as chosen in Grafana")
    words = parser.parse_args()
    scrape_s = parse_duration(words.scraped_every).seconds
    span = Span.until_now(parse_duration(words.since).seconds, scrape_s)
    given = dict(one.partition("=")[::2] for one in words.variable)
    words.out.mkdir(parents=True, exist_ok=True)
    for name, page in dashboards().items():
        if words.only and name not in words.only:
            continue
        svg, height = drawn(Asked(Prometheus(words.prometheus), page, span, scrape_s, given))
        path = words.out / f"{name}.svg"
        path.write_text(svg, encoding="utf-8")
        print(path)
        if browser := next(filter(None, map(shutil.which, BROWSERS)), None):
            print(photographed(browser, path, height))
    return 0


def photographed(browser: str, svg: Path, height: int) -> Path:
    """The picture of an SVG as PNG, taken by a browser without a window."""
    png = svg.with_suffix(".png")
    with tempfile.TemporaryDirectory(prefix="killick-pictures-") as profile:
        page = Path(profile) / "page.html"
        page.write_text(f"<style>body{{margin:0}}</style>{svg.read_text(encoding='utf-8')}", encoding="utf-8")
        place = (
            f"--user-data-dir={profile}/profile",
            f"--screenshot={png.absolute()}",
            f"--window-size={WIDTH},{height}",
        )
        command = [browser, *FLAGS, *place, page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=BROWSER_S)
    return png


if __name__ == "__main__":
    sys.exit(main())
