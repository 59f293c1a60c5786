"""What claiming costs where nobody asks the same, and past 10,000 jobs that wait for a twin that
runs, in turns."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack, suppress

from sqlalchemy import insert, text

from benchmarks.service import rows
from benchmarks.service.ground import Ground, ground
from benchmarks.service.rows import KINDS, Row
from captioning import jobs
from captioning.database import db_now
from captioning.models import Image, Job, JobStatus

HEADER = rows.HEADER.replace(" (<= 1.3)", "")
OTHERS = 64


def measure(twins: int = 10_000, turns: int = 40) -> list[Row]:
    return [_measure(kind, twins, turns) for kind in KINDS]


def _measure(kind: str, twins: int, turns: int) -> Row:
    with ExitStack() as stack:
        places = [stack.enter_context(ground(kind)) for _ in range(2)]
        for place, count in zip(places, (0, twins), strict=True):
            _fill(place, count)
        taken: dict[Ground, list[float]] = {place: [] for place in places}
        for turn in range(-5, turns):
            for place in places:
                started = time.perf_counter()
                _claim(place)
                if turn >= 0:
                    taken[place].append(1000 * (time.perf_counter() - started))
        return Row(kind, "claim 8", *(statistics.median(found) for found in taken.values()))


def _fill(place: Ground, twins: int) -> None:
    """Those that wait for one that runs, and behind them those that wait for nobody."""
    ids = [f"{number:032x}" for number in range(twins + 1 + OTHERS)]
    image = {"filename": "photo.jpg", "sha256": "0" * 64, "width": 640, "height": 480}
    job = {"model": "bundled", "decoding": "beam", "num_captions": 1, "max_attempts": 3}
    queued = [
        {"id": each, "image_id": each, "place": number, "asked": ids[max(number - twins, 0)], **job}
        for number, each in enumerate(ids)
    ]
    runs = {"status": JobStatus.RUNNING, "lease_token": "held", "lease_expires_at": db_now(3600)}
    with place.queue.database.write() as session:
        session.execute(insert(Image), [{"id": each, **image} for each in ids])
        session.execute(insert(Job).values(**runs), queued[:1])
        session.execute(insert(Job), queued[1:])
    with place.queue.database.alter() as connection:
        connection.execute(text("ANALYZE"))  # as autovacuum does, and `PRAGMA optimize`


class _TakenBack(Exception):
    """So that the next claim finds the same."""


def _claim(place: Ground) -> None:
    with suppress(_TakenBack), place.queue.database.write() as session:
        claim = jobs.claim(session, "bundled", limit=8, lease_s=60, revision="stand-in")
        if claim is None or len(claim.jobs) < 8:
            raise RuntimeError("the others were not found")
        raise _TakenBack
