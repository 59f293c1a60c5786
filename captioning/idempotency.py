"""The same request sent twice is carried out once: a submitter that got no answer sends it
again under the same key, and finds what became of the first.

The key is kept in the very transaction that makes the jobs. Of two at the same moment one
commits; the other is rolled back, undone, and answered with what the first has made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from captioning.database import db_now
from captioning.errors import CaptioningError, IdempotencyKeyReused
from captioning.models import IdempotencyKey

KEPT_S = 24 * 3600


@dataclass(frozen=True)
class Once:
    """The submitter's key, and a digest of all that was asked for under it."""

    key: str
    fingerprint: str

    def of(self, owner: str) -> Once:
        """The same within what an owner has sent: two may choose the same key."""
        if not owner:
            return self
        return replace(self, key=hashlib.sha256(f"{owner} {self.key}".encode()).hexdigest())


class AlreadySubmitted(CaptioningError):
    """The request has been carried out already."""

    code = "already_submitted"


def recall(session: Session, once: Once) -> str | None:
    """The id of the job or batch that was made under the key, if any was.

    Raises: IdempotencyKeyReused, when something else was asked for.
    """
    kept = session.scalar(select(IdempotencyKey).where(IdempotencyKey.key == once.key, _kept()))
    if kept is None:
        return None
    if kept.fingerprint != once.fingerprint:
        raise IdempotencyKeyReused("This Idempotency-Key came with another request before.")
    return kept.made_id


def remember(session: Session, once: Once, made_id: str) -> None:
    """Raises: AlreadySubmitted, when another transaction was first; this one must end."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.key == once.key, ~_kept()))
    session.add(IdempotencyKey(key=once.key, fingerprint=once.fingerprint, made_id=made_id))
    try:
        session.flush()
    except IntegrityError as error:
        raise AlreadySubmitted from error


def forget_old(session: Session) -> None:
    """The sweeper's part: keys past their time."""
    session.execute(delete(IdempotencyKey).where(~_kept()))


def _kept() -> ColumnElement[bool]:
    return IdempotencyKey.created_at > db_now(-KEPT_S)
