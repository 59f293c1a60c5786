"""The verbs of a job: the only place that changes its status.

    queued ──claim──▶ running ──succeed──▶ succeeded
      ▲  ▲               │ ├────fail─────▶ failed
      │  └──put back─────┘ └────cancel───▶ cancelled
      └──────────────retry────────────────┘

A claim also answers: what a twin has asked before (captioning/twins.py) succeeds without running.

Every change is one conditional UPDATE. It changes exactly the rows that are still in the
state it expects; a job it does not report was changed by somebody else first. What a claim
does to a running job is conditional on the claim's lease token, so a worker that was
thought dead and comes back changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sqlalchemy import ColumnElement, Row, Update, insert, or_, select, update
from sqlalchemy.orm import Session, lazyload

from captioning import logs, twins, webhooks
from captioning.database import db_now, storable, try_to_hold
from captioning.errors import JobNotFound, UploadTooSlow, WrongState
from captioning.models import (
    Batch,
    Caption,
    Decoding,
    Image,
    Job,
    JobStatus,
    Priority,
    looked_up_id,
    new_id,
)

RETRY_DELAYS_S = (2, 10, 60)
"""Wait before the next attempt after a transient failure, by attempts made so far."""
WAIT_S = 15
"""Before the next attempt where what the job needs was away."""
QUEUE_ORDER = (Job.priority, Job.place, Job.id)
UPLOAD_MAX_S = 1800
"""Time from an upload's image rows to its jobs. The sweeper waits for twice as long."""


@dataclass(frozen=True)
class JobOptions:
    """What a submitter may choose."""

    model: str
    decoding: Decoding = Decoding.BEAM
    num_captions: int = 1
    max_words: int | None = None
    priority: Priority = Priority.INTERACTIVE
    owner: str = ""
    webhook_url: str | None = None


@dataclass(frozen=True)
class ClaimedJob:
    """What a worker needs to know of a job it holds."""

    id: str
    image_key: str
    decoding: Decoding
    num_captions: int
    max_words: int | None
    attempts: int
    request_id: str | None
    waited_s: float
    """From the moment it could be claimed to this claim."""
    webhook: bool
    """Whether somebody is told of its end."""


@dataclass(frozen=True)
class Claim:
    """One worker's time-limited hold on one micro-batch of jobs of one model."""

    token: str
    model: str
    jobs: tuple[ClaimedJob, ...]
    """Those to run; none where all could be answered."""
    answered: tuple[ClaimedJob, ...] = ()
    """Those that have ended with it."""


@dataclass(frozen=True)
class CaptionText:
    """A finished caption, as the worker hands it over."""

    text: str
    mean_log_probability: float


def submit(
    session: Session,
    images: Sequence[Image],
    options: JobOptions,
    *,
    max_attempts: int,
    batch: Batch | None = None,
) -> list[Job]:
    """Queue one job for each image and mark the images as stored.

    The queue goes by rounds: every owner's first waiting job, then every owner's second, and
    so on. Jobs of nobody share their turn with those of their own upload. So one upload of
    10,000 delays a single photograph by one job of its, and needs no ranking to be claimed.
    Source: Goyal, Vin, Cheng, "Start-time Fair Queuing" (1996).

    Raises: UploadTooSlow when the sweeper may take the upload for abandoned by now: bytes
    that it removes must not become a job.
    """
    image_ids = [image.id for image in images]
    fresh = update(Image).where(Image.id.in_(image_ids), Image.created_at > db_now(-UPLOAD_MAX_S))
    stored = session.scalars(fresh.values(stored_at=db_now()).returning(Image.id)).all()
    if len(stored) < len(image_ids):
        raise UploadTooSlow(f"Its files took longer than {UPLOAD_MAX_S} s to store.")
    first = _next_place(session, options.model, options.priority, options.owner)
    jobs = [
        Job(
            id=new_id(),
            batch_id=batch.id if batch else None,
            image_id=image.id,
            model=options.model,
            decoding=options.decoding,
            num_captions=options.num_captions,
            max_words=options.max_words,
            request_id=logs.request_id.get(),
            max_attempts=max_attempts,
            owner=options.owner,
            priority=options.priority,
            place=place,
            webhook_url=options.webhook_url,
        )
        for place, image in enumerate(images, start=first)
    ]
    for job, image in zip(jobs, images, strict=True):
        job.asked = twins.question(job, image.sha256)
    session.add_all(jobs)
    session.flush()
    if batch and options.webhook_url:
        webhooks.promise(session, batch.id, options.webhook_url, options.owner)
    return jobs


def _next_place(session: Session, model: str, priority: int, owner: str) -> int:
    """The round that the queue has come to, or the one after the owner's last waiting job.

    Two uploads at once may both find the same: then they share rounds, and no more.
    """
    whole = session.connection()  # the session may show its owner's jobs only
    like = select(Job.place).where(Job.model == model, Job.priority == priority)
    waiting = like.where(Job.status == JobStatus.QUEUED)
    claimable = waiting.where(Job.available_at <= db_now())
    place = whole.scalar(claimable.order_by(Job.place).limit(1))
    if place is None:  # what runs may be given back: it came before what comes now
        running = like.where(Job.status == JobStatus.RUNNING)
        place = whole.scalar(running.order_by(Job.place.desc()).limit(1)) or 0
    if owner:
        own = waiting.where(Job.owner == owner, Job.owner != "")
        last = whole.scalar(own.order_by(Job.place.desc()).limit(1))
        place = place if last is None else max(place, last + 1)
    return place


def claim(
    session: Session, model: str, *, limit: int, lease_s: float, revision: str = ""
) -> Claim | None:
    """Take up to `limit` claimable jobs of the model, or None when there are none: interactive
    ones before bulk, then round by round, then the oldest.

    1. Lock the head of the queue, passing over rows that another worker is claiming, and over
       jobs of which a twin runs: they wait for what comes of it.
    2. Answer those of which a twin was captioned by this revision of the model.
    3. A job that already cost a worker its life may do so again: it runs alone, so that
       the rest of a micro-batch never pays for it.
    4. Mark the others running under a fresh token and count the attempt, one of each twins.
    """
    chosen, answered = _from_head(session, model, limit, revision)
    if not (chosen or answered):
        return None
    token = new_id()
    claimed = _change(
        session,
        update(Job).where(Job.id.in_(chosen), Job.status == JobStatus.QUEUED),
        status=JobStatus.RUNNING,
        attempts=Job.attempts + 1,
        lease_token=token,
        lease_expires_at=db_now(lease_s),
        started_at=db_now(),
        error_code=None,
        error_message=None,
    )
    rows = session.scalars(
        select(Job)
        .where(Job.id.in_(claimed | answered))
        .order_by(*QUEUE_ORDER)
        .options(lazyload(Job.captions))
        .execution_options(populate_existing=True)
    )
    taken = [_as_claimed(job) for job in rows]
    return Claim(
        token,
        model,
        tuple(job for job in taken if job.id in claimed),
        tuple(job for job in taken if job.id in answered),
    )


def _from_head(
    session: Session, model: str, limit: int, revision: str
) -> tuple[list[str], set[str]]:
    """Locks and answers: the ids of the jobs that are to run, and of those that have ended.

    Of twins that are claimed at once by several, one gets hold of what they ask; the others
    look further back. Whoever gets hold of it looks again: by then a twin may run, or be done.

    Usually none does. Where one is met, ten thousand may follow: those are passed over by their
    name, which costs a tenth of asking for each whether a twin of it runs.
    """
    passed_over: set[str] = set()
    while head := _head(session, model, limit, passed_over):
        ours = [job for job in head if job.asked is None or job.held]
        found = twins.look(session, [job.id for job in ours], revision)
        if found.running:
            passed_over |= {job.asked for job in ours if job.id in found.running}
            continue
        answered = _answer(session, found.answers, revision)
        chosen = _to_run([job for job in ours if job.id not in answered])
        if chosen or answered:
            return chosen, answered
        passed_over |= {job.asked for job in head}
    return [], set()


def _head(session: Session, model: str, limit: int, passed_over: set[str]) -> list[Row[Any]]:
    elsewhere: list[ColumnElement[bool]] = []
    if passed_over:
        elsewhere = [or_(Job.asked.is_(None), Job.asked.not_in(passed_over)), ~twins.one_runs()]
    head = (
        select(*QUEUE_ORDER, Job.attempts, Job.asked)
        .where(*_waiting(model), *elsewhere)
        .order_by(*QUEUE_ORDER)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Job)
        .subquery()
    )
    # Outside of it: what is passed over must not be held.
    locked = session.execute(select(head, try_to_hold(head.c.asked).label("held"))).all()
    return sorted(locked, key=lambda job: (job.priority, job.place, job.id))


def _to_run(free: Sequence[Row[Any]]) -> list[str]:
    """The first of each twins, or a suspect alone."""
    firsts: dict[str, Row[Any]] = {}
    for job in free:
        firsts.setdefault(job.asked or job.id, job)
    if free and free[0].attempts:
        return [free[0].id]
    return [job.id for job in firsts.values() if not job.attempts]


def _answer(session: Session, answers: Mapping[str, Sequence[Caption]], revision: str) -> set[str]:
    """End queued jobs with captions that are known: nothing is started, nothing attempted."""
    if not answers:
        return set()
    waiting = update(Job).where(Job.id.in_(answers), Job.status == JobStatus.QUEUED)
    ended = _finish(session, waiting, JobStatus.SUCCEEDED, model_revision=revision, started_at=None)
    _save(session, {job_id: answers[job_id] for job_id in ended}, revision)
    return ended


def claimable(model: str) -> tuple[ColumnElement[bool], ...]:
    """The jobs of a model that may be claimed now."""
    return (*_waiting(model), ~twins.one_runs())


def _waiting(model: str) -> tuple[ColumnElement[bool], ...]:
    """Those, and the twins of what runs."""
    return (Job.model == model, Job.status == JobStatus.QUEUED, Job.available_at <= db_now())


def renew(session: Session, tokens: Collection[str], *, lease_s: float) -> int:
    """Extend the leases that are still held; returns the number of jobs extended."""
    held = _unlocked(Job.lease_token.in_(list(tokens)), Job.status == JobStatus.RUNNING)
    return len(_change(session, held, lease_expires_at=db_now(lease_s)))


def succeed(
    session: Session,
    token: str,
    captions: Mapping[str, Sequence[CaptionText]],
    *,
    model_revision: str,
) -> set[str]:
    """Save captions by job id, best first; returns the ids of the jobs that were still held."""
    held = _held([token], list(captions))
    saved = _finish(session, held, JobStatus.SUCCEEDED, model_revision=model_revision)
    _save(session, {job_id: captions[job_id] for job_id in saved}, model_revision)
    return saved


def fail(session: Session, token: str, job_id: str, *, code: str, message: str) -> JobStatus | None:
    """End a held job for good: trying again would fail again. Returns the status that it has
    now, or None when it was no longer held."""
    held = _held([token], [job_id])
    ended = _finish(session, held, JobStatus.FAILED, code=code, message=storable(message))
    return JobStatus.FAILED if ended else None


def fail_or_retry(
    session: Session, token: str, job_id: str, *, code: str, message: str
) -> JobStatus | None:
    """After a transient failure: queue a held job for later, or fail it when its attempts
    are used up. Returns the status that it has now, or None when it was no longer held."""
    held = _held([token], [job_id])
    message = storable(message)  # an exception may quote the very bytes that it is about
    last = Job.attempts >= Job.max_attempts
    if _finish(session, held.where(last), JobStatus.FAILED, code=code, message=message):
        return JobStatus.FAILED
    attempts = session.scalar(select(Job.attempts).where(Job.id == job_id)) or 1
    delay_s = RETRY_DELAYS_S[min(attempts, len(RETRY_DELAYS_S)) - 1]
    waits = {"available_at": db_now(delay_s), "error_code": code, "error_message": message}
    return JobStatus.QUEUED if _put_back(session, held, **waits) else None


def put_off(
    session: Session, token: str, job_id: str, *, code: str, message: str
) -> JobStatus | None:
    """Queue a held job for later, with all the attempts that it had: what it needs is away, and
    that is no fault of its own. Returns the status that it has now, or None when it was no longer
    held."""
    held = _held([token], [job_id])
    waits = {"available_at": db_now(WAIT_S), "error_code": code, "error_message": storable(message)}
    put_back = _put_back(session, held, attempts=Job.attempts - 1, **waits)
    return JobStatus.QUEUED if put_back else None


def give_back(session: Session, token: str, job_ids: Sequence[str]) -> set[str]:
    """Queue held jobs again as if they had never been claimed: the worker is stopping."""
    return _put_back(session, _held([token], job_ids), attempts=Job.attempts - 1)


def expire_leases(session: Session) -> tuple[set[str], set[str]]:
    """Take jobs from workers that fell silent: `(queued again, failed as crashed)`."""
    run_out = (Job.status == JobStatus.RUNNING, Job.lease_expires_at < db_now())
    if session.scalar(select(Job.id).where(*run_out).limit(1)) is None:
        return set(), set()  # as nearly always
    silent = _unlocked(*run_out)
    message = "The worker died each time it tried this image."
    crashed = _finish(
        session,
        silent.where(Job.attempts >= Job.max_attempts),
        JobStatus.FAILED,
        code="crashed",
        message=message,
    )
    return _put_back(session, silent, available_at=db_now()), crashed


def cancel(session: Session, job_id: str) -> None:
    """Cancel a job that has not finished. A worker that holds it saves nothing.

    Raises: JobNotFound, WrongState.
    """
    unfinished = update(Job).where(
        Job.id == looked_up_id(job_id), Job.status.in_([JobStatus.QUEUED, JobStatus.RUNNING])
    )
    if not _finish(session, unfinished, JobStatus.CANCELLED):
        _refuse(session, job_id, "cancelled")


def retry(session: Session, job_id: str) -> None:
    """Queue a failed or cancelled job again, with all its attempts. It takes its turn anew: an
    old place would be before all that wait. Its batch will end again, and say so.

    Raises: JobNotFound, WrongState.
    """
    its = (
        Job.id == looked_up_id(job_id),
        Job.status.in_([JobStatus.FAILED, JobStatus.CANCELLED]),
    )
    its_own = select(Job.model, Job.priority, Job.owner, Job.batch_id, Job.webhook_url)
    found = session.execute(its_own.where(*its)).first()
    if found is None:
        _refuse(session, job_id, "retried")
    promised = found.batch_id and found.webhook_url
    if promised:
        webhooks.hold(session, found.batch_id)
    changed = _put_back(
        session,
        update(Job).where(*its),
        place=_next_place(session, found.model, found.priority, found.owner),
        attempts=0,
        available_at=db_now(),
        finished_at=None,
        error_code=None,
        error_message=None,
    )
    if not changed:
        _refuse(session, job_id, "retried")
    if promised:
        webhooks.promise(session, found.batch_id, found.webhook_url, found.owner)


def _as_claimed(job: Job) -> ClaimedJob:
    taken_at = job.started_at or job.finished_at
    assert taken_at is not None  # noqa: S101  (it has just been claimed, or answered)
    return ClaimedJob(
        job.id,
        job.image.key,
        Decoding(job.decoding),
        job.num_captions,
        job.max_words,
        job.attempts,
        job.request_id,
        max((taken_at - job.available_at).total_seconds(), 0),
        job.webhook_url is not None,
    )


def _save(
    session: Session,
    captions: Mapping[str, Sequence[CaptionText | Caption]],
    model_revision: str,
) -> None:
    """Save captions by job id, best first."""
    rows = [
        {
            "job_id": job_id,
            "rank": rank,
            "text": caption.text,
            "mean_log_probability": caption.mean_log_probability,
            "model_revision": model_revision,
        }
        for job_id in sorted(captions)
        for rank, caption in enumerate(captions[job_id])
    ]
    if rows:
        session.execute(insert(Caption), rows)


def _held(tokens: Collection[str], job_ids: Sequence[str] | None = None) -> Update:
    condition: list[ColumnElement[bool]] = [
        Job.lease_token.in_(list(tokens)),
        Job.status == JobStatus.RUNNING,
    ]
    if job_ids is not None:
        condition.append(Job.id.in_(job_ids))
    return update(Job).where(*condition)


def _unlocked(*conditions: ColumnElement[bool]) -> Update:
    """Pass over rows that another transaction is changing: their owner is ending them. What
    touches the rows of many owners and waits for none of them is part of no deadlock."""
    rows = select(Job.id).where(*conditions).with_for_update(skip_locked=True)
    return update(Job).where(Job.id.in_(rows))


def _finish(
    session: Session,
    statement: Update,
    status: JobStatus,
    *,
    code: str | None = None,
    message: str | None = None,
    **values: Any,
) -> set[str]:
    ending = statement.values(
        status=status,
        finished_at=db_now(),
        lease_token=None,
        lease_expires_at=None,
        error_code=code,
        error_message=message,
        **values,
    )
    told = ending.returning(Job.id, Job.batch_id, Job.owner, Job.webhook_url)
    ended = session.execute(told.execution_options(synchronize_session=False)).all()
    webhooks.announce(session, [webhooks.Ended(*row) for row in ended])
    return {row.id for row in ended}


def _put_back(session: Session, statement: Update, **values: Any) -> set[str]:
    return _change(
        session,
        statement,
        status=JobStatus.QUEUED,
        lease_token=None,
        lease_expires_at=None,
        **values,
    )


def _change(session: Session, statement: Update, **values: Any) -> set[str]:
    """Run a conditional UPDATE; returns the ids of the rows that it changed."""
    changing = statement.values(**values).returning(Job.id)
    # The session's copies are not patched up: each verb runs in a transaction of its own.
    return set(session.scalars(changing.execution_options(synchronize_session=False)))


def _refuse(session: Session, job_id: str, verb: str) -> NoReturn:
    status = session.scalar(select(Job.status).where(Job.id == looked_up_id(job_id)))
    if status is None:
        raise JobNotFound(f"There is no job {job_id}.")
    raise WrongState(f"Job {job_id} is {status} and cannot be {verb}.")
