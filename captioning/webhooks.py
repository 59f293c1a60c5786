"""Whom to tell that a job or a batch has ended: the table of deliveries and its verbs. How a
message looks and travels is captioning/messages.py.

A job's delivery is written in the transaction that ends the job, a batch's in the one that makes
the batch or tries one of its jobs again; it is due when none of its jobs is left to end. So no
message is forgotten, and one whose sender died is sent again, under the same id.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, func, select, update
from sqlalchemy.orm import Session

from captioning import messages, outgoing, webhook_secrets
from captioning.database import db_now, storable
from captioning.errors import DeliveryNotFound, WebhookUrlRefused, WrongState
from captioning.messages import Answer, Message
from captioning.models import (
    Batch,
    DeliveryStatus,
    Job,
    JobStatus,
    WebhookDelivery,
    looked_up_id,
)
from captioning.outgoing import Network

RETRY_DELAYS_S = (5, 60, 300, 1800, 2 * 3600, 5 * 3600, 8 * 3600, 8 * 3600)
"""Wait after each failed attempt: over a day, all together."""
SENDING_S = 60
"""Whoever sends for longer has died: the message is taken up again."""
LOGGED_ATTEMPTS = 20
KEPT_S = 30 * 24 * 3600

UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)
OPEN = (DeliveryStatus.PENDING, DeliveryStatus.SENDING)


@dataclass(frozen=True)
class Ended:
    """A job that has just ended, and where to say so."""

    id: str
    batch_id: str | None
    owner: str
    webhook_url: str | None


def check_url(url: str, networks: Iterable[Network]) -> None:
    """What a name resolves to is looked at when a message is sent, each time.

    Raises: WebhookUrlRefused.
    """
    try:
        host = outgoing.checked(url).host
    except outgoing.Refused as error:
        raise WebhookUrlRefused(str(error)) from error
    if host == "localhost":  # the one name that is known beforehand
        host = "127.0.0.1"
    with suppress(ValueError):  # another name
        if not outgoing.allowed(str(ipaddress.ip_address(host)), networks):
            raise WebhookUrlRefused(
                f"{host} is not a public address, nor in one of CAPTIONING_WEBHOOK_NETWORKS."
            )


# --- what is to be said -------------------------------------------------------------------


def hold(session: Session, batch_id: str) -> None:
    """Until the transaction ends, nobody else promises anything of the batch. Held before any
    job is, as by captioning/removal.py: who waits for a batch must hold no job of it."""
    row = select(Batch.id).where(Batch.id == batch_id)
    session.execute(row.with_for_update(key_share=True))


def promise(session: Session, batch_id: str, url: str, owner: str) -> None:
    """Say when the batch has ended, which is new or held. In place of what was to be said of it
    before: one of which a job is tried again ends more than once."""
    _take_back(session, WebhookDelivery.batch_id == batch_id)
    session.add(_delivery(url, owner, batch_id=batch_id))
    session.flush()


def announce(session: Session, ended: Sequence[Ended]) -> None:
    """Say that these jobs have ended, in place of what was to be said of them before: a job
    that is tried again ends more than once. Of those of batches all has been promised."""
    alone = [
        _delivery(job.webhook_url, job.owner, job_id=job.id)
        for job in ended
        if job.webhook_url and not job.batch_id
    ]
    if alone:
        _take_back(session, WebhookDelivery.job_id.in_([each.job_id for each in alone]))
        session.add_all(alone)
        session.flush()


def _take_back(session: Session, of_these: ColumnElement[bool]) -> None:
    session.execute(delete(WebhookDelivery).where(of_these, WebhookDelivery.status.in_(OPEN)))


def _delivery(url: str, owner: str, **subject: str) -> WebhookDelivery:
    try:
        host = outgoing.checked(url).netloc.decode()[:300]
    except outgoing.Refused:  # by whoever did not check it; no reason for a job not to end
        host = ""
    return WebhookDelivery(url=url, host=host, owner=owner, **subject)


# --- sending ------------------------------------------------------------------------------


def take_due(session: Session) -> Message | None:
    """Take one message that is due, or None. Of those, the one whose host has the fewest on
    their way: a host that is slow or away holds up its own messages and nobody else's."""
    busy = (
        select(WebhookDelivery.host, func.count().label("count"))
        .where(WebhookDelivery.status == DeliveryStatus.SENDING, WebhookDelivery.next_at > db_now())
        .group_by(WebhookDelivery.host)
        .subquery()
    )
    due = (
        _due(select(WebhookDelivery))
        .outerjoin(busy, busy.c.host == WebhookDelivery.host)
        .order_by(func.coalesce(busy.c.count, 0), WebhookDelivery.next_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=WebhookDelivery)
    )
    while delivery := session.scalar(due):
        body = _body(session, delivery)
        if body is None:  # tried again since: the next look sees that it is not due
            continue
        delivery.status = DeliveryStatus.SENDING
        delivery.attempts += 1
        delivery.next_at = db_now(SENDING_S)  # by the database's clock
        secrets = tuple(webhook_secrets.in_force(session, delivery.owner))
        return Message(delivery.id, delivery.attempts, delivery.url, body, secrets)
    return None


def record(session: Session, message: Message, answer: Answer) -> DeliveryStatus | None:
    """Keep what came of an attempt, and when to make the next. Returns the status that the
    delivery has now, or None when it was somebody else's by then."""
    held = (
        WebhookDelivery.id == message.id,
        WebhookDelivery.attempts == message.attempt,
        WebhookDelivery.status == DeliveryStatus.SENDING,
    )
    log = session.scalar(select(WebhookDelivery.log).where(*held).with_for_update())
    if log is None:
        return None
    status, delay_s = _verdict(message, answer)
    line = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "status_code": answer.status_code,
        "error": storable(answer.error) if answer.error else None,
        "seconds": round(answer.seconds, 3),
    }
    session.execute(
        update(WebhookDelivery)
        .where(*held)
        .values(status=status, next_at=db_now(delay_s), log=[*log, line][-LOGGED_ATTEMPTS:])
    )
    return status


def _verdict(message: Message, answer: Answer) -> tuple[DeliveryStatus, float]:
    if answer.received:
        return DeliveryStatus.DELIVERED, 0
    if answer.hopeless or message.attempt > len(RETRY_DELAYS_S):
        return DeliveryStatus.FAILED, 0
    return DeliveryStatus.PENDING, RETRY_DELAYS_S[message.attempt - 1]


def _due(query: Select[Any]) -> Select[Any]:
    """Not what has not ended, or no longer: a job that is tried again will end again."""
    unfinished = Job.status.in_(UNFINISHED)
    return query.where(
        WebhookDelivery.status.in_(OPEN),
        WebhookDelivery.next_at <= db_now(),
        ~exists().where(Job.id == WebhookDelivery.job_id, unfinished),
        ~exists().where(Job.batch_id == WebhookDelivery.batch_id, unfinished),
    )


def _body(session: Session, delivery: WebhookDelivery) -> bytes | None:
    """None of what is to end again. Nothing is locked: who ends a job has its row, and waits for
    the delivery, which we hold."""
    if delivery.job_id is not None:
        job = session.get_one(Job, delivery.job_id)
        return messages.of_job(job) if JobStatus(job.status).finished else None
    batch = session.get_one(Batch, delivery.batch_id)
    counts = select(Job.status, func.count(), func.max(Job.finished_at))
    rows = session.execute(counts.where(Job.batch_id == batch.id).group_by(Job.status)).all()
    if any(status in UNFINISHED for status, _, _ in rows):
        return None
    return messages.of_batch(
        batch,
        {JobStatus(status): count for status, count, _ in rows},
        max((ended for _, _, ended in rows if ended), default=batch.created_at),
    )


def count_open(session: Session) -> int:
    """Deliveries that are neither received nor given up yet."""
    found = select(func.count()).where(WebhookDelivery.status.in_(OPEN))
    return session.scalar(found) or 0


# --- for their owner ----------------------------------------------------------------------


def list_deliveries(
    session: Session,
    *,
    limit: int,
    before: str | None = None,
    status: DeliveryStatus | None = None,
    job_id: str | None = None,
    batch_id: str | None = None,
) -> Sequence[WebhookDelivery]:
    """Newest first; `before` is the id of the last one of the page before this one."""
    query = select(WebhookDelivery).order_by(WebhookDelivery.id.desc()).limit(limit)
    if before is not None:
        query = query.where(WebhookDelivery.id < looked_up_id(before))
    if status is not None:
        query = query.where(WebhookDelivery.status == status)
    if job_id is not None:
        query = query.where(WebhookDelivery.job_id == looked_up_id(job_id))
    if batch_id is not None:
        query = query.where(WebhookDelivery.batch_id == looked_up_id(batch_id))
    return session.scalars(query).all()


def get_delivery(session: Session, delivery_id: str) -> WebhookDelivery:
    """Raises: DeliveryNotFound."""
    delivery = session.get(WebhookDelivery, looked_up_id(delivery_id))
    if delivery is None:
        raise DeliveryNotFound(f"There is no delivery {delivery_id}.")
    return delivery


def redeliver(session: Session, delivery_id: str) -> None:
    """Send a message again, with all its attempts, under the id that it has.

    Raises: DeliveryNotFound, WrongState.
    """
    again = update(WebhookDelivery).where(
        WebhookDelivery.id == looked_up_id(delivery_id), WebhookDelivery.status.not_in(OPEN)
    )
    values = {"status": DeliveryStatus.PENDING, "attempts": 0, "next_at": db_now()}
    if session.scalar(again.values(**values).returning(WebhookDelivery.id)) is None:
        delivery = get_delivery(session, delivery_id)
        raise WrongState(f"Delivery {delivery_id} is {delivery.status} already.")


def tidy(session: Session) -> None:
    """The sweeper's part: give up what cost its sender its life each time, and forget what is
    long over."""
    session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.status == DeliveryStatus.SENDING,
            WebhookDelivery.next_at <= db_now(),
            WebhookDelivery.attempts > len(RETRY_DELAYS_S),
        )
        .values(status=DeliveryStatus.FAILED)
    )
    session.execute(
        delete(WebhookDelivery).where(
            WebhookDelivery.created_at < db_now(-KEPT_S), WebhookDelivery.status.not_in(OPEN)
        )
    )
