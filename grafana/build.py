"""Writes the dashboards: `python -m grafana.build`; with `--check` it names the files that are not what it writes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from grafana import health, retraining, skill

FOLDER = Path(__file__).parent / "dashboards"


def files() -> dict[Path, str]:
    """Each dashboard's file and its text."""
    pages = {"skill": skill.page(), "health": health.page(), "retraining": retraining.page()}
    return {
        FOLDER / f"{name}.json": json.dumps(page, indent=2, ensure_ascii=False) + "\n" for name, page in pages.items()
    }


def stale() -> list[str]:
    """The files that are not what this program writes, and those that it does not write."""
    wanted = files()
    there = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    return sorted(path.name for path in wanted.keys() | there.keys() if wanted.get(path) != there.get(path))


def main() -> None:
    """Write them, or only look."""
    parser = argparse.ArgumentParser(prog="python -m grafana.build", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is not up to date")
    if parser.parse_args().check:
        if stale():
            parser.exit(1, f"not what python -m grafana.build writes: {', '.join(stale())}; run it\n")
        return
    FOLDER.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
