"""The register of worker processes: who has its models loaded and was seen lately."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from captioning.database import db_now
from captioning.models import Worker

FORGET_AFTER_S = 600


def register(session: Session, worker_id: str, *, name: str, models: Sequence[str]) -> None:
    session.add(Worker(id=worker_id, name=name, models=list(models)))


def beat(session: Session, worker_id: str) -> bool:
    """Report a worker alive; False when its row has been forgotten."""
    alive = update(Worker).where(Worker.id == worker_id).values(seen_at=db_now())
    return session.scalar(alive.returning(Worker.id)) is not None


def deregister(session: Session, worker_id: str) -> None:
    session.execute(delete(Worker).where(Worker.id == worker_id))


def forget_dead(session: Session) -> None:
    session.execute(delete(Worker).where(Worker.seen_at < db_now(-FORGET_AFTER_S)))


def forget_host(session: Session, host: str) -> None:
    """Forget the workers of a machine. Those that live report themselves again."""
    session.execute(delete(Worker).where(Worker.name.endswith(f"@{host}", autoescape=True)))
