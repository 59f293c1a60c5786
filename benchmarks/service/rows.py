"""What claiming and reading cost in a table of 1,000 and of 1,000,000 jobs, in turns. Each job has
its image, each finished one its caption; half of them wait, 100,000 at most."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from sqlalchemy import text

from benchmarks.service.ground import Ground, ground
from captioning import forecast, jobs, queries

KINDS = ("postgresql", "sqlite")
FEWEST = 1000
MOST_QUEUED = 100_000
SERIES = {
    "postgresql": "SELECT i FROM generate_series(1, :rows) AS made(i)",
    "sqlite": "WITH RECURSIVE made(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM made"
    " WHERE i < :rows) SELECT i FROM made",
}
IDS = {"postgresql": "lpad(to_hex({}), 32, '0')", "sqlite": "printf('%032x', {})"}
LATER = {"postgresql": "now() - interval '1 hour'", "sqlite": "'2020-01-01 00:00:00.000'"}


@dataclass(frozen=True)
class Row:
    database: str
    step: str
    few_ms: float
    many_ms: float

    @property
    def ratio(self) -> float:
        return self.many_ms / self.few_ms

    def __str__(self) -> str:
        return (
            f"| {self.database} | {self.step} | {self.few_ms:.2f} | {self.many_ms:.2f} "
            f"| {self.ratio:.2f} |"
        )


HEADER = """\
| database | step | of the few, ms | of the many, ms | ratio (<= 1.3) |
|---|---|---|---|---|"""


def measure(rows: int = 1_000_000, turns: int = 40) -> list[Row]:
    return [row for kind in KINDS for row in _measure(kind, rows, turns)]


def _measure(kind: str, rows: int, turns: int) -> list[Row]:
    with ExitStack() as stack:
        places = [stack.enter_context(ground(kind)) for _ in range(2)]
        for place, count in zip(places, (FEWEST, rows), strict=True):
            grow(place, kind, count)
        sizes = dict(zip(places, (FEWEST, rows), strict=True))
        steps: dict[str, Callable[[Ground, int], object]] = {
            "claim 8 and save their captions": _claim,
            "read a finished job": _read_finished,
            "read a waiting job and its forecast": _read_waiting,
            "count what can be claimed": _count,
        }
        return [Row(kind, step, *_in_turns(run, sizes, turns)) for step, run in steps.items()]


def _in_turns(
    run: Callable[[Ground, int], object], sizes: dict[Ground, int], turns: int
) -> list[float]:
    taken: dict[Ground, list[float]] = {place: [] for place in sizes}
    for turn in range(-5, turns):
        for place, rows in sizes.items():
            started = time.perf_counter()
            run(place, rows)
            if turn >= 0:
                taken[place].append(1000 * (time.perf_counter() - started))
    return [statistics.median(found) for found in taken.values()]


def grow(place: Ground, kind: str, rows: int) -> None:
    """Insert so many jobs by SQL: the oldest have finished, the newest wait."""
    series, key, at = SERIES[kind], IDS[kind].format("i"), LATER[kind]
    finished = rows - _queued(rows)
    state = f"CASE WHEN i <= {finished} THEN 'succeeded' ELSE 'queued' END"
    statements = (
        f"INSERT INTO image (id, filename, sha256, width, height, created_at, stored_at)"
        f" SELECT {key}, 'photo.jpg', '{'0' * 64}', 640, 480, {at}, {at} FROM ({series}) AS s",
        f"INSERT INTO job (id, image_id, model, decoding, num_captions, status, attempts,"
        f" max_attempts, place, available_at, created_at, started_at, finished_at)"
        f" SELECT {key}, {key}, 'bundled', 'beam', 1, {state}, 0, 3, i, {at}, {at}, {at},"
        f" CASE WHEN i <= {finished} THEN {at} END FROM ({series}) AS s",
        f"INSERT INTO caption (job_id, rank, text, mean_log_probability, model_revision)"
        f" SELECT {key}, 0, 'A photograph.', -1.0, 'stand-in' FROM ({series}) AS s"
        f" WHERE i <= {finished}",
    )
    with place.queue.database.alter() as connection:
        for statement in statements:
            connection.execute(text(statement), {"rows": rows})
    with place.queue.database.alter() as connection:
        connection.execute(text("ANALYZE"))  # as autovacuum does, and `PRAGMA optimize`


def _queued(rows: int) -> int:
    return min(rows // 2, MOST_QUEUED)


def _claim(place: Ground, rows: int) -> None:
    with place.queue.database.write() as session:
        claim = jobs.claim(session, "bundled", limit=8, lease_s=60)
    if claim is None:
        raise RuntimeError("nothing was left to claim")
    said = {job.id: [jobs.CaptionText("A photograph.", -1.0)] for job in claim.jobs}
    with place.queue.database.write() as session:
        jobs.succeed(session, claim.token, said, model_revision="stand-in")


def _read_finished(place: Ground, rows: int) -> None:
    job_id = f"{random.randint(1, rows - _queued(rows)):032x}"  # noqa: S311
    with place.queue.database.read() as session:
        queries.get_job(session, job_id)


def _read_waiting(place: Ground, rows: int) -> None:
    with place.queue.database.read() as session:
        job = queries.get_job(session, f"{rows:032x}")
        if forecast.of_job(session, job) is None:
            raise RuntimeError("it does not wait")


def _count(place: Ground, rows: int) -> None:
    with place.queue.database.read() as session:
        queries.count_claimable(session, "bundled", at_most=1)
