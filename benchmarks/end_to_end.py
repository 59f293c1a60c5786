"""From JPEG files to captions with the bundled model, in the precision that it chooses itself,
and what share each stage has when they follow each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import side_by_side
from clipcap import Captioner
from clipcap.files import caption_files, read_pixels

PHOTOGRAPHS = Path(__file__).parents[1] / "web" / "samples"
COUNTS = (1, 8, 32)


@dataclass(frozen=True)
class Row:
    images: int
    whole_ms: float
    """Reading ahead in threads, as `clipcap caption` does."""
    stages_ms: dict[str, float]

    def __str__(self) -> str:
        total = sum(self.stages_ms.values())
        shares = " | ".join(f"{100 * ms / total:.0f} %" for ms in self.stages_ms.values())
        return (
            f"| {self.images} | {self.whole_ms / self.images:.1f} "
            f"| {1000 * self.images / self.whole_ms:.1f} | {shares} |"
        )


HEADER = """\
| images | ms an image | captions a second | read | encode | map | decode |
|---|---|---|---|---|---|---|"""


def measure(rounds: int, captioner: Captioner) -> list[Row]:
    return [_measure(count, rounds, captioner) for count in COUNTS]


def _measure(count: int, rounds: int, captioner: Captioner) -> Row:
    paths = list(islice(cycle(sorted(PHOTOGRAPHS.glob("*.jpg"))), count))

    def read() -> Tensor:
        return torch.stack([read_pixels(captioner, path) for path in paths])

    pixels = read()
    embedding = captioner.encode(pixels)
    prefix = captioner.prefix(embedding)
    stages: dict[str, Callable[[], object]] = {
        "read": read,
        "encode": lambda: captioner.encode(pixels),
        "map": lambda: captioner.prefix(embedding),
        "decode": lambda: captioner.decode(prefix, embedding=embedding),
    }
    whole = {"whole": lambda: list(caption_files(captioner, paths, batch_size=count))}
    taken = side_by_side(stages | whole, rounds)
    return Row(count, taken.pop("whole"), taken)
