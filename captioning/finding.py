"""Which jobs of many: by state, batch, model, time and the words of their captions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from captioning.database import storable
from captioning.models import Caption, Job, JobStatus, looked_up_id

MAX_WORDS = 20
"""More words of a search are not looked at: each costs a look at every caption."""
CLOCKS_APART = timedelta(days=1)
"""An id begins with the time by the clock of the machine that made it, and rows are read in its
order; `created_at` is the database's. They differ by less."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of a job. Nothing asked, all are wanted."""

    statuses: Collection[JobStatus] = ()
    batch_id: str | None = None
    model: str | None = None
    words: str = ""
    """All of them occur in what is shown for a caption or in one that the model wrote."""
    after: datetime | None = None
    before: datetime | None = None
    """Made after the one and before the other moment."""
    upto: str | None = None
    """An id: none that is newer, so that what arrives meanwhile is not meant."""

    job_ids: Collection[str] | None = None
    """None but these."""

    def conditions(self) -> list[ColumnElement[bool]]:
        found = [_mentions(word) for word in storable(self.words).split()[:MAX_WORDS]]
        if self.statuses:
            found.append(Job.status.in_(self.statuses))
        if self.batch_id is not None:
            found.append(Job.batch_id == looked_up_id(self.batch_id))
        if self.model is not None:
            found.append(Job.model == storable(self.model))
        if self.after is not None:
            found += [Job.created_at > self.after, Job.id >= _id_at(self.after - CLOCKS_APART)]
        if self.before is not None:
            found += [Job.created_at < self.before, Job.id < _id_at(self.before + CLOCKS_APART)]
        if self.upto is not None:
            found.append(Job.id <= looked_up_id(self.upto))
        if self.job_ids is not None:
            found.append(Job.id.in_({looked_up_id(job_id) for job_id in self.job_ids}))
        return found


EVERYTHING = Wanted()


def list_jobs(
    session: Session, wanted: Wanted = EVERYTHING, *, limit: int, before: str | None = None
) -> Sequence[Job]:
    """Newest first; `before` is the id of the last job of the page before this one."""
    query = select(Job).where(*wanted.conditions()).order_by(Job.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Job.id < looked_up_id(before))
    return session.scalars(query).all()


def list_job_ids(session: Session, wanted: Wanted, *, limit: int) -> Sequence[str]:
    """Newest first."""
    query = select(Job.id).where(*wanted.conditions()).order_by(Job.id.desc()).limit(limit)
    return session.scalars(query).all()


def count_jobs(session: Session, wanted: Wanted, *, at_most: int) -> int:
    """How many are wanted, counted up to `at_most`."""
    head = select(Job.id).where(*wanted.conditions()).limit(at_most)
    return session.scalar(select(func.count()).select_from(head.subquery())) or 0


def _mentions(word: str) -> ColumnElement[bool]:
    by_model = select(Caption.job_id).where(
        Caption.job_id == Job.id, Caption.text.icontains(word, autoescape=True)
    )
    return or_(Job.edited_text.icontains(word, autoescape=True), by_model.exists())


def _id_at(moment: datetime) -> str:
    """Ids that were made then begin so, or with more."""
    milliseconds = int(moment.astimezone(UTC).timestamp() * 1000)
    return f"{max(milliseconds, 0):012x}".ljust(32, "0")
