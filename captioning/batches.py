"""What is done to all jobs of a batch at once, each in a transaction of its own, which waits for no
other job. Somebody else may have been first with any of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from sqlalchemy.orm import Session

from captioning import jobs, queries
from captioning.errors import JobNotFound, WrongState
from captioning.models import Job, JobStatus
from captioning.queue import Queue


def cancel(queue: Queue, batch_id: str) -> None:
    """Cancel what has not ended.

    Raises: BatchNotFound.
    """
    for job in _jobs(queue, batch_id):
        if not job.finished_at:
            _change(queue, jobs.cancel, job.id)


def retry(queue: Queue, batch_id: str) -> None:
    """Try again what has failed.

    Raises: BatchNotFound.
    """
    failed = [job for job in _jobs(queue, batch_id) if job.status == JobStatus.FAILED]
    for job in failed:
        _change(queue, jobs.retry, job.id)
    for model in {job.model for job in failed}:
        queue.doorbell.ring(model)


def _jobs(queue: Queue, batch_id: str) -> list[Job]:
    with queue.database.read() as session:
        batch = queries.get_batch(session, batch_id)
        return list(queries.batch_jobs(session, batch.id))


def _change(queue: Queue, verb: Callable[[Session, str], None], job_id: str) -> None:
    with queue.database.write() as session, suppress(JobNotFound, WrongState):
        verb(session, job_id)
