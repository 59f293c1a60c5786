"""What a worker does to jobs, done by the test through the domain's own verbs."""

from __future__ import annotations

from sqlalchemy import update

from captioning import jobs, workers
from captioning.jobs import CaptionText, Claim
from captioning.models import Job, new_id
from captioning.queue import Queue
from tests.factories import MODEL

REVISION = "0123abcd"


def start_worker(queue: Queue) -> None:
    """Register a live worker; nothing is claimed by itself."""
    with queue.database.write() as session:
        workers.register(session, new_id(), name="1@test", models=[MODEL])


def claim(queue: Queue, limit: int = 100) -> Claim:
    """Take the oldest queued jobs, each to have its own outcome: tests send the same photograph
    again and again, of which a worker would run one and answer the others."""
    with queue.database.write() as session:
        session.execute(update(Job).values(asked=None))
        claim = jobs.claim(session, MODEL, limit=limit, lease_s=60)
    assert claim is not None
    return claim


def caption(queue: Queue, *texts: str, limit: int = 100) -> list[str]:
    """Finish the oldest queued jobs with these candidates; returns the ids."""
    held = claim(queue, limit)
    candidates = [CaptionText(text, -0.5 - rank) for rank, text in enumerate(texts)]
    with queue.database.write() as session:
        jobs.succeed(
            session,
            held.token,
            {job.id: candidates for job in held.jobs},
            model_revision=REVISION,
        )
    return [job.id for job in held.jobs]


def fail(queue: Queue, message: str, limit: int = 1) -> list[str]:
    """Fail the oldest queued jobs for good; returns the ids."""
    held = claim(queue, limit)
    with queue.database.write() as session:
        for job in held.jobs:
            jobs.fail(session, held.token, job.id, code="model_error", message=message)
    return [job.id for job in held.jobs]
