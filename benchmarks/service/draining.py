"""Draining a full queue with the bundled model: the worker process beside the bare loop over the
same files, in micro-batches of the same size, on the same cores."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.service.filling import drain_s, fill, photographs
from benchmarks.service.ground import ground
from clipcap import Captioner
from clipcap.files import caption_files

KINDS = ("postgresql", "sqlite")
TURNS = 2
CALM_S = 0.5
"""Between two turns, until threads that wait for work have stopped spinning."""


@dataclass(frozen=True)
class Row:
    database: str
    images: int
    worker_ms: float
    """Each an image."""
    loop_ms: float
    ahead_ms: float

    @property
    def ratio(self) -> float:
        return self.loop_ms / self.worker_ms

    def __str__(self) -> str:
        return (
            f"| {self.database} | {self.images} | {self.worker_ms:.1f} | {self.loop_ms:.1f} "
            f"| {self.ahead_ms:.1f} | {self.ratio:.2f} |"
        )


HEADER = """\
| database | images | worker, ms an image | bare loop | reading ahead | x bare loop (>= 0.90) |
|---|---|---|---|---|---|"""


def measure(model: str = "bundled", images: int = 128, processes: int = 3) -> list[Row]:
    """One process of the same program may be a fifth slower than the next, for as long as it
    lives: of each kind there are several, one after the other."""
    return [_measure(kind, model, images, processes) for kind in KINDS]


def _measure(kind: str, model: str, images: int, processes: int) -> Row:
    taken = [turn for _ in range(processes) for turn in _turns(kind, model, images)]
    worker, loop, ahead = (statistics.median(found) for found in zip(*taken, strict=True))
    return Row(kind, images, *(1000 * seconds / images for seconds in (worker, loop, ahead)))


def _turns(kind: str, model: str, images: int) -> list[tuple[float, float, float]]:
    """The seconds of a new worker, and of a captioner that is loaded beside it, in turns."""
    captioner = Captioner.load(model.partition("=")[2] or model)
    photos = photographs(images)
    taken = []
    with ground(kind, model) as place, place.workers() as process:
        size = place.settings.batch_size
        for _ in range(TURNS + 1):
            files = fill(place, photos)
            taken.append(
                (
                    drain_s(place, process),
                    _timed(lambda files=files: _loop(captioner, files, size)),
                    _timed(lambda files=files: _ahead(captioner, files, size)),
                )
            )
    return taken[1:]


def _loop(captioner: Captioner, files: list[Path], size: int) -> None:
    for first in range(0, len(files), size):
        captioner.caption([Image.open(file) for file in files[first : first + size]])


def _ahead(captioner: Captioner, files: list[Path], size: int) -> None:
    list(caption_files(captioner, files, batch_size=size))


def _timed(run: Callable[[], object]) -> float:
    time.sleep(CALM_S)
    started = time.perf_counter()
    run()
    taken = time.perf_counter() - started
    time.sleep(CALM_S)
    return taken
