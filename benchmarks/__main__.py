"""`python -m benchmarks [cpu|cuda]`: measure all, print tables, and keep them in
benchmarks/results-CHIP.md: ratios differ from processor to processor."""

from __future__ import annotations

import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import decoding, end_to_end
from clipcap import Captioner
from clipcap.model_thread import model_thread

ROUNDS = 5
HERE = Path(__file__).parent


def main(kind: str = "cpu") -> None:
    if kind == "cuda" and not torch.cuda.is_available():
        sys.exit("skipped: there is no GPU that torch can use")
    device = torch.device(kind)
    # Where a Captioner computes: it would be slower beside another (clipcap/model_thread.py).
    lines = model_thread(device).run(lambda: _measured(device))
    print("\n".join(lines))
    (HERE / f"results-{_slug(_chip(device))}.md").write_text("\n".join(lines))


def _measured(device: torch.device) -> list[str]:
    """The lines of the results."""
    on_gpu = device.type == "cuda"
    cases = decoding.GPU_CASES if on_gpu else decoding.CPU_CASES
    captioner = Captioner.load("bundled", device)
    return [
        f"# {datetime.now(UTC):%Y-%m-%d}, {_machine(device)}, torch {torch.__version__}",
        "",
        f"## {_title(decoding.__doc__)}",
        "",
        decoding.HEADER,
        *map(str, decoding.measure(ROUNDS, device, cases)),
        "",
        f"## {_title(end_to_end.__doc__)}",
        "",
        f"Precision: {captioner.precision.mode}, revision {captioner.revision}.",
        "",
        end_to_end.HEADER,
        *map(str, end_to_end.measure(ROUNDS, captioner)),
        "",
    ]


def _title(text: str | None) -> str:
    return " ".join((text or "").split()).rstrip(".")


def _machine(device: torch.device) -> str:
    chip = _chip(device)
    return chip if device.type == "cuda" else f"{torch.get_num_threads()} threads of {chip}"


def _chip(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def _processor() -> str:
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists():
        return platform.processor() or platform.machine()
    names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.machine()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(\w+\)", "", name).lower()).strip("-")


if __name__ == "__main__":
    main(*sys.argv[1:])
