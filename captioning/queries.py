"""What people ask of the tables. Reading only, but for the removal of unclaimed image rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Boolean, bindparam, delete, func, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_dict

from captioning.access import Caller
from captioning.database import Database, db_now
from captioning.errors import BatchNotFound, ImageNotFound, JobNotFound
from captioning.jobs import claimable
from captioning.models import Base, Batch, Caption, Image, Job, JobStatus, Worker, looked_up_id

Made = TypeVar("Made", bound=Base)

WORKER_SILENT_S = 60
"""A worker not seen for this long is counted as gone."""


@dataclass(frozen=True)
class Progress:
    """How far the jobs of a batch have come."""

    total: int
    by_status: dict[JobStatus, int]

    @property
    def finished(self) -> int:
        return sum(count for status, count in self.by_status.items() if status.finished)

    @property
    def done(self) -> bool:
        return self.finished == self.total


def get_job(session: Session, job_id: str) -> Job:
    """Raises: JobNotFound."""
    job = session.get(Job, looked_up_id(job_id))
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.")
    return job


_OF_JOB, _OF_IMAGE, _OF_CAPTION = (table.__table__.columns for table in (Job, Image, Caption))
_WHOLE_JOB = (
    select(*_OF_JOB, *_OF_IMAGE, *_OF_CAPTION)
    .join_from(Job, Image)
    .outerjoin(Caption)
    .where(
        Job.id == bindparam("id"),
        bindparam("sees_all", type_=Boolean()) | (Job.owner == bindparam("owner")),
    )
    .order_by(Caption.rank)
)


def read_job(database: Database, job_id: str, caller: Caller) -> Job:
    """As `get_job`, for who asks again and again: in one statement, and outside any session.
    As long as nothing changes it is the same object, which nobody may change.

    Raises: JobNotFound, DatabaseUnavailable.
    """
    asked = {"id": looked_up_id(job_id), "sees_all": caller.sees_all, "owner": caller.owner}
    rows = database.glance(_WHOLE_JOB, asked)
    if not rows:
        raise JobNotFound(f"There is no job {job_id}.")
    return _of_rows(tuple(rows))


@lru_cache(maxsize=1024)  # most of those who ask again are told the same
def _of_rows(rows: tuple[Sequence[Any], ...]) -> Job:
    its, of_image = len(_OF_JOB), len(_OF_JOB) + len(_OF_IMAGE)
    captions = [row[of_image:] for row in rows if row[of_image] is not None]
    return _made(
        Job,
        _OF_JOB.keys(),
        rows[0][:its],
        image=_made(Image, _OF_IMAGE.keys(), rows[0][its:of_image]),
        captions=[_made(Caption, _OF_CAPTION.keys(), caption) for caption in captions],
    )


def _made(
    table: type[Made], columns: Sequence[str], values: Sequence[Any], **related: object
) -> Made:
    """A row that no session knows of, with what was read of it, as the ORM itself would set it:
    by its constructor it would take longer than reading it did."""
    row = table()
    instance_dict(row).update(zip(columns, values, strict=True), **related)
    return row


def get_batch(session: Session, batch_id: str) -> Batch:
    """Raises: BatchNotFound."""
    batch = session.get(Batch, looked_up_id(batch_id))
    if batch is None:
        raise BatchNotFound(f"There is no batch {batch_id}.")
    return batch


def get_image(session: Session, image_id: str) -> Image:
    """One that some job has. Raises: ImageNotFound."""
    image = session.get(Image, looked_up_id(image_id))
    if image is None or image.stored_at is None:
        raise ImageNotFound(f"There is no image {image_id}.")
    return image


def batch_jobs(session: Session, batch_id: str) -> Sequence[Job]:
    """The jobs of a batch, in upload order."""
    return session.scalars(select(Job).where(Job.batch_id == batch_id).order_by(Job.id)).all()


def batch_job_ids(session: Session, batch_id: str) -> Sequence[str]:
    """In upload order."""
    return session.scalars(select(Job.id).where(Job.batch_id == batch_id).order_by(Job.id)).all()


def existing_jobs(session: Session, job_ids: Iterable[str]) -> Sequence[str]:
    """The ids of those of the jobs that are there, oldest first."""
    wanted = {looked_up_id(job_id) for job_id in job_ids}
    return session.scalars(select(Job.id).where(Job.id.in_(wanted)).order_by(Job.id)).all()


def iterate_batch(session: Session, batch_id: str, *, after: str = "", limit: int) -> Sequence[Job]:
    """The next jobs of a batch after the one of that id, in upload order."""
    of_batch = select(Job).where(Job.batch_id == batch_id, Job.id > after)
    return session.scalars(of_batch.order_by(Job.id).limit(limit)).all()


def batch_progress(session: Session, batch_id: str) -> Progress:
    rows = session.execute(
        select(Job.status, func.count()).where(Job.batch_id == batch_id).group_by(Job.status)
    ).all()
    by_status = {JobStatus(status): count for status, count in rows}
    return Progress(sum(by_status.values()), by_status)


def count_by_status(session: Session) -> dict[JobStatus, int]:
    """How many jobs there are in each state; states without a job are left out."""
    rows = session.execute(select(Job.status, func.count()).group_by(Job.status)).all()
    return {JobStatus(status): count for status, count in rows}


def count_claimable(session: Session, model: str, *, at_most: int) -> int:
    """Jobs of a model that a worker could claim now, counted up to `at_most`."""
    head = select(Job.id).where(*claimable(model)).limit(at_most)
    return session.scalar(select(func.count()).select_from(head.subquery())) or 0


@dataclass(frozen=True)
class QueueState:
    """The jobs of one model that have not finished."""

    queued: int = 0
    running: int = 0
    oldest_s: float = 0
    """How long the head of the queue has waited."""


def queue_states(session: Session, models: Iterable[str]) -> dict[str, QueueState]:
    """The state of each of these models' queues, and of those that have jobs all the same."""
    unfinished = (JobStatus.QUEUED, JobStatus.RUNNING)
    # One statement each: a partial index answers it without reading the table.
    queued, running = (
        {
            model: count
            for model, count in session.execute(
                select(Job.model, func.count()).where(Job.status == status).group_by(Job.model)
            )
        }
        for status in unfinished
    )
    return {
        model: QueueState(queued.get(model, 0), running.get(model, 0), _oldest_s(session, model))
        for model in {*models, *queued, *running}
    }


def _oldest_s(session: Session, model: str) -> float:
    claimable = select(Job.available_at, db_now()).where(
        Job.model == model, Job.status == JobStatus.QUEUED, Job.available_at <= db_now()
    )
    head = session.execute(claimable.order_by(Job.id).limit(1)).first()
    if head is None:
        return 0
    available_at, now = head
    return max((now - available_at).total_seconds(), 0)


def count_queued(session: Session, *, at_most: int) -> int:
    """Jobs of all models that wait, counted up to `at_most`."""
    head = select(Job.id).where(Job.status == JobStatus.QUEUED).limit(at_most)
    return session.scalar(select(func.count()).select_from(head.subquery())) or 0


def live_workers(session: Session) -> Sequence[Worker]:
    """Workers that have loaded their models and were seen lately."""
    seen = Worker.seen_at > db_now(-WORKER_SILENT_S)
    return session.scalars(select(Worker).where(seen).order_by(Worker.id)).all()


def served_models(session: Session) -> set[str]:
    """The models that some live worker has loaded."""
    return {model for worker in live_workers(session) for model in worker.models}


def abandoned_images(session: Session, *, older_than_s: float, limit: int) -> Sequence[Image]:
    """Images whose upload died before a job referred to them. In no order: those that cannot
    be removed must not stand before the others at each sweep."""
    query = select(Image).where(Image.stored_at.is_(None), Image.created_at < db_now(-older_than_s))
    return session.scalars(query.order_by(func.random()).limit(limit)).all()


def images_in_use(session: Session, image_ids: Collection[str]) -> set[str]:
    """The ids of those of the images that jobs refer to, or will if a transaction that is still
    under way ends well: it has locked their rows."""
    these = select(Image.id).where(Image.id.in_(image_ids))
    pending = these.where(Image.stored_at.is_(None)).with_for_update(skip_locked=True)
    free = session.scalars(pending).all()
    return set(session.scalars(these.where(Image.id.not_in(free))))


def delete_pending_images(session: Session, image_ids: Collection[str]) -> None:
    """Forget images that no job refers to. Their bytes must be gone already."""
    session.execute(delete(Image).where(Image.id.in_(image_ids), Image.stored_at.is_(None)))
