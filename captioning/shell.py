"""What `captioning status` and `captioning keys list` print."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.orm import Session

from captioning import access, queries
from captioning.models import JobStatus


def service_status(session: Session) -> Iterator[str]:
    """Jobs by status and the workers that are alive, as lines."""
    counts = queries.count_by_status(session)
    for status in JobStatus:
        yield f"{status:<10} {counts.get(status, 0):>8}"
    workers = queries.live_workers(session)
    yield f"workers    {len(workers):>8}"
    for worker in workers:
        yield f"  {worker.name}  {', '.join(worker.models)}"


def job_status(session: Session, job_id: str) -> Iterator[str]:
    """Raises: JobNotFound."""
    job = queries.get_job(session, job_id)
    yield f"{job.status}  {job.image.filename}  {job.model}, {job.decoding}"
    if job.error_message:
        yield f"{job.error_code}: {job.error_message}"
    yield from (caption.text for caption in job.captions)


def keys(session: Session) -> Iterator[str]:
    """A line for each access key."""
    for key in access.list_keys(session):
        notes = [key.rate] if key.rate else []
        if key.images_per_day is not None:
            notes.append(f"{key.images_per_day} images a day")
        if key.revoked_at:
            notes.append(f"revoked {key.revoked_at:%Y-%m-%d}")
        yield "  ".join([key.id, f"{key.role:<5}", f"{key.created_at:%Y-%m-%d}", key.name, *notes])
