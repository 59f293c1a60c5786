"""Twins: jobs that ask the same, of the same bytes, for the same owner. One of them runs; the
others wait for it and are answered with its captions. Reading only: captioning/jobs.py acts on it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, select
from sqlalchemy.orm import Session, aliased

from captioning.models import Caption, Job, JobStatus

Twin = aliased(Job)  # once: to make one takes longer than to ask for it


@dataclass(frozen=True)
class Found:
    """What the twins of some jobs have come to."""

    running: set[str]
    """The jobs of which a twin is in a worker's hands."""
    answers: dict[str, list[Caption]]
    """A twin's captions, best first, by the id of the job that they answer."""


def question(job: Job, sha256: str) -> str:
    """A digest of everything that its captions depend on but the model's revision, which only a
    worker knows, and of whose they are: nobody learns what somebody else has asked."""
    asked = [job.owner, sha256, job.model, job.decoding, job.num_captions, job.max_words]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


def one_runs() -> ColumnElement[bool]:
    """Whether a twin of the job of this row is in a worker's hands."""
    # Not EXISTS: a planner may make of it a join that reads every running job.
    return _first_twin(status=JobStatus.RUNNING).is_not(None)


def look(session: Session, job_ids: Collection[str], revision: str) -> Found:
    """What is committed now of the jobs' twins; answers are those of the revision."""
    source = _first_twin(status=JobStatus.SUCCEEDED, model_revision=revision).label("source")
    query = select(Job.id, one_runs().label("waits"), source).where(Job.id.in_(job_ids))
    rows = session.execute(query).all()
    captions = _captions(session, {row.source for row in rows if row.source})
    # A source without captions has been deleted between the two statements.
    answers = {row.id: captions[row.source] for row in rows if row.source in captions}
    return Found({row.id for row in rows if row.waits}, answers)


def _first_twin(**columns: Any) -> ScalarSelect[str]:
    """The id of a twin with these columns, found in an index however many there are."""
    alike = select(Twin.id).filter_by(**columns).where(Twin.asked == Job.asked)
    return alike.limit(1).scalar_subquery()


def _captions(session: Session, job_ids: Collection[str]) -> dict[str, list[Caption]]:
    captions: dict[str, list[Caption]] = defaultdict(list)
    if job_ids:
        found = select(Caption).where(Caption.job_id.in_(job_ids)).order_by(Caption.rank)
        for caption in session.scalars(found):
            captions[caption.job_id].append(caption)
    return captions
