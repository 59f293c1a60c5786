"""`python -m benchmarks.service.stand_in COUNT SECONDS [FOLDER]`: so many workers, real but for the
model, which says the same of every photograph after SECONDS for a micro-batch. What they ask of
their database is counted in FOLDER."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

import torch
from PIL import Image

from benchmarks.service.counted import count_in
from clipcap import DecodingOptions
from clipcap.captioner import Caption
from worker import __main__ as worker
from worker import models

Result = TypeVar("Result")


class StandIn:
    """A captioner of a fixed cost, none of which is the processor's."""

    device = torch.device("cpu")
    revision = "stand-in"
    defaults = DecodingOptions()

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self, work: Callable[[], Result]) -> Result:
        return work()

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.zeros(3, 1, 1)

    def encode(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        time.sleep(self._seconds)
        return torch.stack(list(pixels)).flatten(1)

    def prefix(self, embedding: torch.Tensor) -> torch.Tensor:
        return embedding

    def decode(
        self,
        prefix: torch.Tensor,
        options: DecodingOptions,
        *,
        embedding: torch.Tensor,
        clip_scores: bool,
    ) -> Sequence[Sequence[Caption]]:
        return [[Caption("A photograph.", -1.0)] for _ in prefix]


def main(count: str, seconds: str, folder: str = "") -> int:
    """Fork, so that eight cost the time and the memory of loading torch once."""
    children: list[int] = []
    for _ in range(int(count)):
        child = os.fork()
        if not child:
            return _work(float(seconds), folder)
        children.append(child)

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            os.kill(child, number)

    signal.signal(signal.SIGTERM, pass_on)
    return max(os.waitpid(child, 0)[1] for child in children)


def _work(seconds: float, folder: str) -> int:
    if folder:
        count_in(Path(folder))

    def load(names: Mapping[str, str]) -> Mapping[str, StandIn]:
        return {name: StandIn(seconds) for name in names}

    models.load = load  # type: ignore[assignment]
    return worker.main()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
