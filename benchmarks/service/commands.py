"""What a job, and a worker with nothing to do, ask of database and broker, counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.counted import Counts, count_in, counts
from benchmarks.service.filling import drain_s, fill, photographs, unlike_any
from benchmarks.service.ground import ground
from benchmarks.service.scaling import STAND_IN
from tests.servers import valkey
from web import samples

KINDS = ("postgresql", "sqlite")


@dataclass(frozen=True)
class Row:
    database: str
    subject: str
    statements: float
    transactions: float
    broker: float

    def __str__(self) -> str:
        return (
            f"| {self.database} | {self.subject} | {self.statements:.2f} "
            f"| {self.transactions:.2f} | {self.broker:.2f} |"
        )


HEADER = """\
| database | of | statements | transactions | broker commands |
|---|---|---|---|---|"""


@dataclass
class Tally:
    database: Counts
    broker: int

    def row(self, kind: str, subject: str, share: float) -> Row:
        found = (self.database.statements, self.database.transactions, self.broker)
        return Row(kind, subject, *(each / share for each in found))


def measure(idle_s: float = 30, images: int = 160) -> list[Row]:
    return [row for kind in KINDS for row in _measure(kind, idle_s, images)]


def _measure(kind: str, idle_s: float, images: int) -> Iterator[Row]:
    with ground(kind) as place:
        ours, theirs = place.storage.with_name("ours"), place.storage.with_name("theirs")
        ours.mkdir()
        theirs.mkdir()
        count_in(ours, place.queue.database.engine)
        photo = samples.read("cat")
        with _tallied(ours) as found:
            for _ in range(10):
                place.queue.submit(unlike_any(photo))
        yield found[0].row(kind, "handing in one photograph", 10)
        with place.workers(1, STAND_IN, "1", "0.05", str(theirs)) as process:
            drain_s(place, process)
            fill(place, photographs(images))
            with _tallied(theirs) as found:
                drain_s(place, process)
            yield found[0].row(kind, "captioning one of a full queue", images)
            with _tallied(theirs) as found:
                time.sleep(idle_s)
            yield found[0].row(kind, "a worker with nothing to do, a second", idle_s)


@contextmanager
def _tallied(folder: Path) -> Iterator[list[Tally]]:
    found: list[Tally] = []
    database, broker = counts(folder), _broker_commands()
    yield found
    found.append(Tally(counts(folder) - database, _broker_commands() - broker))


def _broker_commands() -> int:
    """All but those that ask for this number, and that open a connection."""
    with valkey().client as client:
        asked = client.info("commandstats")
    ours = ("cmdstat_info", "cmdstat_client|setinfo", "cmdstat_hello")
    return sum(each["calls"] for name, each in asked.items() if name not in ours)
