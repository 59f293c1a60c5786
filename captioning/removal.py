"""Jobs taken away for good, and with the last that refers to them their images and batches.

A worker that holds such a job finds nothing to save its captions to. Bytes go after their rows:
an image whose job is gone is one of an upload that never came to a job, and what is killed in
between is finished by the sweeper.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from captioning.models import Batch, IdempotencyKey, Image, Job

QUIETLY = {"synchronize_session": False}
"""The session's copies are not patched up: each removal is a transaction of its own."""


@dataclass(frozen=True)
class Removed:
    """What one transaction took away."""

    job_ids: frozenset[str]
    images: Sequence[Image]
    """Nobody refers to these any more: their bytes are to be removed."""


def remove(session: Session, job_ids: Collection[str], *, patiently: bool) -> Removed:
    """Delete jobs with their captions and messages.

    1. Lock the images and batches, in order: of two that delete the last two jobs of one at
       once, each would leave it to the other.
    2. Delete the jobs: without patience not those that another transaction is changing. (What
       waits for the rows of many owners can be part of a deadlock: wait for one at a time.)
    3. Give up the images and batches that no job is left of.

    The session must see everything: a job of another owner keeps an image all the same.
    """
    of_these = select(Job.image_id, Job.batch_id).where(Job.id.in_(job_ids))
    found = session.execute(of_these).all()
    image_ids = {row.image_id for row in found}
    batch_ids = {row.batch_id for row in found if row.batch_id}
    _lock(session, Image, image_ids)
    _lock(session, Batch, batch_ids)
    rows = select(Job.id).where(Job.id.in_(job_ids)).with_for_update(skip_locked=not patiently)
    deleting = delete(Job).where(Job.id.in_(rows)).returning(Job.id)
    gone = session.scalars(deleting, execution_options=QUIETLY).all()
    images = _give_up_images(session, image_ids)
    remove_empty(session, batch_ids)
    _forget_keys(session, [*gone, *batch_ids])
    return Removed(frozenset(gone), images)


def remove_empty(session: Session, batch_ids: Collection[str]) -> None:
    """Delete those of the batches that have no job."""
    in_use = select(Job.id).where(Job.batch_id == Batch.id).exists()
    empty = delete(Batch).where(Batch.id.in_(batch_ids), ~in_use)
    session.execute(empty, execution_options=QUIETLY)


def _lock(session: Session, table: type[Image | Batch], ids: Iterable[str]) -> None:
    """Against others that lock, as who tries a job again does its batch; not against rows that
    come to refer to these meanwhile."""
    rows = select(table.id).where(table.id.in_(ids)).order_by(table.id)
    session.execute(rows.with_for_update(key_share=True))


def _give_up_images(session: Session, image_ids: Collection[str]) -> Sequence[Image]:
    """As before their upload came to a job. One that comes to a job now has to wait for us, and
    stores it again."""
    in_use = select(Job.id).where(Job.image_id == Image.id).exists()
    unused = update(Image).where(Image.id.in_(image_ids), ~in_use).values(stored_at=None)
    return session.scalars(unused.returning(Image), execution_options=QUIETLY).all()


def _forget_keys(session: Session, made_ids: Collection[str]) -> None:
    """The same request, sent again, is a new one: there is nothing to answer it with."""
    in_use = [select(made.id).where(made.id == IdempotencyKey.made_id) for made in (Job, Batch)]
    dead = [~found.exists() for found in in_use]
    forgetting = delete(IdempotencyKey).where(IdempotencyKey.made_id.in_(made_ids), *dead)
    session.execute(forgetting, execution_options=QUIETLY)
