"""`python -m benchmarks.service [PART …]`: measure all parts but the soak, print their tables and
keep them in benchmarks/results-service.md; or only the parts that are named."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks.__main__ import _processor

PARTS = ("draining", "alone", "scaling", "rows", "twins", "commands", "polling", "uploads", "pages")
RESULTS = Path(__file__).parents[1] / "results-service.md"


def main(*names: str) -> None:
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} threads of {_processor()}", ""]
    print("\n".join(lines))
    for name in names or PARTS:
        lines += _part(name)
    if not names:
        RESULTS.write_text("\n".join(lines))


def _part(name: str) -> list[str]:
    part = import_module(f"benchmarks.service.{name}")
    title = " ".join((part.__doc__ or "").split()).rstrip(".")
    head = [f"## {title}", "", part.HEADER]
    print("\n".join(head), flush=True)
    rows = []
    for row in part.measure():
        rows.append(str(row))
        print(row, flush=True)
    print(flush=True)
    return [*head, *rows, ""]


if __name__ == "__main__":
    main(*sys.argv[1:])
