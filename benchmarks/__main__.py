"""`python -m benchmarks`: measure all, print tables, and keep them in benchmarks/results.md."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import decoding

ROUNDS = 5
RESULTS = Path(__file__).parent / "results.md"


def main() -> None:
    rows = decoding.measure(ROUNDS)
    lines = [
        f"# {datetime.now(UTC):%Y-%m-%d}, {torch.get_num_threads()} threads of {_processor()}, "
        f"torch {torch.__version__}",
        "",
        f"## {(decoding.__doc__ or '').splitlines()[0]}",
        "",
        decoding.HEADER,
        *map(str, rows),
        "",
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines))


def _processor() -> str:
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists():
        return platform.processor()
    names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.machine()


if __name__ == "__main__":
    main()
