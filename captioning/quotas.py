"""How many images a key may hand in by day (UTC). Counted in SQL, in the very transaction that
queues them: what is refused or lost counts for nothing, and what is deleted later does count.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from captioning.database import db_now
from captioning.errors import QuotaExceeded
from captioning.models import Usage

KEPT_DAYS = 30


def require_left(session: Session, owner: str, per_day: int) -> None:
    """Refuse an upload before it costs anything.

    Raises: QuotaExceeded, where nothing is left for today.
    """
    now = _now(session)
    if _left(session, owner, per_day, now.date()) <= 0:
        raise _exceeded(f"This key may hand in {per_day} images a day, and has.", now)


def take(session: Session, owner: str, images: int, per_day: int) -> None:
    """Count images against today's quota: all of them or none.

    Raises: QuotaExceeded.
    """
    now = _now(session)
    today = now.date()
    with suppress(IntegrityError), session.begin_nested():  # today's row may be there
        session.add(Usage(owner=owner, day=today, images=0))
    todays = (Usage.owner == owner, Usage.day == today)
    enough = update(Usage).where(*todays, Usage.images + images <= per_day)
    taken = enough.values(images=Usage.images + images).returning(Usage.owner)
    # Of two uploads at once the second waits here for the first, and sees what that has left.
    if session.scalar(taken.execution_options(synchronize_session=False)) is None:
        left = max(_left(session, owner, per_day, today), 0)
        raise _exceeded(
            f"This key may hand in {per_day} images a day; {left} are left, these are {images}.",
            now,
        )


def forget_old(session: Session) -> None:
    """The sweeper's part: days that nobody asks for any more."""
    session.execute(
        delete(Usage).where(Usage.day < _now(session).date() - timedelta(days=KEPT_DAYS))
    )


def _left(session: Session, owner: str, per_day: int, today: date) -> int:
    counted = select(Usage.images).where(Usage.owner == owner, Usage.day == today)
    return per_day - (session.scalar(counted) or 0)


def _now(session: Session) -> datetime:
    """By the database's clock, in UTC: those of the web servers may disagree."""
    return session.scalars(select(db_now())).one()


def _exceeded(message: str, now: datetime) -> QuotaExceeded:
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return QuotaExceeded(message, retry_after_s=int((midnight - now).total_seconds()) + 1)
