"""Lists the benchmarks with their first lines: `python -m benchmarks`."""

from __future__ import annotations

import ast
from pathlib import Path


def main() -> None:
    """Print one line per benchmark: how it is run and what it measures."""
    found = sorted(p for p in Path(__file__).parent.glob("*.py") if not p.name.startswith("_"))
    for path in found:
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "(no docstring)"
        print(f"python -m benchmarks.{path.stem:<14} {doc.splitlines()[0]}")
    print("killick bench throughput        Forecasts a second on your own Kafka and Redis.")
    print("killick bench accuracy          The LSTM, frozen and updated, on real streams beside published figures.")
    print("killick bench damped-sine       Our training beside a published recipe in plain Keras: error and time.")


if __name__ == "__main__":
    main()
