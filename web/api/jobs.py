"""One photograph in, one caption out."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from apiflask import APIBlueprint, EmptySchema
from flask import request
from pydantic import ValidationError

from captioning import editing, finding, forecast, jobs, queries
from captioning.errors import InvalidOption, JobNotFound, NoImage, TooManyImages
from captioning.models import Job, JobStatus
from captioning.queue import Upload
from web import cursors
from web.api.schemas import (
    EditForm,
    JobBody,
    JobByAddress,
    JobForm,
    JobsBody,
    JobsQuery,
    QueueBody,
    WaitQuery,
    job_body,
    jobs_body,
    queue_body,
)
from web.current import queue, whole_queue
from web.etags import Written, conditional, require_unchanged, written
from web.idempotency import IdempotencyHeader, asked_once
from web.intake import fetched, sent_files, uploads
from web.waiting import wait_for

RETRY_AFTER = {"Retry-After": "1"}

bp = APIBlueprint("jobs", __name__, tag="Jobs")


@bp.post("/jobs")
@bp.input(IdempotencyHeader, location="headers", arg_name="header")
@bp.input(JobForm, location="form_and_files", arg_name="form")
@bp.output(JobBody, status_code=202)
@bp.doc(responses=[400, 413, 415, 503])
def create(header: IdempotencyHeader, form: JobForm) -> tuple[JobBody, int, dict[str, str]]:
    """Queue one photograph: a file, or the address of one, which may come as JSON, too.

    Answered at once; `Location` is where the outcome will be.
    """
    if request.is_json:
        form = _of_json()
    once = asked_once(header)
    handle = queue().submit(
        lambda: _photograph(form),
        model=form.model,
        decoding=form.decoding,
        num_captions=form.num_captions,
        max_words=form.max_words,
        priority=form.priority,
        webhook_url=form.webhook_url,
        once=once,
    )
    body = job_body(handle.read())
    return body, 202, {"Location": body.links["self"], **RETRY_AFTER}


def _of_json() -> JobForm:
    """Raises: InvalidOption."""
    try:
        sent = JobByAddress.model_validate(request.get_json())
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InvalidOption("; ".join(wrong)) from error
    return JobForm(**sent.model_dump())


def _photograph(form: JobForm) -> Upload:
    """Raises: NoImage, TooManyImages, ImageRejected."""
    parts = sent_files("image")
    if len(parts) + bool(form.image_url) > 1:
        raise TooManyImages("Send one photograph, or several to /api/v1/batches.")
    if form.image_url:
        return fetched(form.image_url)
    if not parts:
        raise NoImage("Send the photograph as a file 'image', or its address as 'image_url'.")
    return next(uploads(parts))


@bp.get("/jobs/<job_id>")
@bp.input(WaitQuery, location="query", arg_name="query")
@bp.output(JobBody)
@bp.doc(responses=[304, 404, 503])
@conditional
def show(job_id: str, query: WaitQuery) -> tuple[Written, int, dict[str, str]]:
    """Read a job, waiting for its outcome if asked to."""
    wait_for(job_id, query.wait)
    job = queue().read(job_id)
    told = _told(job, request.root_path)
    if job.status == JobStatus.QUEUED and not request.if_none_match.contains_weak(told.tag):
        body = job_body(job)
        body.queue = _standing(job)
        # The tag is the job's: it may stand elsewhere in the queue and be unchanged.
        told = replace(told, content=written(body).content)
    return told, 200, _retry_after(job)


@bp.get("/jobs")
@bp.input(JobsQuery, location="query", arg_name="query")
@bp.output(JobsBody)
@bp.doc(responses=[503])
def index(query: JobsQuery) -> JobsBody:
    """List jobs, newest first."""
    with queue().database.read() as session:
        found = finding.list_jobs(
            session,
            query.wanted(),
            limit=query.limit + 1,
            before=cursors.decode(query.cursor) if query.cursor else None,
        )
    return jobs_body(list(found), query)


@bp.patch("/jobs/<job_id>")
@bp.input(EditForm, location="json", arg_name="form")
@bp.output(JobBody)
@bp.doc(responses=[404, 412, 413, 415, 503])
@conditional
def edit(job_id: str, form: EditForm) -> JobBody:
    """Edit the caption, or mark the photograph as decorative.

    What is left out stays as it is. The model's own texts stay in `captions`.
    """
    with queue().database.write() as session:
        editing.hold(session, job_id)
        require_unchanged(job_body(queries.get_job(session, job_id)))
        if "caption" in form.model_fields_set:
            editing.edit(session, job_id, form.caption)
        if form.decorative is not None:
            editing.mark_decorative(session, job_id, form.decorative)
        return job_body(queries.get_job(session, job_id))


@bp.delete("/jobs/<job_id>")
@bp.output(EmptySchema, status_code=204)
@bp.doc(responses=[404, 503])
def delete(job_id: str) -> tuple[str, int]:
    """Delete a job with its image and captions, for good. One that runs ends with it."""
    if not queue().delete([job_id]):
        raise JobNotFound(f"There is no job {job_id}.")
    return "", 204


@bp.post("/jobs/<job_id>/cancel")
@bp.output(JobBody)
@bp.doc(responses=[404, 409, 503])
def cancel(job_id: str) -> JobBody:
    """Cancel a job that has not ended."""
    with queue().database.write() as session:
        jobs.cancel(session, job_id)
        return job_body(queries.get_job(session, job_id))


@bp.post("/jobs/<job_id>/retry")
@bp.output(JobBody, status_code=202)
@bp.doc(responses=[404, 409, 503])
def retry(job_id: str) -> tuple[JobBody, int, dict[str, str]]:
    """Queue a job again that has failed or was cancelled, with all its attempts."""
    with queue().database.write() as session:
        jobs.retry(session, job_id)
        job = queries.get_job(session, job_id)
    queue().doorbell.ring(job.model)
    body = job_body(job)
    return body, 202, {"Location": body.links["self"], **RETRY_AFTER}


@lru_cache(maxsize=1024)  # what has not changed is the same object
def _told(job: Job, root_path: str) -> Written:
    """The whole of a job but its place in the queue, with links below that path."""
    return written(job_body(job))


def _standing(job: Job) -> QueueBody | None:
    """None where it has been taken up meanwhile."""
    with whole_queue().database.read() as session:
        expected = forecast.of_job(session, job)
        online = job.model in queries.served_models(session)
    return queue_body(expected, online) if expected else None


def _retry_after(job: Job) -> dict[str, str]:
    return {} if job.finished_at else RETRY_AFTER
