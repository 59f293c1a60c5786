"""When a waiting job will have its caption, as far as anybody can tell: from its place in the
queue, and from how fast the last ones went. Asks about the jobs of all owners, and tells numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from captioning.models import Job, JobStatus

MOST_COUNTED = 1000
LAST_ONES = 64


@dataclass(frozen=True)
class Forecast:
    ahead: int
    """Waiting jobs that come before it, counted up to MOST_COUNTED."""
    seconds: float | None
    """Until it has its caption; None where nothing tells."""


def of_job(session: Session, job: Job) -> Forecast | None:
    """None where it does not wait."""
    if job.status != JobStatus.QUEUED:
        return None
    ahead = _count_ahead(session, job)
    spacing_s = _spacing_s(session, job.model)
    running = select(func.count()).where(Job.status == JobStatus.RUNNING, Job.model == job.model)
    before = ahead + (session.scalar(running) or 0)
    counted = ahead < MOST_COUNTED and spacing_s is not None
    return Forecast(ahead, (before + 1) * (spacing_s or 0) if counted else None)


def _count_ahead(session: Session, job: Job) -> int:
    place = tuple_(Job.priority, Job.place, Job.id)
    before = (
        select(Job.id)
        .where(Job.model == job.model, Job.status == JobStatus.QUEUED)
        .where(place < tuple_(job.priority, job.place, job.id))
        .limit(MOST_COUNTED)
    )
    return session.scalar(select(func.count()).select_from(before.subquery())) or 0


def _spacing_s(session: Session, model: str) -> float | None:
    """The time in which one more caption was there, over the last ones: of the time during which
    any of them was in work, which leaves out when there was none. More workers make it less."""
    last = (
        select(Job.model, Job.started_at, Job.finished_at)
        # Not `==`: PostgreSQL would go through the jobs by id, past all that wait, to come to one.
        .where(Job.status.between(JobStatus.SUCCEEDED, JobStatus.SUCCEEDED))
        .order_by(Job.status.desc(), Job.id.desc())
        .limit(LAST_ONES)
    )
    spans = sorted(
        (started_at, finished_at)
        for of_model, started_at, finished_at in session.execute(last)
        if of_model == model and started_at and finished_at
    )
    if not spans:
        return None
    busy_s, reached = 0.0, spans[0][0]
    for started_at, finished_at in spans:
        if finished_at > reached:
            busy_s += (finished_at - max(started_at, reached)).total_seconds()
            reached = finished_at
    return busy_s / len(spans)
