"""A full queue, and the time in which it is drained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.service.ground import Ground, Process
from captioning import jobs, queries
from captioning.broker import MAX_RINGS, queue_name
from captioning.database import db_now
from captioning.images import NormalisedImage, normalise
from captioning.jobs import JobOptions
from captioning.models import Image, Job, JobStatus, new_id
from captioning.queue import Queue
from tests.servers import valkey
from web import samples

SELDOM_S = 0.25
"""Who looks takes the processor from who works. It is the database's clock that measures."""


def photographs(count: int) -> list[NormalisedImage]:
    """The sample photographs, again and again, as they are stored."""
    made = [
        normalise(samples.read(name), max_bytes=10**7, max_pixels=10**7) for name in samples.SAMPLES
    ]
    return list(islice(cycle(made), count))


def unlike_any(jpeg: bytes) -> bytes:
    """The same photograph with a comment of its own: what was captioned is not captioned again."""
    own = new_id().encode()
    comment = b"\xff\xfe" + (len(own) + 2).to_bytes(2, "big") + own
    return jpeg[:2] + comment + jpeg[2:]


def fill(ground: Ground, photos: Sequence[NormalisedImage]) -> list[Path]:
    """Queue the photographs in one transaction, without a ring; returns what workers will read."""
    queue = ground.queue
    images = [
        # No two of the same bytes: those would be captioned once.
        Image(filename="photo.jpg", sha256=2 * new_id(), width=photo.width, height=photo.height)
        for photo in photos
    ]
    with queue.database.write() as session:
        session.add_all(images)
    for image, photo in zip(images, photos, strict=True):
        queue.storage.put(image.key, photo.jpeg)
    with queue.database.write() as session:
        options = JobOptions(queue.settings.default_model)
        jobs.submit(session, images, options, max_attempts=queue.settings.max_attempts)
    return [ground.storage / image.key for image in images]


def drain_s(ground: Ground, worker: Process) -> float:
    """Ring as an upload does, and wait until all rings are used up: the seconds until the last
    job has its caption.

    Raises: RuntimeError, where one has none.
    """
    settings = ground.queue.settings
    with ground.queue.database.read() as session:
        waiting = queries.count_queued(session, at_most=MAX_RINGS * settings.batch_size)
        started_at = session.scalar(select(db_now()))
    ground.queue.doorbell.ring(settings.default_model, times=-(-waiting // settings.batch_size))
    ground.wait_until(lambda: not _left(ground.queue), worker, poll_s=SELDOM_S)
    ground.wait_until(lambda: not _rings(settings.default_model), worker, poll_s=SELDOM_S)
    with ground.queue.database.read() as session:
        ended_at = session.scalar(select(func.max(Job.finished_at)))
        failed = session.scalar(select(func.count()).where(Job.status != JobStatus.SUCCEEDED))
    if failed or started_at is None or ended_at is None:
        raise RuntimeError(f"{failed} jobs have not succeeded")
    return (ended_at - started_at).total_seconds()


def _left(queue: Queue) -> bool:
    unfinished = Job.status.in_([JobStatus.QUEUED, JobStatus.RUNNING])
    with queue.database.read() as session:
        return session.scalar(select(Job.id).where(unfinished).limit(1)) is not None


def _rings(model: str) -> int:
    """Those that nobody has heard, and those that nobody has begun to answer."""
    with valkey().client as client:
        unheard, unanswered = client.llen(queue_name(model)), client.hlen("unacked")
    return int(unheard) + int(unanswered)  # type: ignore[arg-type]
