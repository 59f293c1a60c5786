"""More workers on one queue, with a stand-in for the model that takes 0.5 s for a micro-batch of 8
and no processor: what is left is what the service itself costs. PostgreSQL and Valkey."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.service.filling import drain_s, fill, photographs
from benchmarks.service.ground import ground

STAND_IN = "benchmarks.service.stand_in"
WANTED = {1: 1.0, 2: 1.9, 4: 3.7, 8: 7.0}
BATCH_SIZE = 8


@dataclass(frozen=True)
class Row:
    workers: int
    images_a_second: float
    ratio: float
    """To one worker."""
    of_bound: float
    """To workers that have nothing else to do than to wait for the model."""

    def __str__(self) -> str:
        return (
            f"| {self.workers} | {self.images_a_second:.1f} | {self.ratio:.2f} "
            f"| {WANTED[self.workers]} | {100 * self.of_bound:.0f} % |"
        )


HEADER = """\
| workers | images a second | x one worker | wanted | of what the model allows |
|---|---|---|---|---|"""


def measure(
    fleets: tuple[int, ...] = (1, 2, 4, 8), seconds: float = 0.5, micro_batches: int = 20
) -> list[Row]:
    rows: list[Row] = []
    with ground("postgresql", batch_size=BATCH_SIZE) as place:
        for count in fleets:
            with place.workers(count, STAND_IN, str(count), str(seconds)) as process:
                photos = photographs(count * micro_batches * BATCH_SIZE)
                fill(place, photos)
                speed = len(photos) / drain_s(place, process)
            first = rows[0].images_a_second if rows else speed
            bound = count * BATCH_SIZE / seconds
            rows.append(Row(count, speed, speed / first, speed / bound))
    return rows
