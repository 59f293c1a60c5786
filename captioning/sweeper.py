"""What puts right whatever a dead process left behind. Runs on a timer in every worker;
of all of them, one sweeps in each period."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from sqlalchemy import update
from sqlalchemy.orm import Session

from captioning import access, idempotency, jobs, queries, quotas, webhooks, workers
from captioning.database import db_now
from captioning.errors import Unavailable
from captioning.models import Turn
from captioning.queue import Queue

logger = logging.getLogger(__name__)

DUTY = "sweep"
ABANDONED_AFTER_S = 2 * jobs.UPLOAD_MAX_S
ABANDONED_PER_SWEEP = 500


@dataclass
class SweepReport:
    """What one sweep did."""

    queued_again: set[str] = field(default_factory=set)
    crashed: set[str] = field(default_factory=set)
    rung: dict[str, int] = field(default_factory=dict)
    images_removed: int = 0


def sweep(queue: Queue) -> SweepReport | None:
    """Sweep if it is anybody's turn; None when another worker has swept in this period.

    1. Take the turn, and the jobs of workers that fell silent.
    2. Ring for jobs that wait: their ring was lost, or they were put back just now.
    3. Remove the bytes and rows of uploads that died half-way.

    What nobody waits for is `tidy`'s.
    """
    report = SweepReport()
    with queue.database.write() as session:
        if not _take_turn(session, queue.settings.sweep_s):
            return None
        report.queued_again, report.crashed = jobs.expire_leases(session)
    _ring(queue, report)
    try:
        report.images_removed = _remove_abandoned(queue)
    except Unavailable as error:  # the rest of the sweep must not wait for a store
        logger.warning("bytes of abandoned uploads left behind: %s", error)
    if report.queued_again or report.crashed or report.images_removed:
        logger.warning(
            "swept: %d jobs queued again, %d failed as crashed, %d images removed",
            len(report.queued_again),
            len(report.crashed),
            report.images_removed,
        )
    return report


def tidy(queue: Queue) -> None:
    """Forget what is long over. Several at once are in nobody's way."""
    with queue.database.write() as session:
        workers.forget_dead(session)
        idempotency.forget_old(session)
        webhooks.tidy(session)
        access.forget_old(session)
        quotas.forget_old(session)


def _take_turn(session: Session, period_s: float) -> bool:
    # A turn further away than one period was set by a clock that has been put right since.
    not_now = Turn.next_at.between(db_now(), db_now(period_s))
    due = update(Turn).where(Turn.duty == DUTY, ~not_now)
    return session.scalar(due.values(next_at=db_now(period_s)).returning(Turn.duty)) is not None


def _ring(queue: Queue, report: SweepReport) -> None:
    batch_size = queue.settings.batch_size
    for model in queue.settings.models:
        with queue.database.read() as session:
            waiting = queries.count_claimable(session, model, at_most=batch_size * 16)
        if waiting:
            report.rung[model] = -(-waiting // batch_size)
            queue.doorbell.ring(model, times=report.rung[model])


def _remove_abandoned(queue: Queue) -> int:
    with queue.database.read() as session:
        images = queries.abandoned_images(
            session, older_than_s=ABANDONED_AFTER_S, limit=ABANDONED_PER_SWEEP
        )
    queue.discard(images)
    return len(images)
